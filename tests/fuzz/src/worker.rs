//! A worker that answers with any bytes at any step, to a whole node: frames, claims, pages, `check` and `apply`. The
//! node doesn't panic; the other canister stays what it is; what the node doesn't take changes nothing; what it takes
//! is within its bounds; and the next message runs on an honest worker.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candid::{CandidType, Encode};
use execution::memory::{Blob, PAGE_BYTES};
use execution::module::{Interface, MethodKind};
use execution::{
    BackendError, Compiler, GlobalValue, Ingress, IngressStatus, InvalidModule, Module, ModuleHash,
    Principal, SchedulerOptions, Subnet, SubnetConfig,
};
use sandbox_host::source::{WorkerProcess, WorkerSource};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase};
use sandbox_os::{Ended, Socket, SocketError};
use sandbox_protocol::{
    Answer, Assembly, Binding, Bytes, Effects, End, Entry, Finished, Global, HEADER_BYTES, List, Loaded,
    PACKET_BYTES, ToNode, ToWorker, VERSION, decode, encode, packets,
};

/// What came of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The node took the answer, and it was committed.
    Committed,
    /// The node didn't take it.
    Refused,
}

const LOADED: Loaded = Loaded { heap: 1 << 30, stable: 1 << 40 };
/// Largest heap, 64 KiB pages.
const HEAP_PAGES_MAX: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(10);
/// Rounds until a message that failed has been tried again.
const ROUNDS_MAX: u64 = 10;

/// Makes a worker answer with the input behind its first byte, which says at which step, and has it judged.
pub fn run(input: &[u8]) -> Came {
    let (&step, body) = input.split_first().unwrap_or((&3, &[]));
    let plan = Arc::new(Plan { step: step % 4, body: body.to_vec(), due: AtomicBool::new(false) });
    let options = SandboxOptions { pool: 0, step_patience: PATIENCE, ..SandboxOptions::default() };
    let workers = Box::new(Workers(Arc::clone(&plan)));
    let backend = Arc::new(Sandboxed::with_source(workers, options).expect("a thread can be had"));
    let scheduler = SchedulerOptions { threads: 1, ..SchedulerOptions::default() };
    let sandbox = Arc::clone(&backend);
    let mut subnet = Subnet::new(SubnetConfig::application(), backend, Arc::new(Any), scheduler);
    let mut node = Rounds(0);
    let [target, other] = [(); 2].map(|()| node.canister(&mut subnet));

    let before = subnet.state().canister(&other).map(execution::root::canister_root);
    plan.due.store(true, Ordering::SeqCst);
    // The steps before a message are those of a fresh worker: of a query, whose worker is another.
    if plan.step < 3 {
        let refused = subnet.query(user(), target, "get", &[]).result.is_err();
        plan.due.store(false, Ordering::SeqCst);
        let answer = subnet.query(user(), target, "get", &[]).result;
        assert_eq!(answer.expect("an honest worker answers"), b"honest");
        return if refused { Came::Refused } else { Came::Committed };
    }
    // What the node doesn't take ends the worker, and the messages run again on another one.
    let ended = sandbox.status().ended;
    node.updates(&mut subnet, target, 2);
    let failed = sandbox.status().ended > ended;
    assert_eq!(
        subnet.state().canister(&other).map(execution::root::canister_root),
        before,
        "another canister changed"
    );
    let code =
        subnet.state().canister(&target).and_then(|canister| canister.code.clone()).expect("it is installed");
    assert!(code.heap.wasm_pages() <= HEAP_PAGES_MAX, "{} pages", code.heap.wasm_pages());
    plan.due.store(false, Ordering::SeqCst);
    node.updates(&mut subnet, target, 1);
    if failed { Came::Refused } else { Came::Committed }
}

fn user() -> Principal {
    Principal::self_authenticating(b"the user of the fuzz targets")
}

struct Rounds(u64);

#[derive(CandidType)]
#[allow(non_camel_case_types, reason = "the interface's own word")]
enum Mode {
    install,
}

#[derive(CandidType)]
struct InstallCode {
    mode: Mode,
    canister_id: Principal,
    wasm_module: Vec<u8>,
    arg: Vec<u8>,
}

impl Rounds {
    fn round(&mut self, subnet: &mut Subnet) {
        self.0 += 1;
        subnet.round(1_700_000_000_000_000_000 + self.0 * 1_000_000_000, [0; 32]);
    }

    fn canister(&mut self, subnet: &mut Subnet) -> Principal {
        let id = subnet.create_canister(user(), None, 1 << 60).expect("there is room");
        let code =
            InstallCode { mode: Mode::install, canister_id: id, wasm_module: vec![0], arg: Vec::new() };
        let arg = Encode!(&code).expect("an argument encodes");
        self.messages(subnet, Principal::management_canister(), "install_code", &[arg]);
        id
    }

    /// Sends messages with these arguments and runs rounds until they are answered.
    fn messages(&mut self, subnet: &mut Subnet, receiver: Principal, method: &str, args: &[Vec<u8>]) {
        let submit = |(number, arg): (usize, &Vec<u8>)| {
            let nonce = [self.0, number as u64].map(u64::to_le_bytes).concat();
            let arg = Arc::from(&arg[..]);
            let message = Ingress { sender: user(), receiver, method: method.into(), arg, nonce };
            // A canister that burnt all that it had takes no message.
            subnet.submit(message).ok()
        };
        let ids: Vec<_> = args.iter().enumerate().filter_map(submit).collect();
        for _ in 0..ROUNDS_MAX {
            let waits = |id| matches!(subnet.status(id), IngressStatus::Received | IngressStatus::Processing);
            if !ids.iter().any(waits) {
                return;
            }
            self.round(subnet);
        }
        panic!("a message is never answered");
    }

    /// Updates that wait together: the node asks for them in one request.
    fn updates(&mut self, subnet: &mut Subnet, canister: Principal, count: usize) {
        self.messages(subnet, canister, "set", &vec![Vec::new(); count]);
    }
}

/// Takes anything for a module with a method of each kind.
struct Any;

impl Compiler for Any {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        let mut interface = Interface {
            has_memory: true,
            heap_pages_min: 1,
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

/// The answer that is none, and the step at which it is given, once.
struct Plan {
    step: u8,
    body: Vec<u8>,
    due: AtomicBool,
}

struct Workers(Arc<Plan>);

impl WorkerSource for Workers {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let (node, socket) = Socket::pair().expect("descriptors can be had");
        let plan = Arc::clone(&self.0);
        std::thread::spawn(move || {
            let mut worker =
                Worker { socket, plan, packet: vec![0; PACKET_BYTES], request: Assembly::default() };
            let _hung_up = worker.serve();
        });
        Ok(Box::new(Process(node)))
    }

    fn private_bytes(&self, _pid: i32) -> Option<u64> {
        Some(0)
    }
}

struct Worker {
    socket: Socket,
    plan: Arc<Plan>,
    packet: Vec<u8>,
    request: Assembly,
}

impl Worker {
    fn serve(&mut self) -> Result<(), SocketError> {
        for (step, honest) in [(0, ToNode::Ready), (1, ToNode::Loaded(LOADED)), (2, ToNode::Locked)] {
            let binding = self.receive()?;
            self.answer(step, binding, &honest)?;
        }
        loop {
            let binding = self.receive()?;
            let body = self.request.body().to_vec();
            let Ok(ToWorker::Execute(execute)) = decode(&body) else {
                // A resumption, or pages that the input made the node ask for: there is nothing to say.
                return Ok(());
            };
            let query = matches!(execute.invocation.entry, Entry::Query(..));
            let finished = Finished {
                end: End::Returned,
                instructions: 5,
                heap_pages_dirty: 0,
                stable_pages_dirty: 0,
                logs: List(vec![]),
                effects: Some(Effects {
                    globals: List(vec![Global::I32(0)]),
                    answer: (execute.invocation.system.answer_needed && !execute.invocation.system.answered)
                        .then_some(Answer::Reply(Bytes(b"honest"))),
                    calls: List(vec![]),
                    certified_data: None,
                    global_timer: None,
                    cycles_accepted: 0,
                    cycles_burned: 0,
                    accepted: false,
                }),
                heap_pages: execute.sync.heap_pages,
                stable_pages: execute.sync.stable_pages,
                heap: List(vec![]),
                stable: List(vec![]),
                reusable: true,
            };
            let honest = ToNode::Finished(Box::new(finished));
            self.answer(if query { 4 } else { 3 }, binding, &honest)?;
        }
    }

    fn receive(&mut self) -> Result<Binding, SocketError> {
        self.request.restart();
        loop {
            let (bytes, _files) = self.socket.receive_with_files(&mut self.packet)?;
            if let Some(binding) =
                self.request.push(&self.packet[..bytes]).expect("the node's frames are right")
            {
                return Ok(binding);
            }
        }
    }

    fn answer(&self, step: u8, binding: Binding, honest: &ToNode<'_>) -> Result<(), SocketError> {
        let mut frame = Vec::new();
        encode(binding, honest, &mut frame).expect("it fits");
        let lies = step == self.plan.step && self.plan.due.swap(false, Ordering::SeqCst);
        if lies {
            // The right header, so that what it says is looked at.
            frame.truncate(HEADER_BYTES);
            frame.extend_from_slice(&self.plan.body);
            let length = u32::try_from(frame.len()).expect("inputs are short");
            frame[..8].copy_from_slice(&[VERSION.to_le_bytes(), length.to_le_bytes()].concat());
        }
        packets(&frame).try_for_each(|packet| self.socket.send(packet, PATIENCE))
    }
}

struct Process(Socket);

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
        &self.0
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn verify(&self, _phase: Phase, _memory: &[Range<u64>]) -> Result<(), NotConfined> {
        Ok(())
    }

    fn pull(&self, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError> {
        let heap = LOADED.heap..LOADED.heap + HEAP_PAGES_MAX * 16 * PAGE_BYTES as u64;
        let stable = LOADED.stable..LOADED.stable + (64 << 30);
        let bytes: usize = from.iter().map(|span| span.bytes).sum();
        assert_eq!(bytes, into.iter().map(|range| range.len()).sum::<usize>(), "as many bytes on both sides");
        for span in from.iter().filter(|span| span.bytes > 0) {
            let last = span.address.checked_add(span.bytes as u64 - 1).expect("no address overflows");
            let within = |memory: &Range<u64>| memory.contains(&span.address) && memory.contains(&last);
            assert!(within(&heap) || within(&stable), "{span:?} is no memory of the canister's");
        }
        into.into_iter().for_each(|range| range.fill(7));
        Ok(())
    }

    fn kill(&mut self) -> Ended {
        Ended::Unknown
    }
}
