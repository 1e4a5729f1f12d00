//! The launcher: a small process, started before the node holds anything, that starts workers.
//!
//! The protocol has one request, `LAUNCH`, without arguments: the image, the user ids and the layers are
//! the launcher's own. The reply is a fixed record and two descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::jail::{self, NAMESPACES, User};
use crate::socket::{Socket, SocketError};

/// First user id given to workers (root only), far above people, services and containers.
const USERS_FIRST: u32 = 2_000_000_000;
/// Ids used in turn. Each launcher starts at a random one, so that the workers of two launchers (one died and
/// left its workers; two nodes on one machine) don't meet.
const USERS: u32 = 1 << 27;
/// How long the node waits for a launch.
const PATIENCE: Duration = Duration::from_secs(10);
const LAUNCH: u8 = 1;
const REPLY_BYTES: usize = 12;
/// Step that failed or 0, errno, namespaces, other layers; process id; user id.
type Reply = [u8; REPLY_BYTES];

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
    ended: Option<String>,
}

impl LaunchedWorker {
    /// Kills the process and waits for it, so that its id can't be reused while we hold it.
    /// Returns how it ended, which may have been before this call.
    pub fn kill(&mut self) -> String {
        if let Some(how) = &self.ended {
            return how.clone();
        }
        let how = end(&self.pidfd);
        self.ended = Some(how.clone());
        how
    }
}

/// Kills a child, reaps it, and tells how it ended.
fn end(pidfd: &OwnedFd) -> String {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    match status {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(libc::SIGSYS)) => "killed by SIGSYS: a system call outside its filter".into(),
            (None, Some(libc::SIGKILL)) => "killed by SIGKILL".into(),
            (None, Some(libc::SIGSEGV)) => "killed by SIGSEGV".into(),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended".into(),
        },
        Ok(None) => "ended".into(),
        Err(errno) => format!("ended, status unknown: {errno}"),
    }
}

impl Drop for LaunchedWorker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The node's end of the launcher.
#[derive(Debug)]
pub struct Launcher {
    socket: Mutex<Socket>,
    child: Child,
}

impl Launcher {
    /// Starts the launcher from its own image and gives it the worker's. Call it first thing in `main`.
    ///
    /// # Errors
    /// [`LaunchError::Launcher`].
    pub fn start(launcher: &[u8], worker: &[u8]) -> Result<Self, LaunchError> {
        reap_ourselves();
        let program = crate::image::sealed(launcher).map_err(LaunchError::Launcher)?;
        let image = crate::image::sealed(worker).map_err(LaunchError::Launcher)?;
        let (ours, theirs) = Socket::pair().map_err(LaunchError::Gone)?;
        let child = spawn_from_lasting_thread(program, theirs).map_err(LaunchError::Launcher)?;
        ours.send_with_files(&[LAUNCH], &[image.as_fd()]).map_err(LaunchError::Gone)?;
        Ok(Self { socket: Mutex::new(ours), child })
    }

    /// The launcher's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts one worker.
    ///
    /// # Errors
    /// [`LaunchError::Step`] with the step that failed, [`LaunchError::Gone`] when the launcher died.
    pub fn launch(&self) -> Result<LaunchedWorker, LaunchError> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.send(&[LAUNCH], PATIENCE).map_err(LaunchError::Gone)?;
        socket.set_receive_patience(PATIENCE).map_err(LaunchError::Gone)?;
        let mut reply = [0u8; REPLY_BYTES];
        let received = socket.receive_with_files(&mut reply);
        let word = |at: usize| u32::from_le_bytes([reply[at], reply[at + 1], reply[at + 2], reply[at + 3]]);
        if let Err(SocketError::Os(Errno::MFILE)) = received {
            // The worker that they belong to would be nobody's. It is our child: until it is reaped, its number
            // is not another's.
            if let Some(pid) = Pid::from_raw(word(4) as i32) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
            }
            let step = "receiving a worker's descriptors (limit: RLIMIT_NOFILE)";
            return Err(LaunchError::Step { step, source: Errno::MFILE.into() });
        }
        let (length, files) = received.map_err(LaunchError::Gone)?;
        let malformed = || LaunchError::Gone(SocketError::TooLong(REPLY_BYTES));
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
            return Err(LaunchError::Step { step: jail::Step::describe(reply[0]), source });
        }
        let Ok([pidfd, end]) = <[OwnedFd; 2]>::try_from(files) else { return Err(malformed()) };
        let socket = Socket::from(end);
        socket.refuse_files();
        let mut layers: Vec<Layer> = NAMESPACES
            .iter()
            .enumerate()
            .map(|(bit, namespace)| Layer { name: namespace.name, on: reply[2] & (1 << bit) != 0 })
            .collect();
        layers.push(Layer { name: "landlock", on: reply[3] & 1 != 0 });
        layers.push(Layer { name: "user id of its own", on: reply[3] & 2 != 0 });
        Ok(LaunchedWorker { pid: word(4) as i32, uid: word(8), socket, layers, pidfd, ended: None })
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

/// Spawns from a thread that lives as long as this process: the kernel sends the parent-death signal of the
/// launcher and of its workers (siblings of it, by CLONE_PARENT) when the *thread* that is their parent ends.
fn spawn_from_lasting_thread(program: OwnedFd, control: Socket) -> io::Result<Child> {
    type Order = (OwnedFd, Socket, mpsc::SyncSender<io::Result<Child>>);
    static ORDERS: OnceLock<Option<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        let parent = thread::Builder::new().name("workers-parent".into()).spawn(move || {
            // The sender is static, so this never ends.
            for (program, control, made) in orders {
                let _ = made.send(spawn(&program, control));
            }
        });
        parent.ok().map(|_| sender)
    });
    let gone = || io::Error::other("no thread could be started for it (limit: processes)");
    let (made, child) = mpsc::sync_channel(1);
    orders.as_ref().ok_or_else(gone)?.send((program, control, made)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

fn spawn(program: &OwnedFd, control: Socket) -> io::Result<Child> {
    Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(control)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

const NO_SEPARATE_USER: u8 = 255;

/// The launcher's life: take the image, then start a worker for each request until the node closes.
///
/// # Errors
/// When the socket on standard input isn't what [`Launcher::start`] gives.
pub fn serve() -> Result<(), SocketError> {
    // SAFETY: prctl with constant arguments. The node's death must not leave a launcher behind.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    // Its own session: Ctrl-C in the node's terminal is the node's business.
    let _ = rustix::process::setsid();
    let node = Socket::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(|_| SocketError::Closed)?);
    let mut packet = [0u8; 1];
    let (_, mut files) = node.receive_with_files(&mut packet)?;
    let image = files.pop().ok_or(SocketError::Closed)?;
    let root = rustix::process::geteuid().is_root();
    let user = |count: u32| if root { User::Own(USERS_FIRST + (count % USERS)) } else { User::Namespaced };
    let mut possible = 0u8;
    let mut flags = 0;
    for (bit, namespace) in NAMESPACES.iter().enumerate() {
        if jail::can_make(namespace.flag, user(0)) {
            possible |= 1 << bit;
            flags |= namespace.flag;
        }
    }
    let separate = root || jail::can_make(0, User::Namespaced);
    let mut count = random();
    loop {
        match node.receive_blocking(&mut packet) {
            Ok(1) if packet == [LAUNCH] => {}
            Ok(_) | Err(SocketError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
        if !separate {
            node.send(&record(NO_SEPARATE_USER, 0), PATIENCE)?;
            continue;
        }
        match launch(&image, user(count), flags, possible) {
            Ok((reply, pidfd, end)) => node.send_with_files(&reply, &[pidfd.as_fd(), end.as_fd()])?,
            Err((reply, Some(child))) => node.send_with_files(&reply, &[child.as_fd()])?,
            Err((reply, None)) => node.send(&reply, PATIENCE)?,
        }
        count = count.wrapping_add(1);
    }
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

fn launch(
    image: &OwnedFd,
    user: User,
    flags: libc::c_int,
    possible: u8,
) -> Result<(Reply, OwnedFd, Socket), (Reply, Option<OwnedFd>)> {
    let (node_end, worker_end) =
        Socket::pair().map_err(|_| (record(jail::Step::Descriptors as u8, libc::EMFILE as u8), None))?;
    let started = jail::start(image.as_fd(), &worker_end, user, flags)
        .map_err(|failed| (record(failed.step as u8, failed.errno.raw_os_error() as u8), failed.child))?;
    let (uid, own) = match user {
        User::Own(id) => (id, true),
        User::Namespaced => (rustix::process::geteuid().as_raw(), false),
    };
    let mut reply = record(0, 0);
    reply[2] = possible;
    reply[3] = u8::from(started.landlock) | u8::from(own) << 1;
    reply[4..8].copy_from_slice(&started.pid.to_le_bytes());
    reply[8..12].copy_from_slice(&uid.to_le_bytes());
    Ok((reply, started.pidfd, node_end))
}
