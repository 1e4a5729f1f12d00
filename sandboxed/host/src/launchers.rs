//! The launchers of a process: one that is asked, and one in reserve.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use execution::BackendError;
use sandbox_os::cgroup::{Group, Groups};
use sandbox_os::{LaunchError, LaunchedWorker, Launcher, Program};

use crate::source::refused;
use crate::status::lock;

/// The programs that the sandbox consists of, static executables each.
#[derive(Clone, Copy)]
pub struct Images {
    /// Starts the others.
    pub launcher: &'static [u8],
    /// Runs a canister.
    pub worker: &'static [u8],
    /// Compiles a module.
    pub compiler: &'static [u8],
}

impl Images {
    /// In the order that a launcher expects.
    fn programs(&self) -> [&'static [u8]; 2] {
        [self.worker, self.compiler]
    }
}

/// Starts processes. A launcher that dies is replaced by the one in reserve, which makes itself another: the node may
/// have given up the rights by then that a launcher is started with.
pub struct Launchers {
    images: Images,
    pair: Mutex<Pair>,
    /// Where this process may make any.
    groups: Option<Groups>,
    /// Whether the kernel has told a worker's filters here.
    filters_told: AtomicBool,
}

struct Pair {
    active: Arc<Launcher>,
    reserve: Option<Launcher>,
}

impl Launchers {
    /// Starts both. Call it first thing in `main`: before the node holds keys, and with all rights that it has.
    ///
    /// # Errors
    /// [`BackendError::Spawn`] or [`BackendError::Exhausted`].
    pub fn start(images: Images) -> Result<Arc<Self>, BackendError> {
        let pair = Pair::start(&images)?;
        // Without groups the layers say so.
        Ok(Arc::new(Self {
            images,
            pair: Mutex::new(pair),
            groups: Groups::of_this_process().ok(),
            filters_told: AtomicBool::new(false),
        }))
    }

    /// Control groups that take at most so much memory together, where there are any.
    pub(crate) fn groups(&self, memory_bytes_max: u64) -> Option<Groups> {
        self.groups.as_ref().and_then(|groups| groups.sharing(memory_bytes_max).ok())
    }

    /// Starts a process of `program`, from a copy of its image or from the shared one, in a group that `group` makes, if it does.
    pub(crate) fn launch(
        &self,
        program: Program,
        private_image: bool,
        group: impl Fn() -> Result<Option<Group>, BackendError>,
    ) -> Result<LaunchedWorker, BackendError> {
        let launcher = self.active();
        match launcher.launch(program, private_image, group()?) {
            Err(LaunchError::Gone(_)) => {
                self.instead_of(&launcher)?.launch(program, private_image, group()?).map_err(refused)
            }
            launched => {
                self.keep_a_reserve();
                launched.map_err(refused)
            }
        }
    }

    /// Makes up for a successor that could not be made.
    fn keep_a_reserve(&self) {
        let mut pair = lock(&self.pair);
        if pair.reserve.is_none() {
            pair.reserve = pair.active.successor().ok();
        }
    }

    /// See [`Launcher::has_filters_of_run`]. A launcher that doesn't answer is replaced, and the process is for the
    /// caller to end.
    pub(crate) fn has_filters_of_run(&self, pid: i32) -> Result<bool, LaunchError> {
        let launcher = self.active();
        let answer = launcher.has_filters_of_run(pid);
        if matches!(answer, Err(LaunchError::Gone(_))) {
            // Whoever launches next is told if that fails.
            let _told_later = self.instead_of(&launcher);
        }
        answer
    }

    /// Notes that it told a worker's filters.
    pub(crate) fn filters_were_told(&self) {
        self.filters_told.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(crate) fn filters_are_told(&self) -> bool {
        self.filters_told.load(Ordering::Relaxed)
    }

    fn active(&self) -> Arc<Launcher> {
        Arc::clone(&lock(&self.pair).active)
    }

    /// The launcher to ask now that `gone` is.
    fn instead_of(&self, gone: &Arc<Launcher>) -> Result<Arc<Launcher>, BackendError> {
        let mut pair = lock(&self.pair);
        // Another thread may have been first.
        if Arc::ptr_eq(&pair.active, gone) {
            *pair = match pair.reserve.take() {
                // Without a successor for now, it is better than one that may lack the rights.
                Some(next) => match next.successor() {
                    Err(LaunchError::Gone(_)) => Pair::start(&self.images)?,
                    successor => Pair { active: Arc::new(next), reserve: successor.ok() },
                },
                None => Pair::start(&self.images)?,
            };
        }
        Ok(Arc::clone(&pair.active))
    }
}

impl Pair {
    fn start(images: &Images) -> Result<Self, BackendError> {
        let active = Launcher::start(images.launcher, &images.programs()).map_err(refused)?;
        let reserve = active.successor().map_err(refused)?;
        Ok(Self { active: Arc::new(active), reserve: Some(reserve) })
    }
}

impl std::fmt::Debug for Launchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launchers").field("active", &self.active().pid()).finish_non_exhaustive()
    }
}
