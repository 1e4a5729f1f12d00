//! Turning what became of a call into a message for whoever waits.

use std::sync::Arc;

use crate::state::{IngressStatus, MessageId, Origin, Payload, Request, Response};
use crate::{Cycles, ErrorCode, Principal, UserError, text};

/// What a run sends out. Leaves only after the run is committed.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// A call.
    Request(Arc<Request>),
    /// An answer to a canister.
    Response(Arc<Response>),
    /// News for a user.
    Ingress(MessageId, IngressStatus),
}

/// What became of a call.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// A reply.
    Reply(Arc<[u8]>),
    /// `msg_reject`.
    Reject(String),
    /// Rejected by the system.
    Error(UserError),
    /// The callee ended without an answer.
    NoAnswer,
}

/// The message that tells `origin`; `None` when nobody waits.
pub(crate) fn answer(
    respondent: Principal,
    origin: &Origin,
    verdict: Verdict,
    refund: Cycles,
) -> Option<Output> {
    match *origin {
        Origin::Ingress { id, .. } => {
            let status = match verdict {
                Verdict::Reply(data) => IngressStatus::Replied(data),
                Verdict::Reject(reason) => {
                    IngressStatus::Rejected(UserError::new(ErrorCode::CANISTER_REJECTED, reason))
                }
                Verdict::Error(error) => IngressStatus::Rejected(error),
                Verdict::NoAnswer => IngressStatus::Rejected(text::did_not_reply(respondent)),
            };
            Some(Output::Ingress(id, status))
        }
        Origin::Canister { sender, callback, .. } => {
            let payload = match verdict {
                Verdict::Reply(data) => Payload::Reply(data),
                Verdict::Reject(reason) => Payload::Reject { code: 4, message: reason },
                Verdict::Error(error) => {
                    Payload::Reject { code: error.code.reject_code(), message: error.to_string() }
                }
                Verdict::NoAnswer => Payload::Reject { code: 5, message: "No response".into() },
            };
            Some(Output::Response(Arc::new(Response {
                respondent,
                receiver: sender,
                callback,
                payload,
                refund,
            })))
        }
        Origin::Task => None,
    }
}
