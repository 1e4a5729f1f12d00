//! Kinds of values: how each is read, written and described.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use execution::Principal;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::units::Units;
use crate::diagnostic::{nearest, quoted};
use crate::{Floor, Mode};

/// Longest text, characters.
const TEXT_CHARS_MAX: usize = 200;
/// Longest name of a person or a label, and value of a label, characters.
const NAME_CHARS_MAX: usize = 64;
/// Most names and labels in one list.
const NAMES_MAX: usize = 16;
/// Longest path that the kernel takes, bytes.
const PATH_BYTES_MAX: usize = 4095;

/// What may stand behind a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// One of these modes.
    Mode {
        allowed: &'static [Mode],
        /// Why no other, where that has to be said.
        because: &'static str,
    },
    Floor,
    /// A moment: a date and time with its offset, or a date, which means its midnight in UTC.
    Time,
    /// For people.
    Text,
    /// Of people, one at least.
    Names,
    /// Names with values.
    Labels,
    /// Absolute.
    Path,
    /// The id of a canister.
    Canister,
    /// A whole number.
    Number {
        least: u64,
        most: u64,
    },
    /// A string with a unit.
    Quantity {
        units: &'static Units,
        least: u64,
        most: u64,
    },
    /// Kept as 1 and 0.
    Flag,
}

/// A value of some kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Mode(Mode),
    Floor(Floor),
    Time(Timestamp),
    Text(String),
    Names(Vec<String>),
    Labels(BTreeMap<String, String>),
    Path(PathBuf),
    Canister(Principal),
    Number(u64),
}

/// Why a value isn't of its kind.
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) expected: String,
    pub(super) suggestion: Option<String>,
}

impl Kind {
    /// Reads the value of `key`.
    pub(super) fn read(&self, key: &str, value: &DeValue<'_>) -> Result<Value, Fault> {
        let words = self.words();
        if !words.is_empty() {
            return self.read_word(key, value, &words);
        }
        // What is shown of a value that is wrong, and what was probably meant.
        let (shown, suggestion) = match (self, value) {
            (Self::Time, DeValue::Datetime(moment)) => match time(&moment.to_string()) {
                Some(time) => return Ok(Value::Time(time)),
                None => (quoted(&moment.to_string()), None),
            },
            (Self::Time, DeValue::String(text)) => {
                (a_type(value).to_owned(), time(text).map(|_| text.clone().into_owned()))
            }
            (Self::Text, DeValue::String(text)) if is_text(text, TEXT_CHARS_MAX) => {
                return Ok(Value::Text(text.clone().into_owned()));
            }
            (Self::Names, DeValue::Array(_)) => match names(value) {
                Some(names) => return Ok(Value::Names(names)),
                None => ("an array of something else".to_owned(), None),
            },
            (Self::Labels, DeValue::Table(_)) => match labels(value) {
                Some(labels) => return Ok(Value::Labels(labels)),
                None => ("a table of something else".to_owned(), None),
            },
            (Self::Path, DeValue::String(text)) if is_path(text) => {
                return Ok(Value::Path(PathBuf::from(&**text)));
            }
            (Self::Canister, DeValue::String(text)) => match canister(text) {
                Some(id) => return Ok(Value::Canister(id)),
                None => (quoted(text), None),
            },
            (Self::Flag, DeValue::Boolean(flag)) => return Ok(Value::Number(u64::from(*flag))),
            (Self::Number { least, most }, DeValue::Integer(number)) => {
                match u64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(read) if (*least..=*most).contains(&read) => return Ok(Value::Number(read)),
                    _ => (quoted(number.as_str()), None),
                }
            }
            (Self::Quantity { units, least, most }, DeValue::String(text)) => match units.read(text) {
                Ok(read) if (*least..=*most).contains(&read) => return Ok(Value::Number(read)),
                Ok(_) => (quoted(text), None),
                Err(meant) => (quoted(text), meant),
            },
            (Self::Text | Self::Path, DeValue::String(text)) => (quoted(text), None),
            (_, other) => (a_type(other).to_owned(), None),
        };
        let (message, expected) = (format!("`{key}` is {shown}"), format!("expected {}", self.described()));
        Err(Fault { message, expected, suggestion })
    }

    /// The words of a closed list; none: it isn't one.
    fn words(&self) -> Vec<&'static str> {
        match self {
            Self::Mode { allowed, .. } => allowed.iter().map(|mode| mode.as_str()).collect(),
            Self::Floor => Floor::ALL.map(Floor::as_str).to_vec(),
            _ => Vec::new(),
        }
    }

    fn read_word(&self, key: &str, value: &DeValue<'_>, words: &[&'static str]) -> Result<Value, Fault> {
        let expected = self.described();
        let Some(word) = value.as_str() else {
            let message = format!("`{key}` is {}", a_type(value));
            return Err(Fault {
                message,
                expected: format!("expected a string: {expected}"),
                suggestion: None,
            });
        };
        let known = match self {
            Self::Floor => Floor::from_word(word).map(Value::Floor),
            _ => Mode::from_word(word).map(Value::Mode),
        };
        match known {
            Some(read) if words.contains(&word) => Ok(read),
            Some(_) => {
                let message = format!("`{key}` is {}", quoted(word));
                Err(Fault { message, expected: format!("expected {expected}"), suggestion: None })
            }
            None => {
                let (message, suggestion) = (format!("unknown {key} {}", quoted(word)), nearest(word, words));
                Err(Fault { message, expected: format!("expected {expected}"), suggestion })
            }
        }
    }

    /// What is right, for a message.
    pub(super) fn described(&self) -> String {
        match self {
            Self::Mode { because: "", .. } | Self::Floor => listed(&self.words()),
            Self::Mode { because, .. } => format!("{}: {because}", listed(&self.words())),
            Self::Time => {
                "a date and time with its offset, such as 2027-03-01T12:00:00Z, or a date, which means its \
                           midnight in UTC"
                    .into()
            }
            Self::Text => {
                format!("a string of 1 to {TEXT_CHARS_MAX} characters, without control characters")
            }
            Self::Names => format!("an array of 1 to {NAMES_MAX} different names"),
            Self::Labels => {
                format!("a table of at most {NAMES_MAX} short strings, such as {{ tier = \"app\" }}")
            }
            Self::Path => {
                format!("an absolute path of at most {PATH_BYTES_MAX} bytes, without control characters")
            }
            Self::Canister => "the id of a canister, such as \"rrkah-fqaaa-aaaaa-aaaaq-cai\"".into(),
            Self::Number { least, most } => format!("a whole number from {least} to {most}"),
            Self::Quantity { units, least, most } => format!(
                "{} such as \"{}\", from {} to {} ({})",
                units.name,
                units.example,
                units.write(*least),
                units.write(*most),
                listed(&units.names())
            ),
            Self::Flag => "true or false".into(),
        }
    }

    /// A value of this kind as the file writes it.
    pub(super) fn write(&self, value: &Value) -> String {
        match value {
            Value::Mode(mode) => string(mode.as_str()),
            Value::Floor(floor) => string(floor.as_str()),
            Value::Time(time) => time.to_string(),
            Value::Text(text) => string(text),
            Value::Names(names) => {
                format!("[{}]", names.iter().map(|name| string(name)).collect::<Vec<_>>().join(", "))
            }
            Value::Labels(labels) => {
                let pairs: Vec<_> = labels
                    .iter()
                    .map(|(name, value)| format!("{} = {}", string(name), string(value)))
                    .collect();
                if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) }
            }
            Value::Path(path) => string(&path.to_string_lossy()),
            Value::Canister(id) => string(&id.to_text()),
            Value::Number(number) => match self {
                Self::Quantity { units, .. } => string(&units.write(*number)),
                Self::Flag => (*number != 0).to_string(),
                _ => number.to_string(),
            },
        }
    }

    /// The JSON Schema of what is right. What it can't say of ranges, `described` says.
    pub(super) fn json_schema(&self) -> Json {
        match self {
            Self::Mode { .. } | Self::Floor => json!({ "enum": self.words() }),
            Self::Time => {
                json!({ "type": "string", "pattern": "^\\d{4}-\\d\\d-\\d\\d([Tt ].*([Zz]|[+-]\\d\\d:\\d\\d))?$" })
            }
            Self::Text => json!({
                "type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX,
                "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
            }),
            Self::Names => json!({
                "type": "array", "minItems": 1, "maxItems": NAMES_MAX, "uniqueItems": true,
                "items": { "type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX },
            }),
            Self::Labels => json!({
                "type": "object", "maxProperties": NAMES_MAX,
                "propertyNames": { "minLength": 1, "maxLength": NAME_CHARS_MAX },
                "additionalProperties": { "type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX },
            }),
            Self::Path => json!({
                "type": "string", "maxLength": PATH_BYTES_MAX,
                "pattern": "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$",
            }),
            Self::Canister => json!({ "type": "string", "pattern": "^[a-z2-7]{5}(-[a-z2-7]{1,5})+$" }),
            Self::Number { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Self::Quantity { units, .. } => {
                json!({ "type": "string", "pattern": format!("^\\d+({})$", units.names().join("|")) })
            }
            Self::Flag => json!({ "type": "boolean" }),
        }
    }
}

/// A moment, as [`Kind::Time`] has it.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    match text.len() {
        // A date.
        10 => format!("{text}T00:00:00Z").parse().ok(),
        _ => text.parse().ok(),
    }
}

fn is_text(text: &str, chars_max: usize) -> bool {
    !text.is_empty() && text.chars().count() <= chars_max && !text.contains(char::is_control)
}

fn is_path(text: &str) -> bool {
    Path::new(text).is_absolute() && text.len() <= PATH_BYTES_MAX && !text.contains(char::is_control)
}

fn canister(text: &str) -> Option<Principal> {
    // Whatever else it may be called, it is written in one way.
    let id = Principal::from_text(text).ok()?;
    (id != Principal::management_canister() && id != Principal::anonymous() && id.to_text() == text)
        .then_some(id)
}

fn names(value: &DeValue<'_>) -> Option<Vec<String>> {
    let values = value.as_array()?;
    if values.is_empty() || values.len() > NAMES_MAX {
        return None;
    }
    let name = |value: &str| is_text(value, NAME_CHARS_MAX).then(|| value.to_owned());
    let names: Vec<_> =
        values.iter().map(|value| value.get_ref().as_str().and_then(name)).collect::<Option<_>>()?;
    (names.iter().collect::<BTreeSet<_>>().len() == names.len()).then_some(names)
}

fn labels(value: &DeValue<'_>) -> Option<BTreeMap<String, String>> {
    let table = value.as_table()?;
    let short = |text: &str| is_text(text, NAME_CHARS_MAX).then(|| text.to_owned());
    let pairs =
        table.iter().map(|(name, value)| Some((short(name.get_ref())?, short(value.get_ref().as_str()?)?)));
    if table.len() > NAMES_MAX { None } else { pairs.collect() }
}

/// A basic string of TOML. No value holds a control character.
fn string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn a_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// `a, b or c`
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
