//! The engine: from an uploaded module to what came of running it.
//!
//! - [`compile`] (feature `compile`): validate, instrument, generate native code;
//! - [`Engine`], [`Code`]: the one engine profile, and native code mapped from a sealed file;
//! - [`Instance`]: warm code and memory of one canister: brought up to date ([`Update`]), run slice by slice
//!   ([`Step`]) to its end ([`Ran`]);
//! - [`InProcess`]: the backend that runs instances in this process;
//! - [`api`], [`available`], [`Context`]: the System API's types, and what may be used where.
//!
//! A sandbox worker links this crate without `compile` and drives [`Instance`] over its socket.
//! All unsafe code is in `native.rs`.

pub mod api;
#[cfg(feature = "compile")]
pub mod compile;

mod backend;
mod bookkeeping;
mod context;
mod engine;
mod entry;
mod instance;
mod native;
mod pages;
mod run;
mod slices;
mod stable;
mod system_api;
mod trap;
mod warm;

pub use backend::{InProcess, InProcessOptions};
pub use context::{Context, Contexts};
pub use engine::{Code, Engine, EngineError};
pub use instance::{Base, Instance, Paused, Ran, Shape, Step, Update};
pub use system_api::available;
