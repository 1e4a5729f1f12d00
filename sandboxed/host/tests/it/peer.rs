//! A worker that is a thread of the test and says whatever the test wants.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use execution::memory::{Blob, PAGE_BYTES};
use execution::module::Interface;
use execution::{BackendError, GlobalValue, Module, ModuleHash, Snapshot};
use sandbox_host::source::{WorkerProcess, WorkerSource};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase};
use sandbox_os::{Ended, Socket, SocketError};
use sandbox_protocol::{
    Assembly, Binding, Effects, End, Finished, List, Loaded, PACKET_BYTES, ToCompiler, ToNode, ToWorker,
    decode, encode, globals, packets,
};
use serde::Serialize;

use crate::canister::of_module;

const PATIENCE: Duration = Duration::from_secs(10);

/// What the peer does, from its first packet on. An `Err` is the node's hanging up.
pub(crate) type Script = Arc<dyn Fn(&mut Peer) -> Result<(), SocketError> + Send + Sync>;

/// Pages that the node can copy out of a peer, by address.
pub(crate) type PeerMemory = HashMap<u64, [u8; PAGE_BYTES]>;

/// Where peers say that their memory is.
pub(crate) const LOADED: Loaded = Loaded { heap: 1 << 30, stable: 1 << 40 };

/// What a correct worker answers up to its first `Execute`.
pub(crate) fn greetings() -> [ToNode<'static>; 3] {
    [ToNode::Ready, ToNode::Loaded(LOADED), ToNode::Locked]
}

/// Makes peers.
pub(crate) struct Peers {
    pub(crate) script: Script,
    pub(crate) memory: PeerMemory,
    /// The layer that verification misses, and when.
    pub(crate) missing: Option<Phase>,
    /// Whether the node may read a peer's memory.
    pub(crate) readable: bool,
    pub(crate) killed: Arc<AtomicUsize>,
    /// What they are measured to hold, by process id; 0 where nothing is said.
    pub(crate) private: Arc<Mutex<HashMap<i32, u64>>>,
    /// With how many live ones the next launch meets which limit.
    pub(crate) short: Arc<Mutex<Option<(usize, &'static str)>>>,
    /// How they turn out to have ended.
    pub(crate) ended: Ended,
    /// What the kernel tells of their processor time.
    pub(crate) looks: Arc<Looks>,
    /// Where they were told to stand among others: whether behind.
    pub(crate) stands: Arc<Mutex<Vec<bool>>>,
    launched: Arc<AtomicUsize>,
}

/// A process's time on processors, look by look.
#[derive(Default)]
pub(crate) struct Looks {
    times: Vec<Duration>,
    taken: Mutex<usize>,
    changed: Condvar,
}

impl Looks {
    /// One look after another; the last time stays. Without any, no time passes.
    pub(crate) fn at(times: &[Duration]) -> Arc<Self> {
        Arc::new(Self { times: times.to_vec(), ..Self::default() })
    }

    /// Waits until the node has looked so often.
    pub(crate) fn wait_for(&self, looks: usize) {
        let taken = self.taken.lock().unwrap();
        let (taken, waited) =
            self.changed.wait_timeout_while(taken, PATIENCE, |taken| *taken < looks).unwrap();
        assert!(!waited.timed_out(), "the node looked {taken} times, {looks} were due");
    }

    pub(crate) fn taken(&self) -> usize {
        *self.taken.lock().unwrap()
    }

    fn next(&self) -> Duration {
        let mut taken = self.taken.lock().unwrap();
        let time = self.times.get(*taken).or(self.times.last()).copied().unwrap_or_default();
        *taken += 1;
        self.changed.notify_all();
        time
    }
}

impl Peers {
    pub(crate) fn new(script: impl Fn(&mut Peer) -> Result<(), SocketError> + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            memory: PeerMemory::new(),
            missing: None,
            readable: true,
            killed: Arc::default(),
            private: Arc::default(),
            short: Arc::default(),
            ended: Ended::Exited(12),
            looks: Arc::default(),
            stands: Arc::default(),
            launched: Arc::default(),
        }
    }

    /// Counts how many have been launched.
    pub(crate) fn launched(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.launched)
    }

    /// Peers that answer every message at once.
    pub(crate) fn correct() -> Self {
        Self::new(|peer| {
            let mut binding = peer.until_execute()?;
            loop {
                peer.reply(binding, &ToNode::Finished(Box::new(finished())))?;
                binding = peer.receive()?;
            }
        })
    }

    /// A backend whose workers are these peers.
    pub(crate) fn sandbox(self, step_patience: Duration) -> Sandboxed {
        let options = SandboxOptions { pool: 0, step_patience, workers_max: 4, ..SandboxOptions::default() };
        Sandboxed::with_source(Box::new(self), options).unwrap()
    }
}

impl WorkerSource for Peers {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let live = self.launched.load(Ordering::SeqCst) - self.killed.load(Ordering::SeqCst);
        if let Some((_, limit)) = self.short.lock().unwrap().filter(|(most, _)| live >= *most) {
            return Err(BackendError::Exhausted { limit, detail: format!("{live} processes live") });
        }
        let pid = self.launched.fetch_add(1, Ordering::SeqCst) + 1;
        let (node, worker) = Socket::pair().unwrap();
        let script = Arc::clone(&self.script);
        std::thread::spawn(move || {
            let _hung_up = script(&mut Peer::new(worker));
        });
        Ok(Box::new(PeerProcess {
            pid: i32::try_from(pid).unwrap(),
            socket: node,
            memory: self.memory.clone(),
            missing: self.missing,
            readable: self.readable,
            killed: Arc::clone(&self.killed),
            ended: self.ended,
            looks: Arc::clone(&self.looks),
            stands: Arc::clone(&self.stands),
        }))
    }

    fn private_bytes(&self, pid: i32) -> Option<u64> {
        Some(self.private.lock().unwrap().get(&pid).copied().unwrap_or(0))
    }
}

struct PeerProcess {
    /// From 1, in the order of launch.
    pid: i32,
    socket: Socket,
    memory: PeerMemory,
    missing: Option<Phase>,
    readable: bool,
    killed: Arc<AtomicUsize>,
    ended: Ended,
    looks: Arc<Looks>,
    stands: Arc<Mutex<Vec<bool>>>,
}

impl fmt::Debug for PeerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerProcess")
    }
}

impl WorkerProcess for PeerProcess {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn socket(&self) -> &Socket {
        &self.socket
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        vec![("none", false)]
    }

    fn verify(&self, phase: Phase, _memory: &[Range<u64>]) -> Result<(), NotConfined> {
        if self.missing == Some(phase) {
            return Err(NotConfined { layer: "seccomp", found: "0".into(), expected: "2".into() });
        }
        Ok(())
    }

    fn pull(&self, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError> {
        if !self.readable {
            return Err(PullError::Refused);
        }
        let pages = |span: &Span| (span.address..).step_by(PAGE_BYTES).take(span.bytes / PAGE_BYTES);
        let mut into = into.into_iter().flat_map(|range| range.chunks_mut(PAGE_BYTES));
        for address in from.iter().flat_map(pages) {
            let page = self.memory.get(&address).ok_or(PullError::Unmapped)?;
            into.next().expect("as many bytes on both sides").copy_from_slice(page);
        }
        Ok(())
    }

    fn processor_time(&self) -> Option<sandbox_os::processor::Spent> {
        Some(sandbox_os::processor::Spent { ran: self.looks.next(), waited: None })
    }

    fn stand_behind(&self, behind: bool) -> bool {
        self.stands.lock().unwrap().push(behind);
        true
    }

    fn kill(&mut self) -> Ended {
        self.ended
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        self.killed.fetch_add(1, Ordering::SeqCst);
    }
}

/// The far end of a worker's socket.
pub(crate) struct Peer {
    pub(crate) socket: Socket,
    packet: Vec<u8>,
    request: Assembly,
    /// Descriptors that came with the requests.
    pub(crate) files: Vec<OwnedFd>,
}

impl Peer {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, packet: vec![0; PACKET_BYTES], request: Assembly::default(), files: Vec::new() }
    }

    /// Receives a request, whole.
    pub(crate) fn receive(&mut self) -> Result<Binding, SocketError> {
        self.request.restart();
        loop {
            let (bytes, files) = self.socket.receive_with_files(&mut self.packet)?;
            self.files.extend(files);
            if let Some(binding) = self.request.push(&self.packet[..bytes]).unwrap() {
                return Ok(binding);
            }
        }
    }

    /// The request received last.
    pub(crate) fn request(&self) -> ToWorker<'_> {
        decode(self.request.body()).unwrap()
    }

    /// The same, asked of a compiler.
    pub(crate) fn compiler_request(&self) -> ToCompiler<'_> {
        decode(self.request.body()).unwrap()
    }

    pub(crate) fn reply(&mut self, binding: Binding, message: &impl Serialize) -> Result<(), SocketError> {
        let mut frame = Vec::new();
        encode(binding, message, &mut frame).unwrap();
        packets(&frame).try_for_each(|packet| self.socket.send(packet, PATIENCE))
    }

    pub(crate) fn raw(&mut self, packet: &[u8]) -> Result<(), SocketError> {
        self.socket.send(packet, PATIENCE)
    }

    /// Does what a correct worker does up to its first `Execute`, and receives that.
    pub(crate) fn until_execute(&mut self) -> Result<Binding, SocketError> {
        for reply in greetings() {
            let binding = self.receive()?;
            self.reply(binding, &reply)?;
        }
        self.receive()
    }
}

/// Instructions of a run that returned: enough for the pages that tests have it write.
pub(crate) const INSTRUCTIONS: u64 = 100_000;

/// A run that returned and wrote nothing.
pub(crate) fn finished() -> Finished<'static> {
    Finished {
        end: End::Returned,
        instructions: INSTRUCTIONS,
        heap_pages_dirty: 0,
        stable_pages_dirty: 0,
        logs: List(vec![]),
        effects: Some(Effects {
            globals: globals(&[GlobalValue::I32(0)]),
            answer: None,
            calls: List(vec![]),
            certified_data: None,
            global_timer: None,
            cycles_accepted: 0,
            cycles_burned: 0,
            accepted: false,
        }),
        heap_pages: 1,
        stable_pages: 0,
        heap: List(vec![]),
        stable: List(vec![]),
        reusable: true,
    }
}

/// A canister of two heap pages (64 KiB) whose code no honest worker could load.
pub(crate) fn snapshot() -> Snapshot {
    let interface = Interface {
        has_memory: true,
        heap_pages_min: 1,
        heap_pages_max: 4,
        globals: vec![GlobalValue::I32(0)],
        ..Interface::default()
    };
    let code = Blob::new(b"code").unwrap();
    let module = Module { hash: ModuleHash([1; 32]), wasm_bytes: 4, interface, code };
    of_module(Arc::new(module), 1 << 20)
}

pub(crate) fn shared<T>(value: T) -> Arc<Mutex<T>> {
    Arc::new(Mutex::new(value))
}
