//! No layer may weaken what a layer below it guarantees.

use std::collections::HashMap;

use super::{Policy, Said, Table};
use crate::diagnostic::Source;
use crate::{Diagnostic, Floor, Mode};

/// All modes below a floor that holds for them, and all floors below the default's.
///
/// A node isn't tied to a subnet in the file, so its mode is held against the default's floor here and
/// against its subnet's when it is resolved.
pub(super) fn check(policy: &Policy, source: &Source<'_>) -> Vec<Diagnostic> {
    let default = policy.default;
    let mut errors = Vec::new();
    errors.extend(own(source, "[default]", default));
    for (name, table) in named("subnets", &policy.subnets) {
        errors.extend(weaker_floor(source, &name, table, default));
        if table.floor.is_some() {
            errors.extend(own(source, &name, table));
        } else {
            errors.extend(inherited(source, &name, table, default));
        }
    }
    for (name, table) in named("nodes", &policy.nodes) {
        errors.extend(inherited(source, &name, table, default));
    }
    errors
}

fn named<'a>(
    kind: &str,
    tables: &'a HashMap<String, Table>,
) -> impl Iterator<Item = (String, Table)> + use<'a> {
    let kind = kind.to_owned();
    tables.iter().map(move |(id, &table)| (format!("[{kind}.{id}]"), table))
}

fn own(source: &Source<'_>, name: &str, table: Table) -> Option<Diagnostic> {
    let (mode, floor) = (table.mode?, table.floor?);
    let message = format!("{name} sets mode `{}` below its own floor `{}`", mode.value, floor.value);
    below(source, mode, floor, message)
}

fn inherited(source: &Source<'_>, name: &str, table: Table, default: Table) -> Option<Diagnostic> {
    let (mode, floor) = (table.mode?, default.floor?);
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

fn weaker_floor(source: &Source<'_>, name: &str, table: Table, default: Table) -> Option<Diagnostic> {
    let (weak, strong) = (table.floor?, default.floor?);
    if weak.value >= strong.value {
        return None;
    }
    let message =
        format!("{name} sets floor `{}` below the floor `{}` of [default]", weak.value, strong.value);
    let mut error = source.diagnostic(weak.span(), message, "a layer may raise the floor, not lower it");
    error.note = Some(format!("the floor is set at {}:{}", source.file, strong.at));
    Some(error)
}
