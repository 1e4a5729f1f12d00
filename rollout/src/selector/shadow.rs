//! The second run of an execution: off the reply path, compared, dropped.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use execution::{Backend, BackendError, Execution, Invocation, Outcome, Principal, Snapshot};

use super::{
    Border, Divergence, DivergenceClass, DivergenceRecord, Field, Sandbox, Stamp, compare, observed, span,
};
use crate::{Arm, Mode};

/// Bounds of shadow.
#[derive(Clone, Copy, Debug)]
pub struct ShadowOptions {
    /// Candidates that may wait; beyond that they are dropped and counted.
    pub queue_max: usize,
    /// Threads that run candidates.
    pub threads: usize,
    /// Different differences kept; beyond that they are only counted.
    pub records_max: usize,
}

impl Default for ShadowOptions {
    fn default() -> Self {
        Self { queue_max: 256, threads: 1, records_max: 1_000 }
    }
}

/// What became of the executions that ran in shadow. After settling, `offered` is the sum of `equal`,
/// `diverged`, `dropped` and `failed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Executions committed in shadow.
    pub offered: u64,
    /// Candidates that gave the same outcome.
    pub equal: u64,
    /// Candidates that gave another outcome: the sum of `confirmed`, `flaky_candidate`, `nondeterministic_control` and
    /// `unconfirmed`.
    pub diverged: u64,
    /// [`DivergenceClass::Confirmed`]
    pub confirmed: u64,
    /// [`DivergenceClass::FlakyCandidate`]
    pub flaky_candidate: u64,
    /// [`DivergenceClass::NondeterministicControl`]
    pub nondeterministic_control: u64,
    /// [`DivergenceClass::Unconfirmed`]
    pub unconfirmed: u64,
    /// Candidates not run because the queue was full.
    pub dropped: u64,
    /// Candidates without an outcome: something around the guest failed.
    pub failed: u64,
    /// Differences that found no room among the records.
    pub unrecorded: u64,
}

impl ShadowCounts {
    /// How many diverged in this way.
    #[must_use]
    pub fn of(&self, class: DivergenceClass) -> u64 {
        match class {
            DivergenceClass::Confirmed => self.confirmed,
            DivergenceClass::FlakyCandidate => self.flaky_candidate,
            DivergenceClass::NondeterministicControl => self.nondeterministic_control,
            DivergenceClass::Unconfirmed => self.unconfirmed,
        }
    }

    fn diverged(&mut self, class: DivergenceClass) {
        self.diverged += 1;
        *match class {
            DivergenceClass::Confirmed => &mut self.confirmed,
            DivergenceClass::FlakyCandidate => &mut self.flaky_candidate,
            DivergenceClass::NondeterministicControl => &mut self.nondeterministic_control,
            DivergenceClass::Unconfirmed => &mut self.unconfirmed,
        } += 1;
    }
}

/// How the control was called.
pub(super) enum Call {
    Execute,
    Query { overlay: Option<Snapshot> },
}

struct Job {
    call: Call,
    snapshot: Snapshot,
    invocation: Invocation,
    control: Outcome,
    stamp: Stamp,
    offered: Instant,
}

/// Candidates waiting, and what was found. A clone is the same queue.
#[derive(Clone)]
pub(super) struct Queue(Arc<Owner>);

/// Ends the threads when the last queue handle goes.
struct Owner(Arc<Shared>);

struct Shared {
    options: ShadowOptions,
    in_process: Arc<dyn Backend>,
    sandbox: Arc<Sandbox>,
    border: Arc<Border>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    running: usize,
    threads: usize,
    closed: bool,
    counts: ShadowCounts,
    records: HashMap<Signature, DivergenceRecord>,
}

/// What makes two differences the same one.
type Signature = (Principal, &'static str, Option<String>, Field, DivergenceClass);

impl Queue {
    pub(super) fn new(
        options: ShadowOptions,
        in_process: Arc<dyn Backend>,
        sandbox: Arc<Sandbox>,
        border: Arc<Border>,
    ) -> Self {
        let state = Mutex::new(State::default());
        let shared = Shared { options, in_process, sandbox, border, state, changed: Condvar::new() };
        Self(Arc::new(Owner(Arc::new(shared))))
    }

    /// Queues a candidate, or drops it when there is no room. Never waits for one.
    pub(super) fn offer(
        &self,
        call: Call,
        snapshot: Snapshot,
        invocation: Invocation,
        control: &Outcome,
        stamp: Stamp,
    ) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        state.counts.offered += 1;
        if state.waiting.len() >= shared.options.queue_max || !start_thread(shared, &mut state) {
            state.counts.dropped += 1;
            return;
        }
        let offered = Instant::now();
        state.waiting.push_back(Job { call, snapshot, invocation, control: control.clone(), stamp, offered });
        drop(state);
        shared.changed.notify_all();
    }

    pub(super) fn counts(&self) -> ShadowCounts {
        self.0.0.lock().counts
    }

    pub(super) fn divergences(&self) -> Vec<DivergenceRecord> {
        let mut records: Vec<_> = self.0.0.lock().records.values().cloned().collect();
        records.sort_by_key(|record| (record.first.invocation, record.first.difference.field));
        records
    }

    pub(super) fn settle(&self, timeout: Duration) -> bool {
        let shared = &self.0.0;
        let busy = |state: &mut State| !state.waiting.is_empty() || state.running > 0;
        let waited = shared.changed.wait_timeout_while(shared.lock(), timeout, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Threads end by themselves: waiting for a hung candidate would hang the node's stop.
        let mut state = self.0.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}

/// Starts one more thread while fewer than allowed run. False: there is none at all.
fn start_thread(shared: &Arc<Shared>, state: &mut State) -> bool {
    if state.threads < shared.options.threads {
        let worker = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("shadow".into());
        match thread.spawn(move || worker.serve()) {
            Ok(_) => state.threads += 1,
            Err(error) => tracing::warn!("could not start a shadow thread: {error}"),
        }
    }
    state.threads > 0
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts and queue are consistent between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        while let Some(job) = self.next() {
            let _running = Running(self);
            self.compare(job);
        }
    }

    fn next(&self) -> Option<Job> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
        let mut state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let job = state.waiting.pop_front()?;
        state.running += 1;
        Some(job)
    }

    /// Runs the candidate and compares. Its pages go back to the arena when `job` is dropped.
    fn compare(&self, job: Job) {
        let arm = Arm::ShadowCandidate;
        let span = span(&job.snapshot, &job.invocation, Mode::Shadow, arm, job.stamp.generation);
        let _entered = span.enter();
        let mut observed = observed(&job.snapshot, &job.invocation, Mode::Shadow, arm, job.stamp.generation);
        observed.queued = job.offered.elapsed();
        let started = Instant::now();
        let candidate = match self.candidate(&job) {
            Ok(candidate) => candidate,
            Err(error) => {
                span.record("outcome", "failed");
                tracing::warn!("shadow candidate failed around the guest: {error}");
                self.lock().counts.failed += 1;
                return;
            }
        };
        observed.duration = started.elapsed();
        self.border.finished(&observed.with(&candidate), job.stamp, &span);
        let differences = compare(&job.snapshot, &job.control, &candidate);
        if differences.is_empty() {
            self.lock().counts.equal += 1;
            return;
        }
        let class = self.classify(&job);
        let divergences: Vec<_> = differences
            .into_iter()
            .map(|difference| Divergence::new(&job.snapshot, &job.invocation, difference, class))
            .collect();
        self.note(class, &divergences);
    }

    /// Runs both again on the same snapshot.
    fn classify(&self, job: &Job) -> DivergenceClass {
        let again = |run: Result<Outcome, BackendError>| match run {
            Ok(outcome) => Some(compare(&job.snapshot, &job.control, &outcome).is_empty()),
            Err(error) => {
                tracing::warn!("a difference could not be looked at again: {error}");
                None
            }
        };
        match again(Self::run(self.in_process.as_ref(), job)) {
            Some(true) => match again(self.candidate(job)) {
                Some(true) => DivergenceClass::FlakyCandidate,
                Some(false) => DivergenceClass::Confirmed,
                None => DivergenceClass::Unconfirmed,
            },
            Some(false) => DivergenceClass::NondeterministicControl,
            None => DivergenceClass::Unconfirmed,
        }
    }

    fn candidate(&self, job: &Job) -> Result<Outcome, BackendError> {
        Self::run(self.sandbox.get()?.as_ref(), job)
    }

    fn run(backend: &dyn Backend, job: &Job) -> Result<Outcome, BackendError> {
        let mut execution = match &job.call {
            Call::Query { overlay } => {
                return backend.query(&job.snapshot, &job.invocation, overlay.as_ref());
            }
            Call::Execute => backend.execute(&job.snapshot, &job.invocation)?,
        };
        loop {
            match execution {
                Execution::Finished(outcome) => return Ok(outcome),
                Execution::Paused(run) => execution = run.resume(job.invocation.slice)?,
            }
        }
    }

    fn note(&self, class: DivergenceClass, divergences: &[Divergence]) {
        let mut state = self.lock();
        state.counts.diverged(class);
        for divergence in divergences {
            state.record(divergence, self.options.records_max);
        }
        drop(state);
        for divergence in divergences {
            tracing::error!("modes differ: {divergence}");
            if let Some(observer) = &self.border.observer {
                observer.on_divergence(divergence);
            }
        }
    }
}

/// A candidate under way. Counted even when a backend panics, so that nobody waits for it for ever.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        if std::thread::panicking() {
            // This thread ends; the next offer starts another.
            state.counts.failed += 1;
            state.threads -= 1;
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl State {
    fn record(&mut self, divergence: &Divergence, records_max: usize) {
        let Divergence { canister, kind, method, difference, invocation, class } = divergence;
        let now = SystemTime::now();
        let room = self.records.len() < records_max;
        match self.records.entry((*canister, kind, method.clone(), difference.field, *class)) {
            Entry::Occupied(mut record) => {
                let record = record.get_mut();
                record.count += 1;
                (record.last_invocation, record.last_time) = (*invocation, now);
            }
            Entry::Vacant(vacant) if room => {
                let first = divergence.clone();
                vacant.insert(DivergenceRecord {
                    first,
                    first_time: now,
                    last_invocation: *invocation,
                    last_time: now,
                    count: 1,
                });
            }
            Entry::Vacant(_) => self.counts.unrecorded += 1,
        }
    }
}
