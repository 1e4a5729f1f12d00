//! The positive control: backends that are wrong, each in one way, are found out by the same random rounds that the
//! real ones pass.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use execution::memory::{Memory, PAGE_BYTES, PageVersion};
use execution::{
    Answer, Backend, BackendError, Effects, EntryPoint, Execution, Invocation, Outcome, Principal, Snapshot,
};
use in_process::{Engine, InProcess, InProcessOptions};

use super::world::{self, Tally, Way};
use super::{SEED, compiler, in_process};

/// Worlds that a mistake gets to show itself.
const WORLDS: u64 = 6;
/// Opportunities that a mistake lets pass.
const PASSED: u64 = 1;

/// A mistake. All but the last are made once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// One byte of a heap page comes out different.
    HeapByte,
    /// One byte of a page of stable memory comes out different.
    StableByte,
    /// A global comes out as before.
    Globals,
    /// An instruction too many.
    Instruction,
    /// A page too many in the count.
    DirtyPage,
    /// A log line is lost.
    LogLine,
    /// A call is lost.
    Call,
    /// One byte of an argument of a call comes out different.
    CallByte,
    /// A reply is lost.
    Reply,
    /// One byte of a reply to a query comes out different.
    QueryByte,
    /// A trap has another text.
    TrapText,
    /// The timer is not set.
    Timer,
    /// One byte of certified data comes out different.
    CertifiedData,
    /// One cycle too few is burnt.
    Cycle,
    /// Messages run on pages from the state before the last one, as if a new worker had been given those.
    StalePages,
}

const MISTAKES: [Mistake; 15] = [
    Mistake::HeapByte,
    Mistake::StableByte,
    Mistake::Globals,
    Mistake::Instruction,
    Mistake::DirtyPage,
    Mistake::LogLine,
    Mistake::Call,
    Mistake::CallByte,
    Mistake::Reply,
    Mistake::QueryByte,
    Mistake::TrapText,
    Mistake::Timer,
    Mistake::CertifiedData,
    Mistake::Cycle,
    Mistake::StalePages,
];

/// The in-process engine with one mistake.
struct Mistaken {
    engine: InProcess,
    mistake: Mistake,
    opportunities: AtomicU64,
    made: AtomicBool,
    /// The heap that each canister's last message started from.
    before: Mutex<HashMap<Principal, Memory>>,
}

impl Mistaken {
    /// The outcome, with the mistake if this is the opportunity for it.
    fn wrong(&self, snapshot: &Snapshot, invocation: &Invocation, outcome: Outcome) -> Outcome {
        let mut wrong = outcome.clone();
        self.spoil(snapshot, invocation, &mut wrong);
        let passed = wrong == outcome || self.opportunities.fetch_add(1, Ordering::Relaxed) != PASSED;
        if passed {
            return outcome;
        }
        self.made.store(true, Ordering::Relaxed);
        wrong
    }

    fn spoil(&self, snapshot: &Snapshot, invocation: &Invocation, outcome: &mut Outcome) {
        // Steps of an install may be undone by a later one.
        let update = matches!(
            invocation.entry,
            EntryPoint::Update { .. }
                | EntryPoint::Reply { .. }
                | EntryPoint::Reject { .. }
                | EntryPoint::Heartbeat
                | EntryPoint::GlobalTimer
        ) && invocation.entry.is_replicated();
        let none = &mut Effects::default();
        let Outcome { ending, effects, logs, .. } = outcome;
        let effects = match effects {
            Some(effects) if update => effects,
            _ => none,
        };
        match self.mistake {
            Mistake::HeapByte => flip(snapshot, &mut effects.memory.heap),
            Mistake::StableByte => flip(snapshot, &mut effects.memory.stable),
            Mistake::Globals => effects.globals = Arc::clone(&snapshot.globals),
            Mistake::Instruction => outcome.instructions += 1,
            Mistake::DirtyPage => outcome.heap_pages_dirty += u64::from(update),
            Mistake::LogLine => drop(logs.pop()),
            Mistake::Call => drop(effects.calls.pop()),
            Mistake::CallByte => {
                let byte = effects.calls.last_mut().and_then(|call| call.arg.last_mut());
                byte.into_iter().for_each(|byte| *byte ^= 1);
            }
            Mistake::Reply => effects.answer = None,
            Mistake::QueryByte => {
                let effects = outcome.effects.as_mut().filter(|_| !invocation.entry.is_replicated());
                if let Some(Answer::Reply(reply)) = effects.and_then(|effects| effects.answer.as_mut())
                    && let Some(byte) = reply.last_mut()
                {
                    *byte ^= 1;
                }
            }
            Mistake::TrapText => {
                if let (true, execution::Ending::Trapped(trap)) = (update, ending) {
                    trap.text.push('!');
                }
            }
            Mistake::Timer => effects.global_timer = None,
            Mistake::CertifiedData => {
                let byte = effects.certified_data.as_mut().and_then(|data| data.first_mut());
                byte.into_iter().for_each(|byte| *byte ^= 1);
            }
            Mistake::Cycle => effects.cycles_burned = effects.cycles_burned.saturating_sub(1),
            Mistake::StalePages => {}
        }
    }

    /// What a message starts from.
    fn base(&self, snapshot: &Snapshot) -> Snapshot {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let last = before.insert(snapshot.canister, snapshot.heap.clone());
        let Some(last) = last.filter(|_| self.mistake == Mistake::StalePages) else {
            return snapshot.clone();
        };
        let pages: Vec<(u64, PageVersion)> = last
            .pages()
            .filter(|(page, version)| {
                snapshot.heap.page(*page).is_some_and(|now| now.bytes() != version.bytes())
            })
            .map(|(page, version)| (page, version.clone()))
            .collect();
        let heap = snapshot.heap.with(snapshot.heap.wasm_pages(), pages);
        Snapshot { heap, ..snapshot.clone() }
    }
}

/// Changes a byte of the last page written.
fn flip(snapshot: &Snapshot, pages: &mut [(u64, PageVersion)]) {
    if let Some((_, version)) = pages.last_mut() {
        let mut bytes = *version.bytes();
        bytes[PAGE_BYTES - 1] ^= 1;
        *version = snapshot.arena.store(&bytes).expect("the arena has room");
    }
}

impl Backend for Mistaken {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let base = self.base(snapshot);
        match self.engine.execute(&base, invocation)? {
            Execution::Finished(outcome) => Ok(Execution::Finished(self.wrong(&base, invocation, outcome))),
            paused @ Execution::Paused(_) => Ok(paused),
        }
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        let outcome = self.engine.query(snapshot, invocation, overlay)?;
        Ok(self.wrong(snapshot, invocation, outcome))
    }
}

/// What the comparison says of a mistake that is made once in each world; `None`: nothing, within the worlds that it
/// gets. In one of them it may not matter: what was wrong is undone or written over in the same round.
fn told(engine: &Engine, compiler: &Arc<dyn execution::Compiler>, mistake: Mistake) -> Option<String> {
    (0..WORLDS).find_map(|world| {
        let mistaken = Arc::new(Mistaken {
            engine: InProcess::new(engine.clone(), &InProcessOptions::default()),
            mistake,
            opportunities: AtomicU64::new(0),
            made: AtomicBool::new(false),
            before: Mutex::default(),
        });
        let backend = Arc::clone(&mistaken) as Arc<dyn Backend>;
        let ways = [in_process(engine), Way { name: "mistaken", backend, threads: 1 }];
        // It is to be seen in the same round.
        let unseen = || !mistaken.made.load(Ordering::Relaxed);
        world::run(&ways, compiler, [SEED, world], &mut Tally::default(), unseen).err()
    })
}

#[test]
fn a_backend_that_is_wrong_in_any_one_way_is_found_out_in_the_same_round() {
    let engine = Engine::new().expect("the engine starts");
    let compiler = compiler(&engine);
    let unseen: Vec<Mistake> =
        MISTAKES.into_iter().filter(|&mistake| told(&engine, &compiler, mistake).is_none()).collect();
    assert!(unseen.is_empty(), "no round has shown {unseen:?}");
}

#[test]
fn one_flipped_byte_is_told_with_its_seed_round_canister_and_place() {
    let engine = Engine::new().expect("the engine starts");
    let told = told(&engine, &compiler(&engine), Mistake::HeapByte).expect("it is found");
    let words = [
        &format!("seed {SEED}, world 0, round ")[..],
        "mistaken differs from in-process: canister ",
        ": heap, page ",
        ", byte 4095: ",
    ];
    let mut rest = &told[..];
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("no `{word}` in: {told}"));
        rest = &rest[at + word.len()..];
    }
}
