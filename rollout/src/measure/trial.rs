//! What the guards of a rollout look at: the executions that were on trial, in intervals that no switch cuts through.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::shards::{Shards, lock};
use super::{Arm, Interval};

/// Records what was on trial when it began.
pub struct Trial {
    shards: Shards<(Arm, &'static str)>,
    /// By arm, in the order of [`Arm::ALL`].
    traps: [AtomicU64; 4],
    /// What began under an earlier swap of the policy belongs to no interval any more.
    from_swap: AtomicU64,
    since: Mutex<SystemTime>,
}

/// What was on trial between two moments.
#[derive(Clone, Debug)]
pub struct TrialInterval {
    /// Latencies.
    pub interval: Interval,
    /// How many of the executions trapped.
    pub traps: BTreeMap<Arm, u64>,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            shards: Shards::new(),
            traps: Default::default(),
            from_swap: AtomicU64::new(0),
            since: Mutex::new(SystemTime::now()),
        }
    }
}

impl Trial {
    /// Takes in an execution that began under `swap`.
    pub(crate) fn record(&self, swap: u64, arm: Arm, kind: &'static str, latency: Duration, trapped: bool) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        // Looked at under the shard's lock: after a rotation nothing of before comes in.
        let counts = || {
            let counts = swap >= self.from_swap.load(Ordering::Acquire);
            if counts && trapped {
                self.traps[arm as usize].fetch_add(1, Ordering::Relaxed);
            }
            counts
        };
        self.shards.record_if(counts, (arm, kind), nanoseconds);
    }

    /// Ends the interval and begins the next, to which belongs what begins under `from_swap` or later.
    pub fn rotate(&self, from_swap: u64) -> TrialInterval {
        let mut since = lock(&self.since);
        self.from_swap.store(from_swap, Ordering::Release);
        let mut histograms = BTreeMap::new();
        self.shards.move_to(&mut histograms);
        let traps = Arm::ALL.iter().zip(&self.traps);
        let traps = traps.map(|(&arm, traps)| (arm, traps.swap(0, Ordering::Relaxed))).collect();
        let start = std::mem::replace(&mut *since, SystemTime::now());
        // The wall clock may have been set back.
        let duration = since.duration_since(start).unwrap_or_default();
        TrialInterval { interval: Interval { start, duration, histograms }, traps }
    }
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial").field("from_swap", &self.from_swap).finish_non_exhaustive()
    }
}
