//! The programs carried inside this one: no worker binary that can be missing or of another version.

/// The sandbox worker: static, without a compiler.
pub static WORKER: &[u8] = include_bytes!(env!("WORKER_IMAGE"));

/// The launcher: static.
pub static LAUNCHER: &[u8] = include_bytes!(env!("LAUNCHER_IMAGE"));
