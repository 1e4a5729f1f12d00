//! The node copies pages out of a worker's memory. The worker takes no part, so it can't stall, shrink or
//! change them afterwards: the copy is made once, checked, and used.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// Ranges in one process_vm_readv(2): UIO_MAXIOV.
const RANGES_MAX: usize = 1024;
/// Bytes in one process_vm_readv(2): below what one call of the kernel's copies (MAX_RW_COUNT).
const CALL_BYTES_MAX: usize = 1 << 30;

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

/// Bytes of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where they begin there.
    pub address: u64,
    /// How many.
    pub bytes: usize,
}

/// Copies what lies in `from` in process `pid` into `into`, one after the other. Both have as many bytes.
///
/// # Errors
/// See [`PullError`]; `into` then holds an unspecified mix of old and new bytes.
pub fn copy(pid: i32, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError> {
    let mut from = from.iter().copied().filter(|span| span.bytes > 0);
    let mut into = into.into_iter().filter(|range| !range.is_empty());
    let (mut there, mut here) = (from.next(), into.next());
    while there.is_some() && here.is_some() {
        // As much as one call takes.
        let mut remote: Vec<RemoteIoVec> = Vec::new();
        let mut local: Vec<IoSliceMut<'_>> = Vec::new();
        let mut total = 0;
        while remote.len() < RANGES_MAX && local.len() < RANGES_MAX && total < CALL_BYTES_MAX {
            let (Some(span), Some(range)) = (there.take(), here.take()) else { break };
            let bytes = span.bytes.min(range.len()).min(CALL_BYTES_MAX - total);
            let base = usize::try_from(span.address).map_err(|_| PullError::Unmapped)?;
            match remote.last_mut() {
                Some(last) if last.base.checked_add(last.len) == Some(base) => last.len += bytes,
                _ => remote.push(RemoteIoVec { base, len: bytes }),
            }
            let (now, later) = range.split_at_mut(bytes);
            local.push(IoSliceMut::new(now));
            total += bytes;
            let address = span.address.checked_add(bytes as u64).ok_or(PullError::Unmapped)?;
            there = Some(Span { address, bytes: span.bytes - bytes }).filter(|span| span.bytes > 0);
            here = Some(later).filter(|range| !range.is_empty());
            there = there.or_else(|| from.next());
            here = here.or_else(|| into.next());
        }
        match process_vm_readv(Pid::from_raw(pid), &mut local, &remote) {
            Ok(count) if count == total => {}
            // A short copy stops at the first range that can't be read (process_vm_readv(2)).
            Ok(_) | Err(Errno::EFAULT) => return Err(PullError::Unmapped),
            Err(Errno::EPERM) => return Err(PullError::Refused),
            Err(Errno::ESRCH) => return Err(PullError::Gone),
            Err(errno) => return Err(PullError::Os(errno)),
        }
    }
    Ok(())
}
