//! The node looks at a worker from outside. What a worker says of itself counts for nothing.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::filter::SOCKET;
use crate::jail::NAMESPACES;
use crate::launch::LaunchedWorker;

/// How far a worker must have got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// SETUP and LOAD in force: code and memory may be sent.
    Load,
    /// RUN in force too: messages may be sent.
    Run,
}

impl Phase {
    /// Filters of ours in force: SETUP, LOAD and, later, RUN.
    fn filters(self) -> u64 {
        match self {
            Self::Load => 2,
            Self::Run => 3,
        }
    }
}

/// What is wrong with a worker: the layer, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
#[error("{layer}: found {found}, expected {expected}")]
pub struct NotConfined {
    /// The layer that isn't in force.
    pub layer: &'static str,
    /// What `/proc` shows.
    pub found: String,
    /// What it has to show.
    pub expected: String,
}

fn wrong(layer: &'static str, found: impl ToString, expected: impl ToString) -> NotConfined {
    NotConfined { layer, found: found.to_string(), expected: expected.to_string() }
}

/// Bytes read of one `/proc` file at most.
const PROC_BYTES_MAX: u64 = 1 << 20;

/// Name of a mapping of an arena's segment.
const ARENA: &str = "/memfd:bulkhead-arena";
/// How the line of the kernel's own page in `/proc/PID/maps` starts.
const VSYSCALL: &str = "ffffffffff600000-";

fn proc_file(pid: i32, name: &str) -> Result<String, NotConfined> {
    // As much as each of them usually has, so that it isn't read in many small steps.
    let mut text = String::with_capacity(8 << 10);
    fs::File::open(format!("/proc/{pid}/{name}"))
        .and_then(|file| file.take(PROC_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| wrong("proc", format!("/proc/{pid}/{name}: {error}"), "a readable file"))?;
    if text.len() as u64 > PROC_BYTES_MAX {
        // What lies behind the end would go unseen.
        let expected = format!("at most {PROC_BYTES_MAX} bytes");
        return Err(wrong("proc", format!("a longer /proc/{pid}/{name}"), expected));
    }
    Ok(text)
}

/// Checks a worker in `phase`: everything of [`worker`], that each range of `memory` is private memory of its
/// own with no other use, and that it has its socket for its only descriptor and
/// shares none of the namespaces that the launcher could make, and is in its control group, if it got one.
///
/// # Errors
/// The first layer that isn't in force.
pub fn launched(launched: &LaunchedWorker, phase: Phase, memory: &[Range<u64>]) -> Result<(), NotConfined> {
    status(&proc_file(launched.pid, "status")?, launched.uid, phase)?;
    let text = proc_file(launched.pid, "maps")?;
    maps(&text, phase)?;
    memory.iter().try_for_each(|range| private_memory(&text, range))?;
    let expected = [SOCKET as u32];
    let found = descriptors(launched.pid).map_err(|error| {
        wrong("proc", format!("/proc/{}/fd: {error}", launched.pid), "a readable directory")
    })?;
    if found != expected {
        return Err(wrong("descriptors", format!("{found:?}"), format!("{expected:?}")));
    }
    limits(&proc_file(launched.pid, "limits")?)?;
    undumpable(launched)?;
    if let Some(group) = launched.group() {
        let groups = proc_file(launched.pid, "cgroup")?;
        if !group.holds(&groups) {
            return Err(wrong("control group", groups.replace('\n', " "), "its own"));
        }
    }
    /// This process's. It stays in them.
    static OWN: [OnceLock<PathBuf>; NAMESPACES.len()] = [const { OnceLock::new() }; NAMESPACES.len()];
    let layers = NAMESPACES.iter().zip(&OWN).zip(&launched.layers);
    for ((namespace, own), _) in layers.filter(|(_, layer)| layer.on) {
        let link = |who: &str| {
            let path = format!("/proc/{who}/ns/{}", namespace.link);
            fs::read_link(&path).map_err(|error| wrong("proc", format!("{path}: {error}"), "a readable link"))
        };
        let found = link(&launched.pid.to_string())?;
        let own = match own.get() {
            Some(own) => own,
            None => {
                let read = link("self")?;
                own.get_or_init(|| read)
            }
        };
        if found == *own {
            return Err(wrong(namespace.name, found.display(), "another than the node's"));
        }
    }
    Ok(())
}

/// Filters that were in force on this process before it launched anything: a container's.
fn inherited_filters() -> u64 {
    static INHERITED: OnceLock<u64> = OnceLock::new();
    *INHERITED.get_or_init(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        field(&status, "Seccomp_filters").parse().unwrap_or(0)
    })
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("nothing", str::trim)
}

/// Checks process `pid`, which should run as user `uid`, in `phase`.
///
/// # Errors
/// The first layer that isn't in force.
pub fn worker(pid: i32, uid: u32, phase: Phase) -> Result<(), NotConfined> {
    status(&proc_file(pid, "status")?, uid, phase)?;
    maps(&proc_file(pid, "maps")?, phase)
}

fn status(text: &str, uid: u32, phase: Phase) -> Result<(), NotConfined> {
    let field = |name| field(text, name);
    for (layer, name, expected) in [
        ("seccomp filter mode", "Seccomp", "2"),
        ("no_new_privs", "NoNewPrivs", "1"),
        ("effective capabilities", "CapEff", "0000000000000000"),
        ("permitted capabilities", "CapPrm", "0000000000000000"),
        ("inheritable capabilities", "CapInh", "0000000000000000"),
        ("bounding capabilities", "CapBnd", "0000000000000000"),
        ("ambient capabilities", "CapAmb", "0000000000000000"),
        ("single thread", "Threads", "1"),
    ] {
        if field(name) != expected {
            return Err(wrong(layer, field(name), expected));
        }
    }
    // Seccomp_filters is there since Linux 5.10.
    let filters = inherited_filters() + phase.filters();
    if field("Seccomp_filters").parse() != Ok(filters) {
        return Err(wrong("number of seccomp filters", field("Seccomp_filters"), filters));
    }
    let uids: Vec<&str> = field("Uid").split_whitespace().collect();
    let expected = uid.to_string();
    if uids.len() != 4 || uids.iter().any(|uid| *uid != expected) {
        return Err(wrong("user id", uids.join(" "), expected));
    }
    Ok(())
}

/// Limits that a worker has, soft and hard, as `/proc/PID/limits` calls them.
const LIMITS: [(&str, &str); 5] = [
    ("Max core file size", "0"),
    ("Max file size", "0"),
    ("Max processes", "0"),
    ("Max locked memory", "0"),
    ("Max msgqueue size", "0"),
];

fn limits(text: &str) -> Result<(), NotConfined> {
    for (name, expected) in LIMITS {
        let values = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        if !values.split_whitespace().take(2).eq([expected; 2]) {
            return Err(wrong("resource limits", format!("{name}: {}", values.trim()), expected));
        }
    }
    Ok(())
}

/// A process that can't be dumped has files of root's in `/proc`, whoever runs it (proc(5)). One with the node's own
/// user, in a user namespace, has the node's in either case: there its filters have to do, which it passed only behind
/// its own check.
fn undumpable(launched: &LaunchedWorker) -> Result<(), NotConfined> {
    let path = format!("/proc/{}/maps", launched.pid);
    let owner = fs::metadata(&path).map(|file| file.uid());
    let owner = owner.map_err(|error| wrong("proc", format!("{path}: {error}"), "an owner"))?;
    if owner == launched.uid && launched.uid != rustix::process::geteuid().as_raw() {
        return Err(wrong("not dumpable", format!("{path} of user {owner}"), "of root"));
    }
    Ok(())
}

fn maps(text: &str, phase: Phase) -> Result<(), NotConfined> {
    let mut executable = 0;
    for line in text.lines() {
        let permissions = line.split_whitespace().nth(1).unwrap_or("");
        // The vsyscall page isn't the process's: every process of the machine has it or none.
        if permissions.contains('x') && !line.starts_with(VSYSCALL) {
            executable += 1;
        }
        if permissions.contains('w') && permissions.contains('x') {
            return Err(wrong("write xor execute", line, "no mapping that is both"));
        }
        if permissions.contains('w') && permissions.ends_with('s') {
            return Err(wrong("no shared writable memory", line, "shared mappings read-only"));
        }
    }
    // The image's text and the vDSO; with code loaded, one more file.
    let most = if phase == Phase::Load { 2 } else { 3 };
    if executable > most {
        return Err(wrong("executable mappings", executable, format!("at most {most}")));
    }
    Ok(())
}

/// Whether the whole of `range` is mapped, privately, and is either nameless or a copy-on-write view of a
/// canister's arena: not the image, the stack, the C heap or the kernel's own pages.
fn private_memory(maps: &str, range: &Range<u64>) -> Result<(), NotConfined> {
    let refuse = |found: &str| {
        let expected = format!("private memory from {:x} to {:x}", range.start, range.end);
        Err(wrong("memory of the canister", found, expected))
    };
    let mut next = range.start;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let bounds = fields.next().and_then(|bounds| bounds.split_once('-'));
        let bound = |text: &str| u64::from_str_radix(text, 16).ok();
        let Some((start, end)) = bounds.and_then(|(start, end)| Some((bound(start)?, bound(end)?))) else {
            return refuse(line);
        };
        if end <= next || start >= range.end {
            continue;
        }
        let private = fields.next().is_some_and(|permissions| permissions.ends_with('p'));
        // Offset, device and inode are of no interest.
        let ours = fields.nth(3).is_none_or(|name| name.starts_with(ARENA));
        if start > next || !private || !ours {
            return refuse(line);
        }
        next = end;
    }
    if next < range.end { refuse("nothing there") } else { Ok(()) }
}

/// The open descriptors of process `pid`, in order.
///
/// # Errors
/// When `/proc/PID/fd` isn't readable: as an ordinary user, once the worker is undumpable.
pub fn descriptors(pid: i32) -> std::io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unconfined_process_is_refused_and_the_layer_is_named() {
        let own = std::process::id() as i32;
        let refused = worker(own, rustix::process::getuid().as_raw(), Phase::Load).unwrap_err();
        assert_eq!(refused.layer, "seccomp filter mode");
    }

    #[test]
    fn a_limit_that_is_not_the_workers_is_refused_by_its_name() {
        let line = |name: &str, value: &str| format!("{name:<26}{value:<21}{value:<21}units\n");
        let all: String = LIMITS.iter().map(|(name, value)| line(name, value)).collect();
        limits(&all).unwrap();
        for (name, value) in LIMITS {
            let other = all.replace(&line(name, value), &line(name, "unlimited"));
            let refused = limits(&other).unwrap_err();
            assert_eq!((refused.layer, refused.found.contains(name)), ("resource limits", true), "{name}");
            limits(&all.replace(name, "Something else")).unwrap_err();
        }
    }

    #[test]
    fn a_mapping_that_is_writable_and_executable_is_refused() {
        let text = "7f00-7f01 rwxp 00000000 00:00 0\n";
        assert_eq!(maps(text, Phase::Run).unwrap_err().layer, "write xor execute");
        let text = "7f00-7f01 rw-s 00000000 00:00 0\n";
        assert_eq!(maps(text, Phase::Run).unwrap_err().layer, "no shared writable memory");
    }

    #[test]
    fn memory_of_a_canister_is_private_and_has_no_other_use() {
        let text = "1000-3000 rw-p 00000000 00:00 0\n\
                    3000-4000 rw-p 00001000 00:01 7                  /memfd:bulkhead-arena (deleted)\n\
                    4000-9000 ---p 00000000 00:00 0\n\
                    a000-b000 rw-p 00000000 00:00 0                  [stack]\n\
                    b000-c000 r--s 00000000 00:01 7                  /memfd:bulkhead-arena (deleted)\n\
                    c000-d000 r-xp 00000000 00:00 0                  [vdso]\n";
        let private = |range| private_memory(text, &range);
        private(0x1000..0x9000).unwrap();
        private(0x2000..0x3800).unwrap();
        for lie in [0..0x2000, 0x8000..0xa000, 0xa000..0xb000, 0xb000..0xc000, 0xc000..0xd000, 0xe000..0xf000]
        {
            assert_eq!(private(lie).unwrap_err().layer, "memory of the canister");
        }
    }

    #[test]
    fn every_kind_of_executable_mapping_is_counted_but_the_kernels_own_page() {
        let line = |permissions| format!("7f00-7f01 {permissions} 00000000 00:00 0\n");
        let own = "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
        let three = line("r-xp").repeat(3) + own;
        maps(&three, Phase::Run).unwrap();
        for permissions in ["r-xp", "--xp", "r-xs"] {
            let refused = maps(&(three.clone() + &line(permissions)), Phase::Run).unwrap_err();
            assert_eq!(refused.layer, "executable mappings", "{permissions}");
        }
    }

    #[test]
    fn a_list_of_mappings_too_long_to_be_read_is_refused() {
        const PAGES: usize = 60_000;
        // SAFETY: a fresh mapping of our own; every other page of it gets another protection, so that none
        // can be joined with its neighbour, and all of it is given back.
        let text = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let all = libc::mmap(std::ptr::null_mut(), PAGES * 4096, libc::PROT_NONE, flags, -1, 0);
            for page in (0..PAGES).step_by(2) {
                libc::mprotect(all.byte_add(page * 4096), 4096, libc::PROT_READ);
            }
            let text = proc_file(std::process::id() as i32, "maps");
            libc::munmap(all, PAGES * 4096);
            text
        };
        assert_eq!(text.unwrap_err().layer, "proc");
    }
}
