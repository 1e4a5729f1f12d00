//! A canister's snapshot and an invocation, as tests need them.

use std::sync::Arc;

use execution::memory::{Arena, Memory};
use execution::{
    Backend, BackendError, Compiler, EntryPoint, Execution, Freezing, Invocation, Limits, Module, Principal,
    RunStatus, Snapshot, SystemView,
};
use in_process::Engine;
use in_process::compile::ModuleCompiler;

pub(crate) fn principal(number: u8) -> Principal {
    Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, number, 1, 1])
}

/// Runs a message as a round does: what the node is short of is asked back, and the message tried again.
pub(crate) fn tried(
    backend: &dyn Backend,
    snapshot: &Snapshot,
    invocation: &Invocation,
) -> Result<Execution, BackendError> {
    backend.execute(snapshot, invocation).or_else(|short| {
        backend.relieve(&short);
        backend.execute(snapshot, invocation)
    })
}

pub(crate) fn compile(text: &str) -> Arc<Module> {
    let compiler = ModuleCompiler::new(Engine::new().unwrap(), Arc::new(Limits::system()));
    compiler.compile(&wat::parse_str(text).unwrap()).unwrap().unwrap()
}

pub(crate) fn of_module(module: Arc<Module>, arena_bytes: u64) -> Snapshot {
    let arena = Arena::new(arena_bytes).unwrap();
    let interface = &module.interface;
    let data = interface.data.iter().map(|segment| (segment.offset, &segment.bytes[..]));
    Snapshot {
        canister: principal(7),
        heap: Memory::with_segments(&arena, interface.heap_pages_min, data).unwrap(),
        stable: Memory::zeroed(0),
        globals: interface.globals.clone().into(),
        arena,
        module,
    }
}

pub(crate) fn update(id: u64, method: &str) -> Invocation {
    invocation(id, EntryPoint::Update { method: method.into(), arg: Arc::from([1, 2, 3]) })
}

pub(crate) fn invocation(id: u64, entry: EntryPoint) -> Invocation {
    Invocation {
        id,
        entry,
        caller: Principal::anonymous(),
        instructions_max: 50_000_000,
        slice: 50_000_000,
        system: SystemView {
            canister: principal(7),
            subnet: principal(255),
            time: 1_700_000_000_000_000_000,
            version: 1,
            status: RunStatus::Running,
            controllers: vec![Principal::anonymous()],
            balance: 1 << 90,
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
            root_key: Arc::from([0; 8]),
            wasm_memory_limit: 0,
            subnet_memory_available: 1 << 40,
            callbacks_free: 1000,
            queue_taken: Vec::new(),
            log_capacity: 4096,
            log_bytes_free: 4096,
        },
        limits: Arc::new(Limits::system()),
    }
}
