//! What the TOML parser finds: text that is no TOML, and keys and tables that are defined twice.

use std::ops::Range;

use toml::de::DeTable;

use super::parse::{DIAGNOSTICS_MAX, shown_id};
use crate::Diagnostic;
use crate::diagnostic::{Source, quoted};

/// What is wrong with the syntax, and whether the tree can be trusted.
pub(super) fn check(source: &Source<'_>, errors: &[toml::de::Error]) -> (Vec<Diagnostic>, bool) {
    let mut found = Vec::new();
    let mut is_toml = true;
    let mut line_before = None;
    // Where the table that is defined twice ends: keys in it are not twice for a second reason.
    let mut twice_until = 0;
    for error in errors.iter().take(DIAGNOSTICS_MAX) {
        let span = error.span().unwrap_or(0..0);
        if error.message() == "duplicate key" {
            if span.start >= twice_until {
                let (error, until) = duplicate(source, span);
                found.push(error);
                twice_until = until;
            }
            continue;
        }
        is_toml = false;
        let line = source.position(span.start).line;
        if line_before.replace(line) != Some(line) {
            found.push(source.diagnostic(span, format!("not TOML: {}", error.message()), ""));
        }
    }
    (found, is_toml)
}

/// A key or table that is defined twice, and where the text ends that it governs.
fn duplicate(source: &Source<'_>, span: Range<usize>) -> (Diagnostic, usize) {
    let text = source.text;
    let start = source.line_start(span.start);
    let line = &text[start..source.line_end(span.start)];
    let (before, _) = DeTable::parse_recoverable(&text[..start]);
    let is_header = line.trim_start().starts_with('[');
    let (name, first) = if is_header {
        let (header, _) = DeTable::parse_recoverable(line);
        table_twice(header.get_ref(), before.get_ref())
    } else {
        let name = quoted(text.get(span.clone()).unwrap_or_default());
        (name, last_table(before.get_ref()).and_then(|table| key_span(table, text.get(span.clone())?)))
    };
    let expected = if is_header { "merge it into the first one" } else { "remove one of the two" };
    let mut error = source.diagnostic(span.clone(), format!("{name} is defined twice"), expected);
    error.note =
        first.map(|first| format!("first defined at {}:{}", source.file, source.position(first.start)));
    if !is_header {
        return (error, span.end);
    }
    let after = source.line_end(span.start);
    let until = text[after..].match_indices("\n[").next().map_or(text.len(), |(at, _)| after + at + 1);
    (error, until)
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
    let nested = tables(root).flat_map(|(start, table)| std::iter::once((start, table)).chain(tables(table)));
    Some(nested.max_by_key(|&(start, _)| start).map_or(root, |(_, table)| table))
}

/// The tables in `table` and in its arrays, and where each starts.
fn tables<'a>(table: &'a DeTable<'a>) -> impl Iterator<Item = (usize, &'a DeTable<'a>)> {
    table.iter().flat_map(|(_, value)| {
        let items = value.get_ref().as_array().map(|array| array.iter());
        let one = value.get_ref().as_table().map(|table| (value.span().start, table));
        let many = items.into_iter().flatten();
        one.into_iter().chain(many.filter_map(|item| Some((item.span().start, item.get_ref().as_table()?))))
    })
}

fn key_span(table: &DeTable<'_>, name: &str) -> Option<Range<usize>> {
    table.get_key_value(name).map(|(key, _)| key.span())
}
