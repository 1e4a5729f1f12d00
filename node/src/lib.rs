//! The node: puts the engine, the sandbox, the policy and the rounds together, and the `bulkhead` command.

#![forbid(unsafe_code)]

pub mod audit;
pub mod bounds;
pub mod bundle;
pub mod cli;
pub mod code_cache;
pub mod compare;
pub mod confinement;
pub mod demo;
pub mod drun;
pub mod hangup;
pub mod image;
pub mod key;
mod load;
pub mod log;
pub mod management;
mod modules;
pub mod node;
pub mod observation;
pub mod outcomes;
pub mod plan;
pub mod policy;
pub mod record;
mod recording;
pub mod replay;
pub mod serve;
pub mod verdict;
pub mod version;
mod watch;

pub use node::{Instruments, Node, NodeError, NodeOptions, PolicySource, Preset};
pub use recording::{RecordError, Recorded};
