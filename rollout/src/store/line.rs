//! The stored form of a [`Line`]: JSON, version 1.

use serde::{Deserialize, Serialize};

use super::{Line, REASON_BYTES_MAX};
use crate::head::{self, HeadError};

/// Largest stored form, bytes: each byte of the reason may be escaped.
pub(super) const LINE_BYTES_MAX: usize = 8 * REASON_BYTES_MAX;

const FORMAT: &str = "bulkhead-line";
const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineV1 {
    format: String,
    version: u64,
    stopped: Option<String>,
}

/// Whether a line can be stopped for this reason.
pub(super) fn is_reason(text: &str) -> bool {
    (1..=REASON_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

pub(super) fn write(line: &Line) -> String {
    let line = LineV1 { format: FORMAT.to_owned(), version: VERSION, stopped: line.stopped.clone() };
    serde_json::to_string_pretty(&line).expect("strings and a number") + "\n"
}

pub(super) fn read(bytes: &[u8]) -> Result<Line, String> {
    let foreign = |error: serde_json::Error| format!("it doesn't say whether the line is stopped: {error}");
    head::check(bytes, FORMAT, VERSION).map_err(|error| match error {
        HeadError::Foreign(what) => format!("it doesn't say whether the line is stopped: {what}"),
        HeadError::Version { found, expected } => {
            format!("it has version {found}; this program reads version {expected}")
        }
    })?;
    let LineV1 { stopped, .. } = serde_json::from_slice(bytes).map_err(foreign)?;
    if stopped.as_deref().is_some_and(|reason| !is_reason(reason)) {
        return Err("its reason is empty, too long, or has control characters".to_owned());
    }
    Ok(Line { stopped })
}
