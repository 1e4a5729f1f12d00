//! Call contexts and the callbacks that wait for responses.

use imbl::OrdMap;

use crate::state::MessageId;
use crate::{Callback, Cycles, Instructions, Nanoseconds, Principal};

/// Callback slots that each canister has; further ones are shared by the whole subnet
/// (`canister-execution.md` section 4.4).
pub const CALLBACKS_GUARANTEED: usize = 50;

/// Who waits for the answer of a call context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A user.
    Ingress {
        /// The message.
        id: MessageId,
        /// The user.
        sender: Principal,
    },
    /// A canister.
    Canister {
        /// The canister.
        sender: Principal,
        /// Its callback.
        callback: u64,
        /// Deadline of a best-effort call; 0: none.
        deadline: Nanoseconds,
    },
    /// Nobody: heartbeat, timer or hook.
    Task,
}

impl Origin {
    /// `msg_caller` of everything that runs in the context.
    #[must_use]
    pub fn caller(&self) -> Principal {
        match self {
            Self::Ingress { sender, .. } | Self::Canister { sender, .. } => *sender,
            Self::Task => Principal::management_canister(),
        }
    }
}

/// One call of this canister that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallContext {
    /// Who waits.
    pub origin: Origin,
    /// Whether an answer was given.
    pub answered: bool,
    /// Whether the code that made it was uninstalled.
    pub deleted: bool,
    /// Cycles that came with the call and were neither accepted nor refunded.
    pub available: Cycles,
    /// When it was made.
    pub time: Nanoseconds,
    /// Instructions of its finished messages.
    pub instructions: Instructions,
    /// Calls of this context that have no response yet.
    pub calls_out: u64,
}

/// A call made by this canister that has no response yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCall {
    /// The call context that made it.
    pub context: u64,
    /// Who was called.
    pub callee: Principal,
    /// Reply callback.
    pub on_reply: Callback,
    /// Reject callback.
    pub on_reject: Callback,
    /// Cleanup callback.
    pub on_cleanup: Option<Callback>,
    /// Cycles that went with it.
    pub cycles_sent: Cycles,
    /// Paid for running the callback.
    pub execution_prepaid: Cycles,
    /// Paid for the bytes of the response.
    pub transmission_prepaid: Cycles,
    /// Deadline of a best-effort call; 0: none.
    pub deadline: Nanoseconds,
}

/// All calls of a canister, in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Id of the next call context.
    pub next_context: u64,
    /// Id of the next callback.
    pub next_callback: u64,
    /// Open call contexts.
    pub contexts: OrdMap<u64, CallContext>,
    /// Callbacks that wait.
    pub callbacks: OrdMap<u64, PendingCall>,
    /// Number of callbacks by callee; no zeros.
    pub outstanding: OrdMap<Principal, usize>,
    /// Callbacks of calls without a deadline: memory is kept free for their responses.
    pub guaranteed: u64,
}

impl Calls {
    /// Slots that it takes from those that the subnet shares.
    #[must_use]
    pub fn shared_slots(&self) -> usize {
        self.callbacks.len().saturating_sub(CALLBACKS_GUARANTEED)
    }

    /// Opens a call context.
    pub fn open(&mut self, origin: Origin, available: Cycles, time: Nanoseconds) -> u64 {
        let id = self.next_context;
        self.next_context += 1;
        let context = CallContext {
            origin,
            answered: false,
            deleted: false,
            available,
            time,
            instructions: 0,
            calls_out: 0,
        };
        self.contexts.insert(id, context);
        id
    }

    /// Notes a call that leaves.
    ///
    /// # Panics
    /// If the context is not open: calls are made by open contexts only.
    pub fn register(&mut self, call: PendingCall) -> u64 {
        let id = self.next_callback;
        self.next_callback += 1;
        let context = self.contexts.get_mut(&call.context).expect("calls are made by open contexts");
        context.calls_out += 1;
        *self.outstanding.entry(call.callee).or_insert(0) += 1;
        self.guaranteed += u64::from(call.deadline == 0);
        self.callbacks.insert(id, call);
        id
    }

    /// Takes the callback of a response that is about to run; `None` if it expired or never was.
    pub fn take(&mut self, callback: u64) -> Option<PendingCall> {
        let call = self.callbacks.remove(&callback)?;
        self.guaranteed = self.guaranteed.saturating_sub(u64::from(call.deadline == 0));
        if let Some(context) = self.contexts.get_mut(&call.context) {
            context.calls_out = context.calls_out.saturating_sub(1);
        }
        match self.outstanding.get(&call.callee).copied() {
            Some(count) if count > 1 => {
                self.outstanding.insert(call.callee, count - 1);
            }
            _ => {
                self.outstanding.remove(&call.callee);
            }
        }
        Some(call)
    }
}
