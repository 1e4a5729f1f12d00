//! Random everything: real and generated canisters get random messages, queries and management calls on three
//! subnets. One is fixed to in-process, one to sandboxed, and one takes another way for every execution, with workers
//! killed, instances evicted and messages cut into slices (`chaos`). After every round all have the same answers,
//! runs, state root and certified root.
//!
//! The rounds are the same in every test run. For a long run of others, which takes six minutes on two cores:
//! `RANDOM_MESSAGES=100000 RANDOM_SEED=1 cargo test --release -p tests random::any -- --nocapture`.

mod arguments;
mod chaos;
mod control;
mod dice;
mod difference;
mod modules;
mod real;
mod statements;
mod workload;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bulkhead_node::image;
use execution::{
    Backend, BackendError, Batch, Compiler, Execution, Invocation, Left, Limits, Outcome, Snapshot,
};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{SandboxOptions, Sandboxed};

use chaos::Chaos;
use world::{Tally, Way};

/// Runs of entry points, on each subnet, in the test command.
const RUNS: u64 = 5_000;
/// Where they start.
const SEED: u64 = 20_251_126;
/// Workers, and instances, of the fixed modes: enough for a world's canisters in both roles.
const WARM_MAX: usize = 48;

/// A number from the environment, or the one of every test run.
fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name)
        .map_or(usual, |value| value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

fn compiler(engine: &Engine) -> Arc<dyn Compiler> {
    Arc::new(ModuleCompiler::new(engine.clone(), Arc::new(Limits::application())))
}

fn in_process(engine: &Engine) -> Way {
    let options = InProcessOptions { instances_max: WARM_MAX, ..InProcessOptions::default() };
    Way { name: "in-process", backend: Arc::new(InProcess::new(engine.clone(), &options)), threads: 1 }
}

fn sandbox(options: SandboxOptions) -> Arc<Sandboxed> {
    Arc::new(
        Sandboxed::start(image::launchers().expect("launchers start"), options).expect("the sandbox starts"),
    )
}

/// The sandbox, and how many runs came out of batches.
fn sandboxed() -> (Way, Arc<Batches>) {
    let options = SandboxOptions { workers_max: WARM_MAX, pool: 1, ..SandboxOptions::default() };
    let batches = Arc::<Batches>::default();
    let backend = Loud { backend: sandbox(options), batches: Arc::clone(&batches) };
    (Way { name: "sandboxed", backend: Arc::new(backend), threads: 2 }, batches)
}

/// Runs that were made behind another one.
#[derive(Debug, Default)]
struct Batches {
    used: AtomicU64,
    discarded: AtomicU64,
}

/// A backend that says what failed: a fixed mode has no reason to.
struct Loud {
    backend: Arc<dyn Backend>,
    batches: Arc<Batches>,
}

struct Counted {
    batch: Box<dyn Batch>,
    batches: Arc<Batches>,
}

impl Batch for Counted {
    fn next(
        &mut self,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Option<Result<Execution, BackendError>> {
        let result = self.batch.next(snapshot, invocation)?;
        self.batches.used.fetch_add(1, Relaxed);
        Some(loud(invocation, result))
    }

    fn left(&self) -> Left {
        self.batch.left()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.batches.discarded.fetch_add(self.batch.left().executions as u64, Relaxed);
    }
}

fn loud<T>(invocation: &Invocation, result: Result<T, BackendError>) -> Result<T, BackendError> {
    result.inspect_err(|error| {
        let system = &invocation.system;
        eprintln!("{} of canister {} failed: {error}", invocation.entry.kind(), system.canister);
    })
}

impl Backend for Loud {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        loud(invocation, self.backend.execute(snapshot, invocation))
    }

    fn batch_max(&self) -> usize {
        self.backend.batch_max()
    }

    fn execute_batch(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
    ) -> Result<(Execution, Option<Box<dyn Batch>>), BackendError> {
        let result = self.backend.execute_batch(snapshot, invocation, expected);
        let (execution, batch) = loud(invocation, result)?;
        let batches = Arc::clone(&self.batches);
        Ok((execution, batch.map(|batch| Box::new(Counted { batch, batches }) as Box<dyn Batch>)))
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        loud(invocation, self.backend.query(snapshot, invocation, overlay))
    }

    fn relieve(&self, short: &BackendError) -> bool {
        self.backend.relieve(short)
    }
}

#[test]
fn any_mix_of_modes_kills_evictions_and_slices_comes_to_the_states_of_each_fixed_mode() {
    let (runs, seed) = (number("RANDOM_MESSAGES", RUNS), number("RANDOM_SEED", SEED));
    let engine = Engine::new().expect("the engine starts");
    let compiler = compiler(&engine);
    let chaos = Chaos::new(&engine, seed);
    let backend = Arc::new(chaos.clone()) as Arc<dyn Backend>;
    let (sandboxed, batches) = sandboxed();
    let ways = [in_process(&engine), sandboxed, Way { name: "chaos", backend, threads: 2 }];
    let mut tally = Tally::default();
    for world in 0.. {
        world::run(&ways, &compiler, [seed, world], &mut tally, || true)
            .unwrap_or_else(|difference| panic!("{difference}"));
        if tally.runs >= runs {
            break;
        }
    }
    println!("{tally:?}\n{:?}\n{batches:?}", chaos.account());
    assert_tried(&tally, &chaos);
    assert!(batches.used.load(Relaxed) > runs / 50, "{batches:?}");
}

/// Asserts that the rounds did something: empty ones are the same in all modes.
fn assert_tried(tally: &Tally, chaos: &Chaos) {
    let Tally { runs, replied, trapped, refused, paused, printed, kinds, errors, rounds } = tally;
    assert!(*replied > runs / 5 && *trapped > runs / 20 && *trapped < runs / 2, "{tally:?}");
    assert!(*refused > runs / 100 && *paused > runs / 100 && *printed > runs / 20, "{tally:?}");
    assert!(rounds * 4 < *runs, "{tally:?}");
    for kind in [
        "start",
        "init",
        "pre_upgrade",
        "post_upgrade",
        "heartbeat",
        "timer",
        "low_wasm_memory",
        "update",
        "replicated_query",
        "query",
        "composite_query",
        "reply_callback",
        "reject_callback",
        "cleanup",
    ] {
        assert!(kinds.get(kind).is_some_and(|count| *count > 0), "no {kind}: {tally:?}");
    }
    for code in ["IC0502", "IC0503", "IC0504", "IC0506", "IC0207", "IC0522"] {
        assert!(errors.contains_key(code), "no {code}: {tally:?}");
    }
    let account = chaos.account();
    let [warm, fresh, sandboxed] = account.ways();
    assert!(warm > runs / 5 && fresh > runs / 20 && sandboxed > runs / 4, "{account:?}");
    let events =
        [&account.kills, &account.deaths, &account.relieved, &account.cut, &account.resumed, &account.ahead];
    let events = events.map(|count| count.load(Relaxed));
    assert!(events.iter().all(|count| *count > runs / 200), "{account:?}");
}
