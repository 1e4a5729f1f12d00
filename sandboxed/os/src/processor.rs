//! What a process takes of the processor: its time, and its place among those that want it.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use rustix::process::{getpriority_process, setpriority_process};

/// Time that process `pid` has had on processors. The kernel's account: it takes no right to ask, whatever the user
/// of the process and dumpable or not.
///
/// # Errors
/// The kernel's: above all, that the process is gone.
pub fn time(pid: i32) -> io::Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid))?;
    Ok(clock_gettime(clock)?.into())
}

/// What a process has had of processors, and what it had to wait for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Time on processors.
    pub ran: Duration,
    /// Time in which it could have run and others did; `None`: the kernel doesn't tell (CONFIG_SCHED_INFO).
    pub waited: Option<Duration>,
}

/// What process `pid` has spent since its start.
///
/// # Errors
/// As for [`time`].
pub fn spent(pid: i32) -> io::Result<Spent> {
    // proc_pid_schedstat: nanoseconds run, nanoseconds waited, time slices.
    let waited = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok();
    let waited =
        waited.and_then(|text| text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos));
    Ok(Spent { ran: time(pid)?, waited })
}

/// Nice value of a process that is behind others: a third of the share of one that isn't. More would do no more for the
/// others, and would starve an honest run on a machine that has other work too.
const BEHIND: i32 = 5;

/// Puts process `pid` behind others that want its core, or back among them.
///
/// Where the kernel groups by session (`kernel.sched_autogroup_enabled`), what counts is the place of the process's
/// group, and each worker is a session of its own: a nice value alone would do nothing there. The kernel takes a
/// change of that ten times a second for all processes together (EAGAIN), unless CAP_SYS_ADMIN asks.
///
/// # Errors
/// When neither can be changed now: the process stays where it is.
pub fn behind(pid: i32, behind: bool) -> io::Result<()> {
    let nice = if behind { BEHIND } else { 0 };
    let by_group = std::fs::write(format!("/proc/{pid}/autogroup"), nice.to_string());
    if !may_renice() {
        return by_group;
    }
    let process = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let by_process = setpriority_process(Some(process), nice).map_err(io::Error::from);
    placed(by_process, by_group)
}

/// What came of changing a process's place by its own value and by its group's.
fn placed(by_process: io::Result<()>, by_group: io::Result<()>) -> io::Result<()> {
    match by_group {
        // The kernel has no groups, or this process is in none: none of its ancestors began a session, and the root
        // group's weight is fixed (EINVAL, `sched_group_set_shares`). The process's own value counts.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => by_process,
        by_group => by_process.and(by_group),
    }
}

/// Whether this process may lower a nice value that it raised (CAP_SYS_NICE): one that may not would leave a worker
/// behind for good.
#[must_use]
pub fn may_renice() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    // Nice values are a thread's on Linux: that of one that ends with the question.
    let ask = || {
        let nice = getpriority_process(None)?;
        setpriority_process(None, nice + 1)?;
        setpriority_process(None, nice)
    };
    *MAY.get_or_init(|| std::thread::spawn(move || ask().is_ok()).join().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};

    use super::*;

    /// A process in a session of its own, as workers are: the tests around it keep their place.
    fn sleeper() -> (Child, i32) {
        let mut command = Command::new("sleep");
        command.arg("100");
        // SAFETY: setsid(2) is async-signal-safe, and the closure does nothing else.
        unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
        let child = command.spawn().unwrap();
        let pid = child.id().cast_signed();
        (child, pid)
    }

    #[test]
    fn the_time_of_another_process_is_told_and_of_one_that_is_gone_it_isnt() {
        let own = std::process::id().cast_signed();
        let (before, mut turns) = (time(own).unwrap(), 0_u64);
        while time(own).unwrap() < before + Duration::from_millis(20) {
            turns += 1;
        }
        assert!(turns > 0);
        let (mut child, pid) = sleeper();
        assert!(time(pid).unwrap() < Duration::from_secs(1), "it sleeps");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(time(pid).is_err());
    }

    #[test]
    fn a_process_that_is_put_behind_is_behind_and_comes_back() {
        let (mut child, pid) = sleeper();
        let nice = || getpriority_process(rustix::process::Pid::from_raw(pid)).unwrap();
        let before = nice();
        // Other tests change groups at the same time, and the kernel takes ten changes a second.
        let until_done = |to| {
            while let Err(error) = behind(pid, to) {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
                std::thread::yield_now();
            }
        };
        until_done(true);
        let then = nice();
        until_done(false);
        assert_eq!(nice(), if may_renice() { 0 } else { before });
        assert_eq!(then, if may_renice() { BEHIND } else { before });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(behind(pid, true).is_err());
    }

    #[test]
    fn the_value_of_a_process_counts_where_no_group_has_it() {
        let error = |code| Err(io::Error::from_raw_os_error(code));
        let code = |result: io::Result<()>| result.err().and_then(|error| error.raw_os_error());
        for (by_process, by_group, expected) in [
            (Ok(()), Ok(()), None),
            (Ok(()), error(libc::ENOENT), None),
            (Ok(()), error(libc::EINVAL), None),
            (Ok(()), error(libc::EAGAIN), Some(libc::EAGAIN)),
            (error(libc::ESRCH), error(libc::EINVAL), Some(libc::ESRCH)),
            (error(libc::ESRCH), error(libc::ENOENT), Some(libc::ESRCH)),
            (error(libc::EPERM), Ok(()), Some(libc::EPERM)),
        ] {
            let shown = format!("{by_process:?}, {by_group:?}");
            assert_eq!(code(placed(by_process, by_group)), expected, "{shown}");
        }
    }
}
