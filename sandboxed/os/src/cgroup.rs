//! Control groups: what the kernel lets a worker take of memory and processes, and all workers together.
//!
//! The node makes them, below its own groups: that needs no capability where it owns the directory, as root does. A
//! process enters through descriptors that come with its launch, so that no path is part of the launcher's protocol.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Start of the name of a node's directory; its process id and a number follow.
const PREFIX: &str = "bulkhead-";
/// Processes and threads in a group.
const PROCESSES_MAX: &str = "1";

/// How a version of control groups calls things.
#[derive(Debug)]
struct Version {
    /// File system type, as in `/proc/self/mountinfo`.
    file_system: &'static str,
    /// A hierarchy's controllers that are used; each has a hierarchy of its own in version 1.
    hierarchies: &'static [&'static [&'static str]],
    /// Files with a limit of memory: the second, of memory and swap together or of swap, is absent on some machines.
    memory: &'static str,
    swap: &'static str,
    /// What the swap file holds where memory is limited to so many bytes.
    swap_limit: fn(u64) -> u64,
}

const MEMORY: &str = "memory";
const PROCESSES: &str = "pids";

const V1: Version = Version {
    file_system: "cgroup",
    hierarchies: &[&[MEMORY], &[PROCESSES]],
    memory: "memory.limit_in_bytes",
    swap: "memory.memsw.limit_in_bytes",
    swap_limit: |bytes| bytes,
};

/// Untested: no machine that this was written on has these controllers in version 2.
const V2: Version = Version {
    file_system: "cgroup2",
    hierarchies: &[&[MEMORY, PROCESSES]],
    memory: "memory.max",
    swap: "memory.swap.max",
    swap_limit: |_| 0,
};

/// The groups of one node's workers.
#[derive(Debug)]
pub struct Groups {
    version: &'static Version,
    /// The node's directory in each hierarchy.
    directories: Vec<Directory>,
    made: AtomicU64,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    controllers: &'static [&'static str],
}

impl Groups {
    /// Makes the node's directories, with a limit on all workers' memory together. Those of nodes that are gone are
    /// removed.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when the machine has no such controllers.
    pub fn make(memory_bytes_max: u64) -> io::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let (version, parents) = [&V1, &V2]
            .into_iter()
            .find_map(|version| Some((version, parents(version, &mounts, &own)?)))
            .ok_or(io::ErrorKind::NotFound)?;
        let name = format!("{PREFIX}{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let mut groups = Self { version, directories: Vec::new(), made: AtomicU64::new(0) };
        for Directory { path: parent, controllers } in parents {
            sweep(&parent);
            let path = parent.join(&name);
            fs::create_dir(&path)?;
            groups.directories.push(Directory { path, controllers });
        }
        for directory in &groups.directories {
            if version.file_system == V2.file_system {
                let controllers =
                    directory.controllers.iter().map(|name| format!("+{name} ")).collect::<String>();
                fs::write(directory.path.join("cgroup.subtree_control"), controllers)?;
            }
            if directory.controllers.contains(&MEMORY) {
                limit(version, &directory.path, memory_bytes_max)?;
            }
        }
        Ok(groups)
    }

    /// The node's directories.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().map(|directory| directory.path.as_path())
    }

    /// Makes a group for one process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn group(&self, memory_bytes_max: u64) -> io::Result<Group> {
        let name = format!("w{}", self.made.fetch_add(1, Ordering::Relaxed));
        let mut group = Group { version: self.version, directories: Vec::new() };
        for Directory { path: parent, controllers } in &self.directories {
            let path = parent.join(&name);
            // All of it: an empty directory may have been swept by a node of another pid namespace.
            fs::create_dir_all(&path)?;
            group.directories.push(Directory { path, controllers });
        }
        for directory in group.having(PROCESSES) {
            fs::write(directory.join("pids.max"), PROCESSES_MAX)?;
        }
        group.limit_memory(memory_bytes_max)?;
        Ok(group)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        remove(&self.directories);
    }
}

/// One process's group. Dropping it removes it, so the process has to be gone by then.
#[derive(Debug)]
pub struct Group {
    version: &'static Version,
    directories: Vec<Directory>,
}

impl Group {
    /// What a process enters through, by writing `0`: a descriptor a hierarchy.
    ///
    /// # Errors
    /// The kernel's.
    pub fn entries(&self) -> io::Result<Vec<OwnedFd>> {
        let entry = |directory: &Directory| {
            Ok(File::options().write(true).open(directory.path.join("cgroup.procs"))?.into())
        };
        self.directories.iter().map(entry).collect()
    }

    /// Lets the process have at most `bytes` of memory.
    ///
    /// # Errors
    /// The kernel's; above all, that it has more already.
    pub fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        self.having(MEMORY).try_for_each(|directory| limit(self.version, directory, bytes))
    }

    /// Whether a process is in it, by its `/proc/PID/cgroup`.
    #[must_use]
    pub fn holds(&self, groups: &str) -> bool {
        let paths: Vec<&Path> =
            groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(Path::new).collect();
        let Some(Directory { path, .. }) = self.directories.first() else { return false };
        // Its last two names, which no other group of the machine has.
        let Some(name) = path.parent().and_then(|node| path.strip_prefix(node.parent()?).ok()) else {
            return false;
        };
        paths.iter().filter(|path| path.ends_with(name)).count() == self.directories.len()
    }

    fn having(&self, controller: &'static str) -> impl Iterator<Item = &Path> {
        let with = move |directory: &&Directory| directory.controllers.contains(&controller);
        self.directories.iter().filter(with).map(|directory| directory.path.as_path())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.directories);
    }
}

fn remove(directories: &[Directory]) {
    for directory in directories {
        // One that is in use stays, and the next node sweeps it.
        let _in_use = fs::remove_dir(&directory.path);
    }
}

/// Limits the memory of a group. Memory and swap together are never below memory, so the order depends on the
/// direction; and not every machine accounts for swap.
fn limit(version: &Version, group: &Path, bytes: u64) -> io::Result<()> {
    let swap = || fs::write(group.join(version.swap), (version.swap_limit)(bytes).to_string());
    let _first_if_raised = swap();
    fs::write(group.join(version.memory), bytes.to_string())?;
    let _first_if_lowered = swap();
    Ok(())
}

/// Removes what nodes left that are gone. Nothing is killed: their workers end with them, and a group that still has
/// a process can't be removed.
fn sweep(parent: &Path) {
    let Ok(nodes) = fs::read_dir(parent) else { return };
    for node in nodes.flatten().filter(|node| is_left_over(&node.file_name())) {
        for group in fs::read_dir(node.path()).into_iter().flatten().flatten() {
            // Its files can't be removed, nor its groups with processes.
            let _kept = fs::remove_dir(group.path());
        }
        let _kept = fs::remove_dir(node.path());
    }
}

/// Whether it is the name of a node's directory, and there is no such process.
fn is_left_over(name: &OsStr) -> bool {
    let node =
        name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
    node.is_some_and(|node| !Path::new(&format!("/proc/{node}")).exists())
}

/// The directories of this process's own groups, where a node's may be made: one for each hierarchy of `version`.
fn parents(version: &'static Version, mounts: &str, own: &str) -> Option<Vec<Directory>> {
    let parent = |controllers: &'static [&'static str]| {
        let path = mounts.lines().find_map(|mount| hierarchy(version, controllers, mount, own))?;
        Some(Directory { path, controllers })
    };
    version.hierarchies.iter().map(|controllers| parent(controllers)).collect()
}

/// This process's directory in the hierarchy that a line of `/proc/self/mountinfo` mounts, if that is the one.
fn hierarchy(version: &Version, controllers: &[&str], mount: &str, own: &str) -> Option<PathBuf> {
    // proc_pid_mountinfo(5): id parent device root mount-point options [tags] - type source super-options.
    let (place, system) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, mounted) = (place.next()?, Path::new(place.next()?));
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1)?);
    if kind != version.file_system {
        return None;
    }
    // In version 1 a mount's options name its controllers, and so does its line in /proc/PID/cgroup; in version 2 a
    // file does, and the line names none.
    let of_version_2 = version.hierarchies.len() == 1;
    let has = |controller: &&str| match of_version_2 {
        false => options.split(',').any(|option| option == *controller),
        true => fs::read_to_string(mounted.join("cgroup.controllers"))
            .is_ok_and(|all| all.split_whitespace().any(|one| one == *controller)),
    };
    if !controllers.iter().all(has) {
        return None;
    }
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let named = fields.next()?;
        let ours =
            if of_version_2 { named.is_empty() } else { named.split(',').any(|one| one == controllers[0]) };
        fields.next().filter(|_| ours)
    })?;
    // A container sees a part of the hierarchy, from `root` down.
    let below = Path::new(path).strip_prefix(root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
    let directory = mounted.join(below);
    Some(if directory.is_dir() { directory } else { mounted.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        40 31 0:37 /part /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids,devices\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const OWN: &str = "8:devices,pids:/part\n4:memory:/\n0::/\n";

    #[test]
    fn each_hierarchy_of_version_1_is_found_where_it_is_mounted() {
        let found = parents(&V1, MOUNTS, OWN).expect("both controllers are there");
        let paths: Vec<_> = found.iter().map(|directory| directory.path.as_path()).collect();
        assert_eq!(paths, [Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup/pids")]);
    }

    #[test]
    fn a_machine_without_the_controllers_has_no_groups() {
        let without = MOUNTS.replace("pids", "pads");
        assert!(parents(&V1, &without, OWN).is_none());
        assert!(parents(&V2, MOUNTS.lines().last().expect("four lines"), "0::/\n").is_none());
    }

    #[test]
    fn only_directories_of_nodes_that_are_gone_are_left_over() {
        let own = format!("{PREFIX}{}-0", std::process::id());
        for (name, left_over) in
            [(own.as_str(), false), ("bulkhead-4194305-7", true), ("other-4194305-7", false)]
        {
            assert_eq!(is_left_over(OsStr::new(name)), left_over, "{name}");
        }
    }
}
