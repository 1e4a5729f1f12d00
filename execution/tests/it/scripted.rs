//! A backend and a compiler that follow scripts: a message's argument, a callback's environment or a
//! module's text names a program, a list of [`Op`]s. Honest unless an op says [`Op::Lie`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use execution::memory::{Blob, PAGE_BYTES};
use execution::module::{CustomSection, Interface, MethodKind, SystemExports};
use execution::outcome::LogLine;
use execution::{
    Answer, Backend, BackendError, Callback, Compiler, Cycles, Effects, Ending, EntryPoint, ErrorCode,
    Execution, GlobalValue, Ingress, IngressStatus, InvalidModule, Invocation, Limits, Module, ModuleHash,
    Outcome, OutgoingCall, PausedRun, Principal, RoundReport, SchedulerOptions, Snapshot, Subnet,
    SubnetConfig, Trap, UserError,
};
use ic_management_canister_types::{CanisterSettings, UpdateSettingsArgs};
use sha2::{Digest, Sha256};

pub(crate) const ANONYMOUS: Principal = Principal::anonymous();
pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const START: u64 = 1_620_328_630 * SECOND;

/// A program's number.
pub(crate) type Program = u64;
/// The program that does nothing.
pub(crate) const NOTHING: Program = u64::MAX;

/// One thing a program does.
#[derive(Clone)]
pub(crate) enum Op {
    Reply(Vec<u8>),
    /// Replies with the argument of a callback: the response's data or text.
    ReplyResponse,
    /// Replies with all that the message is told.
    ReplyView,
    /// Replies with heap byte 0 of a page.
    ReplyHeap(u64),
    Reject(&'static str),
    Trap(&'static str),
    Heap(u64, u8),
    Stable(u64, u8),
    Global(i64),
    Call(Call),
    Accept(Cycles),
    Burn(Cycles),
    Timer(u64),
    Certify(&'static [u8]),
    Print(&'static str),
    AcceptMessage,
    Grow(u64),
    /// Uses up so many slices.
    Slices(u32),
    /// Changes the outcome before it is given.
    Lie(fn(&mut Outcome)),
}

#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) callee: Principal,
    pub(crate) method: &'static str,
    pub(crate) arg: Vec<u8>,
    pub(crate) cycles: Cycles,
    pub(crate) on_reply: Program,
    pub(crate) on_reject: Program,
    pub(crate) on_cleanup: Option<Program>,
    pub(crate) timeout: Option<u32>,
}

/// A call of `run` with `program`.
pub(crate) fn call(callee: Principal, program: Program, on_response: Program) -> Call {
    Call {
        callee,
        method: "run",
        arg: program.to_be_bytes().to_vec(),
        cycles: 0,
        on_reply: on_response,
        on_reject: on_response,
        on_cleanup: None,
        timeout: None,
    }
}

#[derive(Default)]
pub(crate) struct Scripted {
    programs: Mutex<Vec<Vec<Op>>>,
    /// Invocations in the order they ran, for single-threaded tests.
    pub(crate) seen: Mutex<Vec<Invocation>>,
    /// How many more executions of a canister fail, and with what.
    pub(crate) failing: Mutex<Option<(u32, Principal, Fail)>>,
    /// How many more resumptions of paused runs fail.
    pub(crate) failing_resumptions: Arc<Mutex<u32>>,
    /// Paused runs that were given up.
    pub(crate) aborted: Arc<AtomicU32>,
    /// What it was asked to give back something for, as texts.
    pub(crate) relieved: Mutex<Vec<String>>,
}

/// Makes a failure around the guest.
pub(crate) type Fail = fn() -> BackendError;

pub(crate) fn killed() -> BackendError {
    BackendError::WorkerDied { how: "signal 9".into() }
}

impl Scripted {
    pub(crate) fn program(&self, ops: impl IntoIterator<Item = Op>) -> Program {
        let mut programs = self.programs.lock().unwrap();
        programs.push(ops.into_iter().collect());
        programs.len() as u64 - 1
    }

    /// Gives a program other ops, which may name the program itself.
    pub(crate) fn replace(&self, program: Program, ops: impl IntoIterator<Item = Op>) {
        self.programs.lock().unwrap()[usize::try_from(program).unwrap()] = ops.into_iter().collect();
    }

    fn ops(&self, program: Program) -> Vec<Op> {
        let programs = self.programs.lock().unwrap();
        usize::try_from(program).ok().and_then(|index| programs.get(index).cloned()).unwrap_or_default()
    }

    fn run(&self, snapshot: &Snapshot, invocation: &Invocation) -> Outcome {
        self.seen.lock().unwrap().push(invocation.clone());
        let (program, response) = program_of(snapshot, invocation);
        let mut run = Run {
            snapshot,
            invocation,
            effects: Effects { globals: Arc::clone(&snapshot.globals), ..Effects::default() },
            balance: invocation.system.balance,
            logs: Vec::new(),
            trap: None,
            heap: std::collections::BTreeMap::new(),
            stable: std::collections::BTreeMap::new(),
        };
        let mut lies = Vec::new();
        let mut instructions = 1_000;
        for op in self.ops(program) {
            instructions += 10;
            if let Op::Lie(lie) = op {
                lies.push(lie);
            } else if run.trap.is_none() {
                run.op(op, &response);
            }
        }
        let mut outcome = run.finish(instructions);
        for lie in lies {
            lie(&mut outcome);
        }
        outcome
    }
}

/// Which program an entry point runs, and the data of a response.
fn program_of(snapshot: &Snapshot, invocation: &Invocation) -> (Program, Vec<u8>) {
    let from_arg = |arg: &[u8]| <[u8; 8]>::try_from(arg).map_or(NOTHING, u64::from_be_bytes);
    match &invocation.entry {
        EntryPoint::Init { arg }
        | EntryPoint::PostUpgrade { arg }
        | EntryPoint::Update { arg, .. }
        | EntryPoint::ReplicatedQuery { arg, .. }
        | EntryPoint::Query { arg, .. }
        | EntryPoint::CompositeQuery { arg, .. } => (from_arg(arg), Vec::new()),
        EntryPoint::Reply { callback, data, .. } => (callback.environment, data.to_vec()),
        EntryPoint::Reject { callback, code, message, .. } => {
            (callback.environment, format!("{code} {message}").into_bytes())
        }
        EntryPoint::Cleanup { callback, .. } => (callback.environment, Vec::new()),
        entry => {
            let section = snapshot.module.interface.custom_sections.get(entry.kind());
            (section.map_or(NOTHING, |section| from_arg(&section.content)), Vec::new())
        }
    }
}

struct Run<'a> {
    snapshot: &'a Snapshot,
    invocation: &'a Invocation,
    effects: Effects,
    balance: Cycles,
    logs: Vec<LogLine>,
    trap: Option<Trap>,
    heap: std::collections::BTreeMap<u64, u8>,
    stable: std::collections::BTreeMap<u64, u8>,
}

impl Run<'_> {
    fn op(&mut self, op: Op, response: &[u8]) {
        let limits = &self.invocation.limits;
        match op {
            Op::Reply(data) => self.answer(Answer::Reply(data)),
            Op::ReplyResponse => self.answer(Answer::Reply(response.to_vec())),
            Op::ReplyView => {
                let Invocation { entry: _, id: _, caller, system, .. } = self.invocation;
                self.answer(Answer::Reply(format!("{caller} {system:?}").into_bytes()));
            }
            Op::ReplyHeap(page) => {
                let mut byte = [self.heap.get(&page).copied().unwrap_or(0)];
                if !self.heap.contains_key(&page) {
                    self.snapshot.heap.read(page * PAGE_BYTES as u64, &mut byte);
                }
                self.answer(Answer::Reply(byte.to_vec()));
            }
            Op::Reject(text) => self.answer(Answer::Reject(text.into())),
            Op::Trap(text) => {
                let text = format!("Canister called `ic0.trap` with message: '{text}'");
                self.trap = Some(Trap { code: ErrorCode::CALLED_TRAP, text });
            }
            Op::Heap(page, byte) => drop(self.heap.insert(page, byte)),
            Op::Stable(page, byte) => {
                self.effects.memory.stable_pages = Some(self.snapshot.stable.wasm_pages().max(1));
                self.stable.insert(page, byte);
            }
            Op::Global(value) => self.effects.globals = Arc::from([GlobalValue::I64(value)]),
            Op::Call(call) => self.call(call),
            Op::Accept(max) => {
                let available = self.invocation.system.cycles_available - self.effects.cycles_accepted;
                let accepted = max.min(available);
                self.effects.cycles_accepted += accepted;
                self.balance += accepted;
            }
            Op::Burn(max) => {
                let liquid = self.invocation.system.freezing.liquid(limits, self.balance, 0);
                self.effects.cycles_burned += max.min(liquid);
                self.balance -= max.min(liquid);
            }
            Op::Timer(time) => self.effects.global_timer = Some(time),
            Op::Certify(data) => self.effects.certified_data = Some(data.to_vec()),
            Op::Print(text) => self.logs.push(LogLine { text: text.as_bytes().to_vec() }),
            Op::AcceptMessage => self.effects.accepted = true,
            Op::Grow(pages) => self.effects.memory.heap_pages = Some(self.snapshot.heap.wasm_pages() + pages),
            Op::Lie(_) | Op::Slices(_) => {}
        }
    }

    fn answer(&mut self, answer: Answer) {
        let system = &self.invocation.system;
        if system.answered || !system.answer_needed || self.effects.answer.is_some() {
            let text = "Canister violated contract: already answered".into();
            self.trap = Some(Trap { code: ErrorCode::CONTRACT_VIOLATION, text });
        } else {
            self.effects.answer = Some(answer);
        }
    }

    /// `call_perform`: no effect where it would return 2.
    fn call(&mut self, call: Call) {
        let Limits { update_instructions, queue_length, .. } = *self.invocation.limits;
        let limits = &self.invocation.limits;
        let system = &self.invocation.system;
        let bytes = (call.method.len() + call.arg.len()) as u64;
        let mut cost = call.cycles;
        if self.invocation.entry.is_replicated() {
            cost += limits.call_fee(bytes)
                + limits.response_reservation()
                + limits.execution_price(false, update_instructions);
        }
        let taken = system.queue_taken.iter().find(|(callee, _)| *callee == call.callee).map_or(0, |t| t.1)
            + self.effects.calls.iter().filter(|other| other.callee == call.callee).count();
        let made = self.effects.calls.iter().filter(|call| call.timeout_seconds.is_none()).count() as u64;
        let freezing = system.freezing.with_calls(made + u64::from(call.timeout.is_none()));
        if freezing.liquid(limits, self.balance, 0) < cost
            || taken >= queue_length
            || self.effects.calls.len() >= system.callbacks_free
        {
            return;
        }
        self.balance -= cost;
        let callback = |program| Callback { function: 0, environment: program };
        self.effects.calls.push(OutgoingCall {
            callee: call.callee,
            method: call.method.into(),
            arg: call.arg,
            cycles: call.cycles,
            on_reply: callback(call.on_reply),
            on_reject: callback(call.on_reject),
            on_cleanup: call.on_cleanup.map(callback),
            timeout_seconds: call.timeout,
        });
    }

    fn finish(mut self, instructions: u64) -> Outcome {
        let (heap, stable) = (self.heap.len() as u64, self.stable.len() as u64);
        let query = matches!(
            self.invocation.entry,
            EntryPoint::Query { .. } | EntryPoint::ReplicatedQuery { .. } | EntryPoint::InspectMessage { .. }
        );
        if query {
            self.effects.memory = execution::MemoryDelta::default();
        } else {
            let arena = &self.snapshot.arena;
            let store = |(page, byte)| (page, arena.store(&[byte; PAGE_BYTES]).unwrap());
            self.effects.memory.heap = self.heap.into_iter().map(store).collect();
            self.effects.memory.stable = self.stable.into_iter().map(store).collect();
        }
        let (ending, effects) = match self.trap {
            Some(trap) => (Ending::Trapped(trap), None),
            None => (Ending::Returned, Some(self.effects)),
        };
        Outcome {
            ending,
            instructions: instructions + 1_000 * (heap + stable),
            heap_pages_dirty: heap,
            stable_pages_dirty: stable,
            logs: self.logs,
            effects,
        }
    }
}

impl Backend for Scripted {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        if let Some((left, canister, fail)) = &mut *self.failing.lock().unwrap()
            && *left > 0
            && *canister == snapshot.canister
        {
            *left -= 1;
            return Err(fail());
        }
        let ops = self.ops(program_of(snapshot, invocation).0);
        let slices = ops.iter().map(|op| if let Op::Slices(slices) = op { *slices } else { 0 }).sum();
        let outcome = self.run(snapshot, invocation);
        let (failing, aborted) = (Arc::clone(&self.failing_resumptions), Arc::clone(&self.aborted));
        Ok(ScriptedRun { outcome, slices, failing, aborted }.go_on())
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        Ok(self.run(overlay.unwrap_or(snapshot), invocation))
    }

    fn relieve(&self, short: &BackendError) -> bool {
        self.relieved.lock().unwrap().push(short.to_string());
        true
    }
}

/// A run that has `slices` pauses before it.
struct ScriptedRun {
    outcome: Outcome,
    slices: u32,
    failing: Arc<Mutex<u32>>,
    aborted: Arc<AtomicU32>,
}

impl ScriptedRun {
    fn go_on(mut self) -> Execution {
        match self.slices.checked_sub(1) {
            None => Execution::Finished(self.outcome),
            Some(left) => {
                self.slices = left;
                Execution::Paused(Box::new(self))
            }
        }
    }
}

impl PausedRun for ScriptedRun {
    fn resume(self: Box<Self>, _: u64) -> Result<Execution, BackendError> {
        let mut failing = self.failing.lock().unwrap();
        if let Some(left) = failing.checked_sub(1) {
            *failing = left;
            return Err(killed());
        }
        drop(failing);
        Ok(self.go_on())
    }

    fn abort(self: Box<Self>) {
        self.aborted.fetch_add(1, Ordering::Relaxed);
    }
}

/// A module's text: words `init`, `post_upgrade`, `persistent`, or `kind=program` for an entry point
/// without argument; `public:name=program` makes the section public. `bad...` is refused.
impl Compiler for Scripted {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        let text = String::from_utf8_lossy(wasm).into_owned();
        if text.starts_with("bad") {
            return Ok(Err(InvalidModule("section 3: bad".into())));
        }
        let mut interface = Interface {
            has_memory: true,
            heap_pages_min: 1,
            heap_pages_max: 10,
            globals: vec![GlobalValue::I64(7)],
            compile_instructions: 6_000,
            reads_certificate: !text.contains("no_certificate"),
            ..Interface::default()
        };
        let methods = [
            ("run", MethodKind::Update),
            ("ask", MethodKind::Query),
            ("ask_all", MethodKind::CompositeQuery),
        ];
        interface.methods = methods.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        for word in text.split_whitespace() {
            let (kind, program) = word.split_once('=').unwrap_or((word, ""));
            let public = kind.starts_with("public:");
            let kind = kind.trim_start_matches("public:");
            let content = program.parse::<Program>().unwrap_or(NOTHING).to_be_bytes().to_vec();
            export(&mut interface.exports, kind);
            let name = if kind == "persistent" { "enhanced-orthogonal-persistence" } else { kind };
            interface.custom_sections.insert(name.to_owned(), CustomSection { public, content });
        }
        let hash = ModuleHash(Sha256::digest(wasm).into());
        let code = Blob::new(&[])?;
        Ok(Ok(Arc::new(Module { hash, wasm_bytes: wasm.len() as u64, interface, code })))
    }
}

fn export(exports: &mut SystemExports, kind: &str) {
    match kind {
        "start" => exports.start = true,
        "init" => exports.init = true,
        "pre_upgrade" => exports.pre_upgrade = true,
        "post_upgrade" => exports.post_upgrade = true,
        "inspect" => exports.inspect_message = true,
        "heartbeat" => exports.heartbeat = true,
        "timer" => exports.global_timer = true,
        "low_wasm_memory" => exports.low_wasm_memory = true,
        _ => {}
    }
}

/// A subnet on a scripted backend.
pub(crate) struct Bench {
    pub(crate) script: Arc<Scripted>,
    pub(crate) subnet: Subnet,
    pub(crate) time: u64,
    nonce: u64,
}

pub(crate) const BALANCE: Cycles = 1_000_000_000_000_000;

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(SubnetConfig::application(), 1)
    }

    pub(crate) fn with(config: SubnetConfig, threads: usize) -> Self {
        Self::on(config, threads, |script| Arc::clone(script) as Arc<dyn Backend>)
    }

    /// On a backend made of the scripted one.
    pub(crate) fn on(
        config: SubnetConfig,
        threads: usize,
        backend: impl FnOnce(&Arc<Scripted>) -> Arc<dyn Backend>,
    ) -> Self {
        Self::scheduled(config, SchedulerOptions { threads, ..SchedulerOptions::default() }, backend)
    }

    /// The same with other options.
    pub(crate) fn scheduled(
        config: SubnetConfig,
        options: SchedulerOptions,
        backend: impl FnOnce(&Arc<Scripted>) -> Arc<dyn Backend>,
    ) -> Self {
        let script = Arc::new(Scripted::default());
        let backend = backend(&script);
        let subnet = Subnet::new(config, backend, Arc::clone(&script) as Arc<dyn Compiler>, options);
        let mut bench = Self { script, subnet, time: START, nonce: 0 };
        bench.round();
        bench
    }

    pub(crate) fn program(&self, ops: impl IntoIterator<Item = Op>) -> Program {
        self.script.program(ops)
    }

    pub(crate) fn round(&mut self) -> RoundReport {
        self.time += SECOND;
        self.subnet.round(self.time, [7; 32])
    }

    pub(crate) fn empty_canister(&mut self) -> Principal {
        self.subnet.create_canister(ANONYMOUS, None, BALANCE).unwrap()
    }

    pub(crate) fn canister(&mut self, module: &str) -> Principal {
        let id = self.empty_canister();
        self.install(id, Mode::Install, module, NOTHING).unwrap();
        id
    }

    pub(crate) fn submit(
        &mut self,
        receiver: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<execution::MessageId, UserError> {
        self.nonce += 1;
        self.subnet.submit(Ingress {
            sender: ANONYMOUS,
            receiver,
            method: method.into(),
            arg: Arc::from(arg),
            nonce: self.nonce.to_be_bytes().to_vec(),
        })
    }

    /// Rounds until the message is answered.
    pub(crate) fn ingress(
        &mut self,
        receiver: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, UserError> {
        let id = self.submit(receiver, method, arg)?;
        for _ in 0..20 {
            self.round();
            match self.subnet.status(&id) {
                IngressStatus::Replied(data) => return Ok(data.to_vec()),
                IngressStatus::Rejected(error) => return Err(error),
                _ => {}
            }
        }
        panic!("no answer in 20 rounds")
    }

    pub(crate) fn run(
        &mut self,
        canister: Principal,
        ops: impl IntoIterator<Item = Op>,
    ) -> Result<Vec<u8>, UserError> {
        let program = self.program(ops);
        self.ingress(canister, "run", &program.to_be_bytes())
    }

    /// A management call with a Candid argument and reply.
    pub(crate) fn managed<T: candid::CandidType + serde::de::DeserializeOwned>(
        &mut self,
        method: &str,
        arg: &impl candid::CandidType,
    ) -> Result<T, UserError> {
        let reply = self.manage(method, &candid::encode_one(arg).unwrap())?;
        Ok(candid::decode_one(&reply).unwrap())
    }

    /// A management call by canister `by`; what it is answered, a reject as its code and text.
    pub(crate) fn manage_as(&mut self, by: Principal, method: &'static str, arg: Vec<u8>) -> Vec<u8> {
        self.manage_with(by, method, arg, 0)
    }

    /// The same with cycles.
    pub(crate) fn manage_with(
        &mut self,
        by: Principal,
        method: &'static str,
        arg: Vec<u8>,
        cycles: Cycles,
    ) -> Vec<u8> {
        let back = self.program([Op::ReplyResponse]);
        let mut request = call(Principal::management_canister(), NOTHING, back);
        (request.method, request.arg, request.cycles) = (method, arg, cycles);
        self.run(by, [Op::Call(request)]).unwrap()
    }

    /// Gives a canister these controllers besides [`ANONYMOUS`].
    pub(crate) fn control(&mut self, canister_id: Principal, by: &[Principal]) {
        let controllers = Some([&[ANONYMOUS], by].concat());
        let settings = CanisterSettings { controllers, ..CanisterSettings::default() };
        let arg = UpdateSettingsArgs { canister_id, settings, sender_canister_version: None };
        self.manage("update_settings", &candid::encode_one(arg).unwrap()).unwrap();
    }

    pub(crate) fn manage(&mut self, method: &str, arg: &[u8]) -> Result<Vec<u8>, UserError> {
        self.ingress(Principal::management_canister(), method, arg)
    }

    pub(crate) fn install(
        &mut self,
        id: Principal,
        mode: Mode,
        module: &str,
        program: Program,
    ) -> Result<Vec<u8>, UserError> {
        let arg = install_arg(id, mode, module, program);
        self.manage("install_code", &arg)
    }

    pub(crate) fn state(&self, id: Principal) -> &execution::state::CanisterState {
        self.subnet.state().canister(&id).unwrap()
    }

    pub(crate) fn heap(&self, id: Principal, page: u64) -> u8 {
        let mut byte = [0];
        self.state(id).code.as_ref().unwrap().heap.read(page * PAGE_BYTES as u64, &mut byte);
        byte[0]
    }
}

#[derive(candid::CandidType, serde::Deserialize, Clone, Copy)]
pub(crate) enum Mode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<UpgradeOptions>),
}

#[derive(candid::CandidType, serde::Deserialize, Clone, Copy)]
pub(crate) struct UpgradeOptions {
    pub(crate) skip_pre_upgrade: Option<bool>,
    pub(crate) wasm_memory_persistence: Option<Persistence>,
}

#[derive(candid::CandidType, serde::Deserialize, Clone, Copy)]
pub(crate) enum Persistence {
    #[serde(rename = "keep")]
    Keep,
}

#[derive(candid::CandidType)]
struct InstallArg<'a> {
    mode: Mode,
    canister_id: Principal,
    wasm_module: &'a [u8],
    arg: Vec<u8>,
}

pub(crate) fn install_arg(canister_id: Principal, mode: Mode, module: &str, program: Program) -> Vec<u8> {
    let arg = program.to_be_bytes().to_vec();
    candid::encode_one(InstallArg { mode, canister_id, wasm_module: module.as_bytes(), arg }).unwrap()
}

#[derive(candid::CandidType)]
struct IdArg {
    canister_id: Principal,
}

pub(crate) fn id_arg(canister_id: Principal) -> Vec<u8> {
    candid::encode_one(IdArg { canister_id }).unwrap()
}
