//! The transitions: every event in every phase.

use super::event::{Effect, Event, OnFail, Promotion, Refusal, Status};
use super::{Active, Pause, Phase, Rollback, Rollout};
use crate::guards::Verdict;

/// What comes of an event: a state, and effects in their order.
pub(super) type Transition = (Rollout, Vec<Effect>);

impl Rollout {
    /// What `event` at `now_ms` makes of this state. The clock may stand still or go back: what was measured
    /// from a moment that is in the future now is measured from now.
    ///
    /// The new state is to be stored after every event, before the first effect is done; after a crash,
    /// [`Event::Restarted`] gives the effects again. Where it can't be stored, the state before stays, and gets
    /// [`Event::StoreLost`]; but one that [is latched](Rollout::is_latched) is taken and its effects are done
    /// all the same, and every later attempt to store it is of this state. The first that works is told as
    /// [`Event::StoreFound`], which gives the effects again, and whose state is stored like any other's: then
    /// the latch is on disk. A process that ends before that comes back with the state from before the
    /// rollback.
    #[must_use]
    pub fn step(self, event: Event, now_ms: u64) -> (Self, Vec<Effect>) {
        self.not_ahead_of(now_ms).happened(event, now_ms)
    }

    /// A clock that was ahead and was set back must not stop warm-up, bake, cooldown or a switch's deadline
    /// until it has caught up: each begins anew instead. After a restart, a warm-up to come is what isn't
    /// counted.
    fn not_ahead_of(self, now_ms: u64) -> Self {
        let uncounted_until_ms = now_ms.saturating_add(self.plan.warmup_ms());
        Self {
            entered_ms: self.entered_ms.min(now_ms),
            counted_until_ms: self.counted_until_ms.min(uncounted_until_ms),
            ..self
        }
    }

    fn happened(self, event: Event, now_ms: u64) -> Transition {
        match event {
            Event::Abort => self.roll_back(Rollback::Aborted, now_ms),
            Event::Kill => self.roll_back(Rollback::Killed, now_ms),
            Event::Judged { verdict: Verdict::Fail, on_fail } => self.failed(on_fail, now_ms),
            Event::Drained => self.drained(now_ms),
            Event::Restarted => self.restarted(now_ms),
            Event::StoreLost => (Self { frozen: true, ..self }, Vec::new()),
            Event::StoreFound if self.frozen => self.store_found(now_ms),
            Event::Tick if self.is_overdue(now_ms) => self.roll_back(Rollback::Deadline, now_ms),
            Event::Tick if !self.frozen => self.tick(now_ms),
            Event::Exposed { ms } if !self.frozen => (self.exposed(ms, now_ms), Vec::new()),
            Event::Judged { verdict, on_fail: OnFail::Rollback | OnFail::Pause } if !self.frozen => {
                self.judged(verdict, now_ms)
            }
            // Not asked by anybody, or of guards that only observe: nothing to refuse.
            Event::Tick | Event::Exposed { .. } | Event::Judged { .. } | Event::StoreFound => {
                (self, Vec::new())
            }
            _ if self.frozen => self.refuse(Refusal::Frozen),
            Event::Validated => self.advance(Active::Draft, Active::Planned, now_ms),
            Event::Start => self.start(now_ms),
            Event::Ready => self.ready(now_ms),
            Event::Converged => self.advance(Active::Switching, Active::Warmup, now_ms),
            Event::Pause => self.pause(Pause::User, now_ms),
            Event::Resume => self.resume(now_ms),
            Event::Promote(promotion) => self.promote(promotion, now_ms),
            Event::Acknowledge => self.acknowledge(),
            Event::Retry => self.retry(now_ms),
            Event::Finish => self.finish(now_ms),
            Event::Edited(plan) => self.edited(plan, now_ms),
        }
    }

    pub(super) fn enter(self, phase: Phase, now_ms: u64) -> Transition {
        (Self { phase, entered_ms: now_ms, ..self }, vec![Effect::Entered(phase)])
    }

    pub(super) fn refuse(self, why: Refusal) -> Transition {
        (self, vec![Effect::Refused(why)])
    }

    /// The refusal of a command that only has a meaning in another phase.
    fn refuse_here(self) -> Transition {
        let why = match self.phase {
            Phase::Paused { why, .. } => Refusal::Paused(why),
            Phase::Finished => Refusal::Finished,
            Phase::Active(_) | Phase::RollingBack(_) | Phase::RolledBack { .. } => Refusal::Phase,
        };
        self.refuse(why)
    }

    fn advance(self, from: Active, to: Active, now_ms: u64) -> Transition {
        if self.phase == Phase::Active(from) {
            self.enter(Phase::Active(to), now_ms)
        } else {
            self.refuse_here()
        }
    }

    fn start(self, now_ms: u64) -> Transition {
        match self.phase {
            Phase::Active(Active::Planned | Active::Superseded) => {
                self.enter(Phase::Active(Active::Waiting), now_ms)
            }
            _ => self.refuse_here(),
        }
    }

    fn ready(self, now_ms: u64) -> Transition {
        if self.phase != Phase::Active(Active::Waiting) {
            return self.refuse_here();
        }
        let (switching, mut effects) = Self { exposed_step: Some(self.step), baked_ms: 0, ..self }
            .enter(Phase::Active(Active::Switching), now_ms);
        effects.extend(switching.effects_again());
        (switching, effects)
    }

    /// What the driver has to do, or to do again, in this phase.
    fn effects_again(&self) -> Vec<Effect> {
        let cut_over = Effect::CutOver { step: self.exposed_step };
        match self.phase {
            Phase::Active(Active::Switching) => {
                vec![Effect::Prewarm { step: self.step }, cut_over, Effect::Drain]
            }
            Phase::RollingBack(_) => vec![cut_over, Effect::Drain],
            Phase::Active(_) | Phase::Paused { .. } | Phase::RolledBack { .. } => vec![cut_over],
            Phase::Finished => Vec::new(),
        }
    }

    fn is_overdue(&self, now_ms: u64) -> bool {
        let taken_ms = now_ms.saturating_sub(self.entered_ms);
        self.phase == Phase::Active(Active::Switching) && taken_ms > self.plan.switch_deadline_ms()
    }

    fn tick(self, now_ms: u64) -> Transition {
        let warm = now_ms.saturating_sub(self.entered_ms) >= self.plan.warmup_ms();
        if self.phase == Phase::Active(Active::Warmup) && warm {
            Self { counted_until_ms: now_ms, ..self }.enter(Phase::Active(Active::Baking), now_ms)
        } else {
            (self, Vec::new())
        }
    }

    /// Exposure counts while baking, and no moment twice.
    fn exposed(self, ms: u64, now_ms: u64) -> Self {
        if self.phase != Phase::Active(Active::Baking) {
            return self;
        }
        let more_ms = ms.min(now_ms.saturating_sub(self.counted_until_ms));
        let counted_until_ms = self.counted_until_ms.max(now_ms);
        Self { baked_ms: self.baked_ms.saturating_add(more_ms), counted_until_ms, ..self }
    }

    fn failed(self, on_fail: OnFail, now_ms: u64) -> Transition {
        match (on_fail, self.phase) {
            // Without a candidate in force there is nothing that could have failed.
            (_, Phase::Active(Active::Draft | Active::Planned) | Phase::Finished) => (self, Vec::new()),
            (OnFail::Rollback, _) => self.roll_back(Rollback::Guard, now_ms),
            (OnFail::Pause, Phase::Active(_)) if !self.frozen => self.pause(Pause::Guard, now_ms),
            (OnFail::Pause, _) => (self, Vec::new()),
            (OnFail::Observe, _) => (self, vec![Effect::Noted]),
        }
    }

    /// PASS or INCONCLUSIVE.
    fn judged(self, verdict: Verdict, now_ms: u64) -> Transition {
        if self.phase != Phase::Active(Active::Baking) {
            return (self, Vec::new());
        }
        let step = &self.plan.steps()[self.step];
        match verdict {
            Verdict::Pass if self.baked_ms >= step.bake_ms => self.next(now_ms),
            Verdict::Inconclusive if self.baked_ms >= step.max_bake_ms => {
                self.pause(Pause::Inconclusive, now_ms)
            }
            Verdict::Pass | Verdict::Inconclusive | Verdict::Fail => (self, Vec::new()),
        }
    }

    fn next(self, now_ms: u64) -> Transition {
        if self.step + 1 < self.plan.steps().len() {
            Self { step: self.step + 1, ..self }.enter(Phase::Active(Active::Waiting), now_ms)
        } else {
            self.enter(Phase::Active(Active::Completed), now_ms)
        }
    }

    fn pause(self, why: Pause, now_ms: u64) -> Transition {
        match self.phase {
            Phase::Active(from) => self.enter(Phase::Paused { from, why }, now_ms),
            // Again: the same.
            Phase::Paused { .. } => (self, Vec::new()),
            Phase::RollingBack(_) | Phase::RolledBack { .. } | Phase::Finished => self.refuse_here(),
        }
    }

    fn resume(self, now_ms: u64) -> Transition {
        let Phase::Paused { from, .. } = self.phase else {
            return self.refuse_here();
        };
        // What was exposed while it was paused doesn't count.
        let counted_until_ms = self.counted_until_ms.max(now_ms);
        let (resumed, mut effects) = Self { counted_until_ms, ..self }.enter(Phase::Active(from), now_ms);
        if from == Active::Switching {
            effects.extend(resumed.effects_again());
        }
        (resumed, effects)
    }

    fn promote(self, promotion: Promotion, now_ms: u64) -> Transition {
        if !matches!(self.phase, Phase::Active(Active::Baking) | Phase::Paused { from: Active::Baking, .. }) {
            return self.refuse_here();
        }
        let missing_ms = self.plan.steps()[self.step].bake_ms.saturating_sub(self.baked_ms);
        let last = self.plan.steps().len() - 1;
        match promotion {
            Promotion::Next if missing_ms > 0 => self.refuse(Refusal::Baking { missing_ms }),
            Promotion::Next => self.next(now_ms),
            Promotion::SkipBake => Self { fast: true, ..self }.next(now_ms),
            // The last step itself is still to be switched to.
            Promotion::Full if self.step < last => Self { fast: true, step: last - 1, ..self }.next(now_ms),
            Promotion::Full => Self { fast: true, ..self }.next(now_ms),
        }
    }

    fn roll_back(self, why: Rollback, now_ms: u64) -> Transition {
        match self.phase {
            Phase::Active(_) | Phase::Paused { .. } => {
                let back = Self { exposed_step: None, ..self };
                let (back, mut effects) = back.enter(Phase::RollingBack(why), now_ms);
                effects.extend(back.effects_again());
                (back, effects)
            }
            // Again: the same.
            Phase::RollingBack(_) | Phase::RolledBack { .. } => (self, Vec::new()),
            Phase::Finished => self.refuse(Refusal::Finished),
        }
    }

    fn drained(self, now_ms: u64) -> Transition {
        let Phase::RollingBack(why) = self.phase else {
            return (self, Vec::new());
        };
        let (back, mut effects) = self.enter(Phase::RolledBack { why, acknowledged: false }, now_ms);
        effects.push(Effect::Ended(why.into()));
        (back, effects)
    }

    fn acknowledge(self) -> Transition {
        let Phase::RolledBack { why, .. } = self.phase else {
            return self.refuse_here();
        };
        // Not entered anew: the cooldown began with the rollback.
        (Self { phase: Phase::RolledBack { why, acknowledged: true }, ..self }, Vec::new())
    }

    fn retry(self, now_ms: u64) -> Transition {
        match self.phase {
            Phase::RolledBack { acknowledged: true, .. } => {
                let passed_ms = now_ms.saturating_sub(self.entered_ms);
                let left_ms = self.plan.retry_cooldown_ms().saturating_sub(passed_ms);
                if left_ms > 0 {
                    return self.refuse(Refusal::Cooldown { left_ms });
                }
                let anew =
                    Self { run: self.run.saturating_add(1), step: 0, baked_ms: 0, fast: false, ..self };
                anew.enter(Phase::Active(Active::Planned), now_ms)
            }
            Phase::RolledBack { acknowledged: false, .. } => self.refuse(Refusal::Latched),
            _ => self.refuse_here(),
        }
    }

    fn finish(self, now_ms: u64) -> Transition {
        if self.phase != Phase::Active(Active::Completed) {
            return self.refuse_here();
        }
        let status = if self.fast { Status::FastPromoted } else { Status::Promoted };
        let (finished, mut effects) = self.enter(Phase::Finished, now_ms);
        effects.extend([Effect::RewritePolicy, Effect::Ended(status)]);
        (finished, effects)
    }

    /// What was exposed meanwhile isn't known to any store. What couldn't be told or wasn't taken meanwhile is
    /// asked for again.
    fn store_found(self, now_ms: u64) -> Transition {
        let found = Self { frozen: false, counted_until_ms: self.counted_until_ms.max(now_ms), ..self };
        let effects = found.effects_again();
        (found, effects)
    }

    /// The same phase. What was exposed while nobody looked doesn't count, nor does a warm-up after it.
    fn restarted(self, now_ms: u64) -> Transition {
        let counted_until_ms = self.counted_until_ms.max(now_ms.saturating_add(self.plan.warmup_ms()));
        let mut restarted = Self { counted_until_ms, ..self };
        if matches!(restarted.phase, Phase::Active(Active::Switching | Active::Warmup)) {
            // Both are measured from the start of what measures them.
            restarted.entered_ms = now_ms;
        }
        let effects = restarted.effects_again();
        (restarted, effects)
    }
}
