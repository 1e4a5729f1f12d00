//! Modules compiled in processes of their own: the same code as in this process, and nothing lost when one dies.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulkhead_node::image;
use bulkhead_node::node::on_executor_stack;
use execution::{
    BackendError, Compiler, IngressStatus, InvalidModule, Limits, Module, Principal, SchedulerOptions,
    Subnet, SubnetConfig,
};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use rustix::process::{Pid, Signal};
use sandbox_host::source::{LauncherSource, WorkerProcess, WorkerSource};
use sandbox_host::{CompilerOptions, SandboxedCompiler};

/// Real compilers.
pub(crate) fn compilers() -> Arc<LauncherSource> {
    Arc::new(LauncherSource::compilers(image::launchers().expect("launchers start"), 1 << 40))
}

fn code(module: &Module) -> Vec<u8> {
    let file = File::from(module.code.file().try_clone_to_owned().expect("a descriptor"));
    let mut bytes = vec![0; module.code.len()];
    file.read_exact_at(&mut bytes, 0).expect("the file can be read");
    bytes
}

/// Compiles in this process and in one of its own, and holds the two against each other.
pub(crate) struct Compared {
    here: ModuleCompiler,
    there: SandboxedCompiler,
}

impl Compared {
    pub(crate) fn new(engine: &Engine, source: Arc<dyn WorkerSource>, limits: &Arc<Limits>) -> Self {
        let there = SandboxedCompiler::new(source, Arc::clone(limits), CompilerOptions::default());
        Self { here: ModuleCompiler::new(engine.clone(), Arc::clone(limits)), there }
    }
}

impl Compiler for Compared {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        let here = self.here.compile(wasm)?;
        match (&here, self.there.compile(wasm)?) {
            (Ok(here), Ok(there)) => {
                assert_eq!(here.hash, there.hash);
                assert_eq!(here.wasm_bytes, there.wasm_bytes);
                assert_eq!(here.interface, there.interface, "{:?}", here.hash);
                assert!(code(here) == code(&there), "{:?}: other native code", here.hash);
            }
            (Err(here), Err(there)) => assert_eq!(*here, there),
            (here, there) => panic!("here {here:?}, there {there:?}"),
        }
        Ok(here)
    }
}

fn modules() -> Vec<PathBuf> {
    let canisters = Path::new(env!("CARGO_MANIFEST_DIR")).join("canisters");
    let files = ["c", "motoko", "rust"].into_iter().flat_map(|folder| {
        std::fs::read_dir(canisters.join(folder))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
    });
    files.filter(|file| file.extension().is_some_and(|extension| extension == "wasm")).collect()
}

#[test]
fn every_real_canister_is_compiled_to_the_same_bytes_as_in_this_process() {
    let modules = modules();
    assert!(modules.len() > 20, "{modules:?}");
    let engine = Engine::new().expect("the engine starts");
    let compared = Compared::new(&engine, compilers(), &Arc::new(Limits::application()));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(file) = modules.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let wasm = std::fs::read(file).expect("a module");
                    on_executor_stack(|| compared.compile(&wasm)).expect("compilers").expect("valid");
                }
            });
        }
    });
}

#[test]
fn a_refusal_has_the_same_text_as_in_this_process() {
    let engine = Engine::new().expect("the engine starts");
    let compared = Compared::new(&engine, compilers(), &Arc::new(Limits::application()));
    let wat = |text: &str| wat::parse_str(text).expect("a text");
    let long = "n".repeat(30_000);
    let gzip = [&[0x1f, 0x8b, 8][..], &[0; 20]].concat();
    let nested = format!("(module (func {} {}))", "block ".repeat(21_000), "end ".repeat(21_000));
    let refused: [(&str, Vec<u8>); 8] = [
        ("the module starts with neither", Vec::new()),
        ("gzip: ", gzip),
        ("validation: ", b"\0asm\x01\0\0\0\x01".to_vec()),
        ("function 'ic0.", wat(r#"(module (import "ic0" "no such\1b[2J function" (func)))"#)),
        ("in sum with it", wat(&format!(r#"(module (func (export "canister_query {long}")))"#))),
        (
            "more than once",
            wat(r#"(module (func (export "canister_query a\0ab")) (func (export "canister_update a\0ab")))"#),
        ),
        ("complexity", wat(&nested)),
        ("exceeds the initial memory", wat(r#"(module (memory 1) (data (i32.const 65535) "ab"))"#)),
    ];
    for (expected, wasm) in refused {
        let InvalidModule(text) = compared.compile(&wasm).expect("compilers").expect_err("a bad module");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

/// Compilers that die as they are asked for the request with this number; from `usize::MAX` on they live.
struct Dying {
    source: Arc<LauncherSource>,
    dies_at: Arc<AtomicUsize>,
    launched: AtomicUsize,
}

struct DyingProcess {
    process: Box<dyn WorkerProcess>,
    /// Looks at the socket; there is one for each request.
    requests: Mutex<usize>,
    dies_at: Arc<AtomicUsize>,
}

impl WorkerSource for Dying {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        self.launched.fetch_add(1, Ordering::SeqCst);
        let process = self.source.launch()?;
        let dies_at = Arc::clone(&self.dies_at);
        Ok(Box::new(DyingProcess { process, requests: Mutex::new(0), dies_at }))
    }

    fn private_bytes(&self, pid: i32) -> Option<u64> {
        self.source.private_bytes(pid)
    }
}

impl fmt::Debug for DyingProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.process.fmt(f)
    }
}

impl WorkerProcess for DyingProcess {
    fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn socket(&self) -> &sandbox_os::Socket {
        let mut requests = self.requests.lock().expect("no panic");
        if *requests == self.dies_at.load(Ordering::SeqCst) {
            let pid = Pid::from_raw(self.pid()).expect("not 0");
            rustix::process::kill_process(pid, Signal::KILL).expect("it is there");
        }
        *requests += 1;
        self.process.socket()
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        self.process.layers()
    }

    fn verify(
        &self,
        phase: sandbox_os::verify::Phase,
        memory: &[Range<u64>],
    ) -> Result<(), sandbox_os::verify::NotConfined> {
        self.process.verify(phase, memory)
    }

    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        self.process.limit_memory(bytes)
    }

    fn pull(
        &self,
        from: &[sandbox_os::pull::Span],
        into: Vec<&mut [u8]>,
    ) -> Result<(), sandbox_os::pull::PullError> {
        self.process.pull(from, into)
    }

    fn place(&self, core: usize) {
        self.process.place(core);
    }

    fn processor_time(&self) -> Option<sandbox_os::processor::Spent> {
        self.process.processor_time()
    }

    fn stand_behind(&self, behind: bool) -> bool {
        self.process.stand_behind(behind)
    }

    fn kill(&mut self) -> sandbox_os::Ended {
        self.process.kill()
    }
}

/// A subnet with one empty canister whose modules `compiler` compiles.
fn subnet(engine: &Engine, compiler: SandboxedCompiler) -> (Subnet, Principal) {
    let backend = Arc::new(InProcess::new(engine.clone(), &InProcessOptions::default()));
    let compiler = Arc::new(ModuleCompiler::keeping(Box::new(compiler)));
    let options = SchedulerOptions { threads: 1, ..SchedulerOptions::default() };
    let mut subnet = Subnet::new(SubnetConfig::application(), backend, compiler, options);
    let canister = subnet.create_canister(Principal::anonymous(), None, 1 << 60).expect("an id");
    subnet.round(1, [0; 32]);
    (subnet, canister)
}

fn install(subnet: &mut Subnet, canister: Principal, wasm: &[u8]) -> execution::MessageId {
    let arg = candid::encode_one(Install {
        mode: Mode::Install,
        canister_id: canister,
        wasm_module: serde_bytes::ByteBuf::from(wasm),
        arg: serde_bytes::ByteBuf::new(),
    });
    let message = execution::Ingress {
        sender: Principal::anonymous(),
        receiver: Principal::management_canister(),
        method: "install_code".into(),
        arg: Arc::from(arg.expect("Candid")),
        nonce: Vec::new(),
    };
    subnet.submit(message).expect("room for a message")
}

#[derive(candid::CandidType)]
struct Install {
    mode: Mode,
    canister_id: Principal,
    wasm_module: serde_bytes::ByteBuf,
    arg: serde_bytes::ByteBuf,
}

#[derive(candid::CandidType, serde::Deserialize)]
enum Mode {
    #[serde(rename = "install")]
    Install,
}

/// A module with data, so that the output has both parts.
fn small() -> Vec<u8> {
    wat::parse_str(r#"(module (memory 1) (data (i32.const 8) "data") (func (export "canister_update go")))"#)
        .expect("a text")
}

#[test]
fn a_compiler_killed_at_any_step_leaves_the_state_as_if_it_had_never_run_and_the_next_try_succeeds() {
    // Begin, the one part, compile, the output.
    const REQUESTS: usize = 4;
    on_executor_stack(|| {
        let engine = Engine::new().expect("the engine starts");
        let mut roots = Vec::new();
        for step in (0..REQUESTS).chain([usize::MAX]) {
            let dies_at = Arc::new(AtomicUsize::new(step));
            let source = Arc::new(Dying {
                source: compilers(),
                dies_at: Arc::clone(&dies_at),
                launched: AtomicUsize::new(0),
            });
            let limits = Arc::new(Limits::application());
            let launched = Arc::clone(&source);
            let compiler = SandboxedCompiler::new(source, limits, CompilerOptions::default());
            let (mut subnet, canister) = subnet(&engine, compiler);
            let message = install(&mut subnet, canister, &small());
            // It has paid for its message by now.
            let before =
                execution::root::canister_root(subnet.state().canister(&canister).expect("it is there"));
            let mut round = 2;
            if step < usize::MAX {
                let report = subnet.round(round, [0; 32]);
                let [failure] = &report.failures[..] else { panic!("{:?}", report.failures) };
                assert_eq!(
                    failure.error, "the sandbox worker died: compiling: killed by SIGKILL",
                    "step {step}"
                );
                assert_eq!(launched.launched.load(Ordering::SeqCst), 3, "three tries");
                let after =
                    execution::root::canister_root(subnet.state().canister(&canister).expect("it is there"));
                assert_eq!(after, before, "step {step}");
                assert_eq!(subnet.status(&message), IngressStatus::Received);
                dies_at.store(usize::MAX, Ordering::SeqCst);
                round += 1;
            }
            subnet.round(round, [0; 32]);
            assert!(matches!(subnet.status(&message), IngressStatus::Replied(_)), "step {step}");
            // What follows from the round's number and time is brought to the same.
            while round < 4 {
                round += 1;
                subnet.round(round, [0; 32]);
            }
            let canister = subnet.state().canister(&canister).expect("it is there");
            roots.push((canister.version, canister.module().map(|module| module.hash)));
        }
        assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    });
}

/// A module that is valid and far beyond what can be compiled: `count` branch tables of 65,000 targets each.
fn branch_tables(count: usize) -> Vec<u8> {
    let one = format!("(block (local.get 0) (br_table {}))", "0 ".repeat(65_000));
    wat::parse_str(format!("(module (func (param i32) {}))", one.repeat(count))).expect("a text")
}

#[test]
fn a_module_that_takes_all_memory_or_all_time_ends_its_compiler_and_the_next_module_compiles() {
    let limits = Arc::new(Limits::application());
    let short = CompilerOptions { compile_patience: Duration::from_secs(1), ..CompilerOptions::default() };
    let bomb = branch_tables(100);

    let compiler = SandboxedCompiler::new(compilers(), Arc::clone(&limits), short);
    let error = compiler.compile(&bomb).expect_err("no code");
    assert!(matches!(error, BackendError::Deadline { milliseconds: 1000 }), "{error}");
    compiler.compile(&small()).expect("a compiler").expect("valid");

    let compiler = SandboxedCompiler::new(compilers(), limits, CompilerOptions::default());
    let error = compiler.compile(&bomb).expect_err("no code").to_string();
    assert_eq!(error, "the sandbox worker died: the compiler needed more memory than it may have");
    let again = compiler.compile(&bomb).expect_err("no code").to_string();
    assert!(again.contains("needed more memory than it may have); the next is made in "), "{again}");
    compiler.compile(&small()).expect("a compiler").expect("valid");
}
