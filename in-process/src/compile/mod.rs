//! From an uploaded module to native code: unpack, validate, instrument, compile.
//!
//! The stages are pure functions of the module, the limits and the engine profile: every node comes to
//! the same result. What a stage refuses is the module's fault ([`InvalidModule`]); what the code
//! generator fails at otherwise is ours ([`CompileError::Engine`]).

mod body;
mod cache;
mod container;
mod cost;
mod counter;
mod exports;
mod functions;
mod imports;
mod instrument;
mod parsed;
mod sections;
mod stores;
mod validate;

#[cfg(test)]
mod tests;

use execution::module::Interface;
use execution::{InvalidModule, Limits};

pub use cache::ModuleCompiler;
pub use instrument::{Instrumented, instrument};

/// What is made of a module, before the native code is put into a sealed file.
#[derive(Debug)]
pub struct CompiledParts {
    /// What the module declares.
    pub interface: Interface,
    /// Native code for the engine profile it was compiled with.
    pub native: Vec<u8>,
}

/// Why there is no compiled module.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The module's fault: the same on every node.
    #[error(transparent)]
    Invalid(#[from] InvalidModule),
    /// The code generator failed at a module that is valid.
    #[error("the code generator failed: {0}")]
    Engine(String),
}

/// Validates, instruments and compiles `wasm` (raw or gzip).
///
/// # Errors
/// [`CompileError::Invalid`] for what section 1 of the reference refuses, or when one function's
/// machine code would pass the code generator's size limit; [`CompileError::Engine`] for any other
/// failure of the code generator.
pub fn compile_module(
    engine: &crate::Engine,
    limits: &Limits,
    wasm: &[u8],
) -> Result<CompiledParts, CompileError> {
    let Instrumented { wasm: instrumented, interface } = instrument(limits, wasm)?;
    let native = engine.raw().precompile_module(&instrumented).map_err(|error| code_generation(&error))?;
    Ok(CompiledParts { interface, native })
}

/// Function size is limited by the code generator too; that depends on the module and the engine
/// profile alone, so it is the module's fault on every node alike.
fn code_generation(error: &wasmtime::Error) -> CompileError {
    let text = format!("{error:#}");
    if text.contains("Code for function is too large") {
        return CompileError::Invalid(invalid("code section: the machine code of one function is too large"));
    }
    CompileError::Engine(text)
}

/// Bytes of a module's name that a refusal shows.
const NAME_BYTES_SHOWN: usize = 200;

/// A name as a refusal shows it: cut, because a module's names have up to 100,000 bytes, and what an error says
/// ends after 8 KiB.
fn shown(name: &str) -> String {
    let cut = name.floor_char_boundary(NAME_BYTES_SHOWN);
    if cut < name.len() { format!("{}…", &name[..cut]) } else { name.to_owned() }
}

/// A refusal with its reason.
fn invalid(reason: impl Into<String>) -> InvalidModule {
    InvalidModule::new(&reason.into())
}
