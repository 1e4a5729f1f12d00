//! The schema of policy files for editors, from the same table that they are read by.

use serde_json::{Map, Value, json};

use super::schema::{Form, Key, SECTIONS, Section, VERSION, within};

/// JSON Schema (draft 2020-12) of policy files, where dates are strings. What it accepts may still be refused: it
/// doesn't compare values with each other, nor quantities with their ranges.
#[must_use]
pub fn json_schema() -> Value {
    let version = json!({ "const": VERSION, "description": "the version of this schema" });
    let of_the_file = |section: &&Section| !matches!(section.form, Form::Within(..));
    let sections =
        SECTIONS.iter().filter(of_the_file).map(|section| (section.name.to_owned(), of_section(section)));
    let properties: Map<String, Value> =
        std::iter::once(("schema".to_owned(), version)).chain(sections).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Bulkhead policy file",
        "type": "object",
        "required": ["schema"],
        "additionalProperties": false,
        "properties": properties,
    })
}

fn of_section(section: &Section) -> Value {
    let mut table = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": section.keys.iter().map(|key| (key.name.to_owned(), of_key(section, key))).collect::<Map<_, _>>(),
        "required": section.keys.iter().filter(|key| key.required).map(|key| key.name).collect::<Vec<_>>(),
    });
    match section.form {
        Form::Once => {
            table["description"] = section.about.into();
            table
        }
        Form::ById => json!({
            "type": "object",
            "description": section.about,
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,63}$" },
            "additionalProperties": table,
        }),
        Form::List(_) => json!({ "type": "array", "description": section.about, "items": table }),
        Form::Within(..) => json!({ "type": "array", "minItems": 1, "items": table }),
    }
}

fn of_key(section: &Section, key: &Key) -> Value {
    let mut schema = match within(section.name, key.name) {
        Some(inner) => of_section(inner),
        None => key.kind.json_schema(),
    };
    schema["description"] = format!("{} ({})", key.about, key.kind.described()).into();
    schema
}
