//! Inline tables: where a step applies, and what it requires.

use serde_json::{Value as Json, json};
use toml::de::{DeTable, DeValue};

use super::kind::{Fault, Kind, ScopeSaid, Value, a_type, listed, string};
use crate::diagnostic::{nearest, quoted};

/// Most subnets that one step names.
const SUBNETS_MAX: usize = 1_000;
/// Longest id of a subnet, and longest label with its value, characters.
const ID_CHARS_MAX: usize = 63;
const LABEL_CHARS_MAX: usize = 129;
/// Most nodes of a subnet: more than any has.
const NODES_MAX: u64 = 1_000;
/// Most comparisons that a step can ask for.
const COMPARISONS_MAX: u64 = 1_000_000_000_000;

const SCOPE_KEYS: [&str; 3] = ["subnets", "label", "nodes_per_subnet"];
const REQUIRE_KEYS: [&str; 1] = ["min_comparisons"];

fn wrong(message: String, kind: Kind) -> Fault {
    Fault { message, expected: format!("expected {}", kind.described()), suggestion: None }
}

fn stray(key: &str, name: &str, known: &[&'static str]) -> Fault {
    Fault {
        message: format!("unknown key {} in `{key}`", quoted(name)),
        expected: format!("expected {}", listed(known)),
        suggestion: nearest(name, known),
    }
}

/// Reads the scope of a step.
pub(super) fn scope(key: &str, table: &DeTable<'_>) -> Result<Value, Fault> {
    let mut scope = ScopeSaid::default();
    for (name, value) in table {
        let (name, value): (&str, _) = (name.get_ref(), value.get_ref());
        let is_not = || wrong(format!("`{name}` in `{key}` is {}", a_type(value)), Kind::Scope);
        match name {
            "subnets" => scope.subnets = subnets(value).ok_or_else(is_not)?,
            "label" => scope.label = Some(label(value).ok_or_else(is_not)?),
            "nodes_per_subnet" => {
                scope.nodes_per_subnet = Some(number(value, NODES_MAX).ok_or_else(is_not)?);
            }
            _ => return Err(stray(key, name, &SCOPE_KEYS)),
        }
    }
    match (scope.subnets.is_empty(), &scope.label) {
        (true, None) => Err(wrong(format!("`{key}` names no subnet"), Kind::Scope)),
        (false, Some(_)) => Err(wrong(format!("`{key}` has both subnets and a label"), Kind::Scope)),
        _ => Ok(Value::Scope(scope)),
    }
}

/// Reads what a step requires: a number of comparisons.
pub(super) fn require(key: &str, table: &DeTable<'_>) -> Result<Value, Fault> {
    let mut comparisons = None;
    for (name, value) in table {
        let (name, value): (&str, _) = (name.get_ref(), value.get_ref());
        if name != REQUIRE_KEYS[0] {
            return Err(stray(key, name, &REQUIRE_KEYS));
        }
        let read = number(value, COMPARISONS_MAX);
        comparisons = Some(
            read.ok_or_else(|| wrong(format!("`{name}` in `{key}` is {}", a_type(value)), Kind::Require))?,
        );
    }
    comparisons.map(Value::Number).ok_or_else(|| wrong(format!("`{key}` is empty"), Kind::Require))
}

fn subnets(value: &DeValue<'_>) -> Option<Vec<String>> {
    let listed = value.as_array().filter(|listed| (1..=SUBNETS_MAX).contains(&listed.len()))?;
    let id = |text: &str| {
        let well_formed =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (well_formed && (1..=ID_CHARS_MAX).contains(&text.len())).then(|| text.to_owned())
    };
    listed.iter().map(|value| value.get_ref().as_str().and_then(id)).collect()
}

fn label(value: &DeValue<'_>) -> Option<(String, String)> {
    let text = value.as_str().filter(|text| text.chars().count() <= LABEL_CHARS_MAX)?;
    let (name, value) = text.split_once('=')?;
    let harmless = |part: &str| !part.is_empty() && !part.contains(char::is_control);
    (harmless(name) && harmless(value)).then(|| (name.to_owned(), value.to_owned()))
}

fn number(value: &DeValue<'_>, most: u64) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|read| (1..=most).contains(read))
}

/// A scope as the file writes it.
pub(super) fn write_scope(scope: &ScopeSaid) -> String {
    let mut parts = Vec::new();
    if let Some((name, value)) = &scope.label {
        parts.push(format!("label = {}", string(&format!("{name}={value}"))));
    } else {
        let ids: Vec<_> = scope.subnets.iter().map(|id| string(id)).collect();
        parts.push(format!("subnets = [{}]", ids.join(", ")));
    }
    parts.extend(scope.nodes_per_subnet.map(|nodes| format!("nodes_per_subnet = {nodes}")));
    format!("{{ {} }}", parts.join(", "))
}

pub(super) fn scope_schema() -> Json {
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "subnets": {
                "type": "array", "minItems": 1, "maxItems": SUBNETS_MAX,
                "items": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,63}$" },
            },
            "label": { "type": "string", "pattern": "^[^=]+=.+$" },
            "nodes_per_subnet": { "type": "integer", "minimum": 1, "maximum": NODES_MAX },
        },
        "oneOf": [{ "required": ["subnets"] }, { "required": ["label"] }],
    })
}

pub(super) fn require_schema() -> Json {
    json!({
        "type": "object", "additionalProperties": false, "required": REQUIRE_KEYS,
        "properties": { "min_comparisons": { "type": "integer", "minimum": 1, "maximum": COMPARISONS_MAX } },
    })
}
