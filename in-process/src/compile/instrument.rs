//! The instrumented module: what the engine compiles.
//!
//! Conventions that the runtime relies on:
//! - import `"__" "out_of_instructions": () -> ()`, after all others: called when the counter is below 0;
//! - memory `canister bookkeeping` (32-bit, after the heap if there is one): instructions left and the map of
//!   written pages, see `bookkeeping.rs`; heap itself: `memory`; table 0: `table`;
//! - functions `canister_*` under their own names, the start function as `canister_start`;
//! - mutable globals of the module as `global 0`, `global 1`, ... in index order;
//! - active data segments are left to the node ([`Interface::data`]), an empty passive one in the place
//!   of each; nothing else is exported, no custom section is kept.

use execution::memory::WASM_PAGE_BYTES;
use execution::module::Interface;
use execution::{InvalidModule, Limits};
use wasm_encoder::reencode::Reencode;
use wasm_encoder::{
    BranchHint, BranchHints, CodeSection, DataCountSection, DataSection, ElementSection, EntityType,
    ExportKind, ExportSection, FunctionSection, GlobalSection, ImportSection, MemorySection, MemoryType,
    Module, TableSection, TypeSection, ValType,
};
use wasmparser::{DataKind, ExternalKind};

use super::body::{self, Additions, Body, Room, Shift};
use super::imports::Imports;
use super::parsed::Parsed;
use super::{container, exports, invalid, validate};
use crate::bookkeeping;

/// Charge for compiling one instruction.
const COMPILE_INSTRUCTIONS: u64 = 6_000;
/// The parser's limits on a function, which instrumentation may pass.
const FUNCTION_BYTES_MAX: usize = 7_654_321;
const FUNCTION_LOCALS_MAX: usize = 50_000;
/// Instructions of a global's initial value: the constant and `end`.
const GLOBAL_INSTRUCTIONS: u64 = 2;
/// Globals that the reference's instrumentation adds: its counter.
const GLOBALS_ADDED: u64 = 1;

/// Functions that are added beside a heap.
const BESIDE_HEAP: u32 = 2;

/// What a branch hint says of a branch that is not taken.
const NOT_TAKEN: u32 = 0;

/// A module that has been checked and instrumented.
#[derive(Debug)]
pub struct Instrumented {
    /// The module to compile.
    pub wasm: Vec<u8>,
    /// What the uploaded module declares.
    pub interface: Interface,
}

/// Unpacks, validates and instruments an uploaded module.
///
/// # Errors
/// What section 1 of the reference refuses, and modules that pass a limit of the parser (bytes or
/// locals of a function, say) only after instrumentation; the text names section, item and limit.
pub fn instrument(limits: &Limits, wasm: &[u8]) -> Result<Instrumented, InvalidModule> {
    let wasm = container::unpack(wasm)?;
    let (parsed, mut interface) = validate::validate(limits, &wasm)?;
    let rewriter = Rewriter::new(&parsed, &interface)?;
    let (exports, data) = (rewriter.exports(), rewriter.data());
    let (wasm, instructions) = rewriter.module(&exports, &data)?;
    validate::instrumented(&wasm)?;
    interface.compile_instructions = instructions * COMPILE_INSTRUCTIONS;
    Ok(Instrumented { wasm, interface })
}

type Error = wasm_encoder::reencode::Error;

fn encoding(error: &Error) -> InvalidModule {
    invalid(format!("instrumentation: {error}"))
}

/// The pass itself. It takes any valid module of one memory at most, imports of all kinds included: what of
/// that a canister may have is for validation to say. Of `interface` it reads what is said of the heap.
pub(super) struct Rewriter<'a> {
    parsed: &'a Parsed<'a>,
    interface: &'a Interface,
    pub(super) additions: Additions,
    pub(super) imports: Imports,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(parsed: &'a Parsed<'a>, interface: &'a Interface) -> Result<Self, InvalidModule> {
        let imported = parsed.imported_functions();
        let defined = u32::try_from(parsed.functions.len()).map_err(|_| invalid("too many functions"))?;
        let additions = Additions {
            out_of_instructions: imported,
            charge_size: imported + 1 + defined,
            mark_range: imported + 2 + defined,
            bookkeeping: u32::from(interface.has_memory),
            memory64: interface.memory64,
            heap_pages_max: interface.heap_pages_max,
        };
        let beside_heap = if interface.has_memory { BESIDE_HEAP } else { 0 };
        let imports = Imports::new(parsed, imported + 1 + defined + beside_heap)
            .map_err(|error| invalid(format!("instrumentation: {error}")))?;
        Ok(Self { parsed, interface, additions, imports })
    }

    pub(super) fn shift(&self) -> Shift<'_> {
        Shift::new(&self.imports)
    }

    /// The module's bytes and its number of instructions.
    pub(super) fn module(
        &self,
        exports: &ExportSection,
        data: &DataSection,
    ) -> Result<(Vec<u8>, u64), InvalidModule> {
        let (code, hints, instructions) = self.code()?;
        let mut module = Module::new();
        self.declarations(&mut module).map_err(|error| encoding(&error))?;
        module.section(exports);
        self.elements(&mut module).map_err(|error| encoding(&error))?;
        if !data.is_empty() {
            module.section(&DataCountSection { count: data.len() });
        }
        if !hints.is_empty() {
            module.section(&hints);
        }
        module.section(&code);
        if !data.is_empty() {
            module.section(data);
        }
        let globals = self.parsed.globals.len() as u64 + GLOBALS_ADDED;
        Ok((module.finish(), instructions + globals * GLOBAL_INSTRUCTIONS))
    }

    /// Types, imports, functions, tables, memories and globals.
    fn declarations(&self, module: &mut Module) -> Result<(), Error> {
        let mut types = TypeSection::new();
        for ty in &self.parsed.types {
            let ty = self.shift().func_type(ty.clone())?;
            types.ty().func_type(&ty);
        }
        let out_of_instructions = types.len();
        types.ty().function([], []);
        let charge_size = types.len();
        types.ty().function([ValType::I64], []);
        let mark_range = types.len();
        types.ty().function([ValType::I64, ValType::I64], []);
        module.section(&types);

        let mut imports = ImportSection::new();
        for import in &self.parsed.imports {
            imports.import(import.module, import.name, self.shift().entity_type(import.ty)?);
        }
        imports.import("__", "out_of_instructions", EntityType::Function(out_of_instructions));
        module.section(&imports);

        let mut functions = FunctionSection::new();
        for ty in &self.parsed.functions {
            functions.function(*ty);
        }
        if self.interface.has_memory {
            functions.function(charge_size).function(mark_range);
        }
        for payer in self.imports.payers() {
            functions.function(self.parsed.function_types[payer.function as usize]);
        }
        module.section(&functions);

        let mut tables = TableSection::new();
        for table in &self.parsed.tables {
            self.shift().parse_table(&mut tables, table.clone())?;
        }
        if !tables.is_empty() {
            module.section(&tables);
        }
        self.memories(module);
        self.globals(module)
    }

    fn memories(&self, module: &mut Module) {
        let heap_pages = self.interface.heap_pages_max;
        let pages = bookkeeping::bytes(heap_pages).div_ceil(WASM_PAGE_BYTES);
        let memory = |minimum, maximum, memory64| MemoryType {
            minimum,
            maximum: Some(maximum),
            memory64,
            shared: false,
            page_size_log2: None,
        };
        let mut memories = MemorySection::new();
        if self.parsed.memory.is_some() {
            memories.memory(memory(self.interface.heap_pages_min, heap_pages, self.interface.memory64));
        }
        memories.memory(memory(pages, pages, false));
        module.section(&memories);
    }

    fn globals(&self, module: &mut Module) -> Result<(), Error> {
        let mut globals = GlobalSection::new();
        for global in &self.parsed.globals {
            self.shift().parse_global(&mut globals, global.clone())?;
        }
        if !globals.is_empty() {
            module.section(&globals);
        }
        Ok(())
    }

    /// A canister's exports: those with a meaning, and what the runtime relies on.
    fn exports(&self) -> ExportSection {
        let mut exports = ExportSection::new();
        let shifted = |function| self.shift().function(function);
        for export in &self.parsed.exports {
            if export.kind == ExternalKind::Func && exports::is_entry_point(export.name) {
                exports.export(export.name, ExportKind::Func, shifted(export.index));
            }
        }
        if let Some(start) = self.parsed.start {
            exports.export("canister_start", ExportKind::Func, shifted(start));
        }
        if self.interface.has_memory {
            exports.export("memory", ExportKind::Memory, 0);
        }
        if !self.parsed.tables.is_empty() {
            exports.export("table", ExportKind::Table, 0);
        }
        let mutable = (0..).zip(&self.parsed.globals).filter(|(_, global)| global.ty.mutable);
        for (number, (index, _)) in mutable.enumerate() {
            exports.export(&format!("global {number}"), ExportKind::Global, index);
        }
        exports.export("canister bookkeeping", ExportKind::Memory, self.additions.bookkeeping);
        exports
    }

    fn elements(&self, module: &mut Module) -> Result<(), Error> {
        let mut elements = ElementSection::new();
        for element in &self.parsed.elements {
            self.shift().parse_element(&mut elements, element.clone())?;
        }
        if !elements.is_empty() {
            module.section(&elements);
        }
        Ok(())
    }

    /// A canister's data segments: the active ones are the node's.
    fn data(&self) -> DataSection {
        let mut data = DataSection::new();
        for segment in &self.parsed.data {
            match segment.kind {
                DataKind::Active { .. } => data.passive([]),
                DataKind::Passive => data.passive(segment.data.iter().copied()),
            };
        }
        data
    }

    /// The bodies, which of their branches are unlikely, and the number of instructions.
    fn code(&self) -> Result<(CodeSection, BranchHints, u64), InvalidModule> {
        let mut code = CodeSection::new();
        let mut hints = BranchHints::new();
        let mut instructions = 0;
        let mut room = Room::new();
        for (index, body) in (self.imports.count()..).zip(&self.parsed.bodies) {
            let params = self.parsed.function_type(index).map_or(0, |ty| ty.params().len());
            let body = body::rewrite(body, params, self.additions, &self.imports, &mut room)?;
            let limited = [
                (body.function.byte_len(), "bytes", FUNCTION_BYTES_MAX),
                (body.locals, "locals", FUNCTION_LOCALS_MAX),
            ];
            if let Some((count, what, limit)) = limited.into_iter().find(|(count, _, limit)| count > limit) {
                return Err(invalid(format!(
                    "code section: function {index} has {count} {what} after instrumentation, the limit is {limit}"
                )));
            }
            code.function(&body.function);
            hints.function_hints(self.shift().function(index), unlikely(&body));
            instructions += body.instructions;
        }
        if self.interface.has_memory {
            for body in [Body::charge_size(self.additions), Body::mark_range(self.additions)] {
                code.function(&body.function);
                instructions += body.instructions;
            }
        }
        for payer in self.imports.payers() {
            let params = self.parsed.function_type(payer.function).map_or(0, |ty| ty.params().len());
            let body = Body::payer(self.additions, payer, params);
            code.function(&body.function);
            hints.function_hints(payer.index, unlikely(&body));
        }
        Ok((code, hints, instructions))
    }
}

fn unlikely(body: &Body) -> impl ExactSizeIterator<Item = BranchHint> {
    body.unlikely.iter().map(|&at| BranchHint {
        branch_func_offset: u32::try_from(at).expect("below the limit on a function's bytes"),
        branch_hint_value: NOT_TAKEN,
    })
}
