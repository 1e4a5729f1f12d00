//! The `bulkhead` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_node::cli::run(std::env::args_os())
}
