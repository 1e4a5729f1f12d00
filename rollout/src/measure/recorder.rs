//! One HDR histogram per arm and message kind, sharded by thread.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::shards::{ByKey, Shards, add, lock, nanoseconds};
use super::{Beside, Table};
use crate::Mode;

/// Smallest difference told apart, nanoseconds: 1 us to three digits needs 1 ns.
pub(super) const LOWEST_NS: u64 = 1;
/// Longest latency told apart from longer ones, nanoseconds.
pub(super) const HIGHEST_NS: u64 = 60_000_000_000;
/// Significant decimal digits.
pub(super) const DIGITS: u8 = 3;

/// Every word that `EntryPoint::kind` gives.
pub const KINDS: [&str; 16] = [
    "start",
    "init",
    "pre_upgrade",
    "post_upgrade",
    "inspect",
    "heartbeat",
    "timer",
    "low_wasm_memory",
    "update",
    "replicated_query",
    "query",
    "transform",
    "composite_query",
    "reply_callback",
    "reject_callback",
    "cleanup",
];

/// A series of measurements: a mode, or one side of shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arm {
    /// Mode `in-process`.
    InProcess,
    /// Mode `sandboxed`.
    Sandboxed,
    /// Mode `shadow`: the in-process run, whose outcome is committed.
    ShadowControl,
    /// Mode `shadow`: the sandboxed run, whose outcome is compared and dropped.
    ShadowCandidate,
}

impl Arm {
    /// All arms.
    pub const ALL: [Self; 4] = [Self::InProcess, Self::Sandboxed, Self::ShadowControl, Self::ShadowCandidate];

    /// The arm that `word` names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arm| arm.as_str() == word)
    }

    /// The arm whose outcome is committed in `mode`.
    #[must_use]
    pub fn committed(mode: Mode) -> Self {
        match mode {
            Mode::InProcess => Self::InProcess,
            Mode::Sandboxed => Self::Sandboxed,
            Mode::Shadow => Self::ShadowControl,
        }
    }

    /// The word in tables and log tags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Sandboxed => "sandboxed",
            Self::ShadowControl => "shadow-control",
            Self::ShadowCandidate => "shadow-candidate",
        }
    }
}

pub(super) type Histograms = ByKey<(Arm, &'static str)>;

/// What was recorded between two moments.
#[derive(Clone, Debug)]
pub struct Interval {
    /// When it began.
    pub start: SystemTime,
    /// How long it was.
    pub duration: Duration,
    pub(super) histograms: Histograms,
}

impl Interval {
    /// The series that have measurements, with their latencies in nanoseconds.
    pub fn series(&self) -> impl Iterator<Item = (Arm, &'static str, &Histogram<u64>)> {
        self.histograms.iter().map(|(&(arm, kind), histogram)| (arm, kind, histogram))
    }

    /// Latencies of one series, in nanoseconds; `None`: nothing was measured.
    #[must_use]
    pub fn one(&self, arm: Arm, kind: &str) -> Option<&Histogram<u64>> {
        let kind = KINDS.into_iter().find(|known| *known == kind)?;
        self.histograms.get(&(arm, kind)).filter(|histogram| !histogram.is_empty())
    }

    /// Both modes side by side, and both sides of shadow.
    #[must_use]
    pub fn table(&self) -> Table {
        Table::new(&self.histograms)
    }

    /// Only one series of it.
    #[must_use]
    pub fn only(mut self, arm: Arm, kind: &str) -> Self {
        self.histograms.retain(|series, _| *series == (arm, kind));
        self
    }

    /// What both hold; exact. The other one may be of another node.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.histograms, &other.histograms);
        self.start = self.start.min(other.start);
        self.duration = self.duration.max(other.duration);
    }
}

/// Records latencies from many threads; merging is exact.
pub struct Recorder {
    shards: Shards<(Arm, &'static str)>,
    finished: Mutex<Finished>,
    saturated: AtomicU64,
}

struct Finished {
    /// When the recorder began.
    began: SystemTime,
    since: SystemTime,
    histograms: Histograms,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty recorder whose first interval begins now.
    #[must_use]
    pub fn new() -> Self {
        let now = SystemTime::now();
        let finished = Finished { began: now, since: now, histograms: Histograms::new() };
        Self { shards: Shards::new(), finished: Mutex::new(finished), saturated: AtomicU64::new(0) }
    }

    /// Records one latency. Longer than 60 s counts as 60 s and in [`Recorder::saturated`].
    pub fn record(&self, arm: Arm, kind: &'static str, latency: Duration) {
        let nanoseconds = nanoseconds(latency);
        if nanoseconds > HIGHEST_NS {
            self.saturated.fetch_add(1, Ordering::Relaxed);
        }
        self.shards.record([((arm, kind), nanoseconds)]);
    }

    /// Latencies above the highest that is told apart.
    #[must_use]
    pub fn saturated(&self) -> u64 {
        self.saturated.load(Ordering::Relaxed)
    }

    /// Ends the interval and begins the next. What it held stays part of [`Recorder::total`].
    #[must_use]
    pub fn rotate(&self) -> Interval {
        let mut finished = lock(&self.finished);
        let mut histograms = Histograms::new();
        self.shards.move_to(&mut histograms);
        add(&mut finished.histograms, &histograms);
        let start = std::mem::replace(&mut finished.since, SystemTime::now());
        // The wall clock may have been set back.
        let duration = finished.since.duration_since(start).unwrap_or_default();
        Interval { start, duration, histograms }
    }

    /// Everything recorded so far, as one interval.
    #[must_use]
    pub fn total_interval(&self) -> Interval {
        let (histograms, start) = (self.merged(), lock(&self.finished).began);
        // The wall clock may have been set back.
        Interval { start, duration: start.elapsed().unwrap_or_default(), histograms }
    }

    /// Forgets everything, e.g. what a restart ran again.
    pub fn clear(&self) {
        let mut finished = lock(&self.finished);
        self.shards.clear();
        let now = SystemTime::now();
        *finished = Finished { began: now, since: now, histograms: Histograms::new() };
        self.saturated.store(0, Ordering::Relaxed);
    }

    fn merged(&self) -> Histograms {
        let finished = lock(&self.finished);
        let mut histograms = finished.histograms.clone();
        self.shards.add_to(&mut histograms);
        histograms
    }

    /// Everything recorded for one series, in nanoseconds; `None`: nothing.
    #[must_use]
    pub fn total(&self, arm: Arm, kind: &str) -> Option<Histogram<u64>> {
        self.merged().remove(&(arm, KINDS.into_iter().find(|known| *known == kind)?))
    }

    /// Both modes side by side, and both sides of shadow.
    #[must_use]
    pub fn table(&self) -> Table {
        Table::new(&self.merged())
    }

    /// What was committed here in the first of `modes` beside what `other` holds of the second.
    #[must_use]
    pub fn beside(&self, other: &Self, modes: [Mode; 2]) -> Beside {
        Beside::new([&self.merged(), &other.merged()], modes)
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("saturated", &self.saturated()).finish_non_exhaustive()
    }
}

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS).expect("bounds and digits are in range")
}
