//! Starts worker processes for the node. It is carried inside the `bulkhead` binary as a static image,
//! exec'ed from a sealed memory file before the node holds anything, and holds nothing itself but the
//! worker image: what a worker could find in the address space it is cloned from is this program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match sandbox_os::launch::serve(sandbox_os::Layers::ALL) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
