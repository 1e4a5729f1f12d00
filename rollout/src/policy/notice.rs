//! What is right in a policy and should still be known.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::document::Entry;
use super::rule::Rule;
use super::{Location, Policy};
use crate::Position;

/// Something that an operator should know of a policy. `Display`: `file:line:column: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Where it stands.
    pub at: Location,
    /// What there is to know.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// All of a policy at `at`, in the order of the file.
pub(super) fn all(policy: &Policy, at: Timestamp) -> Vec<Notice> {
    let mut found = Vec::new();
    let mut add = |position: Position, message: String| {
        found.push(Notice { at: Location { file: Arc::clone(&policy.file), position }, message });
    };
    if let Some(meta) = policy.meta.as_ref().filter(|meta| meta.review_by.value <= at) {
        let owner =
            meta.owner.as_deref().map(|owner| format!(", which is up to {owner}")).unwrap_or_default();
        add(
            meta.review_by.at,
            format!("the file is stale: its review was due by {}{owner}", meta.review_by.value),
        );
    }
    let rules = policy.document.entries.iter().filter(|entry| entry.get("expires").is_some());
    for entry in rules {
        let rule = Rule::read(entry);
        if let Some(expires) = rule.expires.filter(|_| rule.is_expired(at)) {
            add(expires.at, format!("{} has expired at {} and says no mode", named(entry), expires.value));
        } else if entry.section == "exemptions" {
            add(entry.at, exempt(entry, &rule));
        }
    }
    if let Some(kill_switch) = &policy.kill_switch {
        let mode = kill_switch.mode;
        let floors = std::iter::once(&policy.default).chain(policy.subnets.values());
        if floors.filter_map(|rule| rule.floor).any(|floor| !floor.value.allows(mode.value)) {
            let message = format!(
                "the kill switch goes below the floor: while {} is there, everything runs {}",
                kill_switch.file.display(),
                mode.value
            );
            add(mode.at, message);
        }
    }
    found.sort_by_key(|notice| notice.at.position);
    found
}

fn named(entry: &Entry) -> String {
    match entry.section {
        "canisters" => format!("the rule for canister {}", entry.id),
        "exemptions" => format!("the exemption of canister {}", entry.id),
        _ => entry.header(),
    }
}

fn exempt(entry: &Entry, rule: &Rule) -> String {
    let mode = rule.mode.map(|said| said.value.as_str()).unwrap_or_default();
    let until = rule.expires.map(|said| said.value.to_string()).unwrap_or_default();
    let reason = rule.reason.as_deref().unwrap_or_default();
    format!(
        "canister {} may run {mode}, whatever the floor, until {until}: {reason} (approved by {})",
        entry.id,
        rule.approved_by.join(", ")
    )
}
