//! Which core runs what. A sleeping hand-off costs about 3 us on one core and 45 us across cores here
//! (`perf/`, bare round trip), so a worker runs on the core of the thread that calls it.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core that the calling thread runs on now.
#[must_use]
pub fn current_core() -> usize {
    rustix::thread::sched_getcpu()
}

/// Puts a process's only thread on one core. About 0.3 us.
///
/// # Errors
/// The kernel's: `EPERM` without CAP_SYS_NICE on a process of another user.
pub fn pin(pid: Pid, core: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(Some(pid), &set)?)
}

/// Puts the calling thread on one core.
///
/// # Errors
/// The kernel's.
pub fn pin_this_thread(core: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// The cores that the calling thread may use.
#[must_use]
pub fn cores() -> Vec<usize> {
    sched_getaffinity(None)
        .map(|set| (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
        .unwrap_or_else(|_| vec![0])
}
