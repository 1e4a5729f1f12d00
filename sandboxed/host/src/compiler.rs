//! Compiles modules in processes that hold nothing but the module: one process for one module.
//!
//! The node reads of a module no more than its length and its hash. What comes back is an account of the module and
//! bytes of native code, which the node never runs and never maps: a worker does that, and is confined for code of any
//! kind. Only a refusal that the compiler gives by name is the module's fault. A compiler that dies, is late, needs
//! more than its bounds or says what no correct one says is a [`BackendError`], and the module can be tried again.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use execution::check::check_interface;
use execution::{BackendError, Compiler, InvalidModule, Limits, Module, ModuleHash};
use sandbox_os::Ended;
use sandbox_os::lockdown::Exit;
use sandbox_os::machine;
use sandbox_os::verify::Phase;
use sandbox_protocol::{
    Bytes, COMPILER_MEMORY_BYTES_MAX, Claimed, FromCompiler, MODULE_BYTES_PER_PART, OUTPUT_BYTES_PER_REPLY,
    ToCompiler,
};

use crate::exchange::{Exchange, Failed, violation};
use crate::launchers::Launchers;
use crate::pool::descriptors_left;
use crate::source::{LauncherSource, WorkerProcess, WorkerSource};
use crate::status::lock;
use crate::worker::printable;

/// How long a module isn't tried again after its compilation met a bound: doubled by each further time, up to the
/// longest. So a module that can't be compiled holds up rounds less and less.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Modules whose pauses are kept in mind.
const PAUSED_MAX: usize = 1_000;

/// Bounds of [`SandboxedCompiler`]. None of them can change a result.
#[derive(Clone, Copy, Debug)]
pub struct CompilerOptions {
    /// How long a compiler may take over anything but compiling.
    pub step_patience: Duration,
    /// How long it may take over compiling: several times what the slowest valid module takes
    /// (docs/decisions/0006-compiler-process.md).
    pub compile_patience: Duration,
}

impl Default for CompilerOptions {
    fn default() -> Self {
        Self { step_patience: Duration::from_secs(10), compile_patience: Duration::from_secs(300) }
    }
}

/// Compiles each module in a process of its own. It keeps no results.
pub struct SandboxedCompiler {
    source: Arc<dyn WorkerSource>,
    limits: Arc<Limits>,
    options: CompilerOptions,
    launches: AtomicU64,
    paused: Mutex<Vec<Paused>>,
}

/// A module that met a bound.
struct Paused {
    hash: ModuleHash,
    failures: u32,
    since: Instant,
    pause: Duration,
    why: String,
}

impl SandboxedCompiler {
    /// Compiles under the subnet's `limits`, in processes from `launchers`.
    #[must_use]
    pub fn start(launchers: Arc<Launchers>, limits: Arc<Limits>, options: CompilerOptions) -> Self {
        // Two may always have what they may take; more than that only where it leaves half of the memory to others.
        let together = machine::memory_bytes().map_or(u64::MAX, |bytes| bytes / 2);
        let together = together.max(2 * COMPILER_MEMORY_BYTES_MAX);
        Self::new(Arc::new(LauncherSource::compilers(launchers, together)), limits, options)
    }

    /// The same in processes from another source.
    #[must_use]
    pub fn new(source: Arc<dyn WorkerSource>, limits: Arc<Limits>, options: CompilerOptions) -> Self {
        Self { source, limits, options, launches: AtomicU64::new(0), paused: Mutex::default() }
    }

    /// Compilers launched since the start.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.launches.load(Ordering::Relaxed)
    }

    fn may_try(&self, hash: &ModuleHash) -> Result<(), BackendError> {
        let paused = lock(&self.paused);
        let Some(paused) = paused.iter().find(|paused| paused.hash == *hash) else { return Ok(()) };
        let left = paused.pause.saturating_sub(paused.since.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        // Nothing was tried, so it doesn't count as a failure.
        Err(BackendError::BackOff {
            failures: paused.failures,
            milliseconds: u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
            last: paused.why.clone(),
        })
    }

    /// Keeps in mind how a compilation went.
    fn note(&self, hash: ModuleHash, error: Option<&BackendError>) {
        let mut all = lock(&self.paused);
        let before = all.iter().position(|paused| paused.hash == hash).map(|at| all.remove(at));
        let Some(error @ (BackendError::Deadline { .. } | BackendError::WorkerDied { .. })) = error else {
            return;
        };
        // A compiler that was killed by somebody else is tried again at once.
        if matches!(error, BackendError::WorkerDied { how } if how != OUT_OF_MEMORY) {
            return;
        }
        let pause = before.as_ref().map_or(PAUSE, |before| before.pause.saturating_mul(2).min(PAUSE_MAX));
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        all.push(Paused { hash, failures, since: Instant::now(), pause, why: error.to_string() });
        if all.len() > PAUSED_MAX {
            all.remove(0);
        }
    }

    fn compiled(&self, wasm: &[u8]) -> Result<Result<Module, InvalidModule>, BackendError> {
        let mut process = Process::launch(self)?;
        for part in wasm.chunks(MODULE_BYTES_PER_PART) {
            process.ask(&ToCompiler::Part(Bytes(part)), self.options.step_patience, |reply| match reply {
                FromCompiler::Taken => Ok(()),
                other => Err(unexpected(&other, "taken")),
            })?;
        }
        let request = ToCompiler::Compile(Box::new((&*self.limits).into()));
        let claimed = process.ask(&request, self.options.compile_patience, |reply| match reply {
            FromCompiler::Compiled(compiled) => {
                Claimed::try_from(*compiled).map(Ok).map_err(|claim| violation(claim.0))
            }
            FromCompiler::Refused(text) => refused(text).map(Err),
            other => Err(unexpected(&other, "compiled")),
        })?;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(invalid) => return Ok(Err(invalid)),
        };
        let output = process.output(claimed.output_bytes(), self.options.step_patience)?;
        let (interface, native) = claimed.with(&output).map_err(|claim| violation(claim.0))?;
        check_interface(&interface, &self.limits)?;
        Module::new(wasm, interface, native).map(Ok)
    }
}

impl fmt::Debug for SandboxedCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxedCompiler").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Compiler for SandboxedCompiler {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        let hash = ModuleHash::of(wasm);
        self.may_try(&hash)?;
        let compiled = self.compiled(wasm);
        self.note(hash, compiled.as_ref().err());
        Ok(compiled?.map(Arc::new))
    }
}

/// A live compiler. Dropping it kills and reaps the process.
struct Process {
    process: Box<dyn WorkerProcess>,
    exchange: Exchange,
    /// However time is spread over requests, all of them together have this deadline.
    end: Instant,
}

impl Process {
    /// Starts one and takes it to its COMPILE lock, seen from outside.
    fn launch(compiler: &SandboxedCompiler) -> Result<Self, BackendError> {
        descriptors_left()?;
        let number = compiler.launches.fetch_add(1, Ordering::Relaxed);
        let CompilerOptions { step_patience, compile_patience } = compiler.options;
        let process = compiler.source.launch()?;
        let end = Instant::now() + step_patience + compile_patience;
        let mut process = Self { process, exchange: Exchange::new(number), end };
        process.ask(&ToCompiler::Begin, compiler.options.step_patience, |reply| match reply {
            FromCompiler::Ready => Ok(()),
            other => Err(unexpected(&other, "ready")),
        })?;
        // Nothing of a module has reached it yet: a missing layer is a failed launch.
        let verified = process.process.verify(Phase::Load, &[]);
        verified.map_err(|layer| BackendError::Spawn(format!("not confined: {layer}")))?;
        Ok(process)
    }

    fn ask<R>(
        &mut self,
        request: &ToCompiler<'_>,
        patience: Duration,
        read: impl FnOnce(FromCompiler<'_>) -> Result<R, BackendError>,
    ) -> Result<R, BackendError> {
        let left = patience.min(self.end.saturating_duration_since(Instant::now()));
        let reply = self.exchange.ask(self.process.as_mut(), request, left);
        reply.map_err(failed).and_then(read)
    }

    /// All of the output, of a length that has been checked. Memory is taken as bytes arrive.
    fn output(&mut self, bytes: u64, patience: Duration) -> Result<Vec<u8>, BackendError> {
        let mut output = Vec::new();
        loop {
            let left = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_sub(output.len());
            if left == 0 {
                return Ok(output);
            }
            self.ask(&ToCompiler::Output, patience, |reply| match reply {
                FromCompiler::Output(part) if part.0.len() == left.min(OUTPUT_BYTES_PER_REPLY) => {
                    output.extend_from_slice(part.0);
                    Ok(())
                }
                FromCompiler::Output(_) => Err(violation("a part of the output of another length")),
                other => Err(unexpected(&other, "output")),
            })?;
        }
    }
}

/// How a compiler ended that needed more than [`COMPILER_MEMORY_BYTES_MAX`].
const OUT_OF_MEMORY: &str = "the compiler needed more memory than it may have";

/// What a compiler's end means. Its bounds end it with codes of its own, and so does a bug of ours; a fault, a call
/// outside its filter or another code is no accident.
fn failed(error: Failed) -> BackendError {
    let ended = match error {
        Failed::Ended(ended) => ended,
        Failed::Otherwise(error) => return error,
    };
    match ended {
        Ended::Exited(code) if code == Exit::Memory as i32 => {
            BackendError::WorkerDied { how: OUT_OF_MEMORY.into() }
        }
        Ended::Exited(code) if code == Exit::Panicked as i32 => {
            BackendError::Engine("the compiler panicked".into())
        }
        ended if ended.is_no_correct_workers() => violation(format!("compiling: {ended}")),
        ended => BackendError::WorkerDied { how: format!("compiling: {ended}") },
    }
}

/// The compiler's reason, if it is one: short and printable, as all are.
fn refused(text: &str) -> Result<InvalidModule, BackendError> {
    let refused = InvalidModule::new(text);
    if refused.0 != text || text.is_empty() {
        return Err(violation("a refusal that no compiler gives"));
    }
    Ok(refused)
}

/// A reply of the wrong kind; a compiler's own report of failure is none.
fn unexpected(reply: &FromCompiler<'_>, expected: &str) -> BackendError {
    let found = match reply {
        FromCompiler::Failed(text) => return BackendError::Engine(printable(text)),
        FromCompiler::Ready => "ready",
        FromCompiler::Taken => "taken",
        FromCompiler::Compiled(_) => "compiled",
        FromCompiler::Refused(_) => "refused",
        FromCompiler::Output(_) => "output",
    };
    violation(format!("answered `{found}` where `{expected}` was due"))
}
