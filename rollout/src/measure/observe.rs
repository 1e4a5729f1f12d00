//! What the selector tells of every execution.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use execution::{Answer, Ending, Outcome, Principal};

use super::Arm;
use crate::{Divergence, Mode, Reproducer};

/// How an execution ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeWord {
    /// It replied.
    Reply,
    /// It rejected.
    Reject,
    /// It trapped.
    Trap,
    /// It returned without an answer.
    None,
}

impl OutcomeWord {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Reject => "reject",
            Self::Trap => "trap",
            Self::None => "none",
        }
    }

    fn of(outcome: &Outcome) -> Self {
        match (&outcome.ending, &outcome.effects) {
            (Ending::Trapped(_), _) => Self::Trap,
            (Ending::Returned, Some(effects)) => match effects.answer {
                Some(Answer::Reply(_)) => Self::Reply,
                Some(Answer::Reject(_)) => Self::Reject,
                None => Self::None,
            },
            (Ending::Returned, None) => Self::None,
        }
    }
}

/// One finished execution, seen at the border.
#[derive(Clone, Debug)]
pub struct Observed {
    /// `Invocation::id`.
    pub invocation: u64,
    /// The canister.
    pub canister: Principal,
    /// `EntryPoint::kind`.
    pub kind: &'static str,
    /// `EntryPoint::method`.
    pub method: Option<String>,
    /// The mode it was pinned to.
    pub mode: Mode,
    /// Which run of it this is; a candidate's outcome is never committed.
    pub arm: Arm,
    /// Generation of the policy it was pinned to.
    pub generation: u64,
    /// How it ended.
    pub outcome: OutcomeWord,
    /// Error code of a trap.
    pub code: Option<u16>,
    /// Instructions used.
    pub instructions: u64,
    /// Heap pages written (4 KiB).
    pub heap_pages_dirty: u64,
    /// Stable pages written (4 KiB).
    pub stable_pages_dirty: u64,
    /// Wait in the shadow queue; zero for what is committed.
    pub queued: Duration,
    /// Time in the backend, pauses not counted.
    pub duration: Duration,
    /// When it finished.
    pub finished: Instant,
}

impl Observed {
    /// Fills in what an outcome says.
    #[must_use]
    pub(crate) fn with(mut self, outcome: &Outcome) -> Self {
        self.outcome = OutcomeWord::of(outcome);
        self.code = match &outcome.ending {
            Ending::Trapped(trap) => Some(trap.code.0),
            Ending::Returned => None,
        };
        self.instructions = outcome.instructions;
        self.heap_pages_dirty = outcome.heap_pages_dirty;
        self.stable_pages_dirty = outcome.stable_pages_dirty;
        self.finished = Instant::now();
        self
    }
}

/// Told of executions as they finish, on the thread that ran them: be quick.
pub trait Observer: Send + Sync {
    /// An execution finished; check `arm` before taking it for a committed one.
    fn on_executed(&self, observed: &Observed);

    /// What an execution gave that is to be committed, before that is checked and before `on_executed`.
    fn on_outcome(&self, invocation: u64, outcome: &Outcome) {
        let _ = (invocation, outcome);
    }

    /// Shadow found a difference.
    fn on_divergence(&self, divergence: &Divergence) {
        let _ = divergence;
    }

    /// Shadow found a difference of a kind that it hasn't recorded yet; told before [`Observer::on_divergence`], on a
    /// thread that holds up no reply. Gives the name under which it is kept, or why it isn't; `None`: nobody keeps it.
    fn on_new_divergence(&self, reproducer: &Reproducer<'_>) -> Option<Result<String, String>> {
        let _ = reproducer;
        None
    }
}

/// An observer that keeps what it is told until somebody takes it.
#[derive(Debug)]
pub struct Collector {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    observed: VecDeque<Observed>,
    dropped: u64,
}

impl Collector {
    /// Keeps at most `capacity` executions; the oldest go first.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, kept: Mutex::default() }
    }

    /// Takes everything kept, oldest first.
    #[must_use]
    pub fn drain(&self) -> Vec<Observed> {
        self.lock().observed.drain(..).collect()
    }

    /// How many were dropped for want of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Collector {
    fn on_executed(&self, observed: &Observed) {
        let mut kept = self.lock();
        if kept.observed.len() >= self.capacity {
            kept.observed.pop_front();
            kept.dropped += 1;
        }
        if self.capacity > 0 {
            kept.observed.push_back(observed.clone());
        }
    }
}
