//! The validator on any bytes: it never panics; its verdict is the same each time; a refusal names a place; and what
//! it accepts can be instrumented, is valid for the engine then, and compiles.

use std::sync::OnceLock;

use execution::Limits;
use in_process::Engine;
use in_process::compile::{compile_module, instrument};
use wasmtime::Module;

/// Larger modules are not compiled: that takes too long for a fuzzer.
const COMPILED_BYTES_MAX: usize = 256 << 10;

/// How a refusal may begin.
const PLACES: &[&str] = &[
    "unsupported canister module format",
    "gzip: ",
    "module: ",
    "validation: ",
    "import section: ",
    "table section: ",
    "memory section: ",
    "global section: ",
    "export section: ",
    "element section: ",
    "function section: ",
    "code section: ",
    "data section: ",
    "custom section '",
];

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new().expect("the engine profile"))
}

/// Takes any bytes as an upload; whether they are a canister.
pub fn run(upload: &[u8]) -> bool {
    let limits = Limits::application();
    let verdict = || instrument(&limits, upload).map(|module| (module.wasm, module.interface));
    let first = verdict();
    assert_eq!(first, verdict(), "a verdict depends on the module alone");
    match first {
        Err(refused) => {
            let named = PLACES.iter().any(|place| refused.0.starts_with(place));
            assert!(named, "a refusal that names no place: {refused}");
            false
        }
        Ok((wasm, _)) => {
            Module::validate(engine().raw(), &wasm).expect("the engine takes what the pass makes");
            if wasm.len() <= COMPILED_BYTES_MAX {
                compile_module(engine(), &limits, upload).expect("what is accepted compiles");
            }
            true
        }
    }
}
