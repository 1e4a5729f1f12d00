//! Which workers live, for reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use execution::Principal;

/// What a worker of a canister is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Messages that may change state.
    Update,
    /// Queries, on committed snapshots.
    Query,
}

/// A live worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveWorker {
    /// Its process id.
    pub pid: i32,
    /// Whom it serves; `None`: launched ahead.
    pub canister: Option<(Principal, Role)>,
}

/// The sandbox at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxStatus {
    /// Live workers, oldest first.
    pub workers: Vec<LiveWorker>,
    /// Workers launched since the start.
    pub launches: u64,
    /// Workers that are no more, whatever ended them.
    pub ended: u64,
    /// Violations among the reasons.
    pub violations: u64,
    /// Layers of confinement of the worker launched last: name, and whether it is in force.
    pub layers: Vec<(&'static str, bool)>,
}

/// Keeps account of live workers.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    live: Mutex<BTreeMap<u64, LiveWorker>>,
    layers: Mutex<Vec<(&'static str, bool)>>,
    launches: AtomicU64,
    ended: AtomicU64,
    violations: AtomicU64,
}

impl Registry {
    pub(crate) fn enter(self: &Arc<Self>, pid: i32, layers: Vec<(&'static str, bool)>) -> Registered {
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        lock(&self.live).insert(number, LiveWorker { pid, canister: None });
        *lock(&self.layers) = layers;
        Registered { registry: Arc::clone(self), number }
    }

    pub(crate) fn violation(&self) {
        self.violations.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> SandboxStatus {
        SandboxStatus {
            workers: lock(&self.live).values().cloned().collect(),
            launches: self.launches.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            violations: self.violations.load(Ordering::Relaxed),
            layers: lock(&self.layers).clone(),
        }
    }
}

/// A worker's entry; leaves with it.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Arc<Registry>,
    number: u64,
}

impl Registered {
    /// The worker's number, never used twice.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn serves(&self, canister: Principal, role: Role) {
        if let Some(worker) = lock(&self.registry.live).get_mut(&self.number) {
            worker.canister = Some((canister, role));
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.registry.live).remove(&self.number);
        self.registry.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is behind the locks of this crate is consistent between any two statements, so a holder that panicked
/// leaves it usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
