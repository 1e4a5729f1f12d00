//! Reads the filters that a process has, through ptrace(2), in the launcher.

use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use seccompiler::sock_filter;

use crate::filter::Filter;

/// Instructions of a filter at most (BPF_MAXINSNS).
const INSTRUCTIONS_MAX: usize = 4096;
/// Filters that a process is looked through for at most.
const FILTERS_MAX: usize = 64;

/// PTRACE_SECCOMP_GET_FILTER (linux/ptrace.h), which the libc crate lacks.
const SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

/// How long a process may take to stand still. One in a long system call that doesn't notice takes longer, and no correct
/// worker makes such a call.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the filters that process `pid` installed last are `expected`, in this order, instruction by instruction.
///
/// # Errors
/// `ETIMEDOUT`: the process didn't stand still, and is dead now. The kernel's: `EACCES` without CAP_SYS_ADMIN, or where this process has a filter itself; `EIO` from a kernel
/// without CONFIG_CHECKPOINT_RESTORE.
pub(crate) fn last_filters_are(pid: i32, expected: &[Filter]) -> Result<bool, Errno> {
    let stopped = Stopped::seize(pid)?;
    let mut found = Vec::new();
    // The oldest first.
    while let Some(filter) = stopped.filter(found.len())? {
        found.push(filter);
        if found.len() > FILTERS_MAX {
            return Ok(false);
        }
    }
    let last = found.len().checked_sub(expected.len()).map_or(&[][..], |first| &found[first..]);
    Ok(last.len() == expected.len()
        && last.iter().zip(expected).all(|(found, expected)| same(found, expected.instructions())))
}

fn same(found: &[sock_filter], expected: &[sock_filter]) -> bool {
    let parts = |one: &sock_filter| (one.code, one.jt, one.jf, one.k);
    found.iter().map(parts).eq(expected.iter().map(parts))
}

/// Hears of what happens to children and tracees of this thread, which must have no other use for SIGCHLD.
struct News(SignalFd);

impl News {
    fn listen() -> Result<Self, Errno> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Self::signals()
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&Self::signals(), flags))
            .map_or_else(|errno| Err(Errno::from_raw_os_error(errno as i32)), |told| Ok(Self(told)))
    }

    fn signals() -> SigSet {
        SigSet::from(Signal::SIGCHLD)
    }

    /// Waits for news, at most so long.
    fn wait(&self, most: Duration) -> Result<(), Errno> {
        let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&most)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        // One at a time, and old ones too: whoever waits looks anew.
        let _none = self.0.read_signal();
        Ok(())
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let _unblocked = Self::signals().thread_unblock();
    }
}

/// A process that stands still while it is looked at.
struct Stopped(i32);

impl Stopped {
    fn seize(pid: i32) -> Result<Self, Errno> {
        let news = News::listen()?;
        // SAFETY: reads and writes no memory of this process.
        unsafe { ptrace(libc::PTRACE_SEIZE, pid, 0, std::ptr::null_mut())? };
        let stopped = Self(pid);
        // SAFETY: as above.
        unsafe { ptrace(libc::PTRACE_INTERRUPT, pid, 0, std::ptr::null_mut())? };
        stopped.wait(&news)?;
        Ok(stopped)
    }

    /// Waits until it stands still, and ends it if it doesn't.
    fn wait(&self, news: &News) -> Result<(), Errno> {
        let start = Instant::now();
        loop {
            match self.look(libc::WNOHANG)? {
                Some(status) if libc::WIFSTOPPED(status) => return Ok(()),
                Some(_) => return Err(Errno::SRCH),
                None => {}
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            news.wait(left)?;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.0) {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        Err(Errno::TIMEDOUT)
    }

    /// What has become of it; `None`: nothing yet.
    fn look(&self, flags: libc::c_int) -> Result<Option<libc::c_int>, Errno> {
        let mut status = 0;
        loop {
            // SAFETY: the status is ours.
            match unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL | flags) } {
                -1 => match Errno::from_io_error(&std::io::Error::last_os_error()) {
                    Some(Errno::INTR) => {}
                    errno => return Err(errno.unwrap_or(Errno::SRCH)),
                },
                0 => return Ok(None),
                _ => return Ok(Some(status)),
            }
        }
    }

    /// The filter of this number, from 0; `None` behind the last.
    fn filter(&self, number: usize) -> Result<Option<Vec<sock_filter>>, Errno> {
        // SAFETY: with no buffer the kernel tells the number of instructions only.
        let length = unsafe { ptrace(SECCOMP_GET_FILTER, self.0, number, std::ptr::null_mut()) };
        let length = match length {
            Err(Errno::NOENT) => return Ok(None),
            other => usize::try_from(other?).unwrap_or(usize::MAX),
        };
        if length > INSTRUCTIONS_MAX {
            return Err(Errno::TOOBIG);
        }
        let mut filter = vec![sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; length];
        // SAFETY: room for as many instructions as the kernel has just said; a filter never changes.
        unsafe { ptrace(SECCOMP_GET_FILTER, self.0, number, filter.as_mut_ptr().cast()) }?;
        Ok(Some(filter))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: reads and writes no memory of this process.
        if unsafe { ptrace(libc::PTRACE_DETACH, self.0, 0, std::ptr::null_mut()) }.is_err() {
            // It is dead or dying, and its parent hears of that only when its tracer has (ptrace(2)).
            while let Ok(Some(status)) = self.look(0) {
                if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                    break;
                }
            }
        }
    }
}

/// ptrace(2).
///
/// # Safety
/// As the request has it.
unsafe fn ptrace(
    request: libc::c_uint,
    pid: i32,
    address: usize,
    data: *mut libc::c_void,
) -> Result<libc::c_long, Errno> {
    // SAFETY: the caller's.
    match unsafe { libc::ptrace(request, pid, address, data) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::SRCH)),
        result => Ok(result),
    }
}
