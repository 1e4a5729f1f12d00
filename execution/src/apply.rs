//! Commits what `check` let pass. Can't fail: a canister is changed wholly or not at all.

use crate::state::CanisterState;
use crate::{Answer, Checked, Cycles, EntryPoint, Nanoseconds, OutgoingCall};

/// What a committed run wants from others.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The answer of the call context.
    pub(crate) answer: Option<Answer>,
    /// Calls that leave.
    pub(crate) calls: Vec<OutgoingCall>,
    /// Cycles accepted.
    pub(crate) accepted: Cycles,
}

/// Applies the effects of a run that returned: memory, globals, certified data, timer, balance, version.
///
/// `bump` is false inside an install, which counts as one change.
pub(crate) fn apply(
    canister: &mut CanisterState,
    entry: &EntryPoint,
    checked: Checked,
    bump: bool,
) -> Applied {
    let Checked { outcome, balance } = checked;
    let Some(effects) = outcome.effects else { return Applied::default() };
    if entry.keeps_memory()
        && let Some(code) = &mut canister.code
    {
        let heap = effects.memory.heap_pages.unwrap_or(code.heap.wasm_pages());
        code.heap = code.heap.with(heap, effects.memory.heap);
        let stable = effects.memory.stable_pages.unwrap_or(code.stable.wasm_pages());
        code.stable = code.stable.with(stable, effects.memory.stable);
        code.globals = effects.globals;
    }
    if let Some(data) = effects.certified_data {
        canister.certified_data = data;
    }
    if let Some(time) = effects.global_timer {
        canister.global_timer = time;
    }
    canister.balance = balance;
    if bump {
        canister.version += 1;
    }
    canister.update_hook();
    Applied { answer: effects.answer, calls: effects.calls, accepted: effects.cycles_accepted }
}

/// Keeps what a run printed; done also when it trapped.
pub(crate) fn keep_logs(canister: &mut CanisterState, checked: &Checked, time: Nanoseconds) {
    let capacity = canister.log_capacity();
    for line in &checked.outcome.logs {
        canister.log.push(time, &line.text, capacity);
    }
}
