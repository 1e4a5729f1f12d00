//! One round: tasks and expiries, then management calls, canisters and deliveries until nothing is
//! left or budgets are used up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::answer::{Verdict, answer};
use crate::report::{Executed, Failure, RoundReport};
use crate::run::MESSAGE_OVERHEAD;
use crate::state::{
    CanisterMessage, CanisterState, IngressStatus, Input, Origin, PausedMessage, Payload, Response, Shared,
    Status, Task, TaskPointer,
};
use crate::subnet::inputs::{Done, Job, run_inputs};
use crate::subnet::{Failing, Subnet};
use crate::{BackendError, ErrorCode, Instructions, MessageKey, Nanoseconds, Principal, UserError};

/// So many canisters may use a whole [`Limits::round_instructions`] in one round; more than that share as much. As many
/// as the Internet Computer's scheduler runs at once, whatever the cores of this node: which message runs in which
/// round is the same on all.
///
/// [`Limits::round_instructions`]: crate::Limits::round_instructions
const WHOLE_BUDGETS: Instructions = 4;
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
    /// Instructions left, by canister that was active in this round.
    budgets: BTreeMap<Principal, Instructions>,
    /// Instructions that each canister has that was active at first.
    share: Instructions,
    /// Instructions for those that become active later.
    reserve: Instructions,
    /// Instructions that all have used, with slices of messages that aren't over.
    used: Instructions,
    /// Whether what others left has gone to those who used up their share.
    is_shared_out: bool,
    /// Canisters that don't run any more in this round.
    skipped: BTreeSet<Principal>,
    /// Canisters whose message in hand has had its slice in this round.
    resting: BTreeSet<Principal>,
    /// Canisters of which a batch failed in this round: their messages run alone.
    alone: BTreeSet<Principal>,
    /// Callers of the management canister whose next call failed around the guest in this round.
    pub(crate) blocked: BTreeSet<Principal>,
}

impl Subnet {
    /// Runs one round at `time` (never earlier than the last one) with the round's random `seed`.
    ///
    /// Each canister runs within its budget; a message that uses up its slice goes on in the next round. A single
    /// active canister, and installs, run on the calling thread: it needs a stack of
    /// [`crate::EXECUTOR_STACK_BYTES`].
    pub fn round(&mut self, time: Nanoseconds, seed: [u8; 32]) -> RoundReport {
        self.state.time = self.state.time.max(time);
        self.state.round += 1;
        self.state.seed = seed;
        self.state.draws = 0;
        let answer_bytes = self.config.limits.ingress_answer_bytes;
        let pruned = self.state.ingress.prune(self.state.time, answer_bytes);
        self.uncertified.requests.extend(pruned);
        self.expire_calls();
        self.expire_stops();
        self.charge_storage();
        self.queue_tasks();

        let now = self.state.round;
        // New code ends quarantine, however long it takes to install.
        let installs = |id: &Principal| {
            let message = self.canister(id).and_then(|canister| canister.paused.as_ref());
            message.is_some_and(|message| matches!(message.input, Input::Install(_)))
        };
        let waits = |id: &Principal, failing: &Failing| {
            failing.resumes > now || (failing.is_quarantined() && !installs(id))
        };
        let skipped =
            self.failing.iter().filter(|(id, failing)| waits(id, failing)).map(|(id, _)| *id).collect();
        let reserve = self.whole_budgets();
        let mut work = RoundWork { skipped, reserve, ..RoundWork::default() };
        for _ in 0..DELIVERIES_MAX {
            let managed = self.run_management(&mut work);
            let ran = self.run_canisters(&mut work);
            if !managed && !ran && !self.share_out(&mut work) {
                break;
            }
        }
        // Nobody keeps what is left from others by deliveries without end.
        if self.share_out(&mut work) {
            self.run_canisters(&mut work);
        }
        self.abort_beyond(self.config.limits.paused_messages);
        let calls = self.state.management.iter().any(|call| !self.stuck.is_set_aside(call));
        work.report.more = calls || !self.schedule.active.is_subset(&work.skipped);
        self.certify();
        work.report
    }

    /// Canisters that have a message in hand, those whose message began first before others.
    fn in_hand(&self) -> Vec<(Principal, &PausedMessage)> {
        let canisters = self.schedule.paused.iter().filter_map(|id| self.canister(id));
        let mut messages: Vec<_> =
            canisters.filter_map(|canister| Some((canister.id, canister.paused.as_ref()?))).collect();
        messages.sort_by_key(|(id, message)| (message.start.time, *id));
        messages
    }

    /// Gives up paused messages beyond the first `count` of those in hand. One that waits to begin again counts: it
    /// gets its turn, however many others begin meanwhile.
    fn abort_beyond(&mut self, count: usize) {
        let late = self.in_hand().into_iter().skip(count).filter(|(_, message)| message.slices > 0);
        for id in late.map(|(id, _)| id).collect::<Vec<_>>() {
            self.paused.remove(&id);
            self.begin_again(id);
        }
    }

    /// Notes that a canister's message in hand begins from its start.
    pub(super) fn begin_again(&mut self, id: Principal) {
        self.change(id, |canister| {
            if let Some(message) = &mut canister.paused {
                message.slices = 0;
            }
        });
    }

    /// Instructions that a round has for those that are active when it begins, and again for those that become so.
    fn whole_budgets(&self) -> Instructions {
        self.config.limits.round_instructions.saturating_mul(WHOLE_BUDGETS)
    }

    /// Gives each canister that is active for the first time in this round its share: more of them get less each, and
    /// the round is no longer for that. Those that become active by what others send them get half of the reserve, so
    /// that the next ones find some. By what the state says, also for who can't run on this node.
    fn give_shares(&self, work: &mut RoundWork) {
        let is_new = |id: &&Principal| !work.budgets.contains_key(id);
        let new: Vec<Principal> = self.schedule.active.iter().filter(is_new).copied().collect();
        let count = u64::try_from(new.len()).unwrap_or(u64::MAX);
        let Some(reserved) = (work.reserve / 2).checked_div(count) else { return };
        let share = if work.budgets.is_empty() {
            let whole = self.config.limits.round_instructions;
            work.share = (self.whole_budgets() / count).clamp(1, whole.max(1));
            work.share
        } else {
            let share = reserved.clamp(1, work.share);
            work.reserve = work.reserve.saturating_sub(share.saturating_mul(count));
            share
        };
        work.budgets.extend(new.into_iter().map(|id| (id, share)));
    }

    /// Gives what others have left of the round to those who used up their share and have more to do, once in a round;
    /// `false` when nobody gets anything. Those who left it keep their shares for what may still arrive for them.
    fn share_out(&self, work: &mut RoundWork) -> bool {
        if std::mem::replace(&mut work.is_shared_out, true) {
            return false;
        }
        let left = self.whole_budgets().saturating_sub(work.used);
        let is_short = |id: &&Principal| {
            let waits = |canister: &CanisterState| canister.paused.is_none() && self.wrote_too_much(canister);
            work.budgets.get(id) == Some(&0)
                && !work.skipped.contains(id)
                && !work.resting.contains(id)
                && !self.canister(id).is_none_or(waits)
        };
        let short: Vec<Principal> = self.schedule.active.iter().filter(is_short).copied().collect();
        let count = u64::try_from(short.len()).unwrap_or(u64::MAX);
        let most = self.config.limits.round_instructions.saturating_sub(work.share);
        let more = left.checked_div(count).unwrap_or(0).min(most);
        if more < MESSAGE_OVERHEAD {
            return false;
        }
        work.budgets.extend(short.into_iter().map(|id| (id, more)));
        true
    }

    /// Runs every active canister with budget left; `false` when there was none.
    fn run_canisters(&mut self, work: &mut RoundWork) -> bool {
        // A message that was given up for want of room begins again when there is some.
        let late = self.in_hand().into_iter().skip(self.config.limits.paused_messages);
        let waiting: BTreeSet<Principal> =
            late.filter(|(_, message)| message.slices == 0).map(|(id, _)| id).collect();
        self.give_shares(work);
        let mut jobs = Vec::new();
        for id in &self.schedule.active {
            let budget = work.budgets.get(id).copied().unwrap_or(0);
            if budget == 0 || work.skipped.contains(id) || work.resting.contains(id) || waiting.contains(id) {
                continue;
            }
            let Some(canister) = self.state.canisters.get(id) else { continue };
            if canister.paused.is_none() && self.wrote_too_much(canister) {
                continue;
            }
            let canister = Shared::clone(canister);
            let alone = work.alone.contains(id) || self.failing.contains_key(id);
            let step = self.paused.remove(id);
            jobs.push((*id, Job { canister, budget, step, alone }));
        }
        if jobs.is_empty() {
            return false;
        }
        // By what the state says, not by who runs on this node.
        let env = Arc::new(self.env(self.schedule.active.len()));
        let run = move |job| run_inputs(&env, job);
        // Where workers are short, whoever comes first gets one. Whoever went without for the most rounds is run before
        // the others, while none of them holds anything.
        let lacking = |at: usize| self.failing.get(&jobs[at].0).map_or(0, |failing| failing.lacking);
        let first = (0..jobs.len()).max_by_key(|&at| lacking(at)).filter(|&at| lacking(at) > 0);
        let before = first.map(|at| self.executors.map(vec![jobs.remove(at)], run.clone()));
        let mut results = self.executors.map(jobs, run);
        if let Some((at, before)) = first.zip(before) {
            results.splice(at..at, before);
        }
        let mut outputs = Vec::new();
        for mut done in results {
            let id = done.canister.id;
            work.budgets.insert(id, done.budget);
            if done.batch_failed {
                work.alone.insert(id);
            }
            outputs.append(&mut done.outputs);
            let failure = done.failure.take();
            self.settle(done, work);
            match failure {
                None => {
                    self.failing.remove(&id);
                }
                Some(error) => {
                    work.skipped.insert(id);
                    let failure = self.note_failure(id, &error);
                    work.report.failures.push(failure);
                    if self.is_quarantined(&id) {
                        self.give_back(id);
                    }
                }
            }
        }
        self.route(outputs);
        true
    }

    /// Runs the message that `canister` has in hand, and nothing else of it, on this thread. Nothing is changed if that
    /// fails.
    pub(crate) fn run_in_hand(
        &mut self,
        canister: CanisterState,
        work: &mut RoundWork,
    ) -> Result<(), BackendError> {
        let env = Arc::new(self.env(1));
        let job = Job { canister: Shared::new(canister), budget: 0, step: None, alone: true };
        let mut done = run_inputs(&env, job);
        if let Some(error) = done.failure.take() {
            return Err(error);
        }
        let outputs = std::mem::take(&mut done.outputs);
        self.settle(done, work);
        self.route(outputs);
        Ok(())
    }

    /// Puts in place what a canister's run made of it; its outputs are taken already.
    fn settle(&mut self, mut done: Done, work: &mut RoundWork) {
        let id = done.canister.id;
        work.used = work.used.saturating_add(done.used);
        let written = done.executed.iter().map(Executed::bytes_written).sum();
        self.note_written(done.canister.own(), written);
        work.report.executed.extend(done.executed);
        if let Some(step) = done.step {
            work.resting.insert(id);
            let user = done.canister.paused.as_ref().and_then(|message| match &message.input {
                Input::Ingress(ingress) => Some(ingress.id()),
                Input::Install(install) => match install.call.origin {
                    Origin::Ingress { id, .. } => Some(id),
                    Origin::Canister { .. } | Origin::Task => None,
                },
                Input::Canister(_) | Input::Task(_) => None,
            });
            if let Some(user) = user {
                self.set_status(user, IngressStatus::Processing);
            }
            self.paused.insert(id, step);
        }
        let mut canister = done.canister;
        if let Some(install) = done.install {
            self.note_installed(canister.own(), install.instructions);
            if install.done {
                // New code: whatever this node held against the old one is over. Installs that it has set aside stay.
                self.failing.remove(&id);
            }
        }
        self.put(canister);
    }

    /// Puts the message that a quarantined canister has in hand back to where it came from, so that others may manage
    /// the canister.
    fn give_back(&mut self, id: Principal) {
        let Some(canister) = self.canister(&id) else { return };
        let mut canister = canister.clone();
        match canister.paused.take().map(|message| message.input) {
            Some(Input::Install(install)) => self.state.management.push_front(Arc::clone(&install.call)),
            Some(input) => canister.inputs.put_back(input),
            None => return,
        }
        self.put(canister);
    }

    /// Counts a canister's failed round.
    pub(crate) fn note_failure(&mut self, canister: Principal, error: &BackendError) -> Failure {
        let failing = self.failing.entry(canister).or_default();
        failing.note(error, self.state.round);
        let rounds = failing.rounds;
        failure(canister, error, rounds)
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

    /// Stop calls that waited too long are rejected; the canister goes on stopping. Not while a message is in hand,
    /// which may be the last.
    fn expire_stops(&mut self) {
        let now = self.state.time;
        for id in self.schedule.stopping.difference(&self.schedule.paused).copied().collect::<Vec<_>>() {
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
            let mut queued = Vec::new();
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
                        // Never queued.
                        Task::LowWasmMemory => false,
                    };
                    if due && !canister.inputs.tasks.contains(&task) {
                        canister.inputs.tasks.push_back(task);
                        queued.push(task);
                    }
                }
                canister.task_pointer = next;
            });
            queued.into_iter().for_each(|task| self.ready(MessageKey::of_task(&id, task)));
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
            if due < canister.balance || !canister.holds_anything() || canister.paused.is_some() {
                // Neither its schedule nor its public state depends on its balance.
                self.state.charge(&id, due);
                continue;
            }
            let mut canister = canister.clone();
            canister.balance = 0;
            let outputs = crate::management::run_out(&mut canister);
            self.put(canister);
            self.route(outputs);
        }
    }
}

/// Something of a canister's that failed around the guest, for `rounds` in a row.
pub(crate) fn failure(canister: Principal, error: &BackendError, rounds: u32) -> Failure {
    let violation = matches!(error, BackendError::Violation(_));
    tracing::warn!(%canister, %error, rounds, "canister skipped for this round");
    Failure { canister, error: error.to_string(), violation, rounds }
}
