//! Processes and threads.

use std::arch::asm;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

use super::system_call;

/// Makes `count` processes with call number `call`, which live until this one dies. How many came to be.
pub(super) fn children([call, count, ..]: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let mut made = 0;
    while made < count {
        match child(call) {
            Ok(_) => made += 1,
            Err(errno) if made == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(vec![made])
}

fn child(call: u64) -> Result<u64, i32> {
    const VFORK: u64 = libc::SYS_vfork as u64;
    match call as libc::c_long {
        libc::SYS_vfork => {
            let made: i64;
            // SAFETY: the child shares this memory and ends before it writes any; the parent sleeps until then.
            unsafe {
                asm!(
                    "syscall",
                    "test rax, rax",
                    "jnz 2f",
                    "xor edi, edi",
                    "mov eax, 60",
                    "syscall",
                    "2:",
                    inlateout("rax") VFORK => made,
                    out("rdi") _,
                    lateout("rcx") _,
                    lateout("r11") _,
                    options(nostack),
                );
            }
            if made < 0 { Err(-made as i32) } else { Ok(made as u64) }
        }
        libc::SYS_clone3 => {
            let mut arguments = [0_u64; 8];
            arguments[4] = libc::SIGCHLD as u64;
            let at = arguments.as_ptr().expose_provenance() as u64;
            forked(system_call(call, [at, 64, 0, 0, 0, 0]))
        }
        libc::SYS_clone => forked(system_call(call, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0])),
        _ => forked(system_call(call, [0; 6])),
    }
}

/// The child waits for its parent's end.
fn forked(made: Result<u64, i32>) -> Result<u64, i32> {
    if made == Ok(0) {
        let _ = system_call(libc::SYS_prctl as u64, [1, libc::SIGKILL as u64, 0, 0, 0, 0]);
        loop {
            let _ = system_call(libc::SYS_pause as u64, [0; 6]);
        }
    }
    made
}

static TICKS: AtomicU64 = AtomicU64::new(0);
/// What a counting thread has to reach to be a clock.
const ENOUGH: u64 = 100_000;

fn count() -> ! {
    loop {
        TICKS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits for the other thread's count.
fn ticks() -> Vec<u64> {
    loop {
        match TICKS.load(Ordering::Relaxed) {
            enough if enough >= ENOUGH => return vec![enough],
            _ => spin_loop(),
        }
    }
}

/// A thread that counts, made by clone(2): a clock of this process's own.
pub(super) fn thread(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    extern "C" fn body(_: *mut libc::c_void) -> libc::c_int {
        count()
    }
    let stack = vec![0_u64; 8192].leak();
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    // SAFETY: the stack is the thread's alone, for good, and its end is aligned to 16 bytes below the slice's end; the
    // thread touches nothing but an atomic.
    let made = unsafe {
        let top = stack.as_mut_ptr().add(stack.len() & !1).map_addr(|address| address & !15);
        libc::clone(body, top.cast(), flags, std::ptr::null_mut())
    };
    if made == -1 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    Ok(ticks())
}

/// The same by libc, which calls clone3(2).
pub(super) fn thread_of_libc(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    match std::thread::Builder::new().stack_size(65536).spawn(|| count()) {
        Ok(_) => Ok(ticks()),
        Err(error) => Err(error.raw_os_error().unwrap_or(0)),
    }
}

/// kill(-1), by a process whose child in its pid namespace is the only one that it could hit. The signal that ended the
/// child, whose end tells.
pub(super) fn kill_everybody(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let child = child(libc::SYS_clone as u64)?;
    system_call(libc::SYS_kill as u64, [u64::MAX, libc::SIGKILL as u64, 0, 0, 0, 0])?;
    let mut status = 0_i32;
    let at = (&raw mut status).expose_provenance() as u64;
    system_call(libc::SYS_wait4 as u64, [child, at, 0, 0, 0, 0])?;
    Ok(vec![status as u64])
}

/// Runs on for ever and never looks at its socket.
pub(super) fn spin(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    loop {
        spin_loop();
    }
}
