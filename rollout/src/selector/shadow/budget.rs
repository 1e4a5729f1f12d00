//! The processor time that candidates may take.

use std::time::{Duration, Instant};

use crate::policy::PPM;

/// Credit that grows with the clock and is spent by candidates. What waits already is run on credit: then nothing is
/// taken in until time has made up for it.
#[derive(Debug)]
pub(super) struct Budget {
    processors: f64,
    /// Seconds of processor time; below zero: more was spent than there was.
    credit: f64,
    grown: Instant,
}

impl Budget {
    /// What is saved up at most: the share of so long.
    const SAVED: f64 = 1.0;

    pub(super) fn new(now: Instant) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Self { processors, credit: 0.0, grown: now }
    }

    /// Whether there is any at `now`, where candidates may take `share_ppm` of the machine.
    pub(super) fn allows(&mut self, share_ppm: u32, now: Instant) -> bool {
        let share = self.processors * f64::from(share_ppm) / f64::from(PPM);
        let grown = now.saturating_duration_since(self.grown).as_secs_f64() * share;
        self.credit = (self.credit + grown).min(share * Self::SAVED);
        self.grown = now;
        self.credit > 0.0
    }

    /// A run took `spent` on the clock: the thread that waits and the worker that runs don't do so at the same time.
    pub(super) fn charge(&mut self, spent: Duration) {
        self.credit -= spent.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_and_what_was_spent_over_it_is_made_up_for_by_waiting() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut budget = Budget { processors: 2.0, ..Budget::new(start) };
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
        // The share may change at any time.
        assert!(budget.allows(PPM, at(3_600_002)));
    }
}
