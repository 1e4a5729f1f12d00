//! The launcher: a small process, started before the node holds anything, that starts workers.
//!
//! A request is one byte and what it calls for: start one of the launcher's programs, make a successor, or look which
//! filters a process has. The images, the user ids and the layers are the launcher's own. A reply is a fixed record and
//! at most two descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::Layers;
use crate::cgroup::Group;
use crate::ended::Ended;
use crate::filter::Filter;
use crate::jail::{self, NAMESPACES, Order, User};
use crate::socket::{Socket, SocketError};

/// First user id given to workers (root only), far above people, services and containers.
const USERS_FIRST: u32 = 2_000_000_000;
/// Ids used in turn. Each launcher starts at a random one, so that the workers of two launchers (one died and
/// left its workers; two nodes on one machine) don't meet.
const USERS: u32 = 1 << 27;
/// How long the node waits for a launch.
const PATIENCE: Duration = Duration::from_secs(10);
/// First byte of the packet that brings the images.
const IMAGES: u8 = 0;
/// Request for a launcher that takes this one's place when it dies. 1 and 2 are [`Program`]s.
const SUCCEED: u8 = 3;
/// Request to look whether a process has the filters of a worker in RUN; its id follows.
const FILTERS: u8 = 4;
/// Beside a program: from a copy of its image.
const PRIVATE: u8 = 0x80;
const REQUEST_BYTES_MAX: usize = 5;
const REPLY_BYTES: usize = 12;
/// Step that failed or 0, errno, layers in force; process id; user id.
type Reply = [u8; REPLY_BYTES];

/// What a launcher starts, and the request for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Program {
    /// A process that runs one canister.
    Worker = 1,
    /// A process that compiles one module.
    Compiler = 2,
}

impl Program {
    /// All, in the order of their images.
    const ALL: [Self; 2] = [Self::Worker, Self::Compiler];

    /// Its stack's limit.
    pub(crate) fn stack_bytes(self) -> u64 {
        match self {
            // The engine's own frames and slack: guest code has stacks of its own.
            Self::Worker => 16 << 20,
            // Modules nest deeply, and are validated and compiled on it.
            Self::Compiler => 64 << 20,
        }
    }
}

/// Why no worker could be had.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher itself could not be started.
    #[error("the launcher could not be started: {0}")]
    Launcher(std::io::Error),
    /// The launcher is gone or doesn't answer; start a new one.
    #[error("the launcher doesn't answer: {0}")]
    Gone(SocketError),
    /// A step of the set-up failed.
    #[error("{step}: {source}")]
    Step {
        /// The step, with the limit's name where one is usual.
        step: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// This user may not make namespaces and isn't root: no separate user is possible.
    #[error(
        "workers need a user of their own: run as root, or allow unprivileged user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0)"
    )]
    NoSeparateUser,
}

/// A layer of confinement, as found at launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub name: &'static str,
    /// Whether it is in force.
    pub on: bool,
}

/// A worker process that has been exec'ed. Dropping it kills and reaps the process.
#[derive(Debug)]
pub struct LaunchedWorker {
    /// Its process id in the node's namespace.
    pub pid: i32,
    /// The user it runs as, seen from the node.
    pub uid: u32,
    /// The node's end of its socket.
    pub socket: Socket,
    /// Layers set up before exec.
    pub layers: Vec<Layer>,
    pidfd: OwnedFd,
    ended: Option<Ended>,
    // After the process is gone: a group that has one can't be removed.
    group: Option<Group>,
}

impl LaunchedWorker {
    /// Its control group, if it has one.
    #[must_use]
    pub fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Kills the process and waits for it, so that its id can't be reused while we hold it.
    /// Returns how it ended, which may have been before this call.
    pub fn kill(&mut self) -> Ended {
        *self.ended.get_or_insert_with(|| end(&self.pidfd))
    }
}

/// Kills a child, reaps it, and tells how it ended.
fn end(pidfd: &OwnedFd) -> Ended {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other.ok().flatten(),
        }
    };
    let ended = |status: rustix::process::WaitIdStatus| {
        let exited = status.exit_status().map(Ended::Exited);
        exited.or_else(|| status.terminating_signal().map(Ended::Signal))
    };
    status.and_then(ended).unwrap_or(Ended::Unknown)
}

impl Drop for LaunchedWorker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The node's end of the launcher.
#[derive(Debug)]
pub struct Launcher {
    /// `None`: a reply didn't come, or not as it should. The next one could be that of another request.
    socket: Mutex<Option<Socket>>,
    pid: u32,
    pidfd: OwnedFd,
}

impl Launcher {
    /// Starts the launcher from its own image and gives it its programs': the worker's, then the compiler's, as far as
    /// there are. Call it first thing in `main`.
    ///
    /// # Errors
    /// [`LaunchError::Launcher`].
    pub fn start(launcher: &[u8], programs: &[&[u8]]) -> Result<Self, LaunchError> {
        reap_ourselves();
        let launcher = crate::image::sealed(launcher).map_err(LaunchError::Launcher)?;
        let images: io::Result<Vec<OwnedFd>> =
            programs.iter().map(|image| crate::image::sealed(image)).collect();
        let images = images.map_err(LaunchError::Launcher)?;
        let images: Vec<_> = images.iter().map(AsFd::as_fd).collect();
        let (ours, theirs) = Socket::pair().map_err(LaunchError::Gone)?;
        let (pid, pidfd) = on_lasting_thread(move || spawn(&launcher, theirs))
            .and_then(|spawned| spawned)
            .map_err(LaunchError::Launcher)?;
        ours.send_with_files(&[IMAGES], &images).map_err(LaunchError::Gone)?;
        Ok(Self { socket: Mutex::new(Some(ours)), pid, pidfd })
    }

    /// The launcher's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Has the launcher make another one like itself. The node may have given up the rights that it started this one
    /// with, so it keeps one in reserve.
    ///
    /// # Errors
    /// [`LaunchError::Step`], [`LaunchError::Gone`].
    pub fn successor(&self) -> Result<Self, LaunchError> {
        let reply = self.ask(&[SUCCEED], &[])?;
        let (pid, [pidfd, end]) = (reply.word(4), reply.started()?);
        Ok(Self { socket: Mutex::new(Some(Socket::from(end))), pid, pidfd })
    }

    /// Whether the last three filters of process `pid` are, instruction by instruction, those of a worker in RUN.
    ///
    /// # Errors
    /// The kernel's. It tells filters to root alone (CAP_SYS_ADMIN), and to nobody who is filtered itself.
    pub fn has_filters_of_run(&self, pid: i32) -> Result<bool, LaunchError> {
        let mut request = [FILTERS; REQUEST_BYTES_MAX];
        request[1..].copy_from_slice(&pid.to_le_bytes());
        Ok(self.ask(&request, &[])?.word(4) == 1)
    }

    /// Asks and waits. A launcher that fails once is not asked again.
    fn ask(&self, request: &[u8], files: &[BorrowedFd<'_>]) -> Result<Answer, LaunchError> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match &*socket {
            Some(socket) => Self::converse(socket, request, files),
            None => Err(LaunchError::Gone(SocketError::Closed)),
        };
        if matches!(answer, Err(LaunchError::Gone(_))) {
            *socket = None;
        }
        answer
    }

    fn converse(socket: &Socket, request: &[u8], files: &[BorrowedFd<'_>]) -> Result<Answer, LaunchError> {
        socket.send_with_files(request, files).map_err(LaunchError::Gone)?;
        socket.set_receive_patience(PATIENCE).map_err(LaunchError::Gone)?;
        let mut reply = [0u8; REPLY_BYTES];
        let received = socket.receive_with_files(&mut reply);
        let answer = Answer { reply, files: Vec::new() };
        if let Err(SocketError::Os(Errno::MFILE)) = received {
            // The process that they belong to would be nobody's. It is our child: until it is reaped, its number
            // is not another's.
            if let Some(pid) = Pid::from_raw(answer.word(4) as i32) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
            }
            let step = "receiving a process's descriptors (limit: RLIMIT_NOFILE)";
            return Err(LaunchError::Step { step, source: Errno::MFILE.into() });
        }
        let (length, files) = received.map_err(LaunchError::Gone)?;
        if length != REPLY_BYTES {
            return Err(malformed());
        }
        if reply[0] != 0 {
            // A child that failed on its way to exec is ours to reap all the same.
            for pidfd in files {
                end(&pidfd);
            }
            if reply[0] == NO_SEPARATE_USER {
                return Err(LaunchError::NoSeparateUser);
            }
            let source = std::io::Error::from_raw_os_error(reply[1].into());
            let step = jail::Step::numbered(reply[0]).map_or("unknown step", jail::Step::describe);
            return Err(LaunchError::Step { step, source });
        }
        Ok(Answer { files, ..answer })
    }

    /// Starts one process of `program`, in `group` if there is one. With a private image it shares no page of its code
    /// with another process.
    ///
    /// # Errors
    /// [`LaunchError::Step`] with the step that failed, [`LaunchError::Gone`] when the launcher died.
    pub fn launch(
        &self,
        program: Program,
        private_image: bool,
        group: Option<Group>,
    ) -> Result<LaunchedWorker, LaunchError> {
        let step = jail::Step::Groups.describe();
        let entries = group.as_ref().map_or(Ok(Vec::new()), Group::entries);
        let entries = entries.map_err(|source| LaunchError::Step { step, source })?;
        let entries: Vec<_> = entries.iter().map(AsFd::as_fd).collect();
        let private = if private_image { PRIVATE } else { 0 };
        let reply = self.ask(&[program as u8 | private], &entries)?;
        let (pid, uid) = (reply.word(4), reply.word(8));
        let in_force = Layers::from_bits(u16::from_le_bytes([reply.reply[2], reply.reply[3]]));
        let [pidfd, end] = reply.started()?;
        let socket = Socket::from(end);
        socket.refuse_files();
        let layer = |name, layer| Layer { name, on: in_force.contains(layer) };
        let mut layers: Vec<Layer> =
            NAMESPACES.iter().map(|namespace| layer(namespace.name, namespace.layer)).collect();
        if in_force.contains(Layers::CHROOT) {
            layers.push(layer("empty root by chroot", Layers::CHROOT));
        }
        layers.push(layer("landlock", Layers::LANDLOCK));
        layers.push(Layer { name: "control group", on: group.is_some() });
        layers.push(Layer { name: "user id of its own", on: uid != rustix::process::geteuid().as_raw() });
        Ok(LaunchedWorker { pid: pid as i32, uid, socket, layers, pidfd, ended: None, group })
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        end(&self.pidfd);
    }
}

/// A reply, and what came with it.
struct Answer {
    reply: Reply,
    files: Vec<OwnedFd>,
}

impl Answer {
    fn word(&self, at: usize) -> u32 {
        let [.., a, b, c, d] = self.reply[..at + 4] else { return 0 };
        u32::from_le_bytes([a, b, c, d])
    }

    /// A process that was started: what it is killed by, and the node's end of its socket.
    fn started(self) -> Result<[OwnedFd; 2], LaunchError> {
        <[OwnedFd; 2]>::try_from(self.files).map_err(|_| malformed())
    }
}

fn malformed() -> LaunchError {
    LaunchError::Gone(SocketError::TooLong(REPLY_BYTES))
}

/// Takes back an ignored SIGCHLD, which exec hands on: with it the kernel reaps children by itself (wait(2)), and
/// the number of a dead worker could be another process's while the node still uses it.
fn reap_ourselves() {
    // SAFETY: sigaction with valid or null structures; nothing but an inherited "ignore" is changed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut action);
        if action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Runs something on the thread that all launchers and workers are children of, which lives as long as this process: the
/// kernel sends their parent-death signal when the *thread* that is their parent ends.
pub(crate) fn on_lasting_thread<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    type Job = Box<dyn FnOnce() + Send>;
    static JOBS: OnceLock<Option<mpsc::Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        let parent = thread::Builder::new().name("workers-parent".into()).spawn(move || {
            // The sender is static, so this never ends.
            jobs.into_iter().for_each(|job| job());
        });
        parent.ok().map(|_| sender)
    });
    let gone = || io::Error::other("no thread could be started for it (limit: processes)");
    let (done, result) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || {
        let _nobody_waits = done.send(job());
    });
    jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())
}

fn spawn(program: &OwnedFd, control: Socket) -> io::Result<(u32, OwnedFd)> {
    // It begins as this thread is, which began as the one that was the first to start something.
    #[cfg(feature = "tsc")]
    crate::tsc::open();
    let child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(control)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // Nobody reaps it before its handle is there, so the number is its own.
    let pid = child.id();
    let number = Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?;
    Ok((pid, rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())?))
}

const NO_SEPARATE_USER: u8 = 255;

/// The launcher's life: take the images, then do what is asked until the node closes. Each process gets those of
/// `layers` that this machine allows; the product's launcher asks for [`Layers::ALL`].
///
/// # Errors
/// When the socket on standard input isn't what [`Launcher::start`] gives.
pub fn serve(layers: Layers) -> Result<(), SocketError> {
    close_inherited();
    end_with_the_node();
    if layers.contains(Layers::CAPABILITIES) {
        crate::privileges::keep_for_launching().map_err(SocketError::Os)?;
    }
    let mut node =
        Socket::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(|_| SocketError::Closed)?);
    let (_, images) = node.receive_with_files(&mut [0])?;
    let mut launches = Launches::new(images, layers);
    let mut packet = [0u8; REQUEST_BYTES_MAX];
    loop {
        let (length, files) = match node.receive_with_files(&mut packet) {
            Ok(received) => received,
            Err(SocketError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let started = match packet[..length] {
            [SUCCEED] => match succeed()? {
                Succession::Successor(socket) => {
                    // Another number to start from than its elder's.
                    (node, launches.count) = (socket, random());
                    continue;
                }
                Succession::Elder(started) => started,
            },
            [FILTERS, a, b, c, d] => {
                node.send(&launches.has_filters(i32::from_le_bytes([a, b, c, d])), PATIENCE)?;
                continue;
            }
            [program] => match Program::ALL.into_iter().find(|known| *known as u8 == program & !PRIVATE) {
                Some(known) => launches.start(known, program & PRIVATE != 0, &files),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        match started {
            Ok((reply, pidfd, end)) => node.send_with_files(&reply, &[pidfd.as_fd(), end.as_fd()])?,
            Err((reply, Some(child))) => node.send_with_files(&reply, &[child.as_fd()])?,
            Err((reply, None)) => node.send(&reply, PATIENCE)?,
        }
    }
}

/// Closes what came with exec besides the three standard descriptors: whatever whoever started the node had open and not
/// close-on-exec. It is nobody's here, and the first numbers are needed.
fn close_inherited() {
    // SAFETY: nothing has been opened yet that this process would use. An old kernel leaves them open, as before.
    unsafe { libc::close_range(3, u32::MAX, 0) };
}

/// What a launcher starts processes with.
struct Launches {
    images: Vec<OwnedFd>,
    /// Those that were asked for and that this machine allows.
    layers: Layers,
    /// All of a worker in RUN, SETUP first. Building them takes as long as a good part of a launch.
    filters: [Filter; 3],
    root: bool,
    /// Whether there can be a user apart from the node's.
    separate: bool,
    /// Counts launches, from a random number on.
    count: u32,
}

impl Launches {
    fn new(images: Vec<OwnedFd>, wanted: Layers) -> Self {
        let root = rustix::process::geteuid().is_root();
        let mut launches =
            Self { images, layers: wanted, filters: Filter::all(), root, separate: true, count: random() };
        let user = launches.user();
        launches.separate = jail::can_make(0, user);
        for namespace in NAMESPACES.iter().filter(|namespace| wanted.contains(namespace.layer)) {
            if !jail::can_make(namespace.flag, user) {
                launches.layers = launches.layers.without(namespace.layer);
            }
        }
        if wanted.contains(Layers::MOUNT) && !launches.layers.contains(Layers::MOUNT) {
            launches.layers = launches.layers | Layers::CHROOT;
        }
        launches
    }

    /// The next process's.
    fn user(&self) -> User {
        match (self.layers.contains(Layers::USER), self.root) {
            (false, _) => User::Same,
            (true, true) => User::Own(USERS_FIRST + self.count % USERS),
            (true, false) => User::Namespaced,
        }
    }

    fn has_filters(&self, pid: i32) -> Reply {
        match crate::inspect::last_filters_are(pid, &self.filters) {
            Ok(found) => {
                let mut reply = record(0, 0);
                reply[4] = found.into();
                reply
            }
            Err(errno) => failed(jail::Step::Filter, errno),
        }
    }

    fn start(&mut self, program: Program, private: bool, groups: &[OwnedFd]) -> Launched {
        if !self.separate {
            return Err((record(NO_SEPARATE_USER, 0), None));
        }
        self.count = self.count.wrapping_add(1);
        let shared = self.images.get(usize::from(program as u8 - 1));
        let shared = shared.ok_or((failed(jail::Step::Exec, Errno::NOENT), None))?.as_fd();
        let copy = private.then(|| crate::image::copy(shared)).transpose();
        let copy = copy.map_err(|errno| (failed(jail::Step::Image, errno), None))?;
        let image = copy.as_ref().map_or(shared, AsFd::as_fd);
        let (node_end, worker_end) =
            Socket::pair().map_err(|_| (failed(jail::Step::Descriptors, Errno::MFILE), None))?;
        let (user, [setup, ..]) = (self.user(), &self.filters);
        let order = Order { program, image, socket: &worker_end, user, layers: self.layers, setup, groups };
        let started = jail::start(&order).map_err(|cause| (failed(cause.step, cause.errno), cause.child))?;
        let uid = match user {
            User::Own(id) => id,
            User::Namespaced | User::Same => rustix::process::geteuid().as_raw(),
        };
        let mut reply = record(0, 0);
        reply[2..4].copy_from_slice(&started.layers.bits().to_le_bytes());
        reply[4..8].copy_from_slice(&started.pid.to_le_bytes());
        reply[8..12].copy_from_slice(&uid.to_le_bytes());
        Ok((reply, started.pidfd, node_end))
    }
}

/// A process that was started, or why none was, with the one that failed.
type Launched = Result<(Reply, OwnedFd, Socket), (Reply, Option<OwnedFd>)>;

enum Succession {
    /// This process is the new launcher, and serves this socket.
    Successor(Socket),
    Elder(Launched),
}

/// Makes another launcher, as a sibling: the node is its parent too.
fn succeed() -> Result<Succession, SocketError> {
    let (node_end, launcher_end) = Socket::pair()?;
    Ok(match jail::clone(libc::CLONE_PARENT) {
        Ok(None) => {
            drop(node_end);
            end_with_the_node();
            Succession::Successor(launcher_end)
        }
        Ok(Some((pid, pidfd))) => {
            let mut reply = record(0, 0);
            reply[4..8].copy_from_slice(&pid.to_le_bytes());
            Succession::Elder(Ok((reply, pidfd, node_end)))
        }
        Err(errno) => Succession::Elder(Err((failed(jail::Step::Clone, errno), None))),
    })
}

/// The node's death must not leave a launcher behind; and Ctrl-C in the node's terminal is the node's business.
fn end_with_the_node() {
    // SAFETY: prctl with constant arguments.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    let _ = rustix::process::setsid();
}

/// A number to start from; zero if the kernel has none to give.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}

fn record(step: u8, errno: u8) -> Reply {
    let mut record = [0; REPLY_BYTES];
    record[0] = step;
    record[1] = errno;
    record
}

fn failed(step: jail::Step, errno: Errno) -> Reply {
    record(step as u8, errno.raw_os_error() as u8)
}
