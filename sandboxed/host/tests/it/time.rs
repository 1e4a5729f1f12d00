//! Processor time against what a worker claims, and where a worker stands that runs for long.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use execution::{Backend, BackendError, Invocation};
use sandbox_host::{SandboxOptions, Sandboxed, Unwanted, Violations};
use sandbox_protocol::{Finished, ToNode};

use crate::canister::update;
use crate::peer::{Looks, Peers, finished, snapshot};

const NONE: Duration = Duration::ZERO;
const MILLISECOND: Duration = Duration::from_millis(1);

/// 1 instruction explains 1 ms, and nothing but instructions explains anything.
fn options() -> SandboxOptions {
    SandboxOptions {
        pool: 0,
        workers_max: 4,
        step_patience: Duration::from_secs(10),
        instructions_per_second_min: 1_000,
        claimed_instructions_per_second_min: 1_000,
        pages_per_second_min: u64::MAX,
        processor_slack: NONE,
        ..SandboxOptions::default()
    }
}

/// Peers that claim `instructions` once the node has looked at them, and are seen to have had `times` then.
fn claiming(instructions: u64, times: &[Duration]) -> Peers {
    let looks = Looks::at(times);
    let looked = Arc::clone(&looks);
    let mut peers = Peers::new(move |peer| {
        let mut binding = peer.until_execute()?;
        loop {
            looked.wait_for(1);
            peer.reply(binding, &ToNode::Finished(Box::new(Finished { instructions, ..finished() })))?;
            binding = peer.receive()?;
        }
    });
    peers.looks = looks;
    peers
}

fn sandbox(peers: Peers) -> Sandboxed {
    Sandboxed::with_source(Box::new(peers), options()).unwrap()
}

/// What comes of a claim of 5 instructions by a worker that had `spent` by then.
fn five_after(spent: Duration) -> Result<(), String> {
    // What it had before it was looked at for the first time is none of this.
    let before = Duration::from_secs(7);
    let sandbox = sandbox(claiming(5, &[before, before + spent]));
    let result = sandbox.execute(&snapshot(), &update(9, "m"));
    let violations = Violations { time: u64::from(result.is_err()), ..Violations::default() };
    assert_eq!(sandbox.status().violations_by_kind, violations);
    result.map(drop).map_err(|error| error.to_string())
}

#[test]
fn processor_time_that_a_claim_does_not_explain_is_a_violation() {
    five_after(NONE).unwrap();
    five_after(5 * MILLISECOND).unwrap();
    let text = "violation: 6 ms of processor time for 5 instructions, which explain 5 ms";
    assert_eq!(five_after(6 * MILLISECOND), Err(text.to_owned()));
}

#[test]
fn each_slice_is_held_against_its_own_claim() {
    // 11 instructions in the first slice, 1 in the second, each with the processor time of 11.
    let looks = Looks::at(&[NONE, 11 * MILLISECOND, 11 * MILLISECOND, 22 * MILLISECOND]);
    let looked = Arc::clone(&looks);
    let mut peers = Peers::new(move |peer| {
        let binding = peer.until_execute()?;
        looked.wait_for(1);
        peer.reply(binding, &ToNode::Paused { instructions: 11 })?;
        let binding = peer.receive()?;
        looked.wait_for(3);
        peer.reply(binding, &ToNode::Finished(Box::new(Finished { instructions: 12, ..finished() })))?;
        peer.receive().map(drop)
    });
    peers.looks = looks;
    let sandbox = sandbox(peers);
    let invocation = Invocation { slice: 10, ..update(9, "m") };
    let execution::Execution::Paused(run) = sandbox.execute(&snapshot(), &invocation).unwrap() else {
        panic!("a pause was due")
    };
    let error = run.resume(10).unwrap_err().to_string();
    assert_eq!(error, "violation: 11 ms of processor time for 1 instructions, which explain 1 ms");
}

#[test]
fn a_worker_that_spins_is_ended_when_its_limit_explains_no_more() {
    let mut peers = Peers::new(|peer| {
        peer.until_execute()?;
        peer.receive().map(drop)
    });
    peers.looks = Looks::at(&[NONE, 1_000 * MILLISECOND, 1_001 * MILLISECOND]);
    let invocation = Invocation { instructions_max: 1_000, slice: 1_000, ..update(9, "m") };
    let error = sandbox(peers).execute(&snapshot(), &invocation).unwrap_err();
    assert!(matches!(error, BackendError::Deadline { milliseconds: 1_000 }), "{error}");
}

#[test]
fn an_answer_that_nobody_wants_any_more_is_not_waited_for() {
    // Each step has an hour.
    let silent = Peers::new(|peer| {
        peer.until_execute()?;
        peer.receive().map(drop)
    });
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let asking = Arc::clone(&asked);
    let unwanted: Unwanted = Arc::new(move |began| {
        let mut asked = asking.lock().unwrap();
        asked.push(began);
        asked.len() == 3
    });
    let hour = Duration::from_secs(3_600);
    let options = SandboxOptions { step_patience: hour, unwanted: Some(unwanted), ..options() };
    let sandbox = Sandboxed::with_source(Box::new(silent), options).unwrap();
    let before = Instant::now();
    let error = sandbox.execute(&snapshot(), &update(9, "m")).unwrap_err();
    assert!(matches!(error, BackendError::Deadline { .. }), "{error}");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|began| *began > before), "of the call that is waited for");
    assert_eq!(sandbox.status().violations, 0, "it did nothing wrong");
}

#[test]
fn a_run_that_takes_long_stands_behind_others_until_it_has_answered() {
    let peers = claiming(5, &[NONE]);
    let stands: Arc<Mutex<Vec<bool>>> = Arc::clone(&peers.stands);
    let sandbox = sandbox(peers);
    sandbox.execute(&snapshot(), &update(9, "m")).unwrap();
    assert_eq!(*stands.lock().unwrap(), [true, false]);
}

#[test]
fn an_answer_that_comes_soon_costs_no_look_at_its_worker() {
    // Where this machine is too busy to let it answer soon, there are others.
    const MESSAGES: u64 = 1_000;
    let peers = Peers::correct();
    let (looks, stands) = (Arc::clone(&peers.looks), Arc::clone(&peers.stands));
    let sandbox = sandbox(peers);
    let snapshot = snapshot();
    let unseen = (0..MESSAGES).any(|id| {
        let before = (looks.taken(), stands.lock().unwrap().len());
        sandbox.execute(&snapshot, &update(id, "m")).unwrap();
        before == (looks.taken(), stands.lock().unwrap().len())
    });
    assert!(unseen);
}
