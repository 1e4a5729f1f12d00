//! The benchmarks. Each function measures one thing and gives its findings.

mod api;
mod batches;
mod bulk;
mod contention;
mod installed;
mod large;
mod launch;
mod ledgers;
mod measured;
mod messages;
mod metering;
mod modes;
mod noise;
mod overload;
mod pace;
mod peers;
mod policy;
mod pull;
mod queries;
mod scaling;
mod starts;
mod workers;

use std::sync::Arc;

use execution::{Backend, Compiler, Limits};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{SandboxOptions, Sandboxed};

use crate::report::Finding;
use crate::rounds::Rounds;
use crate::tracking;

/// A benchmark by name.
#[derive(Debug)]
pub(crate) struct Benchmark {
    /// Stable name; its findings' begin with it.
    pub(crate) id: &'static str,
    /// What the project calls the question that it answers (`B1`, `P7`); several may answer one.
    pub(crate) code: Option<&'static str>,
    pub(crate) run: fn(&Bench) -> Result<Vec<Finding>, String>,
}

impl Benchmark {
    const fn new(
        id: &'static str,
        code: Option<&'static str>,
        run: fn(&Bench) -> Result<Vec<Finding>, String>,
    ) -> Self {
        Self { id, code, run }
    }

    /// Whether `wanted` selects it: its code, or how its id begins.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        self.code == Some(wanted) || self.id.starts_with(wanted)
    }

    /// Id and code as text.
    pub(crate) fn name(&self) -> String {
        match self.code {
            Some(code) => format!("{} ({code})", self.id),
            None => self.id.into(),
        }
    }
}

/// All of them, in the order of the table.
pub(crate) const ALL: &[Benchmark] = &[
    // First: it watches this process grow, and memory that others gave back would hide that.
    Benchmark::new("footprint", None, workers::footprint),
    Benchmark::new("empty-update", Some("B1"), messages::empty_update),
    Benchmark::new("batches", Some("P1b"), batches::batches),
    Benchmark::new("usual-design", Some("B2"), messages::usual_design),
    Benchmark::new("mapping", Some("B3"), contention::mapping),
    Benchmark::new("write-tracking", Some("B4"), contention::write_tracking),
    Benchmark::new("compute", Some("B5"), modes::compute),
    Benchmark::new("modes", Some("P2"), modes::modes),
    Benchmark::new("metering", Some("B11"), metering::metering),
    Benchmark::new("api-calls", Some("B12"), api::api_calls),
    Benchmark::new("heap-size", None, messages::heap_size),
    Benchmark::new("scaling", Some("B6"), scaling::scaling),
    Benchmark::new("pull", Some("B10"), pull::pull),
    Benchmark::new("bulk", Some("P7"), bulk::bulk),
    Benchmark::new("installed", Some("P9"), installed::installed),
    Benchmark::new("ledger", None, ledgers::ledgers),
    Benchmark::new("queries", None, queries::queries),
    Benchmark::new("lockdown", None, launch::lockdown),
    Benchmark::new("hand-over", None, launch::hand_over),
    Benchmark::new("cold-start", None, starts::cold_start),
    Benchmark::new("start-6mb", Some("B7"), large::against_bare),
    Benchmark::new("first-reply-6mb", Some("P4"), large::first_reply),
    Benchmark::new("peers-process", None, peers::per_call),
    Benchmark::new("attach", None, starts::attach),
    Benchmark::new("compile-cache", None, starts::compile_cache),
    Benchmark::new("live-workers", None, workers::live),
    Benchmark::new("idle-workers", Some("B8"), workers::idle),
    Benchmark::new("resolve", None, policy::resolve),
    Benchmark::new("measured", None, measured::measured),
    Benchmark::new("noise", None, noise::noise),
    Benchmark::new("overload", None, overload::overload),
    Benchmark::new("pace", None, pace::pace),
    Benchmark::new("tracking-store", Some("B9"), tracking::stores),
    Benchmark::new("tracking-harvest", Some("B9"), tracking::harvest),
    Benchmark::new("tracking-pages", Some("B9"), tracking::pages),
];

/// A Motoko actor of about 250 KB with a 64-bit heap.
const MOTOKO: &[u8] = include_bytes!("../../../tests/canisters/motoko/Counter-eop.wasm");
/// Where messages run that are measured one at a time.
const CORE: usize = 0;
/// Another one.
const OTHER: usize = 1;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What the benchmarks share.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    compiler: Arc<ModuleCompiler>,
    in_process: InProcess,
}

impl Bench {
    /// Starts the engine, and the launchers before it, as a node does: where the calling thread may run, they may.
    pub(crate) fn new() -> Result<Self, String> {
        // Who needs them tells why there are none.
        let _told_later = bulkhead_node::image::launchers();
        let engine = Engine::new().map_err(|error| error.to_string())?;
        let compiler = Arc::new(ModuleCompiler::new(engine.clone(), Arc::new(Limits::application())));
        let in_process = InProcess::new(engine.clone(), &InProcessOptions::default());
        Ok(Self { engine, compiler, in_process })
    }

    fn sandboxed(options: SandboxOptions) -> Result<Sandboxed, String> {
        bulkhead_node::image::launchers()
            .and_then(|launchers| Sandboxed::start(launchers, options))
            .map_err(|error| error.to_string())
    }
}

/// The two ways to run a canister.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    InProcess,
    Sandboxed,
}

impl Mode {
    /// Both.
    const ALL: [Self; 2] = [Self::InProcess, Self::Sandboxed];

    fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Sandboxed => "sandboxed",
        }
    }

    /// A backend that knows no canister.
    fn start(self, bench: &Bench, options: SandboxOptions) -> Result<Arc<dyn Backend>, String> {
        Ok(match self {
            Self::InProcess => Arc::new(InProcess::new(bench.engine.clone(), &InProcessOptions::default())),
            Self::Sandboxed => Arc::new(Bench::sandboxed(options)?),
        })
    }

    /// A subnet without canisters on a backend of its own.
    fn rounds(self, bench: &Bench) -> Result<Rounds, String> {
        self.rounds_with(bench, Limits::application())
    }

    /// The same with other limits.
    fn rounds_with(self, bench: &Bench, limits: Limits) -> Result<Rounds, String> {
        let backend = self.start(bench, SandboxOptions::default())?;
        let compiler = Arc::clone(&bench.compiler) as Arc<dyn Compiler>;
        Ok(Rounds::new(limits, backend, compiler))
    }
}
