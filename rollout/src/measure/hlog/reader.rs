//! Reads interval logs. Whoever wrote one is not trusted.

use std::time::Duration;

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::super::latencies::{HISTOGRAM_TEXT_BYTES_MAX, HistogramError, Latencies};
use super::super::{Arm, KINDS};

/// Largest log, bytes.
pub const LOG_BYTES_MAX: usize = 64 << 20;
/// Most intervals in one log: a day of eight series every ten seconds are fewer.
pub const INTERVALS_MAX: usize = 200_000;
/// Longest line: the longest histogram and what stands in front of it.
const LINE_BYTES_MAX: usize = HISTOGRAM_TEXT_BYTES_MAX + 512;
/// Latest moment, after 1970: the year 2262, as in the log of recorded input. Sums with it stay far from
/// overflow.
const TIME_MAX: Duration = Duration::from_secs(i64::MAX.cast_unsigned() / 1_000_000_000);

/// One series in one interval.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedInterval {
    /// Whose latencies.
    pub arm: Arm,
    /// Of which kind of message, one of [`KINDS`].
    pub kind: &'static str,
    /// When it began, after 1970.
    pub start: Duration,
    /// How long it was.
    pub duration: Duration,
    /// What was measured.
    pub latencies: Latencies,
}

/// Why a log can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogReadError {
    /// It is larger than any log that is read.
    #[error("it has {0} bytes; {LOG_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// It has no line that only an interval log has.
    #[error("it is no HdrHistogram interval log: it doesn't begin with `#[Histogram log format version 1.`")]
    Foreign,
    /// A line is wrong.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// Reads a log of at most [`LOG_BYTES_MAX`] with tags `mode.kind`, and gives `each` the intervals that
/// `wanted` asks for, one at a time, so that no more than one is held here. The others' histograms are not
/// decoded.
///
/// # Errors
/// A line is no interval, comment or head of columns; a tag is unknown; a time is before 1970, after 2262 or
/// no number; a histogram is wrong; `each` fails, with what it says.
pub fn read_log(
    log: &[u8],
    wanted: impl Fn(Arm, &str) -> bool,
    mut each: impl FnMut(LoggedInterval) -> Result<(), String>,
) -> Result<(), LogReadError> {
    if log.len() > LOG_BYTES_MAX {
        return Err(LogReadError::TooLarge(log.len()));
    }
    if !log.starts_with(b"#[Histogram log format version 1.") {
        return Err(LogReadError::Foreign);
    }
    let (mut base, mut intervals) = (Duration::ZERO, 0);
    // Line by line: given the whole log, the crate looks for the end of each number up to the end of the log.
    for (at, line) in log.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let wrong = |what: String| LogReadError::Line { line: at + 1, what };
        match entry(line).map_err(wrong)? {
            None | Some(LogEntry::StartTime(_)) => {}
            Some(LogEntry::BaseTime(time)) => base = bounded(time).map_err(wrong)?,
            Some(LogEntry::Interval(interval)) => {
                intervals += 1;
                if intervals > INTERVALS_MAX {
                    return Err(wrong(format!("more than {INTERVALS_MAX} intervals in one log")));
                }
                let tag = interval.tag().map(|tag| tag.as_str().to_owned());
                let (arm, kind) = series(tag.as_deref()).map_err(wrong)?;
                let start = bounded(base.saturating_add(interval.start_timestamp())).map_err(wrong)?;
                let duration = bounded(interval.duration()).map_err(wrong)?;
                if !(interval.max().is_finite() && interval.max() >= 0.0) {
                    return Err(wrong(format!("a highest latency of {}", interval.max())));
                }
                if wanted(arm, kind) {
                    let latencies = Latencies::decode(interval.encoded_histogram())
                        .map_err(|error: HistogramError| wrong(error.to_string()))?;
                    each(LoggedInterval { arm, kind, start, duration, latencies }).map_err(wrong)?;
                }
            }
        }
    }
    Ok(())
}

/// What a line says; `None` for one that says nothing to us.
fn entry(line: &[u8]) -> Result<Option<LogEntry<'_>>, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("it has {} bytes; {LINE_BYTES_MAX} are allowed", line.len()));
    }
    if line.last() != Some(&b'\n') {
        return Err("it ends in the middle of the line".to_owned());
    }
    match IntervalLogIterator::new(line).next() {
        None => Ok(None),
        Some(Ok(entry)) => Ok(Some(entry)),
        Some(Err(_)) => {
            Err("neither an interval (`Tag=MODE.KIND,START,SECONDS,MAX,HISTOGRAM`) nor a comment".into())
        }
    }
}

fn bounded(time: Duration) -> Result<Duration, String> {
    if time <= TIME_MAX {
        Ok(time)
    } else {
        Err(format!("a time of {} s, after the year 2262", time.as_secs()))
    }
}

fn series(tag: Option<&str>) -> Result<(Arm, &'static str), String> {
    let tag = tag.ok_or("no tag; tags say MODE.KIND, e.g. `sandboxed.update`")?;
    let (arm, kind) = tag.split_once('.').unwrap_or((tag, ""));
    let arm = Arm::ALL.into_iter().find(|known| known.as_str() == arm);
    let kind = KINDS.into_iter().find(|known| *known == kind);
    arm.zip(kind).ok_or_else(|| {
        let shown: String = tag.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
        format!("unknown tag `{shown}`; tags say MODE.KIND, e.g. `sandboxed.update`")
    })
}
