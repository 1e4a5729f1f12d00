//! Runs one canister on a subnet of its own, in each way that there is, and gives the instructions of each run.

use std::sync::Arc;

use bulkhead_node::node::on_executor_stack;
use candid::utils::ArgumentEncoder;
use execution::{
    Backend, Compiler, Executed, Ingress, IngressStatus, Limits, Principal, SchedulerOptions, Subnet,
    SubnetConfig,
};
use in_process::Engine;
use in_process::compile::ModuleCompiler;

use crate::conformance::management::{self, Install};
use crate::memory_model::ways;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;
/// Rounds that a message may take.
const ROUNDS_MAX: usize = 10;

/// A message of a user.
pub(super) struct Call {
    query: bool,
    method: &'static str,
    arg: Vec<u8>,
}

impl Call {
    pub(super) fn update(method: &'static str, args: impl ArgumentEncoder) -> Self {
        Self { query: false, method, arg: candid::encode_args(args).expect("the arguments encode") }
    }

    pub(super) fn query(method: &'static str, args: impl ArgumentEncoder) -> Self {
        Self { query: true, ..Self::update(method, args) }
    }
}

/// A way to run, as `run` takes it.
pub(super) struct Way {
    name: &'static str,
    backend: Arc<dyn Backend>,
    /// Compiles for all ways: each module once.
    compiler: Arc<dyn Compiler>,
}

/// Has `cases` run in-process and sandboxed, each warm and fresh; what it returns is wrong. No two ways use the
/// same canister: `cases` gets the first number that it may use.
pub(super) fn in_all_ways(cases: impl Fn(&Way, u64) -> Vec<String> + Sync) {
    let wrong: Vec<String> = on_executor_stack(|| {
        let engine = Engine::new().expect("the engine starts");
        let compiler: Arc<dyn Compiler> =
            Arc::new(ModuleCompiler::new(engine.clone(), Arc::new(Limits::application())));
        let all = [
            ways::in_process(&engine),
            ways::in_process_fresh(&engine),
            ways::sandboxed(),
            ways::sandboxed_fresh(),
        ];
        let mut wrong = Vec::new();
        for (n, ways::Way { name, backend, .. }) in (1..).zip(all) {
            let way = Way { name, backend: Arc::from(backend), compiler: Arc::clone(&compiler) };
            wrong.extend(cases(&way, n << 20).into_iter().map(|what| format!("{}: {what}", way.name)));
        }
        wrong
    });
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Installs `module`, makes the calls one after the other, and gives the instructions of every run in order:
/// first of `start` and `canister_init`, where there are any, then of the calls, with callbacks and heartbeats.
pub(super) fn run(way: &Way, canister: u64, module: &[u8], arg: &[u8], calls: &[Call]) -> Vec<u64> {
    let user = Principal::self_authenticating(b"metering");
    let config = SubnetConfig { first_canister: canister, ..SubnetConfig::application() };
    let options = SchedulerOptions { threads: 1, ..SchedulerOptions::default() };
    let mut subnet = Subnet::new(config, Arc::clone(&way.backend), Arc::clone(&way.compiler), options);
    let id = subnet.create_canister(user, None, 1_000_000_000_000_000).expect("there are ids");
    let arg = management::install(Install::Install, id, module, arg);
    let mut time = START;
    let mut executed =
        update(&mut subnet, &mut time, user, Principal::management_canister(), "install_code", arg);
    for Call { query, method, arg } in calls {
        executed.extend(if *query {
            subnet.query(user, id, method, arg).executed
        } else {
            update(&mut subnet, &mut time, user, id, method, arg.clone())
        });
    }
    executed.iter().map(|run| run.instructions).collect()
}

fn update(
    subnet: &mut Subnet,
    time: &mut u64,
    sender: Principal,
    receiver: Principal,
    method: &str,
    arg: Vec<u8>,
) -> Vec<Executed> {
    let nonce = time.to_be_bytes().to_vec();
    let message = Ingress { sender, receiver, method: method.to_owned(), arg: Arc::from(arg), nonce };
    let id = subnet.submit(message).expect("the message is taken in");
    let mut executed = Vec::new();
    for _ in 0..ROUNDS_MAX {
        *time += SECOND;
        let report = subnet.round(*time, [7; 32]);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        executed.extend(report.executed);
        if !matches!(subnet.status(&id), IngressStatus::Received | IngressStatus::Processing) {
            return executed;
        }
    }
    panic!("{method} isn't answered after {ROUNDS_MAX} rounds");
}
