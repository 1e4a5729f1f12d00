//! The `bulkhead` command, built where the integration tests find it: cargo hands a test the path of its own
//! package's programs only.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_node::cli::run(std::env::args_os())
}
