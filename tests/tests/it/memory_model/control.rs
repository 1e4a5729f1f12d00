//! The positive control: backends that get memory wrong, each in one way, are found out by the same random
//! cases that the real ones pass.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use execution::memory::{Memory, PAGE_BYTES, PageVersion};
use execution::{Backend, BackendError, Execution, Invocation, MemoryDelta, Outcome, Principal, Snapshot};
use in_process::{Engine, InProcess, InProcessOptions};
use proptest::strategy::{Strategy as _, ValueTree as _};

use super::{Rig, Way, actions, canister, runner, ways};

/// Cases that a mistake gets to show itself.
const CASES: u32 = 60;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// The last byte of a heap page comes out different.
    HeapByte,
    /// The first byte of a page of stable memory comes out different.
    StableByte,
    /// A heap page that was written is not among the outcome's pages.
    HeapPageForgotten,
    /// The same for stable memory.
    StablePageForgotten,
    /// A page written with the bytes that it had is not among the outcome's pages.
    EqualBytesForgotten,
    /// A page too many is counted in what trapped.
    CountAfterTrap,
    /// A heap that has grown says that it hasn't.
    GrowthForgotten,
    /// Globals are those from before.
    GlobalsForgotten,
    /// What a run that was given up wrote is still there in the next.
    GivenUpKept,
    /// What a query wrote is still there in the next.
    QueryKept,
    /// A query sees the newest state instead of its snapshot.
    NewestSnapshot,
    /// A composite query's callback doesn't see what the first step wrote.
    OverlayIgnored,
    /// An instruction too many.
    Instructions,
}

const MISTAKES: [Mistake; 13] = [
    Mistake::HeapByte,
    Mistake::StableByte,
    Mistake::HeapPageForgotten,
    Mistake::StablePageForgotten,
    Mistake::EqualBytesForgotten,
    Mistake::CountAfterTrap,
    Mistake::GrowthForgotten,
    Mistake::GlobalsForgotten,
    Mistake::GivenUpKept,
    Mistake::QueryKept,
    Mistake::NewestSnapshot,
    Mistake::OverlayIgnored,
    Mistake::Instructions,
];

/// The in-process engine with one mistake.
struct Mistaken {
    engine: InProcess,
    mistake: Mistake,
    /// What each canister's last message led to, committed or not; for queries, under another key.
    left: Mutex<HashMap<(Principal, bool), Snapshot>>,
}

impl Mistaken {
    /// What the run starts from, which may be the mistake.
    fn base(&self, snapshot: &Snapshot, query: bool) -> Snapshot {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = match self.mistake {
            Mistake::GivenUpKept => !query,
            Mistake::QueryKept | Mistake::NewestSnapshot => query,
            _ => false,
        };
        let from_query = self.mistake == Mistake::QueryKept;
        let kept = left.get(&(snapshot.canister, from_query)).filter(|_| wrong);
        kept.unwrap_or(snapshot).clone()
    }

    fn leave(&self, base: &Snapshot, outcome: &Outcome, query: bool) {
        let after = canister::after(base, outcome);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.insert((base.canister, query), after);
    }

    /// The outcome with the mistake.
    fn wrong(&self, base: &Snapshot, mut outcome: Outcome) -> Outcome {
        let Some(effects) = &mut outcome.effects else {
            outcome.heap_pages_dirty += u64::from(self.mistake == Mistake::CountAfterTrap);
            return outcome;
        };
        let MemoryDelta { heap_pages, heap, stable, .. } = &mut effects.memory;
        match self.mistake {
            Mistake::HeapByte => flip(base, heap, PAGE_BYTES - 1),
            Mistake::StableByte => flip(base, stable, 0),
            Mistake::HeapPageForgotten => drop(heap.pop()),
            Mistake::StablePageForgotten => drop(stable.pop()),
            Mistake::EqualBytesForgotten => {
                heap.retain(|(page, version)| differs(&base.heap, *page, version))
            }
            Mistake::GrowthForgotten => *heap_pages = None,
            Mistake::GlobalsForgotten => effects.globals = base.globals.clone(),
            Mistake::Instructions => outcome.instructions += 1,
            Mistake::CountAfterTrap
            | Mistake::GivenUpKept
            | Mistake::QueryKept
            | Mistake::NewestSnapshot
            | Mistake::OverlayIgnored => {}
        }
        outcome
    }
}

/// Changes a byte of the last page written.
fn flip(base: &Snapshot, pages: &mut [(u64, PageVersion)], at: usize) {
    if let Some((_, version)) = pages.last_mut() {
        let mut bytes = *version.bytes();
        bytes[at] ^= 1;
        *version = base.arena.store(&bytes).expect("the arena has room");
    }
}

fn differs(before: &Memory, page: u64, version: &PageVersion) -> bool {
    before.page(page).map_or(&[0; PAGE_BYTES], |before| before.bytes()) != version.bytes()
}

impl Backend for Mistaken {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let base = self.base(snapshot, false);
        match self.engine.execute(&base, invocation)? {
            Execution::Finished(outcome) => {
                self.leave(&base, &outcome, false);
                Ok(Execution::Finished(self.wrong(&base, outcome)))
            }
            paused @ Execution::Paused(_) => Ok(paused),
        }
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        let overlay = overlay.filter(|_| self.mistake != Mistake::OverlayIgnored);
        let base = self.base(overlay.unwrap_or(snapshot), true);
        let outcome = self.engine.query(&base, invocation, None)?;
        self.leave(&base, &outcome, true);
        Ok(self.wrong(&base, outcome))
    }
}

fn rig(engine: &Engine, mistake: Mistake) -> Rig {
    let inner = InProcess::new(engine.clone(), &InProcessOptions::default());
    let backend = Box::new(Mistaken { engine: inner, mistake, left: Mutex::default() });
    let mistaken = Way { name: "mistaken", backend, sandbox: None };
    Rig::new(engine, vec![ways::in_process_fresh(engine), mistaken])
}

#[test]
fn a_backend_that_gets_memory_wrong_in_any_one_way_is_found_out() {
    let engine = Engine::new().expect("the engine starts");
    let unseen: Vec<Mistake> = MISTAKES
        .into_iter()
        .filter(|&mistake| {
            let rig = rig(&engine, mistake);
            let mut runner = runner(CASES);
            let found = (0..CASES).any(|_| {
                let actions = actions::case().new_tree(&mut runner).expect("a case is drawn").current();
                rig.run(&actions).is_err()
            });
            !found
        })
        .collect();
    assert!(unseen.is_empty(), "no case has shown {unseen:?}");
}

#[test]
fn one_flipped_byte_in_one_page_is_told_as_that() {
    let engine = Engine::new().expect("the engine starts");
    let write = canister::Op::Store { store: 2, offset: 0, at: 8192, value: 7 };
    let action = actions::Action::Message {
        canister: 0,
        entry: actions::Entry::Update,
        body: actions::Body::Program(actions::Program {
            drafts: vec![actions::Draft::Plain(write)],
            scratch: actions::Spot::Page(0, 0),
        }),
        committed: true,
        on: None,
    };
    let told = rig(&engine, Mistake::HeapByte).run(&[action]).map(drop);
    assert_eq!(told, Err("mistaken, action 0: written heap page 2: byte 4095 is 1, not 0".to_owned()));
}
