//! Which workers live and what they hold, for eviction and reports.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use execution::{BackendError, Principal};

use crate::fault::{Fault, Kind};
use crate::options::Bounds;
use crate::source::WorkerSource;

/// Canisters of which it is remembered when a worker of theirs was found dead.
const CRASHED_MAX: usize = 10_000;

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
    /// Its private memory as measured last; 0 while it serves nobody.
    pub memory_bytes: u64,
}

/// Idle workers that had to go since the start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evictions {
    /// Idle for too long.
    pub idle: u64,
    /// Another canister needed one, and there were `workers_max`.
    pub count: u64,
    /// All together held more than `worker_memory_bytes_max`, or the kernel refused memory.
    pub memory: u64,
    /// The node ran short of descriptors.
    pub descriptors: u64,
    /// The kernel refused another process or namespace.
    pub processes: u64,
    /// They kept old page versions that their canister's full arena needed back.
    pub arena: u64,
}

/// Violations since the start, by what the worker did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// Ended by a fault of its own, by a system call outside its filter, or with a code that isn't its own.
    pub deaths: u64,
    /// Said something that is no answer to what it was asked.
    pub protocol: u64,
    /// Claimed what can't be.
    pub claims: u64,
    /// Took far more processor time than what it claims explains.
    pub time: u64,
    /// Was not confined as it must be.
    pub confinement: u64,
}

impl Violations {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { deaths, protocol, claims, time, confinement } = *self;
        [deaths, protocol, claims, time, confinement].into_iter().fold(0, u64::saturating_add)
    }
}

/// Whether workers have every layer of confinement that they should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// All that are required or strongly wanted (`confinement.md` section 1).
    Full,
    /// These are missing.
    Reduced(Vec<&'static str>),
}

impl Confinement {
    /// Layers whose absence leaves a worker as confined as it should be: `confinement.md` counts them neither to the
    /// required nor to the strongly wanted ones.
    const OPPORTUNISTIC: [&'static str; 2] = ["uts namespace", "cgroup namespace"];

    pub(crate) fn of(layers: &[(&'static str, bool)]) -> Self {
        let missing: Vec<_> = layers
            .iter()
            .filter(|(name, on)| !on && !Self::OPPORTUNISTIC.contains(name))
            .map(|(name, _)| *name)
            .collect();
        if missing.is_empty() { Self::Full } else { Self::Reduced(missing) }
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Reduced(missing) => write!(f, "reduced: no {}", missing.join(", no ")),
        }
    }
}

/// Why idle workers have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Idle,
    Count,
    Memory,
    Descriptors,
    Processes,
    Arena,
}

/// The sandbox at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxStatus {
    /// Live workers, oldest first.
    pub workers: Vec<LiveWorker>,
    /// Workers with a canister that there may be at once: what was asked for, or what descriptors allow.
    pub workers_max: usize,
    /// Private memory of all workers together.
    pub memory_bytes: u64,
    /// What they may hold before idle ones go.
    pub memory_bytes_max: u64,
    /// Workers launched since the start.
    pub launches: u64,
    /// Workers that are no more, whatever ended them.
    pub ended: u64,
    /// Workers among them that were found dead when they were needed.
    pub deaths: u64,
    /// Violations among the reasons.
    pub violations: u64,
    /// The same by kind.
    pub violations_by_kind: Violations,
    /// Messages that were run behind another one in its request.
    pub ran_ahead: u64,
    /// Such runs that were discarded, because their message saw something else, or never came.
    pub discarded: u64,
    /// Requests that found their canister in back-off, because its workers had kept ending.
    pub back_offs: u64,
    /// Evictions among the reasons.
    pub evictions: Evictions,
    /// Why the last launch failed; `None`: it did not. It is tried again, at growing intervals.
    pub launch_error: Option<String>,
    /// Layers of confinement of the worker launched last: name, and whether it is in force.
    pub layers: Vec<(&'static str, bool)>,
    /// What these layers amount to; `None`: no worker has been launched yet.
    pub confinement: Option<Confinement>,
}

/// Keeps account of live workers.
#[derive(Debug)]
pub(crate) struct Registry {
    bounds: Bounds,
    live: Mutex<BTreeMap<u64, LiveWorker>>,
    layers: Mutex<Vec<(&'static str, bool)>>,
    launch_error: Mutex<Option<String>>,
    evictions: Mutex<Evictions>,
    launches: AtomicU64,
    ended: AtomicU64,
    deaths: AtomicU64,
    crashed: Mutex<BTreeMap<Principal, Instant>>,
    violations: Mutex<Violations>,
    back_offs: AtomicU64,
    ran_ahead: AtomicU64,
    discarded: AtomicU64,
}

impl Registry {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            live: Mutex::default(),
            layers: Mutex::default(),
            launch_error: Mutex::default(),
            evictions: Mutex::default(),
            launches: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            deaths: AtomicU64::new(0),
            crashed: Mutex::default(),
            violations: Mutex::default(),
            back_offs: AtomicU64::new(0),
            ran_ahead: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
        }
    }

    pub(crate) fn enter(self: &Arc<Self>, pid: i32, layers: Vec<(&'static str, bool)>) -> Registered {
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        lock(&self.live).insert(number, LiveWorker { pid, canister: None, memory_bytes: 0 });
        *lock(&self.layers) = layers;
        Registered { registry: Arc::clone(self), number }
    }

    /// Counts what is on its way to the caller.
    pub(crate) fn failed(&self, fault: &Fault) {
        if matches!(fault.error, BackendError::BackOff { .. }) {
            self.back_offs.fetch_add(1, Ordering::Relaxed);
        }
        let Some(kind) = fault.kind else { return };
        let mut violations = lock(&self.violations);
        let count = match kind {
            Kind::Death => &mut violations.deaths,
            Kind::Protocol => &mut violations.protocol,
            Kind::Claim => &mut violations.claims,
            Kind::Time => &mut violations.time,
            Kind::Confinement => &mut violations.confinement,
        };
        *count = count.saturating_add(1);
    }

    /// When a worker of each canister was last found dead.
    pub(crate) fn crashes(&self) -> BTreeMap<Principal, Instant> {
        lock(&self.crashed).clone()
    }

    /// A worker of `canister` was found dead.
    fn crashed(&self, canister: Principal) {
        let mut crashed = lock(&self.crashed);
        crashed.insert(canister, Instant::now());
        if crashed.len() > CRASHED_MAX
            && let Some(&oldest) = crashed.iter().min_by_key(|(_, at)| **at).map(|(canister, _)| canister)
        {
            crashed.remove(&oldest);
        }
    }

    /// Notes how the last launch went.
    pub(crate) fn launched(&self, error: Option<String>) {
        *lock(&self.launch_error) = error;
    }

    pub(crate) fn evicted(&self, reason: Reason, workers: usize) {
        let mut evictions = lock(&self.evictions);
        let count = match reason {
            Reason::Idle => &mut evictions.idle,
            Reason::Count => &mut evictions.count,
            Reason::Memory => &mut evictions.memory,
            Reason::Descriptors => &mut evictions.descriptors,
            Reason::Processes => &mut evictions.processes,
            Reason::Arena => &mut evictions.arena,
        };
        *count = count.saturating_add(workers as u64);
    }

    /// Private memory of all workers together.
    pub(crate) fn memory_bytes(&self) -> u64 {
        total(lock(&self.live).values())
    }

    /// Measures every worker that serves a canister.
    pub(crate) fn measure(&self, source: &dyn WorkerSource) {
        let serving: Vec<(u64, i32)> = lock(&self.live)
            .iter()
            .filter(|(_, worker)| worker.canister.is_some())
            .map(|(&number, worker)| (number, worker.pid))
            .collect();
        for (number, pid) in serving {
            self.measure_worker(source, number, pid);
        }
    }

    /// Measures one worker.
    pub(crate) fn measure_worker(&self, source: &dyn WorkerSource, number: u64, pid: i32) {
        // Not under the lock: this asks the kernel.
        let Some(bytes) = source.private_bytes(pid) else { return };
        if let Some(worker) = lock(&self.live).get_mut(&number) {
            worker.memory_bytes = bytes;
        }
    }

    /// Counts messages that were run behind another one.
    pub(crate) fn ran_ahead(&self, messages: usize) {
        self.ran_ahead.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Counts such runs that were for nothing.
    pub(crate) fn discarded(&self, runs: usize) {
        self.discarded.fetch_add(runs as u64, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> SandboxStatus {
        let workers: Vec<LiveWorker> = lock(&self.live).values().cloned().collect();
        let layers = lock(&self.layers).clone();
        let violations_by_kind = *lock(&self.violations);
        SandboxStatus {
            memory_bytes: total(workers.iter()),
            workers,
            workers_max: self.bounds.workers_max,
            memory_bytes_max: self.bounds.memory_bytes_max,
            launches: self.launches.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            deaths: self.deaths.load(Ordering::Relaxed),
            violations: violations_by_kind.total(),
            violations_by_kind,
            ran_ahead: self.ran_ahead.load(Ordering::Relaxed),
            discarded: self.discarded.load(Ordering::Relaxed),
            back_offs: self.back_offs.load(Ordering::Relaxed),
            evictions: *lock(&self.evictions),
            launch_error: lock(&self.launch_error).clone(),
            confinement: (!layers.is_empty()).then(|| Confinement::of(&layers)),
            layers,
        }
    }
}

fn total<'a>(workers: impl Iterator<Item = &'a LiveWorker>) -> u64 {
    workers.fold(0, |sum, worker| sum.saturating_add(worker.memory_bytes))
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

    /// It was found dead.
    pub(crate) fn died(&self) {
        self.registry.deaths.fetch_add(1, Ordering::Relaxed);
        let canister = lock(&self.registry.live).get(&self.number).and_then(|worker| worker.canister);
        if let Some((canister, _)) = canister {
            self.registry.crashed(canister);
        }
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
