//! When a change of policy reached executions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::Pin;
use crate::{InForce, Mode, Observed};

/// Switches remembered; the oldest are forgotten first.
const SWITCHES_MAX: usize = 10_000;

/// The first execution that finished after a swap: under a new generation, an expiry, or a turn of the kill switch.
#[derive(Clone, Debug)]
pub struct Switch {
    /// The generation.
    pub generation: u64,
    /// The mode of that execution.
    pub mode: Mode,
    /// When it was swapped in.
    pub swapped: Instant,
    /// When its first execution finished.
    pub first_finished: Instant,
    /// `Invocation::id` of that execution.
    pub first_invocation: u64,
}

#[derive(Default)]
pub(super) struct Switches {
    newest: AtomicU64,
    seen: Mutex<VecDeque<Switch>>,
}

impl Switches {
    pub(super) fn note(&self, pin: &Pin, observed: &Observed) {
        let InForce { generation, swap, since, .. } = *pin.in_force;
        if swap <= self.newest.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been first.
        if swap <= self.newest.load(Ordering::Relaxed) {
            return;
        }
        self.newest.store(swap, Ordering::Relaxed);
        pin.in_force.first_execution(observed.finished);
        if seen.len() == SWITCHES_MAX {
            seen.pop_front();
        }
        seen.push_back(Switch {
            generation,
            mode: pin.mode,
            swapped: since,
            first_finished: observed.finished,
            first_invocation: observed.invocation,
        });
    }

    pub(super) fn all(&self) -> Vec<Switch> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
