//! The state directory: the input log, and the lock that keeps it to one process.

use std::fs::{DirBuilder, File};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::Preset;
use crate::log::{Extent, Reader, Survey, survey};
use crate::recording::{Recorded, Recording};

const LOCK: &str = "lock";
const INPUT_LOG: &str = "input.log";
/// The log before it has its head.
const NEW_LOG: &str = "input.log.new";
/// Bytes read ahead.
const BUFFER_BYTES: usize = 256 << 10;

/// A directory that no other process uses.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl StateDir {
    /// Makes the directory for this user alone, if it is absent, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let cannot = |what: &str, error: &dyn std::fmt::Display| {
            format!("{}: could not {what}: {error}", path.display())
        };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(cannot("make the state directory", &error));
            }
            Ok(()) | Err(_) => {}
        }
        let options =
            File::options().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK));
        let lock = options.map_err(|error| cannot("open the lock file in it", &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(Errno::WOULDBLOCK) => {
                Err(format!("{}: another process uses this state directory: stop it first", path.display()))
            }
            Err(error) => Err(cannot("lock it", &error)),
        }
    }

    /// The log that is there, or a new one.
    ///
    /// It is refused where it is damaged, and never written over. One that ends early, because the process that wrote it
    /// was killed, is good up to its last whole round: what follows was never acknowledged.
    pub(super) fn input_log(&self, preset: Preset) -> Result<InputLog, String> {
        let path = self.path.join(INPUT_LOG);
        let refused = |why: &dyn std::fmt::Display| {
            format!(
                "{}: {why}. Nothing is changed: restore it from a copy, or start with another --state",
                path.display()
            )
        };
        if !path.try_exists().map_err(|error| refused(&error))? {
            self.create(preset).map_err(|error| format!("{}: could not make it: {error}", path.display()))?;
        }
        let file = File::options().read(true).write(true).open(&path).map_err(|error| refused(&error))?;
        let survey =
            survey(BufReader::with_capacity(BUFFER_BYTES, &file)).map_err(|error| refused(&error))?;
        if let Some((recorded, here)) = survey.head.conflict() {
            return Err(refused(&format!(
                "limits have changed since: recorded with `{recorded}`, here it is `{here}`"
            )));
        }
        Ok(InputLog { file, path, survey })
    }

    /// Under another name until it has its head, so that there is no log without one.
    fn create(&self, preset: Preset) -> Result<(), Box<dyn std::error::Error>> {
        let new = self.path.join(NEW_LOG);
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        Recording::begin(file, preset)?.sync()?;
        std::fs::rename(new, self.path.join(INPUT_LOG))?;
        Ok(File::open(&self.path)?.sync_all()?)
    }
}

/// The ordered input so far.
#[derive(Debug)]
pub(super) struct InputLog {
    file: File,
    path: PathBuf,
    survey: Survey,
}

impl InputLog {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Rounds that are whole.
    pub(super) fn rounds(&self) -> u64 {
        self.survey.rounds
    }

    /// Where the last whole round ends.
    pub(super) fn rounds_end(&self) -> u64 {
        self.survey.rounds_end
    }

    /// Why it ends early, where it does.
    pub(super) fn cut(&self) -> Option<String> {
        match &self.survey.extent {
            Extent::Whole => None,
            // Without an end a whole log, too, was left by a process that was killed.
            Extent::Until(_, error) => Some(error.to_string()),
        }
    }

    /// Reads it from its start.
    pub(super) fn read(&self) -> Result<Reader<BufReader<&File>>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let mut file = &self.file;
        file.rewind().map_err(|error| failed(&error))?;
        Reader::begin(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(|error| failed(&error))
    }

    /// Goes on after the last whole round. What follows there is cut off: the end of an orderly stop, or what a killed
    /// process left unfinished.
    pub(super) fn resume(self) -> Result<Recording, String> {
        let Self { mut file, path, survey: Survey { rounds, messages, queries, rounds_end, .. } } = self;
        let cut = file
            .set_len(rounds_end)
            .and_then(|()| file.seek(SeekFrom::Start(rounds_end)))
            .and_then(|_| file.sync_all());
        cut.map_err(|error| format!("{}: could not cut it after round {rounds}: {error}", path.display()))?;
        Ok(Recording::resume(file, Recorded { rounds, messages, queries, bytes: rounds_end }))
    }
}
