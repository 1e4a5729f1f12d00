//! Heartbeat, timer and the low-memory hook.

use crate::answer::Verdict;
use crate::report::Ended;
use crate::run::{Call, Staged, ended};
use crate::state::{Hook, Origin, Status, Task};
use crate::{BackendError, EntryPoint, MessageKey, Principal, text};

impl Staged {
    /// Runs a task if it is still due; without the prepayment it is skipped.
    pub(super) async fn task(&mut self, task: Task) -> Result<(), BackendError> {
        if task == Task::LowWasmMemory {
            return self.low_memory().await;
        }
        self.waiting = Some(MessageKey::of_task(&self.canister.id, task));
        let Some(module) = self.canister.module() else { return Ok(()) };
        let exports = module.interface.exports;
        let entry = match task {
            Task::Heartbeat if exports.heartbeat => EntryPoint::Heartbeat,
            Task::GlobalTimer if exports.global_timer && self.timer_due() => EntryPoint::GlobalTimer,
            Task::Heartbeat | Task::GlobalTimer | Task::LowWasmMemory => return Ok(()),
        };
        self.run_task(entry).await?;
        Ok(())
    }

    fn timer_due(&self) -> bool {
        (1..=self.env.time).contains(&self.canister.global_timer)
    }

    /// Runs the low-memory hook; it counts as run whatever comes of it, unless it can't be paid for.
    async fn low_memory(&mut self) -> Result<(), BackendError> {
        self.canister.hook = Hook::Executed;
        if !self.run_task(EntryPoint::LowWasmMemory).await? {
            // Not now. It becomes ready again with the next change of memory or settings.
            self.canister.hook = Hook::NotSatisfied;
        }
        Ok(())
    }

    /// `false`: skipped.
    async fn run_task(&mut self, entry: EntryPoint) -> Result<bool, BackendError> {
        if self.canister.status != Status::Running {
            return Ok(false);
        }
        let Some(snapshot) = self.canister.snapshot() else { return Ok(false) };
        let limit = self.env.config.limits.update_instructions;
        let Ok(prepaid) = self.prepay(limit) else { return Ok(false) };
        if entry == EntryPoint::GlobalTimer {
            // One-shot: off before the handler runs, and off if it traps.
            self.canister.global_timer = 0;
        }
        let context = self.canister.calls.open(Origin::Task, 0, self.env.time);
        let call = Call {
            entry,
            caller: Principal::management_canister(),
            instructions_max: limit,
            context: self.canister.calls.contexts.get(&context),
            refunded: 0,
        };
        let invocation = self.env.invocation(&self.canister, call);
        let checked = self.execute(&snapshot, &invocation).await?;
        let used = checked.outcome.instructions;
        let frozen = self.frozen_by(&snapshot, &checked);
        let how = match &frozen {
            Some(error) => Ended::Trap(error.clone()),
            None => ended(&checked, self.canister.id),
        };
        self.note(&invocation, &checked, None, how);
        let verdict = match frozen {
            Some(error) => Verdict::Error(error),
            None => match self.commit(&invocation.entry, checked) {
                Ok(applied) => {
                    self.send(context, applied.calls);
                    Verdict::NoAnswer
                }
                Err(trap) => Verdict::Error(text::trap(self.canister.id, &trap)),
            },
        };
        self.return_unused(prepaid, used);
        self.conclude(context, used, None, verdict);
        Ok(true)
    }
}
