//! How much memory all arenas of a node may hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::MemoryError;

/// A bound on the bytes of page slots that exist, free ones included, in all arenas that share it: slots
/// stay with their arena until that is dropped.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicU64::new(0) })
    }

    /// A budget that is never met.
    #[must_use]
    pub fn unbounded() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// Bytes in use now.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self, bytes: u64) -> Result<(), MemoryError> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.bytes_max)
        });
        taken.map(drop).map_err(|used| MemoryError::BudgetMet { needed: bytes, free: self.bytes_max - used })
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
