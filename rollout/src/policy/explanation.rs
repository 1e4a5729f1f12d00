//! A decision with its whole reasoning.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::exposure::Exposed;
use super::resolution::{BUILT_IN, Rules, decide_by};
use super::rule::Rule;
use super::{Conditions, Layer, Policy, Reason, Said, Scope};
use crate::{Floor, Mode, Position};

/// A place in a named file: `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file as it was named.
    pub file: Arc<str>,
    /// Line and column.
    pub position: Position,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.position)
    }
}

/// What became of what a layer said about the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in force.
    Won,
    /// This stronger layer said otherwise.
    OverriddenBy(Layer),
    /// A canister's rule or exemption that this weaker layer makes needless: its mode is as strong, or as weak.
    NotNeededFor(Layer),
    /// It would have won, but lies below the floor that this layer sets.
    BelowFloorOf(Layer),
    /// Its time is over.
    Expired,
    /// The kill switch, whose file is not there.
    NotEngaged,
    /// It said nothing.
    Silent,
}

/// What one layer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSaid {
    /// Which layer.
    pub layer: Layer,
    /// Its mode.
    pub mode: Option<Mode>,
    /// Where its mode stands; `None` when silent or built in.
    pub mode_at: Option<Location>,
    /// Its floor.
    pub floor: Option<Floor>,
    /// Where its floor stands.
    pub floor_at: Option<Location>,
    /// What became of its mode.
    pub standing: Standing,
    /// From when on its mode says nothing.
    pub expires: Option<Timestamp>,
    /// Why it says so.
    pub reason: Option<String>,
    /// Who agreed to an exemption.
    pub approved_by: Vec<String>,
    /// What operators call a subnet.
    pub labels: BTreeMap<String, String>,
}

/// The mode in force in a scope, with the whole reasoning. `Display` explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The subnet asked about.
    pub subnet: String,
    /// The node asked about.
    pub node: String,
    /// The canister asked about, as text.
    pub canister: Option<String>,
    /// The time that it holds for.
    pub at_time: Timestamp,
    /// The mode in force.
    pub mode: Mode,
    /// The floor that is set, which the kill switch and exemptions go below.
    pub floor: Floor,
    /// Why.
    pub reason: Reason,
    /// The layer that decided: by its mode, or by its floor when `reason` is `Floored`.
    pub decided_by: Layer,
    /// Where what decided stands; `None`: built in.
    pub at: Option<Location>,
    /// All layers, strongest first; those for canisters only when one was asked about.
    pub layers: Vec<LayerSaid>,
    /// Generation of the policy; 0 when it isn't in force on a node.
    pub generation: u64,
}

pub(super) fn explain(policy: &Policy, scope: &Scope<'_>, conditions: Conditions<'_>) -> Resolution {
    let rules = Rules::of(policy, scope, conditions.exposures);
    let decision = decide_by(policy, &rules, conditions);
    let floor = rules.floor();
    let place = |at: Position| Location { file: Arc::clone(&policy.file), position: at };
    let told = Told { rules: &rules, decision: (decision.reason, decision.decided_by), at: conditions.at };
    let mut layers = vec![kill_switch(policy, conditions.killed)];
    let listed: &[(Layer, Option<&Rule>)] = &[
        (Layer::Node, rules.node),
        (Layer::Exemption, rules.exemption),
        (Layer::Canister, rules.canister),
        (Layer::Subnet, rules.subnet),
        (Layer::Default, Some(rules.default)),
    ];
    if let Some(exposed) = &rules.rollout {
        layers.push(told.latch(exposed, place));
    }
    for &(layer, rule) in listed {
        if let (Layer::Subnet, Some(exposed)) = (layer, &rules.rollout) {
            layers.push(told.rollout(exposed, place));
        }
        if scope.canister.is_some() || !matches!(layer, Layer::Canister | Layer::Exemption) {
            layers.push(told.layer(layer, rule, place));
        }
    }
    let decider = layers.iter().find(|said| said.layer == decision.decided_by);
    let at = decider.and_then(|said| match decision.reason {
        Reason::Floored => said.floor_at.clone(),
        _ => said.mode_at.clone(),
    });
    Resolution {
        subnet: scope.subnet.to_owned(),
        node: scope.node.to_owned(),
        canister: scope.canister.map(|id| id.to_text()),
        at_time: conditions.at,
        mode: decision.mode,
        floor: floor.map_or(Floor::None, |(_, said)| said.value),
        reason: decision.reason,
        decided_by: decision.decided_by,
        at,
        layers,
        generation: 0,
    }
}

fn kill_switch(policy: &Policy, killed: bool) -> LayerSaid {
    let kill_switch = policy.kill_switch.as_ref();
    let place = |said: Said<Mode>| Location { file: Arc::clone(&policy.file), position: said.at };
    LayerSaid {
        mode: kill_switch.map(|kill_switch| kill_switch.mode.value),
        mode_at: kill_switch.map(|kill_switch| place(kill_switch.mode)),
        standing: match kill_switch {
            Some(_) if killed => Standing::Won,
            Some(_) => Standing::NotEngaged,
            None => Standing::Silent,
        },
        reason: kill_switch.map(|kill_switch| format!("file {}", kill_switch.file.display())),
        ..LayerSaid::silent(Layer::KillSwitch)
    }
}

/// A decision, to tell of each layer what became of it.
struct Told<'a> {
    rules: &'a Rules<'a>,
    decision: (Reason, Layer),
    at: Timestamp,
}

impl Told<'_> {
    fn layer(&self, layer: Layer, rule: Option<&Rule>, place: impl Fn(Position) -> Location) -> LayerSaid {
        let built_in = (layer == Layer::Default).then_some(BUILT_IN);
        let Some(rule) = rule else { return LayerSaid::silent(layer) };
        LayerSaid {
            layer,
            mode: rule.mode.map(|said| said.value).or(built_in),
            mode_at: rule.mode.map(|said| place(said.at)),
            floor: rule.floor.map(|said| said.value),
            floor_at: rule.floor.map(|said| place(said.at)),
            standing: self.standing(layer, rule),
            expires: rule.expires.map(|said| said.value),
            reason: rule.reason.clone(),
            approved_by: rule.approved_by.clone(),
            labels: rule.labels.clone(),
        }
    }

    fn latch(&self, exposed: &Exposed<'_>, place: impl Fn(Position) -> Location) -> LayerSaid {
        let Exposed { rollout, latched, .. } = exposed;
        if !latched {
            return LayerSaid::silent(Layer::Latch);
        }
        LayerSaid {
            mode: Some(rollout.control),
            mode_at: Some(place(rollout.at)),
            standing: self.standing_of(Layer::Latch),
            reason: Some(format!("{} was rolled back", rollout.id)),
            ..LayerSaid::silent(Layer::Latch)
        }
    }

    fn rollout(&self, exposed: &Exposed<'_>, place: impl Fn(Position) -> Location) -> LayerSaid {
        let rollout = exposed.rollout;
        let Some((split, (mode, ..))) = exposed.split.zip(self.rules.split()) else {
            let reason = Some(format!("{} is not exposed here", rollout.id));
            return LayerSaid { reason, ..LayerSaid::silent(Layer::Rollout) };
        };
        let (number, count) = (split.index + 1, rollout.steps.len());
        let mut what = format!("{} step {number}/{count} {}", rollout.id, split.step.name);
        if let Some(bucket) = self.rules.bucket {
            let (sign, bound) = match bucket {
                bucket if bucket >= split.holdout => (">=", split.holdout),
                bucket if bucket >= split.threshold => (">=", split.threshold),
                _ => ("<", split.threshold.min(split.holdout)),
            };
            what += &format!("   bucket {bucket:06} {sign} {bound} ppm");
        }
        LayerSaid {
            mode: Some(mode),
            mode_at: Some(place(split.step.at)),
            standing: self.standing_of(Layer::Rollout),
            reason: Some(what),
            ..LayerSaid::silent(Layer::Rollout)
        }
    }

    fn standing(&self, layer: Layer, rule: &Rule) -> Standing {
        if rule.mode.is_none() && layer != Layer::Default {
            Standing::Silent
        } else if rule.is_expired(self.at) {
            Standing::Expired
        } else {
            self.standing_of(layer)
        }
    }

    /// Of a layer that says a mode.
    fn standing_of(&self, layer: Layer) -> Standing {
        let (reason, decided_by) = self.decision;
        let (speaker, _) = self.rules.speaker(self.at);
        if reason == Reason::Killed {
            Standing::OverriddenBy(Layer::KillSwitch)
        } else if layer == decided_by && reason != Reason::Floored {
            Standing::Won
        } else if layer == speaker {
            match decided_by {
                // A pin that wants less than what the exemption allows.
                Layer::Exemption => Standing::OverriddenBy(Layer::Exemption),
                floored_by => Standing::BelowFloorOf(floored_by),
            }
        } else if layer > speaker {
            Standing::NotNeededFor(speaker)
        } else {
            Standing::OverriddenBy(speaker)
        }
    }
}

impl Resolution {
    /// The same as `Display`, as data.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let layers: Vec<Value> = self.layers.iter().map(LayerSaid::to_json).collect();
        json!({
            "subnet": self.subnet,
            "node": self.node,
            "canister": self.canister,
            "time": self.at_time.to_string(),
            "mode": self.mode.as_str(),
            "floor": self.floor.as_str(),
            "reason": self.reason.as_str(),
            "decided_by": self.decided_by.as_str(),
            "at": self.at.as_ref().map(Location::to_json),
            "generation": (self.generation > 0).then_some(self.generation),
            "layers": layers,
        })
    }
}

impl Location {
    fn to_json(&self) -> Value {
        json!({"file": &*self.file, "line": self.position.line, "column": self.position.column})
    }
}

impl LayerSaid {
    fn silent(layer: Layer) -> Self {
        Self {
            layer,
            mode: None,
            mode_at: None,
            floor: None,
            floor_at: None,
            standing: Standing::Silent,
            expires: None,
            reason: None,
            approved_by: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    fn to_json(&self) -> Value {
        let (standing, by) = match self.standing {
            Standing::Won => ("won", None),
            Standing::OverriddenBy(layer) => ("overridden", Some(layer)),
            Standing::NotNeededFor(layer) => ("not-needed", Some(layer)),
            Standing::BelowFloorOf(layer) => ("below-floor", Some(layer)),
            Standing::Expired => ("expired", None),
            Standing::NotEngaged => ("not-engaged", None),
            Standing::Silent => ("silent", None),
        };
        json!({
            "layer": self.layer.as_str(),
            "mode": self.mode.map(Mode::as_str),
            "mode_at": self.mode_at.as_ref().map(Location::to_json),
            "floor": self.floor.map(Floor::as_str),
            "floor_at": self.floor_at.as_ref().map(Location::to_json),
            "standing": standing,
            "by": by.map(Layer::as_str),
            "expires": self.expires.map(|time| time.to_string()),
            "reason": self.reason,
            "approved_by": self.approved_by,
            "labels": self.labels,
        })
    }

    /// What a layer without a mode is said to say.
    fn nothing(&self) -> &'static str {
        match self.layer {
            Layer::KillSwitch => "no kill switch",
            Layer::Node => "no pin",
            Layer::Exemption | Layer::Latch | Layer::Rollout => "none",
            Layer::Canister => "no rule",
            Layer::Subnet | Layer::Default => "says no mode",
        }
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in effect: {}   reason {}", self.mode.as_str().to_uppercase(), self.reason.as_str())?;
        if self.generation > 0 {
            write!(f, "   generation {}", self.generation)?;
        }
        let what = if self.reason == Reason::Floored { "the floor of " } else { "" };
        write!(f, "\ndecided by {what}{}", self.decided_by.as_str())?;
        match &self.at {
            Some(location) => write!(f, " at {location}")?,
            None => write!(f, " (built in)")?,
        }
        for said in &self.layers {
            write!(f, "\n{said}")?;
        }
        write!(f, "\n  {:<9} {:<12}", "floor", self.floor)?;
        let setter = self.layers.iter().rev().find(|said| said.floor == Some(self.floor));
        match setter.and_then(|said| said.floor_at.as_ref()) {
            Some(location) => write!(f, " {location}")?,
            None => write!(f, " (built in)")?,
        }
        if !self.floor.allows(self.mode) {
            write!(f, "   (broken by {})", self.decided_by.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Display for LayerSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.standing == Standing::Won { "→" } else { " " };
        write!(f, "{arrow} {:<9} ", self.layer.as_str())?;
        match (self.mode, &self.mode_at) {
            (Some(mode), Some(location)) => write!(f, "{mode:<12} {location}")?,
            (Some(mode), None) => write!(f, "{mode:<12} (built in)")?,
            (None, _) => write!(f, "{}", self.nothing())?,
        }
        match self.standing {
            Standing::Won | Standing::Silent => {}
            Standing::OverriddenBy(layer) => write!(f, "   (overridden by {})", layer.as_str())?,
            Standing::NotNeededFor(layer) => write!(f, "   (not needed: {} says as much)", layer.as_str())?,
            Standing::BelowFloorOf(layer) => write!(f, "   (below the floor of {})", layer.as_str())?,
            Standing::Expired => write!(f, "   (expired)")?,
            Standing::NotEngaged => write!(f, "   (not engaged)")?,
        }
        if let Some(expires) = self.expires {
            write!(f, "   until {expires}")?;
        }
        if !self.labels.is_empty() {
            let pairs: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            write!(f, "   labels {}", pairs.join(", "))?;
        }
        if let Some(reason) = &self.reason {
            write!(f, "   {reason}")?;
        }
        if !self.approved_by.is_empty() {
            write!(f, "   approved by {}", self.approved_by.join(", "))?;
        }
        Ok(())
    }
}
