//! Where the time of a sandboxed execution goes, by the node's clock.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::shards::{ByKey, Shards, add};

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

/// Records the phases of sandboxed executions from many threads; merging is exact.
pub struct PhaseRecorder(Shards<(Start, SandboxPhase)>);

/// Times of each phase.
#[derive(Clone, Debug, Default)]
pub struct PhaseTimes(ByKey<(Start, SandboxPhase)>);

impl Default for PhaseRecorder {
    fn default() -> Self {
        Self(Shards::new())
    }
}

impl PhaseRecorder {
    /// Records an execution: how long each of [`SandboxPhase::ALL`] took. Longer than 60 s counts as 60 s.
    pub fn record(&self, start: Start, times: [Duration; 3]) {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let phases = SandboxPhase::ALL.into_iter().zip(times);
        self.0.record(phases.map(|(phase, time)| ((start, phase), nanoseconds(time))));
    }

    /// Everything so far.
    #[must_use]
    pub fn total(&self) -> PhaseTimes {
        let mut times = PhaseTimes::default();
        self.0.add_to(&mut times.0);
        times
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.0.clear();
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
        add(&mut self.0, &other.0);
    }

    /// Nanoseconds of one phase; `None`: nothing was measured.
    #[must_use]
    pub fn one(&self, start: Start, phase: SandboxPhase) -> Option<&Histogram<u64>> {
        self.0.get(&(start, phase)).filter(|histogram| !histogram.is_empty())
    }
}
