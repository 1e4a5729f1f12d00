//! The one engine profile (`canister-execution.md` section 1.6, design decision 9b) and loaded code.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use execution::memory::{MemoryError, limit};
use wasmtime::{Config, InstancePre, Linker, Module};

use crate::instance::Data;
use crate::native;

/// Address space reserved for each WebAssembly memory: above the largest heap (6 GiB) and the largest
/// overlay of written stable pages (8 GiB), so that growing never moves and never maps.
pub(crate) const MEMORY_RESERVATION_BYTES: u64 = 8 << 30;
/// Unmapped bytes behind each memory: 32-bit accesses need no bounds check.
const MEMORY_GUARD_BYTES: u64 = 2 << 30;
/// Stack of guest code.
const WASM_STACK_BYTES: usize = 5 << 20;
/// Stack that an instance runs on, so that it can be left when a slice ends: the guest's, and as much for the
/// System API. The instance keeps it; it takes what was touched of it.
const FIBER_STACK_BYTES: usize = 2 * WASM_STACK_BYTES;
/// The profile's target. Named, so that nothing is inferred from the machine it runs on.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The profile's processor features beyond x86-64 (about x86-64-v2).
#[cfg(feature = "compile")]
const TARGET_FLAGS: [&str; 6] =
    ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt", "has_cmpxchg16b"];

/// What the engine failed at, for reasons that no guest can cause.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The machine or the build doesn't fit the engine profile.
    #[error("could not make the engine: {0}")]
    Profile(String),
    /// A code file isn't what the compiler of this profile makes.
    #[error("could not load compiled code: {0}")]
    Code(String),
    /// No instance could be made.
    #[error("could not make an instance: {0}")]
    Instance(String),
    /// The kernel refused what an instance needs.
    #[error("could not make an instance: {detail}")]
    Refused {
        /// The limit that was met.
        limit: &'static str,
        /// What was asked for.
        detail: String,
    },
    /// An update that this instance can't follow: the owner drops it and makes a new one.
    #[error("could not bring the instance up to date: {0}")]
    Sync(String),
    /// A run failed around the guest: the owner drops the instance.
    #[error("the run failed: {0}")]
    Run(String),
}

impl From<MemoryError> for EngineError {
    fn from(error: MemoryError) -> Self {
        let detail = error.to_string();
        match error.limit() {
            Some(limit) => Self::Refused { limit, detail },
            None => Self::Instance(detail),
        }
    }
}

impl EngineError {
    /// Why no instance could be made.
    pub(crate) fn instance(error: wasmtime::Error) -> Self {
        let detail = format!("{error:#}");
        match limit::met(error.root_cause()) {
            Some(limit) => Self::Refused { limit, detail },
            None => Self::Instance(detail),
        }
    }
}

/// An engine of the one profile. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    raw: wasmtime::Engine,
    /// The System API for 32-bit and 64-bit heaps.
    linkers: [Linker<Data>; 2],
}

impl Engine {
    /// Makes the engine. Nothing about the machine is inferred but that it has the profile's features.
    ///
    /// # Errors
    /// [`EngineError::Profile`] when the machine lacks a processor feature of the profile.
    pub fn new() -> Result<Self, EngineError> {
        require_processor()?;
        let profile = |error: wasmtime::Error| EngineError::Profile(format!("{error:#}"));
        let raw = wasmtime::Engine::new(&config().map_err(profile)?).map_err(profile)?;
        let linkers = [
            native::linker(&raw, native::Heap::Bits32).map_err(profile)?,
            native::linker(&raw, native::Heap::Bits64).map_err(profile)?,
        ];
        Ok(Self(Arc::new(Shared { raw, linkers })))
    }

    /// The engine itself.
    #[must_use]
    pub fn raw(&self) -> &wasmtime::Engine {
        &self.0.raw
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Reads the processor's features now; later checks use the cached answer, so that a worker may
/// switch CPUID off after this.
fn require_processor() -> Result<(), EngineError> {
    #[cfg(target_arch = "x86_64")]
    {
        let missing = [
            (std::is_x86_feature_detected!("sse3"), "sse3"),
            (std::is_x86_feature_detected!("ssse3"), "ssse3"),
            (std::is_x86_feature_detected!("sse4.1"), "sse4.1"),
            (std::is_x86_feature_detected!("sse4.2"), "sse4.2"),
            (std::is_x86_feature_detected!("popcnt"), "popcnt"),
            (std::is_x86_feature_detected!("cmpxchg16b"), "cmpxchg16b"),
        ]
        .into_iter()
        .find(|(present, _)| !present);
        match missing {
            None => Ok(()),
            Some((_, name)) => Err(EngineError::Profile(format!(
                "this processor lacks {name}, which the engine profile needs; use a machine with x86-64-v2"
            ))),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    Err(EngineError::Profile(format!("the engine profile is for {TARGET} only")))
}

fn config() -> Result<Config, wasmtime::Error> {
    let mut config = Config::new();
    config.target(TARGET)?;
    features(&mut config);
    config
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_reservation_for_growth(0)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .guard_before_linear_memory(false)
        .memory_may_move(false)
        // Pages of record are mapped or copied in; an image of wasmtime's would be a second source of content.
        .memory_init_cow(false)
        .table_lazy_init(true)
        .signals_based_traps(true)
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable)
        .native_unwind_info(false);
    #[cfg(feature = "compile")]
    {
        config.cranelift_nan_canonicalization(true).cranelift_opt_level(wasmtime::OptLevel::Speed);
        native::enable_target_flags(&mut config, &TARGET_FLAGS);
    }
    Ok(config)
}

/// What the *instrumented* module may use: canister modules are validated against a narrower set
/// before (no multi-memory there).
fn features(config: &mut Config) {
    config
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_tail_call(true)
        .wasm_memory64(true)
        // Beside the heap there is the instrumentation's own memory: the counter and the map of written pages.
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(false)
        .wasm_extended_const(false)
        .wasm_gc(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .wasm_stack_switching(false)
        .wasm_shared_everything_threads(false)
        // The instrumentation says which of its branches are hardly ever taken.
        .wasm_branch_hinting(true);
}

/// Compiled code, mapped and linked with the System API. Clones share it.
#[derive(Clone)]
pub struct Code {
    pub(crate) pre: InstancePre<Data>,
    pub(crate) engine: Engine,
}

impl Code {
    /// Maps the sealed code `file` and links it.
    ///
    /// Trusted by decision: `file` must be what [`crate::compile`] made for this profile, sealed. In the
    /// node only the compiler's output comes here; in a worker, whatever the file does is confined.
    ///
    /// # Errors
    /// [`EngineError::Code`] when the file is of another profile, or imports what the API lacks.
    pub fn load(engine: &Engine, file: OwnedFd) -> Result<Self, EngineError> {
        let code = |error: wasmtime::Error| EngineError::Code(format!("{error:#}"));
        let module = native::load(engine.raw(), file.into()).map_err(code)?;
        let [narrow, wide] = &engine.0.linkers;
        let linker = if heap_is_64_bit(&module) { wide } else { narrow };
        let pre = linker.instantiate_pre(&module).map_err(code)?;
        Ok(Self { pre, engine: engine.clone() })
    }
}

impl Code {
    /// The native code as it is mapped.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.pre.module().text()
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code")
    }
}

fn heap_is_64_bit(module: &Module) -> bool {
    matches!(module.get_export("memory"), Some(wasmtime::ExternType::Memory(memory)) if memory.is_64())
}
