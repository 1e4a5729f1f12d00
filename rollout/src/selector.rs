//! Runs every execution in the mode in force at its start.

mod compare;
mod paused;
mod reproducer;
mod shadow;
mod switches;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use execution::{
    Backend, BackendError, Batch, Execution, Invocation, Limits, MessageKey, Outcome, Principal,
    RoundObserver, Snapshot,
};

pub use compare::{Comparison, Divergence, DivergenceClass, DivergenceRecord, Field, compare, shown};
use paused::{Pinned, PinnedBatch, Share};
pub use reproducer::{Reproducer, run_again};
pub use shadow::{ShadowCounts, ShadowOptions};
pub use switches::Switch;

use crate::measure::nanoseconds;
use crate::{
    Arm, Exposures, InForce, LivePolicy, MessageRecorder, Mode, Observed, Observer, OutcomeWord, Recorder,
    Trial,
};

/// Canisters that are got ready for a switch, on each node; the others pay their cold start, about 3 ms, with their first
/// message. (`rollout.md` section 2.1, `[switch] prewarm`.)
pub const PREWARMED_MAX: usize = 64;

/// Makes the sandboxed backend when it is first needed.
type MakeSandbox = Box<dyn Fn() -> Result<Arc<dyn Backend>, BackendError> + Send + Sync>;

/// The sandboxed backend, or why there is none.
pub enum Sandbox {
    /// It runs.
    Ready(Arc<dyn Backend>),
    /// Made when the first execution needs it; a failure is tried again with the next.
    Lazy {
        /// How.
        make: MakeSandbox,
        /// What it made.
        made: OnceLock<Arc<dyn Backend>>,
    },
    /// This node can't sandbox; the text says why.
    Unavailable(String),
}

impl Sandbox {
    /// A backend made on first use.
    #[must_use]
    pub fn lazy(make: impl Fn() -> Result<Arc<dyn Backend>, BackendError> + Send + Sync + 'static) -> Self {
        Self::Lazy { make: Box::new(make), made: OnceLock::new() }
    }

    /// The backend, if there is one already.
    fn made(&self) -> Option<&Arc<dyn Backend>> {
        match self {
            Self::Ready(backend) => Some(backend),
            Self::Lazy { made, .. } => made.get(),
            Self::Unavailable(_) => None,
        }
    }

    fn get(&self) -> Result<Arc<dyn Backend>, BackendError> {
        match self {
            Self::Ready(backend) => Ok(Arc::clone(backend)),
            Self::Lazy { make, made } => match made.get() {
                Some(backend) => Ok(Arc::clone(backend)),
                None => {
                    let backend = make()?;
                    // Of two made at once, one stays.
                    Ok(Arc::clone(made.get_or_init(|| backend)))
                }
            },
            Self::Unavailable(why) => Err(BackendError::Spawn(why.clone())),
        }
    }
}

impl From<Option<Arc<dyn Backend>>> for Sandbox {
    fn from(backend: Option<Arc<dyn Backend>>) -> Self {
        backend.map_or_else(|| Self::Unavailable("this node has no sandbox".into()), Self::Ready)
    }
}

/// The backend that the scheduler sees.
pub struct Selector {
    live: Arc<LivePolicy>,
    in_process: Arc<dyn Backend>,
    sandbox: Arc<Sandbox>,
    border: Arc<Border>,
    shadow: shadow::Queue,
}

/// Where executions are measured and told of.
struct Border {
    recorder: Arc<Recorder>,
    trial: Arc<Trial>,
    messages: MessageRecorder,
    observer: Option<Arc<dyn Observer>>,
    switches: switches::Switches,
}

/// What an execution is pinned to from its start to its end.
struct Pin {
    mode: Mode,
    on_trial: bool,
    /// Held for as long: [`LivePolicy::is_drained`] waits for it.
    in_force: Arc<InForce>,
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        Self::new(self.mode, self.on_trial, Arc::clone(&self.in_force))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.in_force.leave(self.mode);
    }
}

impl Pin {
    fn new(mode: Mode, on_trial: bool, in_force: Arc<InForce>) -> Self {
        in_force.enter(mode);
        Self { mode, on_trial, in_force }
    }

    fn stamp(&self) -> Stamp {
        Stamp { generation: self.in_force.generation, on_trial: self.on_trial.then_some(self.in_force.swap) }
    }
}

/// What an execution began under, for those who don't hold it.
#[derive(Clone, Copy)]
struct Stamp {
    generation: u64,
    /// The swap of the policy, where guards look at it.
    on_trial: Option<u64>,
}

impl Selector {
    /// Chooses by `live` between `in_process` and `sandbox`, recording into `recorder`.
    #[must_use]
    pub fn new(
        live: Arc<LivePolicy>,
        in_process: Arc<dyn Backend>,
        sandbox: impl Into<Sandbox>,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self::with(live, in_process, sandbox.into(), recorder, None, ShadowOptions::default())
    }

    /// As [`Selector::new`], telling `observer` of every execution, with bounds for shadow.
    #[must_use]
    pub fn with(
        live: Arc<LivePolicy>,
        in_process: Arc<dyn Backend>,
        sandbox: Sandbox,
        recorder: Arc<Recorder>,
        observer: Option<Arc<dyn Observer>>,
        options: ShadowOptions,
    ) -> Self {
        let sandbox = Arc::new(sandbox);
        let (trial, switches) = (Arc::default(), switches::Switches::default());
        let messages = MessageRecorder::default();
        let border = Arc::new(Border { recorder, trial, messages, observer, switches });
        let shadow =
            shadow::Queue::new(options, Arc::clone(&in_process), Arc::clone(&sandbox), Arc::clone(&border));
        Self { live, in_process, sandbox, border, shadow }
    }

    /// The policy it follows.
    #[must_use]
    pub fn live(&self) -> &Arc<LivePolicy> {
        &self.live
    }

    /// Its recorder.
    #[must_use]
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.border.recorder
    }

    /// What the guards of rollouts look at.
    #[must_use]
    pub fn trial(&self) -> &Arc<Trial> {
        &self.border.trial
    }

    /// Both backends: in-process and sandboxed.
    ///
    /// # Errors
    /// This node can't sandbox.
    pub fn backends(&self) -> Result<[Arc<dyn Backend>; 2], BackendError> {
        Ok([Arc::clone(&self.in_process), self.sandbox.get()?])
    }

    /// Has workers ready for canisters that run sandboxed, or in shadow, once `exposures` are in force and don't run
    /// sandboxed yet: of those with an idle instance in this process, the [`PREWARMED_MAX`] that ran last. `limits` are
    /// the subnet's. Begins with another one only while it may `go_on`. Gives how many it got ready; one whose worker fails is left out. One that was
    /// deleted or got other code since it ran costs a worker that nobody uses.
    ///
    /// # Errors
    /// No worker can be launched, for whichever canister.
    pub fn prewarm(
        &self,
        exposures: &Exposures,
        limits: &Limits,
        go_on: impl Fn() -> bool,
    ) -> Result<usize, BackendError> {
        let sandbox = self.sandbox.get()?;
        let mut warm = self.in_process.warm();
        {
            let (now, next) = (self.live.load(), self.live.with(exposures));
            warm.retain(|Snapshot { canister, .. }| {
                now.mode_of(canister) != Mode::Sandboxed && next.mode_of(canister) != Mode::InProcess
            });
        }
        warm.truncate(PREWARMED_MAX);
        let mut ready = 0;
        for snapshot in warm {
            if !go_on() {
                break;
            }
            match sandbox.prewarm(&snapshot, limits) {
                Ok(is_new) => ready += usize::from(is_new),
                Err(error @ (BackendError::Spawn(_) | BackendError::Exhausted { .. })) => return Err(error),
                // Its next message tries again, and says what is wrong.
                Err(error) => {
                    tracing::debug!(canister = %snapshot.canister, %error, "no worker ahead for a canister")
                }
            }
        }
        Ok(ready)
    }

    /// Where the time of messages goes, of a subnet that this observes.
    #[must_use]
    pub fn messages(&self) -> &MessageRecorder {
        &self.border.messages
    }

    /// For each swap after which something ran, its first finished execution; oldest first.
    #[must_use]
    pub fn switches(&self) -> Vec<Switch> {
        self.border.switches.all()
    }

    /// What shadow has compared, dropped and found.
    #[must_use]
    pub fn shadow_counts(&self) -> ShadowCounts {
        self.shadow.counts()
    }

    /// The differences found, one record per canister, kind, method and field.
    #[must_use]
    pub fn divergences(&self) -> Vec<DivergenceRecord> {
        self.shadow.divergences()
    }

    /// Waits until every candidate taken so far has been compared. False: `timeout` came first.
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        self.shadow.settle(timeout)
    }

    /// What is in force for `canister` now.
    fn pin(&self, canister: &Principal) -> Pin {
        let in_force = self.live.in_force();
        let placed = in_force.placed(canister);
        Pin::new(placed.mode, placed.on_trial, in_force)
    }

    /// The backend whose outcome is committed.
    fn committed(&self, mode: Mode) -> Result<Arc<dyn Backend>, BackendError> {
        match mode {
            Mode::InProcess | Mode::Shadow => Ok(Arc::clone(&self.in_process)),
            Mode::Sandboxed => self.sandbox.get(),
        }
    }

    fn pinned(&self, pin: Pin, snapshot: &Snapshot, invocation: &Invocation) -> Pinned {
        let shadow = (pin.mode == Mode::Shadow && self.shadow.is_sampled(pin.in_force.policy.shadow()))
            .then(|| (self.shadow.clone(), snapshot.clone(), invocation.clone()));
        Pinned { shadow, ..Pinned::new(pin, &self.border, snapshot, invocation) }
    }
}

impl Backend for Selector {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let pin = self.pin(&snapshot.canister);
        let backend = self.committed(pin.mode)?;
        let pinned = self.pinned(pin, snapshot, invocation);
        let started = Instant::now();
        let result = pinned.span.in_scope(|| backend.execute(snapshot, invocation));
        pinned.after(started.elapsed(), result)
    }

    /// As many as any canister's backend takes: whose canister it is for isn't asked here. One in another mode runs
    /// the first of a batch alone.
    fn batch_max(&self) -> usize {
        if self.live.load().may_sandbox() {
            // Not made for that: the first message does, and tells if it can't be.
            return self.sandbox.made().map_or(1, |sandbox| sandbox.batch_max());
        }
        match self.live.load().mode() {
            // Each message is compared with its candidate, one by one.
            Mode::Shadow | Mode::Sandboxed => 1,
            Mode::InProcess => self.in_process.batch_max(),
        }
    }

    fn execute_batch(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
    ) -> Result<(Execution, Option<Box<dyn Batch>>), BackendError> {
        let pin = self.pin(&snapshot.canister);
        let backend = self.committed(pin.mode)?;
        // Shadow compares one by one.
        let expected = if pin.mode == Mode::Shadow { &[] } else { expected };
        let pinned = self.pinned(pin.clone(), snapshot, invocation);
        let started = Instant::now();
        let result = pinned.span.in_scope(|| backend.execute_batch(snapshot, invocation, expected));
        let spent = started.elapsed();
        let (execution, batch) = match result {
            Ok((execution, batch)) => (Ok(execution), batch),
            Err(error) => (Err(error), None),
        };
        let Some(batch) = batch else { return Ok((pinned.after(spent, execution)?, None)) };
        let share = Share::new(spent, &execution, batch.left());
        let execution = pinned.after(share.of(&execution), execution)?;
        let (live, border) = (Arc::clone(&self.live), Arc::clone(&self.border));
        Ok((execution, Some(Box::new(PinnedBatch { batch, pin, live, border, share }))))
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        let pin = self.pin(&snapshot.canister);
        let backend = self.committed(pin.mode)?;
        let pinned = self.pinned(pin, snapshot, invocation);
        let started = Instant::now();
        let result = pinned.span.in_scope(|| backend.query(snapshot, invocation, overlay));
        let spent = started.elapsed();
        match result {
            Ok(outcome) => {
                pinned.finished(spent, &outcome, Some(overlay));
                Ok(outcome)
            }
            Err(error) => Err(pinned.failed(error)),
        }
    }

    /// Whatever the mode: both may hold what the node is short of.
    fn relieve(&self, short: &BackendError) -> bool {
        let in_process = self.in_process.relieve(short);
        self.sandbox.made().is_some_and(|sandbox| sandbox.relieve(short)) || in_process
    }
}

/// It knows in which mode a message runs, and has the clock that `execution` doesn't read.
impl RoundObserver for Selector {
    fn ready(&self, message: MessageKey) {
        self.border.messages.ready(message.number());
    }

    fn begun(&self, message: MessageKey, canister: &Principal, kind: &'static str) {
        if let Some(wait) = self.border.messages.begun(message.number()) {
            let arm = Arm::committed(self.live.load().mode_of(canister));
            self.border.messages.waited(arm, kind, wait);
        }
    }

    fn dropped(&self, message: MessageKey) {
        let _unmeasured = self.border.messages.begun(message.number());
    }

    fn checked(&self, invocation: u64) {
        self.border.messages.checked(invocation);
    }

    fn committed(&self, invocation: u64) {
        self.border.messages.committed(invocation);
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selector").field("live", &self.live).field("shadow", &self.shadow_counts()).finish()
    }
}

impl Border {
    /// Takes in how long an execution took, and whether it trapped.
    fn measured(&self, observed: &Observed, stamp: Stamp) {
        self.recorder.record(observed.arm, observed.kind, observed.duration);
        if let Some(swap) = stamp.on_trial {
            let trapped = observed.outcome == OutcomeWord::Trap;
            self.trial.record(swap, observed.arm, observed.kind, observed.duration, trapped);
        }
    }

    fn finished(&self, observed: &Observed, stamp: Stamp, span: &tracing::Span) {
        span.record("outcome", observed.outcome.as_str());
        span.record("queue_ns", nanoseconds(observed.queued));
        span.record("execute_ns", nanoseconds(observed.duration));
        self.measured(observed, stamp);
        if let Some(observer) = &self.observer {
            observer.on_executed(observed);
        }
    }
}

/// An execution before it has run.
fn observed(snapshot: &Snapshot, invocation: &Invocation, mode: Mode, arm: Arm, generation: u64) -> Observed {
    Observed {
        invocation: invocation.id,
        canister: snapshot.canister,
        kind: invocation.entry.kind(),
        method: invocation.entry.method().map(str::to_owned),
        mode,
        arm,
        generation,
        outcome: OutcomeWord::None,
        code: None,
        instructions: 0,
        heap_pages_dirty: 0,
        stable_pages_dirty: 0,
        queued: Duration::ZERO,
        duration: Duration::ZERO,
        finished: Instant::now(),
    }
}

fn span(
    snapshot: &Snapshot,
    invocation: &Invocation,
    mode: Mode,
    arm: Arm,
    generation: u64,
) -> tracing::Span {
    tracing::info_span!(
        "message",
        id = invocation.id,
        canister = %snapshot.canister,
        kind = invocation.entry.kind(),
        method = invocation.entry.method(),
        mode = mode.as_str(),
        arm = arm.as_str(),
        generation,
        queue_ns = tracing::field::Empty,
        execute_ns = tracing::field::Empty,
        outcome = tracing::field::Empty,
    )
}
