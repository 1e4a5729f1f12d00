//! A run that stopped at the end of its slice. Its worker waits with it; giving it up ends the worker.

use std::sync::Arc;

use execution::{BackendError, Execution, Instructions, PausedRun};

use crate::resident::{Resident, Run};
use crate::sandboxed::end;
use crate::status::Registry;
use crate::table::Lease;

pub(crate) struct Paused {
    resident: Resident,
    run: Run,
    lease: Lease,
    registry: Arc<Registry>,
}

impl Paused {
    pub(crate) fn new(resident: Resident, run: Run, lease: Lease, registry: Arc<Registry>) -> Self {
        Self { resident, run, lease, registry }
    }
}

impl PausedRun for Paused {
    fn resume(self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError> {
        let Self { resident, run, lease, registry } = *self;
        let answer = resident.resume(run, slice);
        let step = answer.and_then(|(answer, resident, run)| resident.take(answer, run));
        if matches!(step, Err(BackendError::Violation(_))) {
            registry.violation();
        }
        Ok(end(step?, lease, &registry))
    }

    fn abort(self: Box<Self>) {}
}
