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
                Value::Canister(_) | Value::Path(_) | Value::Number(_) => {}
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

/// `[switch] rollback_deadline`, half a second where it isn't said: under a second with all that comes after it.
pub(super) fn rollback_deadline(document: &Document) -> Duration {
    let said = document.of("switch").find_map(|entry| entry.get("rollback_deadline"));
    match said.map(|said| &said.value) {
        Some(Value::Number(milliseconds)) => Duration::from_millis(*milliseconds),
        _ => Duration::from_millis(500),
    }
}

/// `[meta]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) owner: Option<String>,
    pub(super) review_by: Said<Timestamp>,
}

impl Meta {
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        let owner = entry.get("owner").and_then(|said| match &said.value {
            Value::Text(owner) => Some(owner.clone()),
            _ => None,
        });
        match entry.get("review_by")? {
            said @ Said { value: Value::Time(time), .. } => Some(Self { owner, review_by: said.of(*time) }),
            _ => None,
        }
    }
}
