//! Which messages of users are taken in (`canister-execution.md` section 4.11).

use std::sync::Arc;

use crate::management::{self, IngressRule};
use crate::report::Ended;
use crate::run::{Call, ended, retried};
use crate::state::{CanisterState, Ingress, IngressStatus, ManagementCall, MessageId, Origin, Status};
use crate::subnet::Subnet;
use crate::{Cycles, EntryPoint, ErrorCode, MessageKey, Principal, UserError, check, text};

/// Calls of the management canister that may wait for one canister's message in hand.
const CALLS_WAITING_MAX: usize = 100;

impl Subnet {
    /// Takes in a message of a user, or says why not. A message that is known already is not taken in
    /// twice. `canister_inspect_message` runs on the calling thread.
    ///
    /// # Errors
    /// Why the message was refused; nothing is changed then.
    pub fn submit(&mut self, ingress: Ingress) -> Result<MessageId, UserError> {
        let id = ingress.id();
        if self.status(&id) != IngressStatus::Unknown {
            return Ok(id);
        }
        let receiver = check::queue_key(ingress.receiver, self.config.subnet_id);
        let (sender, bytes, time) = (ingress.sender, ingress.bytes(), self.state.time);
        self.state.ingress.check_room(receiver, bytes, &self.config.limits)?;
        if receiver == Principal::management_canister() {
            self.admit_management(id, ingress)?;
        } else {
            self.admit_call(ingress)?;
        }
        self.state.ingress.receive(id, sender, receiver, bytes, time);
        self.uncertified.requests.insert(id);
        if receiver != Principal::management_canister() {
            self.ready(MessageKey::of_ingress(&id));
        }
        Ok(id)
    }

    fn admit_management(&mut self, id: MessageId, ingress: Ingress) -> Result<(), UserError> {
        let method = ingress.method.as_str();
        let about = management::target(method, &ingress.arg).ok();
        self.check_management_room(about)?;
        match management::ingress_rule(method) {
            Some(IngressRule::Provisional) if self.config.provisional => {}
            Some(IngressRule::Controllers) => {
                let target = management::target(method, &ingress.arg)?;
                let canister = self.canister(&target).ok_or_else(|| text::not_found(target))?;
                if !canister.is_controlled_by(&ingress.sender) {
                    return Err(management::not_controller(canister, ingress.sender));
                }
                let fee = match self.ingress_fee(canister, &ingress) {
                    // A frozen canister's settings must stay within reach: they may thaw it.
                    Err(_) if method == "update_settings" => 0,
                    fee => fee?,
                };
                self.change(target, |canister| canister.balance -= fee);
            }
            Some(IngressRule::Never) => return Err(management::only_canisters(method)),
            Some(IngressRule::Provisional) | None => return Err(management::no_method(method)),
        }
        let Ingress { sender, method, arg, .. } = ingress;
        let origin = Origin::Ingress { id, sender };
        self.state.management.push_back(Arc::new(ManagementCall { origin, method, arg, cycles: 0, about }));
        Ok(())
    }

    /// Refuses another call about a canister where there is no room. Calls that wait for a message in hand have a bound
    /// for each canister and take no room from others.
    fn check_management_room(&self, about: Option<Principal>) -> Result<(), UserError> {
        let full = |max| Err(text::queue_full(Principal::management_canister(), max));
        let waits = |about: Option<Principal>| about.is_some_and(|id| self.schedule.paused.contains(&id));
        let calls = &self.state.management;
        // Nobody else has less room for what this node has given up on.
        let aside = |call: &Arc<ManagementCall>| self.stuck.is_set_aside(call);
        if calls.iter().filter(|call| call.about == about && aside(call)).count() >= CALLS_WAITING_MAX {
            return full(CALLS_WAITING_MAX);
        }
        let (like, most) = if waits(about) {
            (calls.iter().filter(|call| call.about == about).count(), CALLS_WAITING_MAX)
        } else {
            let others = calls.iter().filter(|call| !waits(call.about) && !aside(call));
            (others.count(), self.config.limits.ingress_queue_length)
        };
        if like >= most { full(most) } else { Ok(()) }
    }

    fn admit_call(&mut self, ingress: Ingress) -> Result<(), UserError> {
        let id = ingress.receiver;
        let limits = &self.config.limits;
        let canister = self.canister(&id).ok_or_else(|| text::not_found(id))?;
        if self.is_quarantined(&id) {
            return Err(text::unavailable(id));
        }
        if ingress.bytes() > limits.payload_bytes {
            let text =
                format!("Ingress message of {} bytes, {} allowed", ingress.bytes(), limits.payload_bytes);
            return Err(UserError::new(ErrorCode::CANISTER_REJECTED, text));
        }
        match canister.status {
            Status::Running => {}
            Status::Stopping(_) => return Err(text::stopping(id)),
            Status::Stopped => return Err(text::stopped(id)),
        }
        if canister.inputs.ingress.len() >= limits.ingress_queue_length {
            return Err(text::queue_full(id, limits.ingress_queue_length));
        }
        let fee = self.ingress_fee(canister, &ingress)?;
        self.inspect(canister, &ingress)?;
        self.change(id, |canister| {
            canister.balance -= fee;
            canister.inputs.ingress.push_back(Arc::new(ingress));
        });
        Ok(())
    }

    /// What induction costs the canister, if it can pay that without freezing.
    fn ingress_fee(&self, canister: &CanisterState, ingress: &Ingress) -> Result<Cycles, UserError> {
        let limits = &self.config.limits;
        let fee = limits.ingress_fee(ingress.bytes());
        // A message in hand has been prepaid, and the canister is charged when it ends.
        let memory64 = canister.module().is_some_and(|module| module.interface.memory64);
        let prepaid = canister.paused.as_ref().map_or(0, |message| message.prepaid(limits, memory64));
        let liquid = canister.liquid(limits).saturating_sub(prepaid);
        if liquid < fee { Err(text::out_of_cycles(canister.id, fee - liquid)) } else { Ok(fee) }
    }

    /// Asks `canister_inspect_message`, where there is one.
    fn inspect(&self, canister: &CanisterState, ingress: &Ingress) -> Result<(), UserError> {
        if canister.module().is_some_and(|module| !module.interface.exports.inspect_message) {
            return Ok(());
        }
        let snapshot = canister.snapshot().ok_or_else(|| text::no_module(canister.id))?;
        let entry =
            EntryPoint::InspectMessage { method: ingress.method.clone(), arg: Arc::clone(&ingress.arg) };
        let call = Call {
            entry,
            caller: ingress.sender,
            instructions_max: self.config.limits.inspect_instructions,
            context: None,
            refunded: 0,
        };
        let env = self.env(1);
        let invocation = env.invocation(canister, call);
        // Like a query, it has no slices and doesn't wait for a message that the canister has in hand.
        let inspected = retried(&*env.backend, || {
            let outcome = env.backend.query(&snapshot, &invocation, None)?;
            env.checked(&invocation, &snapshot, outcome)
        });
        let checked = inspected.map_err(|error| {
            tracing::warn!(canister = %canister.id, %error, "inspect_message failed");
            text::unavailable(canister.id)
        })?;
        if let Ended::Trap(error) = ended(&checked, canister.id) {
            return Err(error);
        }
        if checked.outcome().effects.as_ref().is_some_and(|effects| effects.accepted) {
            return Ok(());
        }
        Err(UserError::new(ErrorCode::CANISTER_REJECTED, "Canister rejected the message"))
    }
}
