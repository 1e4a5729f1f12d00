//! What is under way under a policy.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::Mode;
use crate::measure::thread_number;

/// Threads beyond this share lines.
const LINES: usize = 16;

/// Executions by mode. Each thread counts in a line of its own, so that none waits for another's; one that ends on
/// another thread than it began on leaves lines that are only right together.
#[derive(Debug, Default)]
pub(super) struct Counts([Line; LINES]);

/// A cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicI64; 3]);

impl Counts {
    pub(super) fn enter(&self, mode: Mode) {
        self.count(mode).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, mode: Mode) {
        self.count(mode).fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self, mode: Mode) -> &AtomicI64 {
        &self.0[thread_number() % LINES].0[mode as usize]
    }

    fn total(&self, mode: Mode) -> u64 {
        let total: i64 = self.0.iter().map(|line| line.0[mode as usize].load(Ordering::Relaxed)).sum();
        // Read while others count.
        u64::try_from(total).unwrap_or_default()
    }
}

/// How many executions are under way, paused ones included. A batch that was run ahead counts as one more: what is left
/// of it may still be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay([u64; 3]);

impl UnderWay {
    pub(super) fn of(counts: &Counts) -> Self {
        let mut found = Self::default();
        Mode::ALL.into_iter().for_each(|mode| found.0[mode as usize] = counts.total(mode));
        found
    }

    /// Adds those of another policy, or of another node.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, other)| *count += other);
    }

    /// Those in one mode.
    #[must_use]
    pub fn one(&self, mode: Mode) -> u64 {
        self.0[mode as usize]
    }
}
