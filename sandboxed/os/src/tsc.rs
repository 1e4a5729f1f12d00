//! The time-stamp counter of a thread of the node's, which it does without while it takes turns with workers.
//!
//! A worker has no counter ([`crate::lockdown::shut_clocks`]). The kernel keeps that for each thread in a bit of CR4, and
//! writes the register at each switch between a thread that has the counter and one that hasn't (`__switch_to_xtra`).
//! On AMD, a guest's write of CR4 is an exit to its hypervisor: 4.3 us each, with address translations lost besides, 15
//! of the 31 us of an empty message (docs/decisions/0015). Between two threads that both do without it nothing is
//! written.
//!
//! What such a thread loses is its clock, which the vDSO reads from the counter. So this program has a
//! `clock_gettime` of its own, which all of Rust's clocks call: there, it asks the kernel (0.25 us instead of 0.03).
//! Whatever else reads the counter gets it back, by a handler of the fault.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::hint;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

/// Readings of the clock between two turns with workers from which on the counter is had again: what they take longer
/// through the kernel is then as much as to shut the counter off and have it again (9 us).
const READINGS_MAX: u32 = 32;

/// What a turn with a worker reads of the clock, about: the selector's and the phases' spans.
const READINGS_A_TURN: u32 = 8;

#[derive(Clone, Copy, Debug)]
struct Thread {
    /// It may do without it.
    willing: bool,
    shut: bool,
    /// Readings of the clock since the last turn.
    readings: u32,
}

thread_local! {
    /// A thread begins as the one that started it is.
    static THREAD: Cell<Thread> = Cell::new(Thread { willing: false, shut: is_shut(), readings: 0 });
}

/// From here on the calling thread may do without the counter. A program that it starts meanwhile, or that a thread does
/// which it started, would begin without it and end before its `main`: let a thread do that which has the counter, or call
/// [`open`] before.
pub fn may_be_shut() {
    THREAD.set(Thread { willing: true, ..THREAD.get() });
}

/// The calling thread has the counter again, and keeps it.
pub fn may_not_be_shut() {
    open();
    THREAD.set(Thread { willing: false, ..THREAD.get() });
}

/// Does `work`, while the calling thread may do without the counter.
pub fn may_be_shut_during<T>(work: impl FnOnce() -> T) -> T {
    if THREAD.get().willing {
        return work();
    }
    may_be_shut();
    let result = work();
    may_not_be_shut();
    result
}

/// Call before each turn with a worker: shuts the counter off for the calling thread, if it may be and
/// if that pays on this machine.
///
/// It pays where both run on one core. Where a worker can't be put there (`sched_setaffinity` isn't permitted) each turn
/// has two writes as before, of which one is made while the message waits.
pub fn shut_if_it_pays() {
    let thread = THREAD.get();
    if thread.shut {
        turn_goes_on();
    } else if thread.willing && pays() {
        shut();
    }
}

/// Call where something else is done for the last turn with a worker, so that reading the clock for that isn't taken for the
/// end of such turns.
pub fn turn_goes_on() {
    THREAD.set(Thread { readings: 0, ..THREAD.get() });
}

/// Shuts the counter off for the calling thread.
pub fn shut() {
    handle_faults();
    let shut = set(libc::PR_TSC_SIGSEGV);
    THREAD.set(Thread { shut, readings: 0, ..THREAD.get() });
}

/// The calling thread has the counter again, if it did without it. Cheap where it has it.
pub fn open() {
    let thread = THREAD.get();
    if thread.shut {
        let shut = !set(libc::PR_TSC_ENABLE);
        THREAD.set(Thread { shut, ..thread });
    }
}

/// Whether the calling thread does without the counter.
#[must_use]
pub fn is_shut() -> bool {
    let mut setting: c_int = 0;
    // SAFETY: PR_GET_TSC writes one int to where the argument points.
    unsafe {
        libc::prctl(libc::PR_GET_TSC, &raw mut setting, 0, 0, 0) == 0 && setting == libc::PR_TSC_SIGSEGV
    }
}

/// PR_SET_TSC of the calling thread; false where there is no such thing.
fn set(setting: c_int) -> bool {
    // SAFETY: prctl with plain arguments. Whatever then reads the counter raises a signal, which `on_fault` handles: who
    // shuts it off has seen to that.
    unsafe { libc::prctl(libc::PR_SET_TSC, setting, 0, 0, 0) == 0 }
}

/// Whether two writes of CR4 take longer than a turn's readings of the clock through the kernel: so in a guest of an AMD
/// machine (4.3 us against 0.25), not where no hypervisor hears of the write.
fn pays() -> bool {
    static PAYS: OnceLock<bool> = OnceLock::new();
    *PAYS.get_or_init(|| {
        handle_faults();
        const TRIALS: usize = 16;
        let fastest = |action: fn()| {
            let trial = || {
                let start = kernels_time();
                action();
                kernels_time().saturating_sub(start)
            };
            // The readings around an action are the kernel's too.
            std::iter::repeat_with(trial).take(TRIALS).min().unwrap_or_default()
        };
        let reading = fastest(|| ());
        // This thread reads nothing in between.
        let both_writes = fastest(|| {
            set(libc::PR_TSC_SIGSEGV);
            set(libc::PR_TSC_ENABLE);
        });
        // Besides writing it, both calls are as any other.
        both_writes.saturating_sub(2 * reading) > READINGS_A_TURN * reading
    })
}

/// The time by the kernel, whatever this thread may do itself.
fn kernels_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec to write to.
    unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

/// What this program calls by that name, instead of the C library's, which it calls in turn where the thread has the
/// counter. As that one it may be called in a signal handler, once a thread that has the counter has called it.
///
/// # Safety
/// As clock_gettime(2): `time` may be written to.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    /// The C library's; null before it has been looked for, and where there is none.
    static OTHER: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    let mut thread = THREAD.get();
    if thread.shut {
        thread.readings += 1;
        THREAD.set(thread);
        if thread.readings > READINGS_MAX {
            open();
        }
    } else {
        let mut other = OTHER.load(Ordering::Relaxed);
        if other.is_null() {
            // SAFETY: a name that ends in 0.
            other = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) };
            OTHER.store(other, Ordering::Relaxed);
        }
        if !other.is_null() {
            // SAFETY: the C library's function of this name, which has this type, and is never unloaded.
            let other = unsafe { mem::transmute::<*mut c_void, ClockGettime>(other) };
            // SAFETY: the caller's promise.
            return unsafe { other(clock, time) };
        }
    }
    // SAFETY: the caller's promise. It sets errno as the C library's function does.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

/// What handled SIGSEGV before; null until [`on_fault`] is in its place.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// Puts [`on_fault`] before what handles SIGSEGV now, once. The engine's handler, whichever of the two comes first, passes
/// on to the other what isn't its own.
fn handle_faults() {
    static HANDLED: Once = Once::new();
    HANDLED.call_once(install_handler);
}

fn install_handler() {
    // SAFETY: all zeros are an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    // As the engine's: on the alternate stack, and a fault within a handler behind it is heard.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: as above.
    let before = Box::leak(Box::new(unsafe { mem::zeroed() }));
    // SAFETY: valid structures; `on_fault` is what SA_SIGINFO asks for and only does what a signal handler may.
    let installed = unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, before) == 0 };
    assert!(installed, "sigaction fails for unknown signals alone");
    BEFORE.store(before, Ordering::Release);
}

/// Gives a thread the counter that read it without having it. All else goes to whoever handled it before.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives both, with SA_SIGINFO.
    let (code, at) = unsafe {
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        ((*info).si_code, registers[libc::REG_RIP as usize].cast_unsigned())
    };
    // Reading it is a general protection fault, which is told so (`exc_general_protection`). The kernel is asked whether
    // the thread is without it: this may be a thread that doesn't know yet.
    // SAFETY: see `reads_counter`.
    if code == libc::SI_KERNEL && unsafe { reads_counter(at) } && is_shut() && set(libc::PR_TSC_ENABLE) {
        THREAD.set(Thread { shut: false, ..THREAD.get() });
        return;
    }
    let before = loop {
        // Null while another thread is in `install_handler`.
        // SAFETY: null, or leaked for good.
        match unsafe { BEFORE.load(Ordering::Acquire).as_ref() } {
            Some(before) => break before,
            None => hint::spin_loop(),
        }
    };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The instruction faults again, and ends the process as if nobody had handled it.
            // SAFETY: the default action.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: what was installed with this flag has this type.
            let handler = unsafe {
                mem::transmute::<usize, extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)>(handler)
            };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: and without it this one.
            let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}

/// Whether the instruction at `at` is RDTSC or RDTSCP.
///
/// # Safety
/// A general protection fault was told to be there. It is an instruction's that the processor has fetched, or of a jump to
/// where there are no addresses, which isn't followed. The kernel says the same where a signal's frame is broken, and then
/// it may be anywhere: what can't be read there faults in turn, as another kind of fault, and goes to who handled it
/// before.
unsafe fn reads_counter(at: u64) -> bool {
    /// Below it are all addresses of programs, and the guard page under them.
    const END: u64 = 1 << 47;
    let byte = |offset: u64| {
        let address = at.checked_add(offset).filter(|address| (1..END).contains(address))?;
        // SAFETY: the instruction goes on here: what it begins with says so.
        Some(unsafe { ptr::with_exposed_provenance::<u8>(address as usize).read() })
    };
    byte(0) == Some(0x0f)
        && match byte(1) {
            Some(0x31) => true,
            Some(0x01) => byte(2) == Some(0xf9),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::{__rdtscp, _rdtsc};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;
    use std::thread;
    use std::time::{Instant, SystemTime};

    use super::*;

    /// All clocks of Rust's.
    fn read_clocks() -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }

    #[test]
    fn without_the_counter_clocks_go_on_as_with_it() {
        let (instant, time) = read_clocks();
        shut();
        let (later_instant, later_time) = read_clocks();
        assert!(is_shut(), "no clock of Rust's reads the counter");
        open();
        let (last_instant, last_time) = read_clocks();
        assert!(!is_shut());
        assert!(instant <= later_instant && later_instant <= last_instant);
        assert!(time <= later_time && later_time <= last_time);
    }

    #[test]
    fn an_unknown_clock_is_refused_with_and_without_the_counter() {
        let unknown = || {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a valid timespec.
            let result = unsafe { libc::clock_gettime(1234, &raw mut time) };
            (result, std::io::Error::last_os_error().raw_os_error())
        };
        assert_eq!(unknown(), (-1, Some(libc::EINVAL)));
        shut();
        assert_eq!(unknown(), (-1, Some(libc::EINVAL)));
    }

    #[test]
    fn what_reads_the_counter_itself_gets_it_back() {
        // SAFETY: every processor that PR_SET_TSC is for has both.
        let readings: [fn() -> u64; 2] = [|| unsafe { _rdtsc() }, || unsafe { __rdtscp(&mut 0) }];
        for read in readings {
            let before = read();
            shut();
            assert!(is_shut());
            assert!(read() > before);
            assert!(!is_shut());
        }
    }

    #[test]
    fn who_reads_clocks_and_calls_no_worker_gets_the_counter_back() {
        may_be_shut();
        shut();
        for _ in 0..READINGS_MAX {
            let _ = Instant::now();
        }
        assert!(is_shut());
        let _ = Instant::now();
        assert!(!is_shut());
        shut();
        for between in [shut_if_it_pays, turn_goes_on] {
            for _ in 0..2 * READINGS_MAX {
                between();
                let _ = Instant::now();
            }
            assert!(is_shut(), "turns with a worker in between");
        }
    }

    #[test]
    fn nobody_does_without_the_counter_who_did_not_say_that_they_may() {
        shut_if_it_pays();
        assert!(!is_shut());
        may_be_shut_during(|| {
            shut_if_it_pays();
            assert_eq!(is_shut(), pays());
        });
        assert!(!is_shut());
        shut_if_it_pays();
        assert!(!is_shut());
    }

    #[test]
    fn a_thread_begins_as_the_one_that_started_it_and_knows() {
        shut();
        let started = thread::spawn(|| {
            let began = is_shut();
            read_clocks();
            let still = is_shut();
            open();
            read_clocks();
            (began, still, is_shut())
        });
        assert_eq!(started.join().unwrap(), (true, true, false));
        assert!(is_shut());
    }

    /// Says which fault the test below is to make, in a process of its own.
    const FAULT: &str = "BULKHEAD_TEST_FAULT";

    #[test]
    fn other_faults_end_the_process_as_before() {
        if let Some(fault) = std::env::var_os(FAULT) {
            shut();
            let address: u64 = match fault.to_str() {
                Some("unmapped") => 8,
                // No address at all: a general protection fault, as reading the counter is.
                Some("none") => 1 << 63,
                other => panic!("an unknown fault: {other:?}"),
            };
            // SAFETY: none; it is to end the process.
            unsafe { std::arch::asm!("mov rax, [rcx]", out("rax") _, in("rcx") address) };
            unreachable!("{fault:?}");
        }
        for fault in ["unmapped", "none"] {
            let name = thread::current().name().expect("a test's").to_owned();
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &name])
                .env(FAULT, fault)
                // Else that has a handler of its own, which ends the process otherwise.
                .env("ASAN_OPTIONS", "handle_segv=0")
                .output()
                .unwrap();
            assert_eq!(ended.status.signal(), Some(libc::SIGSEGV), "{fault}: {ended:?}");
        }
    }
}
