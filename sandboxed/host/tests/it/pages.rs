//! How written pages come out of a real worker, and how a worker follows its arena.

use std::ops::Range;
use std::sync::Arc;

use execution::memory::{Arena, Budget, PAGE_BYTES};
use execution::{Backend, BackendError, Invocation, Snapshot};
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::source::{LauncherSource, WorkerProcess, WorkerSource};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase};
use sandbox_os::{Ended, Socket};

use crate::canister::{compile, of_module, principal, update};
use crate::images::launchers;
use crate::real_worker::{commit, content, execute, on_large_stack, reply};

/// Writes stable pages out of order, more heap pages than one reply carries, and grows both memories.
const WRITER: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
    (memory 1 200)
    (global $n (mut i32) (i32.const 0))
    (func $next (global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.store (i32.const 0) (global.get $n)))
    (func (export "canister_update scattered") (local $page i32)
        (call $next)
        (drop (call $grow (i64.const 2)))
        (drop (memory.grow (i32.const 1)))
        (call $write (i64.const 81920) (i64.const 0) (i64.const 4))
        (call $write (i64.const 4095) (i64.const 0) (i64.const 2))
        (call $write (i64.const 40960) (i64.const 0) (i64.const 4))
        (i32.store (i32.const 12288) (global.get $n))
        (i32.store (i32.const 53248) (global.get $n))
        (call $reply))
    (func (export "canister_update many")
        (call $next)
        (drop (memory.grow (i32.const 100)))
        (memory.fill (i32.const 4096) (global.get $n) (i32.const 6400000))
        (call $reply))
    (func (export "canister_update trap")
        (call $next) (memory.fill (i32.const 0) (i32.const 99) (i32.const 60000)) (unreachable))
    (func (export "canister_update get")
        (call $read (i64.const 8) (i64.const 81920) (i64.const 4))
        (call $append (i32.const 0) (i32.const 12))
        (call $reply)))"#;

const MESSAGES: [&str; 8] = ["scattered", "many", "trap", "scattered", "many", "many", "trap", "get"];

/// Real workers whose memory the node may not read.
struct Unreadable(LauncherSource);

impl WorkerSource for Unreadable {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        Ok(Box::new(Refusing(self.0.launch()?)))
    }

    fn private_bytes(&self, pid: i32) -> Option<u64> {
        self.0.private_bytes(pid)
    }
}

#[derive(Debug)]
struct Refusing(Box<dyn WorkerProcess>);

impl WorkerProcess for Refusing {
    fn pid(&self) -> i32 {
        self.0.pid()
    }

    fn socket(&self) -> &Socket {
        self.0.socket()
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        self.0.layers()
    }

    fn verify(&self, phase: Phase, memory: &[Range<u64>]) -> Result<(), NotConfined> {
        self.0.verify(phase, memory)
    }

    fn pull(&self, _: &[Span], _: Vec<&mut [u8]>) -> Result<(), PullError> {
        Err(PullError::Refused)
    }

    fn limit_memory(&self, bytes: u64) -> std::io::Result<()> {
        self.0.limit_memory(bytes)
    }

    fn place(&self, core: usize) {
        self.0.place(core);
    }

    fn processor_time(&self) -> Option<sandbox_os::processor::Spent> {
        self.0.processor_time()
    }

    fn stand_behind(&self, behind: bool) -> bool {
        self.0.stand_behind(behind)
    }

    fn kill(&mut self) -> Ended {
        self.0.kill()
    }
}

fn source() -> LauncherSource {
    LauncherSource::new(launchers(), u64::MAX, false)
}

fn sandbox(source: impl WorkerSource + 'static) -> Sandboxed {
    Sandboxed::with_source(Box::new(source), SandboxOptions::default()).unwrap()
}

#[test]
fn pages_are_the_same_whether_the_node_may_read_a_worker_or_has_to_ask_it() {
    on_large_stack(|| {
        let module = compile(WRITER);
        let backends: [Box<dyn Backend>; 3] = [
            Box::new(sandbox(source())),
            Box::new(sandbox(Unreadable(source()))),
            Box::new(InProcess::new(Engine::new().unwrap(), &InProcessOptions::default())),
        ];
        let mut states = [(); 3].map(|()| of_module(Arc::clone(&module), 1 << 30));
        for (id, method) in (1..).zip(MESSAGES) {
            let outcomes = [0, 1, 2].map(|at| execute(&*backends[at], &states[at], &update(id, method)));
            let [pulled, asked, direct] = outcomes.each_ref().map(content);
            assert_eq!(pulled.0, direct.0, "{method}");
            assert!(pulled.1 == direct.1, "{method}: pulled pages differ");
            assert_eq!(asked.0, direct.0, "{method}");
            assert!(asked.1 == direct.1, "{method}: pages asked for differ");
            let after: Vec<Snapshot> =
                states.iter().zip(&outcomes).map(|(state, outcome)| commit(state, outcome)).collect();
            states = after.try_into().unwrap();
        }
        assert_eq!(states[0].stable.pages_stored(), 4, "stable pages 0, 1, 10 and 20");
    });
}

#[test]
fn an_arena_that_gets_a_further_segment_takes_a_new_worker_once() {
    let sandbox = sandbox(source());
    let start = of_module(compile(WRITER), 1 << 30);
    let count = |id: u64, state: &Snapshot| {
        let outcome = execute(&sandbox, state, &update(id, "scattered"));
        (commit(state, &outcome), sandbox.pids())
    };
    let (first, pids) = count(1, &start);
    assert_eq!(count(2, &first).1, pids);
    // As large a commit of older messages: what comes now lies in the second segment.
    let held = start.arena.stage((256 << 20) / PAGE_BYTES).unwrap();
    assert_eq!(start.arena.segments(), 2);
    let (second, later) = count(3, &first);
    assert_ne!(later, pids, "the first worker has mapped one segment");
    let (third, same) = count(4, &second);
    assert_eq!(same, later);
    drop(held);
    let outcome = execute(&sandbox, &third, &update(5, "get"));
    assert_eq!(reply(&outcome)[..4], 3_u32.to_le_bytes());
}

#[test]
fn a_message_that_meets_the_nodes_memory_fails_with_its_name_and_runs_when_there_is_some() {
    on_large_stack(|| {
        let module = compile(WRITER);
        let backends: [Box<dyn Backend>; 2] = [
            Box::new(sandbox(source())),
            Box::new(InProcess::new(Engine::new().unwrap(), &InProcessOptions::default())),
        ];
        for backend in backends {
            let budget = Budget::new(8 << 20);
            let within = || Snapshot {
                arena: Arena::within(1 << 30, &budget).unwrap(),
                ..of_module(Arc::clone(&module), PAGE_BYTES as u64)
            };
            let (one, other) = (within(), within());
            let other = Snapshot { canister: principal(8), ..other };
            // Nearly all of the budget is one canister's; the other's large message finds none, a small one does.
            let kept = execute(&*backend, &one, &update(1, "many"));
            let refused = backend.execute(&other, &update(2, "many")).unwrap_err();
            assert!(matches!(refused, BackendError::Exhausted { limit: "memory_bytes", .. }), "{refused}");
            let small = execute(&*backend, &other, &update(3, "scattered"));
            assert_eq!(small.heap_pages_dirty, 3);
            // Free slots stay with their canister: memory comes back when that is gone, workers included.
            drop((kept, one, backend));
            let backend = InProcess::new(Engine::new().unwrap(), &InProcessOptions::default());
            execute(&backend, &other, &update(4, "many"));
        }
    });
}

/// Pages 0 to 15 of `A`s from the start; page 3 written with what is there; page 10 filled with `B`s.
const SELF: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (memory 1)
    (data (i32.const 0) "PAGES")
    (func (export "canister_update store")
        (i32.store (i32.const 12288) (i32.load (i32.const 12288))) (call $reply))
    (func (export "canister_update copy")
        (memory.copy (i32.const 12288) (i32.const 12288) (i32.const 4096)) (call $reply))
    (func (export "canister_update fill")
        (memory.fill (i32.const 40960) (i32.const 66) (i32.const 4096)) (call $reply))
    (func (export "canister_update get") (call $append (i32.const 12288) (i32.const 4096)) (call $reply)))"#;

#[test]
fn a_page_written_with_what_was_there_is_not_changed_by_later_commits() {
    on_large_stack(|| {
        let module = compile(&SELF.replace("PAGES", &"A".repeat(16 * PAGE_BYTES)));
        let backends: [Box<dyn Backend>; 2] = [
            Box::new(sandbox(source())),
            Box::new(InProcess::new(Engine::new().unwrap(), &InProcessOptions::default())),
        ];
        for (backend, method) in backends.iter().flat_map(|backend| [(backend, "store"), (backend, "copy")]) {
            let mut state = of_module(Arc::clone(&module), 1 << 20);
            for (id, method) in (1..).zip([method, "fill", "fill", "get"]) {
                let outcome = execute(&**backend, &state, &update(id, method));
                if method == "get" {
                    assert!(reply(&outcome) == [b'A'; PAGE_BYTES], "a page holds another's bytes");
                }
                state = commit(&state, &outcome);
            }
        }
    });
}

/// Reads a byte of stable memory at each of many places a MiB apart.
const STRIDE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (memory 1)
    (func (export "canister_update grow") (drop (call $grow (i64.const 8192000))) (call $reply))
    (func (export "canister_update read") (local $at i64)
        (loop $next
            (call $read (i64.const 0) (local.get $at) (i64.const 1))
            (local.set $at (i64.add (local.get $at) (i64.const 1048576)))
            (br_if $next (i64.lt_u (local.get $at) (i64.const 536869863424))))
        (call $reply))
    (func (export "canister_update write") (local $at i64)
        (loop $next
            (call $write (local.get $at) (i64.const 0) (i64.const 1))
            (local.set $at (i64.add (local.get $at) (i64.const 8388608)))
            (br_if $next (i64.lt_u (local.get $at) (i64.const 536869863424))))
        (call $reply)))"#;

#[test]
fn stable_memory_touched_as_far_apart_and_often_as_a_message_may_fits_a_worker() {
    on_large_stack(|| {
        let module = compile(STRIDE);
        let sandbox = sandbox(source());
        let in_process = InProcess::new(Engine::new().unwrap(), &InProcessOptions::default());
        let run = |backend: &dyn Backend| {
            let mut state = of_module(Arc::clone(&module), 1 << 40);
            ["grow", "read", "write", "write", "read"].map(|method| {
                let invocation = Invocation { instructions_max: 40_000_000_000, ..update(1, method) };
                let outcome = execute(backend, &state, &invocation);
                state = commit(&state, &outcome);
                (outcome.ending, outcome.instructions, outcome.stable_pages_dirty)
            })
        };
        let direct = run(&in_process);
        assert_eq!(direct[2].2, 64_000);
        assert_eq!(run(&sandbox), direct);
        assert_eq!(sandbox.status().launches, sandbox.status().ended + sandbox.status().workers.len() as u64);
    });
}
