//! From layers to a decision.

use execution::Principal;
use jiff::Timestamp;

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
    /// `[[canisters]]`: only where it is stronger than what the layers before say.
    Canister,
    /// `[[exemptions]]`: only where it is weaker than what the layers before say.
    Exemption,
    /// `[nodes.ID]`
    Node,
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
            Self::Canister => "canister",
            Self::Exemption => "exemption",
            Self::Node => "node",
            Self::KillSwitch => "kill",
        }
    }
}

/// Why the mode in force is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The kill switch is engaged. Floors don't hold.
    Killed,
    /// The node's own table says so.
    Pinned,
    /// The canister is exempt from what would apply, for a time.
    Exempted,
    /// The canister has a rule of its own.
    Canister,
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
pub struct Conditions {
    /// The time, on the wall clock.
    pub at: Timestamp,
    /// Whether the kill switch is engaged, if there is one.
    pub killed: bool,
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
}

/// The rules that concern a scope.
pub(super) struct Rules<'a> {
    pub(super) default: &'a Rule,
    pub(super) subnet: Option<&'a Rule>,
    pub(super) canister: Option<&'a Rule>,
    pub(super) exemption: Option<&'a Rule>,
    pub(super) node: Option<&'a Rule>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(policy: &'a Policy, scope: &Scope<'_>) -> Self {
        let canister = scope.canister;
        Self {
            default: &policy.default,
            subnet: policy.subnets.get(scope.subnet),
            canister: canister.and_then(|id| policy.canisters.get(&id)),
            exemption: canister.and_then(|id| policy.exemptions.get(&id)),
            node: policy.nodes.get(scope.node),
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
        if let Some(pinned) = said(self.node) {
            return (Layer::Node, pinned);
        }
        let mut speaker = match (said(self.subnet), said(Some(self.default))) {
            (Some(mode), _) => (Layer::Subnet, mode),
            (None, default) => (Layer::Default, default.unwrap_or(BUILT_IN)),
        };
        if let Some(stronger) = said(self.canister).filter(|&mode| mode > speaker.1) {
            speaker = (Layer::Canister, stronger);
        }
        if let Some(weaker) = said(self.exemption).filter(|&mode| mode < speaker.1) {
            speaker = (Layer::Exemption, weaker);
        }
        speaker
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
pub(super) fn decide(policy: &Policy, scope: &Scope<'_>, conditions: Conditions) -> Decision {
    if let Some(kill_switch) = policy.kill_switch.as_ref().filter(|_| conditions.killed) {
        let mode = kill_switch.mode.value;
        return Decision { mode, reason: Reason::Killed, decided_by: Layer::KillSwitch };
    }
    let rules = Rules::of(policy, scope);
    let (speaker, wanted) = rules.speaker(conditions.at);
    let (limiter, weakest) = rules.weakest(conditions.at);
    if wanted >= weakest {
        return Decision { mode: wanted, reason: reason(speaker), decided_by: speaker };
    }
    let reason = if limiter == Layer::Exemption { Reason::Exempted } else { Reason::Floored };
    Decision { mode: weakest, reason, decided_by: limiter }
}

fn reason(speaker: Layer) -> Reason {
    match speaker {
        Layer::KillSwitch => Reason::Killed,
        Layer::Node => Reason::Pinned,
        Layer::Exemption => Reason::Exempted,
        Layer::Canister => Reason::Canister,
        Layer::Subnet => Reason::Subnet,
        Layer::Default => Reason::Default,
    }
}
