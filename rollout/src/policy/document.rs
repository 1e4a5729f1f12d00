//! What a policy file says, table by table, each value with its place.

use std::time::Duration;

use super::Said;
use super::kind::Value;
use super::parse::shown_id;
use super::schema::{Form, SECTIONS, Section};
use crate::Position;

/// Everything that a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// In the order of [`SECTIONS`], and in each by id.
    pub(super) entries: Vec<Entry>,
}

/// What one table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The section's name.
    pub(super) section: &'static str,
    /// `ID` of `[section.ID]` and of what stands within it; the value of the key that a `[[section]]` is listed by.
    pub(super) id: String,
    /// Which of the tables within another one it is, from 1; else 0.
    pub(super) number: usize,
    /// Where the table begins.
    pub(super) at: Position,
    /// Byte offsets of its header: start, end.
    pub(super) bytes: (usize, usize),
    /// By key, in the order of the file.
    pub(super) values: Vec<(&'static str, Said<Value>)>,
}

/// A key that differs between two policies. `Display`: `default.mode: in-process -> shadow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `section.key`, `section.ID.key`.
    pub key: String,
    /// What it said, as the file writes it; `None`: nothing.
    pub from: Option<String>,
    /// What it says.
    pub to: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        write!(f, "{}: {} -> {}", self.key, said(&self.from), said(&self.to))
    }
}

impl Document {
    pub(super) fn sort(&mut self) {
        let rank = |name| SECTIONS.iter().position(|section| section.name == name);
        self.entries.sort_by(|one, other| {
            let place = |entry: &Entry| (rank(entry.section), entry.number);
            (place(one).0, &one.id, place(one).1).cmp(&(place(other).0, &other.id, place(other).1))
        });
    }

    /// The entries of one section.
    pub(super) fn of(&self, section: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.section == section)
    }

    /// A duration of a section that stands at most once.
    pub(super) fn duration(&self, section: &str, key: &str, silent: Duration) -> Duration {
        self.number(section, key).map_or(silent, Duration::from_millis)
    }

    /// A number, as it is kept, of a section that stands at most once.
    pub(super) fn number(&self, section: &str, key: &str) -> Option<u64> {
        match self.of(section).find_map(|entry| entry.get(key)).map(|said| &said.value) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// Every key that differs in `next`, those of this document first.
    pub(super) fn changes(&self, next: &Self) -> Vec<Change> {
        let (before, after) = (self.written(), next.written());
        let changed = before.iter().filter_map(|(key, from)| {
            let to = after.get(key);
            (to != Some(from)).then(|| Change { key: key.clone(), from: Some(from.clone()), to: to.cloned() })
        });
        let new = after.iter().filter(|(key, _)| !before.contains_key(*key)).map(|(key, to)| Change {
            key: key.clone(),
            from: None,
            to: Some(to.clone()),
        });
        changed.chain(new).collect()
    }

    /// Each key with its value, as the file writes it.
    fn written(&self) -> std::collections::BTreeMap<String, String> {
        let values =
            self.entries.iter().flat_map(|entry| entry.values.iter().map(move |value| (entry, value)));
        values.map(|(entry, (key, said))| (entry.path(key), entry.write(key, &said.value))).collect()
    }
}

impl Entry {
    pub(super) fn get(&self, key: &str) -> Option<&Said<Value>> {
        self.values.iter().find(|(name, _)| *name == key).map(|(_, said)| said)
    }

    /// The section, which a file can't be read without.
    pub(super) fn schema(&self) -> &'static Section {
        super::schema::section(self.section).expect("entries are made from sections")
    }

    /// Its header in the file.
    pub(super) fn span(&self) -> std::ops::Range<usize> {
        self.bytes.0..self.bytes.1
    }

    /// As messages name the table.
    pub(super) fn header(&self) -> String {
        self.schema().header(&shown_id(&self.id))
    }

    /// `section.key`, `section.ID.key` or `parent.ID.list[N].key`.
    fn path(&self, key: &str) -> String {
        match self.schema().form {
            Form::Once => format!("{}.{key}", self.section),
            Form::ById | Form::List(_) => format!("{}.{}.{key}", self.section, self.id),
            Form::Within(parent, list) => format!("{parent}.{}.{list}[{}].{key}", self.id, self.number),
        }
    }

    /// A value of this table as the file writes it.
    pub(super) fn write(&self, key: &str, value: &Value) -> String {
        self.schema().key(key).map(|key| key.kind.write(value)).unwrap_or_default()
    }
}
