//! What outlives a process: where each rollout is, what its step has counted, its verdicts, and whether the line is
//! stopped.

mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use file::{FileStore, VERDICTS_KEPT};

use crate::machine::Rollout;

/// Where a driver keeps what it must not lose. Each write is there whole or not at all, and lasting when it returns.
pub trait StateStore: Send {
    /// Everything but verdicts.
    ///
    /// # Errors
    /// Something that is there can't be read or is damaged: going on without it could lift a latch.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Keeps where the rollout `id` is.
    ///
    /// # Errors
    /// It can't be written; what was kept before still is.
    fn save(&mut self, id: &str, rollout: &Rollout) -> Result<(), StoreError>;

    /// Keeps what the step of the rollout `id` has counted.
    ///
    /// # Errors
    /// As [`StateStore::save`].
    fn save_counts(&mut self, id: &str, counts: &TrialCounts) -> Result<(), StoreError>;

    /// Keeps whether the line is stopped.
    ///
    /// # Errors
    /// As [`StateStore::save`].
    fn save_line(&mut self, line: &Line) -> Result<(), StoreError>;

    /// Keeps a verdict record. The oldest go beyond a bound.
    ///
    /// # Errors
    /// As [`StateStore::save`].
    fn keep_verdict(&mut self, id: &str, name: &str, record: &[u8]) -> Result<(), StoreError>;

    /// The names of the records of a rollout, in their order.
    ///
    /// # Errors
    /// They can't be listed.
    fn verdicts(&self, id: &str) -> Result<Vec<String>, StoreError>;

    /// A record.
    ///
    /// # Errors
    /// It isn't there, or can't be read.
    fn verdict(&self, id: &str, name: &str) -> Result<Vec<u8>, StoreError>;
}

/// What was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// By id.
    pub rollouts: BTreeMap<String, Rollout>,
    /// By id.
    pub counts: BTreeMap<String, TrialCounts>,
    /// Of all rollouts.
    pub line: Line,
}

/// Whether any rollout may go on to a next step. Rollbacks always may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Why it is stopped; `None`: it isn't.
    pub stopped: Option<String>,
}

/// What the step under way has counted, latencies aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialCounts {
    /// The run.
    pub run: u32,
    /// The step, from zero.
    pub step: usize,
    /// Executions on trial of control and candidate.
    pub messages: [u64; 2],
    /// Those that trapped.
    pub traps: [u64; 2],
    /// Executions that were compared in shadow.
    pub compared: u64,
    /// Those that differed, and not for the control's own sake.
    pub confirmed: u64,
    /// Time with traffic while it was paused, milliseconds.
    pub paused_ms: u64,
}

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk said no.
    #[error("{}: could not {what}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        error: std::io::Error,
    },
    /// What is there is not what was kept.
    #[error(
        "{}: {why}. Nothing goes on without it, because a latch could be lost: restore it from a copy, or move it away to begin anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A name that could be another file's.
    #[error("`{0}` is no name: 1 to 128 letters, digits, `-`, `_` or `.`, not at the start")]
    Name(String),
}
