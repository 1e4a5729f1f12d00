//! The log as others read it, also while it is written.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::chain::{Chain, head, walk};
use super::file::open;
use super::lines::{LineEnd, next_line};
use super::{AuditError, Broken, LINE_BYTES_MAX, LineHash, READ_BYTES_MAX, Record, VerifyError, Why};

/// Part of the log that is read line by line rather than halved again.
const HALVED_BYTES_MIN: u64 = 64 << 10;

/// A whole chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many entries it has.
    pub entries: u64,
    /// The hash of the last one.
    pub last: Option<LineHash>,
    /// The number of the entry that has the expected hash.
    pub expected: Option<u64>,
}

/// Checks a whole log and holds one line of it at a time. Lines that were cut off its end are not missed, unless a hash
/// is `expected` that one of its entries had.
///
/// # Errors
/// It can't be read, its chain is broken, or no entry has the expected hash.
pub fn verify(reader: impl Read, expected: Option<LineHash>) -> Result<Verified, VerifyError> {
    let mut found = None;
    let walked = walk(BufReader::new(reader), |record| {
        if expected == Some(record.hash) {
            found = Some(record.seq);
        }
    })?;
    let Chain { seq: entries, hash } = walked.chain;
    let broken = |why| Err(VerifyError::Broken(Broken { line: entries + 1, why }));
    if walked.torn > 0 {
        return broken(Why::CutShort);
    }
    match expected {
        Some(expected) if found.is_none() => broken(Why::EndMissing(expected)),
        _ => Ok(Verified { entries, last: Some(hash).filter(|_| entries > 0), expected: found }),
    }
}

/// Opens a log to read it: a regular file, not through a symbolic link.
///
/// # Errors
/// The kernel refuses, or it is no regular file.
pub fn open_to_read(path: &Path) -> Result<File, AuditError> {
    open(path, OFlags::RDONLY, Mode::empty())
}

/// The number of the last entry, as its line says; zero: there is none. Looks at the end of the file only.
///
/// # Errors
/// The file can't be read, or ends in something else than a line.
pub fn last_seq(path: &Path) -> Result<u64, AuditError> {
    Ok(end(&open_to_read(path)?)?.seq)
}

/// Up to `max` entries that follow the entry `after` (zero: from the first one on), in their order; fewer where their
/// lines have more than [`READ_BYTES_MAX`] or a broken one follows, none only at the log's end. Finds its place by
/// halving the file, and checks the chain from `after` on, not before. A last line without its end is not there yet.
///
/// # Errors
/// The file can't be read, or is broken in the first line that would be given, or on the way there.
pub fn read_after(path: &Path, after: u64, max: usize) -> Result<Vec<Record>, AuditError> {
    let file = open_to_read(path)?;
    let end = end(&file)?;
    let mut records = Vec::new();
    if after >= end.seq {
        return Ok(records);
    }
    let start = before(&file, after, end.bytes)?;
    let mut reader = from(&file, start)?.take(end.bytes - start);
    let (mut line, mut bytes) = (Vec::new(), 0);
    let mut chain = Chain::START;
    let broken = |seq, why| AuditError::Broken(Broken { line: seq, why });
    while records.len() < max && bytes < READ_BYTES_MAX {
        let why = match next_line(&mut reader, &mut line).map_err(AuditError::os("read"))? {
            LineEnd::None | LineEnd::Torn => break,
            LineEnd::TooLong => Why::TooLong,
            LineEnd::Whole if chain.seq < after => match head(&line) {
                Some((seq, _)) if seq < after => continue,
                Some((seq, _)) if seq > after => {
                    return Err(broken(after, Why::Missing { first: after, last: seq - 1 }));
                }
                _ => {
                    chain = Chain::up_to(&line).map_err(|why| broken(after, why))?;
                    continue;
                }
            },
            LineEnd::Whole => match chain.follow(&line) {
                Ok(record) => {
                    bytes += line.len();
                    records.push(record);
                    continue;
                }
                Err(why) => why,
            },
        };
        // What is whole before it comes first, and the next call tells.
        if records.is_empty() {
            return Err(broken(after.max(chain.seq + 1), why));
        }
        break;
    }
    Ok(records)
}

/// Where the whole lines end, and the number of the last one.
struct End {
    bytes: u64,
    seq: u64,
}

fn end(file: &File) -> Result<End, AuditError> {
    let read = AuditError::os("read");
    let length = file.metadata().map_err(read)?.len();
    // A last line without its end, and the one before it.
    let mut window = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(2 * LINE_BYTES_MAX)];
    let start = length - window.len() as u64;
    file.read_exact_at(&mut window, start).map_err(AuditError::os("read"))?;
    let Some(feed) = window.iter().rposition(|&byte| byte == b'\n') else {
        return if start == 0 {
            Ok(End { bytes: 0, seq: 0 })
        } else {
            Err(AuditError::Illegible { offset: start })
        };
    };
    let line = window[..feed].iter().rposition(|&byte| byte == b'\n').map_or(0, |before| before + 1);
    let (seq, _) = head(&window[line..feed]).ok_or(AuditError::Illegible { offset: start + line as u64 })?;
    Ok(End { bytes: start + feed as u64 + 1, seq })
}

/// Where a line starts, at or before that of the entry `wanted` and not far from it.
fn before(file: &File, wanted: u64, end: u64) -> Result<u64, AuditError> {
    // Lines that start before `low` have lower numbers, and those that start at `high` or behind it none that is lower.
    let (mut low, mut high) = (0, end);
    let mut line = Vec::new();
    while high - low > HALVED_BYTES_MIN {
        let middle = low + (high - low) / 2;
        let mut reader = from(file, middle - 1)?;
        let skipped = reader.by_ref().take(LINE_BYTES_MAX as u64).skip_until(b'\n');
        let start = middle - 1 + skipped.map_err(AuditError::os("read"))? as u64;
        if start >= high {
            high = middle;
            continue;
        }
        next_line(&mut reader, &mut line).map_err(AuditError::os("read"))?;
        match head(&line) {
            Some((seq, _)) if seq < wanted => low = start,
            Some(_) => high = middle,
            None => return Err(AuditError::Illegible { offset: start }),
        }
    }
    Ok(low)
}

fn from(file: &File, start: u64) -> Result<BufReader<&File>, AuditError> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(start)).map_err(AuditError::os("read"))?;
    Ok(reader)
}
