//! What may happen to a rollout, and what is to be done about it.

use super::{Pause, Phase, Plan, Rollback};
use crate::guards::Verdict;

/// What a guard's failure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFail {
    /// The control is put in force.
    Rollback,
    /// The exposure is held.
    Pause,
    /// It is noted.
    Observe,
}

/// How far a person promotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// To the next step, once this one has baked.
    Next,
    /// To the next step now.
    SkipBake,
    /// To the last step now.
    Full,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The plan was found to be possible here.
    Validated,
    /// Somebody starts it.
    Start,
    /// Window, lock, capabilities and approvals are there.
    Ready,
    /// The step's mode is in force everywhere. Said again if it is refused because the store is lost.
    Converged,
    /// Time went by.
    Tick,
    /// The candidate had traffic for so long, up to now.
    Exposed {
        /// Milliseconds.
        ms: u64,
    },
    /// All guards with this consequence were judged.
    Judged {
        /// What they say together.
        verdict: Verdict,
        /// What their failure does.
        on_fail: OnFail,
    },
    /// Somebody pauses it.
    Pause,
    /// Somebody resumes it.
    Resume,
    /// Somebody promotes it.
    Promote(Promotion),
    /// Somebody aborts it.
    Abort,
    /// The kill switch was engaged.
    Kill,
    /// No execution is under way in the candidate's mode any more.
    Drained,
    /// Somebody has seen the rollback.
    Acknowledge,
    /// Somebody wants another attempt.
    Retry,
    /// Somebody wants the candidate's mode in the policy file.
    Finish,
    /// The policy file has another plan for it now. Refused while the store is lost, and then to be said again:
    /// until it is taken, [`Rollout::exposed_step`](super::Rollout::exposed_step) is a step of the old plan.
    Edited(Plan),
    /// The process that drives it was started anew.
    Restarted,
    /// The store can't be written.
    StoreLost,
    /// The store can be written again. Said, too, where a stored state is frozen.
    StoreFound,
}

/// What is to be done, in this order, after the state is in the store. All but [`Effect::RewritePolicy`] may be
/// given, and done, again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make ready what the step's mode needs.
    Prewarm {
        /// From zero.
        step: usize,
    },
    /// Put in force what the policy says of this step; without one, the control everywhere.
    CutOver {
        /// From zero.
        step: Option<usize>,
    },
    /// Let what runs in the other mode end, then say so ([`Event::Converged`], [`Event::Drained`]).
    Drain,
    /// Write the candidate's mode into the policy file, before the state is stored: nothing gives this effect
    /// again, and a rollout that is still completed can be finished again.
    RewritePolicy,
    /// Tell people of a new phase.
    Entered(Phase),
    /// A guard that only observes has failed.
    Noted,
    /// A run is over.
    Ended(Status),
    /// The command changes nothing.
    Refused(Refusal),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Step by step.
    Promoted,
    /// With bake skipped.
    FastPromoted,
    /// By a guard, the kill switch or a deadline.
    RolledBack,
    /// By a person.
    Aborted,
    /// By another plan.
    Superseded,
}

impl From<Rollback> for Status {
    fn from(why: Rollback) -> Self {
        match why {
            Rollback::Aborted => Self::Aborted,
            Rollback::Killed | Rollback::Guard | Rollback::Deadline => Self::RolledBack,
        }
    }
}

/// Why a command changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no meaning in this phase.
    #[error("not in this phase")]
    Phase,
    /// It is paused for this; resume it first.
    #[error("it is paused")]
    Paused(Pause),
    /// The step needs so much more exposure, or `--skip-bake`.
    #[error("it has to bake for {missing_ms} ms more")]
    Baking {
        /// Milliseconds.
        missing_ms: u64,
    },
    /// The rollback has to be acknowledged first.
    #[error("its rollback isn't acknowledged")]
    Latched,
    /// Too soon after the rollback.
    #[error("it was rolled back less than the cooldown ago; {left_ms} ms are left")]
    Cooldown {
        /// Milliseconds.
        left_ms: u64,
    },
    /// The store can't be written.
    #[error("its store can't be written")]
    Frozen,
    /// It is over; the policy file says what is in force.
    #[error("it is finished")]
    Finished,
}
