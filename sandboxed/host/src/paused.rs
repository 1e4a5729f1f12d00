//! A run that stopped at the end of its slice. Its worker waits with it; giving it up ends the worker.

use std::sync::Arc;

use execution::{BackendError, Execution, Instructions, Invocation, PausedRun};

use crate::resident::{Resident, Run};
use crate::sandboxed::end;
use crate::status::Registry;
use crate::table::Lease;

pub(crate) struct Paused {
    pub(crate) resident: Resident,
    pub(crate) run: Run,
    pub(crate) invocation: Invocation,
    pub(crate) lease: Lease,
    pub(crate) registry: Arc<Registry>,
}

impl PausedRun for Paused {
    fn resume(self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError> {
        let Self { resident, run, invocation, lease, registry } = *self;
        let target = run.target.clone();
        let answer = resident.resume(run, slice);
        let step = answer
            .and_then(|(answer, resident, run)| {
                resident.take(answer, run).inspect_err(|fault| lease.make_room(&fault.error))
            })
            .and_then(|step| step.judged(&target, &invocation));
        lease.note(&step);
        match step {
            Ok(step) => Ok(end(step, &invocation, lease, &registry)),
            Err(fault) => {
                registry.failed(&fault);
                Err(fault.error)
            }
        }
    }

    fn abort(self: Box<Self>) {}
}
