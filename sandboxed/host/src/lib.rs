//! The trusted side of the sandbox: [`Sandboxed`] runs each canister in a worker process of its own.
//!
//! The calling thread sends a request and waits for its reply; there are no threads in between. A worker is a
//! token that a call consumes: it comes back only with an answer that was right in form, so a worker that
//! failed or lied can't be used again, and dropping it kills it. What an answer claims is checked before a
//! number of it is used, and the pages it claims are copied out of the worker by the node, then checked by
//! `execution::check` like any other outcome.
//!
//! - [`source`], [`Launchers`]: where confined processes come from (the launchers, or a stand-in for tests);
//! - `worker`: the token, its deadline, and the phases BEGIN, LOAD, RUN;
//! - `resident`: a worker with a canister in it, and the diff that brings it up to date;
//! - `claims`: what a reply says, checked against what it may say;
//! - [`report`]: what confines a worker on this machine, and how that was seen;
//! - `table`, `pool`: which workers there are, eviction, workers launched ahead;
//! - `pace`: how slow an honest worker can be, and so how long one may take;
//! - `back_off`: whoever keeps failing waits;
//! - `fault`: failures on their way out, and kinds of violations;
//! - `housekeeping`: measures workers, and ends those that have to go;
//! - [`Sandboxed`]: the backend;
//! - [`SandboxedCompiler`]: modules compiled in processes of their own, each asked through an `exchange`.

#![forbid(unsafe_code)]

mod back_off;
mod behind;
mod claims;
mod compiler;
mod exchange;
mod fault;
mod housekeeping;
mod launchers;
mod options;
mod pace;
mod paused;
mod pool;
pub mod report;
mod resident;
mod sandboxed;
pub mod source;
mod status;
mod table;
mod worker;

pub use compiler::{CompilerOptions, SandboxedCompiler};
pub use launchers::{Images, Launchers};
pub use options::{Observer, Phases, ROUND_TRIP_EVERY, RoundTripObserver, SandboxOptions, Unwanted};
pub use sandbox_os::Ended;
pub use sandbox_os::machine::memory_bytes as machine_memory_bytes;
pub use sandboxed::Sandboxed;
pub use status::{Confinement, Evictions, LiveWorker, Role, SandboxStatus, Violations};
