//! The chain: what makes a line the next one.

use std::fmt;
use std::io::{self, BufRead};

use sha2::{Digest, Sha256};

use super::broken::{Broken, VerifyError, Why};
use super::entry::{self, Entry, Record};
use super::lines::{LineEnd, next_line};

/// What stands between a line's body and its hash, and behind that.
const HASH_KEY: &[u8] = b",\"hash\":\"";
const HASH_END: &[u8] = b"\"}";
const HASH_DIGITS: usize = 64;

/// The SHA-256 of a line's body. `Display`: 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LineHash([u8; 32]);

impl LineHash {
    /// What the first line has in place of the hash of the line before.
    pub const START: Self = Self([0; 32]);

    fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    /// From 64 hexadecimal digits, in upper or lower case.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok()?;
        Some(Self(digest))
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The last line of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) seq: u64,
    pub(super) hash: LineHash,
}

impl Chain {
    pub(super) const START: Self = Self { seq: 0, hash: LineHash::START };

    /// The chain up to a line that is whole in itself, whatever is before it.
    pub(super) fn up_to(line: &[u8]) -> Result<Self, Why> {
        let Parts { seq, hash, .. } = Parts::of(line)?;
        Ok(Self { seq, hash })
    }

    /// The line that comes next if this is done, without its line feed, and its hash.
    pub(super) fn next(&self, entry: Entry) -> (String, LineHash) {
        let mut line = entry::body(self.seq + 1, self.hash, entry);
        let hash = LineHash::of(line.as_bytes());
        line += ",\"hash\":\"";
        line += &hash.to_string();
        line += "\"}";
        (line, hash)
    }

    /// Goes on to this line, without its line feed, if it is the next one.
    pub(super) fn follow(&mut self, line: &[u8]) -> Result<Record, Why> {
        let Parts { seq, prev, hash } = Parts::of(line)?;
        let expected = self.seq + 1;
        if seq < expected {
            return Err(Why::Repeated { seq });
        }
        if seq > expected {
            return Err(Why::Missing { first: expected, last: seq - 1 });
        }
        if prev != self.hash {
            return Err(Why::Unlinked { prev, before: self.hash });
        }
        let entry = entry::read(line).map_err(Why::Foreign)?;
        let text = str::from_utf8(line).map_err(|error| Why::Foreign(error.to_string()))?;
        *self = Self { seq, hash };
        Ok(Record { seq, prev, hash, entry, line: text.to_owned() })
    }
}

/// What the chain needs of a line. Its hash is right.
struct Parts {
    seq: u64,
    prev: LineHash,
    hash: LineHash,
}

impl Parts {
    fn of(line: &[u8]) -> Result<Self, Why> {
        let (body, digits) = line
            .strip_suffix(HASH_END)
            .and_then(|line| line.split_at_checked(line.len().checked_sub(HASH_DIGITS)?))
            .and_then(|(line, digits)| Some((line.strip_suffix(HASH_KEY)?, digits)))
            .ok_or(Why::NoHash)?;
        let hash = LineHash::of(body);
        // As text: upper case says the same and is another line.
        if hash.to_string().as_bytes() != digits {
            return Err(Why::Changed);
        }
        let (seq, prev) = head(body).ok_or(Why::NoHead)?;
        Ok(Self { seq, prev, hash })
    }
}

/// Number and `prev` of a line, which its start is enough for.
pub(super) fn head(line: &[u8]) -> Option<(u64, LineHash)> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at(digits);
    let number = str::from_utf8(number).ok().filter(|number| !number.starts_with('0'))?;
    let (prev, rest) = rest.strip_prefix(b",\"prev\":\"")?.split_at_checked(HASH_DIGITS)?;
    let prev = str::from_utf8(prev).ok().filter(|digits| !digits.contains(char::is_uppercase))?;
    rest.starts_with(b"\",").then_some(())?;
    // The largest number has none after it.
    let number = number.parse().ok().filter(|number| *number < u64::MAX)?;
    Some((number, LineHash::from_hex(prev)?))
}

/// What a log was found to be.
pub(super) struct Walked {
    pub(super) chain: Chain,
    /// Bytes of whole lines.
    pub(super) bytes: u64,
    /// Bytes of a last line without its end.
    pub(super) torn: usize,
}

/// Goes along the chain from its start and holds one line at a time.
pub(super) fn walk(mut reader: impl BufRead, mut each: impl FnMut(&Record)) -> Result<Walked, VerifyError> {
    let mut walked = Walked { chain: Chain::START, bytes: 0, torn: 0 };
    let mut line = Vec::new();
    loop {
        let number = walked.chain.seq + 1;
        let broken = |why| VerifyError::Broken(Broken { line: number, why });
        match next_line(&mut reader, &mut line)? {
            LineEnd::None => return Ok(walked),
            LineEnd::Torn => {
                walked.torn = line.len();
                return Ok(walked);
            }
            LineEnd::TooLong => return Err(broken(Why::TooLong)),
            LineEnd::Whole => {}
        }
        match walked.chain.follow(&line) {
            Ok(record) => each(&record),
            Err(Why::Missing { first, last }) => {
                let why = match behind(&mut reader, first)? {
                    Some(lines) => Why::Moved { seq: last + 1, elsewhere: number + lines },
                    None => Why::Missing { first, last },
                };
                return Err(broken(why));
            }
            Err(why) => return Err(broken(why)),
        }
        walked.bytes += line.len() as u64 + 1;
    }
}

/// How many lines further an entry stands.
fn behind(reader: &mut impl BufRead, wanted: u64) -> io::Result<Option<u64>> {
    let mut line = Vec::new();
    for lines in 1.. {
        match next_line(reader, &mut line)? {
            LineEnd::Whole if Parts::of(&line).is_ok_and(|parts| parts.seq == wanted) => {
                return Ok(Some(lines));
            }
            LineEnd::Whole => {}
            LineEnd::None | LineEnd::Torn | LineEnd::TooLong => break,
        }
    }
    Ok(None)
}
