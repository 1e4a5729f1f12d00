//! Where the time of a message goes, in every mode alike: its wait, the backend, `check`, and the commit.
//!
//! `execution` reads no clock. It tells the selector of each moment, and here the clock is read, for one message and one
//! execution in [`SAMPLED`]: reading it for all would be felt in short ones.

use std::array;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::shards::{ByKey, Shards, add, lock, nanoseconds};
use super::{Arm, KINDS};

/// One in so many is measured, by a hash of its number: no kind of message and no pattern of them is left out.
pub const SAMPLED: u64 = 16;
/// Locks of the messages that wait, and of their measurements.
const SHARDS: usize = 16;
/// Messages whose beginning is kept, of a shard and a generation. Together with those of the generation before, twice as
/// many sampled ones as a subnet remembers (2 million in all).
const WAITING_MAX: usize = 8_192;

/// Whether what has this number is measured.
#[must_use]
pub fn is_sampled(number: u64) -> bool {
    scattered(number) < u64::MAX / SAMPLED
}

/// Numbers that follow one another end far apart.
pub(crate) fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A part of a message's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessagePhase {
    /// From when it waits for its canister (taken in, delivered, due) until its first execution is asked for.
    Queue,
    /// The backend's: all of [`super::SandboxPhase`], or the run in-process.
    Backend,
    /// `check` of what that gave.
    Check,
    /// From there until what it did is in its canister's state.
    Commit,
}

impl MessagePhase {
    /// All of them, in the order of a message.
    pub const ALL: [Self; 4] = [Self::Queue, Self::Backend, Self::Check, Self::Commit];

    /// The word in tables and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Backend => "backend",
            Self::Check => "check",
            Self::Commit => "commit",
        }
    }
}

/// Records the phases of messages from many threads; merging is exact.
pub struct MessageRecorder {
    waiting: [Mutex<Waiting>; SHARDS],
    phases: Shards<(Arm, MessagePhase), SHARDS>,
    waits: Shards<&'static str, SHARDS>,
}

/// Messages that wait, with when they began to. Those that are gone without a word are forgotten with their generation.
#[derive(Default)]
struct Waiting {
    young: HashMap<u64, Instant>,
    old: HashMap<u64, Instant>,
}

impl Waiting {
    fn enter(&mut self, message: u64) {
        if self.young.len() >= WAITING_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(message, Instant::now());
    }

    fn leave(&mut self, message: u64) -> Option<Instant> {
        self.young.remove(&message).or_else(|| self.old.remove(&message))
    }
}

/// What this thread's last execution has come to: `check` follows the backend on one thread with nothing in between,
/// and the commit mostly does.
#[derive(Clone, Copy)]
struct Last {
    invocation: u64,
    arm: Arm,
    backend: Duration,
    since: Instant,
}

thread_local! {
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
}

impl Default for MessageRecorder {
    fn default() -> Self {
        Self { waiting: array::from_fn(|_| Mutex::default()), phases: Shards::new(), waits: Shards::new() }
    }
}

impl MessageRecorder {
    /// A message waits from now on.
    pub(crate) fn ready(&self, message: u64) {
        if is_sampled(message) {
            lock(self.waiting(message)).enter(message);
        }
    }

    /// It is run now. How long it has waited, if that is measured and wasn't told before.
    pub(crate) fn begun(&self, message: u64) -> Option<Duration> {
        let since = if is_sampled(message) { lock(self.waiting(message)).leave(message) } else { None };
        since.map(|since| since.elapsed())
    }

    /// A message of `kind` has waited for so long, until it began in `arm`.
    pub(crate) fn waited(&self, arm: Arm, kind: &'static str, wait: Duration) {
        self.phases.record([((arm, MessagePhase::Queue), nanoseconds(wait))]);
        self.waits.record([(kind, nanoseconds(wait))]);
    }

    /// The backend has given an outcome after so long.
    pub(crate) fn answered(&self, invocation: u64, arm: Arm, backend: Duration) {
        if is_sampled(invocation) {
            LAST.set(Some(Last { invocation, arm, backend, since: Instant::now() }));
        }
    }

    /// It has passed `check`.
    pub(crate) fn checked(&self, invocation: u64) {
        let Some(last) = last(invocation) else { return };
        let now = Instant::now();
        self.phases.record([
            ((last.arm, MessagePhase::Backend), nanoseconds(last.backend)),
            ((last.arm, MessagePhase::Check), nanoseconds(now.duration_since(last.since))),
        ]);
        LAST.set(Some(Last { since: Instant::now(), ..last }));
    }

    /// It is committed.
    pub(crate) fn committed(&self, invocation: u64) {
        let Some(last) = last(invocation) else { return };
        self.phases.record([((last.arm, MessagePhase::Commit), nanoseconds(last.since.elapsed()))]);
    }

    /// Everything so far.
    #[must_use]
    pub fn total(&self) -> MessageTimes {
        let mut times = MessageTimes::default();
        self.phases.add_to(&mut times.phases);
        self.waits.add_to(&mut times.waits);
        times
    }

    /// Forgets everything that was measured.
    pub fn clear(&self) {
        self.phases.clear();
        self.waits.clear();
    }

    fn waiting(&self, message: u64) -> &Mutex<Waiting> {
        // Of all bits: the highest are the same in all that are measured.
        &self.waiting[(message % SHARDS as u64) as usize]
    }
}

/// Takes what this thread's last execution has come to, if it is this one.
fn last(invocation: u64) -> Option<Last> {
    if !is_sampled(invocation) {
        return None;
    }
    LAST.take().filter(|last| last.invocation == invocation)
}

impl std::fmt::Debug for MessageRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageRecorder").finish_non_exhaustive()
    }
}

/// Times of each phase of the messages that were measured: one in [`SAMPLED`].
#[derive(Clone, Debug, Default)]
pub struct MessageTimes {
    phases: ByKey<(Arm, MessagePhase)>,
    waits: ByKey<&'static str>,
}

impl MessageTimes {
    /// What both hold; exact. The other ones may be of another node.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.phases, &other.phases);
        add(&mut self.waits, &other.waits);
    }

    /// Nanoseconds of one phase of what was committed in `arm`; `None`: nothing was measured. Queries have no queue and
    /// no commit.
    #[must_use]
    pub fn one(&self, arm: Arm, phase: MessagePhase) -> Option<&Histogram<u64>> {
        self.phases.get(&(arm, phase)).filter(|histogram| !histogram.is_empty())
    }

    /// Nanoseconds that messages waited which then ran as `kind`; `None`: nothing was measured.
    #[must_use]
    pub fn waits(&self, kind: &str) -> Option<&Histogram<u64>> {
        let kind = KINDS.into_iter().find(|known| *known == kind)?;
        self.waits.get(kind).filter(|histogram| !histogram.is_empty())
    }
}
