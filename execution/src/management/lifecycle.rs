//! Creating, starting, stopping, emptying and deleting canisters, and giving them cycles.

use std::sync::Arc;

use crate::answer::{Output, Verdict, answer};
use crate::management::candid_io::{decode, decode_or_default, encode, number};
use crate::management::settings::changed;
use crate::management::{Answered, Management, types};
use crate::run::{CANDID_EMPTY, stop_when_idle};
use crate::state::{
    CanisterState, Change, ChangeDetails, ChunkStore, Hook, ManagementCall, Origin, Settings, Status,
    StopWaiter,
};
use crate::subnet::Subnet;
use crate::{Cycles, ErrorCode, Nanoseconds, Principal, UserError, text};

/// What `provisional_create_canister_with_cycles` gives when no amount is named.
const PROVISIONAL_CYCLES: Cycles = 100_000_000_000_000;

impl Subnet {
    pub(super) fn create(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::Create = decode_or_default("create_canister", &call.call.arg)?;
        let price = self.config.limits.scaled(self.config.limits.prices.create);
        let Some(balance) = call.call.cycles.checked_sub(price) else {
            let text = format!(
                "Creating a canister requires a fee of {price} that is deducted from the canister's initial balance but only {} cycles were received with the create_canister request.",
                call.call.cycles
            );
            return Err(UserError::new(ErrorCode::INSUFFICIENT_CYCLES_FOR_CREATE, text));
        };
        let id = self.create_for(call, arg.settings, arg.sender_canister_version, balance)?;
        Ok(Answered::Now(encode(&types::CanisterIdRecord { canister_id: id })?, 0))
    }

    pub(super) fn provisional_create(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let method = "provisional_create_canister_with_cycles";
        let arg: types::ProvisionalCreate = decode_or_default(method, &call.call.arg)?;
        if arg.specified_id.is_some() {
            let text = "specified_id is not supported: ids are sequential";
            return Err(UserError::new(ErrorCode::INVALID_MANAGEMENT_PAYLOAD, text));
        }
        let balance = match &arg.amount {
            Some(amount) => number("amount", amount)?,
            None => PROVISIONAL_CYCLES,
        };
        let id = self.create_for(call, arg.settings, arg.sender_canister_version, balance)?;
        Ok(Answered::Now(encode(&types::CanisterIdRecord { canister_id: id })?, call.call.cycles))
    }

    fn create_for(
        &mut self,
        call: &Management<'_>,
        settings: Option<types::Settings>,
        caller_version: Option<u64>,
        balance: Cycles,
    ) -> Result<Principal, UserError> {
        let defaults = Settings::new(vec![call.caller()]);
        let settings = changed(&defaults, settings.unwrap_or_default())?;
        let details = ChangeDetails::Creation(settings.controllers.clone());
        // The id comes last: a refusal uses none.
        let mut canister = CanisterState::new(call.caller(), Vec::new(), balance, self.state.time);
        canister.settings = Arc::new(settings);
        self.allocations_fit(None, &canister)?;
        let id = self.next_id()?;
        canister.id = id;
        self.note_change(call, &mut canister, caller_version, details);
        self.put(canister);
        Ok(id)
    }

    pub(super) fn provisional_top_up(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::ProvisionalTopUp = decode("provisional_top_up_canister", &call.call.arg)?;
        let amount: Cycles = number("amount", &arg.amount)?;
        let canister = self.canister(&arg.canister_id).ok_or_else(|| text::not_found(arg.canister_id))?;
        let mut canister = canister.clone();
        canister.balance = canister.balance.saturating_add(amount);
        self.put(canister);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }

    pub(super) fn deposit_cycles(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::CanisterIdRecord = decode("deposit_cycles", &call.call.arg)?;
        let canister = self.canister(&arg.canister_id).ok_or_else(|| text::not_found(arg.canister_id))?;
        let mut canister = canister.clone();
        canister.balance = canister.balance.saturating_add(call.call.cycles);
        self.put(canister);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), 0))
    }

    pub(super) fn start_canister(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::CanisterIdRecord = decode("start_canister", &call.call.arg)?;
        let mut canister = self.controlled(call, arg.canister_id)?.clone();
        let waiters = match std::mem::replace(&mut canister.status, Status::Running) {
            Status::Stopping(waiters) => waiters,
            Status::Running | Status::Stopped => imbl::Vector::new(),
        };
        canister.version += 1;
        self.put(canister);
        for waiter in waiters {
            let error = UserError::new(ErrorCode::STOP_CANCELLED, "Canister's stop request was cancelled");
            let manager = Principal::management_canister();
            let output = answer(manager, &waiter.origin, Verdict::Error(error), waiter.cycles);
            self.route(output.into_iter().collect());
        }
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }

    pub(super) fn stop_canister(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::CanisterIdRecord = decode("stop_canister", &call.call.arg)?;
        let mut canister = self.controlled(call, arg.canister_id)?.clone();
        let waiter =
            StopWaiter { origin: call.call.origin.clone(), cycles: call.call.cycles, since: self.state.time };
        let mut outputs = Vec::new();
        match &mut canister.status {
            Status::Running => {
                canister.status = Status::Stopping(imbl::Vector::unit(waiter));
                canister.version += 1;
                stop_when_idle(&mut canister, &mut outputs);
            }
            Status::Stopping(waiters) => waiters.push_back(waiter),
            Status::Stopped => {
                canister.version += 1;
                self.put(canister);
                return Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles));
            }
        }
        self.put(canister);
        self.route(outputs);
        Ok(Answered::Later)
    }

    pub(super) fn delete_canister(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::CanisterIdRecord = decode("delete_canister", &call.call.arg)?;
        let id = arg.canister_id;
        if id == call.caller() {
            let text = format!("Canister {id} cannot delete itself.");
            return Err(UserError::new(ErrorCode::INVALID_CONTROLLER, text));
        }
        let canister = self.controlled(call, id)?;
        if canister.status != Status::Stopped {
            let text = format!("Canister {id} must be stopped before it is deleted.");
            return Err(UserError::new(ErrorCode::NOT_STOPPED, text));
        }
        if !canister.inputs.is_empty() || !canister.calls.callbacks.is_empty() {
            let text = format!("Canister {id} has messages in its queues and can't be deleted now, retry.");
            return Err(UserError::new(ErrorCode::QUEUE_NOT_EMPTY, text));
        }
        self.remove(&id);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }

    pub(super) fn uninstall_code(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::Uninstall = decode("uninstall_code", &call.call.arg)?;
        let mut canister = self.controlled(call, arg.canister_id)?.clone();
        let outputs = uninstall(&mut canister);
        let version = arg.sender_canister_version;
        self.note_change(call, &mut canister, version, ChangeDetails::CodeUninstall);
        self.release(&canister.id);
        self.put(canister);
        self.route(outputs);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }

    pub(super) fn note_change(
        &self,
        call: &Management<'_>,
        canister: &mut CanisterState,
        caller_version: Option<u64>,
        details: ChangeDetails,
    ) {
        note_change(self.state.time, call.call, canister, caller_version, details);
    }
}

/// Adds to the history of a canister whose version has been moved on already.
pub(super) fn note_change(
    time: Nanoseconds,
    call: &ManagementCall,
    canister: &mut CanisterState,
    caller_version: Option<u64>,
    details: ChangeDetails,
) {
    let by_user = matches!(call.origin, Origin::Ingress { .. });
    canister.history.push(Change {
        time,
        version: canister.version,
        origin: call.origin.caller(),
        origin_version: caller_version.filter(|_| !by_user),
        by_user,
        details,
    });
}

/// Takes code and memory away. Open callers get code 4; late responses will only credit cycles.
pub(super) fn uninstall(canister: &mut CanisterState) -> Vec<Output> {
    canister.code = None;
    canister.certified_data.clear();
    canister.global_timer = 0;
    canister.log.clear();
    canister.chunks = ChunkStore::default();
    canister.hook = Hook::NotSatisfied;
    canister.inputs.tasks.clear();
    canister.version += 1;
    let mut outputs = Vec::new();
    let contexts = std::mem::take(&mut canister.calls.contexts);
    for (id, mut context) in contexts {
        if !context.answered {
            context.answered = true;
            let refund = std::mem::take(&mut context.available);
            let error = UserError::new(ErrorCode::CANISTER_REJECTED, "Canister has been uninstalled.");
            outputs.extend(answer(canister.id, &context.origin, Verdict::Error(error), refund));
        }
        context.deleted = true;
        if context.calls_out > 0 {
            canister.calls.contexts.insert(id, context);
        }
    }
    stop_when_idle(canister, &mut outputs);
    outputs
}

/// A canister that can't pay for its storage: code and snapshots gone, allocations 0, the history forgotten.
pub(crate) fn run_out(canister: &mut CanisterState) -> Vec<Output> {
    let outputs = uninstall(canister);
    let mut settings = Settings::clone(&canister.settings);
    settings.compute_allocation = 0;
    settings.memory_allocation = 0;
    canister.settings = Arc::new(settings);
    canister.history.recent.clear();
    canister.snapshots.taken.clear();
    outputs
}
