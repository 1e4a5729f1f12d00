//! Latencies as sorted counts: what is kept of a histogram where many are kept at once.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::io::Read;

use super::recorder::{DIGITS, HIGHEST_NS, LOWEST_NS, histogram};

/// Longest text of one histogram, bytes. All 27 thousand counts of one, incompressible, take less.
pub const HISTOGRAM_TEXT_BYTES_MAX: usize = 512 << 10;
/// Most measurements in one histogram: four weeks of 10,000 a second are fewer.
pub const MEASUREMENTS_MAX: u64 = u32::MAX as u64;

/// First word of an encoded histogram, format V2, and of one that is compressed.
const COOKIE: u32 = 0x1c84_9313;
const COOKIE_COMPRESSED: u32 = 0x1c84_9314;
/// Bytes in front of the counts.
const HEAD_BYTES: usize = 40;
/// Longest variable-length number.
const VARINT_BYTES_MAX: usize = 9;

/// Why a text is no histogram of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// More text than the largest histogram takes.
    #[error("a histogram of {0} bytes; {HISTOGRAM_TEXT_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// It is not base64.
    #[error("a histogram that isn't base64")]
    Base64,
    /// Another format than V2, or damaged.
    #[error("a damaged histogram: {0}")]
    Damaged(&'static str),
    /// It has other bounds or digits than those that the recorder uses.
    #[error(
        "a histogram of {low} to {high} with {digits} digits; those of a node have 1 to 60000000000 (ns) with 3"
    )]
    Bounds {
        /// Its lowest value.
        low: u64,
        /// Its highest value.
        high: u64,
        /// Its significant digits.
        digits: u32,
    },
    /// More measurements than are counted.
    #[error("more than {MEASUREMENTS_MAX} measurements in one histogram")]
    TooMany,
}

/// How often each latency was measured: pairs of nanoseconds, to the three digits of the recorder's
/// histograms (the highest value of its bucket), and a count above zero; sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    counts: Vec<(u64, u64)>,
    measurements: u64,
}

impl Latencies {
    /// The counts of a histogram with the recorder's bounds.
    ///
    /// # Errors
    /// It has other bounds, or more than [`MEASUREMENTS_MAX`] measurements.
    pub fn of(histogram: &Histogram<u64>) -> Result<Self, HistogramError> {
        let (low, high, digits) = (histogram.low(), histogram.high(), histogram.sigfig());
        if (low, high, digits) != (LOWEST_NS, HIGHEST_NS, DIGITS) {
            return Err(HistogramError::Bounds { low, high, digits: digits.into() });
        }
        if histogram.len() > MEASUREMENTS_MAX {
            return Err(HistogramError::TooMany);
        }
        let counts = histogram
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
            .collect();
        Ok(Self { counts, measurements: histogram.len() })
    }

    /// Reads a histogram as logs and verdict records hold it: base64 of format V2, compressed or not. Nothing
    /// in `text` decides how much is allocated.
    ///
    /// # Errors
    /// The text is too long, damaged, or a histogram with other bounds than the recorder's.
    pub fn decode(text: &str) -> Result<Self, HistogramError> {
        if text.len() > HISTOGRAM_TEXT_BYTES_MAX {
            return Err(HistogramError::TooLong(text.len()));
        }
        let bytes = STANDARD.decode(text).map_err(|_| HistogramError::Base64)?;
        let bytes = if word(&bytes, 0)? == COOKIE_COMPRESSED { inflate(&bytes)? } else { bytes };
        check(&bytes)?;
        let histogram = Deserializer::new()
            .deserialize::<u64, _>(&mut bytes.as_slice())
            .map_err(|_| HistogramError::Damaged("its counts don't decode"))?;
        Self::of(&histogram)
    }

    /// The text that [`Latencies::decode`] reads, compressed.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut whole = histogram();
        for &(nanoseconds, count) in &self.counts {
            whole.record_n(nanoseconds, count).expect("values of a histogram with these bounds");
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&whole, &mut bytes).expect("a vector takes all");
        STANDARD.encode(bytes)
    }

    /// Adds what `other` counted.
    ///
    /// # Errors
    /// Together there are more than [`MEASUREMENTS_MAX`]; nothing is added.
    pub fn add(&mut self, other: &Self) -> Result<(), HistogramError> {
        let measurements = self.measurements.saturating_add(other.measurements);
        if measurements > MEASUREMENTS_MAX {
            return Err(HistogramError::TooMany);
        }
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(self.counts.len().max(other.counts.len()));
        let (mut ours, mut theirs) = (self.counts.iter().peekable(), other.counts.iter().peekable());
        while let Some(&next) = match (ours.peek(), theirs.peek()) {
            (Some(our), Some(their)) if their.0 < our.0 => theirs.next(),
            (Some(_), _) => ours.next(),
            (None, _) => theirs.next(),
        } {
            match merged.last_mut() {
                Some(last) if last.0 == next.0 => last.1 += next.1,
                _ => merged.push(next),
            }
        }
        *self = Self { counts: merged, measurements };
        Ok(())
    }

    /// How many measurements there are.
    #[must_use]
    pub fn measurements(&self) -> u64 {
        self.measurements
    }

    /// Nanoseconds and how often, sorted by nanoseconds.
    #[must_use]
    pub fn counts(&self) -> &[(u64, u64)] {
        &self.counts
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, HistogramError> {
    let found = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    found.map(u32::from_be_bytes).ok_or(HistogramError::Damaged("its head is cut"))
}

fn long(bytes: &[u8], at: usize) -> Result<u64, HistogramError> {
    let found = bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok());
    found.map(u64::from_be_bytes).ok_or(HistogramError::Damaged("its head is cut"))
}

/// What a compressed histogram holds, if that is no more than the largest one.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, HistogramError> {
    let compressed = &bytes[8.min(bytes.len())..];
    if word(bytes, 4)? as usize != compressed.len() {
        return Err(HistogramError::Damaged("its length is another than it says"));
    }
    let largest = HEAD_BYTES + histogram().distinct_values() * VARINT_BYTES_MAX;
    let mut inflated = Vec::new();
    ZlibDecoder::new(compressed)
        .take(largest as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|_| HistogramError::Damaged("it doesn't decompress"))?;
    if inflated.len() > largest {
        return Err(HistogramError::Damaged("it decompresses to more than the largest histogram"));
    }
    Ok(inflated)
}

/// Checks an uncompressed histogram before the crate reads it: that allocates what the head says, and its
/// arithmetic overflows at some counts and runs of zeros.
fn check(bytes: &[u8]) -> Result<(), HistogramError> {
    if word(bytes, 0)? != COOKIE {
        return Err(HistogramError::Damaged("it isn't in format V2"));
    }
    let counts = bytes.get(HEAD_BYTES..).ok_or(HistogramError::Damaged("its head is cut"))?;
    if word(bytes, 4)? as usize != counts.len() {
        return Err(HistogramError::Damaged("its length is another than it says"));
    }
    if word(bytes, 8)? != 0 || f64::from_bits(long(bytes, 32)?).to_bits() != 1.0_f64.to_bits() {
        return Err(HistogramError::Damaged("it is normalized, and those of a node are not"));
    }
    let (digits, low, high) = (word(bytes, 12)?, long(bytes, 16)?, long(bytes, 24)?);
    if (digits, low, high) != (DIGITS.into(), LOWEST_NS, HIGHEST_NS) {
        return Err(HistogramError::Bounds { low, high, digits });
    }
    let (mut counts, mut index, mut measurements) = (counts, 0_u64, 0_u64);
    let buckets = histogram().distinct_values() as u64;
    while !counts.is_empty() {
        let (encoded, rest) = varint(counts)?;
        counts = rest;
        // ZigZag: odd numbers are negative, and stand for so many buckets without a count.
        if encoded & 1 == 1 {
            index = index.saturating_add((encoded >> 1).saturating_add(1));
        } else {
            index += 1;
            measurements = measurements.saturating_add(encoded >> 1);
        }
        if index > buckets {
            return Err(HistogramError::Damaged("it has more counts than there are values"));
        }
    }
    if measurements > MEASUREMENTS_MAX {
        return Err(HistogramError::TooMany);
    }
    Ok(())
}

/// A number in seven bits a byte, lowest first; the ninth byte, if there is one, is whole.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), HistogramError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let last = at + 1 == VARINT_BYTES_MAX;
        value |= u64::from(if last { byte } else { byte & 0x7f }) << (7 * at);
        if last || byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err(HistogramError::Damaged("it ends in the middle of a count"))
}
