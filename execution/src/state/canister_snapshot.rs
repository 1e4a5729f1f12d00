//! Snapshots that controllers take of a canister (`canister-execution.md` sections 4.1 and 4.8).

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;

use crate::state::{ChunkStore, Code};
use crate::{Nanoseconds, Principal};

/// Snapshots of one canister.
pub const SNAPSHOTS_MAX: usize = 10;

/// Names a snapshot: its number among all that its canister ever had.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// The canister it was taken of.
    pub canister: Principal,
    /// Counts from 0.
    pub number: u64,
}

impl SnapshotId {
    /// As it goes over the wire: 8 bytes of the number, big endian, and the canister's id.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        [&self.number.to_be_bytes(), self.canister.as_slice()].concat()
    }

    /// The id that these bytes are; `None`: none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (number, canister) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            canister: Principal::try_from_slice(canister).ok()?,
            number: u64::from_be_bytes(*number),
        })
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a canister was at one moment. It never changes.
#[derive(Clone, Debug)]
pub struct CanisterSnapshot {
    /// When it was taken.
    pub taken_at: Nanoseconds,
    /// The canister's version then.
    pub version: u64,
    /// Module, heap, stable memory and globals; its pages lie in the canister's arena.
    pub code: Code,
    /// At most 32 bytes.
    pub certified_data: Vec<u8>,
    /// The chunk store.
    pub chunks: ChunkStore,
}

impl CanisterSnapshot {
    /// Bytes that storage is charged for, and that memory of the subnet goes into.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.code.bytes().saturating_add(self.chunks.bytes())
    }
}

/// The snapshots of a canister. Clone is O(1).
#[derive(Clone, Debug, Default)]
pub struct CanisterSnapshots {
    /// Number of the next one.
    pub next: u64,
    /// By number, at most [`SNAPSHOTS_MAX`].
    pub taken: OrdMap<u64, Arc<CanisterSnapshot>>,
}

impl CanisterSnapshots {
    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // A message asks ten times, and an iterator over nothing takes 116 instructions.
        if self.taken.is_empty() {
            return 0;
        }
        self.taken.values().fold(0, |sum, snapshot| sum.saturating_add(snapshot.bytes()))
    }
}
