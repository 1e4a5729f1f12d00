//! Compiles modules in processes that hold nothing but the module: one process for one module.
//!
//! The node reads of a module no more than its length and its hash. What comes back is an account of the module and
//! bytes of native code, which the node never runs and never maps: a worker does that, and is confined for code of any
//! kind. Only a refusal that the compiler gives by name is the module's fault. A compiler that dies, is late, needs
//! more than its bounds or says what no correct one says is a [`BackendError`], and the module can be tried again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use execution::check::check_interface;
use execution::{BackendError, Compiler, InvalidModule, Limits, Module, ModuleHash, Violation};
use sandbox_os::Ended;
use sandbox_os::lockdown::Exit;
use sandbox_os::machine;
use sandbox_os::verify::Phase;
use sandbox_protocol::{
    Bytes, COMPILER_MEMORY_BYTES_MAX, Claimed, FromCompiler, MODULE_BYTES_PER_PART, OUTPUT_BYTES_PER_REPLY,
    ToCompiler,
};

use crate::back_off::{BackOff, Pauses};
use crate::exchange::{Exchange, Failed, violation};
use crate::launchers::Launchers;
use crate::pool::descriptors_left;
use crate::source::{LauncherSource, WorkerProcess, WorkerSource};
use crate::worker::printable;

/// How long a module isn't tried again after its compilation met a bound. So a module that can't be compiled holds up
/// rounds less and less.
const PAUSES: Pauses = Pauses { free: 0, first: Duration::from_secs(60), longest: Duration::from_secs(3600) };

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
    back_off: BackOff<ModuleHash>,
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
        Self { source, limits, options, launches: AtomicU64::new(0), back_off: BackOff::new(PAUSES) }
    }

    /// Compilers launched since the start.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.launches.load(Ordering::Relaxed)
    }

    fn compiled(&self, wasm: &[u8]) -> Result<Result<Module, InvalidModule>> {
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
        Ok(Ok(Module::new(wasm, interface, native)?))
    }
}

impl fmt::Debug for SandboxedCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxedCompiler").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Compiler for SandboxedCompiler {
    fn compile(
        &self,
        wasm: &[u8],
    ) -> std::result::Result<std::result::Result<Arc<Module>, InvalidModule>, BackendError> {
        let hash = ModuleHash::of(wasm);
        // A module that waits isn't one that failed once more.
        self.back_off.may_try(&hash)?;
        match self.compiled(wasm) {
            Ok(compiled) => {
                self.back_off.succeeded(&hash);
                Ok(compiled.map(Arc::new))
            }
            Err(Missed { error, bound }) => {
                if bound {
                    self.back_off.failed(hash, &error);
                }
                Err(error)
            }
        }
    }
}

/// Why a module wasn't compiled.
struct Missed {
    error: BackendError,
    /// Whether it met a bound of its compilation, which it may well meet again. A compiler that was killed by somebody
    /// else is tried again at once.
    bound: bool,
}

impl From<BackendError> for Missed {
    fn from(error: BackendError) -> Self {
        let bound = matches!(error, BackendError::Deadline { .. });
        Self { error, bound }
    }
}

impl From<Violation> for Missed {
    fn from(violation: Violation) -> Self {
        BackendError::from(violation).into()
    }
}

type Result<T, E = Missed> = std::result::Result<T, E>;

/// A live compiler. Dropping it kills and reaps the process.
struct Process {
    process: Box<dyn WorkerProcess>,
    exchange: Exchange,
    /// However time is spread over requests, all of them together have this deadline.
    end: Instant,
}

impl Process {
    /// Starts one and takes it to its COMPILE lock, seen from outside.
    fn launch(compiler: &SandboxedCompiler) -> Result<Self> {
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
    ) -> Result<R> {
        let left = patience.min(self.end.saturating_duration_since(Instant::now()));
        let reply = self.exchange.ask(self.process.as_mut(), request, left);
        Ok(read(reply.map_err(failed)?)?)
    }

    /// All of the output, of a length that has been checked. Memory is taken as bytes arrive.
    fn output(&mut self, bytes: u64, patience: Duration) -> Result<Vec<u8>> {
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

/// What a compiler's end means. Its bounds end it with codes of its own, and so does a bug of ours; a fault, a call
/// outside its filter or another code is no accident.
fn failed(error: Failed) -> Missed {
    let ended = match error {
        Failed::Ended(ended) => ended,
        Failed::Otherwise(error) => return error.into(),
    };
    let died = |how: String| BackendError::WorkerDied { how };
    match ended {
        Ended::Exited(code) if code == Exit::Memory as i32 => {
            let error = died("the compiler needed more memory than it may have".into());
            Missed { error, bound: true }
        }
        Ended::Exited(code) if code == Exit::Panicked as i32 => {
            BackendError::Engine("the compiler panicked".into()).into()
        }
        ended if ended.is_no_correct_workers() => violation(format!("compiling: {ended}")).into(),
        ended => died(format!("compiling: {ended}")).into(),
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
