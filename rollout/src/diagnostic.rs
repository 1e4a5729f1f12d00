//! What is wrong in a policy file, and where.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Longest piece of a source line that is shown, characters.
const SHOWN_CHARS_MAX: usize = 120;
/// Longest name quoted in a message, characters.
const QUOTED_CHARS_MAX: usize = 64;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One error in a policy file. Its `Display` is several lines without a final newline:
/// the message, `file:line:column`, the source line, and a caret under what is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as it was named to us.
    pub file: Arc<str>,
    /// Where the span starts.
    pub position: Position,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub expected: String,
    /// The nearest right word.
    pub suggestion: Option<String>,
    /// More to know, e.g. where the first of two definitions stands.
    pub note: Option<String>,
    shown: Shown,
}

/// The source line, or the part of it around the span.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    line: String,
    indent: String,
    carets: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.position.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "{gutter}--> {}:{}", self.file, self.position)?;
        writeln!(f, "{number} | {}", self.shown.line)?;
        write!(f, "{gutter} | {}{}", self.shown.indent, "^".repeat(self.shown.carets))?;
        if !self.expected.is_empty() {
            write!(f, " {}", self.expected)?;
        }
        if let Some(suggestion) = &self.suggestion {
            let separator = if self.expected.is_empty() { " " } else { "; " };
            write!(f, "{separator}did you mean `{suggestion}`?")?;
        }
        if let Some(note) = &self.note {
            write!(f, "\n{gutter} = note: {note}")?;
        }
        Ok(())
    }
}

/// A file's text with its line starts.
pub(crate) struct Source<'a> {
    pub(crate) file: Arc<str>,
    pub(crate) text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: Arc<str>, text: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, line_starts }
    }

    /// Line and column of a byte offset.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let offset = floor_boundary(self.text, offset);
        let line = self.line_starts.partition_point(|&start| start <= offset);
        let start = self.line_starts[line - 1];
        Position { line, column: self.text[start..offset].chars().count() + 1 }
    }

    /// Byte offset at which the line of `offset` starts.
    pub(crate) fn line_start(&self, offset: usize) -> usize {
        self.line_starts[self.line_starts.partition_point(|&start| start <= offset) - 1]
    }

    /// Byte offset at which the line of `offset` ends.
    pub(crate) fn line_end(&self, offset: usize) -> usize {
        let line = self.line_starts.partition_point(|&start| start <= offset);
        self.line_starts.get(line).map_or(self.text.len(), |&next| next - 1)
    }

    pub(crate) fn diagnostic(&self, span: Range<usize>, message: String, expected: &str) -> Diagnostic {
        Diagnostic {
            file: Arc::clone(&self.file),
            position: self.position(span.start),
            message,
            expected: expected.to_owned(),
            suggestion: None,
            note: None,
            shown: self.shown(span),
        }
    }

    fn shown(&self, span: Range<usize>) -> Shown {
        let start = floor_boundary(self.text, span.start);
        let line_start = self.line_start(start);
        let line = self.text[line_start..self.line_end(start)].trim_end_matches('\r');
        let before = self.text[line_start..start].chars().count();
        let length = line.chars().count();
        let end = floor_boundary(self.text, span.end.clamp(start, line_start + line.len()).max(start));
        let carets = self.text[start..end].chars().count();
        // The window starts early enough to show what stands before the span.
        let skipped = if length <= SHOWN_CHARS_MAX { 0 } else { before.saturating_sub(SHOWN_CHARS_MAX / 2) };
        let visible: String = line.chars().skip(skipped).take(SHOWN_CHARS_MAX).map(printable).collect();
        let indent = visible
            .chars()
            .take(before - skipped)
            .map(|char| if char == '\t' { '\t' } else { ' ' })
            .collect();
        Shown { line: visible, indent, carets: carets.clamp(1, SHOWN_CHARS_MAX) }
    }
}

/// A control character in a file must not reach the terminal of whoever reads about it.
fn printable(char: char) -> char {
    if char.is_control() && char != '\t' { char::REPLACEMENT_CHARACTER } else { char }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A name from the file, in backquotes, harmless and of bounded length.
pub(crate) fn quoted(name: &str) -> String {
    let mut shown: String = name.chars().take(QUOTED_CHARS_MAX).map(printable).collect();
    if name.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// The word that was probably meant.
pub(crate) fn nearest(word: &str, known: &[&'static str]) -> Option<String> {
    if word.chars().nth(QUOTED_CHARS_MAX).is_some() {
        return None;
    }
    let word = word.to_ascii_lowercase();
    known
        .iter()
        .map(|&candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= candidate.len().max(word.len()) / 3)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}
