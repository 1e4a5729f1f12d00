//! What the kernel says of a worker while it serves. (Attacks from inside come with the hostile worker.)

use std::fs;

use crate::drun::{FIRST, Running, Script};
use crate::processes::{serving_workers, status, wait_for_busy_worker};

/// A node with two canisters, one of them in the middle of an endless message; its worker, and the other.
fn serving() -> (Running, u32, u32) {
    let mut script = Script::new();
    script.install(FIRST, "c/counter.wasm", ());
    let other = script.create();
    let installed = script.install(other, "c/stress.wasm", ());
    script.update(other, "spin_update", ());
    let mut running = script.start("sandboxed");
    running.wait_for(installed);
    let busy = wait_for_busy_worker(running.process());
    let idle = serving_workers(running.process()).into_iter().find(|pid| *pid != busy);
    (running, busy, idle.expect("the counter has a worker of its own"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_serving_worker_has_three_filters_no_capability_and_one_thread() {
    let (_running, busy, idle) = serving();
    for worker in [busy, idle] {
        let expected = [
            ("Seccomp", "2"),
            ("Seccomp_filters", "3"),
            ("NoNewPrivs", "1"),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("Threads", "1"),
        ];
        for (field, value) in expected {
            assert_eq!(status(worker, field).as_deref(), Some(value), "{field} of worker {worker}");
        }
    }
}

#[test]
fn a_worker_has_one_descriptor_no_environment_and_an_empty_root() {
    // As an ordinary user nobody may look into a worker, not even its node: there is nothing to see here.
    if !is_root() {
        return;
    }
    let (_running, busy, idle) = serving();
    for worker in [busy, idle] {
        let files: Vec<_> = fs::read_dir(format!("/proc/{worker}/fd"))
            .expect("root may look")
            .map(|entry| fs::read_link(entry.expect("an entry").path()).expect("a link"))
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert!(files[0].to_string_lossy().starts_with("socket:"), "{files:?}");
        let environment = fs::read(format!("/proc/{worker}/environ")).expect("root may look");
        assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
        let root: Vec<_> = fs::read_dir(format!("/proc/{worker}/root")).expect("root may look").collect();
        assert!(root.is_empty(), "{root:?}");
    }
}

#[test]
fn no_memory_of_a_worker_is_writable_and_executable_or_writable_and_shared() {
    if !is_root() {
        return;
    }
    let (running, busy, idle) = serving();
    for worker in [busy, idle] {
        let maps = fs::read_to_string(format!("/proc/{worker}/maps")).expect("root may look");
        assert!(maps.lines().count() > 5, "{maps}");
        for line in maps.lines() {
            let rights = line.split_whitespace().nth(1).expect("rights");
            let writable = rights.contains('w');
            assert!(!(writable && rights.contains('x')), "{line}");
            assert!(!(writable && rights.contains('s')), "{line}");
        }
    }
    // Nothing of the node's own address space came along.
    let node = fs::read_to_string(format!("/proc/{}/maps", running.process())).expect("our own child");
    let program = node.lines().find_map(|line| line.split_whitespace().nth(5)).expect("the node's program");
    let maps = fs::read_to_string(format!("/proc/{busy}/maps")).expect("root may look");
    assert!(!maps.contains(program), "{program} is mapped in a worker");
}

#[test]
fn two_canisters_have_two_workers_with_users_and_namespaces_apart_from_the_node() {
    let (running, busy, idle) = serving();
    assert_ne!(busy, idle);
    if !is_root() {
        return;
    }
    let user = |pid| status(pid, "Uid").expect("it runs");
    let users = [user(running.process()), user(busy), user(idle)];
    assert!(users[0] != users[1] && users[1] != users[2] && users[0] != users[2], "{users:?}");
    for namespace in ["pid", "net", "ipc", "mnt", "uts"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("root may look");
        assert_ne!(of(busy), of(running.process()), "{namespace}");
        assert_ne!(of(busy), of(idle), "{namespace}");
    }
}

#[test]
fn a_worker_may_open_nothing_and_start_nothing() {
    let (_running, busy, _) = serving();
    let limits = fs::read_to_string(format!("/proc/{busy}/limits")).expect("anybody may look");
    for limit in ["Max processes", "Max core file size", "Max locked memory"] {
        let line = limits.lines().find(|line| line.starts_with(limit)).expect("a limit");
        let hard = line[limit.len()..].split_whitespace().nth(1).expect("a hard limit");
        assert_eq!(hard, "0", "{line}");
    }
}
