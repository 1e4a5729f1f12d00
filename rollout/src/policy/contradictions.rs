//! What is right by itself and wrong beside the rest: no layer may weaken what a layer below it guarantees, and no
//! table may say what can have no effect.

mod rollouts;

use std::collections::HashMap;

use super::Said;
use super::document::{Document, Entry};
use super::rule::Rule;
use crate::diagnostic::Source;
use crate::{Diagnostic, Floor, Mode};

/// All of them.
///
/// A node isn't tied to a subnet in the file, nor is a canister, so their modes are held against the default's floor
/// here and against their subnet's when they are resolved.
pub(super) fn check(document: &Document, source: &Source<'_>) -> Vec<Diagnostic> {
    let default = document.of("default").map(Rule::read).next().unwrap_or_default();
    let mut errors = Vec::new();
    errors.extend(own(source, "[default]", &default));
    for entry in document.of("subnets") {
        let (name, rule) = (entry.header(), Rule::read(entry));
        errors.extend(weaker_floor(source, &name, &rule, &default));
        if rule.floor.is_some() {
            errors.extend(own(source, &name, &rule));
        } else {
            errors.extend(inherited(source, &name, &rule, &default));
        }
        errors.extend(expires_without_mode(source, entry, &rule));
    }
    for entry in document.of("nodes") {
        let rule = Rule::read(entry);
        errors.extend(inherited(source, &entry.header(), &rule, &default));
        errors.extend(expires_without_mode(source, entry, &rule));
    }
    for entry in document.of("canisters") {
        errors.extend(inherited(source, &entry.header(), &Rule::read(entry), &default));
    }
    for (section, key, what) in
        [("canisters", "id", "canister"), ("exemptions", "id", "canister"), ("guards", "name", "guard")]
    {
        errors.extend(twice(source, document, (section, key), what));
    }
    errors.extend(rollouts::check(document, source));
    errors
}

fn own(source: &Source<'_>, name: &str, rule: &Rule) -> Option<Diagnostic> {
    let (mode, floor) = (rule.mode?, rule.floor?);
    let message = format!("{name} sets mode `{}` below its own floor `{}`", mode.value, floor.value);
    below(source, mode, floor, message)
}

fn inherited(source: &Source<'_>, name: &str, rule: &Rule, default: &Rule) -> Option<Diagnostic> {
    let (mode, floor) = (rule.mode?, default.floor?);
    let message = format!("{name} sets mode `{}` below the floor `{}` of [default]", mode.value, floor.value);
    below(source, mode, floor, message)
}

fn below(source: &Source<'_>, mode: Said<Mode>, floor: Said<Floor>, message: String) -> Option<Diagnostic> {
    if floor.value.allows(mode.value) {
        return None;
    }
    let mut error = source.diagnostic(mode.span(), message, "expected `sandboxed`, or a lower floor");
    error.note = Some(format!("the floor is set at {}:{}", source.file, floor.at));
    Some(error)
}

fn weaker_floor(source: &Source<'_>, name: &str, rule: &Rule, default: &Rule) -> Option<Diagnostic> {
    let (weak, strong) = (rule.floor?, default.floor?);
    if weak.value >= strong.value {
        return None;
    }
    let message =
        format!("{name} sets floor `{}` below the floor `{}` of [default]", weak.value, strong.value);
    let mut error = source.diagnostic(weak.span(), message, "a layer may raise the floor, not lower it");
    error.note = Some(format!("the floor is set at {}:{}", source.file, strong.at));
    Some(error)
}

fn expires_without_mode(source: &Source<'_>, entry: &Entry, rule: &Rule) -> Option<Diagnostic> {
    let expires = rule.expires.filter(|_| rule.mode.is_none())?;
    let message = format!("{} has `expires` and no `mode` that could expire", entry.header());
    Some(source.diagnostic(expires.span(), message, "expected a `mode` beside it"))
}

/// Entries of a list whose id an earlier one has.
fn twice(
    source: &Source<'_>,
    document: &Document,
    (section, key): (&str, &str),
    what: &str,
) -> Vec<Diagnostic> {
    let mut first: HashMap<&str, &Entry> = HashMap::new();
    let mut entries: Vec<&Entry> = document.of(section).filter(|entry| !entry.id.is_empty()).collect();
    entries.sort_by_key(|entry| entry.bytes);
    let mut errors = Vec::new();
    for entry in entries {
        let Some(before) = first.get(entry.id.as_str()) else {
            first.insert(&entry.id, entry);
            continue;
        };
        let span = entry.get(key).map_or(entry.span(), Said::span);
        let message = format!("{what} `{}` stands twice in {}", entry.id, entry.header());
        let mut error = source.diagnostic(span, message, "merge it into the first one");
        error.note = Some(format!("first defined at {}:{}", source.file, before.at));
        errors.push(error);
    }
    errors
}
