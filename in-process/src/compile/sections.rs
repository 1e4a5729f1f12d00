//! Data, globals, memory, tables and custom sections (`canister-execution.md` sections 1.2 to 1.4).

use std::collections::BTreeMap;

use execution::module::{CustomSection, DataSegment};
use execution::{GlobalValue, InvalidModule, Limits};
use wasmparser::{
    BinaryReader, ConstExpr, DataKind, ElementItems, ElementKind, Name, NameSectionReader, Operator, Parser,
    Payload, ValType,
};

use super::parsed::Parsed;
use super::{invalid, shown};

const WASM_PAGE_BYTES: u64 = 65_536;
const GLOBALS_MAX: usize = 1_000;
const TABLES_MAX: usize = 1;
const TABLE_ELEMENTS_MAX: u64 = 1_000_000;
const FUNCTION_NAME_BYTES_MAX: usize = 1 << 20;
const ICP_SECTIONS_MAX: usize = 16;
const ICP_SECTION_BYTES_MAX: usize = 1 << 20;

/// The active segments in order; each has a constant offset and fits the initial memory.
pub(super) fn data(parsed: &Parsed<'_>) -> Result<Vec<DataSegment>, InvalidModule> {
    let memory_bytes = parsed.memory.map_or(0, |memory| memory.initial.saturating_mul(WASM_PAGE_BYTES));
    let mut segments = Vec::new();
    for (index, data) in parsed.data.iter().enumerate() {
        let DataKind::Active { offset_expr, .. } = &data.kind else { continue };
        let offset = constant_offset(offset_expr).ok_or_else(|| {
            invalid(format!("data section: the offset of segment {index} is not a constant"))
        })?;
        let fits = offset.checked_add(data.data.len() as u64).is_some_and(|end| end <= memory_bytes);
        if !fits {
            return Err(invalid(format!(
                "data section: segment {index} of {} bytes at offset {offset} exceeds the initial memory of \
                 {memory_bytes} bytes",
                data.data.len()
            )));
        }
        segments.push(DataSegment { offset, bytes: data.data.to_vec() });
    }
    Ok(segments)
}

/// Initial values of the mutable globals in index order.
pub(super) fn globals(parsed: &Parsed<'_>) -> Result<Vec<GlobalValue>, InvalidModule> {
    if parsed.globals.len() > GLOBALS_MAX {
        return Err(invalid(format!(
            "global section: {} globals, the limit is {GLOBALS_MAX}",
            parsed.globals.len()
        )));
    }
    let mut values = Vec::new();
    for (index, global) in parsed.globals.iter().enumerate() {
        if matches!(global.ty.content_type, ValType::Ref(_)) {
            return Err(invalid(format!("global section: global {index} has a reference type")));
        }
        let value = constant(&global.init_expr).ok_or_else(|| {
            invalid(format!("global section: the value of global {index} is not a constant"))
        })?;
        if global.ty.mutable {
            values.push(value);
        }
    }
    Ok(values)
}

/// The heap's maximum in pages: the limit where none is declared. A larger one is refused for 64 bits;
/// for 32 bits WebAssembly bounds it.
pub(super) fn heap_pages_max(parsed: &Parsed<'_>, limits: &Limits) -> Result<u64, InvalidModule> {
    let Some(memory) = parsed.memory else { return Ok(0) };
    let limit = if memory.memory64 { limits.heap64_bytes } else { limits.heap32_bytes } / WASM_PAGE_BYTES;
    if memory.memory64
        && let Some(declared) = memory.maximum
        && declared > limit
    {
        return Err(invalid(format!("memory section: maximum of {declared} pages, the limit is {limit}")));
    }
    if memory.initial > limit {
        return Err(invalid(format!(
            "memory section: initial size of {} pages, the limit is {limit}",
            memory.initial
        )));
    }
    Ok(memory.maximum.map_or(limit, |declared| declared.min(limit)))
}

/// One table of a bounded size, and active element segments that fit it: instantiation can't fail later.
pub(super) fn tables(parsed: &Parsed<'_>) -> Result<(), InvalidModule> {
    if parsed.tables.len() > TABLES_MAX {
        return Err(invalid(format!(
            "table section: {} tables, the limit is {TABLES_MAX}",
            parsed.tables.len()
        )));
    }
    let elements = parsed.tables.first().map_or(0, |table| table.ty.initial);
    if elements > TABLE_ELEMENTS_MAX {
        return Err(invalid(format!(
            "table section: {elements} elements, the limit is {TABLE_ELEMENTS_MAX}"
        )));
    }
    for (index, element) in parsed.elements.iter().enumerate() {
        let ElementKind::Active { offset_expr, .. } = &element.kind else { continue };
        let offset = constant_offset(offset_expr).ok_or_else(|| {
            invalid(format!("element section: the offset of segment {index} is not a constant"))
        })?;
        let count = match &element.items {
            ElementItems::Functions(items) => items.count(),
            ElementItems::Expressions(_, items) => items.count(),
        };
        if offset.checked_add(u64::from(count)).is_none_or(|end| end > elements) {
            return Err(invalid(format!(
                "element section: segment {index} of {count} elements at offset {offset} exceeds the table of \
                 {elements} elements"
            )));
        }
    }
    Ok(())
}

/// The `icp:` sections by name; others only have the lengths of function names checked. They are looked for
/// anew rather than kept with the other sections: a module may have tens of millions.
pub(super) fn custom(wasm: &[u8]) -> Result<BTreeMap<String, CustomSection>, InvalidModule> {
    let mut sections = BTreeMap::new();
    let mut bytes = 0;
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        let Payload::CustomSection(section) = payload else { continue };
        let (full_name, content) = (section.name(), section.data());
        if full_name == "name" {
            function_names(content)?;
        }
        let Some(rest) = full_name.strip_prefix("icp:") else { continue };
        let full_name = shown(full_name);
        let (public, name) = if let Some(name) = rest.strip_prefix("public ") {
            (true, name)
        } else if let Some(name) = rest.strip_prefix("private ") {
            (false, name)
        } else {
            return Err(invalid(format!(
                "custom section '{full_name}': the name must be 'icp:public <name>' or 'icp:private <name>'"
            )));
        };
        if sections.contains_key(name) {
            return Err(invalid(format!("custom section '{full_name}': the name is used more than once")));
        }
        if sections.len() == ICP_SECTIONS_MAX {
            return Err(invalid(format!(
                "custom section '{full_name}': more than {ICP_SECTIONS_MAX} with the prefix 'icp:'"
            )));
        }
        bytes += name.len() + content.len();
        if bytes > ICP_SECTION_BYTES_MAX {
            return Err(invalid(format!(
                "custom section '{full_name}': names and contents with the prefix 'icp:' exceed \
                 {ICP_SECTION_BYTES_MAX} bytes with it"
            )));
        }
        sections.insert(name.to_owned(), CustomSection { public, content: content.to_vec() });
    }
    Ok(sections)
}

/// A malformed name section is ignored, as WebAssembly asks for.
fn function_names(content: &[u8]) -> Result<(), InvalidModule> {
    for subsection in NameSectionReader::new(BinaryReader::new(content, 0)).map_while(Result::ok) {
        let Name::Function(names) = subsection else { continue };
        for naming in names.into_iter().map_while(Result::ok) {
            if naming.name.len() > FUNCTION_NAME_BYTES_MAX {
                return Err(invalid(format!(
                    "custom section 'name': the name of function {} has {} bytes, the limit is \
                     {FUNCTION_NAME_BYTES_MAX}",
                    naming.index,
                    naming.name.len()
                )));
            }
        }
    }
    Ok(())
}

fn constant_offset(expression: &ConstExpr<'_>) -> Option<u64> {
    match constant(expression)? {
        GlobalValue::I32(value) => Some(u64::from(value.cast_unsigned())),
        GlobalValue::I64(value) => Some(value.cast_unsigned()),
        GlobalValue::F32(_) | GlobalValue::F64(_) | GlobalValue::V128(_) => None,
    }
}

/// The value of an expression that is one constant instruction.
fn constant(expression: &ConstExpr<'_>) -> Option<GlobalValue> {
    let mut reader = expression.get_operators_reader();
    let value = match reader.read().ok()? {
        Operator::I32Const { value } => GlobalValue::I32(value),
        Operator::I64Const { value } => GlobalValue::I64(value),
        Operator::F32Const { value } => GlobalValue::F32(value.bits()),
        Operator::F64Const { value } => GlobalValue::F64(value.bits()),
        Operator::V128Const { value } => GlobalValue::V128(u128::from_le_bytes(*value.bytes())),
        _ => return None,
    };
    reader.is_end_then_eof().then_some(value)
}
