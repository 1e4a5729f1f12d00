//! Who hears of messages as they go through a subnet, beside the backend.

use crate::Principal;
use crate::state::{CanisterMessage, MessageId, Task};

/// Told of the moments of a message that lie outside of the backend, as they come and on the thread that they come on:
/// be quick. Nothing comes back from here. Whoever measures reads the clock there, so no time can enter a result.
pub trait RoundObserver: Send + Sync {
    /// A message waits for its canister from now on.
    fn ready(&self, message: MessageKey);

    /// It is about to be run; `kind` is its [`crate::EntryPoint::kind`]. Told again where it begins again, after a
    /// failure around the guest or because it was given up: its wait was over then.
    fn begun(&self, message: MessageKey, canister: &Principal, kind: &'static str);

    /// It ended without having been run: refused by the gate, or late.
    fn dropped(&self, message: MessageKey);

    /// What the backend gave for the invocation of this number has passed `check`. On the thread that it gave it on,
    /// with nothing in between.
    fn checked(&self, invocation: u64);

    /// What a message did is in its canister's state. `invocation` was the last of its runs.
    fn committed(&self, invocation: u64);
}

/// What tells a message that waits from others. Two may share one, very rarely: nothing but a measurement may depend on
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageKey(u64);

impl MessageKey {
    /// As a number whose bits are all alike.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// Of a user's message.
    #[must_use]
    pub fn of_ingress(id: &MessageId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = id.0;
        Self::mixed(&[a, b, c, d, e, f, g, h], 0, Class::Ingress)
    }

    /// Of a call.
    pub(crate) fn of_request(sender: &Principal, callback: u64) -> Self {
        Self::mixed(sender.as_slice(), callback, Class::Request)
    }

    /// Of the answer to a call.
    pub(crate) fn of_response(receiver: &Principal, callback: u64) -> Self {
        Self::mixed(receiver.as_slice(), callback, Class::Response)
    }

    /// Of what waits in the queue of `receiver`.
    pub(crate) fn of_message(message: &CanisterMessage) -> Self {
        match message {
            CanisterMessage::Request(request) => Self::of_request(&request.sender, request.callback),
            CanisterMessage::Response(response) => Self::of_response(&response.receiver, response.callback),
        }
    }

    /// Of a task, of which a canister has one of each kind.
    pub(crate) fn of_task(canister: &Principal, task: Task) -> Self {
        let task = match task {
            Task::Heartbeat => 0,
            Task::GlobalTimer => 1,
            Task::LowWasmMemory => 2,
        };
        Self::mixed(canister.as_slice(), task, Class::Task)
    }

    fn mixed(id: &[u8], number: u64, class: Class) -> Self {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |mixed: u64, word: u64| (mixed ^ word).wrapping_mul(ODD).rotate_left(29);
        let mixed = id.chunks(8).fold(mix(class as u64, number), |mixed, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(mixed, u64::from_le_bytes(word))
        });
        Self(mix(mixed, 0))
    }
}

/// Whose numbers are apart.
#[derive(Clone, Copy)]
enum Class {
    Ingress,
    Request,
    Response,
    Task,
}
