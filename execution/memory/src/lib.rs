//! The canister memory of record.
//!
//! Wasm heap and stable memory are the same thing here: a [`Memory`] is a size and a persistent map
//! from page index to [`PageVersion`]. Page versions live in an [`Arena`], sealed memory files of one
//! canister: a commit writes new versions into free slots and moves the map, so a reader that holds an
//! older `Memory` (a snapshot: `Clone` is O(1)) never sees a change. A slot is recycled when the last
//! `Memory` that names it is dropped, and only inside the same canister's arena.
//!
//! Workers get the arena's descriptors and map them read-only ([`Window`]); seals make every other writer
//! impossible. The snapshot that a worker starts from is its base image: it lies in the arena and is
//! mapped copy-on-write from there ([`map_privately`]), never copied. Nothing in this crate knows what a
//! canister is.

mod arena;
mod blob;
mod budget;
pub mod limit;
mod pages;
mod segment;
mod window;

pub use arena::{Arena, PageVersion, Slot, StagedPages};
pub use blob::Blob;
pub use budget::Budget;
pub use pages::{Change, Memory, PageUpdate};
pub use segment::SEGMENTS_MAX;
pub use window::{Window, map_privately};

use rustix::io::Errno;

/// Bytes in a page of record: the unit of dirty tracking, of charging and of hashing.
pub const PAGE_BYTES: usize = 4096;
/// Bytes in a WebAssembly page, the unit in which memories grow.
pub const WASM_PAGE_BYTES: u64 = 65_536;

/// Why memory of record could not be had. Nothing is changed when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The canister's arena has no free slot: limit `arena_bytes`.
    #[error("the canister's arena is full: {needed} pages needed, {free} free (limit arena_bytes)")]
    ArenaFull {
        /// Pages asked for.
        needed: usize,
        /// Pages that were free.
        free: usize,
    },
    /// The node's arenas together hold as much as they may: limit `memory_bytes`.
    #[error("memory of canisters is full: {needed} bytes needed, {free} free (limit memory_bytes)")]
    BudgetMet {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// A slot that the arena doesn't have, or that lies in a segment made later.
    #[error("slot {0} is outside of the arena's segments")]
    Outside(Slot),
    /// The kernel refused a memory file, a mapping or a seal.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl MemoryError {
    /// The limit that was met, as the configuration or the kernel calls it; `None`: it is another failure.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::ArenaFull { .. } => Some("arena_bytes"),
            Self::BudgetMet { .. } => Some("memory_bytes"),
            Self::Outside(_) => None,
            Self::Os { source, .. } => limit::met(source),
        }
    }

    pub(crate) fn os(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Os { what, source: errno.into() }
    }
}
