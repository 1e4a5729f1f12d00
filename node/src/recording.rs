//! A recording under way: the node's input goes to a log, with what came of it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use execution::{Ingress, Principal, UserError};

use crate::Preset;
use crate::log::{AppendError, Entry, Head, MAGIC, Message, Writer};
use crate::observation::Observation;

/// Bytes buffered on the way to the file. They are written out after each round.
const BUFFER_BYTES: usize = 256 << 10;

/// Appends to a log. Where that fails, the node goes on and the recording doesn't.
#[derive(Debug)]
pub(crate) struct Recording {
    writer: Writer<BufWriter<File>>,
    recorded: Recorded,
    failed: Option<AppendError>,
}

/// What a log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Rounds.
    pub rounds: u64,
    /// Users' messages, refused ones included.
    pub messages: u64,
    /// Queries.
    pub queries: u64,
    /// Bytes.
    pub bytes: u64,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, messages, queries, bytes } = self;
        write!(f, "{rounds} rounds, {messages} messages, {queries} queries, {bytes} bytes")
    }
}

impl Recording {
    pub(crate) fn begin(file: File, preset: Preset) -> Result<Self, AppendError> {
        let writer = Writer::begin(BufWriter::with_capacity(BUFFER_BYTES, file), Head::new(preset))?;
        Ok(Self { writer, recorded: Recorded::default(), failed: None })
    }

    /// Goes on with a log of which `recorded` is whole; `file` ends and stands there.
    pub(crate) fn resume(file: File, recorded: Recorded) -> Self {
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        Self { writer: Writer::resume(out, recorded.bytes), recorded, failed: None }
    }

    /// What was recorded so far.
    pub(crate) fn recorded(&self) -> Recorded {
        Recorded { bytes: self.writer.bytes(), ..self.recorded }
    }

    /// Waits until everything recorded so far is on the disk.
    pub(crate) fn sync(&mut self) -> Result<(), AppendError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        self.writer.flush()?;
        Ok(self.writer.get_ref().get_ref().sync_data()?)
    }

    fn append(&mut self, entry: &Entry<'_>) {
        if self.failed.is_none() {
            self.failed = self.writer.append(entry).err();
        }
    }

    pub(crate) fn create(
        &mut self,
        creator: Principal,
        cycles: u128,
        created: &Result<Principal, UserError>,
    ) {
        let created = created.as_ref().copied().map_err(Into::into);
        self.append(&Entry::Create { creator, cycles, created });
    }

    pub(crate) fn submit<T>(&mut self, message: &Ingress, result: &Result<T, UserError>) {
        self.recorded.messages += 1;
        self.append(&Entry::Submit { message: message.into(), admission: result.into() });
    }

    pub(crate) fn query(&mut self, message: Message<'_>, observed: Vec<Observation>) {
        self.recorded.queries += 1;
        self.append(&Entry::Query { message });
        self.observed(observed);
    }

    pub(crate) fn round(&mut self, time: u64, seed: [u8; 32], observed: Vec<Observation>) {
        self.recorded.rounds += 1;
        self.append(&Entry::Round { time, seed });
        self.observed(observed);
        // A process that is killed leaves every whole round to the operating system.
        if self.failed.is_none() {
            self.failed = self.writer.flush().err();
        }
    }

    fn observed(&mut self, observed: Vec<Observation>) {
        for observation in observed {
            self.append(&Entry::Observed(observation));
        }
    }

    /// Why the recording stopped, if it did.
    pub(crate) fn failure(&self) -> Option<&AppendError> {
        self.failed.as_ref()
    }

    /// Writes the last record, and everything to the disk.
    pub(crate) fn finish(mut self) -> Result<Recorded, AppendError> {
        let Recorded { rounds, messages, queries, .. } = self.recorded;
        self.append(&Entry::End { rounds, messages, queries });
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let bytes = self.writer.bytes();
        let file = self.writer.into_inner()?.into_inner().map_err(|error| error.into_error())?;
        match file.sync_data() {
            // A pipe or a terminal has no disk.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {}
            synced => synced?,
        }
        Ok(Recorded { bytes, ..self.recorded })
    }
}

/// Why a recording can't be made, with its file.
#[derive(Debug, thiserror::Error)]
#[error("could not record to {path}: {cause}")]
pub struct RecordError {
    path: String,
    cause: AppendError,
}

impl RecordError {
    /// `cause`, of the recording to `path`.
    #[must_use]
    pub fn new(path: &Path, cause: impl Into<AppendError>) -> Self {
        Self { path: path.display().to_string(), cause: cause.into() }
    }
}

/// Makes the file of a recording, for its owner alone, over a log that is there already. It can be read, too.
pub(crate) fn create(path: &Path) -> Result<File, RecordError> {
    let options = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    options.and_then(emptied).map_err(|error| RecordError::new(path, error))
}

/// The file without what is in it, which must be a log: a script that is given in a log's place is not to be lost.
fn emptied(mut file: File) -> io::Result<File> {
    let metadata = file.metadata()?;
    // A pipe or a device holds nothing.
    if metadata.is_file() && metadata.len() > 0 {
        let mut start = Vec::new();
        (&file).take(MAGIC.len() as u64).read_to_end(&mut start)?;
        if start != MAGIC {
            return Err(io::Error::other("the file is there and is no log of bulkhead"));
        }
        file.set_len(0)?;
        file.rewind()?;
    }
    Ok(file)
}
