//! The audit log: who changed what about the rollout, when and why, so that a change of the log itself shows.
//!
//! JSON Lines, an object a line, in the order in which things were done. The last key of each is `hash`: the line is
//! BODY and `,"hash":"HEX"}`, where HEX is the SHA-256 of BODY's bytes in lower case. BODY begins with
//! `{"seq":N,"prev":"HEX",`: N counts lines from one, `prev` is the line before's hash, 64 zeros in the first line.
//! So nobody can change, remove, insert or move a line without making all hashes after it anew. Whoever does that, or
//! cuts lines off the end, is found by a hash that was noted elsewhere. This checks a log without this program:
//!
//! ```python
//! import hashlib, json, sys
//! number, prev = 0, "0" * 64
//! for number, line in enumerate(open(sys.argv[1], "rb"), 1):
//!     body, key, digest, end = line[:-76], line[-76:-67], line[-67:-3], line[-3:]
//!     assert (key, end) == (b',"hash":"', b'"}\n'), f"line {number}: no hash"
//!     assert hashlib.sha256(body).hexdigest() == digest.decode(), f"line {number}: changed"
//!     entry = json.loads(line)
//!     assert (entry["seq"], entry["prev"]) == (number, prev), f"line {number}: not the next one"
//!     prev = entry["hash"]
//! print(number, "entries, last hash", prev)
//! ```
//!
//! An entry is on the disk before [`Audit::append`] returns. A process that is killed in a write leaves a last line
//! without its end, which was never acknowledged, and which the next [`Audit::open`] cuts off.

mod broken;
mod chain;
mod entry;
mod file;
mod lines;
mod read;

pub use broken::{Broken, VerifyError, Why};
pub use chain::LineHash;
pub use entry::{Entry, Record, Source};
pub use file::{Audit, AuditError, Opened, Written};
pub use read::{Verified, last_seq, open_to_read, read_after, verify};

/// The log's name in a state directory.
pub const FILE_NAME: &str = "audit.jsonl";
/// Largest log, bytes: a thousand entries of 1 KiB a day fill it in three years. Nothing is appended beyond it.
pub const AUDIT_BYTES_MAX: u64 = 1 << 30;
/// Longest line that is read, with its line feed, bytes. Those written are shorter: their texts are bounded.
pub const LINE_BYTES_MAX: usize = 256 << 10;
/// Longest text other than a reason, bytes as they stand in the line.
pub const TEXT_BYTES_MAX: usize = 512;
/// Longest reason, bytes as they stand in the line.
pub const REASON_BYTES_MAX: usize = 1 << 10;
/// Most details of an entry.
pub const DETAILS_MAX: usize = 100;
/// Most bytes of lines that [`read_after`] gives at once, unless the first one alone is longer.
pub const READ_BYTES_MAX: usize = 4 << 20;
