//! The border between execution and whatever runs a canister's code.

use std::fmt;
use std::sync::Arc;

use crate::{Instructions, Invocation, Limits, Module, Outcome, Snapshot};

/// Runs entry points of canisters on snapshots. It changes nothing but what it returns.
///
/// Implemented by the in-process engine, by the sandbox host, by the selector that chooses between
/// them, and by failing and hostile stand-ins in tests. All give the same outcome for the same input.
pub trait Backend: Send + Sync {
    /// Runs one entry point. `Paused` when the message used up its slice and may go on later.
    ///
    /// # Errors
    /// What failed around the guest; nothing has happened then and the call may be repeated.
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError>;

    /// Most messages that [`Backend::execute_batch`] takes at once; 1: it gains nothing by more.
    fn batch_max(&self) -> usize {
        1
    }

    /// Runs one entry point and, at the same time, some or none of those that are `expected` to follow it, each on the
    /// state that the one before leaves.
    ///
    /// `expected` are made as if every message returned without having used instructions, and changed no size and
    /// nothing else that a later one sees; [`Invocation::charge`] makes up for the instructions. Where a message did
    /// more, none behind it is run. Whoever asks decides by the real invocations which of those executions count.
    ///
    /// # Errors
    /// As for `execute`, and none of the messages has happened then, whichever it was that failed.
    fn execute_batch(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
    ) -> Result<(Execution, Option<Box<dyn Batch>>), BackendError> {
        let _ = expected;
        Ok((self.execute(snapshot, invocation)?, None))
    }

    /// Runs a query or an inspection on a committed snapshot, possibly while an update runs or is paused.
    ///
    /// `overlay` is the snapshot with the private pages of the same composite query's earlier steps;
    /// pages of record of `snapshot` are used where it is `None`. The outcome's memory delta is what
    /// the next step's overlay is made of; the caller drops it at the end of the query.
    ///
    /// # Errors
    /// As for `execute`.
    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError>;

    /// Canisters that it has an idle instance of for messages, each as of its last run; those that ran last first.
    fn warm(&self) -> Vec<Snapshot> {
        Vec::new()
    }

    /// Gets ready to run a canister's messages under the `limits` of its subnet, if it isn't, and if there is room without ending what others may use.
    /// Whether it did.
    ///
    /// # Errors
    /// What failed. A message that runs later tries again.
    fn prewarm(&self, snapshot: &Snapshot, limits: &Limits) -> Result<bool, BackendError> {
        let _ = (snapshot, limits);
        Ok(false)
    }

    /// Gives back some of what is kept idle for later runs, because the node met the limit that `short` names.
    /// Whether there was any: then what failed may be tried again.
    fn relieve(&self, short: &BackendError) -> bool {
        let _ = short;
        false
    }
}

/// What came of running an entry point.
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one and is moved, not stored")]
pub enum Execution {
    /// It ended; the outcome is still to be checked.
    Finished(Outcome),
    /// It used up its slice and can go on.
    Paused(Box<dyn PausedRun>),
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished(outcome) => f.debug_tuple("Finished").field(outcome).finish(),
            Self::Paused(_) => f.write_str("Paused"),
        }
    }
}

/// A message that stopped at the end of its slice. Dropping it aborts it.
pub trait PausedRun: Send {
    /// Goes on with `slice` more instructions.
    ///
    /// # Errors
    /// As for [`Backend::execute`]; the message then runs again from its start.
    fn resume(self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError>;

    /// Gives the run up; it leaves nothing behind.
    fn abort(self: Box<Self>);
}

/// Messages that have been run behind another one, in order. Dropping it discards those that are left.
pub trait Batch: Send {
    /// The next one's execution, if it was run on the state that `snapshot` is: as what came of `invocation`, which is
    /// for the caller to know. With `None`, nothing more will come.
    fn next(
        &mut self,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Option<Result<Execution, BackendError>>;

    /// What is left.
    fn left(&self) -> Left;
}

/// What is left of a [`Batch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Executions.
    pub executions: usize,
    /// Instructions that they used, all together.
    pub instructions: Instructions,
}

/// Turns an uploaded module into something that backends can run.
pub trait Compiler: Send + Sync {
    /// Validates, instruments and compiles `wasm` (raw or gzip), or finds the result in a cache.
    ///
    /// The inner error is the module's fault: deterministic, the same on every node.
    ///
    /// # Errors
    /// What failed around it (compiler process died, out of memory): says nothing of the module.
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError>;
}

/// Why a module is refused: names the section, the offending item and the limit. Becomes IC0505.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidModule(pub String);

impl InvalidModule {
    /// Longest reason, bytes.
    pub const BYTES_MAX: usize = 8 << 10;

    /// A refusal for `reason`, as far as it can be shown: names out of a module may be long, and hold anything.
    #[must_use]
    pub fn new(reason: &str) -> Self {
        let reason = &reason[..reason.floor_char_boundary(Self::BYTES_MAX)];
        Self(reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}

/// What failed around the guest. Never committed: the state is untouched and the message can run again.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The worker's end of the socket closed, or it was killed.
    #[error("the sandbox worker died: {how}")]
    WorkerDied {
        /// Exit code or signal, as the kernel reported it.
        how: String,
    },
    /// No answer within the deadline on the node's clock.
    #[error("the sandbox worker gave no answer within {milliseconds} ms")]
    Deadline {
        /// The deadline.
        milliseconds: u64,
    },
    /// A worker could not be started or confined.
    #[error("could not start a sandbox worker: {0}")]
    Spawn(String),
    /// A resource limit of the node was met; the text names it.
    #[error("out of {limit}: {detail}")]
    Exhausted {
        /// Name of the limit as in the configuration or the kernel's name for it.
        limit: &'static str,
        /// What was asked for and what there was.
        detail: String,
    },
    /// Workers of this canister kept ending, and none is started for a while: whoever asks is told at once, and may
    /// ask again later.
    #[error(
        "{failures} tries in a row failed (the last: {last}); the next is made in {milliseconds} ms at the earliest"
    )]
    BackOff {
        /// In a row.
        failures: u32,
        /// How long there will be none.
        milliseconds: u64,
        /// What the last one was.
        last: String,
    },
    /// The engine failed in a way that no guest can cause.
    #[error("engine failure: {0}")]
    Engine(String),
    /// The worker said what no correct worker says. It has been killed; nothing is committed.
    #[error("violation: {0}")]
    Violation(#[from] Violation),
}

impl From<execution_memory::MemoryError> for BackendError {
    fn from(error: execution_memory::MemoryError) -> Self {
        match error.limit() {
            Some(limit) => Self::Exhausted { limit, detail: error.to_string() },
            None => Self::Engine(error.to_string()),
        }
    }
}

/// A claim that no correct worker makes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);
