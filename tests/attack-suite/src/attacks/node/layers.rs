//! The same canisters on a node whose workers have all layers, and on nodes whose workers lack one each: a difference
//! between them would be an attack on consensus.

use std::ops::Range;
use std::sync::Arc;

use bulkhead_node::drun::InstallMode;
use bulkhead_node::image::IMAGES;
use bulkhead_node::management::install_code;
use candid::Encode;
use execution::{
    Backend, BackendError, Compiler, Executed, Execution, Ingress, Invocation, Limits, Outcome, Principal,
    SchedulerOptions, Snapshot, Subnet, SubnetConfig,
};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::source::{WorkerProcess, WorkerSource};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_os::cgroup::Groups;
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase as Locked};
use sandbox_os::{Ended, LaunchedWorker, Launcher, Layers, Program, Socket, machine};

use crate::attacks::Attack;
use crate::images::launcher_with;
use crate::table::{Control, Phase, Rows};

/// Layers that one set each lacks. The root and the capabilities are what the worker's own start looks for: without
/// them it refuses to run, which is the next set's claim.
const LACKING: [(&str, Layers); 10] = [
    ("user", Layers::USER),
    ("pid namespace", Layers::PID),
    ("network namespace", Layers::NET),
    ("ipc namespace", Layers::IPC),
    ("uts namespace", Layers::UTS),
    ("cgroup namespace", Layers::CGROUP_NAMESPACE),
    ("Landlock", Layers::LANDLOCK),
    ("resource limits", Layers::LIMITS),
    ("SETUP filter", Layers::SETUP),
    ("control group", Layers::CGROUP),
];

/// Counts, traps, grows, overflows its stack, runs out of instructions, prints and writes stable memory.
const CANISTER: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "debug_print" (func $print (param i32 i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "trap" (func $trap (param i32 i32)))
    (import "ic0" "time" (func $time (result i64)))
    (memory 1 16)
    (data (i32.const 100) "hello")
    (global $n (mut i32) (i32.const 0))
    (func (export "canister_init") (drop (call $grow (i64.const 2))))
    (func $count
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store (i32.const 0) (global.get $n))
        (i64.store (i32.const 8) (call $time))
        (call $write (i64.const 70000) (i64.const 0) (i64.const 16)))
    (func (export "canister_update count") (call $count) (call $print (i32.const 100) (i32.const 5))
        (call $append (i32.const 0) (i32.const 16)) (call $reply))
    (func (export "canister_update grow") (drop (memory.grow (i32.const 3)))
        (i32.store (i32.const 200000) (i32.const 9)) (call $reply))
    (func (export "canister_update trap") (call $count) (call $trap (i32.const 100) (i32.const 5)))
    (func (export "canister_update outside") (call $count) (i32.store (i32.const -8) (i32.const 1)))
    (func (export "canister_update divide") (i32.store (i32.const 0)
        (i32.div_u (i32.const 1) (i32.load (i32.const 60000)))))
    (func $recurse (param i32) (result i32)
        (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
    (func (export "canister_update recurse") (drop (call $recurse (i32.const 0))))
    (func (export "canister_update spin") (loop $on (br $on))))"#;
const METHODS: [&str; 9] =
    ["count", "grow", "trap", "count", "outside", "divide", "recurse", "spin", "count"];
/// Real canisters: one each of C, Rust and Motoko, and an update that each has.
const REAL: [(&[u8], &str); 3] = [
    (include_bytes!("../../../../canisters/c/counter.wasm"), "inc"),
    (include_bytes!("../../../../canisters/rust/timers.wasm"), "stop"),
    (include_bytes!("../../../../canisters/motoko/Counter-classic.wasm"), "inc"),
];

pub(super) fn attacks() -> Vec<Attack> {
    vec![Attack::once("A62", "makes nodes differ whose workers lack a layer", |stage, rows| {
        differ(stage.root, rows)
    })]
}

/// What nodes have to agree on.
type Results = Vec<(Vec<Executed>, usize, [u8; 32])>;

fn differ(root: bool, rows: &mut Rows) {
    let engine = match Engine::new() {
        Ok(engine) => engine,
        Err(error) => {
            return rows.add(Phase::None, "same results", &Err(error.to_string()), Ok(()));
        }
    };
    let in_process = || InProcess::new(engine.clone(), &InProcessOptions::default());
    let expected = results(&engine, Arc::new(in_process()));
    // The control: a layer that did change a result would be seen.
    let control = match results(&engine, Arc::new(Changed(in_process()))) == expected {
        true => Err("a backend that changes a result isn't noticed".to_owned()),
        false => Ok(Control::Fired),
    };
    let with = |layers: Layers| {
        let backend = Sandboxed::with_source(Box::new(With::start(layers)?), SandboxOptions::default());
        Ok::<_, BackendError>(results(&engine, Arc::new(backend?)))
    };
    for (name, lacking) in std::iter::once(("", Layers::NONE)).chain(LACKING) {
        if !root && lacking == Layers::USER {
            rows.reduced("without a user namespace", "an ordinary user has no other layer without it");
            continue;
        }
        let contained = match with(Layers::ALL.without(lacking)) {
            Ok(same) if same == expected => Ok(()),
            Ok(_) => Err("results differ".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let stopped_by = match name {
            "" => "same results with all layers".to_owned(),
            name => format!("same results without {name}"),
        };
        rows.add(Phase::None, stopped_by, &control, contained);
    }
}

/// Runs all canisters on a backend, a message each a round.
fn results(engine: &Engine, backend: Arc<dyn Backend>) -> Results {
    let limits = Limits { update_instructions: 50_000_000, ..Limits::application() };
    let config = SubnetConfig { limits: Arc::new(limits), ..SubnetConfig::application() };
    let compiler: Arc<dyn Compiler> =
        Arc::new(ModuleCompiler::new(engine.clone(), Arc::clone(&config.limits)));
    let user = Principal::self_authenticating(b"the user of the attack suite");
    bulkhead_node::node::on_executor_stack(move || {
        let options = SchedulerOptions { threads: 1, ..SchedulerOptions::default() };
        let mut subnet = Subnet::new(config, backend, compiler, options);
        let mut sent = 0_u64;
        let mut send = |subnet: &mut Subnet, receiver: Principal, method: &str, arg: Vec<u8>| {
            sent += 1;
            let nonce = sent.to_le_bytes().to_vec();
            let message = Ingress { sender: user, receiver, method: method.into(), arg: arg.into(), nonce };
            // What is refused is refused by all.
            let _refused = subnet.submit(message);
        };
        let written = wat::parse_str(CANISTER).expect("it is right");
        let modules = std::iter::once(&written[..]).chain(REAL.iter().map(|(module, _)| *module));
        let ids: Vec<Principal> = modules
            .map(|module| {
                let id = subnet.create_canister(user, None, 1 << 60).expect("there is room");
                send(&mut subnet, Principal::management_canister(), "install_code", install_arg(id, module));
                id
            })
            .collect();
        let rounds = std::iter::once("").chain(METHODS).enumerate().map(|(number, method)| {
            if !method.is_empty() {
                send(&mut subnet, ids[0], method, Vec::new());
                for (id, (_, method)) in ids[1..].iter().zip(REAL) {
                    send(&mut subnet, *id, method, Encode!().expect("nothing encodes"));
                }
            }
            let report = subnet.round(1_700_000_000_000_000_000 + number as u64 * 1_000_000_000, [0; 32]);
            let executed = report.executed.into_iter().map(|executed| Executed { invocation: 0, ..executed });
            (executed.collect(), report.failures.len(), subnet.state_root())
        });
        rounds.collect()
    })
}

/// Installs a module on a fresh subnet and calls a method of it. The failures of both rounds.
pub(super) fn install_and_update(
    compiler: Arc<dyn Compiler>,
    backend: Arc<dyn Backend>,
    module: &[u8],
    method: &str,
) -> Vec<String> {
    bulkhead_node::node::on_executor_stack(|| {
        let options = SchedulerOptions { threads: 1, ..SchedulerOptions::default() };
        let mut subnet = Subnet::new(SubnetConfig::application(), backend, compiler, options);
        let user = Principal::self_authenticating(b"the user of the attack suite");
        let id = subnet.create_canister(user, None, 1 << 60).expect("there is room");
        let mut failures = Vec::new();
        let calls = [
            (Principal::management_canister(), "install_code", install_arg(id, module)),
            (id, method, Vec::new()),
        ];
        for (number, (receiver, method, arg)) in (0_u64..).zip(calls) {
            let nonce = number.to_le_bytes().to_vec();
            let message = Ingress { sender: user, receiver, method: method.into(), arg: arg.into(), nonce };
            if let Err(refused) = subnet.submit(message) {
                failures.push(refused.to_string());
            }
            let report = subnet.round(1_700_000_000_000_000_000 + number * 1_000_000_000, [0; 32]);
            failures.extend(report.failures.into_iter().map(|failure| failure.error));
        }
        failures
    })
}

pub(super) fn install_arg(id: Principal, module: &[u8]) -> Vec<u8> {
    let no_values = Encode!().expect("nothing encodes");
    install_code(InstallMode::Install, id, module, &no_values, false)
}

/// The control: one instruction more, as a layer would that is felt inside.
struct Changed(InProcess);

impl Backend for Changed {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        Ok(match self.0.execute(snapshot, invocation)? {
            Execution::Finished(outcome) => {
                let instructions = (outcome.instructions + 1).min(invocation.instructions_max);
                Execution::Finished(Outcome { instructions, ..outcome })
            }
            paused @ Execution::Paused(_) => paused,
        })
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.0.query(snapshot, invocation, overlay)
    }
}

/// The real worker behind a launcher that puts on some layers.
struct With {
    launcher: Launcher,
    groups: Option<Groups>,
    /// Goes after them.
    _process: Option<Groups>,
}

impl With {
    fn start(layers: Layers) -> Result<Self, BackendError> {
        let launcher = Launcher::start(&launcher_with(layers), &[IMAGES.worker]);
        let process = layers.contains(Layers::CGROUP).then(|| Groups::of_this_process().ok()).flatten();
        let groups = process.as_ref().and_then(|process| process.sharing(4 << 30).ok());
        Ok(Self {
            launcher: launcher.map_err(|error| BackendError::Spawn(error.to_string()))?,
            groups,
            _process: process,
        })
    }
}

impl WorkerSource for With {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let spawn = |error: String| BackendError::Spawn(error);
        let group = self.groups.as_ref().map(|groups| groups.group(1 << 30)).transpose();
        let group = group.map_err(|error| spawn(error.to_string()))?;
        let worker =
            self.launcher.launch(Program::Worker, false, group).map_err(|error| spawn(error.to_string()))?;
        Ok(Box::new(Reduced(worker)))
    }

    fn private_bytes(&self, pid: i32) -> Option<u64> {
        machine::private_bytes(pid).ok()
    }
}

/// A worker that isn't asked which layers it has.
#[derive(Debug)]
struct Reduced(LaunchedWorker);

impl WorkerProcess for Reduced {
    fn pid(&self) -> i32 {
        self.0.pid
    }

    fn socket(&self) -> &Socket {
        &self.0.socket
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        self.0.layers.iter().map(|layer| (layer.name, layer.on)).collect()
    }

    fn verify(&self, _phase: Locked, _memory: &[Range<u64>]) -> Result<(), NotConfined> {
        Ok(())
    }

    fn pull(&self, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError> {
        sandbox_os::pull::copy(self.0.pid, from, into)
    }

    fn kill(&mut self) -> Ended {
        self.0.kill()
    }
}
