//! Workers launched ahead, so that a cold start doesn't wait for a launch.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use execution::BackendError;

use crate::source::WorkerSource;
use crate::status::{Registry, lock};
use crate::table::Table;
use crate::worker::Worker;

/// How often idle workers are looked for.
const EVICTION_INTERVAL: Duration = Duration::from_secs(5);

/// Confined workers without a canister, and the thread that keeps them at their number.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    filler: Option<JoinHandle<()>>,
}

struct Shared {
    source: Box<dyn WorkerSource>,
    registry: Arc<Registry>,
    patience: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    ready: Vec<Worker>,
    wanted: usize,
    /// A launch failed: none is tried ahead until one for a message has succeeded.
    failing: bool,
    stopping: bool,
}

impl Pool {
    /// Starts filling with `wanted` workers. The same thread evicts idle workers of `table`.
    pub(crate) fn start(
        source: Box<dyn WorkerSource>,
        registry: Arc<Registry>,
        table: Arc<Table>,
        wanted: usize,
        patience: Duration,
        idle_max: Duration,
    ) -> Result<Self, BackendError> {
        let state = State { ready: Vec::new(), wanted, failing: false, stopping: false };
        let shared = Arc::new(Shared {
            source,
            registry,
            patience,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let fill = Arc::clone(&shared);
        let filler = std::thread::Builder::new()
            .name("sandbox-pool".into())
            .spawn(move || fill.fill(&table, idle_max))
            .map_err(|error| BackendError::Exhausted {
                limit: "threads",
                detail: format!("the sandbox's pool thread: {error}"),
            })?;
        Ok(Self { shared, filler: Some(filler) })
    }

    /// A worker without a canister: one that is ready, or a new one.
    pub(crate) fn take(&self) -> Result<Worker, BackendError> {
        if let Some(worker) = lock(&self.shared.state).ready.pop() {
            self.shared.changed.notify_one();
            return Ok(worker);
        }
        let worker = self.shared.launch()?;
        lock(&self.shared.state).failing = false;
        self.shared.changed.notify_one();
        Ok(worker)
    }
}

impl Shared {
    fn launch(&self) -> Result<Worker, BackendError> {
        Worker::launch(self.source.as_ref(), &self.registry, self.patience)
    }

    fn fill(&self, table: &Table, idle_max: Duration) {
        loop {
            let mut state = lock(&self.state);
            while !state.stopping && (state.failing || state.ready.len() >= state.wanted) {
                let waited = self.changed.wait_timeout(state, EVICTION_INTERVAL);
                let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                drop(woken);
                if timeout.timed_out() {
                    table.evict_idle(idle_max);
                }
                state = lock(&self.state);
            }
            if state.stopping {
                return;
            }
            drop(state);
            let launched = self.launch();
            let mut state = lock(&self.state);
            match launched {
                Ok(worker) => state.ready.push(worker),
                // The message that needs a worker next tries itself, and reports why.
                Err(_) => state.failing = true,
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.state).stopping = true;
        self.shared.changed.notify_all();
        if let Some(filler) = self.filler.take() {
            // A panic there has been reported by its own hook, and there is nothing left to do for it.
            let _panicked = filler.join();
        }
        lock(&self.shared.state).ready.clear();
    }
}
