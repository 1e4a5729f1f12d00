//! Who has a worker, who waits for one, and what a paused run keeps.

use std::sync::atomic::Ordering;
use std::time::Duration;

use execution::{Backend, BackendError, EntryPoint, Execution, Invocation, PausedRun};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_protocol::{Finished, ToNode, ToWorker};

use crate::canister::{invocation, principal, update};
use crate::peer::{Peers, finished, snapshot};

const PATIENCE: Duration = Duration::from_secs(10);

/// Peers that pause each update once, and answer queries at once.
pub(crate) fn pausing() -> Peers {
    Peers::new(|peer| {
        let mut binding = peer.until_execute()?;
        loop {
            let pause = match peer.request() {
                ToWorker::Execute(execute) => {
                    (execute.invocation.slice < execute.invocation.instructions_max).then_some(11)
                }
                ToWorker::Resume { slice } => (slice == 1).then_some(12),
                other => panic!("{other:?}"),
            };
            let answer = match pause {
                Some(instructions) => ToNode::Paused { instructions },
                None => ToNode::Finished(Box::new(Finished { instructions: 20, ..finished() })),
            };
            peer.reply(binding, &answer)?;
            binding = peer.receive()?;
        }
    })
}

fn sliced(id: u64) -> Invocation {
    Invocation { slice: 10, ..update(id, "m") }
}

pub(crate) fn paused(sandbox: &Sandboxed, id: u64) -> Box<dyn PausedRun> {
    match sandbox.execute(&snapshot(), &sliced(id)).unwrap() {
        Execution::Paused(run) => run,
        Execution::Finished(_) => panic!("a pause was due"),
    }
}

#[test]
fn a_paused_run_goes_on_slice_by_slice() {
    let sandbox = pausing().sandbox(PATIENCE);
    let run = paused(&sandbox, 1);
    let Execution::Paused(run) = run.resume(1).unwrap() else { panic!("another pause was due") };
    assert!(matches!(run.resume(1_000).unwrap(), Execution::Finished(_)));
    sandbox.execute(&snapshot(), &update(2, "m")).unwrap();
}

#[test]
fn a_run_that_is_given_up_ends_its_worker() {
    let peers = pausing();
    let killed = peers.killed.clone();
    let sandbox = peers.sandbox(PATIENCE);
    let run = paused(&sandbox, 1);
    assert_eq!(killed.load(Ordering::SeqCst), 0);
    run.abort();
    assert_eq!(killed.load(Ordering::SeqCst), 1);
    assert_eq!(sandbox.status().workers, []);
}

#[test]
fn a_query_does_not_wait_for_a_paused_run() {
    let sandbox = pausing().sandbox(PATIENCE);
    let run = paused(&sandbox, 1);
    let query = invocation(2, EntryPoint::InspectMessage { method: "m".into(), arg: [].into() });
    sandbox.query(&snapshot(), &query, None).unwrap();
    assert!(matches!(run.resume(1_000).unwrap(), Execution::Finished(_)));
}

#[test]
fn when_every_worker_is_busy_the_limit_is_named_and_nothing_is_started() {
    let options = SandboxOptions { pool: 0, workers_max: 1, ..SandboxOptions::default() };
    let sandbox = Sandboxed::with_source(Box::new(pausing()), options).unwrap();
    let run = paused(&sandbox, 1);
    let mut other = snapshot();
    other.canister = principal(8);
    let error = sandbox.execute(&other, &update(2, "m")).unwrap_err();
    assert!(matches!(error, BackendError::Exhausted { limit: "workers_max", .. }), "{error}");
    assert_eq!(sandbox.status().launches, 1);
    run.abort();
    sandbox.execute(&other, &update(3, "m")).unwrap();
}

#[test]
fn queries_of_one_canister_share_its_one_query_worker() {
    let sandbox = pausing().sandbox(PATIENCE);
    let snapshot = snapshot();
    std::thread::scope(|scope| {
        for id in 0..8 {
            let (sandbox, snapshot) = (&sandbox, &snapshot);
            scope.spawn(move || {
                let query = invocation(id, EntryPoint::InspectMessage { method: "m".into(), arg: [].into() });
                sandbox.query(snapshot, &query, None).unwrap();
            });
        }
    });
    assert_eq!(sandbox.status().launches, 1);
}
