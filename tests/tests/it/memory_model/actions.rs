//! What happens to the canisters of a case: how it is drawn, and what the model makes of it.

use std::sync::Arc;

use execution::EntryPoint;
use execution::memory::{PAGE_BYTES, WASM_PAGE_BYTES};
use proptest::prelude::*;

use super::canister::{self, Kind, OFFSETS, Op, RECORD_BYTES, STORES};
use super::model::{Expected, Model};

/// Canisters of a case: a 32-bit one, a 64-bit one, and one whose code drops its passive segment.
pub(super) const KINDS: [Kind; 3] = [
    Kind { memory64: false, drops: false, heap_pages_max: HEAP_PAGES_MAX },
    Kind { memory64: true, drops: false, heap_pages_max: HEAP_PAGES_MAX },
    Kind { memory64: false, drops: true, heap_pages_max: HEAP_PAGES_MAX },
];

/// Largest heap, 64 KiB pages.
const HEAP_PAGES_MAX: u64 = 6;
/// Largest stable memory, 64 KiB pages.
pub(super) const STABLE_PAGES_MAX: u64 = 5;
/// Index of `v128.store`.
const WIDEST_STORE: usize = 9;
/// Snapshots that a case keeps at most.
const KEPT_MAX: usize = 4;

/// A place in a memory, seen from its size when the message starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spot {
    /// Byte `within` of a page of 4 KiB, counted round and round.
    Page(u64, u64),
    /// So many bytes before the end.
    End(u64),
    /// Byte `within` of a page beyond the end: there only once the memory has grown.
    Grown(u64, u64),
    /// Wherever it is.
    Wild(u64),
}

impl Spot {
    fn address(self, memory: &[u8]) -> u64 {
        let (bytes, page) = (memory.len() as u64, PAGE_BYTES as u64);
        match self {
            Self::Page(index, within) => index % (bytes / page).max(1) * page + within,
            Self::End(before) => bytes.saturating_sub(before),
            Self::Grown(index, within) => bytes + index * page + within,
            Self::Wild(address) => address,
        }
    }
}

/// A step of a program before its addresses are known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Draft {
    Store { store: usize, offset: usize, at: Spot, value: u64 },
    Fill { at: Spot, byte: u8, bytes: u64 },
    Copy { to: Spot, from: Spot, bytes: u64 },
    Init { to: Spot, from: u64, bytes: u64 },
    StableWrite { to: Spot, from: Spot, bytes: u64 },
    StableRead { to: Spot, from: Spot, bytes: u64 },
    Arg { to: Spot, from: u64, bytes: u64 },
    Spill { at: Spot },
    Look { at: Spot, bytes: u64 },
    Plain(Op),
}

/// A program, and where it puts its records.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) drafts: Vec<Draft>,
    pub(super) scratch: Spot,
}

impl Program {
    /// The program and the scratch address for a canister in this state.
    fn resolve(&self, model: &Model) -> (Vec<Op>, u64) {
        let (heap, stable) = (&model.heap, &model.stable);
        let op = |draft: &Draft| match *draft {
            Draft::Store { store, offset, at, value } => {
                // The place is where the store ends up, if a static offset leaves it that.
                let place = at.address(heap);
                Op::Store { store, offset, at: place.checked_sub(OFFSETS[offset]).unwrap_or(place), value }
            }
            Draft::Fill { at, byte, bytes } => Op::Fill { at: at.address(heap), byte, bytes },
            Draft::Copy { to, from, bytes } => {
                Op::Copy { to: to.address(heap), from: from.address(heap), bytes }
            }
            Draft::Init { to, from, bytes } => Op::Init { to: to.address(heap), from, bytes },
            Draft::StableWrite { to, from, bytes } => {
                Op::StableWrite { to: to.address(stable), from: from.address(heap), bytes }
            }
            Draft::StableRead { to, from, bytes } => {
                Op::StableRead { to: to.address(heap), from: from.address(stable), bytes }
            }
            Draft::Arg { to, from, bytes } => Op::Arg { to: to.address(heap), from, bytes },
            Draft::Spill { at } => Op::Spill { at: at.address(heap) },
            Draft::Look { at, bytes } => Op::Look { at: at.address(heap), bytes },
            Draft::Plain(op) => op,
        };
        (self.drafts.iter().map(op).collect(), self.scratch.address(heap))
    }
}

/// How a message enters its canister.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Update,
    /// The callback of a call that an update made.
    Callback,
    ReplicatedQuery,
    Query,
}

/// What a message does.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Program(Program),
    /// Replies with all memory: queries only.
    Whole,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Message {
        canister: usize,
        entry: Entry,
        body: Body,
        /// Whether the node commits the outcome; else it gives it up and goes on from where it was.
        committed: bool,
        /// Which kept snapshot it runs on, if it is a query and there is any; else the newest state.
        on: Option<prop::sample::Index>,
    },
    /// A composite query's first step, and its callback on what the step left.
    Composite { canister: usize, steps: [Program; 2] },
    /// Keeps a snapshot of the newest state.
    Keep { canister: usize },
    /// Drops a kept snapshot.
    Drop { kept: prop::sample::Index },
    /// Kills a worker.
    Kill { worker: prop::sample::Index },
    /// Starts hashing a snapshot on a thread of its own, while whatever comes next goes on.
    Hash { canister: usize, on: Option<prop::sample::Index> },
}

/// A message as every backend gets it.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) entry: EntryPoint,
    pub(super) scratch: u64,
    pub(super) expected: Expected,
}

/// An action with what has to come of it.
#[derive(Clone)]
pub(super) enum Step {
    /// On a kept snapshot, or the newest state.
    Message {
        canister: usize,
        message: Message,
        committed: bool,
        on: Option<usize>,
    },
    /// The second message runs on what the first left.
    Composite {
        canister: usize,
        messages: Vec<Message>,
    },
    Keep {
        canister: usize,
    },
    Drop {
        kept: usize,
    },
    Kill {
        worker: prop::sample::Index,
    },
    Hash {
        canister: usize,
        on: Option<usize>,
        roots: [[u8; 32]; 2],
    },
    /// There is no snapshot to drop, or no room for another.
    Nothing,
}

/// Goes through the actions on the model: a step for each.
pub(super) fn plan(actions: &[Action]) -> Vec<Step> {
    let mut models = KINDS.map(|kind| Model::new(kind, STABLE_PAGES_MAX * WASM_PAGE_BYTES));
    let mut kept: Vec<(usize, Model)> = Vec::new();
    let mut steps = Vec::new();
    for action in actions {
        steps.push(match action {
            Action::Message { canister, entry, body, committed, on } => {
                let on = on.filter(|_| *entry == Entry::Query || matches!(body, Body::Whole));
                let (canister, on, model) = state(*canister, on, &models, &kept);
                let message = message(*entry, body, model);
                let keeps = matches!(entry, Entry::Update | Entry::Callback) && *committed;
                if keeps {
                    models[canister] = message.expected.after.clone();
                }
                Step::Message { canister, message, committed: keeps, on }
            }
            Action::Composite { canister, steps } => {
                Step::Composite { canister: *canister, messages: composite(steps, &models[*canister]) }
            }
            Action::Keep { canister } if kept.len() < KEPT_MAX => {
                kept.push((*canister, models[*canister].clone()));
                Step::Keep { canister: *canister }
            }
            Action::Drop { kept: index } if !kept.is_empty() => {
                let index = index.index(kept.len());
                kept.remove(index);
                Step::Drop { kept: index }
            }
            Action::Keep { .. } | Action::Drop { .. } => Step::Nothing,
            Action::Kill { worker } => Step::Kill { worker: *worker },
            Action::Hash { canister, on } => {
                let (canister, on, model) = state(*canister, *on, &models, &kept);
                Step::Hash { canister, on, roots: model.roots() }
            }
        });
    }
    steps
}

/// Whose state an action is about: that of a kept snapshot, or the newest of the canister.
fn state<'a>(
    canister: usize,
    on: Option<prop::sample::Index>,
    models: &'a [Model],
    kept: &'a [(usize, Model)],
) -> (usize, Option<usize>, &'a Model) {
    match on.filter(|_| !kept.is_empty()).map(|on| on.index(kept.len())) {
        Some(index) => (kept[index].0, Some(index), &kept[index].1),
        None => (canister, None, &models[canister]),
    }
}

fn message(entry: Entry, body: &Body, model: &Model) -> Message {
    let (query, arg, scratch, expected) = match body {
        Body::Program(program) => {
            let (ops, scratch) = program.resolve(model);
            ("ask", canister::encode(&ops), scratch, model.run(&ops, scratch))
        }
        Body::Whole => ("whole", Arc::from([]), 0, model.whole()),
    };
    let method = query.to_owned();
    let entry = match entry {
        Entry::Update => EntryPoint::Update { method: "run".to_owned(), arg },
        Entry::Callback => canister::reply(arg, false),
        Entry::ReplicatedQuery => EntryPoint::ReplicatedQuery { method, arg },
        Entry::Query => EntryPoint::Query { method, arg },
    };
    Message { entry, scratch, expected }
}

/// The steps of a composite query: none after a trap.
fn composite(programs: &[Program; 2], model: &Model) -> Vec<Message> {
    let (ops, scratch) = programs[0].resolve(model);
    let arg = canister::encode(&ops);
    let entry = EntryPoint::CompositeQuery { method: "step".to_owned(), arg };
    let first = Message { entry, scratch, expected: model.run(&ops, scratch) };
    if first.expected.end.is_err() {
        return vec![first];
    }
    let overlay = &first.expected.after;
    let (ops, scratch) = programs[1].resolve(overlay);
    let expected = overlay.run(&ops, scratch);
    vec![first, Message { entry: canister::reply(canister::encode(&ops), true), scratch, expected }]
}

/// A case: actions in order.
pub(super) fn case() -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(action(), 10..40)
}

fn action() -> impl Strategy<Value = Action> {
    // The first canister is busier than the others, so that instances do stay warm.
    let canister = || prop_oneof![3 => Just(0_usize), 2 => Just(1), 1 => Just(2)];
    let message = |entry: Entry, body: BoxedStrategy<Body>, committed: bool, old_percent: u32| {
        let on = older(old_percent);
        (canister(), body, on).prop_map(move |(canister, body, on)| Action::Message {
            canister,
            entry,
            body,
            committed,
            on,
        })
    };
    let ran = || program().prop_map(Body::Program).boxed();
    let whole = || Just(Body::Whole).boxed();
    prop_oneof![
        10 => message(Entry::Update, ran(), true, 0),
        2 => message(Entry::Update, ran(), false, 0),
        1 => message(Entry::Callback, ran(), true, 0),
        1 => message(Entry::ReplicatedQuery, ran(), false, 0),
        3 => message(Entry::Query, ran(), false, 40),
        3 => message(Entry::Query, whole(), false, 60),
        2 => message(Entry::ReplicatedQuery, whole(), false, 20),
        2 => (canister(), [program(), program()])
            .prop_map(|(canister, steps)| Action::Composite { canister, steps }),
        3 => canister().prop_map(|canister| Action::Keep { canister }),
        1 => any::<prop::sample::Index>().prop_map(|kept| Action::Drop { kept }),
        3 => any::<prop::sample::Index>().prop_map(|worker| Action::Kill { worker }),
        2 => (canister(), older(30))
            .prop_map(|(canister, on)| Action::Hash { canister, on }),
    ]
}

/// Which kept snapshot an action is about, in so many of a hundred.
fn older(percent: u32) -> impl Strategy<Value = Option<prop::sample::Index>> {
    (0_u32..100, any::<prop::sample::Index>()).prop_map(move |(draw, kept)| (draw < percent).then_some(kept))
}

fn program() -> impl Strategy<Value = Program> {
    let end = prop_oneof![
        12 => Just(None),
        2 => Just(Some(Op::Unreachable)),
        1 => prop_oneof![3 => Just(None), 1 => Just(Some(Op::Spin))],
    ];
    let scratch = prop_oneof![
        30 => page(),
        4 => Just(Spot::End(RECORD_BYTES as u64)),
        1 => heap_spot(),
    ];
    (prop::collection::vec(phrase(), 0..7), end, scratch).prop_map(|(phrases, end, scratch)| {
        let drafts = phrases.concat().into_iter().chain(end.map(Draft::Plain)).collect();
        Program { drafts, scratch }
    })
}

/// Drafts that belong together: growth comes with a write to what is new.
fn phrase() -> impl Strategy<Value = Vec<Draft>> {
    let grown = || (0_u64..16, within()).prop_map(|(page, within)| Spot::Grown(page, within));
    let grow = || prop_oneof![8 => Just(1_u64), 1 => Just(0), 1 => Just(2), 1 => Just(100)];
    let stable = || {
        prop_oneof![
            4 => (stable_spot(), heap_spot(), bytes())
                .prop_map(|(to, from, bytes)| Draft::StableWrite { to, from, bytes }),
            3 => (heap_spot(), stable_spot(), bytes())
                .prop_map(|(to, from, bytes)| Draft::StableRead { to, from, bytes }),
        ]
    };
    prop_oneof![
        18 => draft().prop_map(|draft| vec![draft]),
        5 => stable().prop_map(|draft| vec![draft]),
        // Stable memory is empty at the start.
        3 => stable().prop_map(|draft| vec![Draft::Plain(Op::StableGrow { pages: 1 }), draft]),
        1 => (grow(), grown(), any::<u64>()).prop_map(|(pages, at, value)| vec![
            Draft::Plain(Op::Grow { pages }),
            Draft::Store { store: WIDEST_STORE, offset: 0, at, value },
        ]),
        1 => (grow(), grown(), heap_spot(), bytes()).prop_map(|(pages, to, from, bytes)| vec![
            Draft::Plain(Op::StableGrow { pages }),
            Draft::StableWrite { to, from, bytes },
        ]),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let segment = || prop_oneof![9 => 0_u64..8_000, 1 => 0_u64..12_000];
    prop_oneof![
        8 => (0..STORES.len(), 0..OFFSETS.len(), heap_spot(), any::<u64>())
            .prop_map(|(store, offset, at, value)| Draft::Store { store, offset, at, value }),
        2 => (heap_spot(), prop_oneof![Just(0_u8), any::<u8>()], bytes())
            .prop_map(|(at, byte, bytes)| Draft::Fill { at, byte, bytes }),
        2 => (heap_spot(), heap_spot(), bytes())
            .prop_map(|(to, from, bytes)| Draft::Copy { to, from, bytes }),
        2 => (heap_spot(), segment(), prop_oneof![6 => 0_u64..2_000, 1 => 0_u64..10_001])
            .prop_map(|(to, from, bytes)| Draft::Init { to, from, bytes }),
        2 => (heap_spot(), 0_u64..64, 0_u64..40)
            .prop_map(|(to, from, bytes)| Draft::Arg { to, from, bytes }),
        1 => heap_spot().prop_map(|at| Draft::Spill { at }),
        2 => (heap_spot(), bytes()).prop_map(|(at, bytes)| Draft::Look { at, bytes }),
        1 => any::<u64>().prop_map(|value| Draft::Plain(Op::Globals { value })),
        1 => Just(Draft::Plain(Op::Drop)),
    ]
}

/// Few pages, so that messages meet on them; places in a page of which many straddle its end.
fn page() -> impl Strategy<Value = Spot> {
    let index = prop_oneof![6 => 0_u64..4, 2 => 14_u64..18, 2 => 0_u64..96];
    (index, within()).prop_map(|(index, within)| Spot::Page(index, within))
}

fn within() -> impl Strategy<Value = u64> {
    let page = PAGE_BYTES as u64;
    prop_oneof![2 => 0..page, 2 => page - 20..page, 1 => Just(0)]
}

fn heap_spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        60 => page(),
        // As wide as the widest writes, and a little less.
        4 => (0_u64..48).prop_map(Spot::End),
        1 => prop_oneof![any::<u64>(), (0_u64..100_000).prop_map(|low| low | 1 << 32)].prop_map(Spot::Wild),
    ]
}

fn stable_spot() -> impl Strategy<Value = Spot> {
    prop_oneof![40 => page(), 2 => (0_u64..4_096).prop_map(Spot::End), 1 => any::<u64>().prop_map(Spot::Wild)]
}

fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0_u64..48, 2 => 0_u64..9_000, 1 => Just(PAGE_BYTES as u64)]
}
