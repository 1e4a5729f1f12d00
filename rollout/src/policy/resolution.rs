//! From layers to a decision.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Policy, Said, Table};
use crate::{Floor, Mode, Position};

/// In force when no layer says anything.
const BUILT_IN: Mode = Mode::InProcess;

/// A layer of the policy, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// `[default]`, or what is built in where it is silent.
    Default,
    /// `[subnets.ID]`
    Subnet,
    /// `[nodes.ID]`
    Node,
}

impl Layer {
    /// A short word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Subnet => "subnet",
            Self::Node => "node",
        }
    }
}

/// Why the mode in force is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The node's own table says so.
    Pinned,
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
            Self::Pinned => "PINNED",
            Self::Subnet => "SUBNET",
            Self::Default => "DEFAULT",
            Self::Floored => "FLOORED",
        }
    }
}

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
    /// It would have won, but lies below the floor that this layer sets.
    BelowFloorOf(Layer),
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
}

/// The mode in force on one node of one subnet, with the whole reasoning. `Display` explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The subnet asked about.
    pub subnet: String,
    /// The node asked about.
    pub node: String,
    /// The mode in force.
    pub mode: Mode,
    /// The floor in force.
    pub floor: Floor,
    /// Why.
    pub reason: Reason,
    /// The layer that decided: by its mode, or by its floor when `reason` is `Floored`.
    pub decided_by: Layer,
    /// Where what decided stands; `None`: built in.
    pub at: Option<Location>,
    /// All layers, strongest first.
    pub layers: [LayerSaid; 3],
    /// Generation of the policy; 0 when it isn't in force on a node.
    pub generation: u64,
}

pub(super) fn resolve(policy: &Policy, subnet: &str, node: &str) -> Resolution {
    let tables = [
        (Layer::Node, policy.nodes.get(node).copied().unwrap_or_default()),
        (Layer::Subnet, policy.subnets.get(subnet).copied().unwrap_or_default()),
        (Layer::Default, policy.default),
    ];
    let place = |at: Position| Location { file: Arc::clone(&policy.file), position: at };
    let (speaker, said) = tables
        .iter()
        .find_map(|&(layer, table)| Some((layer, table.mode?)))
        .map_or((Layer::Default, None), |(layer, said)| (layer, Some(said)));
    let wanted = said.map_or(BUILT_IN, |said| said.value);
    let floored = strongest_floor(&tables).filter(|(_, said)| !said.value.allows(wanted));
    let floor = strongest_floor(&tables).map_or(Floor::None, |(_, said)| said.value);
    let (mode, reason, decided_by, at) = match floored {
        Some((layer, said)) => (Mode::Sandboxed, Reason::Floored, layer, Some(said.at)),
        None => (wanted, reason(speaker), speaker, said.map(|said| said.at)),
    };
    let layers = tables.map(|(layer, table)| LayerSaid {
        layer,
        mode: table.mode.map(|said| said.value).or((layer == Layer::Default).then_some(BUILT_IN)),
        mode_at: table.mode.map(|said| place(said.at)),
        floor: table.floor.map(|said| said.value),
        floor_at: table.floor.map(|said| place(said.at)),
        standing: standing(layer, table, speaker, floored.map(|(layer, _)| layer)),
    });
    Resolution {
        subnet: subnet.to_owned(),
        node: node.to_owned(),
        mode,
        floor,
        reason,
        decided_by,
        at: at.map(place),
        layers,
        generation: 0,
    }
}

/// The highest floor, by the most general layer that sets it.
fn strongest_floor(tables: &[(Layer, Table)]) -> Option<(Layer, Said<Floor>)> {
    tables
        .iter()
        .filter_map(|&(layer, table)| Some((layer, table.floor?)))
        .max_by_key(|&(layer, said)| (said.value, std::cmp::Reverse(layer)))
}

fn reason(speaker: Layer) -> Reason {
    match speaker {
        Layer::Node => Reason::Pinned,
        Layer::Subnet => Reason::Subnet,
        Layer::Default => Reason::Default,
    }
}

fn standing(layer: Layer, table: Table, speaker: Layer, floored_by: Option<Layer>) -> Standing {
    if layer == speaker {
        floored_by.map_or(Standing::Won, Standing::BelowFloorOf)
    } else if table.mode.is_none() && layer != Layer::Default {
        Standing::Silent
    } else {
        Standing::OverriddenBy(speaker)
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
    fn to_json(&self) -> Value {
        let (standing, by) = match self.standing {
            Standing::Won => ("won", None),
            Standing::OverriddenBy(layer) => ("overridden", Some(layer)),
            Standing::BelowFloorOf(layer) => ("below-floor", Some(layer)),
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
        })
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
            Some(location) => write!(f, " {location}"),
            None => write!(f, " (built in)"),
        }
    }
}

impl fmt::Display for LayerSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.standing == Standing::Won { "→" } else { " " };
        write!(f, "{arrow} {:<9} ", self.layer.as_str())?;
        match (self.mode, &self.mode_at) {
            (Some(mode), Some(location)) => write!(f, "{mode:<12} {location}")?,
            (Some(mode), None) => write!(f, "{mode:<12} (built in)")?,
            (None, _) => write!(f, "says no mode")?,
        }
        match self.standing {
            Standing::Won | Standing::Silent => Ok(()),
            Standing::OverriddenBy(layer) => write!(f, "   (overridden by {})", layer.as_str()),
            Standing::BelowFloorOf(layer) => write!(f, "   (below the floor of {})", layer.as_str()),
        }
    }
}
