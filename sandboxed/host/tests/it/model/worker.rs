//! Workers of the model: each is a thread that keeps a canister's memory as a correct worker does, and deviates
//! where a plan says so.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use execution::memory::{PAGE_BYTES, Window};
use execution::{BackendError, GlobalValue};
use sandbox_host::source::{WorkerProcess, WorkerSource};
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{NotConfined, Phase};
use sandbox_os::{Ended, Socket, SocketError};
use sandbox_protocol::{
    Answer, Binding, Bytes, End, Entry, FRAME_BYTES_MAX, Finished, HEADER_BYTES, List, Loaded, PACKET_BYTES,
    PageRun, PageSpan, Sync, ToNode, ToWorker, VERSION, encode, globals, page_spans,
};

use super::conversation::{Deviation, PAGES, Plan, Step};
use crate::peer::{LOADED, Peer, finished};

/// Instructions of a slice; a run pauses one above, and ends half a slice later.
pub(super) const SLICE: u64 = 100_000;

/// What all workers of a world share with it.
#[derive(Default)]
pub(super) struct Shared {
    plan: Mutex<Plan>,
    /// What was planned and has come to pass.
    happened: Mutex<Plan>,
    /// What the node asked each worker last.
    asked: Mutex<HashMap<usize, Binding>>,
    pub(super) launched: AtomicUsize,
    pub(super) ended: AtomicUsize,
    /// Inodes of the node's ends of all sockets.
    pub(super) sockets: Mutex<BTreeSet<u64>>,
}

impl Shared {
    pub(super) fn plan(&self, plan: Plan) {
        *self.plan.lock().unwrap() = plan;
        *self.happened.lock().unwrap() = None;
    }

    /// What came of the plan.
    pub(super) fn happened(&self) -> Plan {
        *self.plan.lock().unwrap() = None;
        *self.happened.lock().unwrap()
    }

    fn deviation(&self, step: Step) -> Option<Deviation> {
        let mut plan = self.plan.lock().unwrap();
        let (_, deviation) = plan.filter(|(at, _)| *at == step)?;
        *self.happened.lock().unwrap() = plan.take();
        Some(deviation)
    }
}

/// The pages that a worker has written since it lives, by index.
type Memory = HashMap<u64, [u8; PAGE_BYTES]>;

/// Launches them.
pub(super) struct Workers {
    pub(super) shared: Arc<Shared>,
    pub(super) readable: bool,
}

impl WorkerSource for Workers {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let number = self.shared.launched.fetch_add(1, Ordering::SeqCst) + 1;
        let (node, socket) = Socket::pair().unwrap();
        self.shared.sockets.lock().unwrap().insert(rustix::fs::fstat(&node).unwrap().st_ino);
        let seen = Arc::new(Seen::default());
        let mut worker = Worker {
            number,
            peer: Peer::new(socket),
            shared: Arc::clone(&self.shared),
            seen: Arc::clone(&seen),
            window: None,
            heap_pages: 0,
            global: 0,
            written: Vec::new(),
            last: Vec::new(),
        };
        let thread = std::thread::spawn(move || {
            let _hung_up = worker.serve();
            worker.seen.dead.store(true, Ordering::SeqCst);
        });
        Ok(Box::new(Process {
            pid: i32::try_from(number).unwrap(),
            socket: Some(node),
            seen,
            readable: self.readable,
            shared: Arc::clone(&self.shared),
            thread: Some(thread),
        }))
    }

    fn private_bytes(&self, _pid: i32) -> Option<u64> {
        Some(0)
    }
}

/// What the kernel shows the node of a worker.
#[derive(Default)]
struct Seen {
    memory: Mutex<Memory>,
    heap_pages: AtomicUsize,
    unconfined: AtomicBool,
    dead: AtomicBool,
}

struct Process {
    pid: i32,
    socket: Option<Socket>,
    seen: Arc<Seen>,
    readable: bool,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

impl WorkerProcess for Process {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("open while the process is there")
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        vec![("none", false)]
    }

    fn verify(&self, _phase: Phase, _memory: &[Range<u64>]) -> Result<(), NotConfined> {
        if self.seen.unconfined.load(Ordering::SeqCst) {
            return Err(NotConfined { layer: "seccomp", found: "0".into(), expected: "2".into() });
        }
        Ok(())
    }

    fn pull(&self, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError> {
        if !self.readable {
            return Err(PullError::Refused);
        }
        if self.seen.dead.load(Ordering::SeqCst) {
            return Err(PullError::Gone);
        }
        let memory = self.seen.memory.lock().unwrap();
        let end = self.seen.heap_pages.load(Ordering::SeqCst) as u64 * PAGES;
        let pages = |span: &Span| (span.address..).step_by(PAGE_BYTES).take(span.bytes / PAGE_BYTES);
        let mut into = into.into_iter().flat_map(|range| range.chunks_mut(PAGE_BYTES));
        for address in from.iter().flat_map(pages) {
            let page = (address - LOADED.heap) / PAGE_BYTES as u64;
            if page >= end {
                return Err(PullError::Unmapped);
            }
            let bytes = memory.get(&page).copied().unwrap_or([0; PAGE_BYTES]);
            into.next().expect("as many bytes on both sides").copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn kill(&mut self) -> Ended {
        Ended::Unknown
    }
}

impl Drop for Process {
    /// The process is gone when this returns, and what it did is settled.
    fn drop(&mut self) {
        self.socket = None;
        self.thread.take().expect("joined once").join().expect("a worker's thread doesn't panic");
        self.shared.ended.fetch_add(1, Ordering::SeqCst);
    }
}

struct Worker {
    number: usize,
    peer: Peer,
    shared: Arc<Shared>,
    seen: Arc<Seen>,
    window: Option<Window>,
    heap_pages: u64,
    global: i32,
    /// Pages that the last run wrote and keeps.
    written: Vec<u64>,
    /// The frame that it sent last.
    last: Vec<u8>,
}

/// What a message asks for: [`program`] read.
struct Program {
    pauses: u8,
    grows: bool,
    traps: bool,
    writes: Vec<(u64, u8)>,
}

/// A message's argument.
pub(super) fn program(pauses: u8, grows: bool, traps: bool, writes: &[(u64, u8)]) -> Vec<u8> {
    let mut bytes = vec![pauses, grows.into(), traps.into()];
    bytes.extend(writes.iter().flat_map(|(page, byte)| [*page as u8, *byte]));
    bytes
}

impl Program {
    fn read(bytes: &[u8]) -> Self {
        let (head, writes) = bytes.split_at(3);
        let writes = writes.as_chunks::<2>().0.iter().map(|[page, byte]| (u64::from(*page), *byte)).collect();
        Self { pauses: head[0], grows: head[1] == 1, traps: head[2] == 1, writes }
    }
}

/// What a canister shows: the first byte of each page, and its global.
pub(super) fn shown(pages: impl Iterator<Item = u8>, global: i32) -> Vec<u8> {
    pages.chain(global.to_le_bytes()).collect()
}

impl Worker {
    fn serve(&mut self) -> Result<(), SocketError> {
        let binding = self.receive()?;
        self.answer(Step::Begin, binding, ToNode::Ready)?;
        let binding = self.receive()?;
        let ToWorker::Load(load) = self.peer.request() else { panic!("`Load` is due") };
        let files = std::mem::take(&mut self.peer.files);
        let files: Vec<_> = files.iter().skip(1).map(std::os::fd::AsFd::as_fd).collect();
        self.window = Some(Window::map(&files, load.arena_bytes).unwrap());
        self.sync(load.start);
        self.answer(Step::Load, binding, ToNode::Loaded(LOADED))?;
        let binding = self.receive()?;
        self.answer(Step::Lock, binding, ToNode::Locked)?;
        loop {
            let binding = self.receive()?;
            self.message(binding)?;
        }
    }

    fn receive(&mut self) -> Result<Binding, SocketError> {
        let binding = self.peer.receive()?;
        self.shared.asked.lock().unwrap().insert(self.number, binding);
        Ok(binding)
    }

    fn sync(&mut self, sync: Sync) {
        self.heap_pages = sync.heap_pages;
        self.seen.heap_pages.store(sync.heap_pages as usize, Ordering::SeqCst);
        if let Some(&global) = sync.globals.0.first() {
            let GlobalValue::I32(value) = global.into() else { panic!("an i32 global") };
            self.global = value;
        }
        let mut memory = self.seen.memory.lock().unwrap();
        for PageRun { page, count, slot, known } in sync.heap.0 {
            for at in (0..count).filter(|_| !known) {
                let mut bytes = [0; PAGE_BYTES];
                if let Some(slot) = slot {
                    let window = self.window.as_ref().expect("mapped with `Load`");
                    window.read(slot + at, &mut bytes).expect("a slot of the arena");
                }
                memory.insert(page + u64::from(at), bytes);
            }
        }
    }

    /// Runs a message, through its pauses, and answers what is asked of it after its end.
    fn message(&mut self, binding: Binding) -> Result<(), SocketError> {
        let (sync, program) = match self.peer.request() {
            ToWorker::Execute(execute) => match execute.invocation.entry {
                Entry::Update(_, arg) => (execute.sync, Some(Program::read(arg.0))),
                _ => (execute.sync, None),
            },
            ToWorker::Pages(wanted) => {
                let written = &self.written[wanted.first as usize..][..wanted.count as usize];
                let memory = self.seen.memory.lock().unwrap();
                let bytes: Vec<u8> = written.iter().flat_map(|page| memory[page]).collect();
                drop(memory);
                return self.answer(Step::Pages, binding, ToNode::Pages(Bytes(&bytes)));
            }
            _ => panic!("a message is due"),
        };
        self.sync(sync);
        let Some(program) = program else {
            self.written.clear();
            let shows = self.shows();
            let answer = self.finished(Some(&shows), 0);
            return self.answer(Step::Execute, binding, answer);
        };
        let (mut step, mut binding) = (Step::Execute, binding);
        for pause in 1..=program.pauses {
            self.answer(step, binding, ToNode::Paused { instructions: u64::from(pause) * SLICE + 1 })?;
            (step, binding) = (Step::Resume, self.receive()?);
        }
        let instructions = u64::from(program.pauses) * SLICE + SLICE / 2;
        self.written.clear();
        if program.traps {
            let mut answer = self.finished(None, instructions);
            if let ToNode::Finished(finished) = &mut answer {
                finished.heap_pages_dirty = program.writes.len() as u64;
            }
            return self.answer(step, binding, answer);
        }
        self.heap_pages += u64::from(program.grows);
        self.global += 1;
        self.seen.heap_pages.store(self.heap_pages as usize, Ordering::SeqCst);
        let mut memory = self.seen.memory.lock().unwrap();
        for (page, byte) in &program.writes {
            memory.insert(*page, [*byte; PAGE_BYTES]);
            self.written.push(*page);
        }
        drop(memory);
        let shows = self.shows();
        let answer = self.finished(Some(&shows), instructions);
        self.answer(step, binding, answer)
    }

    fn shows(&self) -> Vec<u8> {
        let memory = self.seen.memory.lock().unwrap();
        shown((0..PAGES).map(|page| memory.get(&page).map_or(0, |bytes| bytes[0])), self.global)
    }

    /// How the run ended: with a reply, or in a trap.
    fn finished<'a>(&self, reply: Option<&'a [u8]>, instructions: u64) -> ToNode<'a> {
        let mut answer: Finished<'a> = Finished {
            instructions,
            heap_pages: self.heap_pages,
            heap_pages_dirty: self.written.len() as u64,
            heap: page_spans(self.written.iter().copied()),
            ..finished()
        };
        match (reply, &mut answer.effects) {
            (Some(reply), Some(effects)) => {
                effects.globals = globals(&[GlobalValue::I32(self.global)]);
                effects.answer = Some(Answer::Reply(Bytes(reply)));
            }
            _ => {
                answer.end = End::Trapped { code: 502, text: "trap" };
                answer.effects = None;
            }
        }
        ToNode::Finished(Box::new(answer))
    }

    /// Answers `right`, or what the plan says.
    fn answer(&mut self, step: Step, binding: Binding, right: ToNode<'_>) -> Result<(), SocketError> {
        let Some(deviation) = self.shared.deviation(step) else { return self.reply(binding, &right) };
        let mut frame = Vec::new();
        match deviation {
            Deviation::Dies => Err(SocketError::Closed),
            Deviation::DiesInsideAFrame => {
                encode(binding, &Bytes(&[0; 2 * PACKET_BYTES]), &mut frame).unwrap();
                self.peer.raw(&frame[..PACKET_BYTES])?;
                Err(SocketError::Closed)
            }
            Deviation::Late => {
                while self.peer.receive().is_ok() {}
                self.reply(binding, &right)
            }
            Deviation::Truncated => {
                encode(binding, &right, &mut frame).unwrap();
                self.peer.raw(&frame[..frame.len() - 1])
            }
            Deviation::LongerThanAFrame => {
                let bytes = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
                let mut packet = [0; HEADER_BYTES];
                packet[..4].copy_from_slice(&VERSION.to_le_bytes());
                packet[4..8].copy_from_slice(&bytes.to_le_bytes());
                self.peer.raw(&packet)
            }
            Deviation::LongerThanAPacket => self.peer.raw(&vec![0; PACKET_BYTES + 1]),
            Deviation::Undecodable => {
                encode(binding, &Bytes(&[255; 100]), &mut frame).unwrap();
                self.peer.raw(&frame)
            }
            Deviation::OtherNonce => self.reply(Binding { nonce: binding.nonce ^ 1, ..binding }, &right),
            Deviation::OtherExecution => {
                self.reply(Binding { execution: binding.execution ^ 1, ..binding }, &right)
            }
            Deviation::OtherWorker => self.reply(Binding { worker: binding.worker ^ 1, ..binding }, &right),
            Deviation::OfAnotherWorker => {
                let asked = self.shared.asked.lock().unwrap();
                let other = asked.iter().find(|(number, _)| **number != self.number);
                let other = other.map_or(Binding { nonce: 0, ..binding }, |(_, other)| *other);
                drop(asked);
                self.reply(other, &right)
            }
            Deviation::Stale if self.last.is_empty() => self.reply(Binding { nonce: 0, ..binding }, &right),
            Deviation::Stale => {
                let last = std::mem::take(&mut self.last);
                self.peer.raw(&last)
            }
            Deviation::WrongKind => {
                let wrong = if step == Step::Lock { ToNode::Ready } else { ToNode::Locked };
                self.reply(binding, &wrong)
            }
            Deviation::Twice => {
                self.reply(binding, &right)?;
                self.reply(binding, &right)
            }
            Deviation::AnswersAndDies => {
                self.reply(binding, &right)?;
                Err(SocketError::Closed)
            }
            Deviation::SaysThatItFailed => self.reply(binding, &ToNode::Failed("no reason")),
            Deviation::Lie(number) => {
                if matches!(step, Step::Begin | Step::Lock) {
                    self.seen.unconfined.store(true, Ordering::SeqCst);
                }
                let lie = lie(right, number);
                self.reply(binding, &lie)
            }
        }
    }

    fn reply(&mut self, binding: Binding, message: &ToNode<'_>) -> Result<(), SocketError> {
        encode(binding, message, &mut self.last).unwrap();
        self.peer.reply(binding, message)
    }
}

/// A message that decodes and that no correct worker sends here.
fn lie(right: ToNode<'_>, number: u8) -> ToNode<'_> {
    match right {
        ToNode::Loaded(loaded) if number.is_multiple_of(2) => {
            ToNode::Loaded(Loaded { heap: u64::MAX - 4095, ..loaded })
        }
        ToNode::Loaded(loaded) => ToNode::Loaded(Loaded { stable: loaded.heap, ..loaded }),
        ToNode::Paused { instructions } if number.is_multiple_of(2) => {
            ToNode::Paused { instructions: instructions - 1 }
        }
        ToNode::Paused { .. } => ToNode::Paused { instructions: u64::MAX },
        ToNode::Pages(_) => ToNode::Pages(Bytes(&[7; PAGE_BYTES - 1])),
        ToNode::Finished(mut claim) => {
            false_claim(&mut claim, number);
            ToNode::Finished(claim)
        }
        other => other,
    }
}

fn false_claim(claim: &mut Finished<'_>, number: u8) {
    let span = |page, count| PageSpan { page, count };
    match number {
        0 => claim.instructions = u64::MAX,
        1 => claim.heap_pages = 0,
        2 => claim.heap_pages = 5,
        3 => claim.stable_pages = u64::MAX,
        4 => {
            claim.heap_pages_dirty = 1;
            claim.heap = List(vec![span(claim.heap_pages * PAGES, 1)]);
        }
        5 => {
            claim.heap_pages_dirty = 2;
            claim.heap = List(vec![span(1, 1), span(0, 1)]);
        }
        6 => {
            claim.heap_pages_dirty = 1;
            claim.heap = List(vec![span(0, 2)]);
        }
        7 => claim.stable_pages_dirty = u64::MAX,
        8 => claim.end = End::Trapped { code: if claim.effects.is_some() { 502 } else { 599 }, text: "" },
        9 => claim.logs = List(vec![Bytes(&[b'x'; 32 * 1024 + 1])]),
        _ => match &mut claim.effects {
            Some(effects) if number == 10 => effects.cycles_accepted = 1,
            Some(effects) => effects.accepted = true,
            None => claim.end = End::Returned,
        },
    }
}
