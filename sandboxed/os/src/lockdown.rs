//! The own side of confinement of workers and compilers, after exec.

use std::fmt;
use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::Socket;
use crate::filter::{Filter, SOCKET};

/// How a worker or a compiler ends when it is its own doing. Anything else (SIGSYS above all) is a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Exit {
    /// The node closed the socket.
    Done = 0,
    /// The process isn't as the launcher should have made it.
    NotConfined = 10,
    /// A lock could not be installed.
    NotLocked = 11,
    /// The engine could not be started.
    Engine = 12,
    /// The node's request could not be understood, or a descriptor was missing.
    Request = 13,
    /// The code or the memory could not be loaded.
    Load = 14,
    /// More memory was needed than the process may have.
    Memory = 15,
    /// A bug of ours: the program panicked.
    Panicked = 16,
    /// It did what it was asked to attempt, and lived.
    Attempted = 17,
}

impl Exit {
    /// All.
    pub(crate) const ALL: [Self; 9] = [
        Self::Done,
        Self::NotConfined,
        Self::NotLocked,
        Self::Engine,
        Self::Request,
        Self::Load,
        Self::Memory,
        Self::Panicked,
        Self::Attempted,
    ];

    /// The end that `code` stands for.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| *exit as i32 == code)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "the socket was closed",
            Self::NotConfined => "it was not confined as it should be",
            Self::NotLocked => "a lock could not be installed",
            Self::Engine => "the engine could not be started, or failed",
            Self::Request => "a request could not be understood",
            Self::Load => "the code or the memory could not be loaded",
            Self::Memory => "it needed more memory than it may have",
            Self::Panicked => "it panicked",
            Self::Attempted => "it did what it should not be able to do",
        })
    }
}

/// Descriptor numbers a worker can have: its RLIMIT_NOFILE.
pub(crate) const DESCRIPTORS_MAX: libc::c_int = 16;

/// Ends the process at once: no destructors, no output.
pub fn exit(how: Exit) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(how as libc::c_int) }
}

/// What a worker does first: takes its socket, and refuses to go on unless it is alone in an empty place.
///
/// Ends the process with [`Exit::NotConfined`] when it isn't.
#[must_use]
pub fn enter() -> Socket {
    // Standard descriptors are copies of the socket: Rust's start-up opens /dev/null where one is
    // missing, and there is no /dev here. They go now.
    // SAFETY: nothing else in this process owns descriptors 0 to 2.
    let closed = unsafe { libc::close_range(0, 2, 0) == 0 };
    // SAFETY: no thread runs yet that could change the environment.
    let environment_empty = std::env::vars_os().next().is_none();
    let alone = std::fs::metadata("/proc").is_err() && std::fs::metadata("/..").is_ok();
    let unprivileged = rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective.is_empty() && sets.permitted.is_empty() && sets.inheritable.is_empty()
    });
    // SAFETY: prctl with constant arguments. Exec has reset it to 1.
    let undumpable = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 };
    if !(closed && environment_empty && alone && unprivileged && undumpable) {
        exit(Exit::NotConfined);
    }
    // SAFETY: the launcher put the socket there, and nothing else owns the number.
    Socket::from(unsafe { OwnedFd::from_raw_fd(SOCKET as i32) })
}

/// Makes the C heap large enough for the worker's whole life, untouched pages costing nothing: under RUN
/// neither brk nor mmap is left to get more.
///
/// Returns false if the kernel refuses the address space.
#[must_use]
pub fn reserve_heap(bytes: usize) -> bool {
    // SAFETY: mallopt and malloc/free as documented; one thread. Giving the block back leaves it at the
    // top of the heap, which is never trimmed.
    unsafe {
        let set = libc::mallopt(libc::M_MMAP_MAX, 0) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX) == 1
            && libc::mallopt(libc::M_TOP_PAD, 1 << 20) == 1;
        // Opaque, or the compiler leaves the pair of calls out.
        let block = std::hint::black_box(libc::malloc(bytes));
        libc::free(block);
        set && !block.is_null()
    }
}

/// Shuts off the time-stamp counter (and with it the vDSO clock) and, where the processor can, CPUID.
/// Call after everything that detects processor features.
///
/// Ends the process with [`Exit::NotLocked`] if the counter can't be shut off.
pub fn shut_clocks() {
    const ARCH_SET_CPUID: libc::c_long = 0x1012;
    // SAFETY: prctl and arch_prctl with constant arguments.
    let shut = unsafe {
        // Not every processor can fault on CPUID: the result doesn't matter.
        libc::syscall(libc::SYS_arch_prctl, ARCH_SET_CPUID, 0);
        libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV, 0, 0, 0) == 0
    };
    if !shut {
        exit(Exit::NotLocked);
    }
}

/// Gives every signal back to the kernel: what goes wrong from here on ends the process, with the signal for its
/// status, instead of going through handlers of the runtime's that would have to make system calls.
pub fn reset_signals() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
        // SAFETY: the default action, for signals whose handlers have no state that anything relies on.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Bounds the process's private writable memory, for good: the C heap and anonymous mappings.
///
/// Ends the process with [`Exit::NotLocked`] if the kernel refuses.
pub fn bound_memory(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: a valid rlimit structure.
    if unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) } == -1 {
        exit(Exit::NotLocked);
    }
}

/// The one lock of a compiler, built before it is installed: building allocates.
pub struct CompileLock(Filter);

impl CompileLock {
    /// Builds the filter.
    #[must_use]
    pub fn build() -> Self {
        Self(Filter::compile())
    }

    /// Installs COMPILE. Ends the process if that fails.
    pub fn install(&self) {
        // SAFETY: prctl with constant arguments. Older kernels (before 6.3) refuse it; the filter stands.
        unsafe { libc::prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) };
        if self.0.install().is_err() {
            exit(Exit::NotLocked);
        }
    }
}

/// This program's own code, as the linker says where it is.
fn program_text() -> Range<*const u8> {
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    (&raw const __executable_start)..(&raw const etext)
}

/// Seals the pages of a range with mseal(2): their protection and place are final. Linux before 6.10 has no such call; the
/// filters stand.
fn seal(range: Range<*const u8>) {
    const PAGE: usize = 4096;
    let start = range.start.addr() & !(PAGE - 1);
    let length = range.end.addr().next_multiple_of(PAGE).saturating_sub(start);
    // SAFETY: no page of the range is unmapped or remapped by this process: they hold code, for as long as it lives.
    unsafe { libc::syscall(libc::SYS_mseal, start, length, 0) };
}

/// The two locks, built before the first: building allocates.
pub struct Locks {
    load: Filter,
    run: Filter,
}

impl Locks {
    /// Builds both filters.
    #[must_use]
    pub fn build() -> Self {
        Self { load: Filter::load(), run: Filter::run() }
    }

    /// Installs LOAD. Ends the process if that fails.
    pub fn load(&self) {
        if self.load.install().is_err() {
            exit(Exit::NotLocked);
        }
    }

    /// Installs RUN: the socket is the only descriptor, nothing becomes executable any more, no mapping
    /// changes, five calls are left. The program's own code and `code` stay where and as they are for good. Ends the
    /// process if RUN can't be installed.
    pub fn run(&self, code: &[u8]) {
        seal(program_text());
        seal(code.as_ptr_range());
        // The engine keeps the code file open beside its mapping, which is all that it uses.
        for number in (0..DESCRIPTORS_MAX).filter(|&number| number != SOCKET as libc::c_int) {
            // SAFETY: whoever owned the number never uses or closes it again: RUN has no call on a
            // descriptor but the socket's, and the process ends without destructors.
            unsafe { libc::close(number) };
        }
        // SAFETY: prctl with constant arguments. Older kernels (before 6.3) refuse it; the filter stands.
        unsafe {
            libc::prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
        }
        if self.run.install().is_err() {
            exit(Exit::NotLocked);
        }
    }
}
