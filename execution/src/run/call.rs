//! Calls: the gate, the call context, the run.

use crate::answer::{self, Verdict};
use crate::module::MethodKind;
use crate::report::Ended;
use crate::run::{Call, Staged, ended};
use crate::state::{Ingress, MessageId, Origin, Request, Status};
use crate::{BackendError, Cycles, EntryPoint, ErrorCode, MessageKey, UserError, text};

impl Staged {
    /// A call by another canister. One whose deadline has passed is dropped: its caller knows.
    pub(super) async fn request(&mut self, request: &Request) -> Result<(), BackendError> {
        self.waiting = Some(MessageKey::of_request(&request.sender, request.callback));
        if request.deadline != 0 && request.deadline <= self.env.time {
            return Ok(());
        }
        let origin = Origin::Canister {
            sender: request.sender,
            callback: request.callback,
            deadline: request.deadline,
        };
        self.call(origin, &request.method, &request.arg, request.cycles).await
    }

    /// A call by a user.
    pub(super) async fn ingress(&mut self, ingress: &Ingress) -> Result<(), BackendError> {
        let id = ingress.id();
        self.waiting = Some(MessageKey::of_ingress(&id));
        let origin = Origin::Ingress { id, sender: ingress.sender };
        self.call(origin, &ingress.method, &ingress.arg, 0).await
    }

    async fn call(
        &mut self,
        origin: Origin,
        method: &str,
        arg: &std::sync::Arc<[u8]>,
        cycles: Cycles,
    ) -> Result<(), BackendError> {
        let (entry, prepaid) = match self.gate(&origin, method, arg, cycles) {
            Ok(admitted) => admitted,
            Err(error) => {
                let verdict = Verdict::Error(error);
                self.outputs.extend(answer::answer(self.canister.id, &origin, verdict, cycles));
                return Ok(());
            }
        };
        let snapshot = self.canister.snapshot().expect("the gate refuses empty canisters");
        let caller = origin.caller();
        let ingress = ingress_id(&origin);
        let context = self.canister.calls.open(origin, cycles, self.env.time);
        let call = Call {
            entry,
            caller,
            instructions_max: self.env.config.limits.update_instructions,
            context: self.canister.calls.contexts.get(&context),
            refunded: 0,
        };
        let invocation = self.env.invocation(&self.canister, call);
        let checked = self.execute(&snapshot, &invocation).await?;
        let used = checked.outcome.instructions;
        let frozen = self.frozen_by(&snapshot, &checked);
        let how = match &frozen {
            Some(error) => Ended::Trap(error.clone()),
            None => ended(&checked, self.canister.id),
        };
        self.note(&invocation, &checked, ingress, how);
        let (given, verdict) = match frozen {
            Some(error) => (None, Verdict::Error(error)),
            None => match self.commit(&invocation.entry, checked) {
                Ok(applied) => {
                    if let Some(context) = self.canister.calls.contexts.get_mut(&context) {
                        context.available = context.available.saturating_sub(applied.accepted);
                    }
                    self.send(context, applied.calls);
                    (applied.answer, Verdict::NoAnswer)
                }
                Err(trap) => (None, Verdict::Error(text::trap(self.canister.id, &trap))),
            },
        };
        self.return_unused(prepaid, used);
        self.conclude(context, used, given, verdict);
        Ok(())
    }

    /// Whether a call may run, in the order of `canister-execution.md` 4.2 step 2; prepays it.
    fn gate(
        &mut self,
        origin: &Origin,
        method: &str,
        arg: &std::sync::Arc<[u8]>,
        cycles: Cycles,
    ) -> Result<(EntryPoint, Cycles), UserError> {
        let id = self.canister.id;
        let limits = &self.env.config.limits;
        let price = self.price(limits.update_instructions);
        let liquid = self.canister.liquid(limits);
        if liquid < price {
            return Err(text::out_of_cycles(id, price - liquid));
        }
        match self.canister.status {
            Status::Running => {}
            Status::Stopping(_) => return Err(text::stopping(id)),
            Status::Stopped => return Err(text::stopped(id)),
        }
        let module = self.canister.module().ok_or_else(|| text::no_module(id))?;
        let (method, arg) = (method.to_owned(), std::sync::Arc::clone(arg));
        let entry = match module.interface.methods.get(&method) {
            Some(MethodKind::Update) => EntryPoint::Update { method, arg },
            Some(MethodKind::Query) => EntryPoint::ReplicatedQuery { method, arg },
            Some(MethodKind::CompositeQuery) => return Err(text::composite_in_replicated_mode(id)),
            None => return Err(text::no_method(id, "update", &method)),
        };
        let limit = self.canister.settings.wasm_memory_limit;
        let heap = self.canister.code.as_ref().map_or(0, |code| code.heap.bytes());
        if matches!(entry, EntryPoint::Update { .. }) && limit != 0 && heap > limit {
            return Err(text::wasm_memory_limit(id, limit, heap));
        }
        let minimum = self.canister.settings.minimum_incoming_canister_call_cycles;
        if let Origin::Canister { sender, .. } = origin
            && *sender != id
            && cycles < minimum
        {
            let text =
                format!("Canister requires at least {minimum} cycles with each call, {cycles} were attached");
            return Err(text::from_canister(id, ErrorCode::INSUFFICIENT_CYCLES_IN_CALL, &text));
        }
        let prepaid = self.prepay(self.env.config.limits.update_instructions)?;
        Ok((entry, prepaid))
    }
}

fn ingress_id(origin: &Origin) -> Option<MessageId> {
    match origin {
        Origin::Ingress { id, .. } => Some(*id),
        Origin::Canister { .. } | Origin::Task => None,
    }
}
