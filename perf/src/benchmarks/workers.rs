//! What live workers cost in memory.

use std::fs;

use execution::{Backend, EntryPoint};
use sandbox_host::{SandboxOptions, Sandboxed};

use super::{Bench, MOTOKO};
use crate::canister::Canister;
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

fn as_many(workers_max: usize) -> SandboxOptions {
    SandboxOptions { pool: 0, workers_max, ..SandboxOptions::default() }
}

fn installed(bench: &Bench, sandboxed: &Sandboxed, count: usize) -> Result<Vec<Canister>, String> {
    (0..count as u64)
        .map(|index| {
            let mut canister = Canister::new(&bench.compiler, MOTOKO, index)?;
            initialise(&mut canister, sandboxed)?;
            Ok(canister)
        })
        .collect()
}

fn initialise(canister: &mut Canister, backend: &dyn Backend) -> Result<(), String> {
    canister.run(backend, EntryPoint::Start)?;
    canister.run(backend, EntryPoint::Init { arg: (*b"DIDL\0\0").into() }).map(drop)
}

fn total(pids: &[i32], of: impl Fn(i32) -> Result<f64, String>) -> Result<f64, String> {
    pids.iter().map(|pid| of(*pid)).sum()
}

/// Bytes in fields of smaps_rollup.
fn smaps(pid: i32, names: &[&str]) -> Result<f64, String> {
    names.iter().map(|name| field(pid, "smaps_rollup", name)).sum()
}

/// Bytes of page tables.
fn page_tables(pid: i32) -> Result<f64, String> {
    field(pid, "status", "VmPTE:")
}

fn field(pid: i32, file: &str, name: &str) -> Result<f64, String> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse::<f64>().ok())
        .map(|kilobytes| kilobytes * 1024.0)
        .ok_or_else(|| format!("{path} has no {name}"))
}
