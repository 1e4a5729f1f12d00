//! Batches: what a backend runs ahead comes to what it comes to alone, or is discarded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use execution::{
    Backend, BackendError, Batch, Ending, Execution, IngressStatus, Invocation, Left, Outcome, Principal,
    Snapshot, SubnetConfig,
};
use proptest::prelude::*;

use crate::scripted::{Bench, Fail, Op, Program, Scripted, call, killed};

/// A backend that runs what is expected ahead.
#[derive(Clone)]
pub(crate) struct Ahead {
    script: Arc<Scripted>,
    most: usize,
    /// Whether it goes on after a message that changed what the next one sees.
    careless: bool,
    /// Whether it runs nothing ahead after all.
    idle: bool,
    /// Messages with this program fail around the guest.
    poison: Option<(Program, Fail)>,
    /// How often they did.
    failures: Arc<AtomicUsize>,
    /// Executions that were asked for after they were run.
    used: Arc<AtomicUsize>,
    /// Those that nobody asked for, or that were on another state.
    discarded: Arc<AtomicUsize>,
}

impl Ahead {
    pub(crate) fn new(script: &Arc<Scripted>, most: usize) -> Self {
        Self {
            script: Arc::clone(script),
            most,
            careless: false,
            idle: false,
            poison: None,
            failures: Arc::default(),
            used: Arc::default(),
            discarded: Arc::default(),
        }
    }

    fn counts(&self) -> [usize; 2] {
        [&self.used, &self.discarded].map(|count| count.load(Ordering::SeqCst))
    }
}

fn after(snapshot: &Snapshot, invocation: &Invocation, outcome: &Outcome) -> Snapshot {
    let effects = outcome.effects.as_ref().filter(|_| invocation.entry.keeps_memory());
    effects.map_or(snapshot.clone(), |effects| {
        let memory = effects.memory.clone();
        let heap = memory.heap_pages.unwrap_or(snapshot.heap.wasm_pages());
        let stable = memory.stable_pages.unwrap_or(snapshot.stable.wasm_pages());
        Snapshot {
            heap: snapshot.heap.with(heap, memory.heap),
            stable: snapshot.stable.with(stable, memory.stable),
            globals: Arc::clone(&effects.globals),
            ..snapshot.clone()
        }
    })
}

/// Whether `outcome` is one that [`Backend::execute_batch`] expects.
fn is_as_expected(outcome: &Outcome) -> bool {
    outcome.ending == Ending::Returned
        && outcome.logs.is_empty()
        && outcome.effects.as_ref().is_some_and(|effects| {
            effects.are_foreseen() && (effects.memory.heap_pages, effects.memory.stable_pages) == (None, None)
        })
}

impl Backend for Ahead {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let arg = match &invocation.entry {
            execution::EntryPoint::Update { arg, .. } => <[u8; 8]>::try_from(&arg[..]).ok(),
            _ => None,
        };
        match self.poison {
            Some((program, fail)) if arg == Some(program.to_be_bytes()) => {
                self.failures.fetch_add(1, Ordering::SeqCst);
                Err(fail())
            }
            _ => self.script.execute(snapshot, invocation),
        }
    }

    fn batch_max(&self) -> usize {
        self.most
    }

    fn execute_batch(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
    ) -> Result<(Execution, Option<Box<dyn Batch>>), BackendError> {
        assert!(expected.len() < self.most, "{} behind the first", expected.len());
        let first = self.execute(snapshot, invocation)?;
        if self.idle {
            return Ok((first, None));
        }
        let mut behind = Behind {
            left: VecDeque::new(),
            used: Arc::clone(&self.used),
            discarded: Arc::clone(&self.discarded),
        };
        let Execution::Finished(outcome) = &first else { return Ok((first, None)) };
        let mut last = outcome.clone();
        let mut state = after(snapshot, invocation, &last);
        let mut expected: VecDeque<Invocation> = expected.to_vec().into();
        while self.careless || is_as_expected(&last) {
            let memory64 = state.module.interface.memory64;
            expected.iter_mut().for_each(|next| next.charge(memory64, last.instructions));
            let Some(next) = expected.pop_front() else { break };
            let execution = self.execute(&state, &next)?;
            let outcome = match &execution {
                Execution::Finished(outcome) => Some(outcome.clone()),
                Execution::Paused(_) => None,
            };
            behind.left.push_back((state.clone(), execution));
            let Some(outcome) = outcome else { break };
            state = after(&state, &next, &outcome);
            last = outcome;
        }
        Ok((first, Some(Box::new(behind))))
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.script.query(snapshot, invocation, overlay)
    }
}

struct Behind {
    left: VecDeque<(Snapshot, Execution)>,
    used: Arc<AtomicUsize>,
    discarded: Arc<AtomicUsize>,
}

impl Batch for Behind {
    fn next(&mut self, snapshot: &Snapshot, _: &Invocation) -> Option<Result<Execution, BackendError>> {
        let (state, _) = self.left.front()?;
        let same = state.globals == snapshot.globals
            && state.heap.wasm_pages() == snapshot.heap.wasm_pages()
            && state.stable.wasm_pages() == snapshot.stable.wasm_pages()
            && snapshot.heap.changes_since(&state.heap).is_empty()
            && snapshot.stable.changes_since(&state.stable).is_empty();
        let (_, execution) = same.then(|| self.left.pop_front()).flatten()?;
        self.used.fetch_add(1, Ordering::SeqCst);
        Some(Ok(execution))
    }

    fn left(&self) -> Left {
        Left { executions: self.left.len(), instructions: 0 }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.discarded.fetch_add(self.left.len(), Ordering::SeqCst);
    }
}

/// A subnet with two canisters.
struct Pair {
    bench: Bench,
    ids: [Principal; 2],
}

impl Pair {
    fn new(ahead: impl FnOnce(&Arc<Scripted>) -> Option<Ahead>) -> (Self, Option<Ahead>) {
        Self::with(SubnetConfig::application(), ahead)
    }

    fn with(
        config: SubnetConfig,
        ahead: impl FnOnce(&Arc<Scripted>) -> Option<Ahead>,
    ) -> (Self, Option<Ahead>) {
        let mut chosen = None;
        let mut bench = Bench::on(config, 2, |script| {
            chosen = ahead(script);
            match &chosen {
                Some(ahead) => Arc::new(ahead.clone()) as Arc<dyn Backend>,
                None => Arc::clone(script) as Arc<dyn Backend>,
            }
        });
        let ids = [bench.canister("heartbeat timer"), bench.canister("")];
        (Self { bench, ids }, chosen)
    }

    /// Submits all at once; what each was answered, and the state after each round.
    fn run(&mut self, messages: &[(usize, Vec<Act>)]) -> (Vec<IngressStatus>, Vec<[u8; 32]>) {
        let ids: Vec<_> = messages
            .iter()
            .map(|(canister, acts)| {
                let ops: Vec<Op> = acts.iter().map(|act| act.op(&self.bench, self.ids)).collect();
                let program = self.bench.program(ops);
                self.bench.submit(self.ids[*canister], "run", &program.to_be_bytes()).unwrap()
            })
            .collect();
        let mut roots = Vec::new();
        for _ in 0..12 {
            self.bench.round();
            roots.push(self.bench.subnet.state_root());
        }
        (ids.iter().map(|id| self.bench.subnet.status(id)).collect(), roots)
    }
}

/// What a message does.
#[derive(Clone, Debug)]
enum Act {
    Write(u64, u8),
    WriteStable(u64, u8),
    Global(i64),
    ReplyHeap(u64),
    /// Replies with all that it is told.
    ReplyView,
    Trap,
    Print,
    Burn,
    Timer,
    Certify,
    Grow,
    Slices(u32),
    /// Calls one of the two, which writes.
    Call(usize),
}

impl Act {
    fn op(&self, bench: &Bench, ids: [Principal; 2]) -> Op {
        match *self {
            Self::Write(page, byte) => Op::Heap(page, byte),
            Self::WriteStable(page, byte) => Op::Stable(page, byte),
            Self::Global(value) => Op::Global(value),
            Self::ReplyHeap(page) => Op::ReplyHeap(page),
            Self::ReplyView => Op::ReplyView,
            Self::Trap => Op::Trap("on purpose"),
            Self::Print => Op::Print("a line"),
            Self::Burn => Op::Burn(1_000),
            Self::Timer => Op::Timer(1),
            Self::Certify => Op::Certify(b"data"),
            Self::Grow => Op::Grow(1),
            Self::Slices(slices) => Op::Slices(slices),
            Self::Call(callee) => {
                let callee_runs = bench.program([Op::Heap(3, 3), Op::ReplyView]);
                let back = bench.program([Op::ReplyResponse]);
                Op::Call(call(ids[callee], callee_runs, back))
            }
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..4_u64, any::<u8>()).prop_map(|(page, byte)| Act::Write(page, byte)),
        1 => (0..4_u64, any::<u8>()).prop_map(|(page, byte)| Act::WriteStable(page, byte)),
        2 => any::<i64>().prop_map(Act::Global),
        4 => (0..4_u64).prop_map(Act::ReplyHeap),
        4 => Just(Act::ReplyView),
        1 => Just(Act::Trap),
        1 => Just(Act::Print),
        1 => Just(Act::Burn),
        1 => Just(Act::Timer),
        1 => Just(Act::Certify),
        1 => Just(Act::Grow),
        1 => (1..3_u32).prop_map(Act::Slices),
        1 => (0..2_usize).prop_map(Act::Call),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_queue_comes_to_the_same_answers_and_states_alone_and_in_batches_of_any_size(
        messages in prop::collection::vec((0..2_usize, prop::collection::vec(act(), 0..4)), 1..24),
        most in 2..20_usize,
        careless in any::<bool>(),
    ) {
        let alone = Pair::new(|_| None).0.run(&messages);
        let (mut pair, _) = Pair::new(|script| Some(Ahead { careless, ..Ahead::new(script, most) }));
        prop_assert_eq!(pair.run(&messages), alone);
    }
}

/// Messages of one canister.
fn each(acts: &[&[Act]]) -> Vec<(usize, Vec<Act>)> {
    acts.iter().map(|acts| (1, acts.to_vec())).collect()
}

#[test]
fn messages_that_only_write_and_reply_are_all_taken_out_of_one_batch() {
    let (mut pair, ahead) = Pair::new(|script| Some(Ahead::new(script, 16)));
    let messages: Vec<_> =
        (0..16_u8).map(|n| (1, vec![Act::Write(u64::from(n % 3), n), Act::ReplyView])).collect();
    let in_batches = pair.run(&messages);
    assert_eq!(ahead.unwrap().counts(), [15, 0]);
    assert_eq!(in_batches, Pair::new(|_| None).0.run(&messages));
}

#[test]
fn what_was_run_on_another_view_than_the_real_one_is_discarded() {
    for act in [Act::Print, Act::Burn, Act::Timer, Act::Grow, Act::Call(0), Act::Trap] {
        let messages = each(&[std::slice::from_ref(&act), &[Act::ReplyView], &[Act::ReplyView]]);
        let (mut pair, ahead) = Pair::new(|script| Some(Ahead { careless: true, ..Ahead::new(script, 16) }));
        let in_batches = pair.run(&messages);
        assert_eq!(in_batches, Pair::new(|_| None).0.run(&messages), "{act:?}");
        let [used, discarded] = ahead.unwrap().counts();
        assert!(discarded >= 2, "{act:?}: {used} used, {discarded} discarded");
    }
}

#[test]
fn a_message_that_always_fails_keeps_none_before_it_from_its_answer() {
    let late: Fail = || BackendError::Deadline { milliseconds: 9 };
    for fail in [killed as Fail, late] {
        let (mut pair, ahead) = Pair::new(|script| {
            let poison = script.program([Op::Reply(Vec::new())]);
            Some(Ahead { poison: Some((poison, fail)), ..Ahead::new(script, 16) })
        });
        let (poison, _) = ahead.unwrap().poison.unwrap();
        let good = pair.bench.program([Op::Heap(1, 1), Op::Reply(b"ok".to_vec())]);
        let sent = [good, good, poison, good]
            .map(|program| pair.bench.submit(pair.ids[1], "run", &program.to_be_bytes()).unwrap());
        let report = pair.bench.round();
        assert_eq!(report.failures.len(), 1, "the round tells of the message that fails, not of the batch");
        let answered = sent.map(|id| matches!(pair.bench.subnet.status(&id), IngressStatus::Replied(_)));
        assert_eq!(answered, [true, true, false, false]);
    }
}

#[test]
fn a_late_message_behind_which_nothing_is_expected_is_tried_once_a_round() {
    let late: Fail = || BackendError::Deadline { milliseconds: 9 };
    let (mut pair, ahead) = Pair::new(|script| {
        let poison = script.program([]);
        Some(Ahead { idle: true, poison: Some((poison, late)), ..Ahead::new(script, 16) })
    });
    let ahead = ahead.unwrap();
    let good = pair.bench.program([Op::Reply(b"ok".to_vec())]);
    for program in [good, ahead.poison.unwrap().0] {
        pair.bench.submit(pair.ids[1], "run", &program.to_be_bytes()).unwrap();
    }
    pair.bench.round();
    assert_eq!(ahead.failures.load(Ordering::SeqCst), 1);
}

#[test]
fn callbacks_of_one_call_context_are_run_once_each() {
    let (mut pair, ahead) = Pair::new(|script| Some(Ahead::new(script, 16)));
    let callee = pair.bench.program([Op::Reply(Vec::new())]);
    let [light, last] = [vec![], vec![Op::Reply(b"all".to_vec())]].map(|ops| pair.bench.program(ops));
    let calls = [light, light, light, last].map(|back| Op::Call(call(pair.ids[0], callee, back)));
    assert_eq!(pair.bench.run(pair.ids[1], calls).unwrap(), b"all");
    assert_eq!(ahead.unwrap().counts()[1], 0, "none was run to be discarded");
}

#[test]
fn after_something_was_discarded_nothing_is_run_ahead_in_the_same_turn() {
    let (mut pair, ahead) = Pair::new(|script| Some(Ahead { careless: true, ..Ahead::new(script, 4) }));
    let messages: Vec<_> = (0..20).map(|_| (1, vec![Act::Burn, Act::ReplyView])).collect();
    let in_batches = pair.run(&messages);
    assert_eq!(in_batches, Pair::new(|_| None).0.run(&messages));
    assert_eq!(ahead.unwrap().counts(), [0, 3], "the first batch, and no other");
}

#[test]
fn no_more_is_run_ahead_than_the_budget_of_the_round_has_room_for() {
    let mut config = SubnetConfig::application();
    // Room for two messages that do next to nothing.
    Arc::make_mut(&mut config.limits).round_instructions = 900_000;
    let (mut pair, ahead) = Pair::with(config, |script| Some(Ahead::new(script, 16)));
    pair.run(&(0..10).map(|_| (1, vec![Act::ReplyView])).collect::<Vec<_>>());
    assert_eq!(ahead.unwrap().counts(), [5, 0], "two in each round");
}
