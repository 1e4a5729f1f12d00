//! Messages from users and what became of them.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{Nanoseconds, Principal, UserError};

/// A message from a user, in the order that consensus gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Who sends.
    pub sender: Principal,
    /// The canister, or the management canister.
    pub receiver: Principal,
    /// Method name.
    pub method: String,
    /// Argument.
    pub arg: Arc<[u8]>,
    /// Makes equal messages different ones.
    pub nonce: Vec<u8>,
}

impl Ingress {
    /// The id: equal messages have equal ids and run once.
    #[must_use]
    pub fn id(&self) -> MessageId {
        let Self { sender, receiver, method, arg, nonce } = self;
        let mut hash = Sha256::new();
        hash.update(b"bulkhead-ingress");
        for part in [sender.as_slice(), receiver.as_slice(), method.as_bytes(), arg, nonce] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        MessageId(hash.finalize().into())
    }

    /// Bytes that induction is paid for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.method.len() + self.arg.len() + self.nonce.len()) as u64
    }
}

/// SHA-256 of an ingress message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 32]);

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// How far an ingress message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngressStatus {
    /// Never seen, or forgotten.
    Unknown,
    /// Waits in a queue.
    Received,
    /// Has run and waits for calls of its own.
    Processing,
    /// Answered.
    Replied(Arc<[u8]>),
    /// Rejected.
    Rejected(UserError),
    /// Answered, and the answer is forgotten.
    Done,
}

impl IngressStatus {
    /// Whether nothing more will happen to the message.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Replied(_) | Self::Rejected(_) | Self::Done)
    }

    /// Bytes of the answer.
    pub(crate) fn answer_bytes(&self) -> u64 {
        match self {
            Self::Replied(data) => data.len() as u64,
            Self::Rejected(error) => error.description.len() as u64,
            Self::Unknown | Self::Received | Self::Processing | Self::Done => 0,
        }
    }
}

/// An entry of the ingress history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressRecord {
    /// Who was called.
    pub receiver: Principal,
    /// Who sent.
    pub sender: Principal,
    /// How far it is.
    pub status: IngressStatus,
    /// Time of the last change of status.
    pub time: Nanoseconds,
    /// Bytes of the message, until it is answered; then of the answer, until that is forgotten.
    pub bytes: u64,
}
