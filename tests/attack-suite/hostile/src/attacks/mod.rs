//! The attacks that are more than a row of system calls.

mod clocks;
mod entries;
mod memory;
mod others;
mod processes;

use std::arch::asm;

/// A routine: numbers and text from the order, results or an error number (0: nothing found) back.
pub(crate) type Routine = fn([u64; 4], &[u8]) -> Result<Vec<u64>, i32>;

/// All, by name.
pub(crate) const ROUTINES: &[(&str, Routine)] = &[
    ("time-stamp-counter", clocks::time_stamp_counter),
    ("time-stamp-counter-p", clocks::time_stamp_counter_with_core),
    ("vdso-clock", clocks::vdso_clock),
    ("vsyscall-clock", clocks::vsyscall_clock),
    ("cpuid", clocks::cpuid),
    ("32-bit-entry", entries::int80),
    ("filter-of-its-own", entries::filter_of_its_own),
    ("children", processes::children),
    ("thread", processes::thread),
    ("thread-of-libc", processes::thread_of_libc),
    ("kill-everybody", processes::kill_everybody),
    ("spin", processes::spin),
    ("hold", others::hold),
    ("held", others::held),
    ("read-another", others::read_another),
    ("write-another", others::write_another),
    ("look-for", memory::look_for),
    ("written-becomes-code", memory::written_becomes_code),
    ("writable-code", memory::writable_code),
    ("file-becomes-code", memory::file_becomes_code),
    ("code-is-replaced", memory::code_is_replaced),
    ("code-is-moved", memory::code_is_moved),
    ("fill", memory::fill),
    ("fault", memory::fault),
];

/// What attacks need that no call gives under a lock.
pub(crate) fn prepare() {
    // Rust's handler for stack overflows would meet a filter before the fault does its work.
    // SAFETY: the default action, of a signal that nothing here handles.
    unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    memory::prepare();
}

/// Maps a canister's code, as the real worker does: under LOAD, after the node has looked at it for the first time.
pub(crate) fn map_code() {
    memory::map_code();
}

/// A system call as the kernel sees it, without libc.
pub(crate) fn system_call(number: u64, [a, b, c, d, e, f]: [u64; 6]) -> Result<u64, i32> {
    let value: i64;
    // SAFETY: this program's purpose is to make any call with any arguments. Nothing of it that is used afterwards lies
    // where the calls of the suite write: those get buffers of their own, or addresses that aren't mapped.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => value,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    // Error numbers are the last page of numbers (syscall(2)).
    if (-4095..0).contains(&value) { Err(-value as i32) } else { Ok(value as u64) }
}
