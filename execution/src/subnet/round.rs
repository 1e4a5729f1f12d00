//! One round: tasks and expiries, then management calls, canisters and deliveries until nothing is
//! left or budgets are used up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::answer::{Output, Verdict, answer};
use crate::report::{Executed, Failure, RoundReport};
use crate::run::{Env, MESSAGE_OVERHEAD, Staged};
use crate::state::{CanisterMessage, CanisterState, Payload, Response, Shared, Status, Task, TaskPointer};
use crate::subnet::{Failing, Subnet, WAIT_ROUNDS_MAX};
use crate::{BackendError, ErrorCode, Instructions, Nanoseconds, Principal, UserError};

/// Deliveries between canisters in one round.
const DELIVERIES_MAX: usize = 256;
/// How long `stop_canister` waits.
const STOP_TIMEOUT: Nanoseconds = 300_000_000_000;
/// How often storage is charged.
const CHARGE_INTERVAL: Nanoseconds = 100_000_000_000;

/// What one round keeps in mind.
#[derive(Default)]
pub(crate) struct RoundWork {
    pub(crate) report: RoundReport,
    /// Instructions left, by canister; absent: all.
    budgets: BTreeMap<Principal, Instructions>,
    /// Canisters that don't run any more in this round.
    skipped: BTreeSet<Principal>,
    /// Callers of the management canister whose next call failed around the guest in this round.
    pub(crate) blocked: BTreeSet<Principal>,
}

/// What an executor gets.
struct Job {
    canister: Shared<CanisterState>,
    budget: Instructions,
}

/// What it gives back.
struct Done {
    canister: CanisterState,
    outputs: Vec<Output>,
    executed: Vec<Executed>,
    budget: Instructions,
    failure: Option<BackendError>,
}

impl Subnet {
    /// Runs one round at `time` (never earlier than the last one) with the round's random `seed`.
    ///
    /// Canister code of a single active canister, and of installs, runs on the calling thread: it needs
    /// a stack of [`crate::EXECUTOR_STACK_BYTES`].
    pub fn round(&mut self, time: Nanoseconds, seed: [u8; 32]) -> RoundReport {
        self.state.time = self.state.time.max(time);
        self.state.round += 1;
        self.state.seed = seed;
        self.state.draws = 0;
        self.state.ingress.prune(self.state.time);
        self.expire_calls();
        self.expire_stops();
        self.charge_storage();
        self.queue_tasks();

        let now = self.state.round;
        let waits = |failing: &Failing| failing.is_quarantined() || failing.resumes > now;
        let skipped = self.failing.iter().filter(|(_, failing)| waits(failing)).map(|(id, _)| *id).collect();
        let mut work = RoundWork { skipped, ..RoundWork::default() };
        for _ in 0..DELIVERIES_MAX {
            let managed = self.run_management(&mut work);
            let ran = self.run_canisters(&mut work);
            if !managed && !ran {
                break;
            }
        }
        work.report.more =
            !self.state.management.is_empty() || !self.schedule.active.is_subset(&work.skipped);
        work.report
    }

    /// Runs every active canister with budget left; `false` when there was none.
    fn run_canisters(&mut self, work: &mut RoundWork) -> bool {
        let RoundWork { report, budgets, skipped, .. } = work;
        let whole = self.config.limits.round_instructions;
        let jobs: Vec<(Principal, Job)> = self
            .schedule
            .active
            .iter()
            .filter(|id| !skipped.contains(id))
            .filter_map(|id| {
                let budget = budgets.get(id).copied().unwrap_or(whole);
                let canister = self.state.canisters.get(id).filter(|_| budget > 0)?;
                if self.wrote_too_much(canister) {
                    return None;
                }
                Some((*id, Job { canister: canister.clone(), budget }))
            })
            .collect();
        if jobs.is_empty() {
            return false;
        }
        let env = self.env(jobs.len());
        let results = self.executors.map(jobs, move |job| run_inputs(&env, job));
        let mut outputs = Vec::new();
        for mut done in results {
            let id = done.canister.id;
            let written = done.executed.iter().map(Executed::bytes_written).sum();
            self.note_written(&mut done.canister, written);
            budgets.insert(id, done.budget);
            report.executed.extend(done.executed);
            outputs.extend(done.outputs);
            self.put(done.canister);
            match done.failure {
                None => {
                    self.failing.remove(&id);
                }
                Some(error) => {
                    skipped.insert(id);
                    report.failures.push(self.note_failure(id, &error));
                }
            }
        }
        self.route(outputs);
        true
    }

    /// Counts a canister's failed round. One that lacked a resource of the node doesn't count towards
    /// quarantine: the message waits until there is enough, and is tried ever less often.
    pub(crate) fn note_failure(&mut self, canister: Principal, error: &BackendError) -> Failure {
        let failing = self.failing.entry(canister).or_default();
        if matches!(error, BackendError::Exhausted { .. }) {
            let wait = 1_u32.checked_shl(failing.lacking).unwrap_or(u32::MAX).min(WAIT_ROUNDS_MAX);
            failing.lacking = failing.lacking.saturating_add(1);
            failing.resumes = self.state.round.saturating_add(wait.into());
        } else {
            failing.rounds = failing.rounds.saturating_add(1);
        }
        let rounds = failing.rounds;
        let violation = matches!(error, BackendError::Violation(_));
        tracing::warn!(%canister, %error, rounds, "canister skipped for this round");
        Failure { canister, error: error.to_string(), violation, rounds }
    }

    /// Calls whose deadline has passed are rejected with code 6; what was attached is lost.
    fn expire_calls(&mut self) {
        while let Some(&(deadline, sender, callback)) = self.schedule.deadlines.first()
            && deadline <= self.state.time
        {
            self.schedule.deadlines.pop_first();
            let Some(canister) = self.canister(&sender) else { continue };
            let Some(call) = canister.calls.callbacks.get(&callback) else { continue };
            let respondent = call.callee;
            let error = UserError::new(ErrorCode::DEADLINE_EXPIRED, "Call deadline has expired.");
            let response = Response {
                respondent,
                receiver: sender,
                callback,
                payload: Payload::Reject { code: 6, message: error.to_string() },
                refund: 0,
            };
            self.push(sender, respondent, CanisterMessage::Response(Arc::new(response)));
        }
    }

    /// Stop calls that waited too long are rejected; the canister goes on stopping.
    fn expire_stops(&mut self) {
        let now = self.state.time;
        for id in self.schedule.stopping.clone() {
            let Some(Status::Stopping(waiters)) = self.canister(&id).map(|c| c.status.clone()) else {
                continue;
            };
            let (late, rest) = waiters
                .into_iter()
                .partition::<Vec<_>, _>(|waiter| waiter.since.saturating_add(STOP_TIMEOUT) <= now);
            if late.is_empty() {
                continue;
            }
            self.change(id, |canister| canister.status = Status::Stopping(rest.into_iter().collect()));
            for waiter in late {
                let error = UserError::new(ErrorCode::STOP_TIMED_OUT, "Stop canister request timed out");
                let manager = Principal::management_canister();
                let output = answer(manager, &waiter.origin, Verdict::Error(error), waiter.cycles);
                self.route(output.into_iter().collect());
            }
        }
    }

    /// Gives canisters their due tasks, the one their pointer names first.
    fn queue_tasks(&mut self) {
        let now = self.state.time;
        for id in self.schedule.due(now) {
            self.change(id, |canister| {
                let heartbeat = canister.module().is_some_and(|module| module.interface.exports.heartbeat);
                let timer = (1..=now).contains(&canister.global_timer)
                    && canister.module().is_some_and(|module| module.interface.exports.global_timer);
                let (order, next) = match canister.task_pointer {
                    TaskPointer::Timer => ([Task::GlobalTimer, Task::Heartbeat], TaskPointer::Heartbeat),
                    TaskPointer::Heartbeat => ([Task::Heartbeat, Task::GlobalTimer], TaskPointer::Timer),
                };
                for task in order {
                    let due = match task {
                        Task::GlobalTimer => timer,
                        Task::Heartbeat => heartbeat,
                    };
                    if due && !canister.inputs.tasks.contains(&task) {
                        canister.inputs.tasks.push_back(task);
                    }
                }
                canister.task_pointer = next;
            });
        }
    }

    /// Charges storage and compute for the time since the last charge; who can't pay loses its code.
    fn charge_storage(&mut self) {
        let elapsed = self.state.time.saturating_sub(self.state.charged);
        if self.state.charged == 0 {
            self.state.charged = self.state.time;
            return;
        }
        if elapsed < CHARGE_INTERVAL {
            return;
        }
        self.state.charged = self.state.time;
        let limits = Arc::clone(&self.config.limits);
        let ids: Vec<Principal> = self.state.canisters.keys().copied().collect();
        for id in ids {
            let Some(canister) = self.canister(&id) else { continue };
            let mut rate = canister.freezing();
            rate.threshold_seconds = elapsed / 1_000_000_000;
            let due = rate.limit(&limits, 0);
            if due == 0 || (canister.balance == 0 && !canister.holds_anything()) {
                continue;
            }
            let mut canister = canister.clone();
            canister.balance = canister.balance.saturating_sub(due);
            let outputs = if canister.balance == 0 && canister.holds_anything() {
                crate::management::run_out(&mut canister)
            } else {
                Vec::new()
            };
            self.put(canister);
            self.route(outputs);
        }
    }
}

/// Runs a canister's inputs one after another within its budget. Each is wholly done or not at all.
fn run_inputs(env: &Env, job: Job) -> Done {
    let mut done = Done {
        canister: CanisterState::clone(&job.canister),
        outputs: Vec::new(),
        executed: Vec::new(),
        budget: job.budget,
        failure: None,
    };
    drop(job.canister);
    while done.budget > 0 && done.canister.has_work() {
        let mut staged = Staged::new(env, &done.canister);
        match staged.step() {
            Ok(true) => {
                let used = staged.instructions.saturating_add(MESSAGE_OVERHEAD);
                done.budget = done.budget.saturating_sub(used);
                done.canister = staged.canister;
                done.outputs.extend(staged.outputs);
                done.executed.extend(staged.executed);
            }
            Ok(false) => break,
            Err(error) => {
                done.failure = Some(error);
                break;
            }
        }
    }
    done
}
