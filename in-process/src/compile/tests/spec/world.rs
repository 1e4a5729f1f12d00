//! Where a script's modules live: validated against the product's features, instrumented by the product's pass,
//! compiled by the product's engine, and linked with each other and with `spectest`.

use execution::Limits;
use execution::memory::WASM_PAGE_BYTES;
use execution::module::Interface;
use wasm_encoder::reencode::Reencode as _;
use wasm_encoder::{DataSection, ExportKind, ExportSection};
use wasmparser::{TypeRef, Validator};
use wasmtime::{
    Extern, Func, Global, GlobalType, Instance, Linker, Memory, MemoryType, Module, Mutability, Ref, RefType,
    Store, Table, TableType, Trap, Val,
};

use super::super::super::instrument::Rewriter;
use super::super::super::parsed::Parsed;
use super::super::super::validate::{self, FEATURES};
use super::values;

/// Export under which a script's start function is found: the pass leaves no start section.
const START: &str = "canister_start";
/// Export under which the memory with the counter is found, which it begins with.
const BOOKKEEPING: &str = "canister bookkeeping";

/// Changes an instrumented module: what is wrong on purpose in a control.
pub(super) type Mutation = fn(Vec<u8>) -> Vec<u8>;

/// Why there is no instance, or no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The validator says no.
    Refused(String),
    /// Imports are missing or of another type.
    Link(String),
    Trap(String),
}

pub(super) struct World {
    engine: wasmtime::Engine,
    store: Store<()>,
    linker: Linker<()>,
    bookkeeping: Vec<Memory>,
    mutation: Option<Mutation>,
}

impl World {
    pub(super) fn new(mutation: Option<Mutation>) -> Self {
        let engine = crate::Engine::new().expect("the engine profile").raw().clone();
        let mut store = Store::new(&engine, ());
        let mut linker = Linker::new(&engine);
        linker.allow_shadowing(true);
        linker
            // An instance that trapped while it was made has no counter that could be set; its functions may
            // be called all the same.
            .func_wrap("__", "out_of_instructions", || {})
            .expect("a new name");
        spectest(&mut store, &mut linker).expect("new names of the right types");
        Self { engine, store, linker, bookkeeping: Vec::new(), mutation }
    }

    /// Checks a module as WebAssembly, without the rules for canisters.
    pub(super) fn validate(wasm: &[u8]) -> Result<(), Failure> {
        match Validator::new_with_features(FEATURES).validate_all(wasm) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Refused(error.to_string())),
        }
    }

    pub(super) fn instantiate(&mut self, wasm: &[u8]) -> Result<Instance, Failure> {
        Self::validate(wasm)?;
        let mut wasm = instrumented(wasm);
        if let Some(mutation) = self.mutation {
            wasm = mutation(wasm);
        }
        let module = Module::new(&self.engine, &wasm).map_err(|error| Failure::Link(format!("{error:#}")))?;
        let instance = self.linker.instantiate(&mut self.store, &module).map_err(|error| failure(&error))?;
        let bookkeeping = instance.get_memory(&mut self.store, BOOKKEEPING).expect("the pass exports it");
        self.bookkeeping.push(bookkeeping);
        if let Some(start) = instance.get_func(&mut self.store, START) {
            self.call(start, &[])?;
        }
        Ok(instance)
    }

    pub(super) fn register(&mut self, name: &str, instance: Instance) {
        self.linker.instance(&mut self.store, name, instance).expect("shadowing is allowed");
    }

    pub(super) fn export(&mut self, instance: Instance, name: &str) -> Option<Extern> {
        instance.get_export(&mut self.store, name)
    }

    pub(super) fn global(&mut self, global: Global) -> Val {
        global.get(&mut self.store)
    }

    /// Calls a function with more instructions than there are.
    pub(super) fn call(&mut self, function: Func, arguments: &[Val]) -> Result<Vec<Val>, Failure> {
        for bookkeeping in &self.bookkeeping {
            bookkeeping
                .write(&mut self.store, 0, &i64::MAX.to_le_bytes())
                .expect("it begins with the counter");
        }
        let mut results: Vec<Val> = function.ty(&self.store).results().map(|ty| values::place(&ty)).collect();
        match function.call(&mut self.store, arguments, &mut results) {
            Ok(()) => Ok(results),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn failure(error: &wasmtime::Error) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(trap) => Failure::Trap(trap.to_string()),
        None => Failure::Link(format!("{error:#}")),
    }
}

/// The pass of the product on a valid module that is no canister: all its exports and data stay.
fn instrumented(wasm: &[u8]) -> Vec<u8> {
    let parsed = Parsed::read(wasm).expect("a valid module");
    let imported = parsed.imports.iter().find_map(|import| match import.ty {
        TypeRef::Memory(memory) => Some(memory),
        _ => None,
    });
    let mut interface = Interface::default();
    if let Some(memory) = parsed.memory.or(imported) {
        let limits = Limits::application();
        let limit = if memory.memory64 { limits.heap64_bytes } else { limits.heap32_bytes } / WASM_PAGE_BYTES;
        interface.has_memory = true;
        interface.memory64 = memory.memory64;
        interface.heap_pages_min = memory.initial;
        interface.heap_pages_max = memory.maximum.map_or(limit, |declared| declared.min(limit));
    }
    let rewriter = Rewriter::new(&parsed, &interface).expect("few functions and globals");
    let mut exports = ExportSection::new();
    for export in &parsed.exports {
        rewriter.shift().parse_export(&mut exports, *export).expect("a valid export");
    }
    if let Some(start) = parsed.start {
        exports.export(START, ExportKind::Func, rewriter.shift().function(start));
    }
    exports.export(BOOKKEEPING, ExportKind::Memory, rewriter.additions.bookkeeping);
    let mut data = DataSection::new();
    for segment in &parsed.data {
        rewriter.shift().parse_data(&mut data, segment.clone()).expect("a valid segment");
    }
    let (wasm, _) = rewriter.module(&exports, &data).expect("a valid module can be instrumented");
    validate::instrumented(&wasm).expect("what comes of a valid module is valid");
    wasm
}

/// The module that scripts import from.
fn spectest(store: &mut Store<()>, linker: &mut Linker<()>) -> wasmtime::Result<()> {
    linker.func_wrap("spectest", "print", || {})?;
    linker.func_wrap("spectest", "print_i32", |_: i32| {})?;
    linker.func_wrap("spectest", "print_i64", |_: i64| {})?;
    linker.func_wrap("spectest", "print_f32", |_: f32| {})?;
    linker.func_wrap("spectest", "print_f64", |_: f64| {})?;
    linker.func_wrap("spectest", "print_i32_f32", |_: i32, _: f32| {})?;
    linker.func_wrap("spectest", "print_f64_f64", |_: f64, _: f64| {})?;
    for (name, value) in [
        ("global_i32", Val::I32(666)),
        ("global_i64", Val::I64(666)),
        ("global_f32", Val::F32(666.6_f32.to_bits())),
        ("global_f64", Val::F64(666.6_f64.to_bits())),
    ] {
        let ty = GlobalType::new(value.ty(&mut *store)?, Mutability::Const);
        let global = Global::new(&mut *store, ty, value)?;
        linker.define(&mut *store, "spectest", name, global)?;
    }
    let null = || Ref::Func(None);
    let table = Table::new(&mut *store, TableType::new(RefType::FUNCREF, 10, Some(20)), null())?;
    linker.define(&mut *store, "spectest", "table", table)?;
    let table = Table::new(&mut *store, TableType::new64(RefType::FUNCREF, 10, Some(20)), null())?;
    linker.define(&mut *store, "spectest", "table64", table)?;
    let memory = wasmtime::Memory::new(&mut *store, MemoryType::new(1, Some(2)))?;
    linker.define(&mut *store, "spectest", "memory", memory)?;
    Ok(())
}
