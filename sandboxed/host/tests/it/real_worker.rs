//! The real launcher and the real worker, built as the node's build script builds them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use execution::memory::{Memory, PageVersion};
use execution::{
    Backend, BackendError, Batch, EntryPoint, Execution, GlobalValue, Invocation, Limits, Outcome, Snapshot,
};
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::report::{Need, Report};
use sandbox_host::{Evictions, Role, SandboxOptions, Sandboxed};

use crate::canister::{compile, invocation, of_module, principal, update};
use crate::images::launchers;

fn sandbox() -> Sandboxed {
    Sandboxed::start(launchers(), SandboxOptions::default()).unwrap()
}

/// Counts in a global, in heap pages 0 and 5, and in stable memory; traps and grows on demand.
pub(crate) const COUNTER: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "debug_print" (func $print (param i32 i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
    (import "ic0" "trap" (func $trap (param i32 i32)))
    (memory 1 16)
    (data (i32.const 100) "hello")
    (global $n (mut i32) (i32.const 0))
    (func $init (export "canister_init") (drop (call $grow (i64.const 2))))
    (func $inc
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store (i32.const 0) (global.get $n))
        (i32.store (i32.const 20480) (i32.mul (global.get $n) (i32.const 3)))
        (call $write (i64.const 5000) (i64.const 0) (i64.const 4)))
    (func (export "canister_update inc")
        (call $inc)
        (call $print (i32.const 100) (i32.const 5))
        (call $append (i32.const 0) (i32.const 4))
        (call $reply))
    (func (export "canister_update inc_then_trap")
        (call $inc)
        (drop (memory.grow (i32.const 2)))
        (call $trap (i32.const 100) (i32.const 5)))
    (func (export "canister_update unreachable") (call $inc) (unreachable))
    (func $recurse (param i32) (result i32)
        (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
    (func (export "canister_update recurse") (drop (call $recurse (i32.const 0))))
    (func (export "canister_update divide") (call $inc)
        (i32.store (i32.const 0) (i32.div_u (i32.const 1) (i32.load (i32.const 60000)))))
    (func (export "canister_update outside") (call $inc) (i32.store (i32.const -8) (i32.const 1)))
    (func (export "canister_update spin") (loop $on (br $on)))
    (func (export "canister_update grow")
        (drop (memory.grow (i32.const 1)))
        (i32.store (i32.const 131000) (i32.const 7))
        (call $reply))
    (func (export "canister_update nop") (call $reply))
    (func (export "canister_query get")
        (call $read (i64.const 8) (i64.const 5000) (i64.const 4))
        (call $append (i32.const 0) (i32.const 12))
        (call $reply)))"#;

pub(crate) fn counter() -> Snapshot {
    of_module(compile(COUNTER), 64 << 20)
}

/// The snapshot with an outcome applied, as a commit does it.
pub(crate) fn commit(snapshot: &Snapshot, outcome: &Outcome) -> Snapshot {
    let Some(effects) = &outcome.effects else { return snapshot.clone() };
    let delta = &effects.memory;
    let with = |memory: &Memory, size: Option<u64>, pages: &[(u64, PageVersion)]| {
        memory.with(size.unwrap_or(memory.wasm_pages()), pages.iter().cloned())
    };
    Snapshot {
        heap: with(&snapshot.heap, delta.heap_pages, &delta.heap),
        stable: with(&snapshot.stable, delta.stable_pages, &delta.stable),
        globals: Arc::clone(&effects.globals),
        ..snapshot.clone()
    }
}

pub(crate) fn execute(backend: &dyn Backend, snapshot: &Snapshot, invocation: &Invocation) -> Outcome {
    let mut execution = backend.execute(snapshot, invocation).unwrap();
    loop {
        match execution {
            Execution::Finished(outcome) => return outcome,
            Execution::Paused(run) => execution = run.resume(invocation.slice).unwrap(),
        }
    }
}

/// Counts in a global and in heap page 2; traps and pauses on demand.
const TALLY: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "canister_cycle_balance128" (func $balance (param i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (memory 16)
    (global $n (mut i32) (i32.const 0))
    (func (export "canister_update wide") (local $page i32)
        (loop $on
            (local.set $page (i32.add (local.get $page) (i32.const 1)))
            (i32.store (i32.mul (local.get $page) (i32.const 4096)) (i32.const 1))
            (br_if $on (i32.lt_u (local.get $page) (i32.const 40))))
        (call $reply))
    (func (export "canister_update verbose")
        (call $append (i32.const 0) (i32.const 100000))
        (call $reply))
    (func $count
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store (i32.const 9000) (i32.add (i32.load (i32.const 9000)) (i32.const 1))))
    (func (export "canister_update count")
        (call $count)
        (call $balance (i32.const 9004))
        (call $append (i32.const 9000) (i32.const 20))
        (call $reply))
    (func (export "canister_update trap") (call $count) (unreachable))
    (func (export "canister_update grow") (drop (call $grow (i64.const 1))) (call $reply))
    (func $keep
        (call $read (i64.const 9000) (i64.const 5000) (i64.const 4))
        (call $count)
        (call $write (i64.const 20000) (i64.const 9000) (i64.const 4))
        (call $write (i64.const 5000) (i64.const 9000) (i64.const 4)))
    (func (export "canister_update keep")
        (call $keep)
        (call $read (i64.const 9004) (i64.const 20000) (i64.const 4))
        (call $append (i32.const 9000) (i32.const 8))
        (call $reply))
    (func $fill (param $heap i32) (param $stable i32)
        (loop $on
            (i32.store (i32.mul (local.get $heap) (i32.const 4096)) (i32.const 1))
            (br_if $on (local.tee $heap (i32.sub (local.get $heap) (i32.const 1)))))
        (loop $on
            (call $write
                (i64.extend_i32_u (i32.mul (local.get $stable) (i32.const 4096))) (i64.const 9000) (i64.const 1))
            (br_if $on (local.tee $stable (i32.sub (local.get $stable) (i32.const 1)))))
        (call $reply))
    (func (export "canister_update both") (call $fill (i32.const 20) (i32.const 20)))
    (func (export "canister_update more") (call $fill (i32.const 40) (i32.const 30)))
    (func (export "canister_update keep_trap") (call $keep) (unreachable))
    (func (export "canister_update long") (local $i i32)
        (call $count)
        (loop $on
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $on (i32.lt_u (local.get $i) (i32.const 4000000))))
        (call $append (i32.const 9000) (i32.const 4))
        (call $reply)))"#;

/// Runs `methods` of a fresh canister in order, each on the state that the one before left: taken out of batches where
/// the backend has run it. The outcomes, and how many came out of a batch.
fn in_order(backend: &dyn Backend, methods: &[&str]) -> (Vec<Outcome>, usize) {
    let mut state = of_module(compile(TALLY), 64 << 20);
    let mut queue: VecDeque<Invocation> = (1..)
        .zip(methods)
        .map(|(id, method)| Invocation { slice: 9_000_000, ..update(id, method) })
        .collect();
    let (mut outcomes, mut taken) = (Vec::new(), 0);
    let mut batch: Option<Box<dyn Batch>> = None;
    while let Some(invocation) = queue.pop_front() {
        let ahead = batch.as_mut().and_then(|batch| batch.next(&state, &invocation));
        taken += usize::from(ahead.is_some());
        let mut execution = match ahead {
            Some(execution) => execution.unwrap(),
            None => {
                drop(batch.take());
                let (execution, behind) =
                    backend.execute_batch(&state, &invocation, queue.make_contiguous()).unwrap();
                batch = behind;
                execution
            }
        };
        let outcome = loop {
            match execution {
                Execution::Finished(outcome) => break outcome,
                Execution::Paused(run) => execution = run.resume(invocation.slice).unwrap(),
            }
        };
        queue.iter_mut().for_each(|next| next.charge(false, outcome.instructions));
        state = commit(&state, &outcome);
        outcomes.push(outcome);
    }
    (outcomes, taken)
}

fn without_slots(outcome: &Outcome) -> (Outcome, Vec<(u64, Vec<u8>)>) {
    let mut outcome = outcome.clone();
    let memory =
        outcome.effects.as_mut().map(|effects| std::mem::take(&mut effects.memory)).unwrap_or_default();
    let pages = memory.heap.iter().chain(&memory.stable);
    (outcome, pages.map(|(page, version)| (*page, version.bytes().to_vec())).collect())
}

#[test]
fn a_batch_of_a_real_worker_comes_to_what_its_messages_come_to_one_by_one_in_process() {
    let in_process = InProcess::new(Engine::new().unwrap(), &InProcessOptions::default());
    let sandbox = sandbox();
    for (methods, from_batches) in [
        (&["count"; 20][..], 18),
        // Nothing follows a trap, and what it undid is what the one before left.
        (&["count", "count", "trap", "count", "count"], 3),
        (&["trap", "trap", "count"], 0),
        // What is in stable memory goes on too; a memory that grew ends a batch.
        (&["grow", "keep", "keep", "count", "keep", "keep_trap", "keep", "keep", "keep"], 6),
        // 20 and 20 pages, of 64 that a batch carries; 40 and 30 it doesn't carry.
        (&["grow", "grow", "both", "both", "both", "both"], 2),
        (&["grow", "grow", "more", "more", "more"], 0),
        // A pause ends a batch, and so do the instructions that it took.
        (&["count", "long", "count", "count"], 2),
        // 40 pages each, of 64 that a batch carries.
        (&["wide"; 4], 2),
        // 5 million instructions each, of 10.
        (&["verbose"; 4], 2),
    ] {
        let (expected, none) = in_order(&in_process, methods);
        assert_eq!(none, 0, "in-process runs one by one");
        let (found, taken) = in_order(&sandbox, methods);
        let [found, expected] =
            [found, expected].map(|all| all.iter().map(without_slots).collect::<Vec<_>>());
        assert_eq!(found, expected, "{methods:?}");
        assert_eq!(taken, from_batches, "{methods:?}");
    }
}

#[test]
fn what_was_run_ahead_and_discarded_leaves_nothing_in_heap_and_stable_memory() {
    let in_process = InProcess::new(Engine::new().unwrap(), &InProcessOptions::default());
    let sandbox = sandbox();
    let run = |backend: &dyn Backend| {
        let empty = of_module(compile(TALLY), 64 << 20);
        let mut state = commit(&empty, &execute(backend, &empty, &update(1, "grow")));
        let mut outcomes = Vec::new();
        for id in [10, 20, 30] {
            let behind = [update(id + 1, "keep"), update(id + 2, "keep")];
            let (execution, batch) = backend.execute_batch(&state, &update(id, "keep"), &behind).unwrap();
            let Execution::Finished(outcome) = execution else { panic!("it is short") };
            state = commit(&state, &outcome);
            outcomes.push(without_slots(&outcome));
            drop(batch);
        }
        outcomes
    };
    assert_eq!(run(&sandbox), run(&in_process));
    assert_eq!(sandbox.status().discarded, 6, "control: two were run ahead each time");
}

fn query(id: u64) -> Invocation {
    let arg = Arc::from([]);
    invocation(id, EntryPoint::Query { method: "get".into(), arg })
}

pub(crate) fn reply(outcome: &Outcome) -> Vec<u8> {
    match outcome.effects.as_ref().and_then(|effects| effects.answer.clone()) {
        Some(execution::Answer::Reply(data)) => data,
        other => panic!("a reply was due, not {other:?}: {:?}", outcome.ending),
    }
}

pub(crate) fn init(backend: &dyn Backend, snapshot: &Snapshot) -> Snapshot {
    let outcome = execute(backend, snapshot, &invocation(1, EntryPoint::Init { arg: Arc::from([]) }));
    commit(snapshot, &outcome)
}

/// An outcome with page contents in the place of page versions.
pub(crate) fn content(outcome: &Outcome) -> (Outcome, Vec<(u64, Vec<u8>)>) {
    let mut outcome = outcome.clone();
    let mut pages = Vec::new();
    if let Some(effects) = &mut outcome.effects {
        for list in [&mut effects.memory.heap, &mut effects.memory.stable] {
            pages.extend(list.drain(..).map(|(page, version)| (page, version.bytes().to_vec())));
        }
    }
    (outcome, pages)
}

/// Runs `work` where guest code fits on the stack.
pub(crate) fn on_large_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(execution::EXECUTOR_STACK_BYTES).spawn(work).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_canister_counts_across_messages_in_one_worker() {
    let sandbox = sandbox();
    let mut state = init(&sandbox, &counter());
    for n in 1_u32..=5 {
        let outcome = execute(&sandbox, &state, &update(u64::from(n) + 1, "inc"));
        assert_eq!(reply(&outcome), n.to_le_bytes());
        assert_eq!(outcome.logs[0].text, b"hello");
        state = commit(&state, &outcome);
    }
    let outcome = sandbox.query(&state, &query(100), None).unwrap();
    let expected = [5_u32.to_le_bytes(), *b"\0\0\0\0", 5_u32.to_le_bytes()].concat();
    assert_eq!(reply(&outcome), expected);
    assert_eq!(state.globals[..], [GlobalValue::I32(5)]);
    let roles: Vec<_> =
        sandbox.status().workers.iter().filter_map(|worker| worker.canister).map(|c| c.1).collect();
    assert_eq!(roles.len(), 2, "one worker for messages and one for queries: {roles:?}");
    assert!(roles.contains(&Role::Update) && roles.contains(&Role::Query));
}

#[test]
fn both_backends_give_the_same_outcomes() {
    on_large_stack(|| {
        let module = compile(COUNTER);
        let sandbox = sandbox();
        let in_process = InProcess::new(Engine::new().unwrap(), &InProcessOptions::default());
        let start = || of_module(Arc::clone(&module), 64 << 20);
        let mut states = [init(&sandbox, &start()), init(&in_process, &start())];
        let methods = [
            "inc",
            "inc_then_trap",
            "inc",
            "unreachable",
            "grow",
            "inc",
            "nop",
            "inc_then_trap",
            "spin",
            "inc",
            "none",
            "divide",
            "outside",
            "nop",
        ];
        for (id, method) in (2..).zip(methods) {
            let outcomes = [
                execute(&sandbox, &states[0], &update(id, method)),
                execute(&in_process, &states[1], &update(id, method)),
            ];
            assert_eq!(content(&outcomes[0]), content(&outcomes[1]), "{method}");
            states = [commit(&states[0], &outcomes[0]), commit(&states[1], &outcomes[1])];
        }
        let ids =
            [sandbox.query(&states[0], &query(50), None), in_process.query(&states[1], &query(50), None)];
        let [sandboxed, direct] = ids.map(Result::unwrap);
        assert_eq!(content(&sandboxed), content(&direct));
        assert_eq!(reply(&direct)[..4], 4_u32.to_le_bytes());
    });
}

#[test]
fn a_stack_overflow_is_the_same_trap_in_both_and_the_next_message_has_a_new_worker() {
    // Instructions are not compared here: the depth at overflow depends on the engine's own frames, which are
    // equal only in programs built alike (decision record 0002). The conformance suite compares them.
    on_large_stack(|| {
        let module = compile(COUNTER);
        let in_process = InProcess::new(Engine::new().unwrap(), &InProcessOptions::default());
        let sandbox = sandbox();
        let start = || of_module(Arc::clone(&module), 64 << 20);
        let states = [init(&sandbox, &start()), init(&in_process, &start())];
        let sandboxed = execute(&sandbox, &states[0], &update(2, "recurse"));
        let direct = execute(&in_process, &states[1], &update(2, "recurse"));
        assert_eq!((&sandboxed.ending, &sandboxed.logs), (&direct.ending, &direct.logs));
        assert!(
            matches!(&direct.ending, execution::Ending::Trapped(trap) if trap.text.contains("stack overflow"))
        );
        let pids = sandbox.pids();
        assert_eq!(reply(&execute(&sandbox, &states[0], &update(3, "inc"))), 1_u32.to_le_bytes());
        // Its last store may be on a page that nobody marked.
        assert_ne!(sandbox.pids(), pids);
    });
}

#[test]
fn a_killed_worker_costs_a_retry_and_nothing_else() {
    let sandbox = sandbox();
    let state = init(&sandbox, &counter());
    let outcome = execute(&sandbox, &state, &update(2, "inc"));
    let state = commit(&state, &outcome);
    let used = state.arena.bytes_used();
    let [pid] = sandbox.pids()[..] else { panic!("one worker serves") };
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let error = sandbox.execute(&state, &update(3, "inc")).unwrap_err();
    assert!(matches!(&error, BackendError::WorkerDied { how } if how.contains("SIGKILL")), "{error}");
    assert!(state.arena.bytes_used() <= used, "nothing stays staged");
    let outcome = execute(&sandbox, &state, &update(4, "inc"));
    assert_eq!(reply(&outcome), 2_u32.to_le_bytes());
    assert_ne!(sandbox.pids(), [pid]);
}

#[test]
fn an_arena_that_old_versions_fill_is_free_again_for_the_retry() {
    let sandbox = sandbox();
    let full = of_module(compile(COUNTER), 6 * 4096);
    // One page of data, then two heap pages and one stable page for each count.
    let first = init(&sandbox, &full);
    let second = commit(&first, &execute(&sandbox, &first, &update(2, "inc")));
    // The query worker keeps the versions of the second state while the third and fourth are made.
    sandbox.query(&second, &query(3), None).unwrap();
    drop((full, first));
    let third = match sandbox.execute(&second, &update(4, "inc")) {
        Ok(Execution::Finished(outcome)) => commit(&second, &outcome),
        other => panic!("{other:?}"),
    };
    drop(second);
    let error = sandbox.execute(&third, &update(5, "inc")).unwrap_err();
    assert!(matches!(error, BackendError::Exhausted { limit: "arena_bytes", .. }), "{error}");
    let outcome = execute(&sandbox, &third, &update(6, "inc"));
    assert_eq!(reply(&outcome), 3_u32.to_le_bytes());
}

#[test]
fn no_process_is_left_when_the_sandbox_is_dropped() {
    let sandbox = sandbox();
    init(&sandbox, &counter());
    let pids: Vec<i32> = sandbox.status().workers.iter().map(|worker| worker.pid).collect();
    assert!(!pids.is_empty());
    drop(sandbox);
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid}");
    }
}

#[test]
fn layers_are_reported_and_locks_are_in_force() {
    let sandbox = sandbox();
    init(&sandbox, &counter());
    assert!(!sandbox.status().layers.is_empty());
    let [pid] = sandbox.pids()[..] else { panic!("one worker serves") };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let filters = status.lines().find(|line| line.starts_with("Seccomp_filters:")).unwrap();
    assert!(filters.ends_with('3'), "SETUP, LOAD and RUN: {filters}");
}

#[test]
fn the_report_proves_each_required_layer_on_real_workers() {
    let report = Report::examine(&launchers());
    assert_eq!(report.refused, None);
    let missing: Vec<_> = report.missing(Need::Required).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let probe = |name: &str| report.layers.iter().find(|layer| layer.name == name).unwrap().probe.as_str();
    // Workers did it, and this is how they ended.
    assert_eq!(probe("seccomp: the LOAD list"), "a call outside it: killed by SIGSYS");
    assert_eq!(probe("seccomp: the RUN list"), "a call that only LOAD has: killed by SIGSYS");
    assert_eq!(probe("no new executable memory in RUN"), "mprotect to executable: killed by SIGSYS");
    assert!(probe("no time-stamp counter").starts_with("rdtsc: killed by "));
    assert!(!report.machine.is_empty());
}

#[test]
fn a_worker_that_spins_stands_behind_others_and_an_ended_one_is_named() {
    let sandbox = sandbox();
    let state = init(&sandbox, &counter());
    let [pid] = sandbox.pids()[..] else { panic!("one worker serves") };
    let place = || {
        let group = std::fs::read_to_string(format!("/proc/{pid}/autogroup")).unwrap_or_default();
        let process = rustix::process::getpriority_process(rustix::process::Pid::from_raw(pid)).unwrap_or(0);
        (group.contains("nice 5"), process == 5)
    };
    assert_eq!(place(), (false, false));
    std::thread::scope(|scope| {
        let spins = scope.spawn(|| {
            let long = Invocation { instructions_max: 1 << 50, slice: 1 << 50, ..update(2, "spin") };
            sandbox.execute(&state, &long).unwrap_err()
        });
        let start = std::time::Instant::now();
        while place() == (false, false) {
            assert!(start.elapsed() < Duration::from_secs(20), "it never stood behind others");
            std::thread::yield_now();
        }
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let error = spins.join().unwrap();
        assert!(matches!(&error, BackendError::WorkerDied { how } if how == "killed by SIGKILL"), "{error}");
    });
}

#[test]
fn a_full_table_evicts_the_worker_idle_for_longest() {
    let options = SandboxOptions { workers_max: 2, pool: 0, ..SandboxOptions::default() };
    let sandbox = Sandboxed::start(launchers(), options).unwrap();
    let module = compile(COUNTER);
    for number in 1..=3 {
        let mut snapshot = of_module(Arc::clone(&module), 1 << 20);
        snapshot.canister = principal(number);
        init(&sandbox, &snapshot);
    }
    let mut live: Vec<_> =
        sandbox.status().workers.into_iter().filter_map(|worker| worker.canister).map(|c| c.0).collect();
    live.sort();
    assert_eq!(live, [principal(2), principal(3)]);
}

#[test]
fn a_worker_that_was_evicted_is_made_again_and_nobody_can_tell() {
    let module = compile(COUNTER);
    let told = |options: SandboxOptions| {
        let sandbox = Sandboxed::start(launchers(), options).unwrap();
        let mut states: Vec<Snapshot> = (1..=2)
            .map(|number| {
                let fresh = of_module(Arc::clone(&module), 64 << 20);
                init(&sandbox, &Snapshot { canister: principal(number), ..fresh })
            })
            .collect();
        let mut told = Vec::new();
        for (id, method) in (2..).zip(["inc", "inc_then_trap", "grow", "inc", "nop", "inc"]) {
            for state in &mut states {
                let outcome = execute(&sandbox, state, &update(id, method));
                *state = commit(state, &outcome);
                told.push(content(&outcome));
                told.push(content(&sandbox.query(state, &query(100 + id), None).unwrap()));
            }
        }
        (told, sandbox.status().evictions)
    };
    let (undisturbed, evictions) = told(SandboxOptions::default());
    assert_eq!(evictions, Evictions::default(), "the control: there is room for all");
    let (by_count, evictions) = told(SandboxOptions { workers_max: 1, ..SandboxOptions::default() });
    // 26 runs, each after one of another worker; two of them trap and leave no worker.
    assert_eq!(evictions, Evictions { count: 23, ..Evictions::default() });
    assert!(by_count == undisturbed);
    let never = Duration::from_secs(3600);
    let options =
        SandboxOptions { worker_memory_bytes_max: Some(1), housekeeping: never, ..SandboxOptions::default() };
    let (by_memory, evictions) = told(options);
    assert_eq!(evictions, Evictions { memory: 23, ..Evictions::default() });
    assert!(by_memory == undisturbed);
}

/// Writes every page of 32 MiB.
const FILLER: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (memory 512)
    (func (export "canister_update fill")
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 33554432))
        (call $reply)))"#;

#[test]
fn a_workers_memory_is_measured_from_outside() {
    const FILLED: u64 = 32 << 20;
    let options = SandboxOptions { housekeeping: Duration::from_millis(1), ..SandboxOptions::default() };
    let sandbox = Sandboxed::start(launchers(), options).unwrap();
    let small = init(&sandbox, &counter());
    let mut large = of_module(compile(FILLER), 2 * FILLED);
    large.canister = principal(1);
    execute(&sandbox, &large, &update(2, "fill"));
    let memory = |canister| {
        let workers = sandbox.status().workers;
        let serves = |worker: &&sandbox_host::LiveWorker| worker.canister.is_some_and(|c| c.0 == canister);
        workers.iter().find(serves).unwrap().memory_bytes
    };
    let start = std::time::Instant::now();
    while memory(principal(1)) < FILLED {
        assert!(start.elapsed() < Duration::from_secs(20), "in vain: {:?}", sandbox.status());
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let (small, large) = (memory(small.canister), memory(principal(1)));
    assert!(large < FILLED + (1 << 20), "{large}");
    assert!((1..1 << 20).contains(&small), "{small}");
}

#[test]
fn the_first_message_of_a_canister_that_was_got_ready_is_warm_and_no_worker_goes_for_another() {
    let cold = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&cold);
    let options = SandboxOptions {
        workers_max: 1,
        observer: Some(Arc::new(move |phases| seen.lock().unwrap().push(phases.cold))),
        ..SandboxOptions::default()
    };
    let sandbox = Sandboxed::start(launchers(), options).unwrap();
    let in_process = InProcess::new(Engine::new().unwrap(), &InProcessOptions::default());
    let (before, limits) = (init(&in_process, &counter()), Limits::application());
    assert!(sandbox.prewarm(&before, &limits).unwrap());
    assert!(!sandbox.prewarm(&before, &limits).unwrap(), "it has one");
    let other = Snapshot { canister: principal(2), ..counter() };
    assert!(!sandbox.prewarm(&other, &limits).unwrap(), "one is all there may be");

    // Its state goes on elsewhere meanwhile.
    let after = commit(&before, &execute(&in_process, &before, &update(1, "inc")));
    let [here, there] =
        [&sandbox as &dyn Backend, &in_process].map(|backend| execute(backend, &after, &update(2, "inc")));
    assert_eq!((here.ending, here.instructions), (there.ending, there.instructions));
    assert_eq!(here.effects.unwrap().answer, there.effects.unwrap().answer);
    assert_eq!(*cold.lock().unwrap(), [false]);
}
