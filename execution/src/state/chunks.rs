//! The chunk store of a canister: pieces of modules that are too large for one message
//! (`canister-execution.md` section 5).

use std::sync::Arc;

use imbl::OrdMap;

/// SHA-256 of a chunk: its name.
pub type ChunkHash = [u8; 32];

/// Chunks of one canister.
pub const CHUNKS_MAX: usize = 100;
/// Bytes of one chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Chunks by their hashes. Bounds are kept by those who insert. Clone is O(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkStore {
    /// A chunk never changes: its name is its content's hash.
    pub chunks: OrdMap<ChunkHash, Arc<[u8]>>,
}

impl ChunkStore {
    /// Bytes that storage is charged for: each chunk counts as a full one, as the Interface Specification
    /// says.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.chunks.len() as u64).saturating_mul(CHUNK_BYTES_MAX as u64)
    }
}
