//! The benchmarks. Each function measures one and gives its finding.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use execution::{Compiler, EntryPoint, Limits};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{SandboxOptions, Sandboxed};

use crate::canister::Canister;
use crate::echo::{Peer, pin};
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, interleaved, time};
use crate::tracking;

/// A benchmark by name.
pub(crate) struct Benchmark {
    pub(crate) id: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Vec<Finding>, String>,
}

/// All of them, in the order of the table.
pub(crate) const ALL: &[Benchmark] = &[
    Benchmark { id: "empty-update", run: empty_update },
    Benchmark { id: "cold-start", run: cold_start },
    Benchmark { id: "live-workers", run: live_workers },
    Benchmark { id: "compile-cache", run: compile_cache },
    Benchmark { id: "tracking-store", run: tracking::stores },
    Benchmark { id: "tracking-harvest", run: tracking::harvest },
    Benchmark { id: "tracking-pages", run: tracking::pages },
];

/// An update that does nothing but answer.
const EMPTY: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (memory 1)
    (func (export "canister_update empty") (call $reply)))"#;
/// A Motoko actor of about 250 KB with a 64-bit heap.
const MOTOKO: &[u8] = include_bytes!("../../tests/canisters/motoko/Counter-eop.wasm");
/// Bytes of an empty update's request and reply on the wire, rounded up; the bare round trip carries as many.
const REQUEST_BYTES: usize = 512;
const REPLY_BYTES: usize = 256;
/// A bare same-core round trip slower than this was not one: the control failed.
const BARE_NANOSECONDS_MAX: f64 = 20_000.0;
const CORE: usize = 0;

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
        Sandboxed::start(bulkhead_node::image::LAUNCHER, bulkhead_node::image::WORKER, options)
            .map_err(|error| error.to_string())
    }
}

fn empty_update(bench: &Bench) -> Result<Vec<Finding>, String> {
    pin(None, CORE).map_err(|error| error.to_string())?;
    let wasm = wat::parse_str(EMPTY).map_err(|error| error.to_string())?;
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let mut here = Canister::new(&bench.compiler, &wasm, 1)?;
    let mut there = Canister::new(&bench.compiler, &wasm, 2)?;
    let peer = Peer::start(REPLY_BYTES).map_err(|error| error.to_string())?;
    peer.pin(CORE).map_err(|error| error.to_string())?;
    let (request, mut answer) = (vec![0u8; REQUEST_BYTES], vec![0u8; REPLY_BYTES]);
    let arg: Arc<[u8]> = Arc::from([]);
    let samples = interleaved(
        200,
        200,
        &mut [
            &mut || peer.round_trip(&request, &mut answer).map_err(|error| error.to_string()),
            &mut || here.update(&bench.in_process, "empty", &arg).map(drop),
            &mut || there.update(&sandboxed, "empty", &arg).map(drop),
        ],
    )?;
    let [bare, inside, outside] = [samples[0].median(), samples[1].median(), samples[2].median()];
    let steady = samples[0].steady() && bare < BARE_NANOSECONDS_MAX;
    Ok(vec![Finding::new(
        "empty-update",
        &Compared { limit: bare, measured: outside - inside, unit: Unit::Time },
        Target::AtMost(3.0),
        steady,
        format!(
            "empty update, warm, backend only: sandboxed {} minus in-process {}, against a bare same-core \
             seqpacket round trip",
            Unit::Time.show(outside),
            Unit::Time.show(inside)
        ),
    )])
}

fn cold_start(bench: &Bench) -> Result<Vec<Finding>, String> {
    const STARTS: usize = 21;
    let sandboxed = Bench::sandboxed(SandboxOptions { pool: 0, ..SandboxOptions::default() })?;
    let mut durations = Vec::new();
    for index in 0..STARTS {
        let mut canister = Canister::new(&bench.compiler, MOTOKO, index as u64)?;
        let start = Instant::now();
        canister.run(&sandboxed, EntryPoint::Start)?;
        durations.push(start.elapsed().as_nanos() as f64);
    }
    let durations: Samples = durations.into_iter().collect();
    Ok(vec![Finding::new(
        "cold-start",
        &Compared { limit: 10e6, measured: durations.median(), unit: Unit::Time },
        Target::AtMost(1.0),
        true,
        format!(
            "no worker to the first reply of a {} KB module, compiled before, nothing pre-launched; \
             fastest {}, slowest {} of {STARTS}",
            MOTOKO.len() / 1000,
            Unit::Time.show(durations.quantile(0.0)),
            Unit::Time.show(durations.quantile(1.0))
        ),
    )])
}

fn live_workers(bench: &Bench) -> Result<Vec<Finding>, String> {
    const WORKERS: usize = 200;
    let sandboxed =
        Bench::sandboxed(SandboxOptions { pool: 0, workers_max: WORKERS, ..SandboxOptions::default() })?;
    for index in 0..WORKERS {
        let mut canister = Canister::new(&bench.compiler, MOTOKO, index as u64)?;
        canister.run(&sandboxed, EntryPoint::Start)?;
        canister.run(&sandboxed, EntryPoint::Init { arg: Arc::from(*b"DIDL\0\0") })?;
    }
    let pids = sandboxed.pids();
    let bytes: u64 = pids.iter().map(|pid| memory_bytes(*pid)).sum::<Result<u64, String>>()?;
    Ok(vec![Finding::new(
        "live-workers",
        &Compared { limit: 300e6, measured: bytes as f64, unit: Unit::Bytes },
        Target::AtMost(1.0),
        pids.len() == WORKERS,
        format!(
            "{} live workers with a {} KB module each: proportional set size and page tables, {} KB each",
            pids.len(),
            MOTOKO.len() / 1000,
            bytes / 1000 / pids.len().max(1) as u64
        ),
    )])
}

/// What a process costs: its share of resident pages, and its page tables.
fn memory_bytes(pid: i32) -> Result<u64, String> {
    let field = |file: &str, name: &str| -> Result<u64, String> {
        let path = format!("/proc/{pid}/{file}");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map(|kilobytes| kilobytes * 1024)
            .ok_or_else(|| format!("{path} has no {name}"))
    };
    Ok(field("smaps_rollup", "Pss:")? + field("status", "VmPTE:")?)
}

fn compile_cache(_: &Bench) -> Result<Vec<Finding>, String> {
    let fresh = Bench::new()?;
    let compile = || {
        time(|| {
            let _module =
                fresh.compiler.compile(MOTOKO).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            Ok(())
        })
    };
    Ok(vec![Finding::new(
        "compile-cache",
        &Compared { limit: compile()?, measured: compile()?, unit: Unit::Time },
        Target::AtMost(0.05),
        true,
        format!("a {} KB module compiled for the second time, against the first", MOTOKO.len() / 1000),
    )])
}
