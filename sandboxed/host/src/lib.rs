//! The trusted side of the sandbox: [`Sandboxed`] runs each canister in a worker process of its own.
//!
//! The calling thread sends a request and waits for its reply; there are no threads in between. A worker is a
//! token that a call consumes: it comes back only with an answer that was right in form, so a worker that
//! failed or lied can't be used again, and dropping it kills it. What an answer claims is checked before a
//! number of it is used, and the pages it claims are copied out of the worker by the node, then checked by
//! `execution::check` like any other outcome.
//!
//! - [`source`]: where confined processes come from (the launchers, or a stand-in for tests);
//! - `worker`: the token, its deadline, and the phases BEGIN, LOAD, RUN;
//! - `resident`: a worker with a canister in it, and the diff that brings it up to date;
//! - `claims`: what a reply says, checked against what it may say;
//! - `table`, `pool`: which workers there are, eviction, workers launched ahead;
//! - `housekeeping`: measures workers, and ends those that have to go;
//! - [`Sandboxed`]: the backend.

#![forbid(unsafe_code)]

mod claims;
mod housekeeping;
mod launchers;
mod options;
mod paused;
mod pool;
mod resident;
mod sandboxed;
pub mod source;
mod status;
mod table;
mod worker;

pub use launchers::{Images, Launchers};
pub use options::{Observer, Phases, SandboxOptions};
pub use sandbox_os::machine::memory_bytes as machine_memory_bytes;
pub use sandboxed::Sandboxed;
pub use status::{Evictions, LiveWorker, Role, SandboxStatus};
