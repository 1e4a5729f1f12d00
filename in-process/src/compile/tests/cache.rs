//! The compiler's cache.

use std::sync::Arc;
use std::thread;

use execution::{Compiler, InvalidModule, Limits};

use super::super::ModuleCompiler;
use super::wat;

fn compiler() -> ModuleCompiler {
    let engine = crate::Engine::new().expect("the engine profile");
    ModuleCompiler::new(engine, Arc::new(Limits::application()))
}

#[test]
fn concurrent_requests_share_one_module() {
    let compiler = compiler();
    let wasm = wat(r#"(module (memory 1) (func (export "canister_init")))"#);
    let modules = thread::scope(|scope| {
        let requests: Vec<_> = (0..4).map(|_| scope.spawn(|| compiler.compile(&wasm))).collect();
        requests
            .into_iter()
            .map(|request| request.join().expect("no panic").expect("a compiler").expect("valid"))
            .collect::<Vec<_>>()
    });
    assert!(modules.iter().all(|module| Arc::ptr_eq(module, &modules[0])));
    assert_eq!(modules[0].wasm_bytes, wasm.len() as u64);
    assert!(!modules[0].code.is_empty());
}

#[test]
fn a_refusal_is_the_same_each_time() {
    let compiler = compiler();
    let refused = |wasm: &[u8]| compiler.compile(wasm).expect("a compiler").expect_err("not a module");
    let InvalidModule(first) = refused(b"not a module");
    assert_eq!(InvalidModule(first), refused(b"not a module"));
}

#[test]
fn the_cache_forgets_what_was_used_longest_ago() {
    let compiler = compiler();
    let wasm = |number: usize| wat(&format!("(module (global i32 (i32.const {number})))"));
    let get = |number| compiler.compile(&wasm(number)).expect("a compiler").expect("valid");
    let [kept, forgotten] = [get(0), get(1)];
    for number in 2..super::super::cache::ENTRIES_MAX {
        get(number);
    }
    assert!(Arc::ptr_eq(&kept, &get(0)), "the bound is not passed yet");
    get(super::super::cache::ENTRIES_MAX);
    assert!(Arc::ptr_eq(&kept, &get(0)), "it was used lately");
    assert!(!Arc::ptr_eq(&forgotten, &get(1)), "it was the oldest");
}
