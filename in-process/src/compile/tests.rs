//! Claims on validation, metering and the write barrier. Modules are small WebAssembly texts; what runs
//! is the instrumented module on the engine itself, without the runtime.

mod barrier;
mod cache;
mod meaning;
mod metering;
mod refusal;
mod spec;
mod table;
mod validation;

use execution::Limits;
use wasmtime::{Caller, Extern, Instance, Linker, Memory, Module, Store, Trap};

use super::{Instrumented, instrument};
use crate::bookkeeping::DirtyMap;

/// Instructions that a run starts with.
const BUDGET: i64 = 1_000_000_000;

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the test's text is well-formed")
}

/// Instruments a module that must be valid.
fn instrumented(text: &str) -> Instrumented {
    instrument(&Limits::application(), &wat(text)).expect("a valid module")
}

/// Why a module is refused.
fn refusal(text: &str) -> String {
    refusal_of(&wat(text))
}

fn refusal_of(wasm: &[u8]) -> String {
    let result = instrument(&Limits::application(), wasm).map(|module| module.interface.methods);
    result.expect_err("an invalid module").0
}

/// An instance of an instrumented module. Running out of instructions is a trap.
struct Run {
    store: Store<()>,
    instance: Instance,
    heap_pages_max: u64,
}

impl Run {
    fn new(text: &str) -> Self {
        let Instrumented { wasm, interface } = instrumented(text);
        let engine = crate::Engine::new().expect("the engine profile");
        let module = Module::new(engine.raw(), &wasm).expect("the instrumented module is valid");
        let mut linker = Linker::new(engine.raw());
        linker
            .func_wrap("__", "out_of_instructions", |_: Caller<'_, ()>| -> wasmtime::Result<()> {
                Err(Trap::OutOfFuel.into())
            })
            .expect("one definition");
        linker.define_unknown_imports_as_traps(&module).expect("stand-ins for the System API");
        let mut store = Store::new(engine.raw(), ());
        let instance = linker.instantiate(&mut store, &module).expect("an instance");
        let mut run = Self { store, instance, heap_pages_max: interface.heap_pages_max };
        run.set_left(BUDGET);
        for segment in &interface.data {
            let offset = usize::try_from(segment.offset).expect("a small memory");
            let memory = run.memory("memory");
            memory.data_mut(&mut run.store)[offset..][..segment.bytes.len()].copy_from_slice(&segment.bytes);
        }
        run
    }

    /// The bytes of the instructions left.
    fn counter(&mut self) -> &mut [u8; 8] {
        let bookkeeping = self.memory("canister bookkeeping").data_mut(&mut self.store);
        bookkeeping.first_chunk_mut().expect("it begins with the counter")
    }

    fn left(&mut self) -> i64 {
        i64::from_le_bytes(*self.counter())
    }

    fn set_left(&mut self, instructions: i64) {
        *self.counter() = instructions.to_le_bytes();
    }

    fn memory(&mut self, name: &str) -> Memory {
        self.instance.get_export(&mut self.store, name).and_then(Extern::into_memory).expect("a memory")
    }

    /// Calls `canister_update {method}`; gives the instructions it used.
    fn call(&mut self, method: &str) -> wasmtime::Result<i64> {
        let name = format!("canister_update {method}");
        let function = self.instance.get_typed_func::<(), ()>(&mut self.store, &name)?;
        let before = self.left();
        function.call(&mut self.store, ())?;
        Ok(before - self.left())
    }

    /// Indices of the 4 KiB heap pages that are marked; none is afterwards.
    fn dirty(&mut self) -> Vec<u64> {
        let map = self.memory("canister bookkeeping");
        let mut map = DirtyMap::new(map.data_mut(&mut self.store), self.heap_pages_max);
        let dirty = map.take();
        assert_eq!(map.take(), [0_u64; 0], "taking clears the map");
        dirty
    }

    /// The 64-bit word at a heap address.
    fn word(&mut self, address: usize) -> u64 {
        let heap = self.memory("memory");
        let bytes = heap.data(&self.store)[address..][..8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    }
}
