//! Where confined processes come from.
//!
//! Two traits, so that the conversation can be led with a peer that lies: the product's one implementation is
//! [`LauncherSource`].

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use execution::BackendError;
use execution::memory::limit;
use rustix::io::Errno;
use rustix::process::Pid;
use sandbox_os::cgroup::{Group, Groups};
use sandbox_os::processor::Spent;
use sandbox_os::pull::{PullError, Span};
use sandbox_os::verify::{self, NotConfined, Phase};
use sandbox_os::{Ended, LaunchError, LaunchedWorker, Program, Socket, SocketError, machine, processor};
use sandbox_protocol::COMPILER_MEMORY_BYTES_MAX;

use crate::launchers::Launchers;

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
    /// Lets the process have at most `bytes` of memory, where there is a way to.
    ///
    /// # Errors
    /// The kernel's; above all, that it has more already.
    fn limit_memory(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
    /// Makes it run on a core, where there is a way to; elsewhere it only runs slower.
    fn place(&self, _core: usize) {}
    /// What it has had of processors; `None` where that can't be told.
    fn processor_time(&self) -> Option<Spent> {
        None
    }
    /// Puts it behind others that want its core, or back among them. Whether that was done: what isn't permitted, or
    /// not now, is left out.
    fn stand_behind(&self, _behind: bool) -> bool {
        false
    }
    /// Ends and reaps it; says how it ended, which may have been before.
    fn kill(&mut self) -> Ended;
}

/// Memory that a worker may take before it has a canister: its program, and what its start-up touches.
const READY_BYTES_MAX: u64 = 256 << 20;
/// Memory that a compiler may take: what it allows itself, its program and its stack.
const COMPILER_BYTES_MAX: u64 = COMPILER_MEMORY_BYTES_MAX + (256 << 20);

/// Processes of one program from the launchers.
#[derive(Debug)]
pub struct LauncherSource {
    launchers: Arc<Launchers>,
    program: Program,
    /// Memory that one may take from its launch on.
    bytes_max: u64,
    /// Where this process may make any.
    groups: Option<Groups>,
    private_images: bool,
}

impl LauncherSource {
    /// Workers that together take at most `memory_bytes_max`, where there are control groups; each with a copy of its
    /// program, or all with the same pages of it.
    #[must_use]
    pub fn new(launchers: Arc<Launchers>, memory_bytes_max: u64, private_images: bool) -> Self {
        let groups = launchers.groups(memory_bytes_max);
        let (program, bytes_max) = (Program::Worker, READY_BYTES_MAX);
        Self { launchers, program, bytes_max, groups, private_images }
    }

    /// Compilers that together take at most `memory_bytes_max`, where there are control groups.
    #[must_use]
    pub fn compilers(launchers: Arc<Launchers>, memory_bytes_max: u64) -> Self {
        let groups = launchers.groups(memory_bytes_max);
        let (program, bytes_max) = (Program::Compiler, COMPILER_BYTES_MAX);
        // Each lives for one module, so there is nobody to watch it for long.
        Self { launchers, program, bytes_max, groups, private_images: false }
    }

    fn group(&self) -> Result<Option<Group>, BackendError> {
        let group = self.groups.as_ref().map(|groups| groups.group(self.bytes_max)).transpose();
        group.map_err(|error| match limit_met(&error) {
            Some(limit) => BackendError::Exhausted { limit, detail: format!("a control group: {error}") },
            None => BackendError::Spawn(format!("a control group: {error}")),
        })
    }
}

impl WorkerSource for LauncherSource {
    fn launch(&self) -> Result<Box<dyn WorkerProcess>, BackendError> {
        let worker = self.launchers.launch(self.program, self.private_images, || self.group())?;
        Ok(Box::new(Confined { worker, launchers: Arc::clone(&self.launchers) }))
    }

    fn private_bytes(&self, pid: i32) -> Option<u64> {
        machine::private_bytes(pid).ok()
    }
}

/// A worker, and who can look at it more closely than the node.
#[derive(Debug)]
struct Confined {
    worker: LaunchedWorker,
    launchers: Arc<Launchers>,
}

impl Confined {
    /// Whether the RUN filter is the real one, where the kernel tells.
    fn verify_filters(&self) -> Result<(), NotConfined> {
        let found = match self.launchers.has_filters_of_run(self.worker.pid) {
            Ok(true) => {
                self.launchers.filters_were_told();
                return Ok(());
            }
            Ok(false) => "another filter".into(),
            // Not root, or filtered itself, or a kernel that keeps no filters: the number of them has to do. Not so if
            // it told them of another worker.
            Err(LaunchError::Step { source, .. })
                if !self.launchers.filters_are_told()
                    && matches!(
                        Errno::from_io_error(&source),
                        Some(Errno::ACCESS | Errno::PERM | Errno::IO)
                    ) =>
            {
                return Ok(());
            }
            Err(error) => error.to_string(),
        };
        Err(NotConfined { layer: "filter of RUN", found, expected: "SETUP, LOAD and RUN".into() })
    }
}

impl WorkerProcess for Confined {
    fn pid(&self) -> i32 {
        self.worker.pid
    }

    fn socket(&self) -> &Socket {
        &self.worker.socket
    }

    fn layers(&self) -> Vec<(&'static str, bool)> {
        self.worker.layers.iter().map(|layer| (layer.name, layer.on)).collect()
    }

    fn verify(&self, phase: Phase, memory: &[Range<u64>]) -> Result<(), NotConfined> {
        // First, because with RUN in force nothing can change any more that decides below. That there are no more filters
        // than these three is counted there.
        if phase == Phase::Run {
            self.verify_filters()?;
        }
        verify::launched(&self.worker, phase, memory)
    }

    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        self.worker.group().map_or(Ok(()), |group| group.limit_memory(bytes))
    }

    fn pull(&self, from: &[Span], into: Vec<&mut [u8]>) -> Result<(), PullError> {
        sandbox_os::pull::copy(self.worker.pid, from, into)
    }

    fn place(&self, core: usize) {
        // Only speed depends on it, and the status shows layers, not placement.
        if let Some(pid) = Pid::from_raw(self.worker.pid) {
            let _not_permitted = sandbox_os::place::pin(pid, core);
        }
    }

    fn processor_time(&self) -> Option<Spent> {
        processor::spent(self.worker.pid).ok()
    }

    fn stand_behind(&self, behind: bool) -> bool {
        processor::behind(self.worker.pid, behind).is_ok()
    }

    fn kill(&mut self) -> Ended {
        self.worker.kill()
    }
}

pub(crate) fn refused(error: LaunchError) -> BackendError {
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
