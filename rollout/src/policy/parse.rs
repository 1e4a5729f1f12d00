//! From text to a policy, or to everything that is wrong with it.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Entry};
use super::kind::{Kind, Value, a_type, listed};
use super::schema::{Form, LATER, SECTIONS, Section, VERSION, section, within};
use super::{ENTRIES_MAX, FILE_BYTES_MAX, Policy, Said, contradictions, syntax};
use crate::Diagnostic;
use crate::diagnostic::{Source, nearest, quoted};

/// Errors reported for one file.
pub(super) const DIAGNOSTICS_MAX: usize = 100;
/// Longest id: a textual principal.
const ID_CHARS_MAX: usize = 63;

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
    let source = Source::new(file.into(), text);
    let (root, found) = DeTable::parse_recoverable(text);
    let (mut errors, is_toml) = syntax::check(&source, &found);
    // What a broken parse left over would only give errors that are not the writer's.
    let document = if is_toml {
        let mut reader = Reader { source: &source, errors };
        let document = reader.document(root.get_ref());
        errors = reader.errors;
        errors.extend(contradictions::check(&document, &source));
        document
    } else {
        Document::default()
    };
    errors.sort_by_key(|error| error.position);
    errors.truncate(DIAGNOSTICS_MAX);
    if errors.is_empty() { Ok(Policy::new(Arc::clone(&source.file), document)) } else { Err(errors) }
}

struct Reader<'a> {
    source: &'a Source<'a>,
    errors: Vec<Diagnostic>,
}

type Key<'a> = &'a Spanned<std::borrow::Cow<'a, str>>;

impl Reader<'_> {
    fn error(&mut self, span: Range<usize>, message: String, expected: &str) -> &mut Diagnostic {
        self.errors.push(self.source.diagnostic(span, message, expected));
        self.errors.last_mut().expect("just pushed")
    }

    fn document(&mut self, root: &DeTable<'_>) -> Document {
        let mut document = Document::default();
        self.version(root);
        for (key, value) in root {
            let name: &str = key.get_ref();
            match section(name).filter(|section| !matches!(section.form, Form::Within(..))) {
                Some(section) => self.section(section, value, &mut document),
                None if name == "schema" => {}
                None => {
                    let known: Vec<_> = std::iter::once("schema")
                        .chain(SECTIONS.iter().map(|section| section.name).filter(|name| !name.contains('.')))
                        .collect();
                    self.stray_key(key, "", &known, &LATER);
                }
            }
        }
        let by_id = |entry: &&Entry| entry.schema().form != Form::Once;
        let entries = document.entries.iter().filter(by_id).count();
        if entries > ENTRIES_MAX {
            let message = format!(
                "{entries} subnets, nodes, canisters, exemptions, rollouts, steps and guards, at most {ENTRIES_MAX} are allowed"
            );
            self.error(0..0, message, "");
        }
        document.sort();
        document
    }

    fn version(&mut self, root: &DeTable<'_>) {
        let Some(value) = root.get("schema") else {
            self.error(0..0, "missing key `schema`".into(), "expected `schema = 1` at the head of the file");
            return;
        };
        match value.get_ref() {
            DeValue::Integer(number)
                if i64::from_str_radix(number.as_str(), number.radix()) == Ok(VERSION) => {}
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

    fn section(&mut self, section: &'static Section, value: &Spanned<DeValue<'_>>, document: &mut Document) {
        let name = section.name;
        match (section.form, value.get_ref()) {
            (Form::Once, _) => document.entries.extend(self.entry(section, (String::new(), 0), value)),
            (Form::ById, DeValue::Table(tables)) => {
                for (id, value) in tables {
                    self.id(id, name);
                    let id: String = id.get_ref().clone().into_owned();
                    document.entries.extend(self.entry(section, (id.clone(), 0), value));
                    for (key, value) in value.get_ref().as_table().into_iter().flatten() {
                        if let Some(inner) = within(section.name, key.get_ref()) {
                            self.inner(inner, &id, value, document);
                        }
                    }
                }
            }
            (Form::List(_), DeValue::Array(tables)) => {
                for value in tables.iter() {
                    document.entries.extend(self.entry(section, (String::new(), 0), value));
                }
            }
            (Form::ById | Form::List(_) | Form::Within(..), other) => {
                let message = format!("`{name}` is {}", a_type(other));
                self.error(value.span(), message, &format!("expected tables: {}", section.header("ID")));
            }
        }
    }

    /// The tables within the one called `id` of another section.
    fn inner(
        &mut self,
        section: &'static Section,
        id: &str,
        value: &Spanned<DeValue<'_>>,
        document: &mut Document,
    ) {
        match value.get_ref() {
            DeValue::Array(tables) if !tables.is_empty() => {
                for (value, number) in tables.iter().zip(1..) {
                    document.entries.extend(self.entry(section, (id.to_owned(), number), value));
                }
            }
            other => {
                let header = section.header(&shown_id(id));
                let found = if other.is_array() { "an empty array" } else { a_type(other) };
                self.error(value.span(), format!("expected tables {header}, found {found}"), "one at least");
            }
        }
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

    /// One table of a section; `None` when it is none.
    fn entry(
        &mut self,
        section: &'static Section,
        (id, number): (String, usize),
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Entry> {
        let header = section.header(&shown_id(&id));
        let Some(pairs) = value.get_ref().as_table() else {
            self.error(value.span(), format!("{header} is {}", a_type(value.get_ref())), "expected a table");
            return None;
        };
        let span = value.span();
        let at = self.source.position(span.start);
        let mut entry = Entry {
            section: section.name,
            id,
            number,
            at,
            bytes: (span.start, span.end),
            values: Vec::new(),
        };
        for (key, value) in pairs {
            self.pair(section, &header, key, value, &mut entry);
        }
        // A table that lacks it says nothing, or less than its writer thinks.
        let lacking = |key: &&super::schema::Key| key.required && !pairs.contains_key(key.name);
        for key in section.keys.iter().filter(lacking) {
            let message = format!("{header} has no `{}`", key.name);
            self.error(entry.span(), message, &format!("expected {}", key.kind.described()));
        }
        Some(entry)
    }

    fn pair(
        &mut self,
        section: &'static Section,
        header: &str,
        key: Key<'_>,
        value: &Spanned<DeValue<'_>>,
        entry: &mut Entry,
    ) {
        let name: &str = key.get_ref();
        let Some(known) = section.key(name) else {
            if name == "floor" && section.key("mode").is_some() {
                let message = format!("{header} can't have a `floor`");
                self.error(key.span(), message, "a floor belongs in [default] or [subnets.ID]");
                return;
            }
            let names: Vec<_> = section.keys.iter().map(|key| key.name).collect();
            self.stray_key(key, header, &names, section.later);
            return;
        };
        if matches!(known.kind, Kind::Steps) {
            return;
        }
        match known.kind.read(known.name, value.get_ref()) {
            Ok(read) => {
                match (section.form, &read) {
                    (Form::List(by), Value::Canister(id)) if by == name => entry.id = id.to_text(),
                    (Form::List(by), Value::Text(id)) if by == name => entry.id.clone_from(id),
                    _ => {}
                }
                let (start, end) = (value.span().start, value.span().end);
                let said = Said { value: read, at: self.source.position(start), bytes: (start, end) };
                entry.values.push((known.name, said));
            }
            Err(fault) => {
                self.error(value.span(), fault.message, &fault.expected).suggestion = fault.suggestion;
            }
        }
    }

    fn stray_key(&mut self, key: Key<'_>, table: &str, known: &[&'static str], later: &[&'static str]) {
        let name: &str = key.get_ref();
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

/// An id from the file, harmless and of bounded length.
pub(super) fn shown_id(id: &str) -> String {
    let quoted = quoted(id);
    quoted[1..quoted.len() - 1].to_owned()
}
