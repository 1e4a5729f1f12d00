//! What the node gives up once its launchers are started.

use std::io;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::launch::on_lasting_thread;

/// Capabilities that the node keeps of those that it has: to read the memory and the maps of workers under other
/// users, to end them, and to choose their core (design decision 4).
pub const NEEDED: CapabilitySet =
    CapabilitySet::SYS_PTRACE.union(CapabilitySet::KILL).union(CapabilitySet::SYS_NICE);

/// Capabilities that a launcher keeps of those that it has: for namespaces and mounts, or chroot in their place, for users
/// and groups, for dropping capabilities themselves, and for reading a worker's filters, or ending one
/// that doesn't stand still for it.
const LAUNCHING: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_PTRACE);

/// In the launcher: gives up all capabilities but those that launching takes.
pub(crate) fn keep_for_launching() -> Result<(), Errno> {
    keep(LAUNCHING)
}

fn keep(kept: CapabilitySet) -> Result<(), Errno> {
    let kept = capabilities(None)?.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}

/// Gives up all capabilities but [`NEEDED`], for good: none comes back by exec. From now on no core file shows this
/// process's memory, and no other process of its user may look into it.
///
/// Call it when the launchers are started, and before there are other threads: a thread keeps what it was started with.
///
/// # Errors
/// The kernel's; or there are other threads.
pub fn give_up() -> io::Result<()> {
    undumpable()?;
    on_lasting_thread(reduce)??;
    reduce()?;
    for task in std::fs::read_dir("/proc/self/task")? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        if effective.is_none_or(|bits| bits & !NEEDED.bits() != 0) {
            return Err(io::Error::other("a thread was started before privileges were given up"));
        }
    }
    Ok(())
}

/// For the calling thread.
fn reduce() -> io::Result<()> {
    // SECBIT_NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, locked (capabilities(7)).
    const SECUREBITS: libc::c_ulong = 0b1110_1111 & !0b1_0000;
    let held = capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..64 {
            let kept = NEEDED.bits() & 1 << number != 0;
            // SAFETY: prctl with constant arguments. Past the last one the kernel knows: EINVAL.
            let _unknown = (!kept).then(|| unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) });
        }
        // SAFETY: prctl with constant arguments.
        if unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    keep(NEEDED)?;
    // SAFETY: prctl with constant arguments.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn undumpable() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: prctl with constant arguments; a valid rlimit structure.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == -1
            || libc::setrlimit(libc::RLIMIT_CORE, &raw const none) == -1
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
