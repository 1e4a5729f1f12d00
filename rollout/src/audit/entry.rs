//! What a line says.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DETAILS_MAX, LineHash, REASON_BYTES_MAX, TEXT_BYTES_MAX};

/// Room for the mark at the end of a text that was cut.
const MARK_BYTES: usize = 40;

/// By which way something was asked for or came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A person's command.
    Cli,
    /// The policy file.
    File,
    /// A guard's verdict.
    Guard,
    /// The kill switch's file.
    KillSwitch,
    /// The node on its own account.
    Node,
}

impl Source {
    /// Its word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::File => "file",
            Self::Guard => "guard",
            Self::KillSwitch => "kill-switch",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that was done. Texts that are longer than their bound are cut when they are written, and end with a mark
/// that says so; bounds count bytes as they stand in the line, where e.g. a control character takes six.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When; the log has milliseconds.
    pub time: Timestamp,
    /// Who did it, e.g. `uid 0`, `guard p99`, `file`, `node`. At most [`TEXT_BYTES_MAX`].
    pub actor: String,
    /// By which way.
    pub source: Source,
    /// What was done, a short word, e.g. `pause`, `rollback`, `kill-engaged`. At most [`TEXT_BYTES_MAX`].
    pub action: String,
    /// What it was done to: a rollout's id, or a key. At most [`TEXT_BYTES_MAX`].
    pub subject: Option<String>,
    /// What was there before. At most [`TEXT_BYTES_MAX`].
    pub from: Option<String>,
    /// What is there now. At most [`TEXT_BYTES_MAX`].
    pub to: Option<String>,
    /// Why. At most [`REASON_BYTES_MAX`].
    pub reason: Option<String>,
    /// The policy's generation then.
    pub generation: Option<u64>,
    /// More, e.g. the keys that changed. At most [`DETAILS_MAX`] of [`TEXT_BYTES_MAX`] each.
    pub details: Vec<String>,
}

impl Entry {
    /// One without anything that may be absent.
    #[must_use]
    pub fn new(time: Timestamp, actor: impl Into<String>, source: Source, action: impl Into<String>) -> Self {
        Self {
            time,
            actor: actor.into(),
            source,
            action: action.into(),
            subject: None,
            from: None,
            to: None,
            reason: None,
            generation: None,
            details: Vec::new(),
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, from one.
    pub seq: u64,
    /// The hash of the line before; [`LineHash::START`] in the first.
    pub prev: LineHash,
    /// Its own.
    pub hash: LineHash,
    /// What it says.
    pub entry: Entry,
    /// The line as it stands in the log, a JSON object, without its line feed.
    pub line: String,
}

/// A line, and without `hash` its body. Keys that are unknown here are those of a later version.
#[derive(Serialize, Deserialize)]
struct LineV1 {
    seq: u64,
    prev: String,
    time: String,
    actor: String,
    source: Source,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    details: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

/// The body of the line that follows `prev`, with texts within their bounds.
pub(super) fn body(seq: u64, prev: LineHash, entry: Entry) -> String {
    let Entry { time, actor, source, action, subject, from, to, reason, generation, details } = entry;
    let short = |text: String| cut(text, TEXT_BYTES_MAX);
    let body = LineV1 {
        seq,
        prev: prev.to_string(),
        time: format!("{time:.3}"),
        actor: short(actor),
        source,
        action: short(action),
        subject: subject.map(short),
        from: from.map(short),
        to: to.map(short),
        reason: reason.map(|reason| cut(reason, REASON_BYTES_MAX)),
        generation,
        details: few(details),
        hash: None,
    };
    let mut text = serde_json::to_string(&body).expect("strings and numbers");
    text.pop();
    text
}

/// What a line says, given that it begins and ends as one does; otherwise what is wrong with it.
pub(super) fn read(line: &[u8]) -> Result<Entry, String> {
    let line: LineV1 = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let LineV1 { time, actor, source, action, subject, from, to, reason, generation, details, .. } = line;
    let time = time.parse().map_err(|_| format!("its time is `{}`", time.escape_debug()))?;
    Ok(Entry { time, actor, source, action, subject, from, to, reason, generation, details })
}

fn few(mut details: Vec<String>) -> Vec<String> {
    let more = details.len().saturating_sub(DETAILS_MAX);
    if more > 0 {
        details.truncate(DETAILS_MAX - 1);
        details.push(format!("...[cut, {} more]", more + 1));
    }
    details.into_iter().map(|detail| cut(detail, TEXT_BYTES_MAX)).collect()
}

/// The text, or as much from its start as leaves room for a mark.
fn cut(text: String, bytes_max: usize) -> String {
    // Where each character ends in the text, and where in the line.
    let ends = text.char_indices().scan(0, |in_line, (at, char)| {
        *in_line += in_line_bytes(char);
        Some((at + char.len_utf8(), *in_line))
    });
    let mut kept = 0;
    for (end, in_line) in ends {
        if in_line > bytes_max {
            return format!("{}...[cut, {} bytes]", &text[..kept], text.len());
        }
        if in_line <= bytes_max - MARK_BYTES {
            kept = end;
        }
    }
    text
}

/// Bytes that JSON takes for a character.
fn in_line_bytes(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        char => char.len_utf8(),
    }
}
