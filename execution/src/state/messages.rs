//! Messages between canisters.

use std::sync::Arc;

use crate::{Cycles, Nanoseconds, Principal};

/// A call from one canister to another, or to the management canister.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who calls.
    pub sender: Principal,
    /// The sender's callback that waits for the response.
    pub callback: u64,
    /// Who is called.
    pub receiver: Principal,
    /// Method name.
    pub method: String,
    /// Argument.
    pub arg: Arc<[u8]>,
    /// Cycles attached.
    pub cycles: Cycles,
    /// Deadline of a best-effort call; 0: none.
    pub deadline: Nanoseconds,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Who answers.
    pub respondent: Principal,
    /// Who called.
    pub receiver: Principal,
    /// The receiver's callback.
    pub callback: u64,
    /// The answer.
    pub payload: Payload,
    /// Cycles that come back.
    pub refund: Cycles,
}

/// What a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A reply.
    Reply(Arc<[u8]>),
    /// A reject.
    Reject {
        /// 1 to 6.
        code: u8,
        /// The text.
        message: String,
    },
}

impl Payload {
    /// Bytes that are paid for on the way back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Reply(data) => data.len() as u64,
            Self::Reject { message, .. } => message.len() as u64,
        }
    }
}

impl Request {
    /// Bytes of its method name and argument.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.method.len() + self.arg.len()) as u64
    }
}

/// What waits in the queue from one canister to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanisterMessage {
    /// A call.
    Request(Arc<Request>),
    /// An answer.
    Response(Arc<Response>),
}

impl CanisterMessage {
    /// In whose queue it waits.
    #[must_use]
    pub fn sender(&self) -> Principal {
        match self {
            Self::Request(request) => request.sender,
            Self::Response(response) => response.respondent,
        }
    }

    /// Bytes of what it carries.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Request(request) => request.bytes(),
            Self::Response(response) => response.payload.bytes(),
        }
    }
}
