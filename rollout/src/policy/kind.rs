//! Kinds of values: how each is read, written and described.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use execution::Principal;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::inline;
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
    /// One of a closed list.
    Word(&'static [&'static str]),
    /// Some of a closed list, one at least.
    Words(&'static [&'static str]),
    /// Of a step or a guard: part of file names and metrics.
    Name,
    /// A number with at most six decimals, kept in millionths.
    Decimal {
        least: u64,
        most: u64,
    },
    /// Where a step applies.
    Scope,
    /// What a step needs besides its guards.
    Require,
    /// Tables of the section `rollouts.steps`, read apart.
    Steps,
}

/// Where a step applies, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ScopeSaid {
    /// Ids of subnets.
    pub(super) subnets: Vec<String>,
    /// Or the subnets with this label.
    pub(super) label: Option<(String, String)>,
    /// On so many of each subnet's nodes.
    pub(super) nodes_per_subnet: Option<u64>,
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
    Word(&'static str),
    Scope(ScopeSaid),
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
            (Self::Name, DeValue::String(text)) if is_name(text) => {
                return Ok(Value::Text(text.clone().into_owned()));
            }
            (Self::Words(words), DeValue::Array(_)) => match some_of(words, value) {
                Some(names) => return Ok(Value::Names(names)),
                None => ("an array of something else".to_owned(), None),
            },
            (Self::Decimal { least, most }, DeValue::Integer(_) | DeValue::Float(_)) => {
                match millionths(value) {
                    Some(read) if (*least..=*most).contains(&read) => return Ok(Value::Number(read)),
                    _ => (quoted(number_text(value)), None),
                }
            }
            (Self::Scope, DeValue::Table(table)) => return inline::scope(key, table),
            (Self::Require, DeValue::Table(table)) => return inline::require(key, table),
            (Self::Quantity { units, least, most }, DeValue::String(text)) => match units.read(text) {
                Ok(read) if (*least..=*most).contains(&read) => return Ok(Value::Number(read)),
                Ok(_) => (quoted(text), None),
                Err(meant) => (quoted(text), meant),
            },
            (Self::Text | Self::Path | Self::Name, DeValue::String(text)) => (quoted(text), None),
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
            Self::Word(words) => words.to_vec(),
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
            Self::Word(words) => words.iter().find(|known| **known == word).map(|known| Value::Word(known)),
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
            Self::Mode { because: "", .. } | Self::Floor | Self::Word(_) => listed(&self.words()),
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
            Self::Words(words) => format!("an array of some of {}", listed(words)),
            Self::Name => format!("1 to {NAME_CHARS_MAX} letters, digits, `-`, `_` or `.`, not at the start"),
            Self::Decimal { least, most } => {
                format!("a number from {} to {}, with at most six decimals", decimal(*least), decimal(*most))
            }
            Self::Scope => "a table such as { subnets = [\"io67a\"] } or { label = \"tier=app\" }, with or \
                            without nodes_per_subnet"
                .into(),
            Self::Require => "a table such as { min_comparisons = 300_000 }".into(),
            Self::Steps => "tables [[rollouts.ID.steps]], one at least".into(),
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
                Self::Decimal { .. } => decimal(*number),
                Self::Require => format!("{{ min_comparisons = {number} }}"),
                _ => number.to_string(),
            },
            Value::Word(word) => string(word),
            Value::Scope(scope) => inline::write_scope(scope),
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
            Self::Word(words) => json!({ "enum": words }),
            Self::Words(words) => json!({
                "type": "array", "minItems": 1, "uniqueItems": true, "items": { "enum": words },
            }),
            Self::Name => json!({
                "type": "string", "pattern": format!("^[A-Za-z0-9_-][A-Za-z0-9_.-]{{0,{}}}$", NAME_CHARS_MAX - 1),
            }),
            Self::Decimal { least, most } => {
                #[expect(clippy::cast_precision_loss, reason = "at most 10^9 millionths")]
                let number = |millionths: u64| millionths as f64 / MILLION as f64;
                json!({ "type": "number", "minimum": number(*least), "maximum": number(*most) })
            }
            Self::Scope => inline::scope_schema(),
            Self::Require => inline::require_schema(),
            // Said by the section that its tables are of.
            Self::Steps => json!({}),
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

/// Harmless as a part of a file's name.
fn is_name(text: &str) -> bool {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(harmless) && !text.starts_with('.')
}

fn some_of(words: &[&'static str], value: &DeValue<'_>) -> Option<Vec<String>> {
    let names = names(value)?;
    names.iter().all(|name| words.contains(&name.as_str())).then_some(names)
}

const MILLION: u64 = 1_000_000;

fn number_text<'a>(value: &'a DeValue<'_>) -> &'a str {
    match value {
        DeValue::Integer(number) => number.as_str(),
        DeValue::Float(number) => number.as_str(),
        _ => "",
    }
}

/// A decimal number in millionths, if that is exact.
fn millionths(value: &DeValue<'_>) -> Option<u64> {
    let scaled = number_text(value).parse::<f64>().ok()? * MILLION as f64;
    // Up to here a double's own error stays below a thousandth of a millionth.
    if !(0.0..=1e12).contains(&scaled) || (scaled - scaled.round()).abs() > 1e-3 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10^12")]
    Some(scaled.round() as u64)
}

/// Millionths as a decimal number.
pub(super) fn decimal(millionths: u64) -> String {
    let text = format!("{}.{:06}", millionths / MILLION, millionths % MILLION);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
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
pub(super) fn string(text: &str) -> String {
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
