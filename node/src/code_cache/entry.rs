//! A compiled module as the bytes of a file.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 32 | SHA-256 of all that follows |
//! | varies | the head: key, and the compiler's account of the module (postcard) |
//! | as the account says | native code, then the bytes of the data segments |
//!
//! Account and output are what a compiler process hands over, in the same encoding (`sandbox_protocol`), and are read
//! with the same checks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use execution::module::Interface;
use execution::{Module, ModuleHash};
use sandbox_protocol::{Claimed, Compiled, Malformed};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Fingerprint;

/// How a file begins: what it is, and the version of its layout.
pub const MAGIC: [u8; 8] = *b"bhcode\0\x01";
const CHECKSUM_BYTES: usize = 32;

/// What a file is of. Equal keys have equal contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// What else decides what the module is compiled to.
    pub fingerprint: Fingerprint,
    /// The module.
    pub module: ModuleHash,
}

/// Longest entry, bytes: more than a compiler may hand over (256 MiB of code, 100 MiB of data, and its account).
pub const BYTES_MAX: u64 = 512 << 20;

/// Why a file is not the entry that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// A directory, a symbolic link, a pipe.
    #[error("it is no regular file")]
    Kind,
    /// Somebody else may have written it.
    #[error("others than the node's user own it or may write it")]
    Rights,
    /// Longer than any.
    #[error("it is longer than {BYTES_MAX} bytes")]
    Length,
    /// Another beginning, or less than one.
    #[error("it doesn't begin as a file of compiled code does")]
    Magic,
    /// Not the bytes that were written, or not all of them.
    #[error("its checksum is wrong")]
    Checksum,
    /// What the checksum covers is no head.
    #[error("its head can't be decoded")]
    Head,
    /// A whole entry, of another module or another fingerprint.
    #[error("it is the entry of another key")]
    Key,
    /// What no compiler says.
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<Malformed> for BadEntry {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    fingerprint: [u8; 32],
    module: [u8; 32],
    #[serde(borrow)]
    compiled: Compiled<'a>,
}

/// The entry of a compiled module.
///
/// # Errors
/// The module's code can't be read back from its memory file, or there is no descriptor for that.
pub fn encode(fingerprint: Fingerprint, module: &Module) -> io::Result<Vec<u8>> {
    let Module { hash, wasm_bytes: _, interface, code } = module;
    let compiled = Compiled::new(interface, code.len());
    let head = Head { fingerprint: fingerprint.0, module: hash.0, compiled };
    let begun = [&MAGIC[..], &[0; CHECKSUM_BYTES]].concat();
    let mut bytes = postcard::to_extend(&head, begun).map_err(io::Error::other)?;
    let native_at = bytes.len();
    bytes.resize(native_at + code.len(), 0);
    File::from(code.file().try_clone_to_owned()?).read_exact_at(&mut bytes[native_at..], 0)?;
    for segment in &interface.data {
        bytes.extend_from_slice(&segment.bytes);
    }
    let (begun, covered) = bytes.split_at_mut(MAGIC.len() + CHECKSUM_BYTES);
    begun[MAGIC.len()..].copy_from_slice(&Sha256::digest(covered));
    Ok(bytes)
}

/// The account and the native code of the module that `bytes` should be the entry of. Takes memory for what the bytes
/// hold and never for what they claim.
///
/// # Errors
/// [`BadEntry`].
pub fn decode(key: Key, bytes: &[u8]) -> Result<(Interface, &[u8]), BadEntry> {
    let bytes = bytes.strip_prefix(&MAGIC).ok_or(BadEntry::Magic)?;
    let (checksum, covered) = bytes.split_first_chunk::<CHECKSUM_BYTES>().ok_or(BadEntry::Checksum)?;
    if Sha256::digest(covered)[..] != checksum[..] {
        return Err(BadEntry::Checksum);
    }
    let (head, output) = postcard::take_from_bytes::<Head<'_>>(covered).map_err(|_| BadEntry::Head)?;
    let Head { fingerprint, module, compiled } = head;
    if (Key { fingerprint: Fingerprint(fingerprint), module: ModuleHash(module) }) != key {
        return Err(BadEntry::Key);
    }
    Ok(Claimed::try_from(compiled)?.with(output)?)
}
