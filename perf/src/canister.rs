//! A canister without a node around it: what a backend needs, and nothing else. The one place of this crate
//! that knows arenas, memories and snapshots.

use std::collections::VecDeque;
use std::sync::Arc;

use execution::memory::{Arena, Memory};
use execution::message::{Freezing, RunStatus};
use execution::root::{MemoryRoot, Root};
use execution::{
    Backend, Batch, Compiler, Effects, EntryPoint, Execution, Invocation, Limits, Outcome, Principal,
    Snapshot, SystemView,
};

/// Bytes of page versions that a benchmark's canister may have.
const ARENA_BYTES: u64 = 1 << 32;

/// One canister's state of record, moved on by each message that it runs.
pub(crate) struct Canister {
    snapshot: Snapshot,
    limits: Arc<Limits>,
    no_arg: Arc<[u8]>,
    next_id: u64,
}

impl Canister {
    /// Compiles `wasm` and makes its first state: no init is run.
    pub(crate) fn new(compiler: &dyn Compiler, wasm: &[u8], index: u64) -> Result<Self, String> {
        let limits = Arc::new(Limits::application());
        let module = compiler.compile(wasm).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let arena = Arena::new(ARENA_BYTES).map_err(|e| e.to_string())?;
        let interface = &module.interface;
        let segments = interface.data.iter().map(|segment| (segment.offset, segment.bytes.as_slice()));
        let heap =
            Memory::with_segments(&arena, interface.heap_pages_min, segments).map_err(|e| e.to_string())?;
        Ok(Self {
            snapshot: Snapshot {
                canister: Self::id(index),
                globals: interface.globals.clone().into(),
                module: Arc::clone(&module),
                arena,
                heap,
                stable: Memory::zeroed(0),
            },
            limits,
            no_arg: Arc::from([]),
            next_id: 0,
        })
    }

    /// The id of the canister made with `index`.
    pub(crate) fn id(index: u64) -> Principal {
        let mut id = index.to_be_bytes().to_vec();
        id.extend([1, 1]);
        Principal::from_slice(&id)
    }

    /// As [`Canister::new`], from WebAssembly text.
    pub(crate) fn from_text(compiler: &dyn Compiler, text: &str, index: u64) -> Result<Self, String> {
        Self::new(compiler, &wat::parse_str(text).map_err(|error| error.to_string())?, index)
    }

    /// Runs an update method without an argument and commits its memory.
    pub(crate) fn update(&mut self, backend: &dyn Backend, method: &str) -> Result<(), String> {
        let arg = Arc::clone(&self.no_arg);
        self.run(backend, EntryPoint::Update { method: method.into(), arg }).map(drop)
    }

    /// The number of its last invocation.
    pub(crate) fn last_id(&self) -> u64 {
        self.next_id
    }

    /// The hash of the heap's content, from scratch.
    pub(crate) fn heap_root(&self) -> Root {
        MemoryRoot::default().root(&self.snapshot.heap)
    }

    /// Runs an entry point and commits its memory.
    pub(crate) fn run(&mut self, backend: &dyn Backend, entry: EntryPoint) -> Result<Outcome, String> {
        let invocation = self.invocation(entry);
        self.finished(backend.execute(&self.snapshot, &invocation).map_err(|e| e.to_string())?)
    }

    /// Commits the memory of a run that has ended.
    fn finished(&mut self, execution: Execution) -> Result<Outcome, String> {
        let outcome = match execution {
            Execution::Finished(outcome) => outcome,
            Execution::Paused(run) => {
                run.abort();
                return Err("a benchmark message used up its slice".into());
            }
        };
        match &outcome.effects {
            Some(effects) => self.commit(effects),
            None => return Err(format!("a benchmark message failed: {:?}", outcome.ending)),
        }
        Ok(outcome)
    }

    /// Runs an update method `count` times as one canister's queue, and commits each in its turn: ahead, where the
    /// backend does that. How many were run ahead.
    pub(crate) fn batch(
        &mut self,
        backend: &dyn Backend,
        method: &str,
        count: usize,
    ) -> Result<usize, String> {
        let arg = Arc::clone(&self.no_arg);
        let entry = EntryPoint::Update { method: method.into(), arg };
        let mut queue: VecDeque<_> = (0..count).map(|_| self.invocation(entry.clone())).collect();
        let mut batch: Option<Box<dyn Batch>> = None;
        let mut ahead = 0;
        while let Some(invocation) = queue.pop_front() {
            let given = batch.as_mut().and_then(|batch| batch.next(&self.snapshot, &invocation));
            ahead += usize::from(given.is_some());
            let execution = match given {
                Some(execution) => execution,
                None => {
                    drop(batch.take());
                    let executed =
                        backend.execute_batch(&self.snapshot, &invocation, queue.make_contiguous());
                    executed.map(|(execution, behind)| {
                        batch = behind;
                        execution
                    })
                }
            };
            let outcome = self.finished(execution.map_err(|e| e.to_string())?)?;
            let memory64 = self.snapshot.module.interface.memory64;
            queue.iter_mut().for_each(|next| next.charge(memory64, outcome.instructions));
        }
        Ok(ahead)
    }

    /// Runs a query on the state as it is.
    pub(crate) fn query(&mut self, backend: &dyn Backend, entry: EntryPoint) -> Result<Outcome, String> {
        let invocation = self.invocation(entry);
        let outcome = backend.query(&self.snapshot, &invocation, None).map_err(|e| e.to_string())?;
        match &outcome.effects {
            Some(_) => Ok(outcome),
            None => Err(format!("a benchmark query failed: {:?}", outcome.ending)),
        }
    }

    fn commit(&mut self, effects: &Effects) {
        let delta = &effects.memory;
        let snapshot = &mut self.snapshot;
        let heap_pages = delta.heap_pages.unwrap_or(snapshot.heap.wasm_pages());
        let stable_pages = delta.stable_pages.unwrap_or(snapshot.stable.wasm_pages());
        snapshot.heap = snapshot.heap.with(heap_pages, delta.heap.iter().cloned());
        snapshot.stable = snapshot.stable.with(stable_pages, delta.stable.iter().cloned());
        if !effects.globals.is_empty() {
            snapshot.globals = Arc::clone(&effects.globals);
        }
    }

    fn invocation(&mut self, entry: EntryPoint) -> Invocation {
        self.next_id += 1;
        Invocation {
            id: self.next_id,
            entry,
            caller: Principal::anonymous(),
            instructions_max: self.limits.update_instructions,
            slice: self.limits.update_instructions,
            system: SystemView {
                canister: self.snapshot.canister,
                subnet: Principal::management_canister(),
                time: 1_620_328_630_000_000_000,
                version: 1,
                status: RunStatus::Running,
                controllers: vec![Principal::anonymous()],
                balance: 1_000_000_000_000_000,
                freezing: Freezing::default(),
                cycles_available: 0,
                cycles_refunded: 0,
                deadline: 0,
                global_timer: 0,
                answered: false,
                answer_needed: true,
                call_context_instructions: 0,
                data_certificate: None,
                environment_variables: Vec::new(),
                root_key: Arc::from([]),
                wasm_memory_limit: 0,
                subnet_memory_available: 1 << 40,
                callbacks_free: 1000,
                queue_taken: Vec::new(),
                log_capacity: 4096,
                log_bytes_free: 4096,
            },
            limits: Arc::clone(&self.limits),
        }
    }
}

/// Pages of an arena that are filled and given back, again and again.
pub(crate) struct Staging(Arc<Arena>);

impl Staging {
    pub(crate) fn new() -> Result<Self, String> {
        Ok(Self(Arena::new(ARENA_BYTES).map_err(|error| error.to_string())?))
    }

    /// Has `fill` fill `count` pages.
    pub(crate) fn fill(
        &self,
        count: usize,
        fill: impl FnOnce(Vec<&mut [u8]>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut staged = self.0.stage(count).map_err(|error| error.to_string())?;
        fill(staged.ranges_mut())
    }
}
