//! What the node tells a warm worker, and what it makes of the pages that the worker wrote.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use execution::memory::PAGE_BYTES;
use execution::{Backend, Batch, Execution, GlobalValue, Invocation, Outcome, Snapshot};
use sandbox_host::Sandboxed;
use sandbox_protocol::{Bytes, Carried, Finished, Last, List, PageRun, PageSpan, ToNode, ToWorker};

use crate::canister::update;
use crate::peer::{LOADED, Peers, finished, shared, snapshot};

const PATIENCE: Duration = Duration::from_secs(10);

fn run(sandbox: &Sandboxed, snapshot: &Snapshot, id: u64) -> Outcome {
    match sandbox.execute(snapshot, &update(id, "m")).unwrap() {
        Execution::Finished(outcome) => outcome,
        Execution::Paused(_) => panic!("nothing pauses here"),
    }
}

/// Heap runs of a request, and whether it brought limits.
type Sent = (Vec<PageRun>, bool);

/// A peer whose every message writes heap pages 2 and 3; records the heap runs and limits it is sent.
fn writer(readable: bool) -> (Sandboxed, Arc<Mutex<Vec<Sent>>>) {
    let sent = shared(Vec::new());
    let record = sent.clone();
    let mut peers = Peers::new(move |peer| {
        let mut binding = peer.until_execute()?;
        loop {
            match peer.request() {
                ToWorker::Execute(execute) => {
                    let limits = execute.invocation.limits.is_some();
                    record.lock().unwrap().push((execute.sync.heap.0, limits));
                    let mut claim = finished();
                    claim.heap_pages_dirty = 2;
                    claim.heap = List(vec![PageSpan { page: 2, count: 2 }]);
                    peer.reply(binding, &ToNode::Finished(Box::new(claim)))?;
                }
                ToWorker::Pages(wanted) => {
                    assert_eq!((wanted.stable, wanted.first, wanted.count), (false, 0, 2));
                    let bytes = [[2; PAGE_BYTES], [3; PAGE_BYTES]].concat();
                    peer.reply(binding, &ToNode::Pages(sandbox_protocol::Bytes(&bytes)))?;
                }
                other => panic!("{other:?}"),
            }
            binding = peer.receive()?;
        }
    });
    peers.readable = readable;
    peers.memory =
        [(LOADED.heap + 2 * 4096, [2; PAGE_BYTES]), (LOADED.heap + 3 * 4096, [3; PAGE_BYTES])].into();
    (peers.sandbox(PATIENCE), sent)
}

fn committed(snapshot: &Snapshot, outcome: &Outcome) -> Snapshot {
    let delta = &outcome.effects.as_ref().unwrap().memory;
    Snapshot { heap: snapshot.heap.with(1, delta.heap.iter().cloned()), ..snapshot.clone() }
}

#[test]
fn written_pages_are_copied_into_the_arena_with_or_without_the_right_to_read_them() {
    for readable in [true, false] {
        let (sandbox, _) = writer(readable);
        let snapshot = snapshot();
        let outcome = run(&sandbox, &snapshot, 1);
        let memory = &outcome.effects.as_ref().unwrap().memory;
        assert_eq!((memory.heap_pages, memory.stable_pages), (None, None));
        let pages: Vec<(u64, u8)> =
            memory.heap.iter().map(|(page, version)| (*page, version.bytes()[9])).collect();
        assert_eq!(pages, [(2, 2), (3, 3)]);
        assert_eq!(snapshot.arena.bytes_used(), 2 * PAGE_BYTES);
    }
}

#[test]
fn pages_that_a_worker_wrote_and_that_were_committed_are_known_to_it() {
    let (sandbox, sent) = writer(true);
    let first = snapshot();
    let outcome = run(&sandbox, &first, 1);
    let second = committed(&first, &outcome);
    run(&sandbox, &second, 2);
    let slot = second.heap.page(2).map(execution::memory::PageVersion::slot);
    let sent = sent.lock().unwrap();
    assert_eq!(sent[0], (vec![], true), "what it was loaded with, and the limits once");
    assert_eq!(sent[1], (vec![PageRun { page: 2, count: 2, slot, known: true }], false));
}

#[test]
fn pages_of_an_outcome_that_was_given_up_are_taken_back() {
    let (sandbox, sent) = writer(true);
    let snapshot = snapshot();
    run(&sandbox, &snapshot, 1);
    run(&sandbox, &snapshot, 2);
    let zero = PageRun { page: 2, count: 2, slot: None, known: false };
    assert_eq!(sent.lock().unwrap()[1].0, [zero]);
}

#[test]
fn pages_that_others_committed_are_sent_as_slots_to_copy() {
    let (sandbox, sent) = writer(true);
    let first = snapshot();
    run(&sandbox, &first, 1);
    let version = first.arena.store(&[9; PAGE_BYTES]).unwrap();
    let slot = version.slot();
    let second = Snapshot { heap: first.heap.with(1, [(5, version)]), ..first.clone() };
    run(&sandbox, &second, 2);
    let expected = [
        PageRun { page: 2, count: 2, slot: None, known: false },
        PageRun { page: 5, count: 1, slot: Some(slot), known: false },
    ];
    assert_eq!(sent.lock().unwrap()[1].0, expected);
}

/// A peer that runs messages in batches: the first of each writes page 2, the next pages 2 and 3, the third none.
fn batches() -> (Sandboxed, Arc<Mutex<Vec<Vec<PageRun>>>>) {
    let sent = shared(Vec::new());
    let record = sent.clone();
    let mut peers = Peers::new(move |peer| {
        let mut binding = peer.until_execute()?;
        loop {
            let ToWorker::Execute(execute) = peer.request() else { panic!("{:?}", peer.request()) };
            let messages = execute.expected.0.len() + 1;
            record.lock().unwrap().push(execute.sync.heap.0);
            let wrote = |page, count| {
                let heap = List(vec![PageSpan { page, count }]);
                Finished { heap_pages_dirty: count.into(), heap, ..finished() }
            };
            let (once, twice) = ([1; PAGE_BYTES], [2; PAGE_BYTES]);
            let first = Carried { finished: wrote(2, 1), pages: List(vec![Bytes(&once)]) };
            let second = Carried { finished: wrote(2, 2), pages: List(vec![Bytes(&twice); 2]) };
            let reply = match messages {
                1 => ToNode::Finished(Box::new(finished())),
                _ => ToNode::Batch(Box::new(sandbox_protocol::Batch {
                    carried: List(vec![first, second]),
                    last: Last::Finished(finished()),
                })),
            };
            peer.reply(binding, &reply)?;
            binding = peer.receive()?;
        }
    });
    // What the node has been sent it needn't read.
    peers.readable = false;
    (peers.sandbox(PATIENCE), sent)
}

/// Runs message 1 and, ahead, 2 and 3.
fn run_ahead(sandbox: &Sandboxed, snapshot: &Snapshot) -> (Outcome, Box<dyn Batch>) {
    let expected = [update(2, "m"), update(3, "m")];
    match sandbox.execute_batch(snapshot, &update(1, "m"), &expected).unwrap() {
        (Execution::Finished(outcome), Some(batch)) => (outcome, batch),
        _ => panic!("three messages were run"),
    }
}

fn next(batch: &mut dyn Batch, snapshot: &Snapshot, id: u64) -> Outcome {
    match batch.next(snapshot, &update(id, "m")) {
        Some(Ok(Execution::Finished(outcome))) => outcome,
        other => panic!("{other:?}"),
    }
}

fn bytes(outcome: &Outcome) -> Vec<(u64, u8)> {
    let heap = &outcome.effects.as_ref().unwrap().memory.heap;
    heap.iter().map(|(page, version)| (*page, version.bytes()[9])).collect()
}

#[test]
fn a_batch_is_handed_out_message_by_message_each_with_the_pages_as_it_left_them() {
    let (sandbox, sent) = batches();
    let start = snapshot();
    let (first, mut batch) = run_ahead(&sandbox, &start);
    assert_eq!((bytes(&first), batch.left().executions), (vec![(2, 1)], 2));
    let second_state = committed(&start, &first);
    let second = next(&mut *batch, &second_state, 2);
    assert_eq!(bytes(&second), [(2, 2), (3, 2)]);
    let third_state = committed(&second_state, &second);
    assert_eq!(bytes(&next(&mut *batch, &third_state, 3)), []);
    assert_eq!(batch.left().executions, 0);
    // The worker goes on from there, and knows its pages.
    run(&sandbox, &third_state, 4);
    let slot = |page| third_state.heap.page(page).map(execution::memory::PageVersion::slot);
    let known = |page, count| PageRun { page, count, slot: slot(page), known: true };
    let together = slot(2).unwrap() + 1 == slot(3).unwrap();
    let expected = if together { vec![known(2, 2)] } else { vec![known(2, 1), known(3, 1)] };
    assert_eq!(*sent.lock().unwrap(), [vec![], expected]);
    assert_eq!(sandbox.status().launches, 1);
}

#[test]
fn what_is_left_of_a_batch_is_taken_back_from_the_worker() {
    let (sandbox, sent) = batches();
    let start = snapshot();
    let (first, batch) = run_ahead(&sandbox, &start);
    let state = committed(&start, &first);
    drop(batch);
    run(&sandbox, &state, 4);
    // Page 2 isn't as the first message left it, because the second wrote it again.
    let slot = state.heap.page(2).map(execution::memory::PageVersion::slot);
    let back = [
        PageRun { page: 2, count: 1, slot, known: false },
        PageRun { page: 3, count: 1, slot: None, known: false },
    ];
    assert_eq!(sent.lock().unwrap()[1], back);
    assert_eq!(sandbox.status().launches, 1);
}

#[test]
fn a_pause_that_nobody_asks_for_ends_its_worker() {
    let peers = Peers::new(|peer| {
        let mut binding = peer.until_execute()?;
        loop {
            let ToWorker::Execute(execute) = peer.request() else { panic!("{:?}", peer.request()) };
            let reply = match execute.expected.0.len() {
                0 => ToNode::Finished(Box::new(finished())),
                _ => ToNode::Batch(Box::new(sandbox_protocol::Batch {
                    carried: List(vec![Carried { finished: finished(), pages: List::default() }]),
                    last: Last::Paused { instructions: 11 },
                })),
            };
            peer.reply(binding, &reply)?;
            binding = peer.receive()?;
        }
    });
    let killed = peers.killed.clone();
    let (sandbox, state) = (peers.sandbox(PATIENCE), snapshot());
    let second = Invocation { slice: 10, ..update(2, "m") };
    let (_, batch) = sandbox.execute_batch(&state, &update(1, "m"), &[second]).unwrap();
    assert_eq!(batch.as_ref().map(|batch| batch.left().executions), Some(1));
    drop(batch);
    assert_eq!(killed.load(Ordering::SeqCst), 1);
    run(&sandbox, &state, 3);
    assert_eq!((sandbox.status().launches, sandbox.status().discarded), (2, 1));
}

#[test]
fn a_message_on_another_state_than_its_worker_is_in_is_not_taken_out_of_a_batch() {
    let other_page = |state: &Snapshot| {
        let version = state.arena.store(&[9; PAGE_BYTES]).unwrap();
        Snapshot { heap: state.heap.with(1, [(5, version)]), ..state.clone() }
    };
    let other_globals =
        |state: &Snapshot| Snapshot { globals: Arc::from([GlobalValue::I32(7)]), ..state.clone() };
    let larger = |state: &Snapshot| Snapshot { heap: state.heap.with(2, []), ..state.clone() };
    let changes: [&dyn Fn(&Snapshot) -> Snapshot; 3] = [&other_page, &other_globals, &larger];
    for change in changes {
        let (sandbox, _) = batches();
        let start = snapshot();
        let (first, mut batch) = run_ahead(&sandbox, &start);
        let state = committed(&start, &first);
        assert!(batch.next(&change(&state), &update(2, "m")).is_none());
        // Nor where the message before wasn't committed.
        assert!(batch.next(&start, &update(2, "m")).is_none());
        assert!(batch.next(&state, &update(2, "m")).is_some(), "control: this is the state");
    }
}

#[test]
fn a_smaller_memory_takes_a_new_worker() {
    let (sandbox, _) = writer(true);
    let first = snapshot();
    let grown = Snapshot {
        heap: first.heap.with(1, []),
        stable: execution::memory::Memory::zeroed(3),
        ..first.clone()
    };
    // The peer claims no stable memory, so the run on a snapshot that has some is a violation by itself.
    assert!(sandbox.execute(&grown, &update(1, "m")).is_err());
    run(&sandbox, &first, 2);
    run(&sandbox, &first, 3);
    assert_eq!(sandbox.status().launches, 2, "one for the failed message, one for the two after it");
}
