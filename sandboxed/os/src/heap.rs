//! The allocator of a process whose memory is bounded: refused memory is an end of its own and not an abort, which
//! would go through system calls that the process doesn't have.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::lockdown::{self, Exit};

/// The C heap; ends the process with [`Exit::Memory`] when there is no more.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

fn had(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        lockdown::exit(Exit::Memory);
    }
    memory
}

// SAFETY: each call is the system allocator's, with its caller's promises passed on; a null result never returns.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        had(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        had(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        had(unsafe { System.realloc(memory, layout, bytes) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) };
    }
}
