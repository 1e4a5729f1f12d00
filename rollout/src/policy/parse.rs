//! From text to a policy, or to everything that is wrong with it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::bounds::{Bounds, KEYS, Kind, PATH_BYTES_MAX, Ranged, TABLES, Value};
use super::{ENTRIES_MAX, FILE_BYTES_MAX, Policy, Said, Table, floors};
use crate::diagnostic::{Source, nearest, quoted};
use crate::{Diagnostic, Floor, Mode};

/// Errors reported for one file.
const DIAGNOSTICS_MAX: usize = 100;
/// Longest id: a textual principal.
const ID_CHARS_MAX: usize = 63;

/// Keys of the file.
const TOP_KEYS: [&str; 8] =
    ["schema", "default", "subnets", "nodes", "memory", "sandbox", "in_process", "code_cache"];
/// Keys that the full schema has and this version does not.
const TOP_KEYS_LATER: [&str; 14] = [
    "meta",
    "switch",
    "kill_switch",
    "capacity",
    "measure",
    "shadow",
    "canisters",
    "exemptions",
    "rollouts",
    "guards",
    "guard_defaults",
    "store",
    "admin",
    "notify",
];

/// What may stand in a kind of table.
struct Shape {
    keys: &'static [&'static str],
    later: &'static [&'static str],
}

const DEFAULT: Shape = Shape { keys: &["mode", "floor"], later: &[] };
const SUBNET: Shape = Shape { keys: &["mode", "floor"], later: &["labels", "reason", "expires"] };
const NODE: Shape = Shape { keys: &["mode"], later: &["labels", "reason", "expires"] };

const MODES: [&str; 3] = ["in-process", "sandboxed", "shadow"];
const FLOORS: [&str; 2] = ["none", "sandboxed"];

pub(super) fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Policy, Vec<Diagnostic>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file, text),
        Err(error) => {
            let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let at = valid.len();
            let source = Source::new(file.into(), valid);
            Err(vec![source.diagnostic(
                at..at,
                "the file is not UTF-8 text".into(),
                "first byte that is not text",
            )])
        }
    }
}

pub(super) fn parse(file: &str, text: &str) -> Result<Policy, Vec<Diagnostic>> {
    if text.len() > FILE_BYTES_MAX {
        let source = Source::new(file.into(), "");
        let message = format!("the file has {} bytes, at most {FILE_BYTES_MAX} are allowed", text.len());
        return Err(vec![source.diagnostic(0..0, message, "")]);
    }
    let mut reader = Reader { source: Source::new(file.into(), text), errors: Vec::new() };
    let (root, syntax) = DeTable::parse_recoverable(text);
    let is_toml = reader.syntax(&syntax);
    // What a broken parse left over would only give errors that are not the writer's.
    let policy = is_toml.then(|| reader.policy(root.get_ref()));
    let mut errors = reader.errors;
    errors.sort_by_key(|error| error.position);
    errors.truncate(DIAGNOSTICS_MAX);
    match policy {
        Some(policy) if errors.is_empty() => Ok(policy),
        Some(_) | None => Err(errors),
    }
}

struct Reader<'a> {
    source: Source<'a>,
    errors: Vec<Diagnostic>,
}

type Key<'a> = &'a Spanned<std::borrow::Cow<'a, str>>;

impl Reader<'_> {
    fn error(&mut self, span: Range<usize>, message: String, expected: &str) -> &mut Diagnostic {
        self.errors.push(self.source.diagnostic(span, message, expected));
        self.errors.last_mut().expect("just pushed")
    }

    /// Reports what the TOML parser found. False when the tree is not to be trusted.
    fn syntax(&mut self, errors: &[toml::de::Error]) -> bool {
        let mut is_toml = true;
        let mut line_before = None;
        // Where the table that is defined twice ends: keys in it are not twice for a second reason.
        let mut twice_until = 0;
        for error in errors.iter().take(DIAGNOSTICS_MAX) {
            let span = error.span().unwrap_or(0..0);
            if error.message() == "duplicate key" {
                if span.start >= twice_until {
                    twice_until = self.duplicate(span);
                }
                continue;
            }
            is_toml = false;
            let line = self.source.position(span.start).line;
            if line_before.replace(line) != Some(line) {
                self.error(span, format!("not TOML: {}", error.message()), "");
            }
        }
        is_toml
    }

    /// Reports a key or table that is defined twice. Returns where the text ends that it governs.
    fn duplicate(&mut self, span: Range<usize>) -> usize {
        let text = self.source.text;
        let start = self.source.line_start(span.start);
        let line = &text[start..self.source.line_end(span.start)];
        let (before, _) = DeTable::parse_recoverable(&text[..start]);
        let is_header = line.trim_start().starts_with('[');
        let (name, first) = if is_header {
            let (header, _) = DeTable::parse_recoverable(line);
            table_twice(header.get_ref(), before.get_ref())
        } else {
            let name = quoted(text.get(span.clone()).unwrap_or_default());
            (name, last_table(before.get_ref()).and_then(|table| key_span(table, text.get(span.clone())?)))
        };
        let first = first.map(|first| {
            format!("first defined at {}:{}", self.source.file, self.source.position(first.start))
        });
        let expected = if is_header { "merge it into the first one" } else { "remove one of the two" };
        self.error(span.clone(), format!("{name} is defined twice"), expected).note = first;
        if !is_header {
            return span.end;
        }
        let after = self.source.line_end(span.start);
        text[after..].match_indices("\n[").next().map_or(text.len(), |(at, _)| after + at + 1)
    }

    fn policy(&mut self, root: &DeTable<'_>) -> Policy {
        let mut policy = Policy {
            file: Arc::clone(&self.source.file),
            default: Table::default(),
            subnets: HashMap::new(),
            nodes: HashMap::new(),
            bounds: Bounds::default(),
        };
        self.schema(root);
        for (key, value) in root {
            match &**key.get_ref() {
                "schema" => {}
                "default" => policy.default = self.table("[default]", value, &DEFAULT),
                "subnets" => policy.subnets = self.tables("subnets", value, &SUBNET),
                "nodes" => policy.nodes = self.tables("nodes", value, &NODE),
                name if TABLES.contains(&name) => self.bounds(name, value, &mut policy.bounds),
                name => self.stray_key(key, name, "", &TOP_KEYS, &TOP_KEYS_LATER),
            }
        }
        self.errors.extend(floors::check(&policy, &self.source));
        let entries = policy.subnets.len() + policy.nodes.len();
        if entries > ENTRIES_MAX {
            self.error(0..0, format!("{entries} subnets and nodes, at most {ENTRIES_MAX} are allowed"), "");
        }
        policy
    }

    fn schema(&mut self, root: &DeTable<'_>) {
        let Some(value) = root.get("schema") else {
            self.error(0..0, "missing key `schema`".into(), "expected `schema = 1` at the head of the file");
            return;
        };
        match value.get_ref() {
            DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()) == Ok(1) => {}
            DeValue::Integer(number) => {
                let message = format!("unknown schema {}", quoted(number.as_str()));
                self.error(value.span(), message, "this version reads schema 1");
            }
            other => {
                let message = format!("`schema` is {}", a_type(other));
                self.error(value.span(), message, "expected the integer 1");
            }
        }
    }

    /// `[subnets.ID]` or `[nodes.ID]`, by id.
    fn tables(&mut self, name: &str, value: &Spanned<DeValue<'_>>, shape: &Shape) -> HashMap<String, Table> {
        let Some(tables) = value.get_ref().as_table() else {
            let message = format!("`{name}` is {}", a_type(value.get_ref()));
            self.error(value.span(), message, &format!("expected tables: [{name}.ID]"));
            return HashMap::new();
        };
        let mut read = HashMap::new();
        for (id, value) in tables {
            self.id(id, name);
            let table = self.table(&format!("[{name}.{}]", shown_id(id.get_ref())), value, shape);
            read.insert(id.get_ref().clone().into_owned(), table);
        }
        read
    }

    fn id(&mut self, id: Key<'_>, name: &str) {
        let text: &str = id.get_ref();
        let well_formed =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !well_formed || text.is_empty() || text.len() > ID_CHARS_MAX {
            let message = format!("{} is not an id for [{name}.ID]", quoted(text));
            self.error(id.span(), message, "expected 1 to 63 letters, digits, `-` or `_`");
        }
    }

    fn table(&mut self, name: &str, value: &Spanned<DeValue<'_>>, shape: &Shape) -> Table {
        let Some(entries) = value.get_ref().as_table() else {
            self.error(value.span(), format!("{name} is {}", a_type(value.get_ref())), "expected a table");
            return Table::default();
        };
        let mut table = Table::default();
        for (key, value) in entries {
            match &**key.get_ref() {
                "mode" => table.mode = self.word("mode", value, &MODES, Mode::from_word),
                "floor" if shape.keys.contains(&"floor") => {
                    table.floor = self.word("floor", value, &FLOORS, Floor::from_word);
                }
                "floor" => {
                    let message = format!("{name} can't have a `floor`");
                    self.error(key.span(), message, "a floor belongs in [default] or [subnets.ID]");
                }
                word => self.stray_key(key, word, name, shape.keys, shape.later),
            }
        }
        table
    }

    /// One of [`TABLES`].
    fn bounds(&mut self, table: &str, value: &Spanned<DeValue<'_>>, bounds: &mut Bounds) {
        let name = format!("[{table}]");
        let Some(entries) = value.get_ref().as_table() else {
            self.error(value.span(), format!("{name} is {}", a_type(value.get_ref())), "expected a table");
            return;
        };
        let known = || KEYS.iter().filter(|known| known.table == table);
        for (key, value) in entries {
            let word: &str = key.get_ref();
            match known().find(|known| known.name == word) {
                Some(known) => match &known.value {
                    Value::Number(number) => {
                        if let Some(read) = self.number(known.name, number, value) {
                            number.set(bounds, read);
                        }
                    }
                    Value::Path(field) => *field(bounds) = self.path(known.name, value),
                },
                None => {
                    let names: Vec<&str> = known().map(|known| known.name).collect();
                    self.stray_key(key, word, &name, &names, &[]);
                }
            }
        }
        // The rest of the table says nothing without it, which nobody would be told later.
        if table == "code_cache" && !entries.contains_key("directory") {
            self.error(value.span(), format!("{name} has no `directory`"), "expected one, or no such table");
        }
    }

    /// A whole number, or a quantity with its unit, within the range of its key.
    fn number(&mut self, name: &str, key: &Ranged, value: &Spanned<DeValue<'_>>) -> Option<u64> {
        let within = format!("from {} to {}", key.write(key.least), key.write(key.most));
        let expected = match key.kind {
            Kind::Number => format!("expected a whole number {within}"),
            Kind::Quantity(units) => format!(
                "expected {} such as \"{}\", {within} ({})",
                units.name,
                units.example,
                listed(&units.names())
            ),
            Kind::Flag => "expected true or false".to_owned(),
        };
        let (shown, read) = match (value.get_ref(), key.kind) {
            (DeValue::Boolean(flag), Kind::Flag) => return Some(u64::from(*flag)),
            (DeValue::Integer(number), Kind::Number) => {
                let read = u64::from_str_radix(number.as_str(), number.radix()).map_err(|_| None);
                (quoted(number.as_str()), read)
            }
            (DeValue::String(text), Kind::Quantity(units)) => (quoted(text), units.read(text)),
            (other, _) => (a_type(other).to_owned(), Err(None)),
        };
        let suggestion = match read {
            Ok(read) if (key.least..=key.most).contains(&read) => return Some(read),
            Ok(_) => None,
            Err(meant) => meant,
        };
        self.error(value.span(), format!("`{name}` is {shown}"), &expected).suggestion = suggestion;
        None
    }

    /// An absolute path. What is there is found out by who uses it.
    fn path(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<PathBuf> {
        let shown = match value.get_ref() {
            DeValue::String(text) => {
                let path = Path::new(&**text);
                if path.is_absolute() && text.len() <= PATH_BYTES_MAX && !text.contains(char::is_control) {
                    return Some(path.to_owned());
                }
                quoted(text)
            }
            other => a_type(other).to_owned(),
        };
        let expected = format!(
            "expected an absolute path of at most {PATH_BYTES_MAX} bytes, without control characters"
        );
        self.error(value.span(), format!("`{name}` is {shown}"), &expected);
        None
    }

    /// A value out of a closed list of words.
    fn word<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        known: &[&'static str],
        read: fn(&str) -> Option<T>,
    ) -> Option<Said<T>> {
        let Some(word) = value.get_ref().as_str() else {
            let message = format!("`{key}` is {}", a_type(value.get_ref()));
            self.error(value.span(), message, &format!("expected a string: {}", listed(known)));
            return None;
        };
        if let Some(read) = read(word) {
            let span = value.span();
            let at = self.source.position(span.start);
            return Some(Said { value: read, at, bytes: (span.start, span.end) });
        }
        let message = format!("unknown {key} {}", quoted(word));
        self.error(value.span(), message, &format!("expected {}", listed(known))).suggestion =
            nearest(word, known);
        None
    }

    fn stray_key(
        &mut self,
        key: Key<'_>,
        name: &str,
        table: &str,
        known: &[&'static str],
        later: &[&'static str],
    ) {
        let place = if table.is_empty() { String::new() } else { format!(" in {table}") };
        if later.contains(&name) {
            let message = format!("{}{place} is not supported yet in this version", quoted(name));
            self.error(key.span(), message, "remove it");
        } else {
            let message = format!("unknown key {}{place}", quoted(name));
            self.error(key.span(), message, &format!("expected {}", listed(known))).suggestion =
                nearest(name, known);
        }
    }
}

/// The name of the table that `header` (one line) defines, and where `before` defines it.
fn table_twice(header: &DeTable<'_>, before: &DeTable<'_>) -> (String, Option<Range<usize>>) {
    let mut path = Vec::new();
    let mut first = None;
    let (mut header, mut before) = (header, Some(before));
    while let Some((key, value)) = header.iter().next() {
        let name: &str = key.get_ref();
        path.push(shown_id(name));
        first = before.and_then(|table| key_span(table, name));
        before = before.and_then(|table| table.get(name)).and_then(|value| value.get_ref().as_table());
        match value.get_ref().as_table() {
            Some(inner) => header = inner,
            None => break,
        }
    }
    let name = match path.as_slice() {
        [kind, id] if kind == "subnets" => format!("subnet `{id}`"),
        [kind, id] if kind == "nodes" => format!("node `{id}`"),
        path => format!("[{}]", path.join(".")),
    };
    (name, first)
}

/// The table whose header stands last.
fn last_table<'a>(root: &'a DeTable<'a>) -> Option<&'a DeTable<'a>> {
    let inner = root.iter().filter_map(|(_, value)| Some((value.span().start, value.get_ref().as_table()?)));
    let nested = inner.flat_map(|(start, table)| {
        let below =
            table.iter().filter_map(|(_, value)| Some((value.span().start, value.get_ref().as_table()?)));
        std::iter::once((start, table)).chain(below)
    });
    Some(nested.max_by_key(|&(start, _)| start).map_or(root, |(_, table)| table))
}

fn key_span(table: &DeTable<'_>, name: &str) -> Option<Range<usize>> {
    table.get_key_value(name).map(|(key, _)| key.span())
}

fn shown_id(id: &str) -> String {
    let quoted = quoted(id);
    quoted[1..quoted.len() - 1].to_owned()
}

fn a_type(value: &DeValue<'_>) -> &'static str {
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
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
