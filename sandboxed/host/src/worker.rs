//! A worker as a token: asking consumes it, and only a right answer gives it back.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use execution::{BackendError, Violation};
use sandbox_os::verify::Phase;
use sandbox_os::{SocketError, place};
use sandbox_protocol::{
    Assembly, Binding, FrameError, Load, Loaded, PACKET_BYTES, ToNode, ToWorker, decode, encode, packets,
};

use crate::source::{WorkerProcess, WorkerSource};
use crate::status::{Registered, Registry};

const _: () = assert!(PACKET_BYTES <= sandbox_os::PACKET_BYTES_MAX);

/// Longest text of a worker's that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// A live worker that nobody is waiting for. Dropping it kills and reaps the process.
#[derive(Debug)]
pub(crate) struct Worker {
    // Before the registration, so that a worker leaves the list after its process is gone.
    process: Box<dyn WorkerProcess>,
    registered: Registered,
    request: Vec<u8>,
    reply: Assembly,
    packet: Vec<u8>,
    /// The core it was last put on.
    core: Option<usize>,
    /// How long the kernel was last told to wait.
    patience: Option<Duration>,
}

impl Worker {
    /// Starts a worker and takes it through its LOAD lock, seen from outside.
    pub(crate) fn launch(
        source: &dyn WorkerSource,
        registry: &Arc<Registry>,
        patience: Duration,
    ) -> Result<Self, BackendError> {
        let process = source.launch()?;
        let registered = registry.enter(process.pid(), process.layers());
        let worker = Self {
            process,
            registered,
            request: Vec::new(),
            reply: Assembly::default(),
            packet: vec![0; PACKET_BYTES],
            core: None,
            patience: None,
        };
        let ((), worker) = worker.call(0, &ToWorker::Begin, &[], patience, |reply| match reply {
            ToNode::Ready => Ok(()),
            other => Err(unexpected(&other, "ready")),
        })?;
        // Nothing of a canister has reached it yet: a missing layer is a failed launch.
        worker
            .process
            .verify(Phase::Load, &[])
            .map_err(|layer| BackendError::Spawn(format!("not confined: {layer}")))?;
        Ok(worker)
    }

    /// Gives it code and memory, and takes it through its RUN lock, seen from outside. Says where it keeps what
    /// it writes: the heap, of at most `heap_bytes`, and stable pages of at most `stable_bytes`.
    pub(crate) fn load(
        self,
        load: Load,
        files: &[BorrowedFd<'_>],
        [heap_bytes, stable_bytes]: [u64; 2],
        patience: Duration,
    ) -> Result<(Loaded, Self), BackendError> {
        let request = ToWorker::Load(Box::new(load));
        let (loaded, worker) = self.call(0, &request, files, patience, |reply| match reply {
            ToNode::Loaded(loaded) => Ok(loaded),
            other => Err(unexpected(&other, "loaded")),
        })?;
        let memory = [(loaded.heap, heap_bytes), (loaded.stable, stable_bytes)];
        let memory = memory.map(|(start, bytes)| start.checked_add(bytes).map(|end| start..end));
        let [Some(heap), Some(stable)] = memory else {
            return Err(violation("memory at the end of all addresses"));
        };
        if heap.start < stable.end && stable.start < heap.end {
            return Err(violation("heap and stable memory in the same place"));
        }
        let ((), worker) = worker.call(0, &ToWorker::Lock, &[], patience, |reply| match reply {
            ToNode::Locked => Ok(()),
            other => Err(unexpected(&other, "locked")),
        })?;
        // It has run code of the canister's, so a missing layer is its doing.
        let verified = worker.process.verify(Phase::Run, &[heap, stable]);
        verified.map_err(|layer| violation(format!("not confined: {layer}")))?;
        Ok((loaded, worker))
    }

    /// Its registration in the status.
    pub(crate) fn registered(&self) -> &Registered {
        &self.registered
    }

    /// The process, to copy pages out of.
    pub(crate) fn process(&self) -> &dyn WorkerProcess {
        self.process.as_ref()
    }

    /// Puts the worker on the calling thread's core. A sleeping hand-off costs a multiple across cores.
    pub(crate) fn place_here(&mut self) {
        let core = place::current_core();
        if self.core != Some(core) {
            self.process.place(core);
            self.core = Some(core);
        }
    }

    /// Sends a request, waits for its reply and hands that to `read`. The worker comes back only if the reply
    /// came in time, was bound to this request, and `read` accepted it.
    pub(crate) fn call<R>(
        mut self,
        execution: u64,
        request: &ToWorker<'_>,
        files: &[BorrowedFd<'_>],
        patience: Duration,
        read: impl FnOnce(ToNode<'_>) -> Result<R, BackendError>,
    ) -> Result<(R, Self), BackendError> {
        let start = Instant::now();
        let binding = Binding { worker: self.registered.number(), execution, nonce: rand::random() };
        encode(binding, request, &mut self.request).map_err(too_long)?;
        if let Err(error) = self.exchange(files, start, patience) {
            return Err(self.failed(error, patience));
        }
        let (found, body) = (self.reply.binding(), self.reply.body());
        if found != Some(binding) {
            return Err(violation("a reply to another request"));
        }
        let reply = decode(body).map_err(|error| violation(error.to_string()))?;
        let result = read(reply)?;
        Ok((result, self))
    }

    fn exchange(
        &mut self,
        files: &[BorrowedFd<'_>],
        start: Instant,
        patience: Duration,
    ) -> Result<(), ExchangeError> {
        let socket = self.process.socket();
        let mut files = Some(files).filter(|files| !files.is_empty());
        for packet in packets(&self.request) {
            match files.take() {
                Some(files) => socket.send_with_files(packet, files)?,
                None => socket.send(packet, patience.saturating_sub(start.elapsed()))?,
            }
        }
        if self.patience != Some(patience) {
            socket.set_receive_patience(patience)?;
            self.patience = Some(patience);
        }
        self.reply.restart();
        loop {
            let bytes = socket.receive_blocking(&mut self.packet)?;
            let packet = self.packet.get(..bytes).ok_or(SocketError::TooLong(PACKET_BYTES))?;
            if self.reply.push(packet)?.is_some() {
                return Ok(());
            }
            // Packets that keep coming, each just in time, don't make the wait longer.
            if start.elapsed() > patience {
                return Err(SocketError::Deadline(patience).into());
            }
        }
    }

    /// What became of a worker whose socket failed. It is dead after this.
    fn failed(mut self, error: ExchangeError, patience: Duration) -> BackendError {
        match error {
            ExchangeError::Socket(SocketError::Closed) => {
                BackendError::WorkerDied { how: self.process.kill() }
            }
            ExchangeError::Socket(SocketError::Deadline(_)) => BackendError::Deadline {
                milliseconds: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
            },
            ExchangeError::Socket(error @ SocketError::TooLong(_)) => violation(error.to_string()),
            ExchangeError::Socket(SocketError::Os(errno)) => {
                BackendError::Engine(format!("the worker's socket failed: {errno}"))
            }
            ExchangeError::Frame(error) => violation(error.to_string()),
        }
    }
}

enum ExchangeError {
    Socket(SocketError),
    Frame(FrameError),
}

impl From<SocketError> for ExchangeError {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}

impl From<FrameError> for ExchangeError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

pub(crate) fn violation(claim: impl Into<String>) -> BackendError {
    BackendError::Violation(Violation(claim.into()))
}

/// A reply of the wrong kind; a worker's own report of failure is none.
pub(crate) fn unexpected(reply: &ToNode<'_>, expected: &str) -> BackendError {
    let found = match reply {
        ToNode::Failed(text) => return BackendError::Engine(printable(text)),
        ToNode::Ready => "ready",
        ToNode::Loaded(_) => "loaded",
        ToNode::Locked => "locked",
        ToNode::Finished(_) => "finished",
        ToNode::Paused { .. } => "paused",
        ToNode::Pages(_) => "pages",
    };
    violation(format!("answered `{found}` where `{expected}` was due"))
}

/// A worker's text made safe for a log: short, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn too_long(error: FrameError) -> BackendError {
    BackendError::Exhausted { limit: "frame bytes", detail: error.to_string() }
}
