//! Messages that a worker has run behind the one that it was asked for, until somebody asks for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use execution::{BackendError, Batch, Execution, Invocation, Left, Snapshot};
use sandbox_os::tsc;

use crate::claims::{Answered, Bounds};
use crate::options::{Observer, Phases};
use crate::pace::{Pace, Patience};
use crate::resident::{Resident, Run, Step};
use crate::sandboxed::end;
use crate::status::Registry;
use crate::table::Lease;

/// What is the same for all messages of a request.
pub(crate) struct Terms {
    pub(crate) pace: Pace,
    pub(crate) patience: Patience,
    /// Each message's part of the request's time.
    pub(crate) phases: Phases,
    pub(crate) observer: Option<Observer>,
    pub(crate) registry: Arc<Registry>,
}

/// They wait with their worker. Dropped, it forgets what they did, and is put back; what it claimed of them isn't judged
/// then, because it has no effect.
pub(crate) struct Behind {
    terms: Terms,
    answers: VecDeque<(Answered, Bounds)>,
    held: Option<(Resident, Lease)>,
}

impl Terms {
    /// Ends a message; the worker stays with what is `behind` it, if there is anything.
    pub(crate) fn end(
        self,
        step: Step,
        behind: VecDeque<(Answered, Bounds)>,
        invocation: &Invocation,
        lease: Lease,
    ) -> (Execution, Option<Behind>) {
        match step {
            Step::Finished(outcome, Some(resident)) if !behind.is_empty() => {
                let behind = Behind { terms: self, answers: behind, held: Some((resident, lease)) };
                (Execution::Finished(outcome), Some(behind))
            }
            step => (end(step, invocation, lease, &self.registry), None),
        }
    }
}

impl Batch for Behind {
    fn next(
        &mut self,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Option<Result<Execution, BackendError>> {
        tsc::turn_goes_on();
        let start = Instant::now();
        let there = |(resident, _): &mut (Resident, Lease)| resident.is_at(snapshot, &invocation.limits);
        let (answer, bounds) = self.answers.pop_front_if(|_| self.held.as_mut().is_some_and(there))?;
        let (resident, lease) = self.held.take()?;
        let run = Run {
            id: invocation.id,
            target: snapshot.clone(),
            bounds,
            pace: self.terms.pace,
            patience: self.terms.patience,
        };
        let step = resident.take(answer, run).inspect_err(|fault| lease.make_room(&fault.error));
        let step = step.and_then(|step| step.judged(snapshot, invocation));
        lease.note(&step);
        if let Some(observer) = self.terms.observer.as_ref().filter(|_| step.is_ok()) {
            observer(&Phases { invocation: invocation.id, pages: start.elapsed(), ..self.terms.phases });
        }
        Some(match step {
            Ok(Step::Finished(outcome, Some(resident))) if !self.answers.is_empty() => {
                self.held = Some((resident, lease));
                Ok(Execution::Finished(outcome))
            }
            Ok(step) => Ok(end(step, invocation, lease, &self.terms.registry)),
            Err(fault) => {
                self.terms.registry.failed(&fault);
                Err(fault.error)
            }
        })
    }

    fn left(&self) -> Left {
        let answers = self.held.iter().flat_map(|_| &self.answers);
        answers.fold(Left::default(), |left, (answer, _)| Left {
            executions: left.executions.saturating_add(1),
            instructions: left.instructions.saturating_add(answer.instructions()),
        })
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let Some((resident, lease)) = self.held.take() else { return };
        self.terms.registry.discarded(self.answers.len());
        let answers = self.answers.drain(..).map(|(answer, _)| answer);
        if let Some(resident) = resident.without(answers) {
            lease.put_back(resident);
        }
    }
}
