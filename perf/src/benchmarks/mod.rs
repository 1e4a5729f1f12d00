//! The benchmarks. Each function measures one thing and gives its findings.

mod bulk;
mod messages;
mod pull;
mod scaling;
mod starts;
mod workers;

use std::sync::Arc;

use execution::Limits;
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{SandboxOptions, Sandboxed};

use crate::report::Finding;
use crate::tracking;

/// A benchmark by name.
pub(crate) struct Benchmark {
    pub(crate) id: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Vec<Finding>, String>,
}

/// All of them, in the order of the table.
pub(crate) const ALL: &[Benchmark] = &[
    // First: it watches this process grow, and memory that others gave back would hide that.
    Benchmark { id: "footprint", run: workers::footprint },
    Benchmark { id: "empty-update", run: messages::empty_update },
    Benchmark { id: "compute", run: messages::compute },
    Benchmark { id: "heap-size", run: messages::heap_size },
    Benchmark { id: "scaling", run: scaling::scaling },
    Benchmark { id: "pull", run: pull::pull },
    Benchmark { id: "bulk", run: bulk::bulk },
    Benchmark { id: "cold-start", run: starts::cold_start },
    Benchmark { id: "attach", run: starts::attach },
    Benchmark { id: "compile-cache", run: starts::compile_cache },
    Benchmark { id: "live-workers", run: workers::live },
    Benchmark { id: "idle-workers", run: workers::idle },
    Benchmark { id: "tracking-store", run: tracking::stores },
    Benchmark { id: "tracking-harvest", run: tracking::harvest },
    Benchmark { id: "tracking-pages", run: tracking::pages },
];

/// A Motoko actor of about 250 KB with a 64-bit heap.
const MOTOKO: &[u8] = include_bytes!("../../../tests/canisters/motoko/Counter-eop.wasm");
/// Where messages run that are measured one at a time.
const CORE: usize = 0;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What the benchmarks share.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    compiler: ModuleCompiler,
    in_process: InProcess,
}

impl Bench {
    /// Starts the engine.
    pub(crate) fn new() -> Result<Self, String> {
        let engine = Engine::new().map_err(|error| error.to_string())?;
        let compiler = ModuleCompiler::new(engine.clone(), Arc::new(Limits::application()));
        let in_process = InProcess::new(engine.clone(), &InProcessOptions::default());
        Ok(Self { engine, compiler, in_process })
    }

    fn sandboxed(options: SandboxOptions) -> Result<Sandboxed, String> {
        bulkhead_node::image::launchers()
            .and_then(|launchers| Sandboxed::start(launchers, options))
            .map_err(|error| error.to_string())
    }
}
