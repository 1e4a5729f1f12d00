//! Lines of a file, one at a time, none longer than a line of the log may be.

use std::io::{self, BufRead, Read};

use super::LINE_BYTES_MAX;

/// How a line ended.
pub(super) enum LineEnd {
    /// With a line feed, which is not in the line.
    Whole,
    /// With the file.
    Torn,
    /// Not within [`LINE_BYTES_MAX`].
    TooLong,
    /// There is none.
    None,
}

/// Reads the next line in `line`'s place.
pub(super) fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<LineEnd> {
    line.clear();
    reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
    Ok(match line.pop_if(|byte| *byte == b'\n') {
        Some(_) => LineEnd::Whole,
        None if line.is_empty() => LineEnd::None,
        None if line.len() == LINE_BYTES_MAX => LineEnd::TooLong,
        None => LineEnd::Torn,
    })
}
