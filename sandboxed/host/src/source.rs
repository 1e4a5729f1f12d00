//! Where confined processes come from.
//!
//! Two traits, so that the conversation can be led with a peer that lies: the product's one implementation is
//! [`LauncherSource`].

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use execution::BackendError;
use execution::memory::limit;
use rustix::io::Errno;
use rustix::process::Pid;
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{self, NotConfined, Phase};
use sandbox_os::{LaunchError, LaunchedWorker, Launcher, Program, Socket, SocketError, machine};

use crate::status::lock;

/// Starts worker processes.
pub trait WorkerSource: Send + Sync {
    /// Starts one.
    ///
    /// # Errors
    /// [`BackendError::Spawn`] or [`BackendError::Exhausted`].
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError>;
    /// Memory that a worker of its making holds for itself alone, in bytes, as the kernel counts it; `None`
    /// where that can't be told, as of one that is gone.
    fn private_bytes(&self, pid: i32) -> Option<u64>;
}

/// A worker process as the node sees it. Dropping it must end and reap the process.
pub trait WorkerProcess: Send + fmt::Debug {
    /// Its process id.
    fn pid(&self) -> i32;
    /// The node's end of its socket.
    fn socket(&self) -> &Socket;
    /// Layers of confinement and whether each is in force.
    fn layers(&self) -> Vec<(&'static str, bool)>;
    /// Looks at the process from outside: whether it is locked as `phase` calls for, and each range of `memory`
    /// is private memory of its own.
    ///
    /// # Errors
    /// The first layer that is missing.
    fn verify(&self, phase: Phase, memory: &[Range<u64>]) -> Result<(), NotConfined>;
    /// Copies what lies in `from` in the process into `into`, one after the other; both have as many bytes.
    ///
    /// # Errors
    /// See [`PullError`].
    fn pull(&self, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError>;
    /// Makes it run on a core. Where that isn't permitted it only runs slower.
    fn place(&self, core: usize);
    /// Ends and reaps it; says how it ended, which may have been before.
    fn kill(&mut self) -> String;
}

/// Workers from the launcher process, which is started again when it dies.
#[derive(Debug)]
pub struct LauncherSource {
    launcher_image: &'static [u8],
    worker_image: &'static [u8],
    launcher: Mutex<Arc<Launcher>>,
}

impl LauncherSource {
    /// Starts the launcher. Call it early: before the node holds keys.
    ///
    /// # Errors
    /// [`BackendError::Spawn`] or [`BackendError::Exhausted`].
    pub fn start(launcher_image: &'static [u8], worker_image: &'static [u8]) -> Result<Self, BackendError> {
        let launcher = Launcher::start(launcher_image, &[worker_image]).map_err(refused)?;
        Ok(Self { launcher_image, worker_image, launcher: Mutex::new(Arc::new(launcher)) })
    }

    fn restart(&self, gone: &Arc<Launcher>) -> Result<Arc<Launcher>, BackendError> {
        let mut launcher = lock(&self.launcher);
        // Another thread may have been first.
        if Arc::ptr_eq(&launcher, gone) {
            *launcher =
                Arc::new(Launcher::start(self.launcher_image, &[self.worker_image]).map_err(refused)?);
        }
        Ok(Arc::clone(&launcher))
    }
}

impl WorkerSource for LauncherSource {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let launcher = Arc::clone(&lock(&self.launcher));
        let launched = match launcher.launch(Program::Worker) {
            Err(LaunchError::Gone(_)) => self.restart(&launcher)?.launch(Program::Worker),
            other => other,
        };
        Ok(Box::new(launched.map_err(refused)?))
    }

    fn private_bytes(&self, pid: i32) -> Option<u64> {
        machine::private_bytes(pid).ok()
    }
}

impl WorkerProcess for LaunchedWorker {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn socket(&self) -> &Socket {
        &self.socket
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        self.layers.iter().map(|layer| (layer.name, layer.on)).collect()
    }

    fn verify(&self, phase: Phase, memory: &[Range<u64>]) -> Result<(), NotConfined> {
        verify::launched(self, phase, memory)
    }

    fn pull(&self, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError> {
        sandbox_os::pull::copy(self.pid, from, into)
    }

    fn place(&self, core: usize) {
        // Only speed depends on it, and the status shows layers, not placement.
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _not_permitted = sandbox_os::place::pin(pid, core);
        }
    }

    fn kill(&mut self) -> String {
        LaunchedWorker::kill(self)
    }
}

fn refused(error: LaunchError) -> BackendError {
    let limit = match &error {
        LaunchError::Launcher(source) | LaunchError::Step { source, .. } => limit_met(source),
        LaunchError::Gone(SocketError::Os(errno)) => limit_met(&(*errno).into()),
        LaunchError::Gone(_) | LaunchError::NoSeparateUser => None,
    };
    match limit {
        Some(limit) => BackendError::Exhausted { limit, detail: error.to_string() },
        None => BackendError::Spawn(error.to_string()),
    }
}

/// Processes of a user or a control group.
pub(crate) const PROCESSES: &str = "processes (RLIMIT_NPROC, pids.max)";
/// Namespaces of a user.
pub(crate) const NAMESPACES: &str = "namespaces (user.max_*_namespaces)";

/// The name of the limit that a launch met.
fn limit_met(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::AGAIN => Some(PROCESSES),
        Errno::NOSPC => Some(NAMESPACES),
        _ => limit::met(error),
    }
}
