//! From a file to a policy.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::policy::FILE_BYTES_MAX;
use crate::{Diagnostic, Policy};

/// Why a policy file was not taken. The last good one stays in force.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("could not read the policy file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        error: Arc<io::Error>,
    },
    /// The file is too large to be a policy.
    #[error("the policy file {} has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its content is wrong.
    #[error("{}", Listed(.0))]
    Invalid(Vec<Diagnostic>),
    /// Its directory could not be watched for changes.
    #[error("could not watch {} for changes: {detail}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the watcher said.
        detail: String,
    },
    /// It lacks a rollout that holds something, or changes its modes.
    #[error(
        "the policy file has no [rollouts.{rollout}] with the same modes for this subnet, and that one is under way or \
         its rollback is not acknowledged: `bulkhead abort {rollout}`, `bulkhead ack {rollout}` first"
    )]
    Held {
        /// Its id.
        rollout: String,
    },
    /// The policy is fixed.
    #[error("there is no policy file to read again: the mode of this node is fixed")]
    Fixed,
}

/// All diagnostics and their number.
struct Listed<'a>(&'a [Diagnostic]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.0 {
            writeln!(f, "{diagnostic}")?;
        }
        match self.0.len() {
            1 => write!(f, "1 error"),
            count => write!(f, "{count} errors"),
        }
    }
}

/// The SHA-256 of a policy file's bytes. `Display`: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// That of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// From 64 hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A policy and the bytes that it was read from.
pub(super) struct Loaded {
    pub(super) policy: Policy,
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: Checksum,
}

impl Policy {
    /// Reads a policy file, at most [`FILE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Why it is not a valid policy.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        load(path).map(|loaded| loaded.policy)
    }
}

pub(super) fn load(path: &Path) -> Result<Loaded, LoadError> {
    let bytes = read(path)?;
    let policy = parse(path, &bytes)?;
    Ok(Loaded { policy, checksum: Checksum::of(&bytes), bytes })
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Policy, LoadError> {
    Policy::parse_bytes(&path.display().to_string(), bytes).map_err(LoadError::Invalid)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError::Read { path: path.to_owned(), error: Arc::new(error) };
    // A pipe in the file's place would block the watcher for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}
