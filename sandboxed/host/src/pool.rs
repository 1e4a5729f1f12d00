//! Workers launched ahead, so that a cold start doesn't wait for a launch.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use execution::BackendError;
use execution::memory::limit;
use sandbox_os::machine;

use crate::fault::{self, Fault};
use crate::options::Unwanted;
use crate::source::WorkerSource;
use crate::status::{Registry, lock};
use crate::worker::Worker;

/// How long none is launched ahead after a failure: doubled by each further one, up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Descriptors that a worker may not take away: it is looked at from outside with some of them, and the node
/// reads its own files with the others.
const DESCRIPTORS_KEPT: usize = 16;

/// Confined workers without a canister, and the thread that keeps them at their number.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    filler: Option<JoinHandle<()>>,
}

struct Shared {
    source: Arc<dyn WorkerSource>,
    registry: Arc<Registry>,
    wanted: usize,
    patience: Duration,
    unwanted: Option<Unwanted>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    ready: Vec<Worker>,
    /// The last launch failed.
    paused: Option<Paused>,
    stopping: bool,
}

/// None is launched ahead for a while.
#[derive(Clone, Copy)]
struct Paused {
    since: Instant,
    pause: Duration,
}

impl Pool {
    /// Starts filling with `wanted` workers.
    pub(crate) fn start(
        source: Arc<dyn WorkerSource>,
        registry: Arc<Registry>,
        wanted: usize,
        patience: Duration,
        unwanted: Option<Unwanted>,
    ) -> Result<Self, BackendError> {
        let state = Mutex::new(State { ready: Vec::new(), paused: None, stopping: false });
        let changed = Condvar::new();
        let shared = Arc::new(Shared { source, registry, wanted, patience, unwanted, state, changed });
        let fill = Arc::clone(&shared);
        let filler = std::thread::Builder::new()
            .name("sandbox-pool".into())
            .spawn(move || fill.fill())
            .map_err(no_thread)?;
        Ok(Self { shared, filler: Some(filler) })
    }

    /// A worker without a canister: one that is ready, or a new one.
    pub(crate) fn take(&self) -> fault::Result<Worker> {
        descriptors_left()?;
        if let Some(worker) = lock(&self.shared.state).ready.pop() {
            self.shared.changed.notify_one();
            return Ok(worker);
        }
        let worker = self.shared.launch()?;
        lock(&self.shared.state).paused = None;
        self.shared.changed.notify_one();
        Ok(worker)
    }
}

impl Pool {
    /// Puts a worker that was not used back.
    pub(crate) fn put_back(&self, worker: Worker) {
        lock(&self.shared.state).ready.push(worker);
    }
}

impl Shared {
    fn launch(&self) -> fault::Result<Worker> {
        let launched =
            Worker::launch(self.source.as_ref(), &self.registry, self.patience, self.unwanted.clone());
        self.registry.launched(launched.as_ref().err().map(|fault| fault.error.to_string()));
        launched
    }

    fn fill(&self) {
        let mut state = lock(&self.state);
        while !state.stopping {
            let pause = state.paused.map_or(Duration::ZERO, |paused| paused.left());
            if state.ready.len() >= self.wanted {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if !pause.is_zero() {
                state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
            } else {
                drop(state);
                let launched = descriptors_left().map_err(Fault::from).and_then(|()| self.launch());
                state = lock(&self.state);
                match launched {
                    Ok(worker) => {
                        state.ready.push(worker);
                        state.paused = None;
                    }
                    // The message that needs a worker next tries itself, and reports why.
                    Err(_) => state.paused = Some(Paused::after(state.paused)),
                }
            }
        }
    }
}

impl Paused {
    /// The pause after one more failure.
    fn after(before: Option<Self>) -> Self {
        let pause = before.map_or(PAUSE, |before| before.pause.saturating_mul(2).min(PAUSE_MAX));
        Self { since: Instant::now(), pause }
    }

    fn left(self) -> Duration {
        self.pause.saturating_sub(self.since.elapsed())
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

/// Whether there are descriptors for one more worker.
pub(crate) fn descriptors_left() -> Result<(), BackendError> {
    machine::open_files_left(DESCRIPTORS_KEPT).map_err(|error| BackendError::Exhausted {
        limit: limit::met(&error).unwrap_or(limit::OPEN_FILES),
        detail: format!("{DESCRIPTORS_KEPT} have to be left for a worker: {error}"),
    })
}

pub(crate) fn no_thread(error: std::io::Error) -> BackendError {
    BackendError::Exhausted { limit: "threads", detail: format!("a thread of the sandbox: {error}") }
}
