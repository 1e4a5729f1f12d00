//! A word in shared memory by which two processes take turns (futex(2)).

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};
use rustix::time::Timespec;

use super::{Mapping, MemoryFile};

/// How long a turn may take: the other process is gone.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The word; 0 at first.
pub(crate) struct Turns(Mapping);

impl Turns {
    /// The first word of `file`.
    pub(crate) fn new(file: &MemoryFile) -> Result<Self, String> {
        Mapping::shared(file).map(Self)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the mapping is aligned, writable and longer than a word, and lives as long as the borrow; this type
        // gives out nothing else of it, so that all access is atomic.
        unsafe { &*(self.0.address() as *const AtomicU32) }
    }

    /// Says that it is `turn` now.
    pub(crate) fn pass(&self, turn: u32) -> Result<(), String> {
        self.word().store(turn, Ordering::Release);
        futex::wake(self.word(), Flags::empty(), 1).map(drop).map_err(|error| format!("futex: {error}"))
    }

    /// Sleeps until it is `turn`.
    pub(crate) fn wait_for(&self, turn: u32) -> Result<(), String> {
        loop {
            let now = self.word().load(Ordering::Acquire);
            if now == turn {
                return Ok(());
            }
            match futex::wait(self.word(), Flags::empty(), now, Some(&PATIENCE)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(format!("futex: {error}")),
            }
        }
    }
}
