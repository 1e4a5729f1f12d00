//! The launchers of a process: one that is asked, and one in reserve.

use std::sync::{Arc, Mutex};

use execution::BackendError;
use sandbox_os::cgroup::Group;
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
}

impl Images {
    fn programs(&self) -> [&'static [u8]; 1] {
        [self.worker]
    }
}

/// Starts processes. A launcher that dies is replaced by the one in reserve, which makes itself another: the node may
/// have given up the rights by then that a launcher is started with.
pub struct Launchers {
    images: Images,
    pair: Mutex<Pair>,
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
        Ok(Arc::new(Self { images, pair: Mutex::new(pair) }))
    }

    /// Starts a process of `program`, in a group that `group` makes, if it does.
    pub(crate) fn launch(
        &self,
        program: Program,
        group: impl Fn() -> Result<Option<Group>, BackendError>,
    ) -> Result<LaunchedWorker, BackendError> {
        let launcher = self.active();
        match launcher.launch(program, group()?) {
            Err(LaunchError::Gone(_)) => {
                self.instead_of(&launcher)?.launch(program, group()?).map_err(refused)
            }
            launched => launched.map_err(refused),
        }
    }

    /// See [`Launcher::has_filters_of_run`].
    pub(crate) fn has_filters_of_run(&self, pid: i32) -> Result<bool, LaunchError> {
        self.active().has_filters_of_run(pid)
    }

    fn active(&self) -> Arc<Launcher> {
        Arc::clone(&lock(&self.pair).active)
    }

    /// The launcher to ask now that `gone` is.
    fn instead_of(&self, gone: &Arc<Launcher>) -> Result<Arc<Launcher>, BackendError> {
        let mut pair = lock(&self.pair);
        // Another thread may have been first.
        if Arc::ptr_eq(&pair.active, gone) {
            *pair = match pair.reserve.take().map(|next| (next.successor(), next)) {
                Some((Ok(reserve), next)) => Pair { active: Arc::new(next), reserve: Some(reserve) },
                Some((Err(_), _)) | None => Pair::start(&self.images)?,
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
