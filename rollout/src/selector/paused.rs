//! An execution that stays in its mode, through every pause, and those that are run behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use execution::{
    BackendError, Batch, Execution, Instructions, Invocation, Left, Outcome, PausedRun, Snapshot,
};

use super::shadow::{Call, Control, Queue};
use super::{Border, Pin, observed, span};
use crate::{Arm, LivePolicy, Observed};

/// An execution under way, with what it is pinned to.
pub(super) struct Pinned {
    pub(super) pin: Pin,
    pub(super) observed: Observed,
    pub(super) border: Arc<Border>,
    /// In shadow: what the candidate will run.
    pub(super) shadow: Option<(Queue, Snapshot, Invocation)>,
    pub(super) span: tracing::Span,
    /// Time in the backend so far.
    pub(super) spent: Duration,
}

impl Pinned {
    /// An execution that begins, without a candidate.
    pub(super) fn new(pin: Pin, border: &Arc<Border>, snapshot: &Snapshot, invocation: &Invocation) -> Self {
        let (arm, generation) = (Arm::committed(pin.mode), pin.in_force.generation);
        Self {
            observed: observed(snapshot, invocation, pin.mode, arm, generation),
            border: Arc::clone(border),
            shadow: None,
            span: span(snapshot, invocation, pin.mode, arm, generation),
            pin,
            spent: Duration::ZERO,
        }
    }

    /// Takes in what a step of the run gave after `step`.
    pub(super) fn after(
        mut self,
        step: Duration,
        result: Result<Execution, BackendError>,
    ) -> Result<Execution, BackendError> {
        match result {
            Ok(Execution::Finished(outcome)) => {
                self.finished(step, &outcome, None);
                Ok(Execution::Finished(outcome))
            }
            Ok(Execution::Paused(run)) => {
                self.spent += step;
                Ok(Execution::Paused(Box::new(PinnedRun { run, pinned: self })))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Measures and tells of an outcome. `query`: it came from a query, with this overlay.
    pub(super) fn finished(mut self, step: Duration, outcome: &Outcome, query: Option<Option<&Snapshot>>) {
        self.observed.duration = self.spent + step;
        let observed = self.observed.with(outcome);
        self.border.switches.note(&self.pin, &observed);
        if let Some(observer) = &self.border.observer {
            observer.on_outcome(observed.invocation, outcome);
        }
        let stamp = self.pin.stamp();
        self.border.finished(&observed, stamp, &self.span);
        if let Some((queue, snapshot, invocation)) = self.shadow {
            let call = match query {
                Some(overlay) => Call::Query { overlay: overlay.cloned() },
                None => Call::Execute,
            };
            let rule = self.pin.in_force.policy.shadow();
            queue.offer(
                rule,
                Control { call, snapshot, invocation, outcome: outcome.clone() },
                observed.duration,
                stamp,
            );
        }
        self.border.messages.answered(observed.invocation, observed.arm, observed.duration);
    }

    pub(super) fn failed(self, error: BackendError) -> BackendError {
        self.span.record("outcome", "failed");
        let _entered = self.span.entered();
        tracing::warn!("execution failed around the guest: {error}");
        error
    }
}

struct PinnedRun {
    run: Box<dyn PausedRun>,
    pinned: Pinned,
}

impl PausedRun for PinnedRun {
    fn resume(self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError> {
        let Self { run, pinned } = *self;
        let started = Instant::now();
        let result = pinned.span.in_scope(|| run.resume(slice));
        pinned.after(started.elapsed(), result)
    }

    fn abort(self: Box<Self>) {
        self.pinned.span.record("outcome", "aborted");
        self.run.abort();
    }
}

/// How the time of a call that ran several messages is told of each: by their instructions, and the same part of what
/// each call costs whatever it runs. A long message is a long one so, whatever was run with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    spent: Duration,
    weight: u64,
}

impl Share {
    /// What a message weighs besides its instructions: as much as those of about 10 us.
    const MESSAGE: u64 = 20_000;

    pub(super) fn new(spent: Duration, first: &Result<Execution, BackendError>, left: Left) -> Self {
        let Left { executions, instructions } = left;
        let others = Self::MESSAGE.saturating_mul(executions as u64).saturating_add(instructions);
        Self { spent, weight: Self::weight(first).saturating_add(others) }
    }

    fn weight(execution: &Result<Execution, BackendError>) -> u64 {
        let instructions = match execution {
            Ok(Execution::Finished(outcome)) => outcome.instructions,
            // It goes on, and is told of when it has ended.
            Ok(Execution::Paused(_)) | Err(_) => 0,
        };
        Self::MESSAGE.saturating_add(instructions)
    }

    /// The part of one of them.
    pub(super) fn of(self, execution: &Result<Execution, BackendError>) -> Duration {
        self.spent.mul_f64(Self::weight(execution) as f64 / self.weight as f64)
    }
}

/// Executions that were run behind another one, in its mode.
pub(super) struct PinnedBatch {
    pub(super) batch: Box<dyn Batch>,
    pub(super) pin: Pin,
    pub(super) live: Arc<LivePolicy>,
    pub(super) border: Arc<Border>,
    pub(super) share: Share,
}

impl Batch for PinnedBatch {
    fn next(
        &mut self,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Option<Result<Execution, BackendError>> {
        // A message begins when it is asked for, and after a switch that is in the new mode.
        if self.live.load().mode_of(&snapshot.canister) != self.pin.mode {
            return None;
        }
        let started = Instant::now();
        let result = self.batch.next(snapshot, invocation)?;
        let pinned = Pinned::new(self.pin.clone(), &self.border, snapshot, invocation);
        Some(pinned.after(self.share.of(&result) + started.elapsed(), result))
    }

    fn left(&self) -> Left {
        self.batch.left()
    }
}
