//! Canisters whose workers keep ending.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use execution::{Backend, BackendError, EntryPoint, Snapshot};
use sandbox_protocol::ToNode;

use crate::canister::{invocation, principal, update};
use crate::peer::{Peers, finished, snapshot};

const PATIENCE: Duration = Duration::from_secs(10);
/// Workers in a row that may end before none is started for a while.
const FREE: usize = 3;

/// Peers that end at their first message, or answer it, as they are told.
fn ending(answers: &Arc<AtomicBool>) -> Peers {
    let answers = Arc::clone(answers);
    Peers::new(move |peer| {
        let mut binding = peer.until_execute()?;
        while answers.load(Ordering::SeqCst) {
            peer.reply(binding, &ToNode::Finished(Box::new(finished())))?;
            binding = peer.receive()?;
        }
        Ok(())
    })
}

fn died(error: &BackendError) -> bool {
    matches!(error, BackendError::WorkerDied { .. })
}

#[test]
fn a_canister_whose_workers_keep_ending_gets_none_for_a_while_and_is_told_so_at_once() {
    let answers = Arc::new(AtomicBool::new(false));
    let peers = ending(&answers);
    let launched = peers.launched();
    let sandbox = peers.sandbox(PATIENCE);
    let canister = snapshot();
    for _ in 0..=FREE {
        assert!(died(&sandbox.execute(&canister, &update(1, "m")).unwrap_err()));
    }
    let before = launched.load(Ordering::SeqCst);
    let refused = sandbox.execute(&canister, &update(1, "m")).unwrap_err();
    let BackendError::BackOff { failures: 4, milliseconds: 1..=100, last } = &refused else {
        panic!("{refused}")
    };
    assert!(last.starts_with("the sandbox worker died"), "{last}");
    assert_eq!(launched.load(Ordering::SeqCst), before, "nothing was started for it");
    assert_eq!(sandbox.status().back_offs, 1);

    // Nobody else is refused: not another canister, and not the queries of this one.
    answers.store(true, Ordering::SeqCst);
    let other = Snapshot { canister: principal(8), ..snapshot() };
    sandbox.execute(&other, &update(2, "m")).unwrap();
    let query = EntryPoint::Query { method: "m".into(), arg: Arc::from([]) };
    let answer = sandbox.query(&canister, &invocation(3, query), None);
    assert!(!matches!(answer, Err(BackendError::BackOff { .. })), "{answer:?}");

    // When the time is over it gets one again, and an answer ends it all.
    let start = Instant::now();
    while let Err(error) = sandbox.execute(&canister, &update(4, "m")) {
        assert!(matches!(error, BackendError::BackOff { .. }) && start.elapsed() < PATIENCE, "{error}");
        std::thread::yield_now();
    }
    answers.store(false, Ordering::SeqCst);
    let died_again = (0..FREE).all(|_| died(&sandbox.execute(&canister, &update(5, "m")).unwrap_err()));
    assert!(died_again, "after an answer, {FREE} may end again");
}
