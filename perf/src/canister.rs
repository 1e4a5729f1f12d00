//! A canister without a node around it: what a backend needs, and nothing else.

use std::sync::Arc;

use execution::memory::{Arena, Memory};
use execution::message::{Freezing, RunStatus};
use execution::{
    Backend, Compiler, Effects, EntryPoint, Execution, Invocation, Limits, Outcome, Principal, Snapshot,
    SystemView,
};

/// One canister's state of record, moved on by each message that it runs.
pub(crate) struct Canister {
    snapshot: Snapshot,
    limits: Arc<Limits>,
    next_id: u64,
}

impl Canister {
    /// Compiles `wasm` and makes its first state: no init is run.
    pub(crate) fn new(compiler: &dyn Compiler, wasm: &[u8], index: u64) -> Result<Self, String> {
        let limits = Arc::new(Limits::application());
        let module = compiler.compile(wasm).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let arena = Arena::new(1 << 32).map_err(|e| e.to_string())?;
        let interface = &module.interface;
        let segments = interface.data.iter().map(|segment| (segment.offset, segment.bytes.as_slice()));
        let heap =
            Memory::with_segments(&arena, interface.heap_pages_min, segments).map_err(|e| e.to_string())?;
        let mut id = index.to_be_bytes().to_vec();
        id.extend([1, 1]);
        Ok(Self {
            snapshot: Snapshot {
                canister: Principal::from_slice(&id),
                globals: interface.globals.clone().into(),
                module: Arc::clone(&module),
                arena,
                heap,
                stable: Memory::zeroed(0),
            },
            limits,
            next_id: 0,
        })
    }

    /// Runs an update method and commits its memory.
    pub(crate) fn update(
        &mut self,
        backend: &dyn Backend,
        method: &str,
        arg: &Arc<[u8]>,
    ) -> Result<Outcome, String> {
        self.run(backend, EntryPoint::Update { method: method.into(), arg: Arc::clone(arg) })
    }

    /// Runs an entry point and commits its memory.
    pub(crate) fn run(&mut self, backend: &dyn Backend, entry: EntryPoint) -> Result<Outcome, String> {
        let invocation = self.invocation(entry);
        let outcome = match backend.execute(&self.snapshot, &invocation).map_err(|e| e.to_string())? {
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
                log_bytes_free: 4096,
            },
            limits: Arc::clone(&self.limits),
        }
    }
}
