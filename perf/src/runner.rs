//! A module's function in a bare engine: wasmtime with the product's settings, or others, and nothing of Bulkhead
//! around it.

use std::fs::File;

use execution::Limits;
use execution::module::DataSegment;
use in_process::compile::Instrumented;
use wasmtime::{Caller, Engine, Instance, Linker, Module, Store, TypedFunc};

use crate::{kernel, modules};

/// Name of the memory that begins with the instructions left in a module that the product instrumented.
const PRODUCT_BOOKKEEPING: &str = "canister bookkeeping";
/// Name of the heap in such a module; canister toolchains call it so as well.
const HEAP: &str = "memory";

/// What stands in for the System API of a 32-bit canister. It answers what computing methods ask for; all else traps.
pub(crate) struct Host {
    arg: Vec<u8>,
    time: i64,
}

/// An instance whose functions may be run.
pub(crate) struct Loaded {
    store: Store<Host>,
    instance: Instance,
}

impl Loaded {
    /// Maps what the product compiled for `engine`'s settings.
    pub(crate) fn map(engine: &Engine, code: File) -> Result<Self, String> {
        let mut loaded = Self::new(engine, &kernel::map_code(engine, code)?, &[])?;
        loaded.fill_counter()?;
        Ok(loaded)
    }

    fn new(engine: &Engine, module: &Module, arg: &[u8]) -> Result<Self, String> {
        let start = || {
            let mut linker = linker(engine)?;
            linker.define_unknown_imports_as_traps(module)?;
            let mut store = Store::new(engine, Host { arg: arg.into(), time: 1 });
            // Refused where the engine has no fuel to count.
            let _unmetered = store.set_fuel(u64::MAX);
            let instance = linker.instantiate(&mut store, module)?;
            Ok(Self { store, instance })
        };
        start().map_err(failed)
    }

    /// Its function `name`.
    pub(crate) fn runner(mut self, name: &str) -> Result<Runner, String> {
        let run = self.instance.get_typed_func(&mut self.store, name).map_err(failed)?;
        Ok(Runner { loaded: self, run })
    }

    /// Gives the product's counter all the instructions there are.
    fn fill_counter(&mut self) -> Result<(), String> {
        let memory = self.instance.get_memory(&mut self.store, PRODUCT_BOOKKEEPING).ok_or("no counter")?;
        memory.write(&mut self.store, 0, &i64::MAX.to_le_bytes()).map_err(|error| error.to_string())
    }

    /// Writes the data segments, which the product takes out of a module.
    fn place(&mut self, segments: &[DataSegment]) -> Result<(), String> {
        let Some(heap) = self.instance.get_memory(&mut self.store, HEAP) else { return Ok(()) };
        segments.iter().try_for_each(|segment| {
            let offset = usize::try_from(segment.offset).map_err(|error| error.to_string())?;
            heap.write(&mut self.store, offset, &segment.bytes).map_err(|error| error.to_string())
        })
    }
}

/// A function that can be run.
pub(crate) struct Runner {
    loaded: Loaded,
    run: TypedFunc<(), ()>,
}

impl Runner {
    /// Function `name` of `wasm` as it is, which finds `arg` as the message's argument.
    pub(crate) fn new(engine: &Engine, wasm: &[u8], name: &str, arg: &[u8]) -> Result<Self, String> {
        let module = Module::new(engine, wasm).map_err(failed)?;
        Loaded::new(engine, &module, arg)?.runner(name)
    }

    /// The same function as the product's instrumentation makes it.
    pub(crate) fn product(engine: &Engine, wasm: &[u8], name: &str, arg: &[u8]) -> Result<Self, String> {
        let Instrumented { wasm, interface } =
            in_process::compile::instrument(&Limits::application(), wasm).map_err(|e| e.to_string())?;
        let module = Module::new(engine, wasm).map_err(failed)?;
        let mut loaded = Loaded::new(engine, &module, arg)?;
        loaded.place(&interface.data)?;
        loaded.fill_counter()?;
        loaded.runner(name)
    }

    /// Runs the function once.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.run.call(&mut self.loaded.store, ()).map_err(failed)
    }

    /// What its instance lives in, and the instance.
    pub(crate) fn parts(&mut self) -> (&mut Store<Host>, Instance) {
        (&mut self.loaded.store, self.loaded.instance)
    }
}

fn failed(error: wasmtime::Error) -> String {
    format!("{error:#}")
}

fn linker(engine: &Engine) -> Result<Linker<Host>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    linker.func_wrap("__", "out_of_instructions", || -> Result<(), wasmtime::Error> {
        Err(wasmtime::Error::msg("out of instructions"))
    })?;
    linker.func_wrap("ic0", "time", |caller: Caller<'_, Host>| caller.data().time)?;
    linker.func_wrap(modules::REFUSABLE, "time", |caller: Caller<'_, Host>| match caller.data().time {
        0 => Err(wasmtime::Error::msg("there is no time")),
        time => Ok(time),
    })?;
    linker
        .func_wrap("ic0", "msg_arg_data_size", |caller: Caller<'_, Host>| caller.data().arg.len() as u32)?;
    linker.func_wrap("ic0", "msg_arg_data_copy", copy_arg)?;
    linker.func_wrap("ic0", "msg_reply_data_append", |_from: u32, _size: u32| ())?;
    linker.func_wrap("ic0", "msg_reply", || ())?;
    Ok(linker)
}

fn copy_arg(mut caller: Caller<'_, Host>, to: u32, from: u32, size: u32) -> Result<(), wasmtime::Error> {
    let heap = caller.get_export(HEAP).and_then(wasmtime::Extern::into_memory);
    let heap = heap.ok_or_else(|| wasmtime::Error::msg("no heap"))?;
    let (heap, host) = heap.data_and_store_mut(&mut caller);
    let part = |start: u32| start as usize..start as usize + size as usize;
    match (heap.get_mut(part(to)), host.arg.get(part(from))) {
        (Some(heap), Some(arg)) => {
            heap.copy_from_slice(arg);
            Ok(())
        }
        _ => Err(wasmtime::Error::msg("out of bounds")),
    }
}
