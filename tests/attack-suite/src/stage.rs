//! Where attacks are performed: hostile workers, launched with the layers that a setting says and locked as far as it
//! says.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hostile::{Change, Order, Own, Plan, Report};
use sandbox_os::cgroup::Groups;
use sandbox_os::verify::{self, Phase};
use sandbox_os::{Ended, LaunchedWorker, Launcher, Layers, PACKET_BYTES_MAX, Program, Socket, SocketError};

use crate::images;

/// Longest wait for anything that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A death by a filter.
pub const SIGSYS: Ended = Ended::Signal(libc::SIGSYS);
/// How it tells a death by a memory fault.
pub const SIGSEGV: Ended = Ended::Signal(libc::SIGSEGV);

/// Memory that a worker may have, where it has a control group.
pub const GROUP_BYTES: u64 = 64 << 20;
/// Memory of all of them.
const ALL_GROUPS_BYTES: u64 = 2 << 30;

/// How a worker is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// By the product's launcher.
    Real,
    /// By a launcher that puts on these layers and no other.
    With(Layers),
}

/// What there is around a worker, and what it does to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Setting {
    /// How it is started.
    pub start: Start,
    /// What it does to itself.
    pub plan: Plan,
}

impl Setting {
    /// Nothing at all: for controls.
    pub const OPEN: Self = Self::of(Layers::NONE, Own::NOTHING);
    /// The real thing up to the LOAD lock.
    pub const LOAD: Self = Self { start: Start::Real, plan: plan(Own::REAL_LOAD) };
    /// The real thing under the RUN lock.
    pub const RUN: Self = Self { start: Start::Real, plan: plan(Own::REAL_RUN) };

    /// Layers of the launcher's and defences of the worker's own.
    #[must_use]
    pub const fn of(layers: Layers, own: Own) -> Self {
        Self { start: Start::With(layers), plan: plan(own) }
    }

    /// The same with a filter changed.
    #[must_use]
    pub const fn with(mut self, change: Change) -> Self {
        self.plan.change = change;
        self
    }
}

const fn plan(own: Own) -> Plan {
    Plan { own, change: Change::None }
}

/// What a worker did with an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It says that it worked.
    Done {
        /// Results of its calls, or what its routine found.
        results: Vec<u64>,
        /// What its calls wrote.
        buffer: Vec<u8>,
    },
    /// It says that the kernel refused, with this error number.
    Refused(i32),
    /// It died, and how.
    Died(Ended),
    /// Nothing within [`PATIENCE`].
    Silent,
}

/// Keeps launchers, one a setting.
#[derive(Debug)]
pub struct Stage {
    /// Whether this process is root. If not, namespaces come with a user namespace.
    pub root: bool,
    launchers: Mutex<HashMap<Setting, Launcher>>,
    groups: Option<Groups>,
    // After those that lie in them.
    _own_groups: Option<Groups>,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// No launcher is running yet.
    #[must_use]
    pub fn new() -> Self {
        let own_groups = Groups::of_this_process().ok();
        Self {
            root: rustix::process::geteuid().is_root(),
            launchers: Mutex::default(),
            groups: own_groups.as_ref().and_then(|groups| groups.sharing(ALL_GROUPS_BYTES).ok()),
            _own_groups: own_groups,
        }
    }

    /// Whether workers have control groups of their own.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// The control groups that there are for workers.
    #[must_use]
    pub fn groups(&self) -> usize {
        let directories = self.groups.iter().flat_map(Groups::directories);
        let entries = directories.filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir())).count()
    }

    /// The setting as this user can have it: an ordinary user's namespaces need a user namespace.
    fn possible(&self, setting: Setting) -> Setting {
        let Start::With(layers) = setting.start else { return setting };
        let namespaces =
            [Layers::MOUNT, Layers::PID, Layers::NET, Layers::IPC, Layers::UTS, Layers::CGROUP_NAMESPACE];
        let some = namespaces.into_iter().any(|layer| layers.contains(layer));
        let layers = if !self.root && some { layers | Layers::USER } else { layers };
        Setting { start: Start::With(layers), ..setting }
    }

    /// A hostile worker, locked as `setting` says.
    ///
    /// # Errors
    /// What went wrong before it was.
    pub fn worker(&self, setting: Setting) -> Result<Hostile, String> {
        self.worker_from(setting, false)
    }

    /// The same, with a private copy of its image if that is asked for.
    ///
    /// # Errors
    /// As [`Stage::worker`].
    pub fn worker_from(&self, setting: Setting, private_image: bool) -> Result<Hostile, String> {
        let setting = self.possible(setting);
        let launched = self.launch(setting, private_image)?;
        let mut worker = Hostile { launched };
        match worker.answer() {
            Said::Done { .. } => {}
            other => return Err(format!("the worker doesn't get as far as its first lock: {other:?}")),
        }
        if setting.plan.own.has(Own::RUN) {
            match worker.ask(&Order::Run, &[]) {
                Said::Done { .. } => {}
                other => return Err(format!("the worker doesn't get as far as the RUN lock: {other:?}")),
            }
        }
        if setting.start == Start::Real {
            // A node gives nothing to a worker that doesn't pass this.
            let phase = if setting.plan.own.has(Own::RUN) { Phase::Run } else { Phase::Load };
            verify::launched(&worker.launched, phase, &[])
                .map_err(|why| format!("the node refuses it: {why}"))?;
        }
        Ok(worker)
    }

    /// Whether the last filters of a worker are those of RUN, as its launcher reads them back from the kernel.
    ///
    /// # Errors
    /// The kernel tells it to root alone.
    pub fn has_filters_of_run(&self, setting: Setting, worker: &Hostile) -> Result<bool, String> {
        let launchers = self.launchers.lock().unwrap_or_else(PoisonError::into_inner);
        let launcher = launchers.get(&self.possible(setting)).ok_or("there is no such launcher")?;
        launcher.has_filters_of_run(worker.pid()).map_err(|error| error.to_string())
    }

    fn launch(&self, setting: Setting, private_image: bool) -> Result<LaunchedWorker, String> {
        let mut launchers = self.launchers.lock().unwrap_or_else(PoisonError::into_inner);
        let launcher = match launchers.entry(setting) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let image = images::worker_with(setting.plan);
                let launcher = match setting.start {
                    Start::Real => Launcher::start(images::LAUNCHER, &[&image]),
                    Start::With(layers) => Launcher::start(&images::launcher_with(layers), &[&image]),
                };
                entry.insert(launcher.map_err(|error| error.to_string())?)
            }
        };
        let grouped = match setting.start {
            Start::Real => true,
            Start::With(layers) => layers.contains(Layers::CGROUP),
        };
        let group = self.groups.as_ref().filter(|_| grouped).map(|groups| groups.group(GROUP_BYTES));
        let group = group.transpose().map_err(|error| format!("a control group: {error}"))?;
        launcher.launch(Program::Worker, private_image, group).map_err(|error| error.to_string())
    }
}

/// A hostile worker.
#[derive(Debug)]
pub struct Hostile {
    launched: LaunchedWorker,
}

impl Hostile {
    /// Its process id as this process sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.launched.pid
    }

    /// Its user id as this process sees it.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.launched.uid
    }

    /// The node's end of its socket.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.launched.socket
    }

    /// The launched process itself.
    #[must_use]
    pub fn launched(&self) -> &LaunchedWorker {
        &self.launched
    }

    /// Gives it an order, with descriptors, and hears what came of it.
    pub fn ask(&mut self, order: &Order, files: &[BorrowedFd<'_>]) -> Said {
        self.tell(order, files);
        self.answer()
    }

    /// Gives it an order. If it is gone, [`Hostile::answer`] says so.
    pub fn tell(&self, order: &Order, files: &[BorrowedFd<'_>]) {
        let packet = order.to_bytes();
        let _gone = match files {
            [] => self.launched.socket.send(&packet, PATIENCE),
            files => self.launched.socket.send_with_files(&packet, files),
        };
    }

    /// Waits for its next report, or its end.
    pub fn answer(&mut self) -> Said {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        match self.launched.socket.receive(&mut buffer, PATIENCE) {
            Ok(length) => match Report::from_bytes(&buffer[..length]) {
                Some(Report::Done { results, buffer }) => Said::Done { results, buffer },
                Some(Report::Refused(errno)) => Said::Refused(errno),
                None => Said::Done { results: Vec::new(), buffer: buffer[..length].to_vec() },
            },
            Err(SocketError::Closed) => Said::Died(self.end()),
            Err(_) => Said::Silent,
        }
    }

    /// Kills it, and tells how it ended, which may have been before.
    pub fn end(&mut self) -> Ended {
        self.launched.kill()
    }
}

/// A hostile worker that nobody launched: a plain child of this process, with its environment and its standard error,
/// as programs are usually started.
#[derive(Debug)]
pub struct Inheriting {
    child: Child,
    socket: Socket,
}

impl Inheriting {
    /// Starts one.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn start(errors: Stdio) -> io::Result<Self> {
        Self::start_with(errors, &[])
    }

    /// Starts one with more in its environment than this process has.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn start_with(errors: Stdio, environment: &[(&str, &str)]) -> io::Result<Self> {
        let other = |error: SocketError| io::Error::other(error.to_string());
        let image = sandbox_os::image::sealed(&images::worker_with(plan(Own::NOTHING)))?;
        let (ours, theirs) = Socket::pair().map_err(other)?;
        // Standard input becomes descriptor 3 by a shell, which is how programs are started by hand too.
        let program = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&image));
        let child = Command::new("/bin/sh")
            .args(["-c", "exec \"$0\" 3<&0", &program])
            .envs(environment.iter().copied())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()?;
        let started = Self { child, socket: ours };
        let mut buffer = [0; 64];
        started.socket.receive(&mut buffer, PATIENCE).map_err(other)?;
        Ok(started)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Gives it an order.
    pub fn tell(&self, order: &Order) {
        let _gone = self.socket.send(&order.to_bytes(), PATIENCE);
    }

    /// Gives it an order and hears what came of it.
    pub fn ask(&self, order: &Order) -> Said {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        self.tell(order);
        match self.socket.receive(&mut buffer, PATIENCE) {
            Ok(length) => match Report::from_bytes(&buffer[..length]) {
                Some(Report::Done { results, buffer }) => Said::Done { results, buffer },
                Some(Report::Refused(errno)) => Said::Refused(errno),
                None => Said::Silent,
            },
            Err(_gone) => Said::Died(Ended::Unknown),
        }
    }
}

impl Drop for Inheriting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Borrows descriptors.
pub fn borrowed<T: AsFd>(files: &[T]) -> Vec<BorrowedFd<'_>> {
    files.iter().map(AsFd::as_fd).collect()
}
