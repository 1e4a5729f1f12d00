//! The untrusted side of the sandbox: one process, one canister, for the canister's whole life here.
//!
//! Take the socket, start the engine, shut the clocks, LOAD lock; take code and memory; RUN lock; answer
//! messages. From the LOAD lock on this process is assumed to be the attacker's: nothing it says is
//! believed, and it has nothing that it could say of others.

#![forbid(unsafe_code)]

mod serve;

use in_process::Engine;
use sandbox_os::lockdown::{self, Exit, Locks};

/// Address space for the C heap, in force for the worker's life: a frame in, a frame out, the page tables
/// of heap and stable memory, and slack. Untouched pages cost nothing.
const HEAP_BYTES: usize = 512 << 20;

fn main() {
    let socket = lockdown::enter();
    if !lockdown::reserve_heap(HEAP_BYTES) {
        lockdown::exit(Exit::Engine);
    }
    let Ok(engine) = Engine::new() else { lockdown::exit(Exit::Engine) };
    let locks = Locks::build();
    lockdown::shut_clocks();
    locks.load();
    lockdown::exit(serve::run(&socket, &engine, &locks))
}
