//! What happens between clone and exec of a worker, in the launcher. `confinement` order: namespaces,
//! empty root, rlimits, capabilities, user, descriptors, Landlock, SETUP filter, exec.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::filter::Filter;
use crate::launch::Program;
use crate::{Layers, Socket};

/// A namespace that a worker gets if the kernel allows it.
pub(crate) struct Namespace {
    pub(crate) layer: Layers,
    pub(crate) name: &'static str,
    /// Its name in `/proc/PID/ns`.
    pub(crate) link: &'static str,
    pub(crate) flag: libc::c_int,
}

/// All six.
pub(crate) const NAMESPACES: [Namespace; 6] = [
    Namespace {
        layer: Layers::MOUNT,
        name: "mount namespace, empty root",
        link: "mnt",
        flag: libc::CLONE_NEWNS,
    },
    Namespace { layer: Layers::PID, name: "pid namespace", link: "pid", flag: libc::CLONE_NEWPID },
    Namespace { layer: Layers::NET, name: "network namespace", link: "net", flag: libc::CLONE_NEWNET },
    Namespace { layer: Layers::IPC, name: "ipc namespace", link: "ipc", flag: libc::CLONE_NEWIPC },
    Namespace { layer: Layers::UTS, name: "uts namespace", link: "uts", flag: libc::CLONE_NEWUTS },
    Namespace {
        layer: Layers::CGROUP_NAMESPACE,
        name: "cgroup namespace",
        link: "cgroup",
        flag: libc::CLONE_NEWCGROUP,
    },
];

/// Whose user a worker runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// An id of its own (needs root).
    Own(u32),
    /// The node's own user, inside a user namespace that this user owns.
    Namespaced,
    /// The node's own: [`Layers::USER`] is left out.
    Same,
}

impl User {
    fn clone_flag(self) -> libc::c_int {
        match self {
            Self::Namespaced => libc::CLONE_NEWUSER,
            Self::Own(_) | Self::Same => 0,
        }
    }
}

/// What is to be started, and how.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) program: Program,
    pub(crate) image: BorrowedFd<'a>,
    pub(crate) socket: &'a Socket,
    pub(crate) user: User,
    /// Those that the kernel is known to allow.
    pub(crate) layers: Layers,
    /// The SETUP filter, built already.
    pub(crate) setup: &'a Filter,
    /// Its control groups: files that a process joins one by writing `0` into.
    pub(crate) groups: &'a [OwnedFd],
}

impl Order<'_> {
    fn has(&self, layer: Layers) -> bool {
        self.layers.contains(layer)
    }

    /// Flags of clone for its namespaces.
    fn namespaces(&self) -> libc::c_int {
        NAMESPACES
            .iter()
            .filter(|namespace| self.has(namespace.layer))
            .fold(self.user.clone_flag(), |flags, namespace| flags | namespace.flag)
    }
}

/// Where in the set-up a child failed. The number travels through the status pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Clone = 1,
    UserMap,
    Parent,
    Groups,
    Session,
    Root,
    Limits,
    Capabilities,
    User,
    Descriptors,
    Filter,
    Exec,
    Image,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Clone,
        Self::UserMap,
        Self::Parent,
        Self::Groups,
        Self::Session,
        Self::Root,
        Self::Limits,
        Self::Capabilities,
        Self::User,
        Self::Descriptors,
        Self::Filter,
        Self::Exec,
        Self::Image,
    ];

    pub(crate) fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == number)
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Clone => "clone (limit: processes or namespaces)",
            Self::UserMap => "user namespace map",
            Self::Parent => "parent-death signal",
            Self::Groups => "control groups",
            Self::Session => "session",
            Self::Root => "empty root",
            Self::Limits => "resource limits",
            Self::Capabilities => "dropping capabilities",
            Self::User => "user id",
            Self::Descriptors => "descriptors",
            Self::Filter => "SETUP filter",
            Self::Exec => "exec of the worker image",
            Self::Image => "copy of the image",
        }
    }
}

/// Why no worker was started.
pub(crate) struct Failed {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
    /// The process that failed, if it came that far. The node, its parent, has to reap it.
    pub(crate) child: Option<OwnedFd>,
}

impl Failed {
    fn at(step: Step, errno: Errno) -> Self {
        Self { step, errno, child: None }
    }
}

/// A started worker: exec has succeeded.
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Layers that are in force in it.
    pub(crate) layers: Layers,
}

/// Starts a program as `order` says. The caller must be single-threaded.
pub(crate) fn start(order: &Order<'_>) -> Result<Started, Failed> {
    let failed = |errno| Failed::at(Step::Clone, errno);
    let (status_read, status_write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
    let (go_read, go_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
    // CLONE_PARENT: the node reaps its workers itself, and the launcher's death doesn't touch them.
    let child = clone(order.namespaces() | libc::CLONE_PARENT).map_err(failed)?;
    let Some((pid, pidfd)) = child else {
        // Or the read below would wait for ever if the launcher died.
        drop((status_read, go_write));
        in_child(order, &go_read, &status_write);
    };
    drop((status_write, go_read));
    let layers = match order.user {
        User::Namespaced => map_user(pid).map_err(|errno| Failed::at(Step::UserMap, errno)),
        User::Own(_) | User::Same => Ok(()),
    }
    .and_then(|()| {
        let _ = rustix::io::write(&go_write, &[1]);
        drop(go_write);
        outcome(&status_read)
    });
    match layers {
        Ok(layers) => Ok(Started { pid, pidfd, layers }),
        Err(failed) => Err(Failed { child: Some(pidfd), ..failed }),
    }
}

/// Reads the child's report until its exec or its end closes the pipe: a byte 0 and the layers that it has put on;
/// then the step that failed, if one did.
fn outcome(status: &OwnedFd) -> Result<Layers, Failed> {
    let mut report = [0u8; 8];
    let mut length = 0;
    while length < report.len() {
        match rustix::io::read(status, &mut report[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failed::at(Step::Clone, errno)),
        }
    }
    match report[..length] {
        [0, low, high] => Ok(Layers::from_bits(u16::from_le_bytes([low, high]))),
        [0, _, _, step, errno] | [step, errno] => Err(Failed::at(
            Step::numbered(step).unwrap_or(Step::Exec),
            Errno::from_raw_os_error(errno.into()),
        )),
        _ => Err(Failed::at(Step::Exec, Errno::CHILD)),
    }
}

/// Whether the kernel lets us make this namespace: a child is made with it and ends at once.
pub(crate) fn can_make(flags: libc::c_int, user: User) -> bool {
    match clone(flags | user.clone_flag()) {
        Ok(None) => crate::lockdown::exit(crate::lockdown::Exit::Done),
        Ok(Some((_, pidfd))) => {
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            true
        }
        Err(_) => false,
    }
}

/// clone3(2) as fork: `None` in the child.
pub(crate) fn clone(flags: libc::c_int) -> Result<Option<(i32, OwnedFd)>, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: an all-zero clone_args is valid: no stack, no TLS, no set_tid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (flags | libc::CLONE_PIDFD) as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT the exit signal is the launcher's own (clone(2)).
    arguments.exit_signal = if flags & libc::CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    // SAFETY: like fork. The process is single-threaded (see `start`), so the child may go on in Rust.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN)),
        0 => Ok(None),
        // SAFETY: the kernel has just stored a new descriptor there.
        pid => Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
    }
}

/// Inside its namespace a worker is user and group 0, outside it is the node's: the `/proc` files of an undumpable
/// process belong to the namespace's user 0, and so the node can still read them. It gives the worker nothing: all
/// capabilities are dropped, and locked away from exec.
const INNER_ID: u32 = 0;

fn map_user(pid: i32) -> Result<(), Errno> {
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/{pid}/{file}"), text)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{INNER_ID} {} 1", rustix::process::geteuid().as_raw()))?;
    write("gid_map", format!("{INNER_ID} {} 1", rustix::process::getegid().as_raw()))
}

fn check(step: Step, result: libc::c_int) -> Result<(), Failed> {
    if result == -1 {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        return Err(Failed::at(step, errno));
    }
    Ok(())
}

fn in_child(order: &Order<'_>, go: &OwnedFd, status: &OwnedFd) -> ! {
    let (status_at, failed) = match prepare(order, go, status) {
        Ok(()) => (STATUS_AT, depart(order)),
        Err(failed) => (status.as_raw_fd(), failed),
    };
    let report = [failed.step as u8, failed.errno.raw_os_error() as u8];
    // SAFETY: a buffer that is readable for its length. Nothing is left to do if the launcher is gone.
    unsafe { libc::write(status_at, report.as_ptr().cast(), report.len()) };
    crate::lockdown::exit(crate::lockdown::Exit::NotConfined);
}

fn prepare(order: &Order<'_>, go: &OwnedFd, status: &OwnedFd) -> Result<(), Failed> {
    let errno = |step| move |errno| Failed::at(step, errno);
    let mut byte = [0u8];
    if rustix::io::read(go, &mut byte).map_err(errno(Step::Parent))? != 1 {
        return Err(Failed::at(Step::Parent, Errno::SRCH));
    }
    for group in order.groups {
        // A process writes 0 for itself (cgroups(7)); the kernel asks whether the file's opener might.
        rustix::io::write(group, b"0").map_err(errno(Step::Groups))?;
    }
    first_to_go();
    rustix::process::setsid().map_err(errno(Step::Session))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if order.has(Layers::UTS) {
        rustix::system::sethostname(b"worker").map_err(errno(Step::Session))?;
    }
    if order.has(Layers::MOUNT) {
        empty_root()?;
    } else if order.has(Layers::CHROOT) {
        removed_root()?;
    }
    if order.has(Layers::LIMITS) {
        limits(order.program)?;
    }
    identity(order)?;
    let mut layers = order.layers;
    if order.has(Layers::LANDLOCK) && !landlock() {
        layers = layers.without(Layers::LANDLOCK);
    }
    let [low, high] = layers.bits().to_le_bytes();
    rustix::io::write(status, &[0, low, high]).map_err(errno(Step::Descriptors))?;
    descriptors(order.image, order.socket, status)
}

/// Asks the kernel to end this process before others when memory runs out, not to join its pages with those of
/// others, and to keep it apart in what processors guess. Where it can't, the node's report says so.
fn first_to_go() {
    // PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH (linux/prctl.h).
    const GUESSES: [libc::c_ulong; 3] = [0, 1, 2];
    let _absent = std::fs::write("/proc/self/oom_score_adj", "1000");
    // SAFETY: prctl with constant arguments.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        for guess in GUESSES {
            libc::prctl(libc::PR_SET_SPECULATION_CTRL, guess, libc::PR_SPEC_FORCE_DISABLE, 0, 0);
        }
        libc::prctl(
            libc::PR_SCHED_CORE,
            libc::PR_SCHED_CORE_CREATE,
            0,
            libc::PR_SCHED_CORE_SCOPE_THREAD_GROUP,
            0,
        );
    }
}

/// The last steps, with the descriptors in place; returns only if one fails.
fn depart(order: &Order<'_>) -> Failed {
    // After the user change, which clears it (prctl(2)).
    // SAFETY: prctl with constant arguments.
    let signal = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    if let Err(failed) = check(Step::Parent, signal) {
        return failed;
    }
    if order.has(Layers::NO_NEW_PRIVS) {
        // SAFETY: prctl with constant arguments.
        let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        if let Err(failed) = check(Step::Filter, set) {
            return failed;
        }
    }
    if order.has(Layers::SETUP) && order.setup.install().is_err() {
        return Failed::at(Step::Filter, Errno::INVAL);
    }
    let arguments: [*const libc::c_char; 2] = [c"worker".as_ptr(), std::ptr::null()];
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    const EMPTY: &CStr = c"";
    // SAFETY: null-terminated arrays of null-terminated strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            IMAGE_AT,
            EMPTY.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Failed::at(Step::Exec, Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// An empty, read-only root with room for one inode: its own.
fn empty_root() -> Result<(), Failed> {
    const BASE: &CStr = c"/tmp";
    let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let null = std::ptr::null();
    // SAFETY: mount-family calls with constant, null-terminated strings.
    unsafe {
        check(
            Step::Root,
            libc::mount(c"none".as_ptr(), c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()),
        )?;
        check(
            Step::Root,
            libc::mount(
                c"tmpfs".as_ptr(),
                BASE.as_ptr(),
                c"tmpfs".as_ptr(),
                quiet,
                c"size=4k,nr_inodes=1,mode=555".as_ptr().cast(),
            ),
        )?;
        check(Step::Root, libc::chdir(BASE.as_ptr()))?;
        check(Step::Root, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as libc::c_int)?;
        check(Step::Root, libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(Step::Root, libc::chdir(c"/".as_ptr()))?;
        check(
            Step::Root,
            libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                null,
                libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | quiet,
                null.cast(),
            ),
        )
    }
}

/// A root that has been removed: empty, and nothing can be made in it (rmdir(2)). Root in a container that may make no
/// mount namespace usually may still call chroot(2).
fn removed_root() -> Result<(), Failed> {
    let errno = |errno| Failed::at(Step::Root, errno);
    let name = format!("/tmp/bulkhead-root-{}", rustix::process::getpid());
    let searchable = rustix::fs::Mode::from_raw_mode(0o555);
    rustix::fs::mkdir(&name, searchable).map_err(errno)?;
    let entered = rustix::process::chdir(&name).and_then(|()| {
        // Against the umask.
        rustix::fs::chmod(".", searchable)?;
        rustix::fs::rmdir(&name)?;
        rustix::process::chroot(".")
    });
    entered.map_err(errno)
}

fn limits(program: Program) -> Result<(), Failed> {
    for (resource, value) in [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_SIGPENDING, 8),
        (libc::RLIMIT_NICE, 0),
        (libc::RLIMIT_RTPRIO, 0),
        // The socket, the image until exec, three copies for start-up, code and arena.
        (libc::RLIMIT_NOFILE, crate::lockdown::DESCRIPTORS_MAX as u64),
        (libc::RLIMIT_STACK, program.stack_bytes()),
    ] {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: a valid rlimit structure.
        check(Step::Limits, unsafe { libc::setrlimit(resource, &raw const limit) })?;
    }
    Ok(())
}

fn identity(order: &Order<'_>) -> Result<(), Failed> {
    // SECBIT_NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE; all locked (capabilities(7)).
    const SECUREBITS: libc::c_ulong = 0b1110_1111;
    // SAFETY: prctl, setgroups, setresgid/uid and capset with constant or owned arguments.
    unsafe {
        if order.has(Layers::CAPABILITIES) {
            for capability in 0..64 {
                // Past the last one the kernel knows: EINVAL.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            check(Step::Capabilities, libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS & !0b1_0000, 0, 0, 0))?;
        }
        if let User::Own(id) = order.user {
            check(Step::User, libc::setgroups(0, std::ptr::null()))?;
            check(Step::User, libc::setresgid(id, id, id))?;
            check(Step::User, libc::setresuid(id, id, id))?;
        }
        if order.has(Layers::CAPABILITIES) {
            let header: [u32; 2] = [0x2008_0522, 0];
            let none = [0u32; 6];
            check(
                Step::Capabilities,
                libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) as libc::c_int,
            )?;
        }
    }
    if !order.has(Layers::LIMITS) {
        return Ok(());
    }
    // After the user change: the count is per user.
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid rlimit structure.
    check(Step::Limits, unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) })
}

/// Landlock at the highest ABI the kernel has, with no rule: every handled access is refused. Whether it is in force:
/// the root, which anybody could read, can't be read any more.
fn landlock() -> bool {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
    };
    let enforced = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V6)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.restrict_self())
        .is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced);
    enforced && std::fs::read_dir("/").is_err()
}

/// Number of the status pipe's descriptor at exec.
const STATUS_AT: libc::c_int = 4;
/// Number of the image's descriptor at exec.
const IMAGE_AT: libc::c_int = 5;

/// The socket at 3, copies of it at 0 to 2 (see `lockdown::enter`), the image at 5, closed by exec, and
/// the status pipe at 4, closed by exec; nothing else.
fn descriptors(image: BorrowedFd<'_>, socket: &Socket, status: &OwnedFd) -> Result<(), Failed> {
    // Out of the way first, so that no target number is a source.
    let high = |file: BorrowedFd<'_>| {
        // SAFETY: fcntl on an open descriptor.
        let copy = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 8) };
        check(Step::Descriptors, copy).map(|()| copy)
    };
    let (image, socket, status) = (high(image)?, high(socket.as_fd())?, high(status.as_fd())?);
    // SAFETY: descriptor calls on numbers that only this function uses from here to exec.
    unsafe {
        for at in 0..4 {
            check(Step::Descriptors, libc::dup2(socket, at))?;
        }
        check(Step::Descriptors, libc::dup3(status, STATUS_AT, libc::O_CLOEXEC))?;
        check(Step::Descriptors, libc::dup3(image, IMAGE_AT, libc::O_CLOEXEC))?;
        check(Step::Descriptors, libc::close_range(6, u32::MAX, 0))
    }
}
