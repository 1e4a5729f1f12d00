//! Processes: another's memory, this one's heap, and what this one may not use.

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

/// Shuts off what the product shuts off in a worker because it would tell others' secrets: the time-stamp counter,
/// and speculation past stores and past indirect branches, as far as the machine can. The kernel then does more at
/// each switch to and from this process.
pub(crate) fn shut_off_clock_and_speculation() {
    // PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH (linux/prctl.h).
    const SPECULATION: [libc::c_ulong; 3] = [0, 1, 2];
    // SAFETY: prctl with constant arguments.
    unsafe {
        for kind in SPECULATION {
            libc::prctl(libc::PR_SET_SPECULATION_CTRL, kind, libc::PR_SPEC_FORCE_DISABLE, 0, 0);
        }
        libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV, 0, 0, 0);
    }
}
