//! What a canister module may be (`canister-execution.md` section 1), checked in the order given there.

use execution::module::Interface;
use execution::{InvalidModule, Limits};
use wasmparser::{Import, Parser, Payload, TypeRef, ValType, Validator, WasmFeatures};

use super::parsed::Parsed;
use super::{exports, functions, invalid, sections, shown};
use crate::api::{self, P};

const CODE_SECTION_BYTES_MAX: usize = 10_485_760;
/// The number of the code section in a module.
const CODE_SECTION: u8 = 10;

/// The proposals that canisters may use, each by name. Everything else is off, and stays off when the
/// parser or the engine learns more. `externref` is off with the types that need a garbage collector.
pub(super) const FEATURES: WasmFeatures = WasmFeatures::FLOATS
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::MEMORY64);

/// Checks `wasm` and gives its sections and what it declares, `compile_instructions` left open.
pub(super) fn validate<'a>(
    limits: &Limits,
    wasm: &'a [u8],
) -> Result<(Parsed<'a>, Interface), InvalidModule> {
    code_section_size(wasm)?;
    let malformed = |error: wasmparser::Error| {
        let place = place(wasm, error.offset());
        invalid(format!("validation: {place}: {error}"))
    };
    Validator::new_with_features(FEATURES).validate_all(wasm).map_err(malformed)?;
    let parsed = Parsed::read(wasm).map_err(malformed)?;

    let mut interface = Interface {
        memory64: parsed.memory64(),
        has_memory: parsed.memory.is_some(),
        heap_pages_min: parsed.memory.map_or(0, |memory| memory.initial),
        ..Interface::default()
    };
    imports(&parsed)?;
    interface.reads_certificate =
        parsed.imports.iter().any(|import| import.name.starts_with("data_certificate_"));
    exports::check(&parsed, &mut interface)?;
    interface.data = sections::data(&parsed)?;
    interface.globals = sections::globals(&parsed)?;
    functions::count(&parsed)?;
    interface.heap_pages_max = sections::heap_pages_max(&parsed, limits)?;
    sections::tables(&parsed)?;
    interface.drops_data = functions::bodies(&parsed)?;
    interface.custom_sections = sections::custom(wasm)?;
    Ok((parsed, interface))
}

/// Checks an instrumented module: what was added may pass one of the parser's limits, and that is the
/// module's fault on every node alike, rather than the code generator's.
pub(super) fn instrumented(wasm: &[u8]) -> Result<(), InvalidModule> {
    let features = FEATURES.union(WasmFeatures::MULTI_MEMORY);
    match Validator::new_with_features(features).validate_all(wasm) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(format!("too large after instrumentation: {error}"))),
    }
}

/// What lies at `offset` of a module: a section, and of the code section which function.
fn place(wasm: &[u8], offset: usize) -> String {
    let (mut end, mut in_code, mut imported, mut function) = (0, false, 0, 0);
    // An error ends the search: what is looked for lies behind the last payload that can be read.
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match &payload {
            Payload::Version { range, .. } => end = range.end,
            Payload::ImportSection(imports) => {
                let imports = imports.clone().into_imports().map_while(Result::ok);
                imported = imports.filter(|import| matches!(import.ty, TypeRef::Func(_))).count();
            }
            Payload::CodeSectionEntry(body) if body.range().contains(&offset) => {
                return format!("code section: function {}", imported + function);
            }
            Payload::CodeSectionEntry(_) => function += 1,
            _ => {}
        }
        let Some((id, range)) = payload.as_section() else { continue };
        if in_code {
            break;
        }
        end = range.end;
        in_code = id == CODE_SECTION && offset < end;
        if offset < end && !in_code {
            return section_name(id).to_owned();
        }
    }
    let next = wasm.get(end).filter(|_| end > 0);
    if in_code { section_name(CODE_SECTION) } else { next.map_or("module", |id| section_name(*id)) }
        .to_owned()
}

/// The name of a section, by the number that it has in a module.
fn section_name(id: u8) -> &'static str {
    match id {
        0 => "custom section",
        1 => "type section",
        2 => "import section",
        3 => "function section",
        4 => "table section",
        5 => "memory section",
        6 => "global section",
        7 => "export section",
        8 => "start section",
        9 => "element section",
        CODE_SECTION => "code section",
        11 => "data section",
        12 => "data count section",
        13 => "tag section",
        _ => "unknown section",
    }
}

/// Comes before validation, so that the validator never works through an oversized code section.
fn code_section_size(wasm: &[u8]) -> Result<(), InvalidModule> {
    // An error ends the search: the validator reports it.
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        if let Payload::CodeSectionStart { range, .. } = payload {
            let bytes = range.len();
            if bytes > CODE_SECTION_BYTES_MAX {
                return Err(invalid(format!(
                    "code section: {bytes} bytes, the limit is {CODE_SECTION_BYTES_MAX}"
                )));
            }
            break;
        }
    }
    Ok(())
}

fn imports(parsed: &Parsed<'_>) -> Result<(), InvalidModule> {
    let memory64 = parsed.memory64();
    parsed.imports.iter().try_for_each(|import| check_import(parsed, import, memory64))
}

fn check_import(parsed: &Parsed<'_>, import: &Import<'_>, memory64: bool) -> Result<(), InvalidModule> {
    let Import { module, name, ty } = import;
    let kind = match ty {
        TypeRef::Func(ty) => return check_function_import(parsed, module, name, *ty, memory64),
        TypeRef::FuncExact(_) => "exact function",
        TypeRef::Table(_) => "table",
        TypeRef::Memory(_) => "memory",
        TypeRef::Global(_) => "global",
        TypeRef::Tag(_) => "tag",
    };
    let [module, name] = [module, name].map(|name| shown(name));
    Err(invalid(format!("import section: '{module}' '{name}' is a {kind}, only functions can be imported")))
}

fn check_function_import(
    parsed: &Parsed<'_>,
    module: &str,
    name: &str,
    ty: u32,
    memory64: bool,
) -> Result<(), InvalidModule> {
    if module != "ic0" {
        let [module, name] = [module, name].map(shown);
        return Err(invalid(format!(
            "import section: '{name}' comes from module '{module}', only 'ic0' is known"
        )));
    }
    let function = api::find(name)
        .filter(|function| !(memory64 && function.legacy32))
        .ok_or_else(|| invalid(format!("import section: function 'ic0.{}' is unknown", shown(name))))?;
    let wasm_type = |p: &P| match p {
        P::I if memory64 => ValType::I64,
        P::I | P::I32 => ValType::I32,
        P::I64 => ValType::I64,
    };
    let exact = parsed.types.get(ty as usize).is_some_and(|actual| {
        actual.params().iter().copied().eq(function.params.iter().map(wasm_type))
            && actual.results().iter().copied().eq(function.result.iter().map(wasm_type))
    });
    if exact {
        Ok(())
    } else {
        Err(invalid(format!("import section: function 'ic0.{name}' has the wrong type")))
    }
}
