//! What a round did, for drivers: nothing here is replicated.

use crate::memory::PAGE_BYTES;
use crate::outcome::LogLine;
use crate::state::MessageId;
use crate::{Instructions, Principal, UserError};

/// One run of one entry point that was committed (or, in queries, dropped as it should be).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The canister.
    pub canister: Principal,
    /// Id of the [`crate::Invocation`]; differs from run to run of equal inputs.
    pub invocation: u64,
    /// As in [`crate::EntryPoint::kind`].
    pub kind: &'static str,
    /// Method name, where there is one.
    pub method: Option<String>,
    /// The user's message that this run belongs to directly.
    pub ingress: Option<MessageId>,
    /// How it ended.
    pub ended: Ended,
    /// Instructions used.
    pub instructions: Instructions,
    /// Heap pages written.
    pub heap_pages_dirty: u64,
    /// Stable pages written.
    pub stable_pages_dirty: u64,
    /// What it printed.
    pub logs: Vec<LogLine>,
    /// The canister's part of the state root after the whole message, when asked for.
    pub state_root: Option<[u8; 32]>,
}

impl Executed {
    /// Bytes of memory that it wrote and that were kept.
    pub(crate) fn bytes_written(&self) -> u64 {
        match self.ended {
            Ended::Trap(_) => 0,
            _ if self.kind == "replicated_query" => 0,
            Ended::Reply | Ended::Reject(_) | Ended::NoAnswer => {
                (self.heap_pages_dirty + self.stable_pages_dirty) * PAGE_BYTES as u64
            }
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It replied.
    Reply,
    /// It rejected, with this text.
    Reject(String),
    /// It returned without answering.
    NoAnswer,
    /// It was undone.
    Trap(UserError),
}

/// A canister whose round was stopped because the backend kept failing. Nothing of it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The canister.
    pub canister: Principal,
    /// What failed, last time.
    pub error: String,
    /// Whether it was a violation.
    pub violation: bool,
    /// Rounds in a row that it has failed, this one included unless the node lacked something for it.
    pub rounds: u32,
}

/// What a round did.
#[derive(Clone, Debug, Default)]
pub struct RoundReport {
    /// Runs, in an order that doesn't depend on the number of threads.
    pub executed: Vec<Executed>,
    /// Canisters that were skipped.
    pub failures: Vec<Failure>,
    /// Whether work is left for the next round.
    pub more: bool,
}
