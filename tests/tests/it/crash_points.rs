//! The worker is killed at every step of its conversation with the node, once or as often as the node tries, and the
//! launcher at any moment. After every round the state root is that of a subnet on which the runs that met a death
//! were not begun at all, and the message that met one runs next.

mod killer;
mod scenario;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulkhead_node::image::IMAGES;
use execution::Backend;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::source::LauncherSource;
use sandbox_host::{Launchers, SandboxOptions, Sandboxed};

use crate::processes::{descendants, kill, status};
use killer::{Killer, Killing, Moment, Request};
use scenario::{Failing, Failures, Scenario, Watched};

/// How often the node tries a message in a round.
const TRIES: usize = 3;
/// Memory of all workers.
const WORKERS_BYTES_MAX: u64 = 4 << 30;

fn launchers() -> Arc<Launchers> {
    Launchers::start(IMAGES).expect("launchers start")
}

fn options() -> SandboxOptions {
    SandboxOptions { pool: 0, restart_pause: Duration::ZERO, ..SandboxOptions::default() }
}

fn in_process(engine: &Engine) -> Arc<dyn Backend> {
    Arc::new(InProcess::new(engine.clone(), &InProcessOptions::default()))
}

/// Where a worker is killed: in the round, at the request, at the moment.
type Point = (u64, Request, Moment);

/// Every step there is. The first round installs, so its workers are cold; the second runs a message on a warm one;
/// the third begins one that pauses, and the fourth goes on with it.
const POINTS: [Point; 18] = [
    (0, Request::Begin, Moment::Before),
    (0, Request::Begin, Moment::Underway),
    (0, Request::Begin, Moment::Answered),
    (0, Request::Load, Moment::Before),
    (0, Request::Load, Moment::Underway),
    (0, Request::Load, Moment::Answered),
    (0, Request::Lock, Moment::Before),
    (0, Request::Lock, Moment::Underway),
    (0, Request::Lock, Moment::Answered),
    (1, Request::Execute, Moment::Before),
    (1, Request::Execute, Moment::Underway),
    (1, Request::Execute, Moment::Answered),
    (1, Request::Execute, Moment::InThePull),
    (1, Request::Execute, Moment::Idle),
    (2, Request::Execute, Moment::Answered),
    (3, Request::Resume, Moment::Before),
    (3, Request::Resume, Moment::Underway),
    (3, Request::Resume, Moment::Answered),
];

/// Runs the scenario on workers that are killed at a point, and on a subnet whose backend fails the same calls
/// without having begun them.
fn killed_at(engine: &Engine, scenario: &Scenario, point: Point, deaths: usize) {
    let (round, request, moment) = point;
    let killer = Arc::new(Killer::default());
    let source = LauncherSource::new(launchers(), WORKERS_BYTES_MAX, false);
    let source = Killing { source, killer: Arc::clone(&killer) };
    let sandbox = Sandboxed::with_source(Box::new(source), options()).expect("the sandbox starts");
    let failures = Failures::default();
    let watched = Arc::new(Watched { backend: Arc::new(sandbox), failures: failures.clone() });
    let disturbed = scenario.run(engine, watched, |now| {
        if now == round {
            killer.arm(request, moment, deaths);
        }
    });
    assert_eq!(killer.left(), 0, "{point:?}: {deaths} deaths were to come");
    let failed = failures.take();
    assert!(!failed.is_empty(), "{point:?}: nothing failed");
    let never_ran = Arc::new(Failing::new(in_process(engine), failed));
    let never_ran = scenario.run(engine, never_ran, |_| {});
    assert_eq!(disturbed.rounds.len(), never_ran.rounds.len(), "{point:?}");
    for (round, (disturbed, never_ran)) in disturbed.rounds.iter().zip(&never_ran.rounds).enumerate() {
        assert_eq!(disturbed, never_ran, "{point:?}, {deaths} deaths, round {round}");
    }
    assert_eq!(disturbed.answer, never_ran.answer, "{point:?}");
}

#[test]
fn a_worker_killed_at_any_step_leaves_the_state_of_a_run_that_never_began() {
    let engine = Engine::new().expect("the engine starts");
    let scenario = Scenario::new(&engine, 3_000_000);
    let undisturbed = scenario.run(&engine, in_process(&engine), |_| {});
    assert_eq!(undisturbed.answer, scenario.expected(), "the control: what the scenario comes to");
    assert!(undisturbed.rounds.iter().all(|round| round.failures == 0));
    for point in POINTS {
        killed_at(&engine, &scenario, point, 1);
        if point.2 != Moment::Idle && point.1 != Request::Resume {
            killed_at(&engine, &scenario, point, TRIES);
        }
    }
}

#[test]
fn a_worker_killed_while_it_runs_leaves_the_state_of_a_run_that_never_began() {
    let engine = Engine::new().expect("the engine starts");
    // Slices of some tenths of a second, also where a turn of a loop takes a third of a nanosecond, so that the worker
    // is seen running: 20 ms of processor time.
    let scenario = Scenario::new(&engine, 4_000_000_000);
    killed_at(&engine, &scenario, (2, Request::Execute, Moment::Running), 1);
    killed_at(&engine, &scenario, (3, Request::Resume, Moment::Running), 1);
}

/// The launchers of this process: its children without a filter.
fn launchers_alive() -> Vec<u32> {
    let own = status(std::process::id(), "Seccomp_filters");
    let mut all = descendants(std::process::id());
    all.retain(|pid| {
        status(*pid, "Seccomp_filters") == own && status(*pid, "State").is_some_and(|s| !s.starts_with('Z'))
    });
    all
}

#[test]
fn launchers_killed_before_and_between_launches_are_replaced() {
    let engine = Engine::new().expect("the engine starts");
    let scenario = Scenario::new(&engine, 3_000_000);
    let undisturbed = scenario.run(&engine, in_process(&engine), |_| {});
    // One of the two, and then both at once, before each round: later rounds launch only where no worker is left.
    for both in [false, true] {
        let source = LauncherSource::new(launchers(), WORKERS_BYTES_MAX, false);
        let sandbox =
            Arc::new(Sandboxed::with_source(Box::new(source), options()).expect("the sandbox starts"));
        let workers = Arc::clone(&sandbox);
        let killed = AtomicUsize::new(0);
        let disturbed = scenario.run(&engine, sandbox, |_| {
            for launcher in launchers_alive().into_iter().take(if both { usize::MAX } else { 1 }) {
                killed.fetch_add(usize::from(kill(launcher)), Ordering::SeqCst);
            }
            for worker in workers.pids() {
                kill(worker.cast_unsigned());
            }
        });
        let killed = killed.into_inner();
        assert!(killed >= 5, "{killed} launchers were killed");
        assert_eq!(disturbed.answer, undisturbed.answer, "both: {both}");
    }
}
