//! How far rollouts are exposed, and what that says of a scope.

use std::collections::BTreeMap;

use super::Policy;
use super::bucket::PPM;
use super::resolution::{Reason, Scope};
use super::rollouts::{RolloutRule, StepRule};
use crate::{Design, Mode, Side};

/// How far each rollout of a policy is exposed: the state that a decision depends on beside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposures {
    /// By id. Of one that isn't here nothing is exposed.
    pub rollouts: BTreeMap<String, Exposure>,
    /// The nodes of the subnet, of which a node-split chooses.
    pub nodes: Vec<String>,
}

/// A step of a rollout, and which text of it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExposedStep {
    /// From zero.
    pub index: usize,
    /// [`StepRule::digest`]. Where the policy has another step in this place, nothing is exposed: an edit is in force
    /// when the rollout is started again, and no moment before.
    pub digest: [u8; 32],
}

/// How far a rollout is exposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// The last step that was cut over to; `None`: nothing is exposed.
    pub step: Option<ExposedStep>,
    /// In a switchback whose step is baking: whose block it is. `None`: the candidate's, until the next step.
    pub block: Option<Side>,
    /// Rolled back: the control wherever a step of it may apply, until another attempt is begun.
    pub latched: bool,
    /// Whether a policy is accepted that lacks the rollout, or has other modes for it: not while it is under way, and
    /// after a rollback not before a person has acknowledged that.
    pub released: bool,
}

impl Exposures {
    /// Nothing is exposed.
    #[must_use]
    pub fn none() -> &'static Self {
        static NONE: Exposures = Exposures { rollouts: BTreeMap::new(), nodes: Vec::new() };
        &NONE
    }
}

/// What a rollout says of a subnet on a node, whatever the canister.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exposed<'a> {
    pub(super) rollout: &'a RolloutRule,
    pub(super) latched: bool,
    pub(super) split: Option<Split<'a>>,
}

/// How a step divides canisters by bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split<'a> {
    pub(super) index: usize,
    pub(super) step: &'a StepRule,
    /// The mode below the threshold; the control's from there on.
    pub(super) below: Mode,
    pub(super) threshold: u32,
    /// From here on the control, whatever the threshold.
    pub(super) holdout: u32,
    /// Whether the step is the one that is under way.
    pub(super) current: bool,
}

impl<'a> Exposed<'a> {
    pub(super) fn of(policy: &'a Policy, scope: &Scope<'_>, exposures: &Exposures) -> Option<Self> {
        let rollout = policy.rollouts.iter().find(|rollout| rollout.covers(scope.subnet))?;
        let exposure = exposures.rollouts.get(&rollout.id).copied().unwrap_or_default();
        let known =
            |step: &ExposedStep| rollout.steps.get(step.index).is_some_and(|rule| rule.digest == step.digest);
        let split = exposure.step.filter(known).and_then(|ExposedStep { index: last, .. }| {
            let steps = rollout.steps.iter().enumerate().take(last.saturating_add(1));
            let (index, step) = steps.rev().find(|(_, step)| step.covers(scope.subnet))?;
            let current = index == last;
            let all = PPM - rollout.holdout_ppm;
            let (below, threshold, holdout) = match step.design {
                Design::Aa => (rollout.control, PPM, PPM),
                Design::NodeSplit => {
                    let count = step.nodes_per_subnet.unwrap_or_default();
                    let chosen = rollout.buckets.is_among_first(count, scope.node, &exposures.nodes);
                    (if chosen { step.mode } else { rollout.control }, PPM, all)
                }
                Design::Switchback => {
                    let controls = current && exposure.block == Some(Side::Control);
                    (if controls { rollout.control } else { step.mode }, step.percent_ppm, all)
                }
                Design::Percent => (step.mode, step.percent_ppm, all),
            };
            Some(Split { index, step, below, threshold, holdout, current })
        });
        Some(Self { rollout, latched: exposure.latched, split })
    }
}

impl Split<'_> {
    /// What it says of a bucket: the mode, why, and whether it is on trial. `None`: of canisters in general.
    pub(super) fn at(&self, bucket: Option<u32>, control: Mode) -> (Mode, Reason, bool) {
        let divides =
            self.threshold < PPM || matches!(self.step.design, Design::NodeSplit | Design::Switchback);
        let reason = if divides { Reason::Split } else { Reason::Step };
        // Most canisters, where none is asked about.
        let bucket = bucket.unwrap_or(if self.threshold < PPM { PPM - 1 } else { 0 });
        if bucket >= self.holdout {
            (control, Reason::Holdout, false)
        } else if bucket < self.threshold {
            (self.below, reason, self.current)
        } else {
            (control, reason, false)
        }
    }

    /// Where what it says changes: the buckets at which ranges end, the last one being all.
    pub(super) fn ends(&self) -> [u32; 3] {
        let holdout = self.holdout;
        [self.threshold.min(holdout), holdout, PPM]
    }
}
