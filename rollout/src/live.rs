//! The policy in force on a node, while its file changes.

mod watch;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};

use crate::policy::FILE_BYTES_MAX;
use crate::{Bounds, Diagnostic, Mode, Policy, Resolution};

/// The policy in force from one moment on.
#[derive(Debug)]
pub struct InForce {
    /// The whole policy.
    pub policy: Policy,
    /// What it says for this node.
    pub resolution: Resolution,
    /// Keys of [`Bounds`] that say something else than when the node started, `table.key` each. What they say now is in
    /// force after another start.
    pub restart_for: Vec<String>,
    /// From 1; one more with every change of the file's content that was accepted.
    pub generation: u64,
    /// When it was swapped in, on the monotonic clock.
    pub since: Instant,
    /// When it was swapped in, on the wall clock.
    pub since_time: SystemTime,
}

impl InForce {
    /// `started`: the bounds that the node started with.
    fn new(policy: Policy, scope: &Scope, generation: u64, started: &Bounds) -> Self {
        let mut resolution = policy.resolve(&scope.subnet, &scope.node);
        resolution.generation = generation;
        let restart_for = started.changed(policy.bounds());
        let (since, since_time) = (Instant::now(), SystemTime::now());
        Self { policy, resolution, restart_for, generation, since, since_time }
    }

    /// The mode in force on this node.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.resolution.mode
    }
}

/// Why a policy file was not taken. The last good one stays in force.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("could not read the policy file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        error: Arc<std::io::Error>,
    },
    /// The file is too large to be a policy.
    #[error("the policy file {} has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its content is wrong.
    #[error("{}", Listed(.0))]
    Invalid(Vec<Diagnostic>),
    /// Its directory could not be watched for changes.
    #[error("could not watch {} for changes: {detail}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the watcher said.
        detail: String,
    },
}

/// All diagnostics and their number.
struct Listed<'a>(&'a [Diagnostic]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.0 {
            writeln!(f, "{diagnostic}")?;
        }
        match self.0.len() {
            1 => write!(f, "1 error"),
            count => write!(f, "{count} errors"),
        }
    }
}

impl Policy {
    /// Reads a policy file, at most [`FILE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Why it is not a valid policy.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        parse(path, &read(path)?)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Policy, LoadError> {
    Policy::parse_bytes(&path.display().to_string(), bytes).map_err(LoadError::Invalid)
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError::Read { path: path.to_owned(), error: Arc::new(error) };
    // A pipe in the file's place would block the watcher for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Told of every change of policy and every refusal, on the thread that read the file.
pub type OnReload = Box<dyn Fn(Result<&Arc<InForce>, &LoadError>) + Send + Sync>;

/// Where this node stands.
struct Scope {
    subnet: String,
    node: String,
}

/// Holds the policy in force. Read without a lock; replaced whole.
pub struct LivePolicy {
    shared: Arc<Shared>,
    watcher: Option<watch::Watcher>,
}

struct Shared {
    scope: Scope,
    path: Option<PathBuf>,
    /// Bounds that the node started with.
    started: Bounds,
    in_force: ArcSwap<InForce>,
    loader: Mutex<Loader>,
    changed: Condvar,
    on_reload: OnReload,
}

/// What reloads, one at a time, know of earlier ones.
#[derive(Default)]
struct Loader {
    /// Content of the policy in force.
    accepted: Vec<u8>,
    last_error: Option<LoadError>,
}

impl LivePolicy {
    /// `mode` for ever, without a file.
    #[must_use]
    pub fn fixed(mode: Mode) -> Arc<Self> {
        let scope = Scope { subnet: String::new(), node: String::new() };
        let in_force = InForce::new(Policy::fixed(mode), &scope, 1, &Bounds::default());
        Arc::new(Self {
            shared: Shared::new(scope, None, in_force, Vec::new(), Box::new(|_| {})),
            watcher: None,
        })
    }

    /// Reads `path` for `node` of `subnet` and follows its changes until dropped.
    ///
    /// # Errors
    /// The file is no valid policy, or can't be watched.
    pub fn watch(path: &Path, subnet: &str, node: &str) -> Result<Arc<Self>, LoadError> {
        Self::watch_with(path, subnet, node, Box::new(|_| {}))
    }

    /// As [`LivePolicy::watch`], and tells `on_reload` of every later change and refusal.
    ///
    /// # Errors
    /// As [`LivePolicy::watch`].
    pub fn watch_with(
        path: &Path,
        subnet: &str,
        node: &str,
        on_reload: OnReload,
    ) -> Result<Arc<Self>, LoadError> {
        let bytes = read(path)?;
        let scope = Scope { subnet: subnet.to_owned(), node: node.to_owned() };
        let policy = parse(path, &bytes)?;
        let bounds = policy.bounds().clone();
        let in_force = InForce::new(policy, &scope, 1, &bounds);
        let shared = Shared::new(scope, Some(path.to_owned()), in_force, bytes, on_reload);
        let watcher = watch::Watcher::start(path, Arc::clone(&shared))?;
        Ok(Arc::new(Self { shared, watcher: Some(watcher) }))
    }

    /// The policy in force, for a moment: don't hold it while an execution runs.
    pub fn load(&self) -> Guard<Arc<InForce>> {
        self.shared.in_force.load()
    }

    /// The policy in force, to keep.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        self.shared.in_force.load_full()
    }

    /// Why the file as it is now is not in force; `None`: it is.
    #[must_use]
    pub fn last_error(&self) -> Option<LoadError> {
        self.shared.lock().last_error.clone()
    }

    /// Reads the file now. `true`: its content was new and is in force.
    ///
    /// # Errors
    /// Why it is refused; the last good policy stays in force.
    pub fn reload_now(&self) -> Result<bool, LoadError> {
        let shared = &self.shared;
        shared.reload().inspect_err(|error| shared.refuse(error))
    }

    /// Waits until `reached` holds for the policy in force and the last refusal, at most `timeout`.
    #[must_use]
    pub fn wait_until(
        &self,
        timeout: Duration,
        mut reached: impl FnMut(&InForce, Option<&LoadError>) -> bool,
    ) -> bool {
        let shared = &self.shared;
        let waiting = |loader: &mut Loader| !reached(&shared.in_force.load(), loader.last_error.as_ref());
        let waited = shared.changed.wait_timeout_while(shared.lock(), timeout, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl fmt::Debug for LivePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LivePolicy")
            .field("in_force", &self.in_force())
            .field("watched", &self.watcher.is_some())
            .finish()
    }
}

impl Shared {
    fn new(
        scope: Scope,
        path: Option<PathBuf>,
        in_force: InForce,
        accepted: Vec<u8>,
        on_reload: OnReload,
    ) -> Arc<Self> {
        Arc::new(Self {
            scope,
            path,
            started: in_force.policy.bounds().clone(),
            in_force: ArcSwap::from_pointee(in_force),
            loader: Mutex::new(Loader { accepted, last_error: None }),
            changed: Condvar::new(),
            on_reload,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Loader> {
        // The loader is consistent between any two statements.
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Read fully, parse fully, then swap. Nothing is changed by a file that is refused.
    fn reload(&self) -> Result<bool, LoadError> {
        let Some(path) = &self.path else { return Ok(false) };
        let mut loader = self.lock();
        let bytes = read(path)?;
        if bytes == loader.accepted {
            loader.last_error = None;
            self.changed.notify_all();
            return Ok(false);
        }
        let policy = parse(path, &bytes)?;
        let generation = self.in_force.load().generation + 1;
        let next = Arc::new(InForce::new(policy, &self.scope, generation, &self.started));
        self.in_force.store(Arc::clone(&next));
        *loader = Loader { accepted: bytes, last_error: None };
        self.changed.notify_all();
        drop(loader);
        tracing::info!(generation, mode = next.mode().as_str(), "policy in force");
        if !next.restart_for.is_empty() {
            let keys = next.restart_for.join(", ");
            tracing::warn!(
                generation,
                "{keys}: what the file says now is in force after a restart of the node"
            );
        }
        (self.on_reload)(Ok(&next));
        Ok(true)
    }

    fn refuse(&self, error: &LoadError) {
        self.lock().last_error = Some(error.clone());
        self.changed.notify_all();
        let generation = self.in_force.load().generation;
        tracing::error!(generation, "policy file refused, the last good one stays in force: {error}");
        (self.on_reload)(Err(error));
    }
}
