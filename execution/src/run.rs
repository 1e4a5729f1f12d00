//! One message of one canister, from its queue to the state after it (`canister-execution.md` 4.2).
//!
//! A message is a future: it is pending where it has used up a slice, and is polled again in the next round. So a
//! message of several entry points (a callback and its cleanup, an upgrade) is written as if it ran at once.

mod batch;
mod call;
mod response;
mod step;
mod task;

pub(crate) use batch::Batching;
pub(crate) use step::{Installed, Step, Stepped, begin};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::answer::{self, Output, Verdict};
use crate::apply::{self, Applied};
use crate::check::{self, Checked, check};
use crate::executors::MemoryOptions;
use crate::management::wrong_sender_version;
use crate::report::{Ended, Executed};
use crate::state::{
    CALLBACKS_GUARANTEED, CanisterState, MessageId, Origin, PendingCall, Request, Start, Status, SubnetConfig,
};
use crate::{
    Answer, Backend, BackendError, Compiler, Cycles, Ending, EntryPoint, Execution, Freezing, Instructions,
    Invocation, MessageKey, Nanoseconds, Outcome, OutgoingCall, PausedRun, Principal, RoundObserver,
    Snapshot, SystemView, Trap, UserError, Violation, slices_max, text,
};

/// How often a message is tried on the backend within one round.
const TRIES: u32 = 3;
/// The same where a resource of the node is lacking: a backend gives back what it can spare after the first.
const TRIES_LACKING: u32 = 2;
/// The same where a worker has met its deadline: it has held the round up for long enough.
const TRIES_LATE: u32 = 1;
/// What a message counts in a round's budget besides its instructions; not charged.
pub(crate) const MESSAGE_OVERHEAD: Instructions = 500_000;
/// `DIDL`, no types, no values: the empty Candid reply.
pub(crate) const CANDID_EMPTY: &[u8] = b"DIDL\0\0";

/// What every run of a round shares.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) config: Arc<SubnetConfig>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) compiler: Arc<dyn Compiler>,
    pub(crate) time: Nanoseconds,
    /// Physical: numbers invocations.
    pub(crate) invocations: Arc<AtomicU64>,
    /// Bytes of subnet memory that one canister may still take.
    pub(crate) memory_available: u64,
    /// Callback slots of those that canisters share that one canister may still take.
    pub(crate) callbacks_available: usize,
    /// Bytes of message memory that one canister may still take.
    pub(crate) message_bytes_available: u64,
    pub(crate) message_roots: bool,
    pub(crate) memory: MemoryOptions,
    pub(crate) observer: Option<Arc<dyn RoundObserver>>,
}

/// What differs from entry point to entry point.
pub(crate) struct Call<'a> {
    pub(crate) entry: EntryPoint,
    pub(crate) caller: Principal,
    pub(crate) instructions_max: Instructions,
    /// The call context; `None` where there is none.
    pub(crate) context: Option<&'a crate::state::CallContext>,
    pub(crate) refunded: Cycles,
}

impl Env {
    /// What a message that `canister` begins with sees.
    pub(crate) fn start(&self, canister: &CanisterState) -> Start {
        Start {
            time: self.time,
            balance: canister.balance,
            waiting_bytes: canister.inputs.bytes,
            memory_available: self.memory_available,
            callbacks_available: self.callbacks_available,
            message_bytes_available: self.message_bytes_available,
        }
    }

    /// The surroundings, and the canister that has it in hand, as the message saw them that began at `start`.
    pub(crate) fn at(&self, start: &Start, now: &CanisterState) -> (Arc<Self>, CanisterState) {
        let Start {
            time,
            balance,
            waiting_bytes,
            memory_available,
            callbacks_available,
            message_bytes_available,
        } = *start;
        let env =
            Self { time, memory_available, callbacks_available, message_bytes_available, ..self.clone() };
        let mut canister = CanisterState { paused: None, balance, ..now.clone() };
        canister.inputs.bytes = waiting_bytes;
        (Arc::new(env), canister)
    }

    pub(crate) fn invocation(&self, canister: &CanisterState, call: Call<'_>) -> Invocation {
        let Call { entry, caller, instructions_max, context, refunded } = call;
        let limits = &self.config.limits;
        let settings = &canister.settings;
        let outstanding = &canister.calls.outstanding;
        let deadline = match context.map(|context| &context.origin) {
            Some(Origin::Canister { deadline, .. }) => *deadline,
            _ => 0,
        };
        let system = SystemView {
            canister: canister.id,
            subnet: self.config.subnet_id,
            time: self.time,
            version: canister.version,
            status: canister.run_status(),
            controllers: settings.controllers.clone(),
            balance: canister.balance,
            freezing: canister.freezing(),
            cycles_available: context.map_or(0, |context| context.available),
            cycles_refunded: refunded,
            deadline,
            global_timer: canister.global_timer,
            answered: context.is_some_and(|context| context.answered),
            answer_needed: context.is_none_or(|context| context.origin != Origin::Task),
            call_context_instructions: context.map_or(0, |context| context.instructions),
            data_certificate: None,
            environment_variables: settings.environment_variables.clone(),
            root_key: Arc::clone(&self.config.root_key),
            wasm_memory_limit: settings.wasm_memory_limit,
            subnet_memory_available: self
                .memory_available
                .saturating_add(settings.memory_allocation.saturating_sub(canister.memory_bytes())),
            callbacks_free: self.callbacks_free(canister),
            queue_taken: outstanding.iter().map(|(&callee, &count)| (callee, count)).collect(),
            log_capacity: canister.log_capacity(),
            log_bytes_free: canister.log_capacity().saturating_sub(canister.log.bytes),
        };
        let sliced = entry.is_replicated();
        Invocation {
            id: self.invocations.fetch_add(1, Ordering::Relaxed),
            entry,
            caller,
            instructions_max,
            slice: if sliced { limits.slice_instructions.min(instructions_max) } else { instructions_max },
            system,
            limits: Arc::clone(limits),
        }
    }
}

impl Env {
    /// `check`, of which the observer is told.
    pub(crate) fn checked(
        &self,
        invocation: &Invocation,
        snapshot: &Snapshot,
        outcome: Outcome,
    ) -> Result<Checked, BackendError> {
        let checked = check(invocation, snapshot, outcome)?;
        if let Some(observer) = &self.observer {
            observer.checked(invocation.id);
        }
        Ok(checked)
    }

    /// Callbacks that one more message may make: the canister's own slots and its part of the shared ones, as long
    /// as there is memory for that many responses.
    fn callbacks_free(&self, canister: &CanisterState) -> usize {
        let own = CALLBACKS_GUARANTEED.saturating_sub(canister.calls.callbacks.len());
        let responses = self.message_bytes_available / Freezing::RESPONSE_BYTES;
        own.saturating_add(self.callbacks_available).min(usize::try_from(responses).unwrap_or(usize::MAX))
    }
}

/// Runs `attempt` until it succeeds, a bounded number of times. What the node is short of, `backend` is asked to
/// give back before the next.
pub(crate) fn retried<T>(
    backend: &dyn Backend,
    mut attempt: impl FnMut() -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    let mut tries = Tries::default();
    loop {
        match attempt() {
            Err(error) => tries.again(backend, error)?,
            Ok(done) => return Ok(done),
        }
    }
}

/// A paused run. Dropped with its message it is aborted, and whoever runs it learns that.
struct InHand(Option<Box<dyn PausedRun>>);

impl InHand {
    fn resume(mut self, slice: Instructions) -> Result<Execution, BackendError> {
        self.0.take().expect("taken here and when dropped only").resume(slice)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run.abort();
        }
    }
}

/// Attempts that have failed.
#[derive(Default)]
struct Tries {
    failed: u32,
    last: Option<BackendError>,
}

impl Tries {
    /// Allows another attempt after one that failed with `error`.
    ///
    /// # Errors
    /// There is none: what the message failed with. Where no worker was to be had any more, that is what ended the
    /// last one.
    fn again(&mut self, backend: &dyn Backend, error: BackendError) -> Result<(), BackendError> {
        if matches!(error, BackendError::BackOff { .. }) {
            return Err(self.last.take().unwrap_or(error));
        }
        self.failed += 1;
        let lacking = matches!(error, BackendError::Exhausted { .. });
        let tries = match error {
            BackendError::Exhausted { .. } => TRIES_LACKING,
            BackendError::Deadline { .. } => TRIES_LATE,
            _ => TRIES,
        };
        if self.failed >= tries {
            return Err(error);
        }
        let relieved = lacking && backend.relieve(&error);
        tracing::debug!(%error, tries = self.failed, relieved, "backend failed, trying again");
        self.last = Some(error);
        Ok(())
    }
}

/// One message's work on a copy of a canister: dropped if the backend fails, moved into place if not.
pub(crate) struct Staged {
    pub(crate) env: Arc<Env>,
    pub(crate) canister: CanisterState,
    pub(crate) outputs: Vec<Output>,
    pub(crate) executed: Vec<Executed>,
    pub(crate) instructions: Instructions,
    /// Slices that the message has used up.
    slices: u32,
    /// Slices that end without a pause: those that the message had used up when it was given up.
    slices_at_once: u32,
    /// The message, until it is run.
    waiting: Option<MessageKey>,
}

impl Staged {
    pub(crate) fn new(env: Arc<Env>, canister: CanisterState, slices_at_once: u32) -> Self {
        Self {
            env,
            canister,
            outputs: Vec::new(),
            executed: Vec::new(),
            instructions: 0,
            slices: 0,
            slices_at_once,
            waiting: None,
        }
    }

    /// Runs and checks one entry point on the state of the canister, trying again what failed around it. Pending at
    /// the end of each slice, once: an attempt after a failure catches up with the one that failed.
    pub(crate) async fn execute(
        &mut self,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Result<Checked, BackendError> {
        if let Some((observer, message)) = self.env.observer.as_ref().zip(self.waiting.take()) {
            observer.begun(message, &snapshot.canister, invocation.entry.kind());
        }
        let mut tries = Tries::default();
        let before = self.slices;
        loop {
            match self.attempt(snapshot, invocation).await {
                Err(error) => tries.again(&*self.env.backend, error)?,
                Ok(checked) => return Ok(checked),
            }
            self.slices = before;
        }
    }

    async fn attempt(
        &mut self,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Result<Checked, BackendError> {
        let mut execution = self.env.backend.execute(snapshot, invocation)?;
        for _ in 0..slices_max(invocation.instructions_max, invocation.slice) {
            match execution {
                Execution::Finished(outcome) => return self.env.checked(invocation, snapshot, outcome),
                Execution::Paused(run) => {
                    let run = InHand(Some(run));
                    self.slices += 1;
                    if self.slices > self.slices_at_once {
                        self.slices_at_once = self.slices;
                        step::pause().await;
                    }
                    execution = run.resume(invocation.slice)?;
                }
            }
        }
        Err(Violation("paused more often than the message has slices".into()).into())
    }

    /// Notes a run for the report and the round's account.
    pub(crate) fn note(
        &mut self,
        invocation: &Invocation,
        checked: &Checked,
        ingress: Option<MessageId>,
        ended: Ended,
    ) {
        let outcome = &checked.outcome;
        self.instructions = self.instructions.saturating_add(outcome.instructions);
        apply::keep_logs(&mut self.canister, checked, self.env.time);
        self.executed.push(Executed {
            canister: self.canister.id,
            invocation: invocation.id,
            kind: invocation.entry.kind(),
            method: invocation.entry.method().map(str::to_owned),
            ingress,
            ended,
            instructions: outcome.instructions,
            heap_pages_dirty: outcome.heap_pages_dirty,
            stable_pages_dirty: outcome.stable_pages_dirty,
            logs: outcome.logs.clone(),
            state_root: None,
        });
    }

    fn memory64(&self) -> bool {
        self.canister.module().is_some_and(|module| module.interface.memory64)
    }

    /// Price of a run that may use `instructions`.
    fn price(&self, instructions: Instructions) -> Cycles {
        self.env.config.limits.execution_price(self.memory64(), instructions)
    }

    /// Takes the prepayment for a run of `instructions` from what is above the freezing limit.
    fn prepay(&mut self, instructions: Instructions) -> Result<Cycles, UserError> {
        let price = self.price(instructions);
        let liquid = self.canister.liquid(&self.env.config.limits);
        if liquid < price {
            return Err(text::out_of_cycles(self.canister.id, price - liquid));
        }
        self.canister.balance -= price;
        Ok(price)
    }

    /// Gives back what a run did not use of its prepayment.
    fn return_unused(&mut self, prepaid: Cycles, used: Instructions) {
        let unused = prepaid.saturating_sub(self.price(used));
        self.canister.balance = self.canister.balance.saturating_add(unused);
    }

    /// Whether the balance after the run stays above the freezing limit with the memory it has then.
    fn frozen_by(&self, snapshot: &Snapshot, checked: &Checked) -> Option<UserError> {
        let effects = checked.outcome.effects.as_ref()?;
        let growth = check::growth_bytes(snapshot, effects);
        let made = effects.calls.iter().filter(|call| call.timeout_seconds.is_none()).count();
        let freezing = self.canister.freezing().with_calls(made as u64);
        let limit = freezing.limit(&self.env.config.limits, growth).saturating_sub(freezing.reserved);
        (checked.balance < limit).then(|| text::out_of_cycles(self.canister.id, limit - checked.balance))
    }

    /// Applies a run that returned, or names the error of one that did not.
    fn commit(&mut self, entry: &EntryPoint, checked: Checked) -> Result<Applied, Trap> {
        match &checked.outcome.ending {
            Ending::Returned => Ok(apply::apply(&mut self.canister, entry, checked, true)),
            Ending::Trapped(trap) => Err(trap.clone()),
        }
    }

    /// Sends the calls of a committed run, which moved the version on by one.
    fn send(&mut self, context: u64, calls: Vec<OutgoingCall>) {
        let limits = Arc::clone(&self.env.config.limits);
        let execution_prepaid = self.price(limits.update_instructions);
        for call in calls {
            let deadline = call.timeout_seconds.map_or(0, |seconds| {
                let end = self.env.time.saturating_add(u64::from(seconds) * 1_000_000_000);
                end - end % 1_000_000_000
            });
            let callee = check::queue_key(call.callee, self.env.config.subnet_id);
            let callback = self.canister.calls.register(PendingCall {
                context,
                callee,
                on_reply: call.on_reply,
                on_reject: call.on_reject,
                on_cleanup: call.on_cleanup,
                cycles_sent: call.cycles,
                execution_prepaid,
                transmission_prepaid: limits.response_reservation(),
                deadline,
            });
            if callee == Principal::management_canister()
                && let Some(error) =
                    wrong_sender_version(&call.method, &call.arg, self.canister.version.saturating_sub(1))
            {
                let origin = Origin::Canister { sender: self.canister.id, callback, deadline };
                self.outputs.extend(answer::answer(callee, &origin, Verdict::Error(error), call.cycles));
                continue;
            }
            self.outputs.push(Output::Request(Arc::new(Request {
                sender: self.canister.id,
                callback,
                receiver: callee,
                method: call.method,
                arg: Arc::from(call.arg),
                cycles: call.cycles,
                deadline,
            })));
        }
    }

    /// Moves a call context on after one of its messages (`canister-execution.md` 4.2, step 6).
    fn conclude(&mut self, context: u64, used: Instructions, given: Option<Answer>, verdict: Verdict) {
        let id = self.canister.id;
        let Some(entry) = self.canister.calls.contexts.get_mut(&context) else { return };
        entry.instructions = entry.instructions.saturating_add(used);
        let verdict = match given {
            Some(Answer::Reply(data)) => Some(Verdict::Reply(Arc::from(data))),
            Some(Answer::Reject(reason)) => Some(Verdict::Reject(reason)),
            None if entry.calls_out == 0 => Some(verdict),
            None => None,
        };
        if let Some(verdict) = verdict
            && !entry.answered
        {
            entry.answered = true;
            let refund = std::mem::take(&mut entry.available);
            self.outputs.extend(answer::answer(id, &entry.origin, verdict, refund));
        } else if let Origin::Ingress { id, .. } = entry.origin
            && !entry.answered
        {
            self.outputs.push(Output::Ingress(id, crate::state::IngressStatus::Processing));
        }
        if entry.calls_out == 0 {
            self.canister.calls.contexts.remove(&context);
        }
    }
}

/// Stopping ends when no call context is left.
pub(crate) fn stop_when_idle(canister: &mut CanisterState, outputs: &mut Vec<Output>) {
    let Status::Stopping(waiters) = &canister.status else { return };
    if !canister.calls.contexts.is_empty() {
        return;
    }
    let waiters = waiters.clone();
    canister.status = Status::Stopped;
    canister.version += 1;
    for waiter in waiters {
        let reply = Verdict::Reply(Arc::from(CANDID_EMPTY));
        outputs.extend(answer::answer(
            Principal::management_canister(),
            &waiter.origin,
            reply,
            waiter.cycles,
        ));
    }
}

/// How a run ended, for the report.
pub(crate) fn ended(checked: &Checked, canister: Principal) -> Ended {
    match (&checked.outcome.ending, &checked.outcome.effects) {
        (Ending::Trapped(trap), _) => Ended::Trap(text::trap(canister, trap)),
        (Ending::Returned, Some(effects)) => match &effects.answer {
            Some(Answer::Reply(_)) => Ended::Reply,
            Some(Answer::Reject(reason)) => Ended::Reject(reason.clone()),
            None => Ended::NoAnswer,
        },
        (Ending::Returned, None) => Ended::NoAnswer,
    }
}
