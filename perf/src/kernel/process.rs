//! Memory of processes: another's, and this one's heap.

use std::io::IoSliceMut;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// Copies what lies at `address` in process `pid`, as one range.
pub(crate) fn copy(pid: i32, address: u64, into: &mut [u8]) -> Result<(), String> {
    let base = usize::try_from(address).map_err(|error| error.to_string())?;
    let bytes = into.len();
    let remote = [RemoteIoVec { base, len: bytes }];
    match process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(into)], &remote) {
        Ok(count) if count == bytes => Ok(()),
        Ok(count) => Err(format!("process_vm_readv: {count} bytes of {bytes}")),
        Err(error) => Err(format!("process_vm_readv: {error}")),
    }
}

/// Gives the kernel back what this process's heap holds and doesn't use, so that growth shows from here on.
pub(crate) fn give_back_free_memory() {
    // SAFETY: takes a number and touches nothing that is allocated.
    let _was_any = unsafe { libc::malloc_trim(0) };
}
