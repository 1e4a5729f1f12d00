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
    /// The filler's launch is done, whatever came of it.
    done: Condvar,
}

struct State {
    ready: Vec<Worker>,
    /// The filler launches one.
    launching: bool,
    /// A message waits for that one.
    awaited: bool,
    hand_overs: usize,
    /// When the first of them began.
    held: Option<Instant>,
    /// The last launch failed.
    paused: Option<Paused>,
    stopping: bool,
}

/// How long a message waits for a launch that it didn't begin, and launches ahead for a hand-over. Each takes some
/// milliseconds, unless a process hangs, which is nobody else's business.
const COURTESY: Duration = Duration::from_secs(1);

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
        let state = State {
            ready: Vec::new(),
            launching: false,
            awaited: false,
            hand_overs: 0,
            held: None,
            paused: None,
            stopping: false,
        };
        let (state, changed, done) = (Mutex::new(state), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { source, registry, wanted, patience, unwanted, state, changed, done });
        let fill = Arc::clone(&shared);
        let filler = std::thread::Builder::new()
            .name("sandbox-pool".into())
            .spawn(move || fill.fill())
            .map_err(no_thread)?;
        Ok(Self { shared, filler: Some(filler) })
    }

    /// Number of workers that are ready.
    pub(crate) fn ready(&self) -> usize {
        lock(&self.shared.state).ready.len()
    }

    /// Gives a worker without a canister to `load`: one that is ready, the one that is about to be if nobody else waits
    /// for it, or a new one.
    ///
    /// No launch ahead is begun meanwhile. The launcher does one thing after the other: its look at the worker's filters
    /// would wait for a whole launch (0.7 of 1.4 ms that a hand-over took).
    pub(crate) fn hand_over<T>(&self, load: impl FnOnce(Worker) -> fault::Result<T>) -> fault::Result<T> {
        let _under_way = HandOver::begin(&self.shared);
        load(self.take()?)
    }

    fn take(&self) -> fault::Result<Worker> {
        descriptors_left()?;
        if let Some(worker) = self.shared.take_ready() {
            return Ok(worker);
        }
        let worker = self.shared.launch()?;
        lock(&self.shared.state).paused = None;
        Ok(worker)
    }

    /// Puts a worker that was not used back.
    pub(crate) fn put_back(&self, worker: Worker) {
        lock(&self.shared.state).ready.push(worker);
    }
}

/// One that is under way.
struct HandOver<'a>(&'a Shared);

impl<'a> HandOver<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let mut state = lock(&shared.state);
        state.hand_overs += 1;
        state.held.get_or_insert_with(Instant::now);
        Self(shared)
    }
}

impl Drop for HandOver<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.hand_overs -= 1;
        if state.hand_overs == 0 {
            state.held = None;
            self.0.changed.notify_one();
        }
    }
}

impl State {
    /// How long to launch nothing ahead.
    fn pause(&self) -> Duration {
        let after_failure = self.paused.map_or(Duration::ZERO, Paused::left);
        after_failure.max(self.held.map_or(Duration::ZERO, |held| COURTESY.saturating_sub(held.elapsed())))
    }
}

impl Shared {
    /// One that is ready and that nobody waits for, or the one that is about to be.
    fn take_ready(&self) -> Option<Worker> {
        let mut state = lock(&self.state);
        if state.ready.len() > usize::from(state.awaited) {
            self.changed.notify_one();
            return state.ready.pop();
        }
        if !state.launching || state.awaited {
            return None;
        }
        // It has a head start, and two launches at once take longer than one behind the other.
        state.awaited = true;
        let coming = |state: &mut State| state.launching && state.ready.is_empty();
        let waited = self.done.wait_timeout_while(state, COURTESY, coming);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.awaited = false;
        state.ready.pop()
    }

    fn launch(&self) -> fault::Result<Worker> {
        let launched =
            Worker::launch(self.source.as_ref(), &self.registry, self.patience, self.unwanted.clone());
        self.registry.launched(launched.as_ref().err().map(|fault| fault.error.to_string()));
        launched
    }

    fn fill(&self) {
        let mut state = lock(&self.state);
        while !state.stopping {
            let pause = state.pause();
            if state.ready.len() >= self.wanted {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if !pause.is_zero() {
                state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
            } else {
                state.launching = true;
                drop(state);
                let launched = descriptors_left().map_err(Fault::from).and_then(|()| self.launch());
                state = lock(&self.state);
                state.launching = false;
                match launched {
                    Ok(worker) => {
                        state.ready.push(worker);
                        state.paused = None;
                    }
                    // The message that needs a worker next tries itself, and reports why.
                    Err(_) => state.paused = Some(Paused::after(state.paused)),
                }
                self.done.notify_one();
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
