//! How a process of the sandbox ended.

use std::fmt;

use crate::lockdown::Exit;

/// How a process ended, as the kernel reported it to its parent. It gives no meaning to what the process had said
/// before: a worker that ends in the middle of a call has died, whatever its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code: one of [`Exit`], if the process was what it should be.
    Exited(i32),
    /// By this signal.
    Signal(i32),
    /// The kernel had nothing to tell.
    Unknown,
}

impl Ended {
    /// Whether no correct worker ends like this: by a fault of its own, by a system call outside its filter, or with a
    /// code that isn't its own. What others can do to a worker (SIGKILL by an operator or for want of memory, any
    /// other signal sent to it) is none of these.
    #[must_use]
    pub fn is_no_correct_workers(self) -> bool {
        match self {
            Self::Exited(code) => Exit::from_code(code).is_none(),
            Self::Signal(signal) => matches!(
                signal,
                libc::SIGSYS
                    | libc::SIGSEGV
                    | libc::SIGBUS
                    | libc::SIGILL
                    | libc::SIGFPE
                    | libc::SIGTRAP
                    | libc::SIGABRT
            ),
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |f: &mut fmt::Formatter<'_>, name| write!(f, "killed by {name}");
        match *self {
            Self::Exited(code) => match Exit::from_code(code) {
                Some(exit) => write!(f, "exit code {code}: {exit}"),
                None => write!(f, "exit code {code}, which is none of a worker's"),
            },
            Self::Signal(libc::SIGSYS) => {
                f.write_str("killed by SIGSYS: it made a system call outside its filter")
            }
            Self::Signal(libc::SIGKILL) => named(f, "SIGKILL"),
            Self::Signal(libc::SIGSEGV) => named(f, "SIGSEGV"),
            Self::Signal(libc::SIGBUS) => named(f, "SIGBUS"),
            Self::Signal(libc::SIGILL) => named(f, "SIGILL"),
            Self::Signal(libc::SIGFPE) => named(f, "SIGFPE"),
            Self::Signal(libc::SIGTRAP) => named(f, "SIGTRAP"),
            Self::Signal(libc::SIGABRT) => named(f, "SIGABRT"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("ended; how isn't known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_own_codes_are_named_and_others_are_none_of_its() {
        let text = |code| Ended::Exited(code).to_string();
        assert_eq!(text(0), "exit code 0: the socket was closed");
        assert_eq!(text(14), "exit code 14: the code or the memory could not be loaded");
        assert_eq!(text(3), "exit code 3, which is none of a worker's");
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit as i32), Some(exit));
            assert!(!Ended::Exited(exit as i32).is_no_correct_workers(), "{exit}");
        }
        for code in [-1, 1, 3, 101, 255] {
            assert!(Ended::Exited(code).is_no_correct_workers(), "{code}");
        }
    }

    #[test]
    fn faults_and_filters_are_a_workers_own_doing_and_signals_from_outside_are_not() {
        for own in [libc::SIGSYS, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
            assert!(Ended::Signal(own).is_no_correct_workers(), "{own}");
        }
        for sent in [libc::SIGKILL, libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
            assert!(!Ended::Signal(sent).is_no_correct_workers(), "{sent}");
        }
        let sigsys = Ended::Signal(libc::SIGSYS).to_string();
        assert_eq!(sigsys, "killed by SIGSYS: it made a system call outside its filter");
    }
}
