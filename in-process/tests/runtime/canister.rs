//! A canister made of WebAssembly text, run message by message.

use std::sync::Arc;

use execution::memory::{Arena, Memory, PAGE_BYTES, PageVersion};
use execution::{
    Answer, Backend, Callback, Compiler, EntryPoint, ErrorCode, Execution, Freezing, GlobalValue, Invocation,
    Limits, Outcome, Principal, RunStatus, Snapshot, SystemView,
};
use execution::{Ending, Trap};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};

/// A canister, its committed state, and two backends that must agree on every message.
pub(crate) struct Canister {
    pub(crate) snapshot: Snapshot,
    pub(crate) system: SystemView,
    pub(crate) limits: Arc<Limits>,
    warm: InProcess,
    fresh: InProcess,
}

impl Canister {
    /// Compiles and lays out a module; nothing has run yet.
    pub(crate) fn new(wat: &str) -> Self {
        Self::from_bytes(&wat::parse_str(wat).expect("the test's module is valid text"))
    }

    pub(crate) fn from_bytes(wasm: &[u8]) -> Self {
        let engine = Engine::new().unwrap();
        let limits = Arc::new(Limits::application());
        let compiler = ModuleCompiler::new(engine.clone(), Arc::clone(&limits));
        let module = compiler.compile(wasm).unwrap().unwrap();
        let arena = Arena::new(1 << 30).unwrap();
        let interface = &module.interface;
        let segments = interface.data.iter().map(|segment| (segment.offset, &segment.bytes[..]));
        let heap = Memory::with_segments(&arena, interface.heap_pages_min, segments).unwrap();
        let globals: Arc<[GlobalValue]> = interface.globals.clone().into();
        let canister = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 7, 1, 1]);
        let snapshot = Snapshot { canister, module, arena, heap, stable: Memory::zeroed(0), globals };
        Self {
            snapshot,
            system: system(canister),
            limits,
            warm: InProcess::new(engine.clone(), &InProcessOptions::default()),
            // Without room for a warm instance, every message gets a fresh one.
            fresh: InProcess::new(engine, &InProcessOptions { instances_max: 0, code_max: 1 }),
        }
    }

    /// Runs an entry point on both backends without committing anything.
    pub(crate) fn run(&self, entry: EntryPoint) -> Outcome {
        let instructions = match entry {
            EntryPoint::Query { .. } | EntryPoint::CompositeQuery { .. } => self.limits.query_instructions,
            _ => self.limits.update_instructions,
        };
        self.run_with(entry, instructions)
    }

    /// The same with a number of instructions.
    pub(crate) fn run_with(&self, entry: EntryPoint, instructions_max: u64) -> Outcome {
        let mut invocation = invocation(self, entry, instructions_max);
        let [warm, fresh] =
            [&self.warm, &self.fresh].map(|backend| execute(backend, &self.snapshot, &invocation));
        assert_same("a fresh instance", &warm, &fresh);
        if invocation.entry.is_replicated() {
            // Two slices, of which the second has room for all that is left over when the first ends.
            invocation.slice = warm.instructions * 2 / 3 + 1;
            assert_same("two slices", &warm, &execute(&self.warm, &self.snapshot, &invocation));
        }
        warm
    }

    /// Runs an entry point and commits what it did to memory.
    pub(crate) fn commit(&mut self, entry: EntryPoint) -> Outcome {
        let keeps = entry.keeps_memory();
        let outcome = self.run(entry);
        if let (true, Some(effects)) = (keeps, &outcome.effects) {
            self.snapshot = after(&self.snapshot, effects);
        }
        outcome
    }

    /// Canisters with a warm instance for messages, used last first.
    pub(crate) fn warm(&self) -> Vec<Snapshot> {
        self.warm.warm()
    }

    /// Sends an update and commits it.
    pub(crate) fn update(&mut self, method: &str, arg: &[u8]) -> Outcome {
        self.commit(update(method, arg))
    }

    /// Sends an update that must answer, and gives the answer.
    pub(crate) fn reply(&mut self, method: &str, arg: &[u8]) -> Vec<u8> {
        reply_of(&self.update(method, arg))
    }

    /// Sends a query that must answer, and gives the answer.
    pub(crate) fn query(&self, method: &str) -> Vec<u8> {
        reply_of(&self.run(EntryPoint::Query { method: method.into(), arg: Arc::default() }))
    }
}

/// A message for the canister.
pub(crate) fn invocation(canister: &Canister, entry: EntryPoint, instructions_max: u64) -> Invocation {
    Invocation {
        id: 1,
        entry,
        caller: Principal::anonymous(),
        instructions_max,
        slice: instructions_max,
        system: canister.system.clone(),
        limits: Arc::clone(&canister.limits),
    }
}

/// The snapshot with effects committed.
pub(crate) fn after(snapshot: &Snapshot, effects: &execution::Effects) -> Snapshot {
    let delta = &effects.memory;
    let size = |before: &Memory, after: Option<u64>| after.unwrap_or(before.wasm_pages());
    Snapshot {
        heap: snapshot.heap.with(size(&snapshot.heap, delta.heap_pages), delta.heap.clone()),
        stable: snapshot.stable.with(size(&snapshot.stable, delta.stable_pages), delta.stable.clone()),
        globals: Arc::clone(&effects.globals),
        ..snapshot.clone()
    }
}

pub(crate) fn update(method: &str, arg: &[u8]) -> EntryPoint {
    EntryPoint::Update { method: method.into(), arg: arg.into() }
}

pub(crate) fn reply_callback(function: u64, environment: u64, data: &[u8]) -> EntryPoint {
    EntryPoint::Reply { callback: Callback { function, environment }, data: data.into(), composite: false }
}

/// A bare 13-node application subnet canister with 100 T cycles.
fn system(canister: Principal) -> SystemView {
    SystemView {
        canister,
        subnet: Principal::from_slice(&[9; 29]),
        time: 1_700_000_000_000_000_000,
        version: 3,
        status: RunStatus::Running,
        controllers: vec![Principal::anonymous()],
        balance: 100_000_000_000_000,
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
        root_key: Arc::from([1, 2, 3]),
        wasm_memory_limit: 0,
        subnet_memory_available: 1 << 40,
        callbacks_free: 1_000_000,
        queue_taken: Vec::new(),
        log_capacity: 4096,
        log_bytes_free: 4096,
    }
}

fn execute(backend: &InProcess, snapshot: &Snapshot, invocation: &Invocation) -> Outcome {
    if !invocation.entry.is_replicated() {
        return backend.query(snapshot, invocation, None).unwrap();
    }
    let mut execution = backend.execute(snapshot, invocation).unwrap();
    loop {
        match execution {
            Execution::Finished(outcome) => return outcome,
            Execution::Paused(run) => execution = run.resume(invocation.slice).unwrap(),
        }
    }
}

/// Equal but for where pages lie.
fn assert_same(what: &str, warm: &Outcome, other: &Outcome) {
    let without_pages = |outcome: &Outcome| {
        let mut outcome = outcome.clone();
        if let Some(effects) = &mut outcome.effects {
            effects.memory.heap.clear();
            effects.memory.stable.clear();
        }
        outcome
    };
    assert_eq!(without_pages(warm), without_pages(other), "a warm instance and {what} agree");
    let pages = |pages: &[(u64, PageVersion)]| -> Vec<(u64, [u8; PAGE_BYTES])> {
        pages.iter().map(|(index, version)| (*index, *version.bytes())).collect()
    };
    if let (Some(warm), Some(other)) = (&warm.effects, &other.effects) {
        assert!(pages(&warm.memory.heap) == pages(&other.memory.heap), "equal heap pages");
        assert!(pages(&warm.memory.stable) == pages(&other.memory.stable), "equal stable pages");
    }
}

/// The reply of a run that returned.
pub(crate) fn reply_of(outcome: &Outcome) -> Vec<u8> {
    match outcome.effects.as_ref().and_then(|effects| effects.answer.as_ref()) {
        Some(Answer::Reply(reply)) => reply.clone(),
        _ => panic!("no reply: {outcome:?}"),
    }
}

/// The trap of a run that trapped.
pub(crate) fn trap_of(outcome: &Outcome) -> &Trap {
    match &outcome.ending {
        Ending::Trapped(trap) => trap,
        Ending::Returned => panic!("it returned: {outcome:?}"),
    }
}

/// Asserts that a run trapped with this code and with a text that holds `words`.
pub(crate) fn assert_trap(outcome: &Outcome, code: ErrorCode, words: &str) {
    let trap = trap_of(outcome);
    assert_eq!(trap.code, code, "{}", trap.text);
    assert!(trap.text.contains(words), "{:?} holds {words:?}", trap.text);
    let record = outcome.logs.last().expect("a trap leaves a record");
    assert!(record.text.starts_with(b"[TRAP]: "));
}

/// Imports, a heap of one page, functions that answer with the heap's first bytes.
pub(crate) fn module(imports: &[&str], rest: &str) -> String {
    let imports: String = imports.iter().map(|name| import(name, "i32")).collect();
    format!("(module {imports} (memory (export \"memory\") 1) {rest})")
}

/// The import of one function, under its own name, for a heap of this width.
pub(crate) fn import(name: &str, pointer: &str) -> String {
    use in_process::api::P;
    let function = in_process::api::find(name).expect("a function of the System API");
    let ty = |p: P| match p {
        P::I => pointer,
        P::I32 => "i32",
        P::I64 => "i64",
    };
    let params: String = function.params.iter().map(|&p| format!(" (param {})", ty(p))).collect();
    let result = function.result.map_or(String::new(), |p| format!(" (result {})", ty(p)));
    format!("(import \"ic0\" \"{name}\" (func ${name}{params}{result}))")
}
