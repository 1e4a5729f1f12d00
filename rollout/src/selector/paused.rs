//! An execution that stays in its mode, through every pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use execution::{BackendError, Execution, Instructions, Invocation, Outcome, PausedRun, Snapshot};

use super::shadow::{Call, Queue};
use super::{Border, Pin};
use crate::Observed;

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
        self.border.switches.note(self.pin, &observed);
        if let Some(observer) = &self.border.observer {
            observer.on_outcome(observed.invocation, outcome);
        }
        self.border.finished(&observed, &self.span);
        if let Some((queue, snapshot, invocation)) = self.shadow {
            let call = match query {
                Some(overlay) => Call::Query { overlay: overlay.cloned() },
                None => Call::Execute,
            };
            queue.offer(call, snapshot, invocation, outcome, self.pin.generation);
        }
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
