//! What a rollout waits for, in words.

use std::time::Duration;

use rollout::machine::{Active, Phase};

use super::Driver;

impl Driver {
    /// What a rollout that waits is waiting for.
    pub(super) fn waits_for(&self, id: &str) -> Option<String> {
        let driven = self.rollouts.get(id)?;
        let index = driven.steps.get(driven.state.step_index()).copied().unwrap_or_default();
        if let Some(why) = &self.line.stopped {
            return Some(format!("the line is stopped: {why}"));
        }
        if self.killed {
            return Some("the kill switch is engaged".into());
        }
        if driven.rule.as_ref().and_then(|rule| rule.hold_at_step).is_some_and(|hold| index > hold) {
            return Some("the policy file holds it at the step before (hold_at_step)".into());
        }
        self.board.phase().why_not_ready()
    }

    /// What comes next, in words.
    pub(super) fn next(&self, id: &str) -> String {
        let Some(driven) = self.rollouts.get(id) else { return String::new() };
        let state = &driven.state;
        let frozen = if state.is_frozen() { "; frozen: its state can't be stored" } else { "" };
        let next = match state.phase() {
            Phase::Active(Active::Draft) => "to be checked".into(),
            Phase::Active(Active::Planned | Active::Superseded) => format!("`bulkhead start {id}`"),
            Phase::Active(Active::Waiting) => self.waits_for(id).unwrap_or_else(|| "the next step".into()),
            Phase::Active(Active::Switching) => "until what began before has ended".into(),
            Phase::Active(Active::Warmup) => "measurements that count".into(),
            Phase::Active(Active::Baking) => {
                let step = &state.plan().steps()[state.step_index()];
                let left = Duration::from_millis(step.bake_ms.saturating_sub(state.baked_ms()));
                if left.is_zero() {
                    "a verdict of all guards".into()
                } else {
                    format!("{} s more with traffic", left.as_secs_f64().ceil())
                }
            }
            Phase::Active(Active::Completed) => format!("`bulkhead finish {id}`"),
            Phase::Paused { .. } => format!("`bulkhead resume {id}`, `promote` or `abort`"),
            Phase::RollingBack(_) => "until what began before has ended".into(),
            Phase::RolledBack { acknowledged: false, .. } => format!("`bulkhead ack {id}`"),
            Phase::RolledBack { acknowledged: true, .. } => {
                format!("`bulkhead retry {id}` after the cooldown")
            }
            Phase::Finished => "nothing".into(),
        };
        next + frozen
    }
}
