//! Error texts (`canister-execution.md` section 4.5).

use crate::{Cycles, ErrorCode, Limits, Principal, Trap, UserError};

/// Longest description, bytes.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 8 * 1024;

/// A method's name as an error tells it: the first of a long one.
pub(crate) fn shown(method: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    match method.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &method[..end]),
        None => method.to_owned(),
    }
}

/// What went wrong inside a canister: `Error from Canister <id>: <text>.` and a line of advice.
pub(crate) fn from_canister(canister: Principal, code: ErrorCode, text: &str) -> UserError {
    let head = format!("Error from Canister {canister}: ");
    let advice = advice(code);
    let room = DESCRIPTION_BYTES_MAX - head.len() - advice.len() - ".\n...".len();
    let mut text = text.to_owned();
    if text.len() > room {
        let mut end = room;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    UserError::new(code, format!("{head}{text}.\n{advice}"))
}

pub(crate) fn trap(canister: Principal, trap: &Trap) -> UserError {
    from_canister(canister, trap.code, &trap.text)
}

/// A canister's error with a second text behind the first.
pub(crate) fn cleanup_failed(canister: Principal, first: &Trap, second: &Trap) -> UserError {
    let text = format!("{}\n\ncall_on_cleanup also failed:\n\n{}", first.text, second.text);
    from_canister(canister, first.code, &text)
}

pub(crate) fn not_found(canister: Principal) -> UserError {
    UserError::new(ErrorCode::CANISTER_NOT_FOUND, format!("Canister {canister} not found"))
}

pub(crate) fn no_module(canister: Principal) -> UserError {
    let text = "Attempted to execute a message, but the canister contains no Wasm module";
    from_canister(canister, ErrorCode::NO_WASM_MODULE, text)
}

pub(crate) fn no_method(canister: Principal, kind: &str, method: &str) -> UserError {
    // The full stop is part of the error; another one follows it.
    let text = format!("Canister has no {kind} method '{method}'.");
    from_canister(canister, ErrorCode::METHOD_NOT_FOUND, &text)
}

pub(crate) fn did_not_reply(canister: Principal) -> UserError {
    UserError::new(ErrorCode::DID_NOT_REPLY, format!("Canister {canister} did not reply to the call"))
}

pub(crate) fn stopped(canister: Principal) -> UserError {
    UserError::new(ErrorCode::STOPPED, format!("Canister {canister} is stopped"))
}

pub(crate) fn stopping(canister: Principal) -> UserError {
    UserError::new(ErrorCode::STOPPING, format!("Canister {canister} is stopping"))
}

pub(crate) fn out_of_cycles(canister: Principal, missing: Cycles) -> UserError {
    let text = format!(
        "Canister {canister} is out of cycles: please top up the canister with at least {missing} additional cycles"
    );
    UserError::new(ErrorCode::OUT_OF_CYCLES, text)
}

/// Growing by `growth` bytes where the subnet has `available` left.
pub(crate) fn subnet_memory(growth: u64, available: u64) -> UserError {
    let text = format!(
        "Canister requested {growth} bytes of memory but only {available} bytes are available in the subnet"
    );
    UserError::new(ErrorCode::SUBNET_OVERSUBSCRIBED, text)
}

/// A heap of `heap` bytes where the canister's own limit is `limit`.
pub(crate) fn wasm_memory_limit(canister: Principal, limit: u64, heap: u64) -> UserError {
    let text = format!(
        "Canister exceeded its current Wasm memory limit of {limit} bytes. The peak Wasm memory usage was {heap} bytes."
    );
    from_canister(canister, ErrorCode::WASM_MEMORY_LIMIT, &text)
}

pub(crate) fn frozen_query(canister: Principal) -> UserError {
    let text = format!(
        "Canister {canister} is unable to process query calls because it's frozen. Please top up the canister with cycles and try again."
    );
    UserError::new(ErrorCode::OUT_OF_CYCLES, text)
}

pub(crate) fn composite_in_replicated_mode(canister: Principal) -> UserError {
    from_canister(
        canister,
        ErrorCode::COMPOSITE_QUERY_IN_REPLICATED_MODE,
        "Composite query cannot be called in replicated mode",
    )
}

/// `max` messages wait for `receiver`.
pub(crate) fn queue_full(receiver: Principal, max: usize) -> UserError {
    let text = format!("Canister {receiver} input queue is full: {max} messages wait, retry later");
    UserError::new(ErrorCode::QUEUE_FULL, text)
}

/// `waiting` bytes wait for `receiver`, and `bytes` more are too many.
pub(crate) fn queue_bytes_full(receiver: Principal, waiting: u64, bytes: u64, limits: &Limits) -> UserError {
    let text = format!(
        "Canister {receiver} input queue is full: {waiting} bytes wait and {bytes} more would be more than are left for others, of {} in all; retry later",
        limits.ingress_waiting_bytes
    );
    UserError::new(ErrorCode::QUEUE_FULL, text)
}

/// `messages` to `receiver` are remembered.
pub(crate) fn history_full(receiver: Principal, messages: usize, limits: &Limits) -> UserError {
    let text = format!(
        "Ingress history is full for canister {receiver}: {messages} messages of the last 5 minutes, and one more would be more than are left for others, of {} in all; retry later",
        limits.ingress_history_length
    );
    UserError::new(ErrorCode::INGRESS_HISTORY_FULL, text)
}

/// What the description of [`unavailable`] ends with.
const UNAVAILABLE: &str = " is unavailable on this node, retry";

/// Node-local: nothing was committed, and another node may well answer.
pub(crate) fn unavailable(canister: Principal) -> UserError {
    UserError::new(ErrorCode::QUEUE_FULL, format!("Canister {canister}{UNAVAILABLE}"))
}

/// Whether an error is [`unavailable`]. No canister makes errors of its code.
pub(crate) fn is_unavailable(code: ErrorCode, description: &[u8]) -> bool {
    code == ErrorCode::QUEUE_FULL && description.ends_with(UNAVAILABLE.as_bytes())
}

fn advice(code: ErrorCode) -> String {
    let (sentence, anchor) = match code {
        ErrorCode::METHOD_NOT_FOUND => {
            ("Check that the method being called is exported by the target canister.", "method-not-found")
        }
        ErrorCode::NO_WASM_MODULE => {
            ("Please install code to this canister before calling it.", "wasm-module-not-found")
        }
        ErrorCode::CALLED_TRAP => {
            ("Consider gracefully handling failures from this canister.", "trapped-explicitly")
        }
        ErrorCode::CANISTER_TRAPPED => ("Check the canister's code for this failure.", "trapped"),
        ErrorCode::INVALID_MODULE => {
            ("Try checking the module with a validation tool before installing it.", "invalid-module")
        }
        ErrorCode::INSTRUCTION_LIMIT => {
            ("Try optimizing this canister or splitting the work.", "instruction-limit-exceeded")
        }
        ErrorCode::CONTRACT_VIOLATION => {
            ("This is likely an error in the canister or its CDK.", "contract-violation")
        }
        _ => ("See the reference of execution errors.", "execution-errors"),
    };
    format!(
        "{sentence} See documentation: https://docs.internetcomputer.org/references/execution-errors#{anchor}"
    )
}

/// A path of the state tree as text; labels that aren't short words as hexadecimal.
pub(crate) fn path(path: &[&[u8]]) -> String {
    const SHOWN_MAX: usize = 64;
    path.iter()
        .map(|label| match std::str::from_utf8(label) {
            Ok(word) if word.len() <= SHOWN_MAX && word.chars().all(|c| c.is_ascii_graphic()) => {
                format!("/{word}")
            }
            _ if label.len() <= SHOWN_MAX => format!("/0x{}", hex::encode(label)),
            _ => format!("/({} bytes)", label.len()),
        })
        .collect()
}
