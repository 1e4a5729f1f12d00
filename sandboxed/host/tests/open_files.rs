//! Descriptors run out. Its own program: the limit holds for a whole process.

#[path = "it/canister.rs"]
mod canister;
#[path = "it/images.rs"]
mod images;

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use execution::memory::limit;
use execution::{BackendError, Execution, Snapshot};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandbox_host::{SandboxOptions, Sandboxed};

use canister::{compile, of_module, principal, tried, update};

const LIMIT: u64 = 200;
const CANISTERS: u8 = 12;
const NEVER: Duration = Duration::from_secs(3600);

const ECHO: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (memory 1)
    (func (export "canister_update run")
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
        (call $reply)))"#;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Takes every descriptor that is left.
fn take_all() -> Vec<File> {
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken
}

fn run(sandbox: &Sandboxed, snapshot: &Snapshot) -> Result<(), BackendError> {
    match tried(sandbox, snapshot, &update(1, "run"))? {
        Execution::Finished(outcome) => assert!(outcome.effects.is_some(), "{:?}", outcome.ending),
        Execution::Paused(_) => panic!("nothing pauses here"),
    }
    Ok(())
}

#[track_caller]
fn is_named(result: Result<(), BackendError>) {
    match result {
        Err(BackendError::Exhausted { limit: limit::OPEN_FILES, .. }) => {}
        other => panic!("the limit was to be named, not: {other:?}"),
    }
}

#[test]
fn descriptors_run_out_and_come_back() {
    let module = compile(ECHO);
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: hard }).unwrap();
    let interval = Duration::from_millis(1);
    let start = |housekeeping| {
        let options = SandboxOptions { pool: 0, housekeeping, ..SandboxOptions::default() };
        Sandboxed::start(images::launchers(), options).unwrap()
    };

    // What canisters and workers cost; nobody else opens anything meanwhile.
    let quiet = start(NEVER);
    assert_eq!(quiet.status().workers_max, 50, "half of the descriptors, two for each");
    // The first launch comes after all that starting has closed.
    let canister =
        |number| Snapshot { canister: principal(number), ..of_module(Arc::clone(&module), 1 << 20) };
    let first = canister(0);
    run(&quiet, &first).unwrap();
    let before = open_files();
    let snapshots: Vec<Snapshot> = (1..=CANISTERS).map(canister).collect();
    let files = open_files();
    assert_eq!(files - before, usize::from(CANISTERS), "an arena each; the code is the same");
    for snapshot in &snapshots {
        run(&quiet, snapshot).unwrap();
    }
    assert_eq!(open_files() - files, 2 * usize::from(CANISTERS), "two for each worker");
    drop(quiet);
    let without = open_files();

    // Everything is taken; what idle workers hold is enough for one more, and the longest idle go.
    let with_ten = |housekeeping| {
        let sandbox = start(housekeeping);
        snapshots[..10].iter().for_each(|snapshot| run(&sandbox, snapshot).unwrap());
        sandbox
    };
    // Nobody else ends them meanwhile: what is ended holds its descriptors until it is reaped.
    let sandbox = with_ten(NEVER);
    let taken = take_all();
    run(&sandbox, &snapshots[10]).unwrap();
    assert!(sandbox.status().evictions.descriptors >= 8, "{:?}", sandbox.status().evictions);
    drop((sandbox, taken));

    // Whoever looks after them ends idle workers until some are left again, and then those are taken too.
    let sandbox = with_ten(interval);
    let mut all = vec![take_all()];
    let start = Instant::now();
    while !sandbox.pids().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "in vain: {:?}", sandbox.status());
        all.push(take_all());
        std::thread::park_timeout(interval);
    }
    all.push(take_all());
    is_named(run(&sandbox, &snapshots[11]));
    is_named(execution::memory::Arena::new(1 << 20).map(drop).map_err(BackendError::from));

    // Nothing was lost by it.
    drop(all);
    for snapshot in &snapshots {
        run(&sandbox, snapshot).unwrap();
    }
    assert_eq!(sandbox.status().violations, 0);
    drop(sandbox);
    assert_eq!(open_files(), without, "and nothing is left open");
}
