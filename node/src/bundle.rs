//! A difference between the modes in a file, with all that it takes to see it again: the module, the memory before the
//! message, the message, and what each mode gave.
//!
//! A bundle is the magic number, the version of the format (4 bytes, little endian) and a gzip stream: the length of the
//! head (4 bytes), the head (a postcard `wire::Head`), and the pages of each memory that the head names, each with its
//! index (8 bytes). It holds a canister's memory: it is its owner's to read, and nobody else's. Nothing of a bundle is
//! trusted; every length is bounded before anything is allocated for it.

mod earlier;
mod read;
pub mod replay;
mod wire;
mod write;

use std::io;

pub(crate) use earlier::{Before, Earlier, Kind};
pub use read::Bundle;
pub use wire::Gave;
pub(crate) use write::Bundles;

/// The first bytes of every bundle.
pub const MAGIC: [u8; 8] = *b"\x89BLKHDIV";
/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;
/// How a bundle's file name ends.
const SUFFIX: &str = ".bundle";
/// Longest head, bytes: the largest module, and a message with all that it may ask for.
const HEAD_BYTES_MAX: usize = 128 << 20;
/// Pages in one bundle: 256 MiB. A canister with more written is not kept.
const PAGES_MAX: usize = 65_536;

/// Why a bundle can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Reading failed, or it ends early, or what it is packed in is damaged.
    #[error("could not read it: {0}")]
    Read(#[from] io::Error),
    /// It isn't a bundle at all.
    #[error("it is no bundle of a difference")]
    Foreign,
    /// One of another version.
    #[error("it has format {0}, and this program reads format {VERSION}")]
    Version(u32),
    /// Something that no node writes.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It can't be run here.
    #[error("{0}")]
    Unfit(String),
}
