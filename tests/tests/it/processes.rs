//! The processes of a running node, seen from outside as any administrator sees them.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take. A bound for a test that would hang, not a measure of anything.
const PATIENCE: Duration = Duration::from_secs(120);
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Filters of a worker that serves: SETUP, LOAD and RUN.
const FILTERS_OF_A_SERVING_WORKER: &str = "3";

/// Waits until `look` finds something.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "in vain: waited until {what}");
        thread::park_timeout(BETWEEN_LOOKS);
    }
}

/// A field of `/proc/PID/status`; nothing if the process is gone.
pub(crate) fn status(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// All descendants of a process.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut all: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = status(pid, "PPid").and_then(|parent| parent.parse().ok()) {
            all.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

/// The workers of the node `root` that serve a canister, in order of their ids.
pub(crate) fn serving_workers(root: u32) -> Vec<u32> {
    let mut workers = descendants(root);
    workers.retain(|pid| status(*pid, "Seccomp_filters").as_deref() == Some(FILTERS_OF_A_SERVING_WORKER));
    workers.sort_unstable();
    workers
}

/// Processor time that a process or a thread used, in clock ticks, and whether it runs now.
fn activity(stat: &str) -> Option<(u64, bool)> {
    let text = fs::read_to_string(stat).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(11)?.parse().ok()?, *fields.first()? == "R"))
}

/// What a process or a thread of this one does.
pub(crate) struct Activity {
    stat: String,
    first: Option<u64>,
}

impl Activity {
    pub(crate) fn of_process(pid: u32) -> Self {
        Self { stat: format!("/proc/{pid}/stat"), first: None }
    }

    pub(crate) fn of_thread(thread: rustix::process::Pid) -> Self {
        Self { stat: format!("/proc/self/task/{}/stat", thread.as_raw_nonzero()), first: None }
    }

    /// Whether it is in the middle of something long: it runs, and has done so since the first look.
    pub(crate) fn is_seen(&mut self) -> bool {
        let Some((ticks, running)) = activity(&self.stat) else { return false };
        let first = *self.first.get_or_insert(ticks);
        running && ticks >= first + 2
    }
}

/// Waits until a worker of the node is in the middle of a message: it runs and its processor time grows.
#[track_caller]
pub(crate) fn wait_for_busy_worker(root: u32) -> u32 {
    let mut seen: BTreeMap<u32, Activity> = BTreeMap::new();
    wait_until("a worker runs a message", || {
        let busy = |pid: &u32| seen.entry(*pid).or_insert_with(|| Activity::of_process(*pid)).is_seen();
        serving_workers(root).into_iter().find(busy)
    })
}

/// Kills a process with SIGKILL, and waits until it is gone or only its parent's to bury. Whether it was
/// still there to be killed.
#[track_caller]
pub(crate) fn kill(pid: u32) -> bool {
    let process = rustix::process::Pid::from_raw(pid.cast_signed()).expect("not 0");
    match rustix::process::kill_process(process, rustix::process::Signal::KILL) {
        Ok(()) => {
            wait_until_gone(pid);
            true
        }
        Err(rustix::io::Errno::SRCH) => false,
        Err(error) => panic!("process {pid} can't be killed: {error}"),
    }
}

/// Waits until a process is gone or only its parent's to bury.
#[track_caller]
pub(crate) fn wait_until_gone(pid: u32) {
    wait_until("the process is gone", || match status(pid, "State") {
        None => Some(()),
        Some(state) => state.starts_with(['Z', 'X']).then_some(()),
    });
}
