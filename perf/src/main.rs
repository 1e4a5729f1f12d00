//! Benchmarks: each measures the product beside its physical limit or its peer in the same run,
//! interleaved, and judges the ratio of medians. `cargo run --release -p perf -- [--json FILE] [--only ID]`.
//!
//! The process exits 0 whenever every benchmark ran, whatever the verdicts: machines are noisy, and a
//! verdict is for a person to read. What a benchmark needs and this machine lacks is a finding as well.

#![deny(unsafe_code)]

mod benchmarks;
mod canister;
mod contention;
mod fresh;
mod hops;
mod hostile;
mod kernel;
mod mailbox;
mod modules;
mod parallel;
mod peer;
mod placement;
mod process;
mod report;
mod rounds;
mod runner;
mod sample;
mod template;
mod tracking;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures Bulkhead against its limits.
#[derive(Parser)]
#[command(name = "perf", after_help = "Example: cargo run --release -p perf -- --only B1 --json out.json")]
struct Arguments {
    /// Also write the results as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run only the benchmarks with this code, or whose id starts with this.
    #[arg(long, value_name = "ID")]
    only: Option<String>,
}

fn main() -> ExitCode {
    // Peers are this same program, started with one word.
    let role = std::env::args_os().nth(1);
    match role.as_ref().and_then(|role| role.to_str()) {
        Some(peer::ROLE) => return peer::serve(),
        Some(hostile::ROLE) => return hostile::serve(),
        Some(fresh::ROLE) => return fresh::serve(),
        _ => {}
    }
    let arguments = Arguments::parse();
    process::raise_open_files();
    // Rounds, and canisters in this process, need such a stack.
    let run = || report::run(arguments.only.as_deref(), arguments.json.as_deref());
    match bulkhead_node::node::on_executor_stack(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}
