//! Exports with a fixed meaning (`canister-execution.md` section 1.3).

use execution::InvalidModule;
use execution::module::{Interface, MethodKind};
use wasmparser::ExternalKind;

use super::parsed::Parsed;
use super::{invalid, shown};

const METHODS_MAX: usize = 1_000;
const METHOD_NAME_BYTES_MAX: usize = 20_000;

/// Names that the real network's instrumentation gives to its own exports.
const RESERVED: [&str; 6] = [
    "canister counter_instructions",
    "canister counter_dirty_pages",
    "canister counter_accessed_pages",
    "canister_start",
    "stable_memory",
    "stable_bytemap_memory",
];

/// Whether an exported function has a meaning, so that it stays exported.
pub(super) fn is_entry_point(name: &str) -> bool {
    name.starts_with("canister_")
}

/// Checks all exports and notes methods and entry points.
pub(super) fn check(parsed: &Parsed<'_>, interface: &mut Interface) -> Result<(), InvalidModule> {
    interface.exports.start = parsed.start.is_some();
    let mut name_bytes = 0;
    for export in &parsed.exports {
        let name = export.name;
        if RESERVED.contains(&name) {
            return Err(invalid(format!("export section: '{name}' is a reserved name")));
        }
        if export.kind != ExternalKind::Func || !is_entry_point(name) {
            continue;
        }
        note_entry_point(interface, name, &mut name_bytes)?;
        let ty = parsed.function_type(export.index);
        if !ty.is_some_and(|ty| ty.params().is_empty() && ty.results().is_empty()) {
            let name = shown(name);
            return Err(invalid(format!("export section: function '{name}' must have type () -> ()")));
        }
    }
    Ok(())
}

fn note_entry_point(
    interface: &mut Interface,
    name: &str,
    name_bytes: &mut usize,
) -> Result<(), InvalidModule> {
    let exports = &mut interface.exports;
    match name {
        "canister_init" => exports.init = true,
        "canister_pre_upgrade" => exports.pre_upgrade = true,
        "canister_post_upgrade" => exports.post_upgrade = true,
        "canister_inspect_message" => exports.inspect_message = true,
        "canister_heartbeat" => exports.heartbeat = true,
        "canister_global_timer" => exports.global_timer = true,
        "canister_on_low_wasm_memory" => exports.low_wasm_memory = true,
        _ => return note_method(interface, name, name_bytes),
    }
    Ok(())
}

fn note_method(interface: &mut Interface, name: &str, name_bytes: &mut usize) -> Result<(), InvalidModule> {
    let (kind, method) = method(name).ok_or_else(|| {
        invalid(format!("export section: function '{}' is no known canister entry point", shown(name)))
    })?;
    if interface.methods.insert(method.to_owned(), kind).is_some() {
        let method = shown(method);
        return Err(invalid(format!("export section: method '{method}' is exported more than once")));
    }
    if interface.methods.len() > METHODS_MAX {
        let name = shown(name);
        return Err(invalid(format!("export section: '{name}': more than {METHODS_MAX} methods")));
    }
    *name_bytes += method.len();
    if *name_bytes > METHOD_NAME_BYTES_MAX {
        let method = shown(method);
        return Err(invalid(format!(
            "export section: method '{method}': names of more than {METHOD_NAME_BYTES_MAX} bytes in sum with it"
        )));
    }
    Ok(())
}

fn method(export: &str) -> Option<(MethodKind, &str)> {
    let kinds = [
        ("canister_update ", MethodKind::Update),
        ("canister_query ", MethodKind::Query),
        ("canister_composite_query ", MethodKind::CompositeQuery),
    ];
    kinds.into_iter().find_map(|(prefix, kind)| Some((kind, export.strip_prefix(prefix)?)))
}
