//! HdrHistogram interval logs: `.hlog`, format V2, one tag per series.

mod reader;

use std::io::{self, Write};
use std::time::UNIX_EPOCH;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};

use super::Interval;

pub use reader::{INTERVALS_MAX, LOG_BYTES_MAX, LogReadError, LoggedInterval, read_log};

/// Nanoseconds to milliseconds, for the column that people read.
const MAX_VALUE_DIVISOR: f64 = 1e6;

/// Why a log could not be written.
#[derive(Debug, thiserror::Error)]
pub enum HlogError {
    /// The writer failed.
    #[error("could not write the histogram log")]
    Io(#[from] io::Error),
    /// A histogram could not be encoded.
    #[error("could not encode a histogram: {0}")]
    Encode(String),
}

/// Writes intervals as they end. Tags are `mode.kind`, e.g. `sandboxed.update`; values are nanoseconds.
pub struct Hlog<W: Write> {
    writer: W,
    serializer: V2DeflateSerializer,
}

impl<W: Write> Hlog<W> {
    /// Begins a log with its head.
    ///
    /// # Errors
    /// The writer failed.
    pub fn begin(mut writer: W, first: &Interval) -> Result<Self, HlogError> {
        let mut serializer = V2DeflateSerializer::new();
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .with_start_time(first.start)
            .with_max_value_divisor(MAX_VALUE_DIVISOR)
            .begin_log_with(&mut writer, &mut serializer)?;
        Ok(Self { writer, serializer })
    }

    /// Writes an interval, a line for each series that has measurements, and flushes.
    ///
    /// # Errors
    /// The writer failed, or a histogram is beyond the format.
    pub fn write(&mut self, interval: &Interval) -> Result<(), HlogError> {
        let mut lines = Vec::new();
        let mut log = IntervalLogWriterBuilder::new()
            .with_max_value_divisor(MAX_VALUE_DIVISOR)
            .begin_log_with(&mut lines, &mut self.serializer)?;
        // Before 1970 is a clock that isn't set.
        let start = interval.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        for (arm, kind, histogram) in interval.series() {
            let tag = format!("{}.{kind}", arm.as_str());
            let tag = Tag::new(&tag).ok_or_else(|| HlogError::Encode(format!("tag {tag}")))?;
            log.write_histogram(histogram, start, interval.duration, Some(tag)).map_err(
                |error| match error {
                    IntervalLogWriterError::IoError(error) => HlogError::Io(error),
                    IntervalLogWriterError::SerializeError(error) => HlogError::Encode(format!("{error:?}")),
                },
            )?;
        }
        // The crate repeats its head for each writer; ours stands at the top of the file already.
        for line in lines.split_inclusive(|&byte| byte == b'\n').filter(|line| !line.starts_with(b"#")) {
            self.writer.write_all(line)?;
        }
        Ok(self.writer.flush()?)
    }

    /// Ends the log and gives the writer back.
    pub fn finish(self) -> W {
        self.writer
    }
}
