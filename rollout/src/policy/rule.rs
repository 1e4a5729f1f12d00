//! What a table says about the mode, and for how long.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::Said;
use super::document::{Document, Entry};
use super::kind::Value;
use crate::{Floor, Mode};

/// A table of `[default]`, `[subnets.ID]`, `[nodes.ID]`, `[[canisters]]` or `[[exemptions]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) mode: Option<Said<Mode>>,
    /// It never expires: what is forgotten must not weaken anything.
    pub(super) floor: Option<Said<Floor>>,
    /// From here on `mode` says nothing.
    pub(super) expires: Option<Said<Timestamp>>,
    pub(super) reason: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) approved_by: Vec<String>,
}

impl Rule {
    pub(super) fn read(entry: &Entry) -> Self {
        let mut rule = Self::default();
        for (_, said) in &entry.values {
            match &said.value {
                Value::Mode(mode) => rule.mode = Some(said.of(*mode)),
                Value::Floor(floor) => rule.floor = Some(said.of(*floor)),
                Value::Time(time) => rule.expires = Some(said.of(*time)),
                Value::Text(text) => rule.reason = Some(text.clone()),
                Value::Labels(labels) => rule.labels.clone_from(labels),
                Value::Names(names) => rule.approved_by.clone_from(names),
                // The id that it is found by.
                Value::Canister(_) | Value::Path(_) | Value::Number(_) | Value::Word(_) | Value::Scope(_) => {
                }
            }
        }
        rule
    }

    /// Whether its mode has expired at `at`.
    pub(super) fn is_expired(&self, at: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires.value <= at)
    }

    /// What it says about the mode at `at`.
    pub(super) fn mode_at(&self, at: Timestamp) -> Option<Said<Mode>> {
        self.mode.filter(|_| !self.is_expired(at))
    }
}

/// `[kill_switch]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KillSwitch {
    pub(super) file: PathBuf,
    pub(super) mode: Said<Mode>,
}

impl KillSwitch {
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        match (&entry.get("file")?.value, entry.get("mode")?) {
            (Value::Path(file), said @ Said { value: Value::Mode(mode), .. }) => {
                Some(Self { file: file.clone(), mode: said.of(*mode) })
            }
            _ => None,
        }
    }
}

/// `[switch]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Switching {
    pub(super) rollback_deadline: Duration,
    pub(super) drain_timeout: Duration,
}

impl Switching {
    /// Half a second for a rollback where it isn't said: under a second with all that comes after it.
    pub(super) fn read(document: &Document) -> Self {
        Self {
            rollback_deadline: document.duration("switch", "rollback_deadline", Duration::from_millis(500)),
            drain_timeout: document.duration("switch", "drain_timeout", Duration::from_secs(30)),
        }
    }
}

/// What guards measure: `[measure]`, and `looks` of `[guard_defaults]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// How often histograms are taken, 1 s to a minute.
    pub interval: Duration,
    /// The unit of comparison, a multiple of `interval` up to 24 h.
    pub block: Duration,
    /// What doesn't count after a switch, up to 24 h.
    pub warmup_discard: Duration,
    /// From one look of the guards to the next, 1 s to 24 h.
    pub looks: Duration,
}

impl Measure {
    pub(super) fn read(document: &Document) -> Self {
        Self {
            interval: document.duration("measure", "interval", Duration::from_secs(10)),
            block: document.duration("measure", "block", Duration::from_secs(60)),
            warmup_discard: document.duration("measure", "warmup_discard", Duration::from_secs(120)),
            looks: document.duration("guard_defaults", "looks", Duration::from_secs(300)),
        }
    }
}

/// `[meta]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) owner: Option<String>,
    pub(super) review_by: Said<Timestamp>,
    pub(super) reason_required: bool,
}

impl Meta {
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        let owner = entry.get("owner").and_then(|said| match &said.value {
            Value::Text(owner) => Some(owner.clone()),
            _ => None,
        });
        let reason_required = entry.get("reason_required").is_some_and(|said| said.value == Value::Number(1));
        match entry.get("review_by")? {
            said @ Said { value: Value::Time(time), .. } => {
                Some(Self { owner, review_by: said.of(*time), reason_required })
            }
            _ => None,
        }
    }
}
