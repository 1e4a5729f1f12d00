//! Responses: refunds, the callback, and cleanup when the callback traps.

use crate::answer::Verdict;
use crate::run::{Call, Staged, ended};
use crate::state::{CallContext, Origin, Payload, PendingCall, Response};
use crate::{
    BackendError, Callback, Checked, Ending, EntryPoint, Instructions, MessageKey, Snapshot, Trap, text,
};

impl Staged {
    /// Delivers a response. One that comes after its deadline finds no callback and is dropped.
    pub(super) async fn response(&mut self, response: &Response) -> Result<(), BackendError> {
        self.waiting = Some(MessageKey::of_response(&response.receiver, response.callback));
        let Some(pending) = self.canister.calls.take(response.callback) else { return Ok(()) };
        let transmission = self.env.config.limits.response_price(response.payload.bytes());
        let unused = pending.transmission_prepaid.saturating_sub(transmission);
        let credit = unused.saturating_add(response.refund);
        self.canister.balance = self.canister.balance.saturating_add(credit);

        let context = self.canister.calls.contexts.get(&pending.context).cloned();
        let snapshot = self.canister.snapshot();
        let (Some(context), Some(snapshot)) = (context.filter(|context| !context.deleted), snapshot) else {
            // Uninstalled meanwhile: nothing runs, all that was set aside comes back.
            self.canister.balance = self.canister.balance.saturating_add(pending.execution_prepaid);
            let over = self.canister.calls.contexts.get(&pending.context).is_some_and(|c| c.calls_out == 0);
            if over {
                self.canister.calls.contexts.remove(&pending.context);
            }
            return Ok(());
        };
        self.callback(&pending, &context, &snapshot, response).await
    }

    async fn callback(
        &mut self,
        pending: &PendingCall,
        context: &CallContext,
        snapshot: &Snapshot,
        response: &Response,
    ) -> Result<(), BackendError> {
        let limits = &self.env.config.limits;
        let limit = limits.update_instructions;
        let kept = limit / 100 * limits.cleanup_percent;
        let call = Call {
            entry: callback_entry(pending, &response.payload),
            caller: context.origin.caller(),
            instructions_max: limit - kept,
            context: Some(context),
            refunded: response.refund,
        };
        let invocation = self.env.invocation(&self.canister, call);
        let checked = self.execute(snapshot, &invocation).await?;
        let mut used = checked.outcome.instructions;
        let trapped = trap_of(&checked);
        // What a replicated cleanup starts from is the state before the callback: nothing is applied yet.
        let cleanup = match (&trapped, pending.on_cleanup) {
            (Some(_), Some(cleanup)) => {
                Some(self.cleanup(cleanup, &response.payload, context, snapshot, limit - used).await?)
            }
            _ => None,
        };
        let ingress = match context.origin {
            Origin::Ingress { id, .. } => Some(id),
            Origin::Canister { .. } | Origin::Task => None,
        };
        self.note(&invocation, &checked, ingress, ended(&checked, self.canister.id));
        let (given, verdict) = match trapped {
            None => match self.commit(&invocation.entry, checked) {
                Ok(applied) => {
                    if let Some(context) = self.canister.calls.contexts.get_mut(&pending.context) {
                        context.available = context.available.saturating_sub(applied.accepted);
                    }
                    self.send(pending.context, applied.calls);
                    (applied.answer, Verdict::NoAnswer)
                }
                Err(trap) => (None, Verdict::Error(text::trap(self.canister.id, &trap))),
            },
            Some(first) => {
                let mut error = text::trap(self.canister.id, &first);
                if let Some((invocation, checked)) = cleanup {
                    used = used.saturating_add(checked.outcome.instructions);
                    let how = ended(&checked, self.canister.id);
                    self.note(&invocation, &checked, None, how);
                    if let Err(second) = self.commit(&invocation.entry, checked) {
                        error = text::cleanup_failed(self.canister.id, &first, &second);
                    }
                }
                (None, Verdict::Error(error))
            }
        };
        self.return_unused(pending.execution_prepaid, used);
        self.conclude(pending.context, used, given, verdict);
        Ok(())
    }

    async fn cleanup(
        &mut self,
        callback: Callback,
        payload: &Payload,
        context: &CallContext,
        snapshot: &Snapshot,
        instructions_max: Instructions,
    ) -> Result<(crate::Invocation, Checked), BackendError> {
        let code = match payload {
            Payload::Reply(_) => 0,
            Payload::Reject { code, .. } => *code,
        };
        let call = Call {
            entry: EntryPoint::Cleanup { callback, code, composite: false },
            caller: context.origin.caller(),
            instructions_max,
            context: Some(context),
            refunded: 0,
        };
        let invocation = self.env.invocation(&self.canister, call);
        let checked = self.execute(snapshot, &invocation).await?;
        Ok((invocation, checked))
    }
}

fn callback_entry(pending: &PendingCall, payload: &Payload) -> EntryPoint {
    match payload {
        Payload::Reply(data) => {
            EntryPoint::Reply { callback: pending.on_reply, data: data.clone(), composite: false }
        }
        Payload::Reject { code, message } => EntryPoint::Reject {
            callback: pending.on_reject,
            code: *code,
            message: message.clone(),
            composite: false,
        },
    }
}

fn trap_of(checked: &Checked) -> Option<Trap> {
    match &checked.outcome.ending {
        Ending::Returned => None,
        Ending::Trapped(trap) => Some(trap.clone()),
    }
}
