//! What went wrong around a run. The node at large needs to know that a worker lied; here it is also known how.

use execution::memory::MemoryError;
use execution::{BackendError, Violation};

/// A failure on its way to the caller.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: BackendError,
    /// Of what kind, if it is a violation.
    pub(crate) kind: Option<Kind>,
}

/// What a worker did that no correct worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It ended by a fault of its own, a call outside its filter, or with a code that isn't its own.
    Death,
    /// Packets, frames, order, or an answer to another request.
    Protocol,
    /// It claimed what can't be.
    Claim,
    /// It took far more processor time than what it claims explains.
    Time,
    /// It isn't confined as it must be.
    Confinement,
}

/// What came of something that a worker had to do with.
pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl From<BackendError> for Fault {
    fn from(error: BackendError) -> Self {
        Self { error, kind: None }
    }
}

impl From<MemoryError> for Fault {
    fn from(error: MemoryError) -> Self {
        BackendError::from(error).into()
    }
}

impl From<Violation> for Fault {
    /// What `execution::check` found.
    fn from(violation: Violation) -> Self {
        Self { error: violation.into(), kind: Some(Kind::Claim) }
    }
}

/// A violation.
pub(crate) fn violation(kind: Kind, claim: impl Into<String>) -> Fault {
    Fault { error: Violation(claim.into()).into(), kind: Some(kind) }
}
