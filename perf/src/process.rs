//! What the kernel says of processes (proc(5)).

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process have as many descriptors as it may, as a node does: a canister has some, a worker has some.
pub(crate) fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where the kernel refuses, the limit stays.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// This process's number.
pub(crate) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// The sum over processes.
pub(crate) fn total(pids: &[i32], of: impl Fn(i32) -> Result<f64, String>) -> Result<f64, String> {
    pids.iter().map(|pid| of(*pid)).sum()
}

/// Bytes in fields of smaps_rollup.
pub(crate) fn smaps(pid: i32, names: &[&str]) -> Result<f64, String> {
    names.iter().map(|name| bytes(pid, "smaps_rollup", name)).sum()
}

/// Bytes of page tables.
pub(crate) fn page_tables(pid: i32) -> Result<f64, String> {
    bytes(pid, "status", "VmPTE:")
}

/// How often the process has left its core, by itself or not.
pub(crate) fn switches(pid: i32) -> Result<f64, String> {
    let count = |name| number(pid, "status", name, "");
    Ok(count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:")?)
}

fn bytes(pid: i32, file: &str, name: &str) -> Result<f64, String> {
    number(pid, file, name, "kB").map(|kilobytes| kilobytes * 1024.0)
}

fn number(pid: i32, file: &str, name: &str, unit: &str) -> Result<f64, String> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_suffix(unit)?.trim().parse().ok())
        .ok_or_else(|| format!("{path} has no {name}"))
}
