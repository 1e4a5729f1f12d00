//! Composite queries: depth first over their calls, on overlays that are dropped at the end.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::outcome::OutgoingCall;
use crate::query::Asking;
use crate::state::CanisterState;
use crate::{
    Answer, BackendError, Checked, Effects, Ending, EntryPoint, ErrorCode, Principal, Snapshot, Trap,
    UserError, text,
};

/// Depth of a call graph.
const DEPTH_MAX: usize = 6;
/// Instructions that each further call costs the graph.
const CALL_INSTRUCTIONS: u64 = 50_000_000;

/// One composite query context: its private state and the calls that are still to be made.
struct Context {
    overlay: Snapshot,
    calls: VecDeque<OutgoingCall>,
    answer: Option<Answer>,
    error: Option<UserError>,
}

impl Context {
    /// Takes in what a step that returned did.
    fn take(&mut self, effects: Effects) {
        let Effects { memory, globals, answer, calls, .. } = effects;
        let heap = memory.heap_pages.unwrap_or(self.overlay.heap.wasm_pages());
        self.overlay.heap = self.overlay.heap.with(heap, memory.heap);
        let stable = memory.stable_pages.unwrap_or(self.overlay.stable.wasm_pages());
        self.overlay.stable = self.overlay.stable.with(stable, memory.stable);
        self.overlay.globals = globals;
        self.calls.extend(calls);
        self.answer = answer;
    }
}

impl Asking<'_> {
    pub(super) fn ask_composite(
        &mut self,
        canister: &CanisterState,
        snapshot: &Snapshot,
        entry: EntryPoint,
        sender: Principal,
        depth: usize,
    ) -> Result<Result<Answer, UserError>, BackendError> {
        let id = canister.id;
        let (_, checked) = self.run(canister, snapshot, None, entry, sender)?;
        let mut context =
            Context { overlay: snapshot.clone(), calls: VecDeque::new(), answer: None, error: None };
        match ending(checked) {
            Ok(effects) => context.take(effects),
            Err(trap) => return Ok(Err(text::trap(id, &trap))),
        }
        while context.answer.is_none()
            && let Some(call) = context.calls.pop_front()
        {
            let response = self.call(id, &call, depth)?;
            self.callback(canister, snapshot, sender, &mut context, &call, response)?;
        }
        Ok(match (context.answer, context.error) {
            (Some(answer), _) => Ok(answer),
            (None, Some(error)) => Err(error),
            (None, None) => Err(text::did_not_reply(id)),
        })
    }

    /// Makes one call of a composite query.
    fn call(
        &mut self,
        caller: Principal,
        call: &OutgoingCall,
        depth: usize,
    ) -> Result<Result<Answer, UserError>, BackendError> {
        if depth + 1 >= DEPTH_MAX {
            let text = format!("Composite query call graph of more than {DEPTH_MAX} levels");
            return Ok(Err(UserError::new(ErrorCode::QUERY_TOO_DEEP, text)));
        }
        let Some(left) = self.left.checked_sub(CALL_INSTRUCTIONS) else {
            let text = "Composite query exceeded the instruction limit of its whole call graph";
            return Ok(Err(UserError::new(ErrorCode::QUERY_TOTAL_INSTRUCTIONS, text)));
        };
        self.left = left;
        if call.callee == Principal::management_canister() {
            return Ok(self.view.ask_management(caller, &call.method, &call.arg).map(Answer::Reply));
        }
        self.ask(caller, call.callee, &call.method, Arc::from(call.arg.as_slice()), depth + 1)
    }

    fn callback(
        &mut self,
        canister: &CanisterState,
        snapshot: &Snapshot,
        sender: Principal,
        context: &mut Context,
        call: &OutgoingCall,
        response: Result<Answer, UserError>,
    ) -> Result<(), BackendError> {
        let (entry, code) = match response {
            Ok(Answer::Reply(data)) => {
                let callback = call.on_reply;
                (EntryPoint::Reply { callback, data: Arc::from(data), composite: true }, 0)
            }
            Ok(Answer::Reject(message)) => (reject(call, 4, message), 4),
            Err(error) => {
                let code = error.code.reject_code();
                (reject(call, code, error.to_string()), code)
            }
        };
        let overlay = context.overlay.clone();
        let (_, checked) = self.run(canister, snapshot, Some(&overlay), entry, sender)?;
        match ending(checked) {
            Ok(effects) => context.take(effects),
            Err(first) => {
                context.error = Some(text::trap(canister.id, &first));
                let Some(callback) = call.on_cleanup else { return Ok(()) };
                let entry = EntryPoint::Cleanup { callback, code, composite: true };
                let (_, checked) = self.run(canister, snapshot, Some(&overlay), entry, sender)?;
                match ending(checked) {
                    Ok(effects) => context.take(effects),
                    Err(second) => {
                        context.error = Some(text::cleanup_failed(canister.id, &first, &second));
                    }
                }
            }
        }
        Ok(())
    }
}

fn reject(call: &OutgoingCall, code: u8, message: String) -> EntryPoint {
    EntryPoint::Reject { callback: call.on_reject, code, message, composite: true }
}

fn ending(checked: Checked) -> Result<Effects, Trap> {
    match checked.outcome.ending {
        Ending::Trapped(trap) => Err(trap),
        Ending::Returned => Ok(checked.outcome.effects.unwrap_or_default()),
    }
}
