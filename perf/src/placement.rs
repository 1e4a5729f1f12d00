//! Which core runs what.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sandbox_os::tsc;

/// The calling thread on one core, until this is dropped.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    pub(crate) fn this_thread(core: usize) -> Result<Self, String> {
        let before = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
        pin(None, core)?;
        Ok(Self(before))
    }

    /// The same, for a thread that calls backends as the node's executors do: without its time-stamp counter where
    /// that pays. Before it takes turns with something else, or starts it, the counter has to be opened.
    pub(crate) fn executor(core: usize) -> Result<Self, String> {
        let pinned = Self::this_thread(core)?;
        tsc::may_be_shut();
        Ok(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        tsc::may_not_be_shut();
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
