//! The store in a directory: `rollouts/ID.json`, `counts/ID.json`, `verdicts/ID/NAME`, `line.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{Line, StateStore, StoreError, Stored, TrialCounts};
use crate::RECORD_BYTES_MAX;
use crate::files::{self, TEMPORARY};
use crate::machine::{Rollout, STATE_BYTES_MAX};

/// Verdict records kept of each rollout; beyond, the oldest go, those that say FAIL last.
pub const VERDICTS_KEPT: usize = 1_000;
/// Files in one directory that are looked at.
const FILES_MAX: usize = 20_000;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 128;
/// Largest of the small files, bytes.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// A store in a directory of one process.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
}

impl FileStore {
    /// The store in `directory`, which is made when something is kept. What a crash left half written is removed.
    ///
    /// # Errors
    /// The directory can't be looked at.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let store = Self { directory: directory.to_owned() };
        let mut places = vec![directory.to_owned(), store.of("rollouts"), store.of("counts")];
        places.extend(names(&store.of("verdicts"))?.iter().map(|id| store.of("verdicts").join(id)));
        for place in places {
            let left = place.join(TEMPORARY);
            match fs::remove_file(&left) {
                // It is looked for again when something is written there.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(store)
    }

    fn of(&self, kind: &str) -> PathBuf {
        self.directory.join(kind)
    }

    fn json<T: DeserializeOwned>(&self, path: &Path) -> Result<T, StoreError> {
        let bytes = read(path, SMALL_BYTES_MAX)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Damaged { path: path.to_owned(), why: error.to_string() })
    }

    /// Every `ID.json` of a kind, each read.
    fn all<T>(
        &self,
        kind: &str,
        read: impl Fn(&Path) -> Result<T, StoreError>,
    ) -> Result<BTreeMap<String, T>, StoreError> {
        let directory = self.of(kind);
        let mut all = BTreeMap::new();
        for name in names(&directory)? {
            if let Some(id) = name.strip_suffix(".json") {
                all.insert(id.to_owned(), read(&directory.join(&name))?);
            }
        }
        Ok(all)
    }

    fn write(&self, kind: &str, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let directory = self.of(kind);
        let written = files::replace(&directory, name, bytes);
        written.map_err(|error| StoreError::Io { path: directory.join(name), what: "write it", error })
    }
}

/// Names in a directory; none where there is no directory.
fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let cannot = |error| StoreError::Io { path: directory.to_owned(), what: "list it", error };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(cannot)?.file_name();
        names.extend(name.into_string().ok().filter(|name| checked(name).is_ok() && name != TEMPORARY));
        if names.len() > FILES_MAX {
            return Err(cannot(io::Error::other(format!("more than {FILES_MAX} files"))));
        }
    }
    names.sort();
    Ok(names)
}

fn checked(name: &str) -> Result<&str, StoreError> {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name =
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(harmless) && !name.starts_with('.');
    if is_name { Ok(name) } else { Err(StoreError::Name(name.chars().take(NAME_BYTES_MAX).collect())) }
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
    files::read(path, bytes_max).map_err(|error| StoreError::Io {
        path: path.to_owned(),
        what: "read it",
        error,
    })
}

impl StateStore for FileStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let rollout = |path: &Path| {
            let damaged = |why: String| StoreError::Damaged { path: path.to_owned(), why };
            let bytes = files::read(path, STATE_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
            Rollout::from_json(&bytes).map_err(|error| damaged(error.to_string()))
        };
        let line = self.of("line.json");
        let stopped = line.try_exists();
        let stopped =
            stopped.map_err(|error| StoreError::Io { path: line.clone(), what: "look for it", error })?;
        Ok(Stored {
            rollouts: self.all("rollouts", rollout)?,
            counts: self.all("counts", |path| self.json(path))?,
            line: if stopped { self.json(&line)? } else { Line::default() },
        })
    }

    fn save(&mut self, id: &str, rollout: &Rollout) -> Result<(), StoreError> {
        self.write("rollouts", &format!("{}.json", checked(id)?), rollout.to_json().as_bytes())
    }

    fn save_counts(&mut self, id: &str, counts: &TrialCounts) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(counts).expect("numbers");
        self.write("counts", &format!("{}.json", checked(id)?), &bytes)
    }

    fn save_line(&mut self, line: &Line) -> Result<(), StoreError> {
        self.write("", "line.json", &serde_json::to_vec(line).expect("a text"))
    }

    fn keep_verdict(&mut self, id: &str, name: &str, record: &[u8]) -> Result<(), StoreError> {
        let directory = format!("verdicts/{}", checked(id)?);
        self.write(&directory, checked(name)?, record)?;
        let kept = self.verdicts(id)?;
        let Some(beyond) = kept.len().checked_sub(VERDICTS_KEPT).filter(|beyond| *beyond > 0) else {
            return Ok(());
        };
        // By name alone: whoever keeps one says in its name how it ended and when.
        let (failed, others): (Vec<_>, Vec<_>) = kept.into_iter().partition(|name| name.contains("FAIL"));
        for old in others.iter().chain(&failed).filter(|old| *old != name).take(beyond) {
            let path = self.of(&directory).join(old);
            fs::remove_file(&path).map_err(|error| StoreError::Io { path, what: "remove it", error })?;
        }
        Ok(())
    }

    fn verdicts(&self, id: &str) -> Result<Vec<String>, StoreError> {
        names(&self.of("verdicts").join(checked(id)?))
    }

    fn verdict(&self, id: &str, name: &str) -> Result<Vec<u8>, StoreError> {
        read(&self.of("verdicts").join(checked(id)?).join(checked(name)?), RECORD_BYTES_MAX)
    }
}
