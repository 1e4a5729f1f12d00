//! One canister in one way, message by message: for tests that say by themselves what has to come out.

use std::sync::Arc;

use execution::memory::{PAGE_BYTES, PageVersion};
use execution::{Answer, Ending, EntryPoint, GlobalValue, Invocation, Limits, Module, Outcome, Snapshot};
use sandbox_host::Role;

use super::Way;
use super::canister::{self, Canister, Op};

/// A canister and the way that its messages run in.
pub(super) struct Subject<'a> {
    pub(super) way: &'a Way,
    pub(super) canister: Canister,
    messages: u64,
}

impl<'a> Subject<'a> {
    /// A canister whose code has just been installed, with the limits of an application subnet.
    pub(super) fn new(way: &'a Way, module: &Arc<Module>) -> Self {
        let limits = Arc::new(Limits::application());
        Self { way, canister: Canister::new(7, module, &limits, 1 << 40), messages: 0 }
    }

    /// Runs an update and commits it.
    pub(super) fn update(&mut self, ops: &[Op]) -> Outcome {
        let outcome = self.give_up(ops);
        self.canister.snapshot = canister::after(&self.canister.snapshot, &outcome);
        outcome
    }

    /// Runs an update whose outcome nobody commits.
    pub(super) fn give_up(&mut self, ops: &[Op]) -> Outcome {
        let entry = EntryPoint::Update { method: "run".into(), arg: canister::encode(ops) };
        self.run(entry, None)
    }

    /// Runs a query; its reply.
    pub(super) fn ask(&mut self, ops: &[Op]) -> Vec<u8> {
        let entry = EntryPoint::Query { method: "ask".into(), arg: canister::encode(ops) };
        reply(&self.run(entry, None))
    }

    /// All memory as the canister's query instance has it.
    pub(super) fn whole(&mut self) -> Vec<u8> {
        reply(&self.run(EntryPoint::Query { method: "whole".into(), arg: Arc::from([]) }, None))
    }

    /// All memory as the instance for updates has it.
    pub(super) fn whole_of_updates(&mut self) -> Vec<u8> {
        reply(&self.run(EntryPoint::ReplicatedQuery { method: "whole".into(), arg: Arc::from([]) }, None))
    }

    /// Runs a message without committing it.
    pub(super) fn run(&mut self, entry: EntryPoint, overlay: Option<&Snapshot>) -> Outcome {
        let invocation = self.invocation(entry);
        canister::run(&*self.way.backend, &self.canister.snapshot, &invocation, overlay)
            .unwrap_or_else(|error| panic!("{}: {error}", self.way.name))
    }

    /// A message whose scratch is address 0.
    pub(super) fn invocation(&mut self, entry: EntryPoint) -> Invocation {
        self.messages += 1;
        self.canister.invocation(self.messages, entry, 0)
    }

    /// The worker that serves the canister; `None` also where there are no workers.
    pub(super) fn worker(&self, role: Role) -> Option<i32> {
        let serves = Some((self.canister.snapshot.canister, role));
        let workers = self.way.sandbox.as_ref()?.status().workers;
        workers.iter().find(|worker| worker.canister == serves).map(|worker| worker.pid)
    }

    /// All memory of record.
    pub(super) fn recorded(&self) -> Vec<u8> {
        let Snapshot { heap, stable, .. } = &self.canister.snapshot;
        let mut bytes = vec![0; (heap.bytes() + stable.bytes()) as usize];
        let (in_heap, in_stable) = bytes.split_at_mut(heap.bytes() as usize);
        heap.read(0, in_heap);
        stable.read(0, in_stable);
        bytes
    }

    /// The answer of the last growth that was committed.
    pub(super) fn result(&self) -> GlobalValue {
        self.canister.snapshot.globals[0]
    }

    /// Bytes of the pages that the memory of record is made of.
    pub(super) fn bytes_live(&self) -> usize {
        let Snapshot { heap, stable, .. } = &self.canister.snapshot;
        (heap.pages_stored() + stable.pages_stored()) * PAGE_BYTES
    }

    /// Bytes that the arena holds.
    pub(super) fn bytes_used(&self) -> usize {
        self.canister.snapshot.arena.bytes_used()
    }
}

/// The reply of a message.
#[track_caller]
pub(super) fn reply(outcome: &Outcome) -> Vec<u8> {
    match outcome.effects.as_ref().and_then(|effects| effects.answer.clone()) {
        Some(Answer::Reply(reply)) => reply,
        answer => panic!("no reply but {answer:?}: {:?}", outcome.ending),
    }
}

/// Asserts that a message trapped with these words.
#[track_caller]
pub(super) fn assert_trapped(outcome: &Outcome, words: &str) {
    match &outcome.ending {
        Ending::Trapped(trap) => assert!(trap.text.contains(words), "{}", trap.text),
        Ending::Returned => panic!("it returned, and was to trap with {words:?}"),
    }
    assert_eq!(outcome.effects, None);
}

/// The pages of a list.
pub(super) fn pages(written: &[(u64, PageVersion)]) -> Vec<u64> {
    written.iter().map(|(page, _)| *page).collect()
}
