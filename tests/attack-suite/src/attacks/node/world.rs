//! A node with two canisters, whose workers are threads of this process: honest, but for one answer.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use execution::memory::{Blob, PAGE_BYTES};
use execution::module::{Interface, MethodKind};
use execution::{
    BackendError, Compiler, GlobalValue, Ingress, InvalidModule, Module, ModuleHash, Principal,
    SchedulerOptions, Subnet, SubnetConfig,
};
use sandbox_host::source::{WorkerProcess, WorkerSource};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase};
use sandbox_os::{Ended, Socket, SocketError};
use sandbox_protocol::{
    Answer, Assembly, Binding, Bytes, Effects, End, Entry, Finished, Global, List, Loaded, PACKET_BYTES,
    ToNode, ToWorker, decode, encode, packets,
};

/// Where workers say that their memory is.
const LOADED: Loaded = Loaded { heap: 1 << 30, stable: 1 << 40 };
/// Heap of a canister, 64 KiB pages: now and at most.
pub(super) const HEAP_PAGES: u64 = 1;
const HEAP_PAGES_MAX: u64 = 4;
/// Longest wait for anything that is expected to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Where a deadline is what stops an attack.
pub(super) const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// A step of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Begin,
    Load,
    Lock,
    /// A message that may change state.
    Message,
    Query,
}

/// What a worker does instead of giving the right answer.
pub(super) type Lie = fn(&mut Worker, Binding, &ToNode<'_>) -> Result<(), SocketError>;

/// The lie, at which step, and whose worker tells it in a message; `None`: everybody's.
#[derive(Default)]
pub(super) struct Plan {
    lie: Mutex<Option<(Step, Lie)>>,
    only: Mutex<Option<Principal>>,
}

impl Plan {
    pub(super) fn set(&self, plan: Option<(Step, Lie)>) {
        *self.lie.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    fn only(&self, canister: Principal) {
        *self.only.lock().unwrap_or_else(PoisonError::into_inner) = Some(canister);
    }

    fn at(&self, step: Step, canister: &[u8]) -> Option<Lie> {
        let only = *self.only.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = self.lie.lock().unwrap_or_else(PoisonError::into_inner);
        let in_a_message = matches!(step, Step::Message | Step::Query);
        let meant = !in_a_message || only.is_none_or(|only| only.as_slice() == canister);
        plan.filter(|(at, _)| *at == step && meant).map(|(_, lie)| lie)
    }
}

/// A worker's end of a conversation.
pub(super) struct Worker {
    pub(super) socket: Socket,
    plan: Arc<Plan>,
    packet: Vec<u8>,
    request: Assembly,
    messages: u64,
}

impl Worker {
    pub(super) fn start(socket: Socket, plan: Arc<Plan>) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let mut worker = Self {
                socket,
                plan,
                packet: vec![0; PACKET_BYTES],
                request: Assembly::default(),
                messages: 0,
            };
            let _hung_up = worker.serve();
        })
    }

    fn serve(&mut self) -> Result<(), SocketError> {
        for (step, right) in
            [(Step::Begin, ToNode::Ready), (Step::Load, ToNode::Loaded(LOADED)), (Step::Lock, ToNode::Locked)]
        {
            let binding = self.receive()?;
            self.answer(step, &[], binding, &right)?;
        }
        loop {
            let binding = self.receive()?;
            let body = self.request.body().to_vec();
            let Ok(ToWorker::Execute(execute)) = decode(&body) else { return Ok(()) };
            let query = matches!(execute.invocation.entry, Entry::Query(..));
            self.messages += 1;
            let text = format!("answer {}", self.messages);
            let system = &execute.invocation.system;
            let answer =
                (system.answer_needed && !system.answered).then_some(Answer::Reply(Bytes(text.as_bytes())));
            let right = ToNode::Finished(Box::new(Finished {
                heap_pages: execute.sync.heap_pages,
                effects: Some(Effects { answer, globals: execute.sync.globals, ..effects() }),
                ..finished()
            }));
            let canister = execute.invocation.system.canister.0;
            self.answer(if query { Step::Query } else { Step::Message }, canister, binding, &right)?;
        }
    }

    /// Receives a request, whole.
    pub(super) fn receive(&mut self) -> Result<Binding, SocketError> {
        self.request.restart();
        loop {
            let (bytes, _files) = self.socket.receive_with_files(&mut self.packet)?;
            match self.request.push(&self.packet[..bytes]) {
                Ok(Some(binding)) => return Ok(binding),
                Ok(None) => {}
                Err(_) => return Err(SocketError::Closed),
            }
        }
    }

    /// Takes no packet more, until the node hangs up.
    pub(super) fn never_reads(&self) -> Result<(), SocketError> {
        use rustix::event::{PollFd, PollFlags, poll};
        // Hanging up is told whether it is asked for or not.
        let _hung_up = poll(&mut [PollFd::new(&self.socket, PollFlags::empty())], None);
        Err(SocketError::Closed)
    }

    fn answer(
        &mut self,
        step: Step,
        canister: &[u8],
        binding: Binding,
        right: &ToNode<'_>,
    ) -> Result<(), SocketError> {
        match self.plan.at(step, canister) {
            Some(lie) => lie(self, binding, right),
            None => self.reply(binding, right),
        }
    }

    pub(super) fn reply(&self, binding: Binding, message: &ToNode<'_>) -> Result<(), SocketError> {
        let mut frame = Vec::new();
        encode(binding, message, &mut frame).map_err(|_| SocketError::Closed)?;
        self.raw(&frame)
    }

    pub(super) fn raw(&self, frame: &[u8]) -> Result<(), SocketError> {
        packets(frame).try_for_each(|packet| self.socket.send(packet, PATIENCE))
    }

    /// The right answer with a claim changed.
    pub(super) fn claim(
        &self,
        binding: Binding,
        right: &ToNode<'_>,
        change: impl FnOnce(&mut Finished<'_>),
    ) -> Result<(), SocketError> {
        let ToNode::Finished(finished) = right else { return Err(SocketError::Closed) };
        let mut claim = finished.clone();
        change(&mut claim);
        self.reply(binding, &ToNode::Finished(claim))
    }
}

fn effects() -> Effects<'static> {
    Effects {
        globals: List(vec![Global::I32(0)]),
        answer: None,
        calls: List(vec![]),
        certified_data: None,
        global_timer: None,
        cycles_accepted: 0,
        cycles_burned: 0,
        accepted: false,
    }
}

fn finished() -> Finished<'static> {
    Finished {
        end: End::Returned,
        instructions: 5,
        heap_pages_dirty: 0,
        stable_pages_dirty: 0,
        logs: List(vec![]),
        effects: Some(effects()),
        heap_pages: HEAP_PAGES,
        stable_pages: 0,
        heap: List(vec![]),
        stable: List(vec![]),
        reusable: true,
    }
}

struct Workers(Arc<Plan>);

impl WorkerSource for Workers {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let spawn = |error: SocketError| BackendError::Spawn(error.to_string());
        let (node, worker) = Socket::pair().map_err(spawn)?;
        // As the launcher does.
        node.refuse_files();
        let thread = Worker::start(worker, Arc::clone(&self.0));
        Ok(Box::new(Process { socket: Some(node), thread: Some(thread) }))
    }

    fn private_bytes(&self, _pid: i32) -> Option<u64> {
        Some(0)
    }
}

struct Process {
    socket: Option<Socket>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Process {
    /// The worker is gone when this returns, its descriptors too.
    fn drop(&mut self) {
        self.socket = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

impl WorkerProcess for Process {
    fn pid(&self) -> i32 {
        1
    }

    fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("open while the process is there")
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn verify(&self, _phase: Phase, _memory: &[Range<u64>]) -> Result<(), NotConfined> {
        Ok(())
    }

    fn pull(&self, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError> {
        let heap = LOADED.heap..LOADED.heap + HEAP_PAGES_MAX * 16 * PAGE_BYTES as u64;
        if from.iter().any(|span| span.bytes > 0 && !heap.contains(&span.address)) {
            return Err(PullError::Unmapped);
        }
        into.into_iter().for_each(|range| range.fill(7));
        Ok(())
    }

    fn kill(&mut self) -> Ended {
        // What an attacker would have it be.
        Ended::Exited(0)
    }
}

/// Takes anything for a module with a method of each kind.
struct Any;

impl Compiler for Any {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        let mut interface = Interface {
            has_memory: true,
            heap_pages_min: HEAP_PAGES,
            heap_pages_max: HEAP_PAGES_MAX,
            globals: vec![GlobalValue::I32(0)],
            ..Interface::default()
        };
        interface.methods.insert("set".into(), MethodKind::Update);
        interface.methods.insert("get".into(), MethodKind::Query);
        let code = Blob::new(b"code")?;
        Ok(Ok(Arc::new(Module { hash: ModuleHash([1; 32]), wasm_bytes: wasm.len() as u64, interface, code })))
    }
}

fn user() -> Principal {
    Principal::self_authenticating(b"the user of the attack suite")
}

/// The node.
pub(super) struct Node {
    subnet: Subnet,
    sandbox: Arc<Sandboxed>,
    plan: Arc<Plan>,
    rounds: u64,
    target: Principal,
    sibling: Principal,
}

/// What a round came to.
struct Round {
    /// Why the target's message was not run.
    failure: Option<String>,
}

impl Node {
    /// With two canisters that have served a message each, so that their workers are there.
    pub(super) fn new(patience: Duration) -> Result<Self, String> {
        let plan = Arc::new(Plan::default());
        let options = SandboxOptions {
            pool: 0,
            step_patience: patience,
            // No message adds to the deadline.
            instructions_per_second_min: u64::MAX,
            ..SandboxOptions::default()
        };
        let source = Box::new(Workers(Arc::clone(&plan)));
        let sandbox = Sandboxed::with_source(source, options).map_err(|error| error.to_string())?;
        let sandbox = Arc::new(sandbox);
        let scheduler = SchedulerOptions { threads: 1, ..SchedulerOptions::default() };
        let backend = Arc::clone(&sandbox) as Arc<dyn execution::Backend>;
        let mut subnet = Subnet::new(SubnetConfig::application(), backend, Arc::new(Any), scheduler);
        let mut made = || subnet.create_canister(user(), None, 1 << 60).map_err(|error| error.to_string());
        let (target, sibling) = (made()?, made()?);
        plan.only(target);
        let mut node = Self { subnet, sandbox, plan, rounds: 0, target, sibling };
        for id in [target, sibling] {
            node.submit(
                Principal::management_canister(),
                "install_code",
                super::layers::install_arg(id, &[0]),
            )?;
            node.round();
        }
        node.both(Vec::new())?;
        match node.round().failure {
            None => Ok(node),
            Some(why) => Err(format!("an honest worker fails: {why}")),
        }
    }

    fn submit(&mut self, receiver: Principal, method: &str, arg: Vec<u8>) -> Result<(), String> {
        static NONCE: AtomicU64 = AtomicU64::new(0);
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed).to_le_bytes().to_vec();
        let message = Ingress { sender: user(), receiver, method: method.into(), arg: arg.into(), nonce };
        self.subnet.submit(message).map(drop).map_err(|error| error.to_string())
    }

    fn both(&mut self, arg: Vec<u8>) -> Result<(), String> {
        let (target, sibling) = (self.target, self.sibling);
        self.submit(target, "set", arg)?;
        self.submit(sibling, "set", Vec::new())
    }

    fn round(&mut self) -> Round {
        self.rounds += 1;
        let report = self.subnet.round(1_700_000_000_000_000_000 + self.rounds * 1_000_000_000, [0; 32]);
        let of_target = report.failures.iter().find(|failure| failure.canister == self.target);
        Round { failure: of_target.map(|failure| failure.error.clone()) }
    }

    /// The target's worker lies, whatever message it gets; the sibling gets a message in the same round. `says` is in
    /// what the node says of it; nothing of the target has changed, the sibling has been served, and when the lie is
    /// over, the target is.
    pub(super) fn contains(&mut self, step: Step, lie: Lie, says: &str, arg: &[u8]) -> Result<(), String> {
        let served = self.served();
        if !matches!(step, Step::Message) {
            // Steps before the first message are those of a fresh worker.
            self.forget_workers();
        }
        self.submit(self.target, "set", arg.to_vec())?;
        if matches!(step, Step::Message) {
            self.submit(self.sibling, "set", Vec::new())?;
        }
        let before = self.subnet.state().canister(&self.target).map(code_root);
        self.plan.set(Some((step, lie)));
        let lied = self.round();
        self.plan.set(None);
        let Some(failure) = lied.failure else { return Err("the node took it".into()) };
        if !failure.contains(says) {
            return Err(format!("not stopped by {says:?}: {failure}"));
        }
        if self.subnet.state().canister(&self.target).map(code_root) != before {
            return Err("something of it was committed".into());
        }
        if !matches!(step, Step::Message) {
            self.submit(self.sibling, "set", Vec::new())?;
        }
        // The target waits a little longer after each failure.
        let mut after = self.round();
        for _ in 0..8 {
            after = self.round();
        }
        if let Some(why) = after.failure {
            return Err(format!("an honest worker fails afterwards: {why}"));
        }
        match self.served().iter().zip(&served).all(|(now, before)| now > before) {
            true => Ok(()),
            false => Err(format!("not all were served: {served:?}, then {:?}", self.served())),
        }
    }

    fn forget_workers(&self) {
        let short =
            BackendError::Exhausted { limit: execution::memory::limit::OPEN_FILES, detail: String::new() };
        execution::Backend::relieve(self.sandbox.as_ref(), &short);
    }

    /// The target's worker answers a message twice. The second answer shows with the next request, and is no answer to
    /// that: the next message has one of its own.
    pub(super) fn contains_a_second_answer(&mut self, twice: Lie) -> Result<(), String> {
        let (served, violations) = (self.served(), self.sandbox.status().violations);
        self.plan.set(Some((Step::Message, twice)));
        self.both(Vec::new())?;
        let first = self.round();
        self.plan.set(None);
        self.both(Vec::new())?;
        let second = self.round();
        let found = self.sandbox.status().violations - violations;
        match (first.failure, second.failure, found) {
            (None, None, 1) => {}
            other => return Err(format!("{other:?}")),
        }
        match self.served().iter().zip(&served).all(|(now, before)| *now == before + 2) {
            true => Ok(()),
            false => Err(format!("not all were served: {served:?}, then {:?}", self.served())),
        }
    }

    /// Versions of both canisters, which grow with each message that changed them.
    fn served(&self) -> [u64; 2] {
        [self.target, self.sibling].map(|id| self.subnet.state().canister(&id).map_or(0, |it| it.version))
    }
}

/// Code and memory of a canister, as hashed into the state root, without queues and cycles.
fn code_root(canister: &execution::state::CanisterState) -> [u8; 32] {
    let mut canister = canister.clone();
    canister.inputs = Default::default();
    execution::root::canister_root(&canister)
}
