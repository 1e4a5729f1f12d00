//! A random canister, run as it is and instrumented: each entry point ends in the same way, calls the same functions
//! with the same values, and leaves the same heap and globals; each page that changed is marked as written; and the
//! count of instructions is the same in a second run.
//!
//! Where the two may differ, comparing stops: when the plain module takes too long or overflows its stack (how deep
//! that is depends on the code), and when a bulk operation has an operand that costs more than there is.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use arbitrary::{Arbitrary as _, Unstructured};
use execution::Limits;
use in_process::compile::{Instrumented, instrument};
use wasm_smith::Config;
use wasmparser::{ExternalKind, Parser, Payload};
use wasmtime::{
    Engine, Extern, ExternType, Func, Instance, Linker, Memory, Module, ResourceLimiter, Store, Trap, Val,
};

/// Instructions of the plain module's run, as the engine counts them.
const FUEL: u64 = 200_000;
/// Instructions of an instrumented entry point.
const BUDGET: i64 = 1_000_000_000;
/// Pages that a heap grows to.
const PAGES_MAX: usize = 16;
const PAGE_BYTES: usize = 4096;
/// The memory that instrumented code keeps for itself. It begins with the instructions left.
const BOOKKEEPING: &str = "canister bookkeeping";
/// Where a byte for each page of the heap begins in it: after the instructions left and the number of pages written.
const MARKS_OFFSET: usize = 12;
/// Stack of a thread that runs guests.
const STACK_BYTES: usize = 16 << 20;

/// What a generated canister exports, for 32-bit and 64-bit heaps.
const EXPORTS: [&str; 2] = [
    r#"(module (memory (export "heap") 1 4) (global (export "a") (mut i32) (i32.const 0))
         (global (export "b") (mut i64) (i64.const 0)) (global (export "c") (mut f64) (f64.const 0))
         (func (export "canister_init")) (func (export "canister_update a")) (func (export "canister_query b"))
         (func (export "canister_update c")))"#,
    r#"(module (memory (export "heap") i64 1 4) (global (export "a") (mut i64) (i64.const 0))
         (global (export "b") (mut v128) (v128.const i64x2 0 0)) (global (export "c") (mut f32) (f32.const 0))
         (func (export "canister_init")) (func (export "canister_update a")) (func (export "canister_query b")))"#,
];

/// Functions that a generated canister may import. They do nothing and give zero.
const IMPORTS: [&str; 2] = [
    r#"(module (import "ic0" "msg_reply" (func)) (import "ic0" "time" (func (result i64)))
         (import "ic0" "msg_arg_data_copy" (func (param i32 i32 i32)))
         (import "ic0" "stable64_grow" (func (param i64) (result i64))))"#,
    r#"(module (import "ic0" "msg_reply" (func)) (import "ic0" "canister_version" (func (result i64)))
         (import "ic0" "msg_arg_data_copy" (func (param i64 i64 i64)))
         (import "ic0" "msg_arg_data_size" (func (result i64))))"#,
];

/// What came of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The bytes make no module.
    Nothing,
    /// The validator refuses it.
    Refused,
    /// So many entry points ran and were compared.
    Compared(usize),
}

/// Makes a module of `input` and compares.
pub fn run(input: &[u8]) -> Came {
    let Ok(wasm) = module(input) else { return Came::Nothing };
    let Ok(instrumented) = instrument(&Limits::application(), &wasm) else { return Came::Refused };
    std::thread::scope(|scope| {
        let run = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || compare(&wasm, &instrumented))
            .expect("a thread");
        match run.join() {
            Ok(compared) => Came::Compared(compared),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A module with the features that are on. Only some of it is what a canister may have.
fn module(input: &[u8]) -> arbitrary::Result<Vec<u8>> {
    let mut bytes = Unstructured::new(input);
    let wide = bool::arbitrary(&mut bytes)?;
    let references = u8::arbitrary(&mut bytes)? % 4 == 0;
    let text = |texts: [&str; 2]| Some(wat::parse_str(texts[usize::from(wide)]).expect("a module"));
    let config = Config {
        exports: text(EXPORTS),
        available_imports: text(IMPORTS),
        exceptions_enabled: false,
        extended_const_enabled: false,
        gc_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        memory64_enabled: wide,
        reference_types_enabled: references,
        max_imports: 4,
        max_memories: 1,
        max_tables: usize::from(references),
        max_table_elements: 100,
        max_globals: 8,
        max_data_segments: 4,
        max_element_segments: usize::from(references),
        ..Config::default()
    };
    Ok(wasm_smith::Module::new(config, &mut bytes)?.to_bytes())
}

/// Runs both, entry point by entry point; how many were compared.
fn compare(wasm: &[u8], instrumented: &Instrumented) -> usize {
    let mut plain = Run::plain(wasm);
    let module = Module::new(product().raw(), &instrumented.wasm).expect("a valid module");
    let mut ours = Run::instrumented(&module, instrumented);
    let mut again = Run::instrumented(&module, instrumented);
    let globals = exported_globals(wasm);
    let names: Vec<&str> =
        ["canister_init", "canister_update a", "canister_query b", "canister_update c"].into();
    let mut compared = 0;
    for name in ["canister_start"].into_iter().chain(names) {
        let before = ours.heap();
        let Some(end) = ours.call(name) else { continue };
        assert_eq!(again.call(name), Some(end), "{name} ends in one way");
        assert_eq!(again.left(), ours.left(), "{name} has one count");
        // The plain module's start function ran when it was instantiated.
        let wanted = if name == "canister_start" { plain.start } else { plain.call(name) };
        let Some(wanted) = wanted else { panic!("{name} is exported by the instrumented module alone") };
        if !wanted.is_defined() || end == End::Trap(Trap::OutOfFuel) {
            break;
        }
        assert_eq!(end, wanted, "{name}");
        if plain.instance.is_none() {
            return compared + 1;
        }
        assert_eq!(ours.store.data().calls, plain.store.data().calls, "{name}: calls of the System API");
        let heap = ours.heap();
        assert!(heap == plain.heap(), "{name} leaves another heap");
        for (exported, index) in &globals {
            assert_eq!(
                ours.global(&format!("global {index}")),
                plain.global(exported),
                "{name}: global {exported}"
            );
        }
        ours.assert_marked(name, &before, &heap);
        compared += 1;
        if end != End::Returned {
            // What follows a trap is the runtime's business.
            break;
        }
    }
    compared
}

/// How an entry point ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Returned,
    Trap(Trap),
}

impl End {
    fn is_defined(self) -> bool {
        !matches!(self, Self::Trap(Trap::OutOfFuel | Trap::StackOverflow))
    }

    fn of(result: wasmtime::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Returned,
            Err(error) => match error.downcast_ref::<Trap>() {
                Some(trap) => Self::Trap(*trap),
                None => panic!("no trap: {error:#}"),
            },
        }
    }
}

/// The engine of the product.
fn product() -> &'static in_process::Engine {
    static ENGINE: OnceLock<in_process::Engine> = OnceLock::new();
    ENGINE.get_or_init(|| in_process::Engine::new().expect("the engine profile"))
}

/// What a store has beside the engine's: a bound of its memories, and the calls that left it.
#[derive(Default)]
struct Host {
    calls: Vec<(String, Vec<String>)>,
}

impl ResourceLimiter for Host {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(current == 0 || desired <= PAGES_MAX << 16)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= 1_000_000)
    }
}

struct Run {
    store: Store<Host>,
    instance: Option<Instance>,
    /// How the start function of a plain module ended.
    start: Option<End>,
}

impl Run {
    fn plain(wasm: &[u8]) -> Self {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        let engine = ENGINE.get_or_init(|| {
            let mut config = wasmtime::Config::new();
            config.consume_fuel(true).cranelift_nan_canonicalization(true);
            Engine::new(&config).expect("an engine")
        });
        let module = Module::new(engine, wasm).expect("a valid module");
        let mut store = store(engine);
        store.set_fuel(FUEL).expect("fuel is on");
        let linker = linker(&module, &mut store);
        let (instance, end) = match linker.instantiate(&mut store, &module) {
            Ok(instance) => (Some(instance), End::Returned),
            Err(error) => (None, End::of(Err(error))),
        };
        Self { store, instance, start: Some(end) }
    }

    fn instrumented(module: &Module, instrumented: &Instrumented) -> Self {
        let mut store = store(module.engine());
        let mut linker = linker(module, &mut store);
        let out = |_: wasmtime::Caller<'_, Host>| -> wasmtime::Result<()> { Err(Trap::OutOfFuel.into()) };
        linker.func_wrap("__", "out_of_instructions", out).expect("shadowing is allowed");
        let instance = linker.instantiate(&mut store, module).expect("nothing runs, and all segments fit");
        let mut run = Self { store, instance: Some(instance), start: None };
        for segment in &instrumented.interface.data {
            let offset = usize::try_from(segment.offset).expect("it fits the memory");
            let memory = instance.get_memory(&mut run.store, "memory").expect("data has a memory");
            memory.data_mut(&mut run.store)[offset..][..segment.bytes.len()].copy_from_slice(&segment.bytes);
        }
        run
    }

    fn export(&mut self, name: &str) -> Option<Extern> {
        self.instance?.get_export(&mut self.store, name)
    }

    fn call(&mut self, name: &str) -> Option<End> {
        let function = self.export(name)?.into_func()?;
        if let Some(Extern::Memory(bookkeeping)) = self.export(BOOKKEEPING) {
            bookkeeping.write(&mut self.store, 0, &BUDGET.to_le_bytes()).expect("it begins with the counter");
        }
        Some(End::of(function.call(&mut self.store, &[], &mut [])))
    }

    fn left(&mut self) -> i64 {
        let mut left = [0; size_of::<i64>()];
        self.bookkeeping().read(&self.store, 0, &mut left).expect("it begins with the counter");
        i64::from_le_bytes(left)
    }

    fn bookkeeping(&mut self) -> Memory {
        self.export(BOOKKEEPING).and_then(Extern::into_memory).expect("instrumented code has it")
    }

    fn heap(&mut self) -> Vec<u8> {
        let heap = self.export("memory").or_else(|| self.export("heap")).and_then(Extern::into_memory);
        heap.map_or_else(Vec::new, |heap| heap.data(&self.store).to_vec())
    }

    /// A global's value, bit for bit.
    fn global(&mut self, name: &str) -> String {
        let global = self.export(name).and_then(Extern::into_global).expect("an exported global");
        format!("{:?}", global.get(&mut self.store))
    }

    /// Each page that differs is marked. The map has a byte for each page.
    fn assert_marked(&mut self, name: &str, before: &[u8], after: &[u8]) {
        let bookkeeping = self.bookkeeping();
        let marks = &bookkeeping.data(&self.store)[MARKS_OFFSET..];
        for (page, bytes) in after.chunks(PAGE_BYTES).enumerate() {
            let zeros = [0; PAGE_BYTES];
            let was = before
                .get(page * PAGE_BYTES..)
                .map_or(&zeros[..], |rest| &rest[..rest.len().min(PAGE_BYTES)]);
            let was = if was.is_empty() { &zeros[..] } else { was };
            assert!(bytes == was || marks[page] == 1, "{name} changes page {page} and doesn't mark it");
        }
    }
}

fn store(engine: &Engine) -> Store<Host> {
    let mut store = Store::new(engine, Host::default());
    store.limiter(|host| host);
    store
}

/// Functions that note their arguments, do nothing and give zeros.
fn linker(module: &Module, store: &mut Store<Host>) -> Linker<Host> {
    let mut linker = Linker::new(module.engine());
    linker.allow_shadowing(true);
    for import in module.imports() {
        let ExternType::Func(ty) = import.ty() else { panic!("canisters import functions") };
        let name = import.name().to_owned();
        let zeros: Vec<Val> = ty.results().map(|ty| Val::default_for_ty(&ty).expect("a number")).collect();
        let function = Func::new(&mut *store, ty, move |mut caller, arguments, results| {
            let arguments = arguments.iter().map(|argument| format!("{argument:?}")).collect();
            caller.data_mut().calls.push((name.clone(), arguments));
            results.clone_from_slice(&zeros);
            Ok(())
        });
        linker.define(&mut *store, import.module(), import.name(), function).expect("shadowing is allowed");
    }
    linker
}

/// Names of the exported globals, with their numbers among the mutable ones.
fn exported_globals(wasm: &[u8]) -> BTreeMap<String, usize> {
    let (mut mutable, mut names) = (Vec::new(), BTreeMap::new());
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match payload {
            Payload::GlobalSection(globals) => {
                mutable = globals.into_iter().map_while(Result::ok).map(|global| global.ty.mutable).collect();
            }
            Payload::ExportSection(exports) => {
                for export in exports.into_iter().map_while(Result::ok) {
                    if export.kind == ExternalKind::Global {
                        let index =
                            mutable[..export.index as usize].iter().filter(|mutable| **mutable).count();
                        names.insert(export.name.to_owned(), index);
                    }
                }
            }
            _ => {}
        }
    }
    names
}
