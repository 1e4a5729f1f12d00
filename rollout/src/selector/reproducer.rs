//! What is needed to see a difference again.

use execution::{Backend, BackendError, Execution, Invocation, Outcome, Snapshot};

use super::{Comparison, DivergenceClass};

/// An execution whose runs differed, with all that it ran on. Together with the module's bytes it runs anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Reproducer<'a> {
    /// Code and memory before it.
    pub snapshot: &'a Snapshot,
    /// What ran.
    pub invocation: &'a Invocation,
    /// Whether it ran as a query, and in one that is composite, what its earlier steps left.
    pub query: Option<Option<&'a Snapshot>>,
    /// What was committed.
    pub control: &'a Outcome,
    /// What the candidate gave.
    pub candidate: &'a Outcome,
    /// In what they differ, one field at least.
    pub differences: &'a [Comparison],
    /// What both runs said, made again.
    pub class: DivergenceClass,
}

/// Runs an invocation once more on `backend`, through all of its slices; as a query where it was one, see
/// [`Reproducer::query`].
///
/// # Errors
/// As for [`Backend::execute`].
pub fn run_again(
    backend: &dyn Backend,
    snapshot: &Snapshot,
    invocation: &Invocation,
    query: Option<Option<&Snapshot>>,
) -> Result<Outcome, BackendError> {
    if let Some(overlay) = query {
        return backend.query(snapshot, invocation, overlay);
    }
    let mut execution = backend.execute(snapshot, invocation)?;
    loop {
        match execution {
            Execution::Finished(outcome) => return Ok(outcome),
            Execution::Paused(run) => execution = run.resume(invocation.slice)?,
        }
    }
}
