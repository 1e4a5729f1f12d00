//! What the kernel does by itself, without Bulkhead: mappings of memory files, faults, page map scans, and
//! reads of another process's memory; and code mapped from a file. Peers and limits of the benchmarks are made of
//! these. All unsafe code of this crate is here.

#![expect(unsafe_code, reason = "mappings, signal handlers, native code and ioctl(2) have no safe interface")]

mod code;
mod fault;
mod mapping;
mod pagemap;
mod process;
mod turns;

pub(crate) use code::map_code;
pub(crate) use fault::WriteFaults;
pub(crate) use mapping::{Mapping, MemoryFile};
pub(crate) use pagemap::{PageMap, Pages, WriteProtection};
pub(crate) use process::{copy, give_back_free_memory, shut_off_clock_and_speculation};
pub(crate) use turns::Turns;

/// Bytes in a page.
pub(crate) const PAGE_BYTES: usize = 4096;

/// The result of a call that says `-1` on failure.
fn checked(what: &str, result: i32) -> Result<i32, String> {
    if result < 0 { Err(format!("{what}: {}", std::io::Error::last_os_error())) } else { Ok(result) }
}
