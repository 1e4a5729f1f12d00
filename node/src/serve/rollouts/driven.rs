//! A rollout with all that is needed to drive it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rollout::machine::{Active, Effect, Phase, Plan, Rollout};
use rollout::store::Counts;
use rollout::{ExposedStep, Exposure, Policy, RolloutRule, Schedule, Side, StepRule};
use serde_json::Value;

use super::judge::Crashes;
use super::prewarming::Prewarming;
use super::trial::Trial;
use super::{By, is_released};

/// What a rollout is driven with.
pub(super) struct Driven {
    pub(super) state: Rollout,
    /// As the file has it now; `None`: it has none, or none for this subnet.
    pub(super) rule: Option<RolloutRule>,
    /// The steps of the plan, by their place in the rule: those that concern this subnet.
    pub(super) steps: Vec<usize>,
    /// The step of the plan that is put in force.
    pub(super) in_force: Option<usize>,
    /// In a switchback that is measured: whose block it is.
    pub(super) block: Option<Side>,
    /// Workers are launched ahead of a step.
    pub(super) prewarming: Option<Prewarming>,
    /// Effects that are still to be had.
    pub(super) todo: VecDeque<Effect>,
    /// The plan of the rule.
    pub(super) planned: Option<Plan>,
    /// Measured while it bakes.
    pub(super) trial: Option<Trial>,
    /// What an earlier process has counted.
    pub(super) stored: Option<Counts>,
    /// Confirmed differences since the step in force was cut over to, whatever the phase.
    pub(super) confirmed: u64,
    /// Watched for as long as anything is exposed.
    pub(super) crashes: Option<Crashes>,
    /// Fuses that only observe, and have blown.
    pub(super) blown: BTreeSet<String>,
    pub(super) schedule: Option<Schedule>,
    /// Looks at this step so far.
    pub(super) looks: u32,
    /// Of the last look.
    pub(super) verdicts: Vec<Value>,
    /// The name of its record.
    pub(super) record: Option<String>,
    /// Ratios of earlier looks.
    pub(super) history: VecDeque<Value>,
    /// Why it was rolled back or paused, in words.
    pub(super) cause: Option<String>,
    /// How often it ended how.
    pub(super) ended: BTreeMap<&'static str, u64>,
}

impl Driven {
    pub(super) fn new(state: Rollout) -> Self {
        Self {
            state,
            rule: None,
            steps: Vec::new(),
            in_force: None,
            block: None,
            prewarming: None,
            todo: VecDeque::new(),
            planned: None,
            trial: None,
            stored: None,
            confirmed: 0,
            crashes: None,
            blown: BTreeSet::new(),
            schedule: None,
            looks: 0,
            verdicts: Vec::new(),
            record: None,
            history: VecDeque::new(),
            cause: None,
            ended: BTreeMap::new(),
        }
    }

    /// Whether it was started, and neither rolled back nor finished since.
    pub(super) fn is_under_way(&self) -> bool {
        let phase = self.state.phase();
        let began = !matches!(
            phase,
            Phase::Active(Active::Draft | Active::Planned)
                | Phase::Paused { from: Active::Draft | Active::Planned, .. }
        );
        began && phase != Phase::Finished && !self.state.is_latched()
    }

    /// How far it is exposed with this step in force.
    pub(super) fn exposure(&self, step: Option<usize>) -> Exposure {
        let state = &self.state;
        let step = step.filter(|_| !state.is_latched()).and_then(|step| {
            let index = *self.steps.get(step)?;
            Some(ExposedStep { index, digest: state.plan().steps().get(step)?.digest })
        });
        Exposure { step, block: self.block, latched: state.is_latched(), released: is_released(state) }
    }

    /// The step that is under way or comes next.
    pub(super) fn step_rule(&self) -> Option<&StepRule> {
        self.rule.as_ref()?.steps.get(*self.steps.get(self.state.step_index())?)
    }

    /// The step that is in force.
    pub(super) fn in_force_rule(&self) -> Option<&StepRule> {
        self.rule.as_ref()?.steps.get(*self.steps.get(self.in_force?)?)
    }

    /// Another step, or another text of it.
    pub(super) fn forget_step(&mut self) {
        (self.trial, self.stored, self.schedule) = (None, None, None);
        (self.looks, self.block) = (0, None);
    }

    pub(super) fn entered(&mut self, phase: Phase, by: &By) {
        match phase {
            Phase::Paused { .. } | Phase::RollingBack(_) => self.cause.clone_from(&by.reason),
            Phase::RolledBack { .. } => {}
            Phase::Active(_) | Phase::Finished => self.cause = None,
        }
        let measures =
            matches!(phase, Phase::Active(Active::Baking) | Phase::Paused { from: Active::Baking, .. });
        if !measures {
            self.forget_step();
        }
    }

    /// Guards or measures are others now: what was seen so far counts for them too.
    pub(super) fn rearm(&mut self, policy: &Policy) {
        if let Some(trial) = self.trial.take() {
            self.stored = Some(trial.counts);
        }
        let crashes = self.in_force_rule().map(|rule| Crashes::new(policy, rule));
        if let (Some(now), Some(before)) = (crashes, &self.crashes) {
            self.crashes = Some(now.since(before));
        }
    }

    /// What its counters begin with at this step.
    pub(super) fn counts(&self) -> Counts {
        Counts { run: self.state.run(), step: self.state.step_index(), ..Counts::default() }
    }
}
