//! The `bulkhead` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_node::cli::run(std::env::args_os())
}
