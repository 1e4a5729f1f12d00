//! Native code out of a file.

use std::fs::File;

use wasmtime::{Engine, Module};

/// Maps what the product compiled for `engine`'s settings.
pub(crate) fn map_code(engine: &Engine, file: File) -> Result<Module, String> {
    // SAFETY: benchmarks pass what this program compiled itself, in a file that nobody changes; the engine checks
    // version and settings.
    unsafe { Module::deserialize_open_file(engine, file) }.map_err(|error| format!("{error:#}"))
}
