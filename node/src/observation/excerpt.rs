//! Long values, short.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes kept of a value.
const KEPT_BYTES: usize = 160;
/// Longest text shown, characters.
const ESCAPED_CHARS_MAX: usize = 200;
/// Longest value shown, characters.
const SHOWN_CHARS_MAX: usize = 400;

/// The length, the hash and the first bytes of a value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, where it is longer than what is kept of it.
    pub sha256: Option<[u8; 32]>,
    /// Its first bytes.
    #[serde(with = "serde_bytes")]
    pub start: Vec<u8>,
}

impl Excerpt {
    /// Of `value`.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self {
            bytes: value.len() as u64,
            sha256: (value.len() > KEPT_BYTES).then(|| Sha256::digest(value).into()),
            start: value[..value.len().min(KEPT_BYTES)].to_vec(),
        }
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_text = |text: &&str| !text.is_empty() && text.chars().all(|c| !c.is_control() || c == '\n');
        match std::str::from_utf8(&self.start).ok().filter(is_text) {
            Some(text) => write!(f, "{text:?}")?,
            None => write!(f, "0x{}", hex::encode(&self.start))?,
        }
        match self.sha256 {
            Some(hash) => write!(f, "... ({} bytes, SHA-256 {})", self.bytes, hex::encode(hash)),
            None => Ok(()),
        }
    }
}

/// Text of a log, or of a node, as it may go to a terminal: without control characters, and short.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::new();
    for (at, char) in text.chars().enumerate() {
        match char {
            _ if at == ESCAPED_CHARS_MAX => {
                shown.push_str("...");
                break;
            }
            // Escaping is for what a terminal would obey.
            '"' | '\'' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    shown
}

/// The `Debug` form of a value, cut off after `SHOWN_CHARS_MAX` characters.
pub(super) fn shown(value: &dyn fmt::Debug) -> String {
    rollout::shown(value, SHOWN_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_value_is_kept_whole_and_a_long_one_by_its_hash() {
        assert_eq!(format!("{:?}", Excerpt::of(b"hello")), "\"hello\"");
        assert_eq!(format!("{:?}", Excerpt::of(&[0, 255])), "0x00ff");
        let [long, other] = [b'a', b'b'].map(|last| Excerpt::of(&[&[7; 1000][..], &[last]].concat()));
        assert_eq!((&long.start, long.bytes), (&other.start, 1001));
        assert_ne!(long, other);
    }

    #[test]
    fn what_is_shown_of_a_text_is_bounded_and_tells_a_terminal_nothing() {
        assert_eq!(escaped("can't \u{1b}[2J\u{9b}\n"), r"can't \u{1b}[2J\u{9b}\n");
        assert_eq!(escaped(&"x".repeat(1 << 20)).len(), ESCAPED_CHARS_MAX + 3);
        assert_eq!(escaped(&"x".repeat(ESCAPED_CHARS_MAX)).len(), ESCAPED_CHARS_MAX);
    }

    #[test]
    fn what_is_shown_of_a_value_is_bounded() {
        assert_eq!(shown(&"x".repeat(1 << 20)).chars().count(), SHOWN_CHARS_MAX + 3);
    }
}
