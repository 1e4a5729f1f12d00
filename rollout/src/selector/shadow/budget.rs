//! The processor time that candidates may take.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::PPM;

/// Credit that grows with the clock and is spent by candidates. One that has begun is run on credit: then none is begun
/// until time has made up for it.
#[derive(Debug)]
pub(super) struct Budget {
    processors: f64,
    account: Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    /// Seconds of processor time; below zero: more was spent than there was.
    credit: f64,
    grown: Instant,
}

/// A run that is charged, on the clock, when this is dropped: the thread that waits and the worker that runs don't do so
/// at the same time.
pub(super) struct Charged<'a> {
    budget: &'a Budget,
    began: Instant,
}

impl Budget {
    /// Seconds whose share is saved up at most.
    const SAVED: f64 = 1.0;

    pub(super) fn new(now: Instant) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Self { processors, account: Mutex::new(Account { credit: 0.0, grown: now }) }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // Two numbers, which fit each other between any two statements.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is any at `now`, where candidates may take `share_ppm` of the machine. The whole machine is no limit.
    pub(super) fn allows(&self, share_ppm: u32, now: Instant) -> bool {
        let share = self.processors * f64::from(share_ppm) / f64::from(PPM);
        let mut account = self.account();
        let grown = now.saturating_duration_since(account.grown).as_secs_f64() * share;
        account.credit = (account.credit + grown).min(share * Self::SAVED);
        account.grown = now;
        account.credit > 0.0 || share_ppm >= PPM
    }

    /// A run begins.
    pub(super) fn charged(&self) -> Charged<'_> {
        Charged { budget: self, began: Instant::now() }
    }

    fn charge(&self, spent: Duration) {
        self.account().credit -= spent.as_secs_f64();
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        self.budget.charge(self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_and_what_was_spent_over_it_is_made_up_for_by_waiting() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let budget = Budget { processors: 2.0, ..Budget::new(start) };
        let tenth = PPM / 10;
        assert!(!budget.allows(tenth, start), "none is given ahead");
        assert!(budget.allows(tenth, at(1)));
        // 200 ms of each second; 0.2 ms of them are there.
        budget.charge(Duration::from_micros(100_200));
        assert!(!budget.allows(tenth, at(500)));
        assert!(budget.allows(tenth, at(502)));
        // What nobody spent for an hour is a second's share.
        assert!(budget.allows(tenth, at(3_600_000)));
        budget.charge(Duration::from_millis(201));
        assert!(!budget.allows(tenth, at(3_600_001)));
        // The share may change at any time, and the whole machine is no limit.
        budget.charge(Duration::from_secs(100));
        assert!(budget.allows(PPM, at(3_600_002)));
    }
}
