//! The bare round trip to a warm worker, and where the time of an execution goes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use execution::{Backend, BackendError};
use rustix::process::{Pid, Signal, kill_process};
use sandbox_host::{
    Observer, Phases, ROUND_TRIP_EVERY, RoundTripObserver, SandboxOptions, Sandboxed, Unwanted,
};
use sandbox_os::SocketError;
use sandbox_protocol::{Binding, Bytes, Pages, ToNode, ToWorker};

use crate::canister::update;
use crate::images::launchers;
use crate::peer::{Peer, Peers, finished, snapshot};
use crate::real_worker::{counter, init};

const PATIENCE: Duration = Duration::from_secs(10);

type Kept<T> = Arc<Mutex<Vec<T>>>;

/// Keeps what it hears.
fn kept<T: Copy + Send + 'static>() -> (Kept<T>, impl Fn(T) + Send + Sync) {
    let kept: Kept<T> = Arc::default();
    let keeps = Arc::clone(&kept);
    (kept, move |heard| keeps.lock().unwrap().push(heard))
}

/// Answers messages as a correct worker does, and round trips by `answer`. Counts those.
fn peers(
    asked: &Arc<AtomicUsize>,
    answer: impl Fn(&mut Peer, Binding) -> Result<(), SocketError> + Send + Sync + 'static,
) -> Peers {
    let asked = Arc::clone(asked);
    Peers::new(move |peer| {
        let mut binding = peer.until_execute()?;
        loop {
            match peer.request() {
                ToWorker::Pages(wanted) => {
                    assert_eq!(wanted, Pages { stable: false, first: 0, count: 0 });
                    asked.fetch_add(1, Ordering::SeqCst);
                    answer(peer, binding)?;
                }
                _ => peer.reply(binding, &ToNode::Finished(Box::new(finished())))?,
            }
            binding = peer.receive()?;
        }
    })
}

fn sandbox(peers: Peers, step_patience: Duration, heard: Option<RoundTripObserver>) -> Sandboxed {
    let options = SandboxOptions { pool: 0, step_patience, round_trips: heard, ..SandboxOptions::default() };
    Sandboxed::with_source(Box::new(peers), options).unwrap()
}

#[test]
fn a_warm_worker_is_asked_for_nothing_before_the_first_of_many_messages_and_a_cold_one_never() {
    let asked = Arc::default();
    let nothing = |peer: &mut Peer, binding| peer.reply(binding, &ToNode::Pages(Bytes(&[])));
    let (took, hears) = kept();
    let sandbox = sandbox(peers(&asked, nothing), PATIENCE, Some(Arc::new(hears)));
    let (snapshot, mut seen) = (snapshot(), Vec::new());
    for id in 0..ROUND_TRIP_EVERY + 2 {
        sandbox.execute(&snapshot, &update(id, "m")).unwrap();
        if [0, 1, ROUND_TRIP_EVERY, ROUND_TRIP_EVERY + 1].contains(&id) {
            seen.push(asked.load(Ordering::SeqCst));
        }
    }
    assert_eq!(seen, [0, 1, 1, 2]);
    assert_eq!(took.lock().unwrap().len(), 2);
}

#[test]
fn no_worker_is_asked_where_nobody_listens() {
    let asked = Arc::default();
    let sandbox = sandbox(peers(&asked, |_, _| Ok(())), PATIENCE, None);
    for id in 0..5 {
        sandbox.execute(&snapshot(), &update(id, "m")).unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// What the node says of a worker that answers a round trip with a page.
pub(crate) fn page_unasked() -> String {
    let page = |peer: &mut Peer, binding| peer.reply(binding, &ToNode::Pages(Bytes(&[0; 4096])));
    match failure(PATIENCE, page) {
        BackendError::Violation(violation) => violation.to_string(),
        other => panic!("a violation was due, not: {other}"),
    }
}

/// What comes of a message before which a warm worker answers a round trip by `answer`.
fn failure(
    step_patience: Duration,
    answer: impl Fn(&mut Peer, Binding) -> Result<(), SocketError> + Send + Sync + 'static,
) -> BackendError {
    let (took, hears) = kept();
    let peers = peers(&Arc::default(), answer);
    let killed = Arc::clone(&peers.killed);
    let sandbox = sandbox(peers, step_patience, Some(Arc::new(hears)));
    let snapshot = snapshot();
    sandbox.execute(&snapshot, &update(1, "m")).unwrap();
    let error = sandbox.execute(&snapshot, &update(2, "m")).unwrap_err();
    assert_eq!((sandbox.status().workers, killed.load(Ordering::SeqCst)), (vec![], 1), "it is gone");
    assert_eq!(sandbox.status().violations, u64::from(matches!(error, BackendError::Violation(_))));
    assert!(took.lock().unwrap().is_empty(), "what it said is in no measurement");
    sandbox.execute(&snapshot, &update(2, "m")).unwrap();
    error
}

#[test]
fn a_worker_that_answers_anything_but_nothing_is_ended_and_the_message_runs_again_on_another() {
    assert_eq!(page_unasked(), "pages where none were asked for");
    let run = |peer: &mut Peer, binding| peer.reply(binding, &ToNode::Finished(Box::new(finished())));
    let other = failure(PATIENCE, run);
    assert_eq!(other.to_string(), "violation: answered `finished` where `pages` was due");
    let noise = failure(PATIENCE, |peer, _| peer.raw(&[0; 3]));
    assert!(matches!(noise, BackendError::Violation(_)), "{noise}");
}

#[test]
fn a_worker_that_answers_a_round_trip_never_or_with_its_end_is_ended_as_in_a_run() {
    let silent = failure(Duration::from_secs(1), |peer, _| peer.receive().map(drop));
    assert!(matches!(silent, BackendError::Deadline { milliseconds: 1_000 }), "{silent}");
    let died = failure(PATIENCE, |_, _| Err(SocketError::Closed));
    assert!(matches!(died, BackendError::WorkerDied { .. } | BackendError::Violation(_)), "{died}");
}

/// A real worker's phases, and how its sandbox asks whether an answer is still wanted.
fn real(unwanted: Option<Unwanted>) -> (Sandboxed, Kept<Phases>, Kept<Duration>) {
    let (phases, hears) = kept();
    let observer: Observer = Arc::new(move |phases| hears(*phases));
    let (took, round_trip) = kept();
    let options = SandboxOptions {
        unwanted,
        observer: Some(observer),
        round_trips: Some(Arc::new(round_trip)),
        ..SandboxOptions::default()
    };
    (Sandboxed::start(launchers(), options).unwrap(), phases, took)
}

#[test]
fn the_phases_of_a_real_worker_and_its_bare_round_trip_fit_into_the_execution() {
    let (sandbox, phases, took) = real(None);
    let state = init(&sandbox, &counter());
    for id in 2..6 {
        let start = Instant::now();
        sandbox.execute(&state, &update(id, "inc")).unwrap();
        let whole = start.elapsed();
        let Phases { invocation, cold, prepare, worker, pages, .. } = *phases.lock().unwrap().last().unwrap();
        assert_eq!((invocation, cold), (id, false));
        let aside: Duration = took.lock().unwrap().drain(..).sum();
        assert_eq!(aside.is_zero(), id > 2, "before the first warm one only");
        assert!(prepare + worker + pages + aside <= whole);
    }
    assert_eq!(phases.lock().unwrap().len(), 5, "each execution once");
}

#[test]
fn a_worker_that_is_stopped_shows_in_its_own_phase_and_in_no_other() {
    // When the calls began that the node has looked at.
    let looks: Arc<(Mutex<Vec<Instant>>, Condvar)> = Arc::default();
    let looking = Arc::clone(&looks);
    let unwanted: Unwanted = Arc::new(move |began| {
        looking.0.lock().unwrap().push(began);
        looking.1.notify_all();
        false
    });
    let (sandbox, phases, _) = real(Some(unwanted));
    let state = init(&sandbox, &counter());
    sandbox.execute(&state, &update(2, "inc")).unwrap();
    let [pid] = sandbox.pids()[..] else { panic!("one worker serves") };
    let signal = |signal| kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    looks.0.lock().unwrap().clear();
    signal(Signal::STOP);
    let start = Instant::now();
    let (whole, stopped) = std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            sandbox.execute(&state, &update(3, "inc")).unwrap();
            start.elapsed()
        });
        // Looked at twice, a tenth of a second apart: the node waits for it.
        let twice = |looks: &mut Vec<Instant>| looks.len() < 2;
        let (looks, waited) = looks.1.wait_timeout_while(looks.0.lock().unwrap(), PATIENCE, twice).unwrap();
        let stopped = looks.first().map(Instant::elapsed);
        drop(looks);
        signal(Signal::CONT);
        assert!(!waited.timed_out());
        (ran.join().unwrap(), stopped.unwrap())
    });
    let Phases { invocation, prepare, worker, pages, .. } = *phases.lock().unwrap().last().unwrap();
    assert_eq!(invocation, 3);
    assert!(worker >= stopped, "{worker:?} of {stopped:?} in which it could not answer");
    assert!(prepare + worker + pages <= whole);
    assert!(prepare + pages <= whole - stopped, "what it could not do is in no other phase");
}
