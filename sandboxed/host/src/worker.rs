//! A worker as a token: asking consumes it, and only a right answer gives it back.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use execution::BackendError;
use sandbox_os::processor::Spent;
use sandbox_os::verify::Phase;
use sandbox_os::{Ended, SocketError, place, tsc};
use sandbox_protocol::{
    Assembly, Attempt, Binding, Load, Loaded, PACKET_BYTES, ToNode, ToWorker, decode, encode, packets,
};

use crate::exchange::{ExchangeError, too_long};
use crate::fault::{Fault, Kind, Result, violation};
use crate::options::Unwanted;
use crate::pace::Patience;
use crate::source::{WorkerProcess, WorkerSource};
use crate::status::{Registered, Registry};

const _: () = assert!(PACKET_BYTES <= sandbox_os::PACKET_BYTES_MAX);

/// Longest text of a worker's that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 500;
/// An answer that takes longer than this is waited for as one that takes long: nothing that has to do with that costs
/// a shorter one anything.
const SHORT: Duration = Duration::from_millis(5);
/// How often a worker that runs for long is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A live worker that nobody is waiting for. Dropping it kills and reaps the process.
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
    waits: Option<Duration>,
    /// Whether it stands behind others.
    behind: bool,
    /// Processor time of its last answer, as far as it was looked at: nothing of a short one.
    overtime: Duration,
    /// Bytes of the last request and its reply.
    bytes: u64,
    /// Whether an answer is waited for no longer, whatever time it has left.
    unwanted: Option<Unwanted>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("process", &self.process).finish_non_exhaustive()
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempted {
    /// The worker ended by it.
    Ended(Ended),
    /// It lives: it did it, or was refused.
    Outlived { done: bool },
}

/// A call that has turned out to take long.
struct Long {
    /// What it had spent then.
    begun: Option<Spent>,
    since: Instant,
}

impl Worker {
    /// Starts a worker and takes it through its LOAD lock, seen from outside.
    pub(crate) fn launch(
        source: &dyn WorkerSource,
        registry: &Arc<Registry>,
        patience: Duration,
        unwanted: Option<Unwanted>,
    ) -> Result<Self> {
        let process = source.launch()?;
        let registered = registry.enter(process.pid(), process.layers());
        let worker = Self {
            process,
            registered,
            request: Vec::new(),
            reply: Assembly::default(),
            packet: vec![0; PACKET_BYTES],
            core: None,
            waits: None,
            behind: false,
            overtime: Duration::ZERO,
            bytes: 0,
            unwanted,
        };
        let patience = Patience::step(patience);
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
    ) -> Result<(Loaded, Self)> {
        let patience = Patience::step(patience);
        let request = ToWorker::Load(Box::new(load));
        let (loaded, worker) = self.call(0, &request, files, patience, |reply| match reply {
            ToNode::Loaded(loaded) => Ok(loaded),
            other => Err(unexpected(&other, "loaded")),
        })?;
        let memory = [(loaded.heap, heap_bytes), (loaded.stable, stable_bytes)];
        let memory = memory.map(|(start, bytes)| start.checked_add(bytes).map(|end| start..end));
        let [Some(heap), Some(stable)] = memory else {
            return Err(violation(Kind::Claim, "memory at the end of all addresses"));
        };
        if heap.start < stable.end && stable.start < heap.end {
            return Err(violation(Kind::Claim, "heap and stable memory in the same place"));
        }
        let ((), worker) = worker.call(0, &ToWorker::Lock, &[], patience, |reply| match reply {
            ToNode::Locked => Ok(()),
            other => Err(unexpected(&other, "locked")),
        })?;
        // It has run code of the canister's, so a missing layer is its doing.
        let verified = worker.process.verify(Phase::Run, &[heap, stable]);
        verified.map_err(|layer| violation(Kind::Confinement, format!("not confined: {layer}")))?;
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

    /// Processor time that its last answer took, as far as it was looked at; nothing, if the answer came soon.
    pub(crate) fn overtime(&self) -> Duration {
        self.overtime
    }

    /// Bytes of the last request and its reply.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Has it attempt what it must not be able to do. Only for a fresh one.
    pub(crate) fn attempt(mut self, what: Attempt, patience: Duration) -> Result<Attempted> {
        let binding = Binding { worker: self.registered.number(), execution: 0, nonce: rand::random() };
        encode(binding, &ToWorker::Attempt(what), &mut self.request).map_err(too_long)?;
        match self.exchange(&[], Patience::step(patience)) {
            Err(ExchangeError::Socket(SocketError::Closed)) => Ok(Attempted::Ended(self.process.kill())),
            Err(error) => Err(self.failed(error)),
            Ok(()) if self.reply.binding() != Some(binding) => {
                Err(violation(Kind::Protocol, "a reply to another request"))
            }
            Ok(()) => match decode(self.reply.body()) {
                Ok(ToNode::Outlived { done }) => Ok(Attempted::Outlived { done }),
                Ok(other) => Err(unexpected(&other, "outlived")),
                Err(error) => Err(violation(Kind::Protocol, error.to_string())),
            },
        }
    }

    /// Ends it; says how.
    pub(crate) fn end(mut self) -> Ended {
        self.process.kill()
    }

    /// What became of a worker that is gone.
    pub(crate) fn died(mut self) -> Fault {
        let ended = self.process.kill();
        self.registered.died();
        death(ended)
    }

    /// Sends a request, waits for its reply and hands that to `read`. The worker comes back only if the reply
    /// came in time, was bound to this request, and `read` accepted it. The reply is untrusted, and `read` is the only
    /// one to see it.
    pub(crate) fn call<R>(
        mut self,
        execution: u64,
        request: &ToWorker<'_>,
        files: &[BorrowedFd<'_>],
        patience: Patience,
        read: impl FnOnce(ToNode<'_>) -> Result<R>,
    ) -> Result<(R, Self)> {
        let binding = Binding { worker: self.registered.number(), execution, nonce: rand::random() };
        encode(binding, request, &mut self.request).map_err(too_long)?;
        if let Err(error) = self.exchange(files, patience) {
            return Err(self.failed(error));
        }
        let (found, body) = (self.reply.binding(), self.reply.body());
        if found != Some(binding) {
            return Err(violation(Kind::Protocol, "a reply to another request"));
        }
        self.bytes = (self.request.len() as u64).saturating_add(body.len() as u64);
        let reply = decode(body).map_err(|error| violation(Kind::Protocol, error.to_string()))?;
        let result = read(reply)?;
        Ok((result, self))
    }

    fn exchange(
        &mut self,
        files: &[BorrowedFd<'_>],
        patience: Patience,
    ) -> std::result::Result<(), ExchangeError> {
        tsc::shut_if_it_pays();
        let start = Instant::now();
        self.overtime = Duration::ZERO;
        if self.behind {
            // The kernel refused to put it back after its last message.
            self.stand(false);
        }
        let socket = self.process.socket();
        let mut files = Some(files).filter(|files| !files.is_empty());
        for packet in packets(&self.request) {
            match files.take() {
                Some(files) => socket.send_with_files(packet, files)?,
                // Room comes when the worker reads, which is all that it has to do now.
                None => socket.send_since(packet, start, patience.idle)?,
            }
        }
        self.reply.restart();
        let mut long = None;
        let received = self.receive(start, patience, &mut long);
        if let Some(long) = long {
            self.overtime = self
                .process
                .processor_time()
                .zip(long.begun)
                .map_or(Duration::ZERO, |(now, begun)| now.ran.saturating_sub(begun.ran));
            if self.behind {
                self.stand(false);
            }
        }
        received
    }

    /// Receives a reply, whole. `long` is made when it takes long.
    fn receive(
        &mut self,
        start: Instant,
        patience: Patience,
        long: &mut Option<Long>,
    ) -> std::result::Result<(), ExchangeError> {
        let mut next_look = SHORT;
        loop {
            let wait = if long.is_none() { SHORT } else { LOOK };
            self.wait_at_most(wait.min(patience.idle))?;
            let silent = match self.process.socket().receive_blocking(&mut self.packet) {
                Ok(bytes) => {
                    let packet = self.packet.get(..bytes).ok_or(SocketError::TooLong(PACKET_BYTES))?;
                    if self.reply.push(packet)?.is_some() {
                        return Ok(());
                    }
                    false
                }
                Err(SocketError::Deadline(_)) => true,
                Err(error) => return Err(error.into()),
            };
            // Packets that keep coming, each just in time, neither keep it from being looked at nor make the wait longer.
            if silent || start.elapsed() > next_look {
                self.look(long, start, patience)?;
                next_look = start.elapsed().saturating_add(LOOK);
            }
            if start.elapsed() > patience.wall {
                return Err(SocketError::Deadline(patience.wall).into());
            }
        }
    }

    /// Looks at a worker that takes long: it has so much processor time, and so much in which it neither runs nor waits
    /// for a processor. It has nothing else to wait for. The call began at `start`.
    fn look(
        &mut self,
        long: &mut Option<Long>,
        start: Instant,
        patience: Patience,
    ) -> std::result::Result<(), ExchangeError> {
        let (now, spent) = (Instant::now(), self.process.processor_time());
        let Some(long) = long else {
            *long = Some(Long { begun: spent, since: now });
            if patience.processor.is_some() {
                self.stand(true);
            }
            return Ok(());
        };
        if self.unwanted.as_ref().is_some_and(|unwanted| unwanted(start)) {
            return Err(SocketError::Deadline(start.elapsed()).into());
        }
        let taken = spent.zip(long.begun).map(|(now, begun)| now.ran.saturating_sub(begun.ran));
        if let Some(processor) =
            patience.processor.filter(|processor| taken.is_some_and(|taken| taken > *processor))
        {
            return Err(SocketError::Deadline(processor).into());
        }
        let waited = spent.zip(long.begun).and_then(|(now, begun)| now.waited?.checked_sub(begun.waited?));
        let awake = taken.unwrap_or_default().saturating_add(waited.unwrap_or_default());
        let slept = now.saturating_duration_since(long.since).saturating_sub(awake);
        if slept > patience.idle.saturating_sub(SHORT) {
            return Err(SocketError::Deadline(patience.idle).into());
        }
        Ok(())
    }

    /// Puts it behind others that want its core, or back among them, if the kernel does that now.
    fn stand(&mut self, behind: bool) {
        if self.process.stand_behind(behind) {
            self.behind = behind;
        }
    }

    /// Tells the kernel how long to wait for a packet.
    fn wait_at_most(&mut self, wait: Duration) -> std::result::Result<(), SocketError> {
        if self.waits != Some(wait) {
            self.process.socket().set_receive_patience(wait)?;
            self.waits = Some(wait);
        }
        Ok(())
    }

    /// What became of a worker whose socket failed. It is dead after this.
    fn failed(self, error: ExchangeError) -> Fault {
        match error {
            ExchangeError::Socket(SocketError::Closed) => self.died(),
            ExchangeError::Socket(SocketError::Deadline(patience)) => {
                let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
                BackendError::Deadline { milliseconds }.into()
            }
            ExchangeError::Socket(error @ SocketError::TooLong(_)) => {
                violation(Kind::Protocol, error.to_string())
            }
            ExchangeError::Socket(SocketError::Os(errno)) => {
                BackendError::Engine(format!("the worker's socket failed: {errno}")).into()
            }
            ExchangeError::Frame(error) => violation(Kind::Protocol, error.to_string()),
        }
    }
}

/// What the end of a worker says. What it had said before counts for nothing: a call that has no answer has failed.
fn death(ended: Ended) -> Fault {
    if !ended.is_no_correct_workers() {
        return BackendError::WorkerDied { how: ended.to_string() }.into();
    }
    let verb = if matches!(ended, Ended::Exited(_)) { "ended with" } else { "was" };
    violation(Kind::Death, format!("the worker {verb} {ended}"))
}

/// A reply of the wrong kind; a worker's own report of failure is none.
pub(crate) fn unexpected(reply: &ToNode<'_>, expected: &str) -> Fault {
    let found = match reply {
        ToNode::Failed(text) => return BackendError::Engine(printable(text)).into(),
        ToNode::Ready => "ready",
        ToNode::Loaded(_) => "loaded",
        ToNode::Locked => "locked",
        ToNode::Finished(_) => "finished",
        ToNode::Paused { .. } => "paused",
        ToNode::Batch(_) => "batch",
        ToNode::Outlived { .. } => "outlived",
        ToNode::Pages(_) => "pages",
    };
    violation(Kind::Protocol, format!("answered `{found}` where `{expected}` was due"))
}

/// A worker's text made safe for a log: short, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
