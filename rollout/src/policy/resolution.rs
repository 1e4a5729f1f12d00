//! From layers to a decision.

use execution::Principal;
use jiff::Timestamp;

use super::exposure::{Exposed, Exposures};
use super::rule::Rule;
use super::{Policy, Said};
use crate::{Floor, Mode};

/// In force when no layer says anything.
pub(super) const BUILT_IN: Mode = Mode::InProcess;

/// A layer of the policy, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// `[default]`, or what is built in where it is silent.
    Default,
    /// `[subnets.ID]`
    Subnet,
    /// `[rollouts.ID]`, where a step of it is exposed.
    Rollout,
    /// `[[canisters]]`: only where it is stronger than what the layers before say.
    Canister,
    /// `[[exemptions]]`: only where it is weaker than what the layers before say.
    Exemption,
    /// `[nodes.ID]`
    Node,
    /// A rollout that was rolled back: its control, until another attempt is begun.
    Latch,
    /// `[kill_switch]`, while it is engaged.
    KillSwitch,
}

impl Layer {
    /// A short word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Subnet => "subnet",
            Self::Rollout => "rollout",
            Self::Canister => "canister",
            Self::Exemption => "exemption",
            Self::Node => "node",
            Self::Latch => "latch",
            Self::KillSwitch => "kill",
        }
    }
}

/// Why the mode in force is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The kill switch is engaged. Floors don't hold.
    Killed,
    /// The rollout was rolled back.
    Latched,
    /// The node's own table says so.
    Pinned,
    /// The canister is exempt from what would apply, for a time.
    Exempted,
    /// The canister has a rule of its own.
    Canister,
    /// A step divides canisters, nodes or time between candidate and control.
    Split,
    /// A step gives all the same.
    Step,
    /// The canister stays with the control to the end of the rollout.
    Holdout,
    /// The subnet's table says so.
    Subnet,
    /// `[default]` says so, or nothing does.
    Default,
    /// A layer asked for less than the floor.
    Floored,
}

impl Reason {
    /// The word in explanations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "KILLED",
            Self::Latched => "LATCHED",
            Self::Split => "SPLIT",
            Self::Step => "STEP",
            Self::Holdout => "HOLDOUT",
            Self::Pinned => "PINNED",
            Self::Exempted => "EXEMPTED",
            Self::Canister => "CANISTER",
            Self::Subnet => "SUBNET",
            Self::Default => "DEFAULT",
            Self::Floored => "FLOORED",
        }
    }
}

/// Where something runs.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The subnet, as the policy calls it.
    pub subnet: &'a str,
    /// The node, as the policy calls it.
    pub node: &'a str,
    /// The canister; `None`: one without a rule or an exemption.
    pub canister: Option<Principal>,
}

/// What a decision depends on beside policy and scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions<'a> {
    /// The time, on the wall clock.
    pub at: Timestamp,
    /// Whether the kill switch is engaged, if there is one.
    pub killed: bool,
    /// How far rollouts are exposed.
    pub exposures: &'a Exposures,
}

/// What applies in a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The mode.
    pub mode: Mode,
    /// Why.
    pub reason: Reason,
    /// The layer that decided: by its mode, or by its floor when `reason` is `Floored`.
    pub decided_by: Layer,
    /// Whether the step of a rollout that is under way decided: this is what its guards look at.
    pub on_trial: bool,
}

/// The rules that concern a scope.
pub(super) struct Rules<'a> {
    pub(super) default: &'a Rule,
    pub(super) subnet: Option<&'a Rule>,
    pub(super) canister: Option<&'a Rule>,
    pub(super) exemption: Option<&'a Rule>,
    pub(super) node: Option<&'a Rule>,
    pub(super) rollout: Option<Exposed<'a>>,
    /// The canister's bucket in that rollout.
    pub(super) bucket: Option<u32>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(policy: &'a Policy, scope: &Scope<'_>, exposures: &Exposures) -> Self {
        let canister = scope.canister;
        let rollout = Exposed::of(policy, scope, exposures);
        Self {
            default: &policy.default,
            subnet: policy.subnets.get(scope.subnet),
            canister: canister.and_then(|id| policy.canisters.get(&id)),
            exemption: canister.and_then(|id| policy.exemptions.get(&id)),
            node: policy.nodes.get(scope.node),
            bucket: rollout.zip(canister).map(|(exposed, id)| exposed.rollout.buckets.of(&id)),
            rollout,
        }
    }

    /// The highest floor, by the most general layer that sets it.
    pub(super) fn floor(&self) -> Option<(Layer, Said<Floor>)> {
        let default = self.default.floor.map(|floor| (Layer::Default, floor));
        let subnet = self.subnet.and_then(|rule| rule.floor).map(|floor| (Layer::Subnet, floor));
        match (default, subnet) {
            (Some(default), Some(subnet)) if subnet.1.value > default.1.value => Some(subnet),
            (default, subnet) => default.or(subnet),
        }
    }

    /// The layer that speaks, kill switch and floor aside, and what it says.
    pub(super) fn speaker(&self, at: Timestamp) -> (Layer, Mode) {
        let said = |rule: Option<&Rule>| rule.and_then(|rule| rule.mode_at(at)).map(|said| said.value);
        if let Some(latched) = self.rollout.filter(|exposed| exposed.latched) {
            return (Layer::Latch, latched.rollout.control);
        }
        if let Some(pinned) = said(self.node) {
            return (Layer::Node, pinned);
        }
        let mut speaker = match (said(self.subnet), said(Some(self.default))) {
            (Some(mode), _) => (Layer::Subnet, mode),
            (None, default) => (Layer::Default, default.unwrap_or(BUILT_IN)),
        };
        if let Some((mode, ..)) = self.split() {
            speaker = (Layer::Rollout, mode);
        }
        if let Some(stronger) = said(self.canister).filter(|&mode| mode > speaker.1) {
            speaker = (Layer::Canister, stronger);
        }
        if let Some(weaker) = said(self.exemption).filter(|&mode| mode < speaker.1) {
            speaker = (Layer::Exemption, weaker);
        }
        speaker
    }

    /// What the step that is exposed says: the mode, why, and whether that is on trial.
    pub(super) fn split(&self) -> Option<(Mode, Reason, bool)> {
        let exposed = self.rollout?;
        Some(exposed.split?.at(self.bucket, exposed.rollout.control))
    }

    /// The weakest mode that may be in force, and the layer that says so.
    fn weakest(&self, at: Timestamp) -> (Layer, Mode) {
        let (layer, floor) =
            self.floor().map_or((Layer::Default, Floor::None), |(layer, said)| (layer, said.value));
        let exempt = self.exemption.and_then(|rule| rule.mode_at(at)).map(|said| said.value);
        match exempt {
            Some(mode) if mode < floor.weakest_mode() => (Layer::Exemption, mode),
            _ => (layer, floor.weakest_mode()),
        }
    }
}

/// Layers from the weakest to the strongest, then the floor, then the kill switch (`ARCHITECTURE.md`, "Policy").
pub(super) fn decide(policy: &Policy, scope: &Scope<'_>, conditions: Conditions<'_>) -> Decision {
    decide_by(policy, &Rules::of(policy, scope, conditions.exposures), conditions)
}

pub(super) fn decide_by(policy: &Policy, rules: &Rules<'_>, conditions: Conditions<'_>) -> Decision {
    if let Some(kill_switch) = policy.kill_switch.as_ref().filter(|_| conditions.killed) {
        let mode = kill_switch.mode.value;
        return Decision { mode, reason: Reason::Killed, decided_by: Layer::KillSwitch, on_trial: false };
    }
    let (speaker, wanted) = rules.speaker(conditions.at);
    let (limiter, weakest) = rules.weakest(conditions.at);
    if wanted >= weakest {
        let split = rules.split().filter(|_| speaker == Layer::Rollout);
        let (reason, on_trial) =
            split.map_or_else(|| (reason(speaker), false), |(_, reason, on_trial)| (reason, on_trial));
        return Decision { mode: wanted, reason, decided_by: speaker, on_trial };
    }
    let reason = if limiter == Layer::Exemption { Reason::Exempted } else { Reason::Floored };
    Decision { mode: weakest, reason, decided_by: limiter, on_trial: false }
}

fn reason(speaker: Layer) -> Reason {
    match speaker {
        Layer::KillSwitch => Reason::Killed,
        Layer::Latch => Reason::Latched,
        Layer::Node => Reason::Pinned,
        Layer::Exemption => Reason::Exempted,
        Layer::Canister => Reason::Canister,
        Layer::Rollout => Reason::Step,
        Layer::Subnet => Reason::Subnet,
        Layer::Default => Reason::Default,
    }
}
