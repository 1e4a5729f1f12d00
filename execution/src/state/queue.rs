//! What waits for a canister, and in which order it gets it (`canister-execution.md` section 4.7).

use std::sync::Arc;

use imbl::{OrdMap, Vector};

use crate::state::{CanisterMessage, Ingress, InstallMode, ManagementCall};
use crate::{Cycles, Limits, Nanoseconds, Principal};

/// A task that the system gives a canister.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// `canister_heartbeat`.
    Heartbeat,
    /// `canister_global_timer`.
    GlobalTimer,
    /// `canister_on_low_wasm_memory`; never queued, it follows from the hook's state.
    LowWasmMemory,
}

/// Which class of messages is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Canisters of this subnet.
    #[default]
    Canisters,
    /// Users.
    Users,
}

/// The next thing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A task.
    Task(Task),
    /// A message of a canister.
    Canister(CanisterMessage),
    /// A message of a user.
    Ingress(Arc<Ingress>),
    /// An install of its code; never queued here.
    Install(Arc<Install>),
}

/// An install that may begin: rights, rates and the mode are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The call that asks for it.
    pub call: Arc<ManagementCall>,
    /// How.
    pub mode: InstallMode,
    /// For an upgrade.
    pub upgrade: UpgradeOptions,
    /// The module as uploaded, or put together from chunks.
    pub module: Arc<[u8]>,
    /// For `canister_init` or `canister_post_upgrade`.
    pub arg: Arc<[u8]>,
    /// Version that the calling canister gave as its own.
    pub caller_version: Option<u64>,
}

/// What an upgrade keeps and skips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpgradeOptions {
    /// Whether `canister_pre_upgrade` is skipped.
    pub skip_pre_upgrade: bool,
    /// `wasm_memory_persistence`, if it was given.
    pub keep_heap: Option<bool>,
}

/// A message that a canister has in hand: paused at the end of a slice, or to begin again because it was given up.
/// The canister does nothing else meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedMessage {
    /// The message.
    pub input: Input,
    /// Slices that it has used up; 0: it begins again.
    pub slices: u32,
    /// What it saw when it began first, and sees again.
    pub start: Start,
}

impl PausedMessage {
    /// What has been prepaid for it from the canister's balance, which still shows it.
    #[must_use]
    pub fn prepaid(&self, limits: &Limits, memory64: bool) -> Cycles {
        match &self.input {
            // When the call was made.
            Input::Canister(CanisterMessage::Response(_)) => 0,
            Input::Install(_) => limits.execution_price(false, limits.install_instructions),
            Input::Task(_) | Input::Canister(CanisterMessage::Request(_)) | Input::Ingress(_) => {
                limits.execution_price(memory64, limits.update_instructions)
            }
        }
    }
}

/// What a message sees of the world besides its canister's code, memory and calls, which don't change while it is in
/// hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Time of the round.
    pub time: Nanoseconds,
    /// The canister's balance, before anything was prepaid.
    pub balance: Cycles,
    /// Bytes of the messages that waited for the canister.
    pub waiting_bytes: u64,
    /// Bytes of subnet memory that it may take.
    pub memory_available: u64,
    /// Shared callback slots that it may take.
    pub callbacks_available: usize,
    /// Bytes of message memory that it may take.
    pub message_bytes_available: u64,
}

/// A canister's input queues. Bounds are kept by those who push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Tasks of this round.
    pub tasks: Vector<Task>,
    /// By sender, first in first out; no empty queues.
    pub canisters: OrdMap<Principal, Vector<CanisterMessage>>,
    /// Senders that have a queue, in the order of their turns.
    pub turns: Vector<Principal>,
    /// From users.
    pub ingress: Vector<Arc<Ingress>>,
    /// Whose turn it is.
    pub next: Source,
    /// Bytes that messages of canisters carry.
    pub bytes: u64,
}

impl Inputs {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && !self.has_messages()
    }

    /// Whether a message waits, tasks aside.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        !self.turns.is_empty() || !self.ingress.is_empty()
    }

    /// Appends a message of a canister.
    pub fn push(&mut self, sender: Principal, message: CanisterMessage) {
        self.bytes = self.bytes.saturating_add(message.bytes());
        let queue = self.canisters.entry(sender).or_default();
        if queue.is_empty() {
            self.turns.push_back(sender);
        }
        queue.push_back(message);
    }

    /// Puts an input back to where it is the next one.
    pub fn put_back(&mut self, input: Input) {
        match input {
            // The hook's state brings it back.
            Input::Task(Task::LowWasmMemory) => {}
            Input::Task(task) => self.tasks.push_front(task),
            Input::Ingress(ingress) => {
                self.ingress.push_front(ingress);
                self.next = Source::Users;
            }
            Input::Canister(message) => {
                self.bytes = self.bytes.saturating_add(message.bytes());
                let sender = message.sender();
                self.turns.retain(|turn| *turn != sender);
                self.turns.push_front(sender);
                self.canisters.entry(sender).or_default().push_front(message);
                self.next = Source::Canisters;
            }
            Input::Install(_) => debug_assert!(false, "management calls have a queue of their own"),
        }
    }

    /// Takes the next input: tasks, then canisters and users by turns, canisters by turns among them.
    pub fn pop(&mut self) -> Option<Input> {
        if let Some(task) = self.tasks.pop_front() {
            return Some(Input::Task(task));
        }
        let users_first = self.next == Source::Users;
        if (users_first || self.turns.is_empty())
            && let Some(ingress) = self.ingress.pop_front()
        {
            self.next = Source::Canisters;
            return Some(Input::Ingress(ingress));
        }
        self.next = Source::Users;
        self.pop_canister().map(Input::Canister)
    }

    fn pop_canister(&mut self) -> Option<CanisterMessage> {
        let sender = self.turns.pop_front()?;
        let queue = self.canisters.get_mut(&sender).expect("a sender with a turn has a queue");
        let message = queue.pop_front().expect("queues are never empty");
        if queue.is_empty() {
            self.canisters.remove(&sender);
        } else {
            self.turns.push_back(sender);
        }
        self.bytes = self.bytes.saturating_sub(message.bytes());
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Request;

    fn request(sender: u8, callback: u64) -> (Principal, CanisterMessage) {
        let sender = Principal::from_slice(&[sender]);
        let request = Request {
            sender,
            callback,
            receiver: Principal::from_slice(&[9]),
            method: String::new(),
            arg: Arc::from([]),
            cycles: 0,
            deadline: 0,
        };
        (sender, CanisterMessage::Request(Arc::new(request)))
    }

    #[test]
    fn an_input_that_is_put_back_is_the_next_again_and_counts_again() {
        let mut inputs = Inputs::default();
        for (sender, callback) in [(1, 0), (2, 0), (1, 1)] {
            let (sender, message) = request(sender, callback);
            inputs.push(sender, message);
        }
        inputs.tasks.push_back(Task::Heartbeat);
        for _ in 0..4 {
            let before = inputs.clone();
            let input = inputs.pop().unwrap();
            inputs.put_back(input.clone());
            assert_eq!(
                (inputs.bytes, &inputs.canisters, &inputs.tasks),
                (before.bytes, &before.canisters, &before.tasks)
            );
            assert_eq!(inputs.pop(), Some(input));
        }
        assert_eq!(inputs.bytes, 0);
    }

    #[test]
    fn senders_take_turns_and_each_keeps_its_order() {
        let mut inputs = Inputs::default();
        for (sender, callback) in [(1, 0), (1, 1), (2, 0), (1, 2)] {
            let (sender, message) = request(sender, callback);
            inputs.push(sender, message);
        }
        let mut order = Vec::new();
        while let Some(input) = inputs.pop() {
            let Input::Canister(CanisterMessage::Request(request)) = input else { panic!("{input:?}") };
            order.push((request.sender.as_slice()[0], request.callback));
        }
        assert_eq!(order, [(1, 0), (2, 0), (1, 1), (1, 2)]);
        assert_eq!(inputs, Inputs { next: Source::Users, ..Inputs::default() });
    }
}
