//! What the running program may do.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::program::bulkhead;

/// Longest wait for anything that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// CAP_KILL, CAP_SYS_PTRACE and CAP_SYS_NICE (linux/capability.h).
const NEEDED: u64 = 1 << 5 | 1 << 19 | 1 << 23;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn status(of: &str, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{of}/status")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
}

fn bits(of: &str, field: &str) -> Option<u64> {
    u64::from_str_radix(&status(of, field)?, 16).ok()
}

/// Processes whose parent is `pid`, with their names.
fn children(pid: u32) -> Vec<(String, String)> {
    let all = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|other| status(other, "PPid:") == Some(pid.to_string()))
        .filter_map(|other| Some((status(&other, "Name:")?, other)))
        .collect()
}

#[test]
fn a_node_keeps_three_capabilities_in_all_its_threads_and_its_launchers_keep_what_launching_takes() {
    let demo = bulkhead()
        .args(["demo", "--quick"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let demo = Running(demo);
    let pid = demo.0.id();
    let start = Instant::now();
    // The launchers, and workers of theirs: the node is at work.
    let children = loop {
        let children = children(pid);
        if children.len() > 3 {
            break children;
        }
        assert!(start.elapsed() < PATIENCE, "no workers: {children:?}");
        std::thread::yield_now();
    };
    let held = bits("self", "CapPrm:").expect("/proc is mounted");
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
        let thread = format!("{pid}/task/{}", thread.file_name().display());
        // One that has ended meanwhile holds nothing.
        let Some(effective) = bits(&thread, "CapEff:") else { continue };
        assert_eq!(effective, held & NEEDED, "of thread {thread}");
        assert_eq!(bits(&thread, "CapPrm:"), Some(effective));
        assert_eq!(status(&thread, "NoNewPrivs:").as_deref(), Some("1"));
    }
    // CAP_KILL, SETGID, SETUID, SETPCAP, SYS_CHROOT, SYS_PTRACE, SYS_ADMIN.
    const LAUNCHING: u64 = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 18 | 1 << 19 | 1 << 21;
    // A worker that is just being launched has a launcher's until it gives them up.
    let effective: Vec<u64> = children.iter().filter_map(|(_, child)| bits(child, "CapEff:")).collect();
    assert!(effective.iter().all(|bits| [0, held & LAUNCHING].contains(bits)), "{effective:?}");
    let launchers = effective.iter().filter(|bits| **bits == held & LAUNCHING);
    assert!(launchers.count() >= 2, "one to ask, one in reserve: {effective:?}");
    let workers = children.iter().filter(|(name, _)| name == "worker");
    assert!(workers.filter_map(|(_, worker)| bits(worker, "CapEff:")).all(|bits| bits == 0));
    // Made before the right to make them was given up, where this machine lets root make any.
    if held & NEEDED == NEEDED && sandbox_os::cgroup::Groups::of_this_process().is_ok() {
        let grouped = |(_, child): &&(String, String)| {
            let groups = std::fs::read_to_string(format!("/proc/{child}/cgroup")).unwrap_or_default();
            groups.contains(&format!("/bulkhead-{pid}-0/"))
        };
        assert!(children.iter().any(|child| grouped(&child)), "no worker has a control group");
    }
    // An undumpable process's files are root's; and nothing of it is ever written to a core file.
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("the kernel says");
    assert!(core.split_whitespace().skip(4).take(2).eq(["0", "0"]), "{core}");
}
