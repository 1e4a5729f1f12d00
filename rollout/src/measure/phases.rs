//! Where the time of a sandboxed execution goes, by the node's clock.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::shards::{ByKey, Shards, add, nanoseconds};

/// A part of a sandboxed execution. Hand-over and run can't be told apart from outside: both are the worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SandboxPhase {
    /// Getting the canister's worker; a cold one is launched or loaded in it.
    Prepare,
    /// From placing the worker until its answer is there.
    Worker,
    /// Checking what it claims, and copying the pages that it wrote.
    Pages,
}

impl SandboxPhase {
    /// All of them, in the order of an execution.
    pub const ALL: [Self; 3] = [Self::Prepare, Self::Worker, Self::Pages];

    /// The word in tables and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Worker => "worker",
            Self::Pages => "pages",
        }
    }
}

/// How an execution found its canister's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Start {
    /// With the canister in it.
    Warm,
    /// Launched or loaded for it.
    Cold,
}

impl Start {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Warm, Self::Cold];

    /// The word in tables and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// Records the phases of sandboxed executions from many threads, and bare round trips beside them; merging is exact.
pub struct PhaseRecorder {
    phases: Shards<(Start, SandboxPhase)>,
    round_trips: Shards<(), 1>,
}

/// Times of each phase, and of bare round trips.
#[derive(Clone, Debug, Default)]
pub struct PhaseTimes {
    phases: ByKey<(Start, SandboxPhase)>,
    round_trips: ByKey<()>,
}

impl Default for PhaseRecorder {
    fn default() -> Self {
        Self { phases: Shards::new(), round_trips: Shards::new() }
    }
}

impl PhaseRecorder {
    /// Records an execution: how long each of [`SandboxPhase::ALL`] took. Longer than 60 s counts as 60 s.
    pub fn record(&self, start: Start, times: [Duration; 3]) {
        let phases = SandboxPhase::ALL.into_iter().zip(times);
        self.phases.record(phases.map(|(phase, time)| ((start, phase), nanoseconds(time))));
    }

    /// Records a round trip to a worker in which nothing is asked of it.
    pub fn record_round_trip(&self, time: Duration) {
        self.round_trips.record([((), nanoseconds(time))]);
    }

    /// Everything so far.
    #[must_use]
    pub fn total(&self) -> PhaseTimes {
        let mut times = PhaseTimes::default();
        self.phases.add_to(&mut times.phases);
        self.round_trips.add_to(&mut times.round_trips);
        times
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.phases.clear();
        self.round_trips.clear();
    }
}

impl std::fmt::Debug for PhaseRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PhaseRecorder").finish_non_exhaustive()
    }
}

impl PhaseTimes {
    /// What both hold; exact. The other ones may be of another node.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.phases, &other.phases);
        add(&mut self.round_trips, &other.round_trips);
    }

    /// Nanoseconds of one phase; `None`: nothing was measured.
    #[must_use]
    pub fn one(&self, start: Start, phase: SandboxPhase) -> Option<&Histogram<u64>> {
        self.phases.get(&(start, phase)).filter(|histogram| !histogram.is_empty())
    }

    /// Nanoseconds of a bare round trip, which is part of the worker's phase whatever runs; `None`: none was made.
    #[must_use]
    pub fn round_trip(&self) -> Option<&Histogram<u64>> {
        self.round_trips.get(&()).filter(|histogram| !histogram.is_empty())
    }
}
