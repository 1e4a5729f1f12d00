//! The backend that runs canisters in this process.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use execution::memory::{WASM_PAGE_BYTES, limit};
use execution::{Backend, BackendError, Execution, Invocation, ModuleHash, Outcome, Principal, Snapshot};

use crate::engine::{Code, Engine};
use crate::warm::{Warm, finished};

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

/// Runs canisters in the node's own address space, on the calling thread.
///
/// A message runs to its end in one go: it never pauses at the end of a slice (see [`crate::Instance::run`]).
/// The calling thread needs a stack of 16 MiB: a guest may use 5 MiB of it.
pub struct InProcess {
    engine: Engine,
    code: Mutex<Recent<ModuleHash, Code>>,
    warm: Mutex<Recent<(Principal, Role), Warm>>,
}

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
            warm: Mutex::new(Recent::new(options.instances_max)),
        }
    }

    fn run(&self, role: Role, snapshot: &Snapshot, invocation: &Invocation) -> Result<Outcome, BackendError> {
        let result = self.run_warm(role, snapshot, invocation);
        if let Err(BackendError::Exhausted { .. }) = &result {
            // Old versions that idle instances keep are not to be in the way when the message runs again.
            let idle =
                [Role::Update, Role::Query].map(|role| lock(&self.warm).take(&(snapshot.canister, role)));
            drop(idle);
        }
        result
    }

    fn run_warm(
        &self,
        role: Role,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Result<Outcome, BackendError> {
        let key = (snapshot.canister, role);
        let warm = lock(&self.warm).take(&key).and_then(|warm| warm.follow(snapshot));
        let warm = match warm {
            Some(warm) => warm,
            None => {
                let pages_max = invocation.limits.stable_bytes / WASM_PAGE_BYTES;
                Warm::new(&self.code(snapshot)?, snapshot, pages_max)?
            }
        };
        let (outcome, warm) = warm.run(invocation)?;
        let evicted = warm.and_then(|warm| lock(&self.warm).put(key, warm));
        // Unmapped here, not under the lock.
        drop(evicted);
        Ok(outcome)
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
        self.run(Role::Update, snapshot, invocation).map(finished)
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.run(Role::Query, overlay.unwrap_or(snapshot), invocation)
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

    fn take_oldest(&mut self) -> Option<V> {
        let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)?;
        self.take(&oldest)
    }

    /// Takes out the half that was unused longest, or the only one.
    fn halve(&mut self) -> Vec<V> {
        (0..self.entries.len().div_ceil(2)).filter_map(|_| self.take_oldest()).collect()
    }
}
