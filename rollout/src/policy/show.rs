//! A policy with what holds where its file is silent.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::document::Entry;
use super::kind::Value;
use super::resolution::BUILT_IN;
use super::schema::{Form, Key, SECTIONS, Section, VERSION};
use super::{Bounds, Location, Policy};
use crate::Floor;

/// Column at which it is said where a value came from.
const ORIGIN_COLUMN: usize = 40;

/// A table with what holds in it.
struct Shown<'a> {
    section: &'static Section,
    /// As the file writes it.
    header: String,
    values: Vec<(&'static Key, String, Option<Location>)>,
    /// `ID`, or the `id` of a list's entry.
    id: &'a str,
}

pub(super) fn show(policy: &Policy, built_in: &Bounds) -> String {
    let mut text = format!("schema = {VERSION}\n");
    for table in shown(policy, built_in) {
        text += &format!("\n{}\n", table.header);
        for (key, value, at) in table.values {
            let line = format!("{} = {value}", key.name);
            let origin = at.map_or_else(|| "built in".to_owned(), |at| at.to_string());
            text += &format!("{line:<ORIGIN_COLUMN$} # {origin}\n");
        }
    }
    text
}

pub(super) fn show_json(policy: &Policy, built_in: &Bounds) -> Json {
    let values = shown(policy, built_in).into_iter().flat_map(|table| {
        let (section, id) = (table.section, table.id.to_owned());
        table.values.into_iter().map(move |(key, value, at)| {
            json!({
                "section": section.name,
                "id": (section.form != Form::Once).then_some(&id),
                "key": key.name,
                "value": value,
                "at": at.map(|at| json!({
                    "file": &*at.file, "line": at.position.line, "column": at.position.column,
                })),
            })
        })
    });
    json!({ "file": &*policy.file, "values": values.collect::<Vec<_>>() })
}

fn shown<'a>(policy: &'a Policy, built_in: &Bounds) -> Vec<Shown<'a>> {
    let mut tables = Vec::new();
    for section in &SECTIONS {
        let entries: Vec<&Entry> = policy.document.of(section.name).collect();
        if entries.is_empty() && section.form == Form::Once {
            tables.push(table(policy, section, None, built_in));
        }
        tables.extend(entries.into_iter().map(|entry| table(policy, section, Some(entry), built_in)));
    }
    tables.retain(|table| !table.values.is_empty());
    tables
}

fn table<'a>(
    policy: &Policy,
    section: &'static Section,
    entry: Option<&'a Entry>,
    built_in: &Bounds,
) -> Shown<'a> {
    let place = |position| Location { file: std::sync::Arc::clone(&policy.file), position };
    let values = section.keys.iter().filter_map(|key| {
        if let Some(said) = entry.and_then(|entry| entry.get(key.name)) {
            return Some((key, key.kind.write(&said.value), Some(place(said.at))));
        }
        // A table that has to say something says nothing where it is absent.
        let absent = entry.is_none() && section.keys.iter().any(|key| key.required);
        let value = holds(policy, section.name, key.name, built_in).filter(|_| !absent)?;
        Some((key, key.kind.write(&value), None))
    });
    let id = entry.map_or("", |entry| &entry.id);
    Shown { section, header: section.header(id), values: values.collect(), id }
}

/// What holds where the file is silent.
fn holds(policy: &Policy, section: &str, key: &str, built_in: &Bounds) -> Option<Value> {
    match (section, key) {
        ("default", "mode") => {
            let floor = policy.default.floor.map_or(Floor::None, |said| said.value);
            Some(Value::Mode(BUILT_IN.max(floor.weakest_mode())))
        }
        ("default", "floor") => Some(Value::Floor(Floor::None)),
        ("switch", "rollback_deadline") => milliseconds(policy.rollback_deadline()),
        ("switch", "drain_timeout") => milliseconds(policy.drain_timeout()),
        ("guard_defaults", "looks") => milliseconds(policy.measure.looks),
        ("shadow", "sample_ppm") => Some(Value::Number(policy.shadow.sample_ppm.into())),
        ("shadow", "max_cpu_share") => Some(Value::Number(policy.shadow.cpu_share_ppm.into())),
        ("shadow", "deadline_factor") => Some(Value::Number(policy.shadow.deadline_factor_ppm.into())),
        ("shadow", "deadline_min") => milliseconds(policy.shadow.deadline_min),
        ("shadow", "records_max") => Some(Value::Number(policy.shadow.records_max as u64)),
        ("measure", "interval") => milliseconds(policy.measure.interval),
        ("measure", "block") => milliseconds(policy.measure.block),
        ("measure", "warmup_discard") => milliseconds(policy.measure.warmup_discard),
        _ => built_in.value(section, key),
    }
}

fn milliseconds(duration: Duration) -> Option<Value> {
    u64::try_from(duration.as_millis()).ok().map(Value::Number)
}
