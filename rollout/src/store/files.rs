//! A store in a directory.
//!
//! ```text
//!  rollouts/ID.json      the state of each rollout
//!  counts/ID.json        what its step under way has counted
//!  verdicts/ID/NAME      verdict records; NAME+fail where a guard said FAIL
//!  line.json             whether rollouts advance
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::line::{self, LINE_BYTES_MAX};
use super::{Counts, Line, ROLLOUTS_MAX, StateStore, StoreError, Stored, VERDICTS_MAX, check_id, check_name};
use crate::directory::{Directory, Listed};
use crate::machine::{Rollout, STATE_BYTES_MAX};
use crate::{RECORD_BYTES_MAX, VerdictRecord};

const ROLLOUTS: &str = "rollouts";
const COUNTS: &str = "counts";
/// Largest file of counts, bytes.
const COUNTS_BYTES_MAX: usize = 4 << 10;
const VERDICTS: &str = "verdicts";
const LINE: &str = "line.json";
/// How the name of a state's file ends.
const STATE: &str = ".json";
/// How the name of a record's file ends that holds a FAIL. No name has a `+`.
const FAIL: &str = "+fail";

/// Keeps states in files. The directory is opened anew for each use, so that one that was gone is noticed, and found
/// again when it is back.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
}

/// One of a rollout's verdict records.
struct Record {
    name: String,
    failed: bool,
    written: (i64, u64),
}

impl FileStore {
    /// Opens the store in a directory of this node's own; makes it for this user alone if it is absent. What a
    /// process left unfinished that died is removed. One process at a time: its caller holds a lock.
    ///
    /// # Errors
    /// The directory can't be made or read, or a part of the store is gone from it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self { path: path.to_owned() };
        let root = Directory::make(path).map_err(os(path, "make"))?;
        let has = |name: &str| root.has(name).map_err(os(&path.join(name), "find"));
        match (has(ROLLOUTS)?, has(LINE)?) {
            (true, true) => {}
            (false, true) => return Err(StoreError::Gone { path: path.join(ROLLOUTS) }),
            (true, false) if !store.states()?.is_empty() => {
                return Err(StoreError::Gone { path: path.join(LINE) });
            }
            // New, or a process died when it made it.
            (_, false) => {
                root.make_inner(ROLLOUTS).map_err(os(&path.join(ROLLOUTS), "make"))?;
                store.save_line(&Line::default())?;
            }
        }
        store.remove_incoming();
        Ok(store)
    }

    /// The store in a directory, to read from it while another one writes: nothing is made or removed.
    #[must_use]
    pub fn beside(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// What can't be removed does no harm: the next writer there says why it can't.
    fn remove_incoming(&self) {
        let rollouts = self.rollouts();
        let records = self.inner(VERDICTS).and_then(|verdicts| {
            Ok(verdicts
                .list()?
                .into_iter()
                .filter_map(|id| verdicts.inner(&id.name).ok())
                .collect::<Vec<_>>())
        });
        let root = Directory::open(&self.path);
        let counts = self.inner(COUNTS);
        let records = records.into_iter().flatten();
        for directory in root.into_iter().chain(rollouts).chain(counts).chain(records) {
            let _stays = directory.remove_incoming();
        }
    }

    fn inner(&self, name: &str) -> io::Result<Directory> {
        Directory::open(&self.path)?.inner(name)
    }

    fn rollouts(&self) -> Result<Directory, StoreError> {
        self.inner(ROLLOUTS).map_err(os(&self.path.join(ROLLOUTS), "open"))
    }

    /// Ids of all states that are kept. Files with other names are left alone.
    fn states(&self) -> Result<Vec<String>, StoreError> {
        let path = self.path.join(ROLLOUTS);
        let listed = self.rollouts()?.list().map_err(os(&path, "list"))?;
        let ids: Vec<String> =
            listed.iter().filter_map(|listed| Some(listed.name.strip_suffix(STATE)?.to_owned())).collect();
        if ids.len() > ROLLOUTS_MAX {
            return Err(StoreError::Full { path });
        }
        Ok(ids)
    }

    /// What the step of a rollout has counted, if it has.
    fn counts(&self, id: &str) -> Result<Option<(String, Counts)>, StoreError> {
        let name = format!("{id}{STATE}");
        let path = self.path.join(COUNTS).join(&name);
        let directory = match self.inner(COUNTS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(os(&path, "open"))?,
        };
        if !directory.has(&name).map_err(os(&path, "find"))? {
            return Ok(None);
        }
        let bytes = read(&directory, &path, &name, COUNTS_BYTES_MAX)?;
        let counts = serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Counts { path, what: error.to_string() })?;
        Ok(Some((id.to_owned(), counts)))
    }

    /// Where a rollout's verdict records are, if it has any.
    fn records_directory(&self, id: &str) -> Result<Option<Directory>, StoreError> {
        check_id(id)?;
        let path = self.path.join(VERDICTS).join(id);
        let root = Directory::open(&self.path).map_err(os(&self.path, "open"))?;
        match root.inner(VERDICTS).and_then(|verdicts| verdicts.inner(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(opened.map_err(os(&path, "open"))?)),
        }
    }

    /// Removes what is more than may be kept. The newest stays.
    fn forget_oldest(&self, id: &str, directory: &Directory, newest: &str) -> Result<(), StoreError> {
        let path = self.path.join(VERDICTS).join(id);
        let mut records = records(directory.list().map_err(os(&path, "list"))?);
        let too_many = records.len().saturating_sub(VERDICTS_MAX);
        records.retain(|record| record.name != newest);
        // Otherwise in the order in which they were written.
        records.sort_by_key(|record| record.failed);
        for record in records.iter().take(too_many) {
            for name in [record.name.clone(), record.name.clone() + FAIL] {
                directory.remove(&name).map_err(os(&path.join(&name), "remove"))?;
            }
        }
        Ok(())
    }
}

impl StateStore for FileStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let path = self.path.join(LINE);
        let root = Directory::open(&self.path).map_err(os(&self.path, "open"))?;
        let line = line::read(&read(&root, &path, LINE, LINE_BYTES_MAX)?)
            .map_err(|what| StoreError::Line { path, what })?;
        let directory = self.rollouts()?;
        let load_one = |id: String| {
            let name = id.clone() + STATE;
            let path = self.path.join(ROLLOUTS).join(&name);
            if check_id(&id).is_err() {
                return Err(StoreError::Foreign { path });
            }
            let bytes = read(&directory, &path, &name, STATE_BYTES_MAX)?;
            let rollout = Rollout::from_json(&bytes).map_err(|error| StoreError::State { path, error })?;
            Ok((id, rollout))
        };
        let rollouts: Result<BTreeMap<String, Rollout>, StoreError> =
            self.states()?.into_iter().map(load_one).collect();
        let rollouts = rollouts?;
        let counts = rollouts.keys().filter_map(|id| self.counts(id).transpose());
        Ok(Stored { counts: counts.collect::<Result<_, StoreError>>()?, rollouts, line })
    }

    fn save_counts(&mut self, id: &str, counts: &Counts) -> Result<(), StoreError> {
        check_id(id)?;
        let name = format!("{id}{STATE}");
        let path = self.path.join(COUNTS).join(&name);
        let root = Directory::open(&self.path).map_err(os(&self.path, "open"))?;
        let directory = root.make_inner(COUNTS).map_err(os(&path, "make"))?;
        let text = serde_json::to_string(counts).expect("numbers");
        directory.replace(&name, text.as_bytes()).map_err(os(&path, "write"))
    }

    fn save(&mut self, id: &str, rollout: &Rollout) -> Result<(), StoreError> {
        check_id(id)?;
        let name = format!("{id}{STATE}");
        let directory = self.rollouts()?;
        let path = self.path.join(ROLLOUTS).join(&name);
        let is_new = !directory.has(&name).map_err(os(&path, "find"))?;
        if is_new && self.states()?.len() >= ROLLOUTS_MAX {
            return Err(StoreError::Full { path: self.path.join(ROLLOUTS) });
        }
        directory.replace(&name, rollout.to_json().as_bytes()).map_err(os(&path, "write"))
    }

    fn save_line(&mut self, line: &Line) -> Result<(), StoreError> {
        if line.stopped.as_deref().is_some_and(|reason| !line::is_reason(reason)) {
            return Err(StoreError::Reason);
        }
        let root = Directory::open(&self.path).map_err(os(&self.path, "open"))?;
        root.replace(LINE, line::write(line).as_bytes()).map_err(os(&self.path.join(LINE), "write"))
    }

    fn keep_verdict(&mut self, id: &str, name: &str, record: &[u8]) -> Result<(), StoreError> {
        check_id(id)?;
        check_name(name)?;
        let failed = VerdictRecord::from_json(record)
            .map_err(|error| StoreError::Record { name: name.to_owned(), error })?
            .has_failed();
        let root = Directory::open(&self.path).map_err(os(&self.path, "open"))?;
        let path = self.path.join(VERDICTS).join(id);
        let made = root.make_inner(VERDICTS).and_then(|verdicts| verdicts.make_inner(id));
        let directory = made.map_err(os(&path, "make"))?;
        let [mut kept, mut other] = [name.to_owned(), name.to_owned() + FAIL];
        if failed {
            std::mem::swap(&mut kept, &mut other);
        }
        directory.replace(&kept, record).map_err(os(&path.join(&kept), "write"))?;
        directory.remove(&other).map_err(os(&path.join(&other), "remove"))?;
        self.forget_oldest(id, &directory, name)
    }

    fn verdicts(&self, id: &str) -> Result<Vec<String>, StoreError> {
        let Some(directory) = self.records_directory(id)? else { return Ok(Vec::new()) };
        let listed = directory.list().map_err(os(&self.path.join(VERDICTS).join(id), "list"))?;
        Ok(records(listed).into_iter().map(|record| record.name).collect())
    }

    fn verdict(&self, id: &str, name: &str) -> Result<Vec<u8>, StoreError> {
        check_name(name)?;
        let directory = self.records_directory(id)?;
        let path = self.path.join(VERDICTS).join(id).join(name);
        let Some(directory) = directory else { return Err(StoreError::Absent { path }) };
        for file in [format!("{name}{FAIL}"), name.to_owned()] {
            let path = path.with_file_name(&file);
            if directory.has(&file).map_err(os(&path, "find"))? {
                return read(&directory, &path, &file, RECORD_BYTES_MAX);
            }
        }
        Err(StoreError::Absent { path })
    }
}

/// Those of a directory's files that are records, the oldest first.
fn records(listed: Vec<Listed>) -> Vec<Record> {
    let record = |Listed { name, written }: Listed| {
        let (name, failed) = match name.strip_suffix(FAIL) {
            Some(name) => (name.to_owned(), true),
            None => (name, false),
        };
        check_name(&name).is_ok().then_some(Record { name, failed, written })
    };
    let mut records: Vec<Record> = listed.into_iter().filter_map(record).collect();
    // A process that died may have left two of the same name: the one that counts is the one that is read.
    records.sort_by(|a, b| (&a.name, b.failed).cmp(&(&b.name, a.failed)));
    records.dedup_by(|a, b| a.name == b.name);
    records.sort_by(|a, b| (a.written, &a.name).cmp(&(b.written, &b.name)));
    records
}

fn read(directory: &Directory, path: &Path, name: &str, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
    let bytes = directory.read(name, bytes_max).map_err(os(path, "read"))?;
    if bytes.len() > bytes_max {
        return Err(StoreError::TooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}

fn os(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Os { path, operation, error }
}
