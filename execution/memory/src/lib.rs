//! The canister memory of record.
//!
//! Wasm heap and stable memory are the same thing here: a [`Memory`] is a size and a persistent map
//! from page index to [`PageVersion`]. Page versions live in an [`Arena`], one sealed memory file per
//! canister: a commit writes new versions into free slots and moves the map, so a reader that holds an
//! older `Memory` (a snapshot: `Clone` is O(1)) never sees a change. A slot is recycled when the last
//! `Memory` that names it is dropped, and only inside the same canister's arena.
//!
//! Workers get the arena's descriptor and map it read-only ([`Window`]); seals make every other writer
//! impossible. Nothing in this crate knows what a canister is.

mod arena;
mod blob;
mod pages;
mod window;

pub use arena::{Arena, PageVersion, Slot, StagedPages};
pub use blob::Blob;
pub use pages::{Change, Memory};
pub use window::Window;

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
    pub(crate) fn os(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Os { what, source: errno.into() }
    }
}
