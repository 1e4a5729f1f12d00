//! Turns what rounds and queries of a node did into observations.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use execution::{IngressStatus, MessageId, Outcome, Principal, QueryAnswer, RoundReport, Subnet};

use crate::observation::{After, Answer, Effects, Excerpt, Observation, Run};

/// What runs gave, by invocation, from their end until somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Given(Mutex<HashMap<u64, Effects>>);

impl Given {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Effects>> {
        // An insert, a removal or a clear leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a run gave.
    pub(crate) fn keep(&self, invocation: u64, outcome: &Outcome) {
        if let Some(effects) = outcome.effects.as_ref().map(Effects::of) {
            self.lock().insert(invocation, effects);
        }
    }

    /// Forgets everything, e.g. of runs that were not committed.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn run(&self, executed: &execution::Executed) -> Observation {
        let effects = self.lock().remove(&executed.invocation);
        Observation::Run(Box::new(Run::of(executed, effects)))
    }
}

/// Follows users' messages to their answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    submitted: u64,
    /// Taken in and not answered, by number.
    pending: Vec<(u64, MessageId)>,
}

impl Watch {
    /// A message arrived; `None`: it was refused.
    pub(crate) fn submitted(&mut self, taken: Option<MessageId>) {
        self.submitted += 1;
        self.pending.extend(taken.map(|id| (self.submitted, id)));
    }

    /// The message that arrived last, and was refused, doesn't count.
    pub(crate) fn forget_refused(&mut self) {
        self.submitted -= 1;
    }

    /// What the round gave that `report` is of.
    pub(crate) fn round(
        &mut self,
        subnet: &mut Subnet,
        report: &RoundReport,
        given: &Given,
    ) -> Vec<Observation> {
        // First: what a node could not run explains whatever differs after it.
        let mut observed: Vec<Observation> = report.failures.iter().map(Observation::from).collect();
        observed.extend(report.executed.iter().map(|run| given.run(run)));
        self.pending.retain(|(message, id)| match subnet.status(id) {
            // Known once, it can't be unknown before its answer, which is there for a round: none to wait for.
            IngressStatus::Unknown | IngressStatus::Done => false,
            status => match Answer::of(&status) {
                Some(answer) => {
                    observed.push(Observation::Answered { message: *message, answer });
                    false
                }
                None => true,
            },
        });
        let ran: BTreeSet<Principal> = report.executed.iter().map(|run| run.canister).collect();
        observed.extend(ran.into_iter().map(|id| {
            Observation::Canister {
                id,
                after: subnet
                    .state()
                    .canister(&id)
                    .map(|canister| After { version: canister.version, cycles: canister.balance }),
            }
        }));
        observed.push(Observation::Root(subnet.state_root()));
        observed
    }
}

/// What a query gave.
pub(crate) fn query(answer: &QueryAnswer, given: &Given) -> Vec<Observation> {
    let mut observed: Vec<Observation> = answer.executed.iter().map(|run| given.run(run)).collect();
    observed.push(Observation::QueryAnswered(match &answer.result {
        Ok(reply) => Answer::Reply(Excerpt::of(reply)),
        Err(error) => Answer::Rejected(error.into()),
    }));
    observed
}
