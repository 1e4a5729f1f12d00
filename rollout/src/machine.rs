//! A rollout as a state machine: phases, and what each event makes of each of them.
//!
//! One pure function, [`Rollout::step`]. Whoever drives it hands in what happened and the time, writes the
//! state to its store after every event, and then does what the effects say, in their order. Phases and rules
//! are those of a rollout that may be aborted from anywhere, whose rollback stays until a person acknowledges
//! it, and whose bake is time in which the candidate had traffic.
//!
//! ```text
//!  Draft ─ validated → Planned ─ start → Waiting ─ ready → Switching ─ converged → Warmup → Baking
//!  Baking ─ PASS and baked → Waiting of the next step, after the last → Completed ─ finish → Finished
//!  Baking ─ INCONCLUSIVE at max_bake → Paused           whatever exposes ─ abort, kill, FAIL → RollingBack
//!  Switching ─ deadline → RollingBack ─ drained → RolledBack (latched) ─ acknowledge, retry → Planned
//!  all of the upper rows ─ pause → Paused ─ resume → where it was;  ─ edited → Superseded ─ start → Waiting
//! ```

mod edit;
mod event;
mod plan;
mod transition;
mod wire;

pub use event::{Effect, Event, OnFail, Promotion, Refusal, Status};
pub use plan::{Plan, PlanError, STEPS_MAX, Step};
pub use wire::{STATE_BYTES_MAX, StateError};

/// Where a rollout is, with its plan. Moments are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    plan: Plan,
    phase: Phase,
    /// Since when it is in this phase.
    entered_ms: u64,
    /// The step that is under way or comes next, from zero.
    step: usize,
    /// Counts attempts: part of every verdict's seed.
    run: u32,
    /// The step that is cut over to now, never one beyond `step`. How far it exposes the candidate, and where, is the
    /// policy's to say.
    exposed_step: Option<usize>,
    /// Exposure that this step has gathered.
    baked_ms: u64,
    /// Exposure before this moment is counted, or doesn't count.
    counted_until_ms: u64,
    /// Whether bake was skipped on the way.
    fast: bool,
    /// The store can't be written: nothing advances.
    frozen: bool,
}

/// A phase that can be paused and rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// Written, not yet validated against the node.
    Draft,
    /// Valid, not started.
    Planned,
    /// For its window, lock, approvals.
    Waiting,
    /// The candidate is being put in force.
    Switching,
    /// In force; measurements don't count yet.
    Warmup,
    /// In force, measured and judged.
    Baking,
    /// All steps passed.
    Completed,
    /// Its plan was edited while it ran: holds what is in force until it is started again.
    Superseded,
}

/// Why a rollout is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// A person asked for it.
    User,
    /// A guard failed whose plan says pause.
    Guard,
    /// The longest bake is over, and a guard is still open.
    Inconclusive,
}

/// Why a rollout was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollback {
    /// A person asked for it.
    Aborted,
    /// The kill switch is engaged.
    Killed,
    /// A guard failed.
    Guard,
    /// The candidate was not in force everywhere in time.
    Deadline,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Under way.
    Active(Active),
    /// Held in `from`, with its exposure. Guards go on.
    Paused {
        /// Where it goes on.
        from: Active,
        /// Why.
        why: Pause,
    },
    /// The control is being put in force.
    RollingBack(Rollback),
    /// The control is in force, latched: no plan, reload or restart brings the candidate back.
    RolledBack {
        /// Why.
        why: Rollback,
        /// Whether a person has seen it.
        acknowledged: bool,
    },
    /// The policy file says what the rollout ended with. The rollout says nothing any more.
    Finished,
}

impl Rollout {
    /// A rollout of `plan`, as a draft.
    #[must_use]
    pub fn new(plan: Plan, now_ms: u64) -> Self {
        Self {
            plan,
            phase: Phase::Active(Active::Draft),
            entered_ms: now_ms,
            step: 0,
            run: 1,
            exposed_step: None,
            baked_ms: 0,
            counted_until_ms: 0,
            fast: false,
            frozen: false,
        }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The step that is under way or comes next, from zero.
    #[must_use]
    pub fn step_index(&self) -> usize {
        self.step
    }

    /// Which attempt it is, from one.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.run
    }

    /// The step that is cut over to now, from zero: while it waits for the next one still the one before. `None`: the
    /// candidate is in force nowhere.
    #[must_use]
    pub fn exposed_step(&self) -> Option<usize> {
        self.exposed_step
    }

    /// Since when it is in this phase, milliseconds since 1970.
    #[must_use]
    pub fn entered_ms(&self) -> u64 {
        self.entered_ms
    }

    /// What was exposed before this moment is counted, or doesn't count; milliseconds since 1970.
    #[must_use]
    pub fn counted_until_ms(&self) -> u64 {
        self.counted_until_ms
    }

    /// Exposure that this step has gathered, milliseconds.
    #[must_use]
    pub fn baked_ms(&self) -> u64 {
        self.baked_ms
    }

    /// Whether the candidate is kept out until a person acknowledges and tries again.
    #[must_use]
    pub fn is_latched(&self) -> bool {
        matches!(self.phase, Phase::RollingBack(_) | Phase::RolledBack { .. })
    }

    /// Whether the store can't be written: nothing advances, rollback works.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The state as JSON, for a store.
    #[must_use]
    pub fn to_json(&self) -> String {
        wire::write(self)
    }

    /// A stored state. What doesn't hold together is refused: a wrong state could put a candidate in force.
    ///
    /// # Errors
    /// It is too large, damaged, of another version, or no state that [`Rollout::step`] leads to.
    pub fn from_json(bytes: &[u8]) -> Result<Self, StateError> {
        wire::read(bytes)
    }
}
