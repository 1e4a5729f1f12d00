//! What shows that a line is not the next one.

use std::fmt;
use std::io;

use super::{LINE_BYTES_MAX, LineHash};

/// Where the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Broken {
    /// The first line that is wrong, from one. The lines before it are the first of some log.
    pub line: u64,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It is longer than any line.
    #[error("it has {LINE_BYTES_MAX} bytes and no end; no line of an audit log is as long")]
    TooLong,
    /// The file ends in it.
    #[error(
        "the file ends in the middle of it: it was cut, or a write was interrupted (the next start of the node cuts \
         that off), or is under way"
    )]
    CutShort,
    /// It doesn't end as a line does.
    #[error("it doesn't end with `,\"hash\":\"...\"}}`: it was changed, or is no line of an audit log")]
    NoHash,
    /// Its hash is not that of what stands before it.
    #[error("its hash is not that of its text: it was changed")]
    Changed,
    /// It doesn't begin as a line does.
    #[error("it doesn't begin with `{{\"seq\":N,\"prev\":\"...\",`: it is no line of an audit log")]
    NoHead,
    /// Entries that belong before it are nowhere behind it either.
    #[error("it is entry {}, and {} missing: lines were removed", .last + 1, Gap(*.first, *.last))]
    Missing {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The entry that belongs here stands further behind.
    #[error(
        "it is entry {seq}, and the one that belongs here stands in line {elsewhere}: the order was changed"
    )]
    Moved {
        /// The number that this line has.
        seq: u64,
        /// The line of the right one.
        elsewhere: u64,
    },
    /// It has the number of a line before it.
    #[error("it is entry {seq} a second time: a line was inserted or moved here or before")]
    Repeated {
        /// The number that it has.
        seq: u64,
    },
    /// It is not the one that followed the line before it.
    #[error(
        "it followed a line with hash {prev}, and the one before it has {before}: that one was changed together \
         with its hash, or this one put in another's place"
    )]
    Unlinked {
        /// What it says of the line before.
        prev: LineHash,
        /// The hash of the line before.
        before: LineHash,
    },
    /// It is in the chain and says nothing that an entry says.
    #[error("it is no entry: {0}")]
    Foreign(String),
    /// The log ends before this line, and no line had the hash that was expected.
    #[error(
        "the log ends before it, and no entry has the hash {0}: lines were cut off the end, or all made anew"
    )]
    EndMissing(LineHash),
}

impl Why {
    /// A word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::CutShort => "cut-short",
            Self::NoHash | Self::NoHead => "no-line",
            Self::Changed => "changed",
            Self::Missing { .. } => "missing",
            Self::Moved { .. } => "reordered",
            Self::Repeated { .. } => "repeated",
            Self::Unlinked { .. } => "unlinked",
            Self::Foreign(_) => "no-entry",
            Self::EndMissing(_) => "end-missing",
        }
    }
}

/// Entries, and the verb.
struct Gap(u64, u64);

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, last) = self;
        if first == last { write!(f, "entry {first} is") } else { write!(f, "entries {first} to {last} are") }
    }
}

/// Why a chain could not be found to be whole.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It could not be read.
    #[error("could not read it: {0}")]
    Read(#[from] io::Error),
    /// It is broken.
    #[error(transparent)]
    Broken(#[from] Broken),
}
