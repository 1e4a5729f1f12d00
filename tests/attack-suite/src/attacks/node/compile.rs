//! Modules made to be compiled, and what an owned compiler says: code under another's name, code for ever, code that
//! attacks.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use bulkhead_node::image::launchers;
use execution::memory::Blob;
use execution::module::Interface;
use execution::{Backend, BackendError, Compiler, InvalidModule, Limits, Module, ModuleHash};
use hostile::{call, result, text};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use libc::{EPERM, MAP_SHARED, PROT_READ, PROT_WRITE};
use sandbox_host::{CompilerOptions, SandboxOptions, Sandboxed, SandboxedCompiler};

use super::arena::plain_file;
use super::layers::install_and_update;
use crate::attacks::Attack;
use crate::attacks::files::GIVEN;
use crate::stage::{Hostile, Setting, Stage};
use crate::table::{Control, Phase, Rows};
use crate::trial::{Scene, Stop, Way, stopped, works};

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::once("A54", "replaces the code that other canisters run", poisons),
        Attack::once("A55", "uploads a module that takes for ever to compile", |_, rows| bomb(rows)),
        Attack::once("A56", "has its module compiled to native code of its own", |_, rows| owned_code(rows)),
    ]
}

type Compiled = Result<Result<Arc<Module>, InvalidModule>, BackendError>;

const OWN: &[u8] = b"the module of the attacker";
const OTHER: &[u8] = b"the module of another canister";

/// A compiler that an attacker owns: for its own module it gives code under the other's hash.
struct Owned;

impl Compiler for Owned {
    fn compile(&self, wasm: &[u8]) -> Compiled {
        let native: &[u8] = if wasm == OWN { b"attack" } else { b"honest" };
        Ok(Ok(Arc::new(Module::new(OTHER, Interface::default(), native)?)))
    }
}

/// A cache that believes which module a compiler's answer is for.
#[derive(Default)]
struct Believing(HashMap<ModuleHash, Arc<Module>>);

impl Believing {
    fn compile(&mut self, wasm: &[u8]) -> Result<Arc<Module>, String> {
        let made = Owned.compile(wasm).map_err(|error| error.to_string())?.map_err(|refused| refused.0)?;
        self.0.insert(made.hash, made);
        self.0.get(&ModuleHash::of(OTHER)).cloned().ok_or_else(|| "nothing is kept".to_owned())
    }
}

fn code(module: &Module) -> Vec<u8> {
    let mut bytes = vec![0; module.code.len()];
    let file = module.code.file().try_clone_to_owned().map(std::fs::File::from);
    let read = file.and_then(|file| file.read_exact_at(&mut bytes, 0));
    read.map(|()| bytes).unwrap_or_default()
}

fn poisons(stage: &Stage, rows: &mut Rows) {
    let mut believing = Believing::default();
    let before = believing.compile(OTHER).map(|module| code(&module));
    let control = match (before, believing.compile(OWN).map(|module| code(&module))) {
        (Ok(before), Ok(after)) if before != after => Ok(Control::Fired),
        other => Err(format!("a cache that believes keeps what it had: {other:?}")),
    };
    let cache = ModuleCompiler::keeping(Box::new(Owned));
    let kept = |wasm: &[u8]| match cache.compile(wasm) {
        Ok(Ok(module)) => Ok(code(&module)),
        Ok(Err(InvalidModule(why))) => Err(why),
        Err(error) => Err(error.to_string()),
    };
    let (before, own, after) = (kept(OTHER), kept(OWN), kept(OTHER));
    let refused = own == Err("violation: the code of another module".to_owned());
    let contained = match refused && before.is_ok() && before == after {
        true => Ok(()),
        false => Err(format!("{before:?}, then {own:?}, then {after:?}")),
    };
    rows.add(Phase::None, "the node's own hash as the cache's key", &control, contained);

    let mapped = &[0, 4096, (PROT_READ | PROT_WRITE) as u64, MAP_SHARED as u64, GIVEN, 0];
    let calls = [
        ("pwrite", vec![call(libc::SYS_pwrite64, &[GIVEN, text(0), 6, 0])]),
        ("ftruncate", vec![call(libc::SYS_ftruncate, &[GIVEN, 0])]),
        ("mmap", vec![call(libc::SYS_mmap, mapped), call(libc::SYS_getrandom, &[result(0), 6, 0])]),
    ];
    let ways = |sealed: bool| {
        calls.clone().map(|(name, calls)| {
            Way::new(name, move |_: &Stage, _: &Hostile| {
                let blob = Blob::new(&[7; 4096]).expect("memory files work");
                let file =
                    if sealed { blob.file().try_clone_to_owned().expect("a number") } else { plain_file() };
                let ours = std::fs::File::from(file.try_clone().expect("a number"));
                let changed = move || {
                    let mut start = [0; 6];
                    ours.read_exact_at(&mut start, 0).is_err() || start != [7; 6]
                };
                Scene::calls(&calls, b"attack", move |_, _| changed()).given(file)
            })
        })
    };
    let control = ways(false).iter().try_for_each(|way| works(stage, way)).map(|()| Control::Fired);
    let contained =
        ways(true).iter().try_for_each(|way| stopped(stage, way, Setting::OPEN, Stop::Errno(&[EPERM])));
    rows.add(Phase::None, "the code file's seals alone", &control, contained);
}

/// Branch tables of 65,000 targets: valid, and slow to compile.
fn slow_module() -> Vec<u8> {
    let one = format!("(block (local.get 0) (br_table {}))", "0 ".repeat(65_000));
    wat::parse_str(format!("(module (func (param i32) {}))", one.repeat(20))).expect("a text")
}

fn bomb(rows: &mut Rows) {
    const PATIENCE: Duration = Duration::from_millis(500);
    let module: Arc<[u8]> = slow_module().into();
    // In the node's own process nothing ends it before it is done.
    let control = Engine::new().map_err(|error| error.to_string()).and_then(|engine| {
        let (done, waits) = channel();
        let compiler = ModuleCompiler::new(engine, Arc::new(Limits::application()));
        let theirs = Arc::clone(&module);
        let thread =
            std::thread::Builder::new().stack_size(execution::EXECUTOR_STACK_BYTES).spawn(move || {
                let compiled = compiler.compile(&theirs).is_ok();
                let _nobody_waits = done.send(compiled);
            });
        let thread = thread.map_err(|error| error.to_string())?;
        let late = waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        thread.join().map_err(|_| "it panicked".to_owned())?;
        if late { Ok(Control::Fired) } else { Err("it is compiled within the deadline".to_owned()) }
    });
    let options = CompilerOptions { compile_patience: PATIENCE, ..CompilerOptions::default() };
    let contained = launchers().map_err(|error| error.to_string()).and_then(|launchers| {
        let compiler = SandboxedCompiler::start(launchers, Arc::new(Limits::application()), options);
        match compiler.compile(&module) {
            Err(BackendError::Deadline { .. }) => {}
            other => return Err(format!("no deadline: {other:?}")),
        }
        // The node goes on, and others are compiled.
        match compiler.compile(&wat::parse_str("(module)").expect("a text")) {
            Ok(Ok(_)) => Ok(()),
            other => Err(format!("another module: {other:?}")),
        }
    });
    rows.add(Phase::None, "deadline on a compiler's process", &control, contained);
}

/// Stores numbers that are found again in the native code. One address for all, so that the first store notes the page
/// of all, and nothing but stores lies between the others.
fn marked_module() -> Vec<u8> {
    let store = |number: u64| {
        format!("(i64.store offset={} (local.get $at) (i64.const {:#x}))", 8 * number, MARK + number)
    };
    let stores: String = (0..MARKS).map(store).collect();
    let go = format!("(func (export \"canister_update go\") (local $at i32) {stores})");
    wat::parse_str(format!("(module (memory 1) {go})")).expect("a text")
}

const MARK: u64 = 0x1122_3344_5566_7700;
const MARKS: u64 = 24;

/// Replaces what lies between the second and the last marked number by code that writes a byte into `file` and goes on
/// behind it.
fn with_attack(native: &[u8], file: RawFd) -> Result<Vec<u8>, String> {
    // movabs: REX.W (with or without B), b8 to bf, the number.
    let marked = |number: u64| {
        let bytes = (MARK + number).to_le_bytes();
        native
            .windows(10)
            .position(|code| matches!(code[..2], [0x48 | 0x49, 0xb8..=0xbf]) && code[2..] == bytes)
    };
    let places: Vec<usize> = (1..MARKS).filter_map(marked).collect();
    let (Some(start), Some(end)) = (places.iter().min(), places.iter().max()) else {
        return Err("the marked numbers aren't in the code".into());
    };
    #[rustfmt::skip]
    let mut attack = vec![
        0x50, 0x51, 0x52, 0x56, 0x57, 0x41, 0x53, // push rax, rcx, rdx, rsi, rdi, r11
        0xb8, 1, 0, 0, 0,                         // mov eax, write
        0xbf, 0, 0, 0, 0,                         // mov edi, file
        0x48, 0x8d, 0x35, 0, 0, 0, 0,             // lea rsi, [rip]
        0xba, 1, 0, 0, 0,                         // mov edx, 1
        0x0f, 0x05,                               // syscall
        0x41, 0x5b, 0x5f, 0x5e, 0x5a, 0x59, 0x58, // pop r11, rdi, rsi, rdx, rcx, rax
    ];
    attack[13..17].copy_from_slice(&file.to_le_bytes());
    let room = end - start;
    if room < attack.len() {
        return Err(format!("{room} bytes are too few"));
    }
    attack.resize(room, 0x90);
    let mut native = native.to_vec();
    native[*start..*end].copy_from_slice(&attack);
    Ok(native)
}

/// A compiler whose output has an attack in it.
struct Attacking(ModuleCompiler, RawFd);

impl Compiler for Attacking {
    fn compile(&self, wasm: &[u8]) -> Compiled {
        let honest = match self.0.compile(wasm)? {
            Ok(module) => module,
            refused @ Err(_) => return Ok(refused),
        };
        let native = with_attack(&code(&honest), self.1).map_err(BackendError::Engine)?;
        Ok(Ok(Arc::new(Module::new(wasm, honest.interface.clone(), &native)?)))
    }
}

fn owned_code(rows: &mut Rows) {
    let attempt = |backend: Arc<dyn Backend>, engine: &Engine| {
        let (mut witness, pipe) = std::io::pipe().map_err(|error| error.to_string())?;
        let honest = ModuleCompiler::new(engine.clone(), Arc::new(Limits::application()));
        let compiler = Arc::new(Attacking(honest, pipe.as_fd().as_raw_fd()));
        let failures = install_and_update(compiler, backend, &marked_module(), "go");
        drop(pipe);
        let mut written = Vec::new();
        witness.read_to_end(&mut written).map_err(|error| error.to_string())?;
        Ok::<_, String>((!written.is_empty(), failures))
    };
    let engine = match Engine::new() {
        Ok(engine) => engine,
        Err(error) => return rows.add(Phase::None, "RUN filter", &Err(error.to_string()), Ok(())),
    };
    let here = Arc::new(InProcess::new(engine.clone(), &InProcessOptions::default()));
    let control = match attempt(here, &engine) {
        Ok((true, _)) => Ok(Control::Fired),
        other => Err(format!("in the node's own process the code doesn't run: {other:?}")),
    };
    let sandboxed = launchers().and_then(|launchers| Sandboxed::start(launchers, SandboxOptions::default()));
    let contained = sandboxed.map_err(|error| error.to_string()).and_then(|sandboxed| {
        match attempt(Arc::new(sandboxed), &engine)? {
            (false, failures) if failures.iter().any(|failure| failure.contains("SIGSYS")) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    rows.add(Phase::None, "RUN filter", &control, contained);
}
