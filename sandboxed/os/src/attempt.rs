//! Things that a confined process can't do, done by it: the self-test of what can't be seen from outside. How the
//! process ends is the answer, and whoever started it sees that.

use std::arch::x86_64::{__cpuid, _rdtsc};

use crate::lockdown::Locks;

/// A thing that a worker must not be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Reads the time-stamp counter: SIGSEGV.
    TimeStampCounter,
    /// Reads the clock, which takes no system call where the kernel maps code for it: SIGSEGV, else SIGSYS.
    Clock,
    /// Asks the processor who it is: SIGSEGV where it can fault.
    Cpuid,
    /// Makes a system call that LOAD doesn't list: SIGSYS.
    OutsideLoad,
    /// Maps memory that is writable and executable: SIGSYS.
    WriteAndExecute,
    /// Makes memory that was written executable, after the kernel was asked to refuse that: refused where it can.
    WriteThenExecute,
    /// Enters RUN, then makes a call that LOAD lists and RUN doesn't: SIGSYS.
    OutsideRun,
    /// Enters RUN, then makes memory executable by a call that RUN lists: SIGSYS.
    ExecuteInRun,
}

/// What became of an attempt that this process outlived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlived {
    /// It was done.
    Done,
    /// The kernel refused it.
    Refused,
}

/// Does it. Only for a process that is in LOAD and of no further use.
#[must_use]
pub fn attempt(attempt: Attempt, locks: &Locks) -> Outlived {
    const PAGE: usize = 4096;
    const PRIVATE: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
    const READ_EXECUTE: libc::c_int = libc::PROT_READ | libc::PROT_EXEC;
    let map = |protection| {
        // SAFETY: a fresh mapping that nobody uses.
        unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, PRIVATE, -1, 0) }
    };
    let result = match attempt {
        Attempt::TimeStampCounter => {
            // SAFETY: every x86-64 processor has it; where it is shut off the process ends, as it should.
            std::hint::black_box(unsafe { _rdtsc() });
            0
        }
        Attempt::Clock => {
            std::hint::black_box(std::time::Instant::now());
            0
        }
        Attempt::Cpuid => {
            std::hint::black_box(__cpuid(0));
            0
        }
        // SAFETY: a call without arguments.
        Attempt::OutsideLoad => unsafe { libc::getppid() },
        Attempt::WriteAndExecute => failed(map(READ_WRITE | libc::PROT_EXEC)),
        Attempt::WriteThenExecute => {
            let page = map(READ_WRITE);
            // SAFETY: prctl with constant arguments, and the page that was just mapped.
            unsafe {
                libc::prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
                libc::mprotect(page, PAGE, READ_EXECUTE)
            }
        }
        Attempt::OutsideRun => {
            locks.run(&[]);
            // SAFETY: an empty range at an address of no use: nothing is unmapped where the call is let through.
            unsafe { libc::munmap(std::ptr::without_provenance_mut(PAGE), 0) }
        }
        Attempt::ExecuteInRun => {
            let page = map(READ_WRITE);
            locks.run(&[]);
            // SAFETY: the page that was just mapped.
            unsafe { libc::mprotect(page, PAGE, READ_EXECUTE) }
        }
    };
    if result < 0 { Outlived::Refused } else { Outlived::Done }
}

fn failed(address: *mut libc::c_void) -> libc::c_int {
    if address == libc::MAP_FAILED { -1 } else { 0 }
}
