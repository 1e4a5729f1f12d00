//! The real launcher and the real worker, built as the node's build script builds them.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use execution::memory::{Memory, PageVersion};
use execution::{
    Backend, BackendError, Compiler, EntryPoint, Execution, GlobalValue, Invocation, Limits, Module, Outcome,
    Snapshot,
};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{Role, SandboxOptions, Sandboxed};

use crate::canister::{invocation, of_module, update};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Both images, static and without a compiler. A nested cargo, because here features are unified with it.
pub(crate) fn images() -> [&'static [u8]; 2] {
    static IMAGES: OnceLock<[&'static [u8]; 2]> = OnceLock::new();
    *IMAGES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("images");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root).args(["build", "--release", "--locked", "--target", TARGET]);
        cargo.arg("--target-dir").arg(&target).args(["-p", "sandbox-worker", "-p", "sandbox-launcher"]);
        for inherited in ["RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
            cargo.env_remove(inherited);
        }
        cargo
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        assert!(cargo.status().unwrap().success(), "the images can be built");
        ["bulkhead-launcher", "sandbox-worker"].map(|program| {
            let bytes = std::fs::read(target.join(TARGET).join("release").join(program)).unwrap();
            &*Box::leak(bytes.into_boxed_slice())
        })
    })
}

fn sandbox() -> Sandboxed {
    let [launcher, worker] = images();
    Sandboxed::start(launcher, worker, SandboxOptions::default()).unwrap()
}

pub(crate) fn compile(text: &str) -> Arc<Module> {
    let compiler = ModuleCompiler::new(Engine::new().unwrap(), Arc::new(Limits::system()));
    compiler.compile(&wat::parse_str(text).unwrap()).unwrap().unwrap()
}

/// Counts in a global, in heap pages 0 and 5, and in stable memory; traps and grows on demand.
const COUNTER: &str = r#"(module
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

fn counter() -> Snapshot {
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
    match backend.execute(snapshot, invocation).unwrap() {
        Execution::Finished(outcome) => outcome,
        Execution::Paused(_) => panic!("nothing pauses here"),
    }
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

fn init(backend: &dyn Backend, snapshot: &Snapshot) -> Snapshot {
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
fn a_stack_overflow_is_the_same_trap_in_both_and_the_worker_serves_on() {
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
        assert_eq!(sandbox.pids(), pids);
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
fn a_full_table_evicts_the_worker_idle_for_longest() {
    let [launcher, worker] = images();
    let options = SandboxOptions { workers_max: 2, pool: 0, ..SandboxOptions::default() };
    let sandbox = Sandboxed::start(launcher, worker, options).unwrap();
    let module = compile(COUNTER);
    for number in 1..=3 {
        let mut snapshot = of_module(Arc::clone(&module), 1 << 20);
        snapshot.canister = crate::canister::principal(number);
        init(&sandbox, &snapshot);
    }
    let mut live: Vec<_> =
        sandbox.status().workers.into_iter().filter_map(|worker| worker.canister).map(|c| c.0).collect();
    live.sort();
    assert_eq!(live, [crate::canister::principal(2), crate::canister::principal(3)]);
}
