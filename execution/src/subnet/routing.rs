//! Takes what runs sent out to whoever it is for.

use std::sync::Arc;

use crate::answer::{Output, Verdict, answer};
use crate::state::{CanisterMessage, CanisterState, ManagementCall, Origin, Request};
use crate::subnet::Subnet;
use crate::{MessageKey, Principal, management, text};

impl Subnet {
    /// Delivers outputs in order. Queues can't overflow: each call had a slot when it was made, and
    /// that slot is its response's too.
    pub(crate) fn route(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Request(request) => self.route_request(request),
                Output::Response(response) => {
                    self.push(response.receiver, response.respondent, CanisterMessage::Response(response));
                }
                Output::Ingress(id, status) => self.set_status(id, status),
            }
        }
    }

    fn route_request(&mut self, request: Arc<Request>) {
        if request.deadline != 0 {
            self.schedule.deadlines.insert((request.deadline, request.sender, request.callback));
        }
        let receiver = request.receiver;
        let origin = Origin::Canister {
            sender: request.sender,
            callback: request.callback,
            deadline: request.deadline,
        };
        if receiver == Principal::management_canister() {
            let call = ManagementCall {
                origin,
                method: request.method.clone(),
                arg: Arc::clone(&request.arg),
                cycles: request.cycles,
                about: management::target(&request.method, &request.arg).ok(),
            };
            self.state.management.push_back(Arc::new(call));
        } else if self.canister(&receiver).is_some() {
            self.push(receiver, request.sender, CanisterMessage::Request(request));
        } else {
            let verdict = Verdict::Error(text::not_found(receiver));
            self.route(answer(receiver, &origin, verdict, request.cycles).into_iter().collect());
        }
    }

    /// Appends to a canister's queue; what is for a deleted canister is gone with it.
    pub(crate) fn push(&mut self, receiver: Principal, sender: Principal, message: CanisterMessage) {
        if self.canister(&receiver).is_some() {
            self.ready(MessageKey::of_message(&message));
        }
        self.change(receiver, |canister| canister.inputs.push(sender, message));
    }

    /// A message waits from now on.
    pub(super) fn ready(&self, message: MessageKey) {
        if let Some(observer) = &self.options.observer {
            observer.ready(message);
        }
    }

    /// Changes a canister, if it exists, in nothing that is certified: what waits for it, its balance, its status.
    pub(crate) fn change(&mut self, id: Principal, change: impl FnOnce(&mut CanisterState)) {
        if let Some(canister) = self.state.change(&id, change) {
            self.schedule.update(canister);
        }
    }
}
