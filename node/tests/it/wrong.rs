//! A backend that is wrong on purpose.

use bulkhead_node::Node;
use execution::{Backend, BackendError, EntryPoint, Execution, Invocation, Outcome, Snapshot};
use in_process::{InProcess, InProcessOptions};

/// What is made of an outcome.
pub(crate) type MakeWrong = fn(&Snapshot, &mut Outcome);

/// In-process as it should be, for a node's modules.
pub(crate) fn right(node: &Node) -> InProcess {
    InProcess::new(node.engine().clone(), &InProcessOptions::default())
}

/// In-process, and wrong in what it makes of every outcome, or of those of one method.
pub(crate) struct Wrong {
    right: InProcess,
    method: Option<&'static str>,
    make_wrong: MakeWrong,
}

impl Wrong {
    pub(crate) fn in_everything(node: &Node, make_wrong: MakeWrong) -> Self {
        Self { right: right(node), method: None, make_wrong }
    }

    /// Inspections of it are right.
    pub(crate) fn in_method(node: &Node, method: &'static str, make_wrong: MakeWrong) -> Self {
        Self { right: right(node), method: Some(method), make_wrong }
    }

    fn wrong(&self, snapshot: &Snapshot, invocation: &Invocation, mut outcome: Outcome) -> Outcome {
        let concerned = self.method.is_none_or(|method| {
            invocation.entry.method() == Some(method)
                && !matches!(invocation.entry, EntryPoint::InspectMessage { .. })
        });
        if concerned {
            (self.make_wrong)(snapshot, &mut outcome);
        }
        outcome
    }
}

impl Backend for Wrong {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        match self.right.execute(snapshot, invocation)? {
            Execution::Finished(outcome) => {
                Ok(Execution::Finished(self.wrong(snapshot, invocation, outcome)))
            }
            paused @ Execution::Paused(_) => Ok(paused),
        }
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        let outcome = self.right.query(snapshot, invocation, overlay)?;
        Ok(self.wrong(snapshot, invocation, outcome))
    }
}
