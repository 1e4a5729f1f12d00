//! What an execution is: messages, canister state, the [`Backend`] border, `check` and `apply`, rounds.
//!
//! Four verbs: schedule -> select -> execute -> commit. This crate owns the first and the last and
//! defines the border between; it contains no engine, does no IO, reads no clock. Equal inputs give
//! equal outcomes, whatever the backend and the number of threads.

#![forbid(unsafe_code)]

mod answer;
mod apply;
pub mod backend;
pub mod certification;
pub mod check;
pub mod error;
pub mod executors;
pub mod limits;
mod management;
pub mod message;
pub mod module;
mod observe;
pub mod outcome;
pub mod query;
pub mod report;
pub mod root;
mod run;
mod schedule;
pub mod snapshot;
pub mod state;
pub mod subnet;
mod text;

pub use backend::{
    Backend, BackendError, Batch, Compiler, Execution, InvalidModule, Left, PausedRun, Violation,
};
pub use certification::{Certificate, CertifiedState, ReadStateError, Signer};
pub use check::{Checked, check};
pub use error::{ErrorCode, UserError};
pub use execution_memory as memory;
pub use executors::{EXECUTOR_STACK_BYTES, MemoryOptions, SchedulerOptions};
pub use ic_principal::Principal;
pub use limits::{Limits, Prices, slices_max};
pub use management::PendingError;
pub use message::{Callback, EntryPoint, Freezing, Invocation, RunStatus, SystemView};
pub use module::{Module, ModuleHash};
pub use observe::{MessageKey, RoundObserver};
pub use outcome::{Answer, Effects, Ending, MemoryDelta, Outcome, OutgoingCall, Trap};
pub use query::{QueryAnswer, QueryView};
pub use report::{Ended, Executed, Failure, RoundReport};
pub use root::{StateRoot, state_root};
pub use snapshot::{GlobalValue, Snapshot};
pub use state::{Ingress, IngressStatus, MessageId, SubnetConfig, SubnetState};
pub use subnet::Subnet;

/// An amount of cycles.
pub type Cycles = u128;
/// Nanoseconds since 1970-01-01, from the ordered input; never from a clock.
pub type Nanoseconds = u64;
/// Instructions as counted by the instrumentation (`canister-execution.md` section 3).
pub type Instructions = u64;
