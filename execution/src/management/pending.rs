//! Management calls that the host answers: outcalls, signatures and whatever else lies outside of execution
//! (`canister-execution.md` section 8). Which methods these are is part of the subnet's configuration; what is
//! answered, and between which rounds, is part of the ordered input, as ingress is.

use std::sync::Arc;

use crate::answer::{Verdict, answer};
use crate::management::{Answered, Management};
use crate::state::ManagementCall;
use crate::subnet::Subnet;
use crate::{Cycles, Principal, UserError, text};

/// Why an answer was not taken; the call goes on waiting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PendingError {
    /// There is no such call, or it has been answered.
    #[error("no management call {0} waits for an answer")]
    Unknown(u64),
    /// More cycles given back than came with the call.
    #[error("{refund} cycles given back of {attached}")]
    Refund {
        /// What was to be given back.
        refund: Cycles,
        /// What there was.
        attached: Cycles,
    },
    /// More than a canister may be answered.
    #[error("answer of {bytes} bytes, {max} allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit `payload_bytes`.
        max: u64,
    },
}

impl Subnet {
    /// Calls of [`crate::SubnetConfig::host_methods`] that wait, by id, in the order they were made.
    pub fn pending_calls(&self) -> impl Iterator<Item = (u64, &ManagementCall)> {
        self.state.pending.calls.iter().map(|(&id, call)| (id, &**call))
    }

    /// Answers a waiting call: a Candid reply, or a reject with the error's code and text. `refund` of the
    /// cycles attached go back with it. The caller sees it in the next round.
    ///
    /// # Errors
    /// [`PendingError`]; nothing is changed then.
    pub fn answer_pending(
        &mut self,
        id: u64,
        result: Result<Vec<u8>, UserError>,
        refund: Cycles,
    ) -> Result<(), PendingError> {
        let call = self.state.pending.calls.get(&id).ok_or(PendingError::Unknown(id))?;
        if refund > call.cycles {
            return Err(PendingError::Refund { refund, attached: call.cycles });
        }
        let max = self.config.limits.payload_bytes;
        let bytes = match &result {
            Ok(reply) => reply.len(),
            Err(error) => error.description.len(),
        } as u64;
        if bytes > max {
            return Err(PendingError::TooLarge { bytes, max });
        }
        let verdict = match result {
            Ok(reply) => Verdict::Reply(Arc::from(reply)),
            Err(error) => Verdict::Error(error),
        };
        let output = answer(Principal::management_canister(), &call.origin, verdict, refund);
        self.state.pending.calls.remove(&id);
        self.route(output.into_iter().collect());
        Ok(())
    }

    /// Whether the host answers a method.
    pub(super) fn is_host_method(&self, method: &str) -> bool {
        self.config.host_methods.iter().any(|name| name == method)
    }

    /// Lets a call wait for the host.
    pub(super) fn wait_for_host(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let pending = &mut self.state.pending;
        let max = self.config.limits.pending_management_calls;
        if pending.calls.len() >= max {
            return Err(text::queue_full(Principal::management_canister(), max));
        }
        pending.calls.insert(pending.next, Arc::clone(call.call));
        pending.next += 1;
        Ok(Answered::Later)
    }
}
