//! What the node tells a warm worker, and what it makes of the pages that the worker wrote.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use execution::memory::PAGE_BYTES;
use execution::{Backend, Execution, Outcome, Snapshot};
use sandbox_host::Sandboxed;
use sandbox_protocol::{List, PageRun, PageSpan, ToNode, ToWorker};

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
