//! The backend that runs canisters in this process.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use execution::memory::{WASM_PAGE_BYTES, limit};
use execution::{
    Backend, BackendError, Execution, Instructions, Invocation, ModuleHash, Outcome, PausedRun, Principal,
    Snapshot,
};

use crate::engine::{Code, Engine};
use crate::warm::{Halfway, Progress, Warm};

/// Bounds of [`InProcess`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProcessOptions {
    /// Warm instances kept, update and query instances together. Each reserves about 30 GiB of address
    /// space (and holds no more memory than its canister uses), so at most a few thousand.
    pub instances_max: usize,
    /// Modules whose code stays mapped.
    pub code_max: usize,
}

impl Default for InProcessOptions {
    fn default() -> Self {
        Self { instances_max: 512, code_max: 1024 }
    }
}

/// Runs canisters in the node's own address space, on the calling thread and on a stack that belongs to the
/// canister's instance: a paused message keeps it, whatever the thread does next.
pub struct InProcess {
    engine: Engine,
    code: Mutex<Recent<ModuleHash, Code>>,
    warm: Arc<WarmInstances>,
}

type Key = (Principal, Role);
type WarmInstances = Mutex<Recent<Key, Warm>>;

/// A canister has one instance for messages and one for queries, so that neither waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    Update,
    Query,
}

impl InProcess {
    /// A backend without warm instances.
    #[must_use]
    pub fn new(engine: Engine, options: &InProcessOptions) -> Self {
        Self {
            engine,
            code: Mutex::new(Recent::new(options.code_max)),
            warm: Arc::new(Mutex::new(Recent::new(options.instances_max))),
        }
    }

    fn run(
        &self,
        role: Role,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Result<Execution, BackendError> {
        let key = (snapshot.canister, role);
        let progress = self.instance(key, snapshot, invocation).and_then(|warm| warm.run(invocation));
        went_on(&self.warm, key, progress)
    }

    /// An instance with the content of `snapshot`.
    fn instance(&self, key: Key, snapshot: &Snapshot, invocation: &Invocation) -> Result<Warm, BackendError> {
        let warm = lock(&self.warm).take(&key).and_then(|warm| warm.follow(snapshot));
        match warm {
            Some(warm) => Ok(warm),
            None => {
                let pages_max = invocation.limits.stable_bytes / WASM_PAGE_BYTES;
                Warm::new(&self.code(snapshot)?, snapshot, pages_max)
            }
        }
    }

    fn code(&self, snapshot: &Snapshot) -> Result<Code, BackendError> {
        let hash = snapshot.module.hash;
        if let Some(code) = lock(&self.code).get(&hash) {
            return Ok(code.clone());
        }
        let file =
            snapshot.module.code.file().try_clone_to_owned().map_err(|error| BackendError::Exhausted {
                limit: limit::met(&error).unwrap_or("code files"),
                detail: format!("code of module {hash:?}: {error}"),
            })?;
        let code = Code::load(&self.engine, file)?;
        lock(&self.code).put(hash, code.clone());
        Ok(code)
    }
}

impl Backend for InProcess {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        self.run(Role::Update, snapshot, invocation)
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        match self.run(Role::Query, overlay.unwrap_or(snapshot), invocation)? {
            Execution::Finished(outcome) => Ok(outcome),
            Execution::Paused(_) => Err(BackendError::Engine("a query has no slices".into())),
        }
    }

    fn warm(&self) -> Vec<Snapshot> {
        lock(&self.warm).latest(|(_, role)| *role == Role::Update).map(Warm::held).collect()
    }

    /// Ends the half of the idle instances that was unused longest, and forgets as much code.
    fn relieve(&self, short: &BackendError) -> bool {
        match short {
            BackendError::Exhausted {
                limit: limit::MEMORY | limit::OPEN_FILES | limit::SYSTEM_FILES,
                ..
            } => {
                // Unmapped and closed here, not under the locks.
                let (instances, code) = (lock(&self.warm).halve(), lock(&self.code).halve());
                !instances.is_empty() || !code.is_empty()
            }
            _ => false,
        }
    }
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess")
            .field("instances", &lock(&self.warm).entries.len())
            .finish_non_exhaustive()
    }
}

/// Keeps the instance of a message that ended for the next one, or with its paused run.
fn went_on(
    warm: &Arc<WarmInstances>,
    key: Key,
    progress: Result<Progress, BackendError>,
) -> Result<Execution, BackendError> {
    match progress {
        Ok(Progress::Finished(outcome, instance)) => {
            let evicted = instance.and_then(|instance| lock(warm).put(key, instance));
            // Unmapped here, not under the lock.
            drop(evicted);
            Ok(Execution::Finished(outcome))
        }
        Ok(Progress::Paused(run)) => {
            Ok(Execution::Paused(Box::new(Sliced { run, key, warm: Arc::clone(warm) })))
        }
        Err(error) => {
            if matches!(error, BackendError::Exhausted { .. }) {
                // Old versions that idle instances keep are not to be in the way when the message runs again.
                let idle = [Role::Update, Role::Query].map(|role| lock(warm).take(&(key.0, role)));
                drop(idle);
            }
            Err(error)
        }
    }
}

/// A message between two slices, and where its instance goes when it ends.
struct Sliced {
    run: Halfway,
    key: Key,
    warm: Arc<WarmInstances>,
}

impl PausedRun for Sliced {
    fn resume(self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError> {
        let Self { run, key, warm } = *self;
        went_on(&warm, key, run.resume(slice))
    }

    fn abort(self: Box<Self>) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is consistent between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At most `entries_max` entries; the one unused longest makes room.
struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    entries_max: usize,
    uses: u64,
}

impl<K: Eq + Hash + Copy, V> Recent<K, V> {
    fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), entries_max, uses: 0 }
    }

    fn take(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(_, value)| value)
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        self.uses += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.uses;
        Some(value)
    }

    /// Returns what had to go: the value under the same key, or the one unused longest.
    fn put(&mut self, key: K, value: V) -> Option<V> {
        self.uses += 1;
        if let Some((_, same)) = self.entries.insert(key, (self.uses, value)) {
            return Some(same);
        }
        if self.entries.len() <= self.entries_max {
            return None;
        }
        self.take_oldest()
    }

    /// Those whose key `is` one, used last first.
    fn latest(&self, is: impl Fn(&K) -> bool) -> impl Iterator<Item = &V> {
        let mut entries: Vec<_> =
            self.entries.iter().filter(|(key, _)| is(key)).map(|(_, entry)| entry).collect();
        entries.sort_unstable_by_key(|(used, _)| Reverse(*used));
        entries.into_iter().map(|(_, value)| value)
    }

    fn take_oldest(&mut self) -> Option<V> {
        let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)?;
        self.take(&oldest)
    }

    /// Takes out the half that was unused longest, or the only one.
    fn halve(&mut self) -> Vec<V> {
        (0..self.entries.len().div_ceil(2)).filter_map(|_| self.take_oldest()).collect()
    }
}
