//! The head of what is stored as JSON: what it is, and in which version.

use serde::Deserialize;

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

/// Why something stored is not read further.
pub(crate) enum HeadError {
    /// It is something else. The text says what is wrong.
    Foreign(String),
    /// It has another version.
    Version {
        /// Its version.
        found: u64,
        /// Ours.
        expected: u64,
    },
}

/// Checks the head of a JSON object before the rest of it is looked at.
pub(crate) fn check(bytes: &[u8], format: &str, version: u64) -> Result<(), HeadError> {
    let head: Head = serde_json::from_slice(bytes).map_err(|error| HeadError::Foreign(error.to_string()))?;
    if head.format != format {
        return Err(HeadError::Foreign(format!("its format is not `{format}`")));
    }
    if head.version != version {
        return Err(HeadError::Version { found: head.version, expected: version });
    }
    Ok(())
}
