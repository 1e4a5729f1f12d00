//! A worker that is a thread of the test and says whatever the test wants.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use execution::memory::{Blob, PAGE_BYTES};
use execution::module::Interface;
use execution::{BackendError, GlobalValue, Module, ModuleHash, Snapshot};
use sandbox_host::source::{WorkerProcess, WorkerSource};
use sandbox_host::{SandboxOptions, Sandboxed};
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase};
use sandbox_os::{Socket, SocketError};
use sandbox_protocol::{
    Assembly, Binding, Effects, End, Finished, List, Loaded, PACKET_BYTES, ToNode, ToWorker, decode, encode,
    globals, packets,
};

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
    launched: AtomicUsize,
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
            launched: AtomicUsize::new(0),
        }
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

    fn limit_memory(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn place(&self, _core: usize) {}

    fn kill(&mut self) -> String {
        "exit code 3".into()
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

    pub(crate) fn reply(&mut self, binding: Binding, message: &ToNode<'_>) -> Result<(), SocketError> {
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

/// A run that returned and wrote nothing.
pub(crate) fn finished() -> Finished<'static> {
    Finished {
        end: End::Returned,
        instructions: 5,
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
