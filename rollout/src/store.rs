//! Where the states of rollouts are kept, with what their verdicts were reached by.
//!
//! What can't be read is an error, never an absent rollout: with a state its latch would be lost, and a
//! candidate that was rolled back would be in force again.

mod files;
mod line;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use files::FileStore;

use crate::RecordError;
use crate::machine::{Rollout, StateError};

/// Most rollouts of a store, those that are over among them.
pub const ROLLOUTS_MAX: usize = 1_000;
/// Verdict records kept of a rollout.
pub const VERDICTS_MAX: usize = 1_000;
/// Longest id of a rollout and longest name of a verdict record, bytes.
pub const ID_BYTES_MAX: usize = 63;
/// Longest reason for which the line is stopped, bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// All that a process needs to go on where another one ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// By id.
    pub rollouts: BTreeMap<String, Rollout>,
    /// What the step under way of each has counted, by id.
    pub counts: BTreeMap<String, Counts>,
    /// Whether anything advances.
    pub line: Line,
}

/// What a step has counted, latencies aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// The run.
    pub run: u32,
    /// The step of the plan, from zero.
    pub step: usize,
    /// Executions on trial of control and candidate.
    pub messages: [u64; 2],
    /// Those of them that trapped.
    pub traps: [u64; 2],
    /// Executions that were compared in shadow.
    pub compared: u64,
    /// Those that differed, and not for the control's own sake.
    pub confirmed: u64,
    /// Time with traffic while it was paused, milliseconds.
    pub paused_ms: u64,
}

/// Whether rollouts advance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Why no rollout advances until somebody lets them; 1 to [`REASON_BYTES_MAX`] bytes without control characters.
    pub stopped: Option<String>,
}

/// Keeps the states of rollouts. One process at a time writes.
///
/// Ids have 1 to [`ID_BYTES_MAX`] ASCII letters, digits, `_` and `-`; names of verdict records `.` too, but not
/// first.
pub trait StateStore: Send {
    /// All that is kept, but verdict records.
    ///
    /// # Errors
    /// Any part can't be read, is damaged, or was written by another version.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Keeps a rollout's state in the place of its last one. When it returns, the state outlives a crash of the
    /// machine.
    ///
    /// # Errors
    /// It can't be written: the last state is still there, or this one, whole; or the id is none.
    fn save(&mut self, id: &str, rollout: &Rollout) -> Result<(), StoreError>;

    /// Keeps what the step under way of a rollout has counted.
    ///
    /// # Errors
    /// As [`StateStore::save`].
    fn save_counts(&mut self, id: &str, counts: &Counts) -> Result<(), StoreError>;

    /// Keeps whether rollouts advance.
    ///
    /// # Errors
    /// It can't be written: what was kept is still there, or this, whole; or the reason is out of bounds.
    fn save_line(&mut self, line: &Line) -> Result<(), StoreError>;

    /// Keeps a verdict record, in the place of one of the same name. Beyond [`VERDICTS_MAX`] of a rollout
    /// others go: the oldest without a FAIL first, then the oldest.
    ///
    /// # Errors
    /// It is no [`VerdictRecord`](crate::VerdictRecord), can't be written, or id or name are none.
    fn keep_verdict(&mut self, id: &str, name: &str, record: &[u8]) -> Result<(), StoreError>;

    /// Names of a rollout's verdict records, the oldest first.
    ///
    /// # Errors
    /// They can't be read, or the id is none.
    fn verdicts(&self, id: &str) -> Result<Vec<String>, StoreError>;

    /// A verdict record, as it was kept.
    ///
    /// # Errors
    /// There is none ([`StoreError::Absent`]), it can't be read, or id or name are none.
    fn verdict(&self, id: &str, name: &str) -> Result<Vec<u8>, StoreError>;
}

/// What a store can't do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel's answer.
    #[error("{}: could not {operation} it: {error}", path.display())]
    Os {
        /// Of what.
        path: PathBuf,
        /// A verb.
        operation: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A state can't be used.
    #[error(
        "{}: {error}. Nothing is changed: restore the file from a copy. Without it the rollout is forgotten, and if it \
         was rolled back, its candidate may be in force again",
        path.display()
    )]
    State {
        /// Of what.
        path: PathBuf,
        /// Why.
        error: StateError,
    },
    /// What says whether rollouts advance can't be used.
    #[error("{}: {what}. Nothing is changed: restore the file from a copy", path.display())]
    Line {
        /// Of what.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// What a step has counted can't be used.
    #[error("{}: {what}. Nothing is changed: restore the file from a copy, or remove it and count anew", path.display())]
    Counts {
        /// Of what.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A part of the store is gone.
    #[error("{}: it is gone from a store that has had it: restore it from a copy", path.display())]
    Gone {
        /// Of what.
        path: PathBuf,
    },
    /// There is no such verdict record.
    #[error("{}: there is no such verdict record", path.display())]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// A file is larger than what it should be can be.
    #[error("{}: it has more than {bytes_max} bytes: restore it from a copy", path.display())]
    TooLarge {
        /// Of what.
        path: PathBuf,
        /// As many are allowed.
        bytes_max: usize,
    },
    /// A state in a file that no rollout can have.
    #[error("{}: no rollout has such an id: rename the file, or move it away", path.display())]
    Foreign {
        /// Of what.
        path: PathBuf,
    },
    /// There are too many rollouts.
    #[error("{}: a store has {ROLLOUTS_MAX} rollouts at most; move files of those that are finished away", path.display())]
    Full {
        /// Of what.
        path: PathBuf,
    },
    /// What should be kept as a verdict record is none.
    #[error("verdict {name}: {error}")]
    Record {
        /// Its name.
        name: String,
        /// Why.
        error: RecordError,
    },
    /// A rollout can't have this id.
    #[error("`{}` is no id of a rollout: 1 to {ID_BYTES_MAX} letters, digits, _ and -", shown(.0))]
    Id(String),
    /// A verdict record can't have this name.
    #[error("`{}` is no name of a verdict: 1 to {ID_BYTES_MAX} letters, digits, _, - and ., not . first", shown(.0))]
    Name(String),
    /// The line can't be stopped for this reason.
    #[error("a reason has 1 to {REASON_BYTES_MAX} bytes and no control characters")]
    Reason,
}

/// The first of a text's characters, none of which does anything to a terminal.
fn shown(text: &str) -> String {
    text.chars().take(ID_BYTES_MAX + 1).flat_map(char::escape_default).collect()
}

/// Ids and names become names of files.
fn check_id(id: &str) -> Result<(), StoreError> {
    if is_word(id, b"_-") { Ok(()) } else { Err(StoreError::Id(id.to_owned())) }
}

fn check_name(name: &str) -> Result<(), StoreError> {
    if is_word(name, b"_-.") && !name.starts_with('.') {
        Ok(())
    } else {
        Err(StoreError::Name(name.to_owned()))
    }
}

fn is_word(text: &str, others: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}
