//! Launches and kills workers, then keeps many alive at once, and says what is left: descriptors, child processes,
//! control groups, mounts, memory. Fails if anything is.
//!
//! `cargo run --release -p tests --bin soak -- [LAUNCHES] [ALIVE]`; 10,000 and 1,000 if nothing is said.

#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use bulkhead_node::image::IMAGES;
use sandbox_os::cgroup::Groups;
use sandbox_os::{LaunchedWorker, Launcher, Program};

/// Memory of all workers, and of one.
const ALL_BYTES: u64 = 16 << 30;
const WORKER_BYTES: u64 = 256 << 20;
/// Memory that this process may have more at the end than at the start, for what its allocator keeps.
const SLACK_BYTES: u64 = 16 << 20;

/// What launches use up.
#[derive(Debug)]
struct Used {
    descriptors: usize,
    children: usize,
    groups: usize,
    mounts: usize,
    resident_bytes: u64,
}

impl Used {
    fn now(groups: Option<&Groups>) -> Self {
        let entries = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let children = tasks.map(|task| text(&task.path().join("children").to_string_lossy()));
        let directories = groups.into_iter().flat_map(Groups::directories);
        let folders = directories.flat_map(fs::read_dir).flatten().flatten();
        let pages = text("/proc/self/statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        Self {
            descriptors: entries("/proc/self/fd"),
            children: children.map(|all| all.split_whitespace().count()).sum(),
            groups: folders.filter(|entry| entry.path().is_dir()).count(),
            mounts: text("/proc/self/mountinfo").lines().count(),
            resident_bytes: pages.unwrap_or(0) * 4096,
        }
    }

    /// Whether nothing is left of what came after `base`.
    fn is_back_to(&self, base: &Self) -> bool {
        let Self { descriptors, children, groups, mounts, resident_bytes } = self;
        (*descriptors, *children, *groups, *mounts)
            == (base.descriptors, base.children, base.groups, base.mounts)
            && *resident_bytes <= base.resident_bytes + SLACK_BYTES
    }
}

fn launch(launcher: &Launcher, groups: Option<&Groups>) -> Result<LaunchedWorker, String> {
    let group = groups.map(|groups| groups.group(WORKER_BYTES)).transpose();
    let group = group.map_err(|error| format!("a control group: {error}"))?;
    launcher.launch(Program::Worker, false, group).map_err(|error| error.to_string())
}

fn soak(launches: usize, alive: usize) -> Result<(), String> {
    let launcher = Launcher::start(IMAGES.launcher, &[IMAGES.worker]).map_err(|error| error.to_string())?;
    let process = Groups::of_this_process().ok();
    let groups = process.as_ref().and_then(|process| process.sharing(ALL_BYTES).ok());
    let groups = groups.as_ref();
    // What is made once is not left over.
    drop(launch(&launcher, groups)?);
    let base = Used::now(groups);
    println!("at the start: {base:?}");
    let start = Instant::now();
    for _ in 0..launches {
        drop(launch(&launcher, groups)?);
    }
    let after = Used::now(groups);
    println!("after {launches} launches and kills, {:.1} s: {after:?}", start.elapsed().as_secs_f64());
    if !after.is_back_to(&base) {
        return Err("something is left of them".into());
    }
    let start = Instant::now();
    let workers = (0..alive).map(|_| launch(&launcher, groups)).collect::<Result<Vec<_>, _>>()?;
    let with_all = Used::now(groups);
    println!("with {alive} alive, {:.1} s: {with_all:?}", start.elapsed().as_secs_f64());
    if with_all.children < base.children + alive {
        return Err("not all of them live".into());
    }
    drop(workers);
    let after = Used::now(groups);
    println!("after their end: {after:?}");
    if after.is_back_to(&base) { Ok(()) } else { Err("something is left of them".into()) }
}

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let (launches, alive) = (numbers.next().unwrap_or(Ok(10_000)), numbers.next().unwrap_or(Ok(1_000)));
    let done = match (launches, alive) {
        (Ok(launches), Ok(alive)) => soak(launches, alive),
        _ => Err("two numbers are taken: launches, and workers alive at once".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("soak: {why}");
            ExitCode::FAILURE
        }
    }
}
