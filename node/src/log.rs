//! The log of a subnet's ordered input, with what came of it (`bulkhead record`, `bulkhead replay`).
//!
//! A file is the magic number, the version of the format (4 bytes, little endian) and records. A record is a head
//! of 12 bytes (length, checksum of the payload, checksum of offset, length and first checksum; little endian,
//! CRC-32) and a payload, which is a postcard [`Entry`]. Records are only ever appended. The first is
//! [`Entry::Head`], the last [`Entry::End`]: without it, the recording was cut short.
//!
//! Nothing of a log is trusted: every length is bounded before anything is allocated for it, and a reader holds one
//! record at a time. The checksums find damage; they don't make a log authentic.

mod entry;
mod reader;
mod writer;

use std::io;

pub use entry::{Admission, Entry, Head, Message};
pub use reader::{Extent, Reader, Survey, survey};
pub use writer::Writer;

/// The first bytes of every log.
pub const MAGIC: [u8; 8] = *b"\x89BLKHLOG";
/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;
/// Longest payload of a record, bytes: a message that installs the largest module with the largest argument that
/// drun reads.
pub const RECORD_BYTES_MAX: u32 = 256 << 20;
/// Length of what precedes the first record.
const PREFIX_BYTES: u64 = 12;
/// Length of the head of a record.
const HEAD_BYTES: usize = 12;

/// Why a log can't be read on, and where. Offsets are in bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading failed.
    #[error("offset {offset}: could not read: {cause}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        cause: io::Error,
    },
    /// It isn't a log at all.
    #[error("offset 0: this is no log of bulkhead: {0}")]
    Foreign(&'static str),
    /// A log of another version.
    #[error("offset 8: the log has format {found}, and this program reads format {VERSION}{}", newer(*found))]
    Version {
        /// What it says.
        found: u32,
    },
    /// The file ends before the log does.
    #[error("offset {offset}: the log ends early, {what}")]
    Truncated {
        /// Where the record starts that isn't there, or not whole.
        offset: u64,
        /// What is missing.
        what: &'static str,
    },
    /// A record that no recording writes.
    #[error("offset {offset}: damaged record: {what}")]
    Damaged {
        /// Where the record starts.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
}

fn newer(found: u32) -> &'static str {
    if found > VERSION { "; a newer program wrote it" } else { "" }
}

/// Why a record can't be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// Longer than a reader takes.
    #[error("a record of {0} bytes is longer than the {RECORD_BYTES_MAX} that a log takes")]
    TooLong(usize),
    /// It can't be encoded.
    #[error("could not encode a record: {0}")]
    Encode(#[from] postcard::Error),
}

/// Checksum of a record's head, bound to its place: a record that moved is damaged.
fn head_checksum(offset: u64, length: u32, payload_checksum: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(&payload_checksum.to_le_bytes());
    hasher.finalize()
}
