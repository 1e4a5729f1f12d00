//! How long switches of the mode take, by the node's clock.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::recorder::{HIGHEST_NS, histogram};
use super::shards::{ByKey, add, lock, nanoseconds};

/// Switches that may be draining at once and are still measured.
const DRAINING_MAX: usize = 1_000;

/// Where a switch leads. One that moves canisters both ways counts in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SwitchDirection {
    /// Something runs sandboxed that didn't.
    ToSandbox,
    /// Something doesn't run sandboxed that did.
    FromSandbox,
}

impl SwitchDirection {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToSandbox, Self::FromSandbox];

    /// The word in tables and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ToSandbox => "to_sandbox",
            Self::FromSandbox => "from_sandbox",
        }
    }
}

/// A part of a switch. The last two begin at the same moment, and only a step of a rollout has the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SwitchPhase {
    /// Workers are launched for what will run sandboxed or in shadow, while everything runs as before.
    Prewarm,
    /// From the request (a file that changed, an exposure, a look at clock and kill switch) until it is in force.
    Cutover,
    /// From there until nothing is under way any more that began before.
    Drain,
    /// From there until the first execution that began after it has finished.
    FirstExecution,
}

impl SwitchPhase {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Prewarm, Self::Cutover, Self::Drain, Self::FirstExecution];

    /// The word in tables and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prewarm => "prewarm",
            Self::Cutover => "cutover",
            Self::Drain => "drain",
            Self::FirstExecution => "first_execution",
        }
    }
}

/// Times of the phases of switches between the modes.
#[derive(Clone, Debug, Default)]
pub struct SwitchTimes(ByKey<(SwitchDirection, SwitchPhase)>);

impl SwitchTimes {
    /// What both hold; exact. The other ones may be of another node.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.0, &other.0);
    }

    /// Nanoseconds of one phase; `None`: nothing was measured.
    #[must_use]
    pub fn one(&self, direction: SwitchDirection, phase: SwitchPhase) -> Option<&Histogram<u64>> {
        self.0.get(&(direction, phase)).filter(|histogram| !histogram.is_empty())
    }

    fn record(&mut self, directions: &[SwitchDirection], phase: SwitchPhase, time: Duration) {
        for direction in directions {
            let times = self.0.entry((*direction, phase)).or_insert_with(histogram);
            times.saturating_record(nanoseconds(time).min(HIGHEST_NS));
        }
    }
}

/// Measures switches. What is in force is told apart by the number of its swap.
#[derive(Debug, Default)]
pub(crate) struct SwitchRecorder(Mutex<Switching>);

#[derive(Debug, Default)]
struct Switching {
    /// What is in force or still held by what began under it.
    live: BTreeSet<u64>,
    /// Switches before which something began that is under way.
    draining: Vec<Draining>,
    times: SwitchTimes,
}

#[derive(Debug)]
struct Draining {
    swap: u64,
    since: Instant,
    directions: Vec<SwitchDirection>,
}

impl SwitchRecorder {
    /// This one is there from now on. Before it is in force.
    pub(crate) fn enter(&self, swap: u64) {
        lock(&self.0).live.insert(swap);
    }

    /// It is in force, so long after it was asked for. Before the one that it replaces may go.
    pub(crate) fn swapped(&self, swap: u64, directions: &[SwitchDirection], cutover: Duration) {
        if directions.is_empty() {
            return;
        }
        let mut switching = lock(&self.0);
        switching.times.record(directions, SwitchPhase::Cutover, cutover);
        if switching.draining.len() < DRAINING_MAX {
            let directions = directions.to_vec();
            switching.draining.push(Draining { swap, since: Instant::now(), directions });
        }
    }

    /// It took so long to get ready for a switch.
    pub(crate) fn prewarmed(&self, took: Duration) {
        lock(&self.0).times.record(&[SwitchDirection::ToSandbox], SwitchPhase::Prewarm, took);
    }

    /// Nothing holds this one any more.
    pub(crate) fn gone(&self, swap: u64) {
        let mut switching = lock(&self.0);
        let Switching { live, draining, times } = &mut *switching;
        live.remove(&swap);
        let oldest = live.first().copied();
        let drained = |draining: &mut Draining| oldest.is_none_or(|oldest| draining.swap <= oldest);
        for done in draining.extract_if(.., drained) {
            times.record(&done.directions, SwitchPhase::Drain, done.since.elapsed());
        }
    }

    /// The first execution under a swap has finished, so long after it.
    pub(crate) fn first_execution(&self, directions: &[SwitchDirection], after: Duration) {
        if !directions.is_empty() {
            lock(&self.0).times.record(directions, SwitchPhase::FirstExecution, after);
        }
    }

    /// Everything so far.
    pub(crate) fn total(&self) -> SwitchTimes {
        lock(&self.0).times.clone()
    }
}
