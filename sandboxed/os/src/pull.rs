//! The node copies pages out of a worker's memory. The worker takes no part, so it can't stall, shrink or
//! change them afterwards: the copy is made once, checked, and used.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// Bytes in a page.
pub const PAGE_BYTES: usize = 4096;
/// Ranges in one process_vm_readv(2): UIO_MAXIOV.
const RANGES_MAX: usize = 1024;

/// Why pages could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// An address isn't readable in the worker: it lied.
    #[error("the worker named an address that isn't mapped")]
    Unmapped,
    /// The kernel doesn't let this process read the worker's memory.
    #[error("no right to read the worker's memory (needs CAP_SYS_PTRACE, or the worker's user namespace)")]
    Refused,
    /// The worker is gone.
    #[error("the worker is gone")]
    Gone,
    /// Anything else.
    #[error("process_vm_readv: {0}")]
    Os(Errno),
}

/// Copies the page at each of `addresses` in process `pid` into the page of the same index in `into`.
///
/// # Errors
/// See [`PullError`]; `into` then holds an unspecified mix of old and new bytes.
pub fn pages(pid: i32, addresses: &[u64], into: &mut [&mut [u8; PAGE_BYTES]]) -> Result<(), PullError> {
    for (addresses, into) in addresses.chunks(RANGES_MAX).zip(into.chunks_mut(RANGES_MAX)) {
        let remote: Vec<RemoteIoVec> = addresses
            .iter()
            .map(|&address| {
                usize::try_from(address)
                    .map(|base| RemoteIoVec { base, len: PAGE_BYTES })
                    .map_err(|_| PullError::Unmapped)
            })
            .collect::<Result<_, _>>()?;
        let mut local: Vec<IoSliceMut<'_>> =
            into.iter_mut().map(|page| IoSliceMut::new(&mut page[..])).collect();
        match process_vm_readv(Pid::from_raw(pid), &mut local, &remote) {
            Ok(count) if count == remote.len() * PAGE_BYTES => {}
            // A short copy stops at the first range that can't be read (process_vm_readv(2)).
            Ok(_) | Err(Errno::EFAULT) => return Err(PullError::Unmapped),
            Err(Errno::EPERM) => return Err(PullError::Refused),
            Err(Errno::ESRCH) => return Err(PullError::Gone),
            Err(errno) => return Err(PullError::Os(errno)),
        }
    }
    Ok(())
}
