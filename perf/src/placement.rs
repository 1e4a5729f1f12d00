//! Which core runs what.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The calling thread on one core, until this is dropped.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    pub(crate) fn this_thread(core: usize) -> Result<Self, String> {
        let before = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
        pin(None, core)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The set was in force before; if it can't be again, the thread stays where it is.
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// Puts a process (or, with `None`, the calling thread) on one core.
pub(crate) fn pin(process: impl Into<Option<Pid>>, core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(process.into(), &set).map_err(|error| format!("sched_setaffinity: {error}"))
}
