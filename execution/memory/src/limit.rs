//! What a node can run short of, by the names that an operator knows the limits by.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// Descriptors of the node's process.
pub const OPEN_FILES: &str = "open files (RLIMIT_NOFILE)";
/// Descriptors of the whole machine.
pub const SYSTEM_FILES: &str = "open files of the system (fs.file-max)";
/// Memory, or mappings of the node's process: mmap(2) says the same of both.
pub const MEMORY: &str = "memory or mappings (vm.max_map_count)";
/// Room for memory files.
pub const FILE_SPACE: &str = "space of memory files";

/// The limit that an error stands for, by the kernel's answer that is at the bottom of it.
#[must_use]
pub fn met(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let errno = causes.filter_map(|cause| {
        let errno = cause.downcast_ref::<Errno>().copied();
        errno.or_else(|| Errno::from_io_error(cause.downcast_ref::<io::Error>()?))
    });
    match errno.last()? {
        Errno::MFILE => Some(OPEN_FILES),
        Errno::NFILE => Some(SYSTEM_FILES),
        Errno::NOMEM => Some(MEMORY),
        Errno::NOSPC => Some(FILE_SPACE),
        _ => None,
    }
}
