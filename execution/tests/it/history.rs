//! Random histories of a subnet, with books: what every run did, and where every cycle is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use execution::state::{CanisterMessage, CanisterState, Input, Status};
use execution::{
    Backend, BackendError, Compiler, Cycles, Ended, Ending, EntryPoint, Executed, Execution, Instructions,
    Invocation, Limits, MessageId, Outcome, PausedRun, Principal, SchedulerOptions, Snapshot, Subnet,
    SubnetConfig, SubnetState,
};
use proptest::prelude::*;

use crate::scripted::{
    BALANCE, Bench, Mode, NOTHING, Op, Program, Scripted, call, id_arg, install_arg, killed,
};

/// Canisters that a history starts with; calls go to one more, which doesn't exist at first.
pub(crate) const CANISTERS: usize = 3;

/// What a program does, with its calls' programs inside.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Accept(u16),
    Burn(u16),
    Reply,
    Reject,
    Trap,
    Heap(u8),
    Slices(u8),
    Deposit { to: u8, cycles: u16 },
    Call(Box<Calling>),
}

#[derive(Clone, Debug)]
pub(crate) struct Calling {
    to: u8,
    cycles: u16,
    timeout: Option<u32>,
    callee: Vec<Step>,
    on_reply: Vec<Step>,
    on_reject: Vec<Step>,
    on_cleanup: Option<Vec<Step>>,
}

/// Something that happens to a subnet.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Message {
        to: u8,
        steps: Vec<Step>,
    },
    Round,
    /// The next executions of a canister fail around the guest.
    Fail {
        canister: u8,
        times: u8,
    },
    /// The next resumptions of paused messages do.
    FailResumed {
        times: u8,
    },
    Abort,
    TopUp {
        to: u8,
        cycles: u16,
    },
    Create {
        cycles: u16,
    },
    Stop(u8),
    Start(u8),
    Uninstall(u8),
    Install(u8),
    Delete(u8),
}

fn timeouts(best_effort: bool) -> BoxedStrategy<Option<u32>> {
    if best_effort { prop::option::weighted(0.3, 0..5_u32).boxed() } else { Just(None).boxed() }
}

fn steps(best_effort: bool) -> impl Strategy<Value = Vec<Step>> {
    let leaf = prop_oneof![
        any::<u16>().prop_map(Step::Accept),
        any::<u16>().prop_map(Step::Burn),
        Just(Step::Reply),
        Just(Step::Reply),
        Just(Step::Reject),
        Just(Step::Trap),
        (0..16_u8).prop_map(Step::Heap),
        (1..3_u8).prop_map(Step::Slices),
        (0..4_u8, any::<u16>()).prop_map(|(to, cycles)| Step::Deposit { to, cycles }),
    ];
    let step = leaf.prop_recursive(4, 24, 4, move |inner| {
        let program = prop::collection::vec(inner, 0..4);
        let programs = (program.clone(), program.clone(), program.clone(), prop::option::of(program));
        (0..4_u8, any::<u16>(), timeouts(best_effort), programs).prop_map(
            |(to, cycles, timeout, (callee, on_reply, on_reject, on_cleanup))| {
                Step::Call(Box::new(Calling { to, cycles, timeout, callee, on_reply, on_reject, on_cleanup }))
            },
        )
    });
    prop::collection::vec(step, 0..5)
}

/// Messages, rounds and failures.
fn traffic(best_effort: bool) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..3_u8, steps(best_effort)).prop_map(|(to, steps)| Event::Message { to, steps }),
        4 => Just(Event::Round),
        1 => (0..3_u8, 1..5_u8).prop_map(|(canister, times)| Event::Fail { canister, times }),
        1 => Just(Event::Abort),
    ]
}

fn canister() -> impl Strategy<Value = u8> {
    0..4_u8
}

/// A history of traffic alone.
pub(crate) fn calm() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(traffic(false), 1..16)
}

/// A history in which everything happens.
pub(crate) fn wild() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        12 => traffic(true),
        1 => (1..5_u8).prop_map(|times| Event::FailResumed { times }),
        1 => (canister(), any::<u16>()).prop_map(|(to, cycles)| Event::TopUp { to, cycles }),
        1 => any::<u16>().prop_map(|cycles| Event::Create { cycles }),
        1 => canister().prop_map(Event::Stop),
        1 => canister().prop_map(Event::Start),
        1 => canister().prop_map(Event::Uninstall),
        1 => canister().prop_map(Event::Install),
        1 => canister().prop_map(Event::Delete),
    ];
    prop::collection::vec(event, 1..24)
}

/// What a run claimed, by invocation.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) entry: EntryPoint,
    pub(crate) caller: Principal,
    pub(crate) outcome: Outcome,
}

/// The scripted backend, and a note of every outcome that it gives.
pub(crate) struct Noted {
    script: Arc<Scripted>,
    claims: Arc<Mutex<HashMap<u64, Claim>>>,
}

/// A paused run whose outcome is still to be noted.
struct NotedRun {
    run: Box<dyn PausedRun>,
    claims: Arc<Mutex<HashMap<u64, Claim>>>,
    invocation: Invocation,
}

fn note(
    claims: &Arc<Mutex<HashMap<u64, Claim>>>,
    invocation: &Invocation,
    execution: Execution,
) -> Execution {
    match execution {
        Execution::Finished(outcome) => {
            let Invocation { entry, caller, .. } = invocation.clone();
            let claim = Claim { entry, caller, outcome: outcome.clone() };
            claims.lock().unwrap().insert(invocation.id, claim);
            Execution::Finished(outcome)
        }
        Execution::Paused(run) => {
            let (claims, invocation) = (Arc::clone(claims), invocation.clone());
            Execution::Paused(Box::new(NotedRun { run, claims, invocation }))
        }
    }
}

impl PausedRun for NotedRun {
    fn resume(self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError> {
        let Self { run, claims, invocation } = *self;
        Ok(note(&claims, &invocation, run.resume(slice)?))
    }

    fn abort(self: Box<Self>) {
        self.run.abort();
    }
}

impl Backend for Noted {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        Ok(note(&self.claims, invocation, self.script.execute(snapshot, invocation)?))
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

/// A committed or trapped run, and what it claimed.
pub(crate) struct Ran {
    pub(crate) executed: Executed,
    pub(crate) claim: Claim,
}

impl Ran {
    /// Whether its effects are part of the state.
    pub(crate) fn is_committed(&self) -> bool {
        !matches!(self.executed.ended, Ended::Trap(_)) && self.claim.outcome.ending == Ending::Returned
    }
}

/// A history on its way.
pub(crate) struct History {
    pub(crate) bench: Bench,
    pub(crate) ids: Vec<Principal>,
    pub(crate) messages: Vec<MessageId>,
    pub(crate) runs: Vec<Ran>,
    /// Cycles that came from outside, less those that left for good, and the most that may have got lost.
    pub(crate) owed: Cycles,
    pub(crate) may_lose: Cycles,
    /// Canisters whose code or whole state was taken away.
    pub(crate) gutted: BTreeSet<Principal>,
    claims: Arc<Mutex<HashMap<u64, Claim>>>,
    free: bool,
    /// Where top-ups and new canisters are waited for.
    gifts: Vec<(MessageId, Cycles)>,
}

/// An application subnet where nothing costs anything.
pub(crate) fn free() -> SubnetConfig {
    let limits = Limits { system_subnet: false, ..Limits::system() };
    SubnetConfig { limits: Arc::new(limits), ..SubnetConfig::application() }
}

#[derive(candid::CandidType)]
struct TopUp {
    canister_id: Principal,
    amount: candid::Nat,
}

#[derive(candid::CandidType)]
struct Create {
    amount: Option<candid::Nat>,
}

impl History {
    pub(crate) fn new(config: SubnetConfig, threads: usize) -> Self {
        let mut bench = Bench::with(config.clone(), 1);
        let claims = Arc::default();
        let backend = Noted { script: Arc::clone(&bench.script), claims: Arc::clone(&claims) };
        let options = SchedulerOptions { threads, ..SchedulerOptions::default() };
        let compiler = Arc::clone(&bench.script) as Arc<dyn Compiler>;
        let free = config.limits.prices.message == 0;
        bench.subnet = Subnet::new(config, Arc::new(backend), compiler, options);
        let mut ids: Vec<Principal> = (0..CANISTERS).map(|_| bench.canister("")).collect();
        // The next one, if there is ever one more.
        let mut next = [1; 10];
        next[..8].copy_from_slice(&(0x01e0_1d15 + CANISTERS as u64).to_be_bytes());
        ids.push(Principal::from_slice(&next));
        let mut history = Self {
            bench,
            ids,
            messages: Vec::new(),
            runs: Vec::new(),
            owed: 0,
            may_lose: 0,
            gutted: BTreeSet::new(),
            claims,
            free,
            gifts: Vec::new(),
        };
        history.owed = held(history.bench.subnet.state());
        assert!(history.owed <= BALANCE * CANISTERS as Cycles);
        history
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits::clone(&self.bench.subnet.config().limits)
    }

    pub(crate) fn event(&mut self, event: &Event) {
        let ids = self.ids.clone();
        let id = |canister: &u8| ids[usize::from(*canister)];
        match event {
            Event::Message { to, steps } => {
                let program = program(&self.bench, &self.ids, steps);
                let to = id(to);
                self.submit(to, "run", &program.to_be_bytes());
            }
            Event::Round => self.round(),
            Event::Fail { canister, times } => {
                let canister = id(canister);
                *self.bench.script.failing.lock().unwrap() = Some(((*times).into(), canister, killed));
            }
            Event::FailResumed { times } => {
                *self.bench.script.failing_resumptions.lock().unwrap() = (*times).into();
            }
            Event::Abort => self.bench.subnet.abort_paused(),
            Event::TopUp { to, cycles } => {
                let arg = TopUp { canister_id: id(to), amount: (*cycles).into() };
                let gift = self.manage("provisional_top_up_canister", &candid::encode_one(arg).unwrap());
                self.gifts.extend(gift.map(|gift| (gift, Cycles::from(*cycles))));
            }
            Event::Create { cycles } => {
                let arg = candid::encode_one(Create { amount: Some((*cycles).into()) }).unwrap();
                let gift = self.manage("provisional_create_canister_with_cycles", &arg);
                self.gifts.extend(gift.map(|gift| (gift, Cycles::from(*cycles))));
            }
            Event::Stop(canister) => drop(self.manage("stop_canister", &id_arg(id(canister)))),
            Event::Start(canister) => drop(self.manage("start_canister", &id_arg(id(canister)))),
            Event::Uninstall(canister) => {
                let canister = id(canister);
                self.gutted.insert(canister);
                self.manage("uninstall_code", &id_arg(canister));
            }
            Event::Install(canister) => {
                let arg = install_arg(id(canister), Mode::Install, "", NOTHING);
                self.manage("install_code", &arg);
            }
            Event::Delete(canister) => {
                let canister = id(canister);
                if !self.come_to_rest() {
                    return;
                }
                let had = self.bench.subnet.state().canister(&canister).map_or(0, owned);
                self.manage("delete_canister", &id_arg(canister));
                self.round();
                if self.bench.subnet.state().canister(&canister).is_none() {
                    self.gutted.insert(canister);
                    self.owed -= had;
                }
            }
        }
    }

    /// Runs rounds until nothing is in hand or waits, so that what goes with a canister is what it had before. False:
    /// something fails all the time, or waits for good.
    fn come_to_rest(&mut self) -> bool {
        let at_rest = |state: &SubnetState| {
            let idle = |canister: &CanisterState| {
                canister.paused.is_none() && canister.inputs.is_empty() && canister.calls.callbacks.is_empty()
            };
            state.management.is_empty() && state.canisters.values().all(|canister| idle(canister))
        };
        for _ in 0..20 {
            self.round();
            if at_rest(self.bench.subnet.state()) {
                return true;
            }
        }
        false
    }

    fn submit(&mut self, to: Principal, method: &str, arg: &[u8]) -> Option<MessageId> {
        let id = self.bench.submit(to, method, arg).ok()?;
        // A nonce of eight bytes is in each message.
        let bytes = (method.len() + arg.len() + 8) as u64;
        self.owed -= self.limits().ingress_fee(bytes);
        self.messages.push(id);
        Some(id)
    }

    fn manage(&mut self, method: &str, arg: &[u8]) -> Option<MessageId> {
        self.submit(Principal::management_canister(), method, arg)
    }

    pub(crate) fn round(&mut self) {
        let report = self.bench.round();
        for executed in report.executed {
            let claim = self.claims.lock().unwrap()[&executed.invocation].clone();
            let ran = Ran { executed, claim };
            self.owed -= self.price(&ran);
            if ran.is_committed() {
                let effects = ran.claim.outcome.effects.as_ref().unwrap();
                self.owed -= effects.cycles_burned;
                let best_effort = effects.calls.iter().filter(|call| call.timeout_seconds.is_some());
                self.may_lose += best_effort.map(|call| call.cycles).sum::<Cycles>();
            }
            self.runs.push(ran);
        }
        let subnet = &self.bench.subnet;
        let (given, waiting) = std::mem::take(&mut self.gifts)
            .into_iter()
            .partition(|(id, _)| matches!(subnet.status(id), execution::IngressStatus::Replied(_)));
        self.gifts = waiting;
        let given: Vec<(MessageId, Cycles)> = given;
        self.owed += given.iter().map(|(_, cycles)| cycles).sum::<Cycles>();
    }

    /// What a run costs by the price list: itself, its calls, and the response that it is given.
    fn price(&self, ran: &Ran) -> Cycles {
        if self.free {
            return 0;
        }
        let limits = self.limits();
        let instructions = ran.claim.outcome.instructions;
        let run = match ran.claim.entry {
            EntryPoint::Cleanup { .. } => {
                limits.scaled(limits.prices.instruction * Cycles::from(instructions))
            }
            _ => limits.execution_price(false, instructions),
        };
        let response = match &ran.claim.entry {
            EntryPoint::Reply { data, .. } => limits.response_price(data.len() as u64),
            EntryPoint::Reject { message, .. } => limits.response_price(message.len() as u64),
            _ => 0,
        };
        let calls = ran.claim.outcome.effects.iter().filter(|_| ran.is_committed()).flat_map(|e| &e.calls);
        let fees: Cycles =
            calls.map(|call| limits.call_fee((call.method.len() + call.arg.len()) as u64)).sum();
        run + response + fees
    }

    /// Ends all failures, starts what is stopped, and runs rounds until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        *self.bench.script.failing.lock().unwrap() = None;
        *self.bench.script.failing_resumptions.lock().unwrap() = 0;
        for id in self.ids.clone() {
            self.bench.subnet.release(&id);
            self.manage("start_canister", &id_arg(id));
        }
        for _ in 0..60 {
            self.round();
        }
    }

    /// How often each callback program of a call was started, by caller.
    pub(crate) fn answers(&self) -> BTreeMap<(Principal, Program), u64> {
        let mut answers = BTreeMap::new();
        for ran in &self.runs {
            if let EntryPoint::Reply { callback, .. } | EntryPoint::Reject { callback, .. } = &ran.claim.entry
            {
                *answers.entry((ran.executed.canister, callback.environment)).or_default() += 1;
            }
        }
        answers
    }
}

/// The scripted program of some steps. Each list of steps has a program of its own.
fn program(bench: &Bench, ids: &[Principal], steps: &[Step]) -> Program {
    let silent = |steps: &[Step]| -> Vec<Step> {
        let quiet =
            |step: &&Step| matches!(step, Step::Heap(_) | Step::Trap | Step::Slices(_) | Step::Burn(_));
        steps.iter().filter(quiet).cloned().collect()
    };
    let ops: Vec<Op> = steps
        .iter()
        .map(|step| match step {
            Step::Accept(cycles) => Op::Accept(Cycles::from(*cycles)),
            Step::Burn(cycles) => Op::Burn(Cycles::from(*cycles)),
            Step::Reply => Op::Reply(vec![1]),
            Step::Reject => Op::Reject("r"),
            Step::Trap => Op::Trap("t"),
            Step::Heap(page) => Op::Heap(u64::from(*page), 1),
            Step::Slices(slices) => Op::Slices((*slices).into()),
            Step::Deposit { to, cycles } => {
                let mut request = call(Principal::management_canister(), 0, bench.program([]));
                request.method = "deposit_cycles";
                request.arg = id_arg(ids[usize::from(*to)]);
                request.cycles = Cycles::from(*cycles);
                Op::Call(request)
            }
            Step::Call(calling) => {
                let callee = program(bench, ids, &calling.callee);
                let on_reply = program(bench, ids, &calling.on_reply);
                let mut request = call(ids[usize::from(calling.to)], callee, on_reply);
                request.on_reject = program(bench, ids, &calling.on_reject);
                request.on_cleanup =
                    calling.on_cleanup.as_ref().map(|steps| program(bench, ids, &silent(steps)));
                request.cycles = Cycles::from(calling.cycles);
                request.timeout = calling.timeout;
                Op::Call(request)
            }
        })
        .collect();
    bench.program(ops)
}

/// All cycles there are: balances, what waits in call contexts, what was set aside for responses, what messages
/// carry.
pub(crate) fn held(state: &SubnetState) -> Cycles {
    let waiting: Cycles = state.management.iter().map(|call| call.cycles).sum();
    state.canisters.values().map(|canister| owned(canister)).sum::<Cycles>() + waiting
}

fn owned(canister: &CanisterState) -> Cycles {
    let contexts: Cycles = canister.calls.contexts.values().map(|context| context.available).sum();
    let aside = canister.calls.callbacks.values();
    let aside: Cycles = aside.map(|call| call.execution_prepaid + call.transmission_prepaid).sum();
    let queued: Cycles = canister.inputs.canisters.values().flatten().map(carried).sum();
    let stops: Cycles = match &canister.status {
        Status::Stopping(waiters) => waiters.iter().map(|waiter| waiter.cycles).sum(),
        Status::Running | Status::Stopped => 0,
    };
    let in_hand = match canister.paused.as_ref().map(|message| &message.input) {
        Some(Input::Canister(message)) => carried(message),
        Some(Input::Install(install)) => install.call.cycles,
        Some(Input::Task(_) | Input::Ingress(_)) | None => 0,
    };
    canister.balance + canister.reserved + contexts + aside + queued + stops + in_hand
}

fn carried(message: &CanisterMessage) -> Cycles {
    match message {
        CanisterMessage::Request(request) => request.cycles,
        CanisterMessage::Response(response) => response.refund,
    }
}
