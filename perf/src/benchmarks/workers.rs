//! What live workers cost in memory.

use std::time::Duration;

use execution::{Backend, EntryPoint};
use sandbox_host::{SandboxOptions, Sandboxed};

use super::{Bench, MOTOKO};
use crate::canister::Canister;
use crate::modules::{self, Heap, WASM_PAGE_BYTES};
use crate::process::{own_pid, page_tables, smaps, total};
use crate::report::{Compared, Finding, Target, Unit};

/// 200 canisters with a worker each: their share of memory, and page tables.
pub(super) fn live(bench: &Bench) -> Result<Vec<Finding>, String> {
    const WORKERS: usize = 200;
    let sandboxed = Bench::sandboxed(as_many(WORKERS))?;
    let _canisters = installed(bench, &sandboxed, WORKERS)?;
    let pids = sandboxed.pids();
    let bytes = total(&pids, |pid| Ok(smaps(pid, &["Pss:"])? + page_tables(pid)?))?;
    Ok(vec![Finding::new(
        "live-workers",
        &Compared { limit: 300e6, measured: bytes, unit: Unit::Bytes },
        Target::AtMost(1.0),
        pids.len() == WORKERS,
        format!(
            "{} live workers with a {} KB module each: proportional set size and page tables, {:.0} KB each",
            pids.len(),
            MOTOKO.len() / 1000,
            bytes / 1e3 / pids.len().max(1) as f64
        ),
    )])
}

/// Idle workers with a small module: what each has for itself, where all share the pages of their program, and where
/// each has a copy (B8 of performance.md section 9).
pub(super) fn idle(bench: &Bench) -> Result<Vec<Finding>, String> {
    /// 0.4 MiB.
    const LIMIT_BYTES: f64 = 0.4 * 1_048_576.0;
    let copies = |workers| SandboxOptions { private_images: true, ..as_many(workers) };
    Ok(vec![
        idle_workers(bench, "idle-workers", (1_000, as_many(1_000)), LIMIT_BYTES, Target::AtMost(1.0))?,
        idle_workers(bench, "idle-workers-copies", (100, copies(100)), LIMIT_BYTES, Target::None)?,
    ])
}

fn idle_workers(
    bench: &Bench,
    id: &str,
    (workers, options): (usize, SandboxOptions),
    limit: f64,
    target: Target,
) -> Result<Finding, String> {
    let image = if options.private_images { "a copy of their program each" } else { "a shared program" };
    let sandboxed = Bench::sandboxed(options)?;
    let text = modules::memory(Heap::Bits32, WASM_PAGE_BYTES, 1);
    let mut canisters = Vec::new();
    let mut failed = String::new();
    for index in 0..workers as u64 {
        let mut canister = Canister::from_text(&*bench.compiler, &text, index)?;
        if let Err(error) = canister.update(&sandboxed, "pages") {
            // The machine has no room for more: judge by those that live.
            failed = format!("; no more: {error}");
            break;
        }
        canisters.push(canister);
    }
    let pids = sandboxed.pids();
    if pids.is_empty() {
        return Ok(Finding::absent(id, format!("no worker can have {image}{failed}")));
    }
    let count = pids.len() as f64;
    let private = total(&pids, |pid| smaps(pid, &["Private_Clean:", "Private_Dirty:"]))? / count;
    let tables = total(&pids, page_tables)? / count;
    let shared = total(&pids, |pid| smaps(pid, &["Pss:"]))? / count;
    Ok(Finding::new(
        id,
        &Compared { limit, measured: private + tables, unit: Unit::Bytes },
        target,
        pids.len() >= workers / 2,
        format!(
            "{} idle workers with a small module and {image}: private memory and page tables of one ({:.0} KB of \
             tables; proportional set size {:.0} KB){failed}",
            pids.len(),
            tables / 1e3,
            shared / 1e3
        ),
    ))
}

/// What a canister costs the node and its worker, by its state.
pub(super) fn footprint(bench: &Bench) -> Result<Vec<Finding>, String> {
    const CANISTERS: usize = 50;
    const REST: Duration = Duration::from_secs(2);
    let sandboxed = Bench::sandboxed(as_many(CANISTERS))?;
    let node = || smaps(own_pid(), &["Pss:"]).and_then(|bytes| Ok(bytes + page_tables(own_pid())?));
    let each = |bytes: f64| bytes / CANISTERS as f64;
    // Compiled code and the allocator's first pages are not one canister's.
    initialise(&mut Canister::new(&*bench.compiler, MOTOKO, CANISTERS as u64)?, &bench.in_process)?;
    let before = node()?;
    let mut canisters = (0..CANISTERS as u64)
        .map(|index| Canister::new(&*bench.compiler, MOTOKO, index))
        .collect::<Result<Vec<_>, _>>()?;
    let installed = [each(node()? - before), 0.0];
    for canister in &mut canisters {
        initialise(canister, &sandboxed)?;
    }
    let workers = || total(&sandboxed.pids(), |pid| Ok(smaps(pid, &["Pss:"])? + page_tables(pid)?));
    let active = [each(node()? - before), each(workers()?)];
    std::thread::sleep(REST);
    let idle = [each(node()? - before), each(workers()?)];
    let all = [("installed", installed, "no worker"), ("active", active, "just ran"), ("idle", idle, "idle")];
    let findings = all.map(|(name, [node, worker], state)| {
        Finding::new(
            format!("footprint-{name}"),
            &Compared { limit: MOTOKO.len() as f64, measured: node + worker, unit: Unit::Bytes },
            Target::None,
            true,
            format!(
                "memory of one canister, {state}: node {}, worker {} (proportional set size and page tables), \
                 against the size of its module",
                Unit::Bytes.show(node),
                Unit::Bytes.show(worker)
            ),
        )
    });
    Ok(findings.into())
}

fn as_many(workers_max: usize) -> SandboxOptions {
    SandboxOptions { pool: 0, workers_max, ..SandboxOptions::default() }
}

fn installed(bench: &Bench, sandboxed: &Sandboxed, count: usize) -> Result<Vec<Canister>, String> {
    (0..count as u64)
        .map(|index| {
            let mut canister = Canister::new(&*bench.compiler, MOTOKO, index)?;
            initialise(&mut canister, sandboxed)?;
            Ok(canister)
        })
        .collect()
}

fn initialise(canister: &mut Canister, backend: &dyn Backend) -> Result<(), String> {
    canister.run(backend, EntryPoint::Start)?;
    canister.run(backend, EntryPoint::Init { arg: (*b"DIDL\0\0").into() }).map(drop)
}
