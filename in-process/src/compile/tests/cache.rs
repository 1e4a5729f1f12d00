//! The compiler's cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use execution::module::Interface;
use execution::{BackendError, Compiler, InvalidModule, Limits, Module};

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

/// Fails at first; then gives `module`'s code for whatever it is asked for.
struct Other {
    asked: Arc<AtomicUsize>,
    module: &'static [u8],
}

impl Compiler for Other {
    fn compile(&self, _: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        if self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(BackendError::WorkerDied { how: "killed by SIGKILL".into() });
        }
        Ok(Ok(Arc::new(Module::new(self.module, Interface::default(), b"code")?)))
    }
}

#[test]
fn a_compilation_that_failed_around_the_module_is_not_kept() {
    let asked = Arc::new(AtomicUsize::new(0));
    let compiler = ModuleCompiler::keeping(Box::new(Other { asked: Arc::clone(&asked), module: b"module" }));
    assert!(matches!(compiler.compile(b"module"), Err(BackendError::WorkerDied { .. })));
    for _ in 0..2 {
        assert!(compiler.compile(b"module").expect("a compiler").is_ok());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "what succeeded is kept");
}

#[test]
fn the_code_of_one_module_is_not_kept_for_another() {
    let asked = Arc::new(AtomicUsize::new(1));
    let compiler = ModuleCompiler::keeping(Box::new(Other { asked: Arc::clone(&asked), module: b"module" }));
    for asked_before in 1..3 {
        assert_eq!(asked.load(Ordering::SeqCst), asked_before, "nothing was kept");
        let error = compiler.compile(b"another").expect_err("the code of another module");
        assert_eq!(error.to_string(), "violation: the code of another module");
    }
    assert!(compiler.compile(b"module").expect("a compiler").is_ok());
}

#[test]
fn more_bytes_than_a_module_has_are_refused_before_anybody_compiles_them() {
    let compiler = ModuleCompiler::keeping(Box::new(Other { asked: Arc::default(), module: b"" }));
    let InvalidModule(text) =
        compiler.compile(&vec![0; (100 << 20) + 1]).expect("a compiler").expect_err("too large");
    assert_eq!(text, "module: 104857601 bytes uncompressed, the limit is 104857600");
}
