use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::program::{bulkhead, run};

#[test]
fn the_quick_demo_loses_nothing_and_ends_in_the_state_of_a_run_that_never_switched() {
    let folder = tempfile::tempdir().unwrap();
    let hlog = folder.path().join("latencies.hlog");
    let ran = run(bulkhead().args(["demo", "--quick", "--json", "--hlog"]).arg(&hlog));
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let messages = &value["messages"];
    assert_eq!((&messages["sent"], &messages["answered"]), (&3000.into(), &3000.into()));
    assert_eq!((&messages["lost"], &messages["applied_twice"]), (&0.into(), &0.into()));
    assert_eq!(value["state_root"], value["state_root_never_switched"]);
    let modes: Vec<_> = value["switches"].as_array().unwrap().iter().map(|switch| &switch["to"]).collect();
    assert_eq!(modes, ["shadow", "sandboxed", "in-process"]);
    assert_eq!((&value["shadow"]["diverged"], &value["workers_killed"]), (&0.into(), &2.into()));
    let log = std::fs::read_to_string(&hlog).unwrap();
    assert!(log.contains("Tag=sandboxed.update"), "{log}");
    // Two intervals a second, so the two phases in-process don't share one.
    assert!(log.matches("Tag=in-process.update").count() > 1, "{log}");
    let shadow =
        ["--control", "shadow-control", "--candidate", "shadow-candidate", "--block", "1s", "--json"];
    let ran = run(bulkhead().arg("compare").arg(&hlog).args(shadow));
    assert_eq!(ran.code, Some(5), "{}{}", ran.stdout, ran.stderr);
    let compared: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(compared["series"][0]["blocks"].as_u64() < Some(10), "{compared}");
    assert_eq!(compared["verdict"], "INCONCLUSIVE");
}

#[test]
fn ctrl_c_ends_the_demo_with_a_summary_and_no_process_left() {
    let mut demo = bulkhead()
        .arg("demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(demo.stdout.take().unwrap());
    wait_for(&mut lines, "first message committed in mode shadow");
    let children = children_of(demo.id());
    assert!(!children.is_empty(), "a launcher runs");
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let status = demo.wait().unwrap();
    assert!(rest.contains("lost 0, applied twice 0"), "{rest}");
    assert!(rest.contains("FAILED: stopped before the end"), "{rest}");
    assert_eq!(status.code(), Some(1));
    for child in children {
        let mut ended = [PollFd::new(&child, PollFlags::IN)];
        let ready = poll(&mut ended, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
        assert_eq!(ready, 1, "a process of the demo outlived it by 10 s");
    }
}

fn wait_for(lines: &mut impl BufRead, part: &str) {
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the demo ended before it said: {part}");
    }
}

/// The processes that the threads of `parent` have started and not reaped.
fn children_of(parent: u32) -> Vec<OwnedFd> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let pids: Vec<Pid> = tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default())
        .flat_map(|children| {
            children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .filter_map(Pid::from_raw)
        .collect();
    pids.into_iter().filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect()
}
