//! What another plan makes of a rollout that is under way.

use super::event::{Effect, Refusal, Status};
use super::transition::Transition;
use super::{Active, Phase, Plan, Rollout};

impl Rollout {
    /// Steps that were passed stay passed while their text is the same; else it is a new run from the first
    /// step on. What is in force stays while its step is kept.
    pub(super) fn edited(self, plan: Plan, now_ms: u64) -> Transition {
        match self.phase {
            Phase::Finished => self.refuse(Refusal::Finished),
            _ if self.plan == plan => (self, Vec::new()),
            Phase::Active(Active::Draft | Active::Planned)
            | Phase::Paused { from: Active::Draft | Active::Planned, .. } => {
                Self { plan, ..self }.enter(Phase::Active(Active::Draft), now_ms)
            }
            // A latch holds whatever the file says; the next attempt is of the new plan.
            Phase::RollingBack(_) | Phase::RolledBack { .. } => (Self { plan, step: 0, ..self }, Vec::new()),
            Phase::Active(_) | Phase::Paused { .. } => self.superseded(plan, now_ms),
        }
    }

    fn superseded(self, plan: Plan, now_ms: u64) -> Transition {
        let done = matches!(
            self.phase,
            Phase::Active(Active::Completed) | Phase::Paused { from: Active::Completed, .. }
        );
        let passed = self.step + usize::from(done);
        let kept = self.plan.steps_kept(&plan);
        let was_exposed = self.exposed_step;
        let edited = if kept >= passed {
            // Where no step is new, the last one bakes again.
            Self { step: passed.min(plan.steps().len() - 1), ..self }
        } else {
            Self { step: 0, fast: false, ..self }
        };
        // What was measured and looked at under another plan is another run's, seeds too.
        let edited = Self { run: edited.run.saturating_add(1), ..edited };
        // What is in force under another text, or beyond where the run is now, isn't what anybody asked for.
        let exposed_step = was_exposed.filter(|exposed| *exposed < kept && *exposed <= edited.step);
        let edited = Self { plan, baked_ms: 0, exposed_step, ..edited };
        let (edited, mut effects) = edited.enter(Phase::Active(Active::Superseded), now_ms);
        if exposed_step != was_exposed {
            effects.extend([Effect::CutOver { step: None }, Effect::Drain]);
        }
        effects.push(Effect::Ended(Status::Superseded));
        (edited, effects)
    }
}
