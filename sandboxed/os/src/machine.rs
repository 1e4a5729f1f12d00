//! What this machine has and what this process has left of it: memory and descriptors.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// Bytes read of a file of `/proc` or of a control group at most. What is looked for stands at its beginning.
const HEAD_BYTES_MAX: u64 = 4096;

fn head(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(HEAD_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Resident memory that process `pid` shares with nobody, in bytes: what its end would give back. The kernel
/// counts it, and whoever may see the process may read it, dumpable or not.
///
/// # Errors
/// The kernel's: above all, that the process is gone.
pub fn private_bytes(pid: i32) -> io::Result<u64> {
    let pages = private_pages(&head(format!("/proc/{pid}/statm"))?);
    let pages = pages.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// `size resident shared ...`, in pages (proc_pid_statm(5)).
fn private_pages(statm: &str) -> Option<u64> {
    let mut numbers = statm.split_whitespace().map(|number| number.parse::<u64>().ok());
    let [_size, resident, shared] = [numbers.next()??, numbers.next()??, numbers.next()??];
    Some(resident.saturating_sub(shared))
}

/// Memory that this process may use: the machine's, or less where one of its control groups says so.
///
/// # Errors
/// When `/proc/meminfo` can't be read.
pub fn memory_bytes() -> io::Result<u64> {
    let machine = memory_total(&head("/proc/meminfo")?);
    let machine = machine.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let groups = head("/proc/self/cgroup").unwrap_or_default();
    let limit = |file: String| head(file).ok()?.trim().parse::<u64>().ok();
    Ok(memory_groups(&groups).into_iter().filter_map(limit).fold(machine, u64::min))
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files with the memory limits of a process's groups and of all groups above them. `groups` is its
/// `/proc/PID/cgroup`: `number:controllers:path` a line. In a container, some of the files aren't there.
fn memory_groups(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        files.extend(Path::new(path).ancestors().map(|group| format!("{mount}{}/{file}", group.display())));
    }
    files
}

/// The highest version of Landlock's interface that the kernel has; `None`: it has none, or it is off.
#[must_use]
pub fn landlock_abi() -> Option<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no attributes and makes nothing (landlock_create_ruleset(2)).
    let abi = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    };
    u32::try_from(abi).ok().filter(|abi| *abi > 0)
}

/// Whether the kernel can keep processes that don't trust each other off one core's threads at the same time.
#[must_use]
pub fn core_scheduling() -> bool {
    const PR_SCHED_CORE: libc::c_int = 62;
    const GET: libc::c_ulong = 0;
    const THREAD: libc::c_ulong = 0;
    let mut cookie: libc::c_ulong = 0;
    // SAFETY: the kernel writes this thread's cookie to where the last argument points, and nothing else.
    unsafe { libc::prctl(PR_SCHED_CORE, GET, 0_u64, THREAD, &raw mut cookie) == 0 }
}

/// Descriptors that this process may have open at once.
#[must_use]
pub fn open_files_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Makes sure that `count` more descriptors can be had now, by having them for a moment.
///
/// # Errors
/// The kernel's answer to the first that can't: `EMFILE` or `ENFILE`.
pub fn open_files_left(count: usize) -> io::Result<()> {
    let mut held: Vec<OwnedFd> = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(match held.first() {
            None => rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?,
            Some(first) => rustix::io::fcntl_dupfd_cloexec(first, 0)?,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_what_is_resident_and_not_shared() {
        assert_eq!(private_pages("9000 700 250 10 0 300 0\n"), Some(450));
        assert_eq!(
            private_pages("9000 1 2 10 0 300 0"),
            Some(0),
            "the kernel's two counts are not of one moment"
        );
        for torn in ["", "9000", "9000 700", "a b c", "1 2 99999999999999999999"] {
            assert_eq!(private_pages(torn), None, "{torn}");
        }
    }

    #[test]
    fn memory_that_this_process_touches_is_measured() {
        const BYTES: usize = 64 << 20;
        let own = std::process::id().cast_signed();
        let before = private_bytes(own).unwrap();
        let touched = std::hint::black_box(vec![1_u8; BYTES]);
        let after = private_bytes(own).unwrap();
        assert!(after >= before + BYTES as u64 / 2, "{before} then {after}");
        drop(touched);
        assert!(private_bytes(i32::MAX).is_err());
    }

    #[test]
    fn the_limit_of_every_group_above_counts() {
        assert_eq!(
            memory_groups("9:name=systemd:/\n4:memory:/a/b\n3:cpuset:/c\n0::/d\n"),
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory//memory.limit_in_bytes",
                "/sys/fs/cgroup/d/memory.max",
                "/sys/fs/cgroup//memory.max",
            ]
        );
        assert_eq!(memory_total("MemTotal:       24731708 kB\nMemFree: 1 kB\n"), Some(24_731_708 * 1024));
        assert_eq!(memory_total("nothing"), None);
        assert!(memory_bytes().unwrap() > 0);
    }

    #[test]
    fn descriptors_that_are_left_can_be_had_and_are_given_back() {
        open_files_left(8).unwrap();
        open_files_left(8).unwrap();
        assert!(open_files_max() > 8);
    }
}
