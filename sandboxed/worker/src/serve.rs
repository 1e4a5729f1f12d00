//! The worker's conversation with the node: one request, one reply, in the order of the phases.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use execution::memory::{PAGE_BYTES, Window};
use execution::{Invocation, Limits};
use in_process::{Base, Code, Engine, EngineError, Instance, Paused, Ran, Shape, Step, Update};
use sandbox_os::attempt::{self, Outlived};
use sandbox_os::lockdown::{Exit, Locks};
use sandbox_os::{Socket, SocketError};
use sandbox_protocol::{
    Assembly, Attempt, BATCH_INSTRUCTIONS_MAX, BATCH_PAGES_MAX, Batch, Binding, Bytes, Carried, Effects, End,
    Execute, Finished, Last, Load, Loaded, Malformed, PACKET_BYTES, PAGES_PER_REPLY, Pages, Sync, ToNode,
    ToWorker, decode, encode, packets, page_spans, page_updates,
};

const _: () = assert!(PACKET_BYTES <= sandbox_os::PACKET_BYTES_MAX);

/// Mappings that a heap may consist of: they, and the rest of the process, stay far below what the node reads
/// of `/proc/PID/maps` (1 MiB) and the kernel's limit (vm.max_map_count, 65,530).
const MAPPINGS_MAX: usize = 4_000;

/// Room for a packet. Static, so that only the pages that packets fill become memory: on the C heap, which is made of
/// memory that was used before, all of its 64 KiB would be written with zeros in every worker.
static PACKET: Mutex<[u8; PACKET_BYTES]> = Mutex::new([0; PACKET_BYTES]);

/// Serves until the node closes the socket or something is wrong; says which.
pub(crate) fn run(socket: &Socket, engine: &Engine, locks: &Locks) -> Exit {
    match serve(socket, engine, locks) {
        Ok(never) => match never {},
        Err(exit) => exit,
    }
}

fn serve(socket: &Socket, engine: &Engine, locks: &Locks) -> Result<Infallible, Exit> {
    let mut packet = PACKET.lock().unwrap_or_else(PoisonError::into_inner);
    let mut node = Node { socket, packet: &mut *packet, frame: Vec::new() };
    let mut request = Assembly::default();

    let (binding, _) = node.receive_with_files(&mut request)?;
    let ToWorker::Begin = message(&request)? else { return Err(Exit::Request) };
    node.reply(binding, &ToNode::Ready)?;

    let (binding, files) = node.receive_with_files(&mut request)?;
    let load = match message(&request)? {
        ToWorker::Load(load) => load,
        ToWorker::Attempt(what) => return node.attempt(binding, what, locks),
        _ => return Err(Exit::Request),
    };
    let (code, instance) = match load_instance(engine, *load, files)? {
        Ok(loaded) => loaded,
        Err(error) => return node.fail(binding, &error, Exit::Load),
    };
    let loaded = Loaded { heap: address(instance.heap_start()), stable: address(instance.stable_start()) };
    node.reply(binding, &ToNode::Loaded(loaded))?;

    let binding = node.receive(&mut request)?;
    let ToWorker::Lock = message(&request)? else { return Err(Exit::Request) };
    locks.run(code.text());
    node.reply(binding, &ToNode::Locked)?;

    let mut limits = None;
    let mut canister = Canister::Idle(Idle { instance, heap: Vec::new(), stable: 0 });
    loop {
        let binding = node.receive(&mut request)?;
        let step = match (message(&request)?, canister) {
            (ToWorker::Execute(execute), Canister::Idle(idle)) => idle.execute(*execute, &mut limits)?,
            (ToWorker::Resume { slice }, Canister::Paused(run)) => run.resume(slice).map(Progress::of),
            (ToWorker::Pages(wanted), Canister::Idle(idle)) => {
                node.reply(binding, &ToNode::Pages(Bytes(&idle.copy(wanted)?)))?;
                canister = Canister::Idle(idle);
                continue;
            }
            _ => return Err(Exit::Request),
        };
        canister = match step {
            Ok(progress) => node.tell(binding, progress)?,
            Err(error) => return node.fail(binding, &error, Exit::Engine),
        };
    }
}

fn message(request: &Assembly) -> Result<ToWorker<'_>, Exit> {
    decode(request.body()).map_err(|_| Exit::Request)
}

/// Maps code and memory and makes the instance. All descriptors are closed when this returns.
fn load_instance(
    engine: &Engine,
    load: Load,
    files: Vec<OwnedFd>,
) -> Result<Result<(Code, Instance), EngineError>, Exit> {
    let mut files = files.into_iter();
    let code = files.next().ok_or(Exit::Request)?;
    let arena: Vec<OwnedFd> = files.collect();
    let arena: Vec<_> = arena.iter().map(AsFd::as_fd).collect();
    let Ok(window) = Window::map(&arena, load.arena_bytes) else { return Err(Exit::Load) };
    let base = Base { window, files: arena, bytes_max: load.arena_bytes, mappings_max: MAPPINGS_MAX };
    let shape = Shape {
        memory64: load.memory64,
        has_memory: load.has_memory,
        heap_pages_max: load.heap_pages_max,
        globals: load.globals.0.into_iter().map(Into::into).collect(),
        stable_pages_max: load.stable_pages_max,
        drops_data: load.drops_data,
    };
    let start = update(load.start).map_err(|_| Exit::Request)?;
    Ok(Code::load(engine, code).and_then(|code| {
        let instance = Instance::new(&code, shape, base, &start)?;
        Ok((code, instance))
    }))
}

/// The one canister that this process serves.
enum Canister {
    /// Waits for a message.
    Idle(Idle),
    /// Waits for its message's next slice.
    Paused(Paused),
}

/// A canister between two messages.
struct Idle {
    instance: Instance,
    /// Heap pages that the last run wrote and keeps, ascending.
    heap: Vec<u64>,
    /// Number of stable pages that it wrote and keeps.
    stable: usize,
}

impl Idle {
    /// Brings the canister up to date and runs. `limits` are those that were sent last.
    fn execute(
        mut self,
        execute: Execute<'_>,
        limits: &mut Option<Arc<Limits>>,
    ) -> Result<Result<Progress, EngineError>, Exit> {
        let Execute { sync, mut invocation, expected } = execute;
        if let Some(sent) = invocation.limits.take() {
            *limits = Some(Arc::new((*sent).into()));
        }
        let limits = limits.clone().ok_or(Exit::Request)?;
        let with_limits = |invocation: sandbox_protocol::Invocation<'_>| {
            invocation.with_limits(Arc::clone(&limits)).map_err(|_| Exit::Request)
        };
        let invocation = with_limits(invocation)?;
        let expected = expected.0.into_iter().map(with_limits).collect::<Result<VecDeque<_>, _>>()?;
        let sizes = [sync.heap_pages, sync.stable_pages];
        let update = update(sync).map_err(|_| Exit::Request)?;
        Ok(self.instance.sync(&update).and_then(|()| run_batch(self.instance, sizes, invocation, expected)))
    }

    /// Copies pages that the last run wrote, for a node that may not read them itself.
    fn copy(&self, wanted: Pages) -> Result<Vec<u8>, Exit> {
        let written = if wanted.stable { self.stable } else { self.heap.len() };
        let first = wanted.first as usize;
        let end = first.saturating_add(wanted.count as usize);
        if wanted.count > PAGES_PER_REPLY || end > written {
            return Err(Exit::Request);
        }
        let mut bytes = vec![0; (end - first) * PAGE_BYTES];
        for (index, to) in (first..end).zip(bytes.as_chunks_mut::<PAGE_BYTES>().0) {
            if wanted.stable {
                self.instance.copy_stable_page(index, to);
            } else {
                self.instance.copy_heap_page(self.heap[index], to);
            }
        }
        Ok(bytes)
    }
}

/// How far the canister's messages are.
struct Progress {
    /// Runs that the next one went on from.
    carried: Vec<(Ran, Vec<Arc<[u8; PAGE_BYTES]>>)>,
    last: Step,
}

impl Progress {
    fn of(last: Step) -> Self {
        Self { carried: Vec::new(), last }
    }
}

/// Runs `invocation` and then what is `expected` behind it, for as long as that is what the node will ask for, and one
/// reply holds it. `sizes` are those of heap and stable memory.
fn run_batch(
    mut instance: Instance,
    sizes: [u64; 2],
    mut invocation: Invocation,
    mut expected: VecDeque<Invocation>,
) -> Result<Progress, EngineError> {
    let memory64 = instance.shape().memory64;
    let mut carried = Vec::new();
    let mut room = Room::default();
    loop {
        let (mut ran_on, ran) = match instance.run(invocation)? {
            Step::Finished(instance, ran) => (instance, ran),
            paused @ Step::Paused(_) => return Ok(Progress { carried, last: paused }),
        };
        let goes_on = !expected.is_empty() && ran.is_as_expected(sizes) && room.take(&ran);
        let pages = if goes_on { ran_on.carry_on() } else { None };
        let Some((pages, next)) = pages.zip(expected.pop_front()) else {
            return Ok(Progress { carried, last: Step::Finished(ran_on, ran) });
        };
        invocation = next;
        invocation.charge(memory64, ran.instructions);
        expected.iter_mut().for_each(|expected| expected.charge(memory64, ran.instructions));
        carried.push((ran, pages));
        instance = ran_on;
    }
}

/// Room that is left for a batch.
struct Room {
    instructions: u64,
    pages: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { instructions: BATCH_INSTRUCTIONS_MAX, pages: BATCH_PAGES_MAX }
    }
}

impl Room {
    /// Takes what a run needs that another one follows; whether there was as much.
    fn take(&mut self, ran: &Ran) -> bool {
        let left = || {
            Some(Self {
                instructions: self.instructions.checked_sub(ran.instructions)?,
                pages: self.pages.checked_sub(ran.heap_dirty.len() + ran.stable_dirty.len())?,
            })
        };
        left().map(|left| *self = left).is_some()
    }
}

fn address(page: *const u8) -> u64 {
    page.addr() as u64
}

/// What a run did, for the wire.
fn finished(ran: &Ran) -> Finished<'_> {
    Finished {
        end: End::from(&ran.ending),
        instructions: ran.instructions,
        heap_pages_dirty: ran.heap_pages_dirty,
        stable_pages_dirty: ran.stable_pages_dirty,
        logs: ran.logs.iter().map(|line| Bytes(&line.text)).collect(),
        effects: ran.effects.as_ref().map(Effects::from),
        heap_pages: ran.heap_pages,
        stable_pages: ran.stable_pages,
        heap: page_spans(ran.heap_dirty.iter().copied()),
        stable: page_spans(ran.stable_dirty.iter().copied()),
        reusable: ran.reusable,
    }
}

fn update(sync: Sync) -> Result<Update, Malformed> {
    Ok(Update {
        heap_pages: sync.heap_pages,
        stable_pages: sync.stable_pages,
        globals: sync.globals.0.into_iter().map(Into::into).collect(),
        heap: page_updates(&sync.heap.0)?,
        stable: page_updates(&sync.stable.0)?,
    })
}

/// The worker's end of the socket, with room for a packet and a frame.
struct Node<'a> {
    socket: &'a Socket,
    packet: &'a mut [u8],
    frame: Vec<u8>,
}

impl Node<'_> {
    /// Receives a request. Before the RUN lock, descriptors may come with its first packet.
    fn receive_with_files(&mut self, request: &mut Assembly) -> Result<(Binding, Vec<OwnedFd>), Exit> {
        request.restart();
        let (bytes, files) = self.socket.receive_with_files(self.packet).map_err(exit)?;
        match self.take(request, bytes)? {
            Some(binding) => Ok((binding, files)),
            None => Ok((self.receive_rest(request)?, files)),
        }
    }

    fn receive(&mut self, request: &mut Assembly) -> Result<Binding, Exit> {
        request.restart();
        self.receive_rest(request)
    }

    fn receive_rest(&mut self, request: &mut Assembly) -> Result<Binding, Exit> {
        loop {
            let bytes = self.socket.receive_blocking(self.packet).map_err(exit)?;
            if let Some(binding) = self.take(request, bytes)? {
                return Ok(binding);
            }
        }
    }

    fn take(&self, request: &mut Assembly, bytes: usize) -> Result<Option<Binding>, Exit> {
        let packet = self.packet.get(..bytes).ok_or(Exit::Request)?;
        request.push(packet).map_err(|_| Exit::Request)
    }

    /// Tells how far the canister's messages are.
    fn tell(&mut self, binding: Binding, Progress { carried, last }: Progress) -> Result<Canister, Exit> {
        let told = match &last {
            Step::Paused(run) => Last::Paused { instructions: run.instructions() },
            Step::Finished(_, ran) => Last::Finished(finished(ran)),
        };
        let message = if carried.is_empty() {
            match told {
                Last::Paused { instructions } => ToNode::Paused { instructions },
                Last::Finished(finished) => ToNode::Finished(Box::new(finished)),
            }
        } else {
            let carried = carried.iter().map(|(ran, pages)| Carried {
                finished: finished(ran),
                pages: pages.iter().map(|page| Bytes(&page[..])).collect(),
            });
            ToNode::Batch(Box::new(Batch { carried: carried.collect(), last: told }))
        };
        self.reply(binding, &message)?;
        Ok(match last {
            Step::Paused(run) => Canister::Paused(run),
            Step::Finished(instance, ran) => {
                Canister::Idle(Idle { instance, heap: ran.heap_dirty, stable: ran.stable_dirty.len() })
            }
        })
    }

    fn reply(&mut self, binding: Binding, message: &ToNode<'_>) -> Result<(), Exit> {
        encode(binding, message, &mut self.frame).map_err(|_| Exit::Request)?;
        for packet in packets(&self.frame) {
            self.socket.send_blocking(packet).map_err(exit)?;
        }
        Ok(())
    }

    /// Does what no worker should be able to do, and ends.
    fn attempt<T>(&mut self, binding: Binding, what: Attempt, locks: &Locks) -> Result<T, Exit> {
        let what = match what {
            Attempt::TimeStampCounter => attempt::Attempt::TimeStampCounter,
            Attempt::Clock => attempt::Attempt::Clock,
            Attempt::Cpuid => attempt::Attempt::Cpuid,
            Attempt::OutsideLoad => attempt::Attempt::OutsideLoad,
            Attempt::WriteAndExecute => attempt::Attempt::WriteAndExecute,
            Attempt::WriteThenExecute => attempt::Attempt::WriteThenExecute,
            Attempt::OutsideRun => attempt::Attempt::OutsideRun,
            Attempt::ExecuteInRun => attempt::Attempt::ExecuteInRun,
        };
        let done = attempt::attempt(what, locks) == Outlived::Done;
        self.reply(binding, &ToNode::Outlived { done })?;
        Err(Exit::Attempted)
    }

    fn fail<T>(&mut self, binding: Binding, error: &EngineError, exit: Exit) -> Result<T, Exit> {
        self.reply(binding, &ToNode::Failed(&error.to_string()))?;
        Err(exit)
    }
}

fn exit(error: SocketError) -> Exit {
    match error {
        SocketError::Closed => Exit::Done,
        SocketError::Deadline(_) | SocketError::TooLong(_) | SocketError::Os(_) => Exit::Request,
    }
}
