//! Two canisters that get messages round after round, and backends that watch or imitate failures.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bulkhead_node::node::on_executor_stack;
use execution::report::Executed;
use execution::{
    Backend, BackendError, Compiler, Execution, Ingress, Instructions, Invocation, Limits, Outcome,
    PausedRun, Principal, SchedulerOptions, Snapshot, Subnet, SubnetConfig,
};
use in_process::Engine;
use in_process::compile::ModuleCompiler;

use crate::conformance::management::{Install, install};

/// `count` counts in heap and stable memory; `long` counts, runs for as many slices as its argument says, and counts;
/// `get` replies with both counts.
const COUNTER: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg (param i32 i32 i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
    (memory 1 16)
    (global $n (mut i32) (i32.const 0))
    (func (export "canister_init") (drop (call $grow (i64.const 2))))
    (func $count
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store (i32.const 0) (global.get $n))
        (i32.store (i32.const 20480) (global.get $n))
        (call $write (i64.const 70000) (i64.const 0) (i64.const 4)))
    (func (export "canister_update count") (call $count) (call $reply))
    (func (export "canister_update long") (local $left i64)
        (call $count)
        (call $arg (i32.const 64) (i32.const 0) (i32.const 8))
        (local.set $left (i64.load (i32.const 64)))
        (loop $on
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if $on (i64.gt_s (local.get $left) (i64.const 0))))
        (call $count)
        (call $reply))
    (func (export "canister_query get")
        (call $read (i64.const 8) (i64.const 70000) (i64.const 4))
        (call $append (i32.const 0) (i32.const 12))
        (call $append (i32.const 20480) (i32.const 4))
        (call $reply)))"#;

/// Rounds: enough for a message of three slices that begins again, and the messages behind it.
const ROUNDS: u64 = 14;
const START: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

pub(super) struct Scenario {
    module: Vec<u8>,
    slice: Instructions,
}

/// What a round came to.
#[derive(Debug, PartialEq)]
pub(super) struct Round {
    /// Messages that were not taken in: code whose installation failed is installed a round later.
    pub(super) refused: usize,
    pub(super) executed: Vec<Executed>,
    pub(super) failures: usize,
    pub(super) root: [u8; 32],
}

pub(super) struct Run {
    pub(super) rounds: Vec<Round>,
    pub(super) answer: Vec<u8>,
}

fn user() -> Principal {
    Principal::self_authenticating(b"the user of the crash points")
}

impl Scenario {
    pub(super) fn new(_: &Engine, slice: Instructions) -> Self {
        Self { module: wat::parse_str(COUNTER).expect("it is right"), slice }
    }

    /// The answer of `get`: three messages of `count`, and `long`, which counts twice.
    pub(super) fn expected(&self) -> Vec<u8> {
        let count = 5_u32.to_le_bytes();
        [count, [0; 4], count, count].concat()
    }

    /// Runs it; `before` is called before each round.
    pub(super) fn run(&self, engine: &Engine, backend: Arc<dyn Backend>, before: impl Fn(u64) + Send) -> Run {
        let limits = Limits { slice_instructions: self.slice, ..Limits::application() };
        let config = SubnetConfig { limits: Arc::new(limits), ..SubnetConfig::application() };
        let compiler: Arc<dyn Compiler> =
            Arc::new(ModuleCompiler::new(engine.clone(), Arc::new(Limits::application())));
        // One thread, so that the calls of the backend come in one order.
        let options = SchedulerOptions { threads: 1, ..SchedulerOptions::default() };
        on_executor_stack(move || {
            let mut subnet = Subnet::new(config, backend, compiler, options);
            let canister = |subnet: &mut Subnet| {
                subnet.create_canister(user(), None, 1 << 60).expect("a canister can be made")
            };
            let (a, b) = (canister(&mut subnet), canister(&mut subnet));
            let rounds = (0..ROUNDS).map(|number| {
                let refused = self.submit(&mut subnet, number, a, b);
                before(number);
                let report = subnet.round(START + number * SECOND, [0; 32]);
                let executed = report.executed.into_iter();
                Round {
                    // The number of an invocation is the node's own.
                    executed: executed.map(|executed| Executed { invocation: 0, ..executed }).collect(),
                    refused,
                    failures: report.failures.len(),
                    root: subnet.state_root(),
                }
            });
            let rounds = rounds.collect();
            let answer = subnet.query(user(), a, "get", &[]).result.expect("it answers");
            Run { rounds, answer }
        })
    }

    /// Sends a round's messages; how many were refused.
    fn submit(&self, subnet: &mut Subnet, round: u64, a: Principal, b: Principal) -> usize {
        let mut refused = 0;
        let mut send = |subnet: &mut Subnet, receiver: Principal, method: &str, arg: Vec<u8>| {
            let nonce = round.to_le_bytes().to_vec();
            let message = Ingress { sender: user(), receiver, method: method.into(), arg: arg.into(), nonce };
            refused += usize::from(subnet.submit(message).is_err());
        };
        match round {
            0 => {
                for id in [a, b] {
                    let arg = install(Install::Install, id, &self.module, &[]);
                    send(subnet, Principal::management_canister(), "install_code", arg);
                }
            }
            2 => {
                // A little more than two slices.
                let iterations = self.slice / 2;
                send(subnet, a, "long", iterations.to_le_bytes().to_vec());
                send(subnet, b, "count", vec![]);
            }
            1 | 3 | 4 => {
                send(subnet, a, "count", vec![]);
                send(subnet, b, "count", vec![]);
            }
            _ => {}
        }
        refused
    }
}

/// Which calls of a backend failed, by their number; slices count as calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    calls: Arc<AtomicUsize>,
    failed: Arc<Mutex<BTreeSet<usize>>>,
}

impl Failures {
    pub(super) fn take(&self) -> BTreeSet<usize> {
        self.failed.lock().unwrap().clone()
    }

    fn next(&self) -> usize {
        self.calls.fetch_add(1, Ordering::SeqCst)
    }

    fn watch(&self, call: usize, result: Result<Execution, BackendError>) -> Result<Execution, BackendError> {
        match result {
            Ok(Execution::Paused(run)) => {
                Ok(Execution::Paused(Box::new(WatchedRun { run, failures: self.clone() })))
            }
            Err(error) => {
                self.failed.lock().unwrap().insert(call);
                Err(error)
            }
            finished => finished,
        }
    }
}

/// Notes the calls that fail.
pub(super) struct Watched {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) failures: Failures,
}

impl Backend for Watched {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let call = self.failures.next();
        self.failures.watch(call, self.backend.execute(snapshot, invocation))
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.backend.query(snapshot, invocation, overlay)
    }
}

struct WatchedRun {
    run: Box<dyn PausedRun>,
    failures: Failures,
}

impl PausedRun for WatchedRun {
    fn resume(self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError> {
        let call = self.failures.next();
        self.failures.watch(call, self.run.resume(slice))
    }

    fn abort(self: Box<Self>) {
        self.run.abort();
    }
}

/// Fails the calls that it is told to, without having begun them.
pub(super) struct Failing {
    backend: Arc<dyn Backend>,
    due: Arc<BTreeSet<usize>>,
    calls: Arc<AtomicUsize>,
}

impl Failing {
    pub(super) fn new(backend: Arc<dyn Backend>, due: BTreeSet<usize>) -> Self {
        Self { backend, due: Arc::new(due), calls: Arc::default() }
    }

    fn call(
        due: Arc<BTreeSet<usize>>,
        calls: Arc<AtomicUsize>,
        call: impl FnOnce() -> Result<Execution, BackendError>,
    ) -> Result<Execution, BackendError> {
        if due.contains(&calls.fetch_add(1, Ordering::SeqCst)) {
            return Err(BackendError::WorkerDied { how: "not begun".into() });
        }
        match call()? {
            Execution::Paused(run) => Ok(Execution::Paused(Box::new(FailingRun { run, due, calls }))),
            finished @ Execution::Finished(_) => Ok(finished),
        }
    }
}

impl Backend for Failing {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let (due, calls) = (Arc::clone(&self.due), Arc::clone(&self.calls));
        Self::call(due, calls, || self.backend.execute(snapshot, invocation))
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.backend.query(snapshot, invocation, overlay)
    }
}

struct FailingRun {
    run: Box<dyn PausedRun>,
    due: Arc<BTreeSet<usize>>,
    calls: Arc<AtomicUsize>,
}

impl PausedRun for FailingRun {
    fn resume(self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError> {
        let Self { run, due, calls } = *self;
        Failing::call(due, calls, || run.resume(slice))
    }

    fn abort(self: Box<Self>) {
        self.run.abort();
    }
}
