//! The second run of an execution: off the reply path, compared, dropped.

mod budget;
mod runner;

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use execution::{Backend, BackendError, Invocation, Outcome, Principal, Snapshot};

use super::{
    Border, Comparison, Divergence, DivergenceClass, DivergenceRecord, Field, Reproducer, Sandbox, Stamp,
    compare, observed, run_again, span,
};
use crate::measure::scattered;
use crate::policy::PPM;
use crate::{Arm, Mode, ShadowRule};
use budget::Budget;
use runner::{Ran, Runner, Threads};

/// Candidates that hang at a time. Beyond that no other is begun until one of them has ended, as the sandbox sees to.
const HUNG_MAX: usize = 4;

/// Bounds of shadow.
#[derive(Clone, Copy, Debug)]
pub struct ShadowOptions {
    /// Candidates that may wait; beyond that they are dropped and counted.
    pub queue_max: usize,
}

impl Default for ShadowOptions {
    fn default() -> Self {
        Self { queue_max: 256 }
    }
}

/// What became of the executions that ran in shadow. After settling, `offered` is the sum of `equal`, `diverged`,
/// `dropped`, `over_budget`, `timed_out` and `failed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Executions begun in shadow that the sample left out.
    pub unsampled: u64,
    /// Executions committed in shadow that were to be compared.
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
    /// Candidates not run because the queue was full, or too many hung.
    pub dropped: u64,
    /// Candidates not run because those before them had taken what there is of processor time.
    pub over_budget: u64,
    /// Candidates that had not ended by their deadline. Nothing is known of what they would have given.
    pub timed_out: u64,
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

    /// Candidates that were let go for whatever reason, failed ones excepted.
    #[must_use]
    pub fn let_go(&self) -> u64 {
        self.dropped + self.over_budget + self.timed_out
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

/// The run whose outcome is committed.
pub(super) struct Control {
    pub(super) call: Call,
    pub(super) snapshot: Snapshot,
    pub(super) invocation: Invocation,
    pub(super) outcome: Outcome,
}

struct Job {
    control: Arc<Control>,
    stamp: Stamp,
    offered: Instant,
    deadline: Duration,
    cpu_share_ppm: u32,
    records_max: usize,
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
    /// Executions asked for a sample so far.
    asked: AtomicU64,
    unsampled: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    candidates: Threads,
    budget: Arc<Budget>,
}

struct State {
    waiting: VecDeque<Job>,
    /// One is being compared.
    running: bool,
    /// There is a thread that compares.
    served: bool,
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
        let state = Mutex::new(State {
            waiting: VecDeque::new(),
            running: false,
            served: false,
            closed: false,
            counts: ShadowCounts::default(),
            records: HashMap::new(),
        });
        let shared = Shared {
            options,
            in_process,
            sandbox,
            border,
            asked: AtomicU64::new(0),
            unsampled: AtomicU64::new(0),
            state,
            changed: Condvar::new(),
            candidates: Threads::default(),
            budget: Arc::new(Budget::new(Instant::now())),
        };
        Self(Arc::new(Owner(Arc::new(shared))))
    }

    /// Whether the execution that begins now is one of those that are compared. Every one has the same chance, in
    /// whatever order they come.
    pub(super) fn is_sampled(&self, rule: ShadowRule) -> bool {
        if rule.sample_ppm >= PPM {
            return true;
        }
        let shared = &self.0.0;
        let place = scattered(shared.asked.fetch_add(1, Ordering::Relaxed));
        let sampled = (u128::from(place) * u128::from(PPM)) >> 64 < u128::from(rule.sample_ppm);
        if !sampled {
            shared.unsampled.fetch_add(1, Ordering::Relaxed);
        }
        sampled
    }

    /// Queues the candidate of a control that took `spent`, or drops it when there is no room. Never waits for one.
    pub(super) fn offer(&self, rule: ShadowRule, control: Control, spent: Duration, stamp: Stamp) {
        let shared = &self.0.0;
        let offered = Instant::now();
        let mut state = shared.lock();
        state.counts.offered += 1;
        if !shared.budget.allows(rule.cpu_share_ppm, offered) {
            state.counts.over_budget += 1;
            return;
        }
        if state.waiting.len() >= shared.options.queue_max || !start_thread(shared, &mut state) {
            state.counts.dropped += 1;
            return;
        }
        state.waiting.push_back(Job {
            control: Arc::new(control),
            stamp,
            offered,
            deadline: rule.deadline(spent),
            cpu_share_ppm: rule.cpu_share_ppm,
            records_max: rule.records_max,
        });
        drop(state);
        shared.changed.notify_all();
    }

    pub(super) fn counts(&self) -> ShadowCounts {
        let shared = &self.0.0;
        ShadowCounts { unsampled: shared.unsampled.load(Ordering::Relaxed), ..shared.lock().counts }
    }

    pub(super) fn divergences(&self) -> Vec<DivergenceRecord> {
        let mut records: Vec<_> = self.0.0.lock().records.values().cloned().collect();
        records.sort_by_key(|record| (record.first.invocation, record.first.difference.field));
        records
    }

    pub(super) fn settle(&self, timeout: Duration) -> bool {
        let shared = &self.0.0;
        let busy = |state: &mut State| !state.waiting.is_empty() || state.running;
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

/// Starts the thread that compares, if there is none. False: it can't be had.
fn start_thread(shared: &Arc<Shared>, state: &mut State) -> bool {
    if !state.served {
        let worker = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("shadow".into());
        match thread.spawn(move || worker.serve()) {
            Ok(_) => state.served = true,
            Err(error) => tracing::warn!("could not start the shadow thread: {error}"),
        }
    }
    state.served
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts and queue are consistent between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut runner = None;
        while let Some(job) = self.next() {
            let _running = Running(self);
            if self.has_room_for(&job, runner.is_some()) {
                self.compare(&mut runner, job);
            }
        }
    }

    /// Whether a candidate may begin now: others that waited with it may have hung, or taken all there was of processor
    /// time. Counts it where it may not.
    fn has_room_for(&self, job: &Job, has_thread: bool) -> bool {
        let mut state = self.lock();
        if !self.budget.allows(job.cpu_share_ppm, Instant::now()) {
            state.counts.over_budget += 1;
        } else if !has_thread && self.candidates.count() > HUNG_MAX {
            state.counts.dropped += 1;
        } else {
            return true;
        }
        false
    }

    fn next(&self) -> Option<Job> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
        let mut state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let job = state.waiting.pop_front()?;
        state.running = true;
        Some(job)
    }

    /// Runs the candidate and compares. Its pages go back to the arena when `job` is dropped, and what hangs has ended.
    fn compare(&self, runner: &mut Option<Runner>, job: Job) {
        let Control { snapshot, invocation, outcome: control, .. } = &*job.control;
        let arm = Arm::ShadowCandidate;
        let span = span(snapshot, invocation, Mode::Shadow, arm, job.stamp.generation);
        let _entered = span.enter();
        let mut observed = observed(snapshot, invocation, Mode::Shadow, arm, job.stamp.generation);
        observed.queued = job.offered.elapsed();
        let (ran, spent) = self.run(runner, &job, Side::Candidate);
        observed.duration = spent;
        let candidate = match ran {
            Ran::Outcome(candidate) => candidate,
            Ran::Failed(why) => {
                span.record("outcome", "failed");
                tracing::warn!("shadow candidate failed around the guest: {why}");
                self.lock().counts.failed += 1;
                return;
            }
            Ran::TimedOut => {
                span.record("outcome", "timed out");
                tracing::warn!("shadow candidate had not ended after {:?}", job.deadline);
                // It took that long at least. Left out, those that hang would make the others look quicker.
                self.border.measured(&observed, job.stamp);
                self.lock().counts.timed_out += 1;
                return;
            }
        };
        self.border.finished(&observed.with(&candidate), job.stamp, &span);
        let differences = compare(snapshot, control, &candidate);
        if differences.is_empty() {
            self.lock().counts.equal += 1;
            return;
        }
        let class = self.classify(runner, &job);
        self.note(&job, &candidate, &differences, class);
    }

    /// Runs both again on the same snapshot.
    fn classify(&self, runner: &mut Option<Runner>, job: &Job) -> DivergenceClass {
        let mut again = |side| match self.run(runner, job, side).0 {
            Ran::Outcome(outcome) => {
                Some(compare(&job.control.snapshot, &job.control.outcome, &outcome).is_empty())
            }
            Ran::Failed(why) => {
                tracing::warn!("a difference could not be looked at again: {why}");
                None
            }
            Ran::TimedOut => {
                tracing::warn!("a difference could not be looked at again within {:?}", job.deadline);
                None
            }
        };
        match again(Side::Control) {
            Some(true) => match again(Side::Candidate) {
                Some(true) => DivergenceClass::FlakyCandidate,
                Some(false) => DivergenceClass::Confirmed,
                None => DivergenceClass::Unconfirmed,
            },
            Some(false) => DivergenceClass::NondeterministicControl,
            None => DivergenceClass::Unconfirmed,
        }
    }

    /// Runs one side within the job's deadline, and says how long that took.
    fn run(&self, runner: &mut Option<Runner>, job: &Job, side: Side) -> (Ran, Duration) {
        let backend = match side {
            Side::Control => Ok(Arc::clone(&self.in_process)),
            Side::Candidate => self.sandbox.get(),
        };
        let backend = match backend {
            Ok(backend) => backend,
            Err(error) => return (Ran::Failed(error.to_string()), Duration::ZERO),
        };
        let thread = match runner.take().map_or_else(|| Runner::start(&self.candidates), Ok) {
            Ok(thread) => thread,
            Err(error) => return (Ran::Failed(format!("no thread for it: {error}")), Duration::ZERO),
        };
        let (control, budget) = (Arc::clone(&job.control), Arc::clone(&self.budget));
        let span = tracing::Span::current();
        let started = Instant::now();
        let task = Box::new(move || {
            // One that was left behind is charged when it ends.
            let _charged = budget.charged();
            span.in_scope(|| control.run_again(backend.as_ref()))
        });
        let (left, ran) = thread.run(task, job.deadline);
        *runner = left;
        (ran, started.elapsed())
    }

    /// Counts, keeps and tells of what differs.
    fn note(&self, job: &Job, candidate: &Outcome, differences: &[Comparison], class: DivergenceClass) {
        let Control { snapshot, invocation, outcome: control, .. } = &*job.control;
        let divergences: Vec<_> = differences
            .iter()
            .map(|difference| Divergence::new(snapshot, invocation, difference.clone(), class))
            .collect();
        // Counted before anything else: a rollback waits for no disk.
        let mut state = self.lock();
        state.counts.diverged(class);
        let new: Vec<_> = divergences
            .iter()
            .filter(|divergence| state.record(divergence, job.records_max))
            .map(signature)
            .collect();
        drop(state);
        let observer = self.border.observer.as_deref();
        let query = job.control.query();
        let bundle = observer.filter(|_| !new.is_empty()).and_then(|observer| {
            observer.on_new_divergence(&Reproducer {
                snapshot,
                invocation,
                query,
                control,
                candidate,
                differences,
                class,
            })
        });
        let mut state = self.lock();
        for signature in new {
            if let Some(record) = state.records.get_mut(&signature) {
                record.bundle.clone_from(&bundle);
            }
        }
        drop(state);
        for divergence in &divergences {
            tracing::error!("modes differ: {divergence}");
            if let Some(observer) = observer {
                observer.on_divergence(divergence);
            }
        }
    }
}

/// Of a comparison.
#[derive(Clone, Copy)]
enum Side {
    Control,
    Candidate,
}

impl Control {
    /// See [`Reproducer::query`].
    fn query(&self) -> Option<Option<&Snapshot>> {
        match &self.call {
            Call::Execute => None,
            Call::Query { overlay } => Some(overlay.as_ref()),
        }
    }

    /// The same run on `backend`.
    fn run_again(&self, backend: &dyn Backend) -> Result<Outcome, BackendError> {
        run_again(backend, &self.snapshot, &self.invocation, self.query())
    }
}

/// A comparison under way. Counted even when an observer panics, so that nobody waits for it for ever.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running = false;
        if std::thread::panicking() {
            // This thread ends; the next offer starts another.
            state.counts.failed += 1;
            state.served = false;
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

fn signature(divergence: &Divergence) -> Signature {
    let Divergence { canister, kind, method, difference, invocation: _, class } = divergence;
    (*canister, kind, method.clone(), difference.field, *class)
}

impl State {
    /// Takes a difference into its record. Whether that is a new one.
    fn record(&mut self, divergence: &Divergence, records_max: usize) -> bool {
        let now = SystemTime::now();
        let room = self.records.len() < records_max;
        match self.records.entry(signature(divergence)) {
            Entry::Occupied(mut record) => {
                let record = record.get_mut();
                record.count += 1;
                (record.last_invocation, record.last_time) = (divergence.invocation, now);
                false
            }
            Entry::Vacant(vacant) if room => {
                let first = divergence.clone();
                vacant.insert(DivergenceRecord {
                    first,
                    first_time: now,
                    last_invocation: divergence.invocation,
                    last_time: now,
                    count: 1,
                    bundle: None,
                });
                true
            }
            Entry::Vacant(_) => {
                self.counts.unrecorded += 1;
                false
            }
        }
    }
}
