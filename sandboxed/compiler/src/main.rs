//! Where hostile modules are taken apart: one process, one module, then its end.
//!
//! Take the socket, start the engine, shut the clocks, bound the memory, COMPILE lock; take a module; answer. From
//! the module's first byte on this process is assumed to be its author's: nothing it says is believed, and it holds
//! nothing but that module.

#![forbid(unsafe_code)]

mod serve;

use std::any::Any;

use cranelift_codegen::timing::{self, Pass, Profiler};
use in_process::Engine;
use sandbox_os::heap::Heap;
use sandbox_os::lockdown::{self, CompileLock, Exit};

/// Ends the process with a code of its own when memory is refused.
#[global_allocator]
static HEAP: Heap = Heap;

/// Measures nothing: the code generator's own profiler reads the clock at each pass, and there is none.
struct Unmeasured;

impl Profiler for Unmeasured {
    fn start_pass(&self, _pass: Pass) -> Box<dyn Any> {
        Box::new(())
    }
}

fn main() {
    let socket = lockdown::enter();
    // There is nobody to tell, and the lock has no call to tell it with.
    std::panic::set_hook(Box::new(|_| lockdown::exit(Exit::Panicked)));
    let Ok(engine) = Engine::new() else { lockdown::exit(Exit::Engine) };
    timing::set_thread_profiler(Box::new(Unmeasured));
    let lock = CompileLock::build();
    lockdown::reset_signals();
    lockdown::shut_clocks();
    lockdown::bound_memory(sandbox_protocol::COMPILER_MEMORY_BYTES_MAX);
    lock.install();
    lockdown::exit(serve::run(&socket, &engine))
}
