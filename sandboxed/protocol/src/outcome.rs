//! What a run did, on the wire.

use std::sync::Arc;

use execution::check::LOG_BYTES_MAX;
use execution::{Callback, ErrorCode, MemoryDelta, Principal};
use serde::{Deserialize, Serialize};

use crate::{Bytes, GLOBALS_MAX, Global, List, Malformed, memory};

/// Most log lines of one run: each counts at least one byte.
pub(crate) const LOG_LINES_MAX: usize = LOG_BYTES_MAX;
/// Most calls of one run; the replicated limit is lower and checked later.
const CALLS_MAX: usize = 200_000;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End<'a> {
    /// The entry point returned.
    Returned,
    /// It was undone.
    Trapped {
        /// Error code.
        code: u16,
        /// Its text.
        text: &'a str,
    },
}

impl<'a> From<&'a execution::Ending> for End<'a> {
    fn from(ending: &'a execution::Ending) -> Self {
        match ending {
            execution::Ending::Returned => Self::Returned,
            execution::Ending::Trapped(execution::Trap { code, text }) => {
                Self::Trapped { code: code.0, text }
            }
        }
    }
}

impl From<End<'_>> for execution::Ending {
    fn from(end: End<'_>) -> Self {
        match end {
            End::Returned => Self::Returned,
            End::Trapped { code, text } => {
                Self::Trapped(execution::Trap { code: ErrorCode(code), text: text.to_owned() })
            }
        }
    }
}

/// What a run that returned did besides computing; its pages travel apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects<'a> {
    /// Mutable globals after the run.
    pub globals: List<Global, GLOBALS_MAX>,
    /// The answer.
    #[serde(borrow)]
    pub answer: Option<Answer<'a>>,
    /// Calls in order.
    #[serde(borrow)]
    pub calls: List<Call<'a>, CALLS_MAX>,
    /// Certified data.
    #[serde(borrow)]
    pub certified_data: Option<Bytes<'a>>,
    /// Global timer.
    pub global_timer: Option<u64>,
    /// Cycles accepted.
    pub cycles_accepted: u128,
    /// Cycles burnt.
    pub cycles_burned: u128,
    /// `accept_message` was called.
    pub accepted: bool,
}

/// An answer of a call context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// `msg_reply`.
    Reply(#[serde(borrow)] Bytes<'a>),
    /// `msg_reject`.
    Reject(&'a str),
}

/// A call to another canister. Callbacks are (function, environment).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call<'a> {
    /// The callee's id.
    #[serde(borrow)]
    pub callee: Bytes<'a>,
    /// Method name.
    pub method: &'a str,
    /// Argument.
    #[serde(borrow)]
    pub arg: Bytes<'a>,
    /// Attached cycles.
    pub cycles: u128,
    /// Reply callback.
    pub on_reply: (u64, u64),
    /// Reject callback.
    pub on_reject: (u64, u64),
    /// Cleanup callback.
    pub on_cleanup: Option<(u64, u64)>,
    /// Seconds of a best-effort call.
    pub timeout_seconds: Option<u32>,
}

impl<'a> From<&'a execution::Effects> for Effects<'a> {
    fn from(effects: &'a execution::Effects) -> Self {
        let execution::Effects {
            memory: _, // travels as runs of written pages
            globals,
            answer,
            calls,
            certified_data,
            global_timer,
            cycles_accepted,
            cycles_burned,
            accepted,
        } = effects;
        Self {
            globals: memory::globals(globals),
            answer: answer.as_ref().map(|answer| match answer {
                execution::Answer::Reply(data) => Answer::Reply(Bytes(data)),
                execution::Answer::Reject(text) => Answer::Reject(text),
            }),
            calls: calls.iter().map(Call::from).collect(),
            certified_data: certified_data.as_deref().map(Bytes),
            global_timer: *global_timer,
            cycles_accepted: *cycles_accepted,
            cycles_burned: *cycles_burned,
            accepted: *accepted,
        }
    }
}

impl<'a> From<&'a execution::OutgoingCall> for Call<'a> {
    fn from(call: &'a execution::OutgoingCall) -> Self {
        let execution::OutgoingCall {
            callee,
            method,
            arg,
            cycles,
            on_reply,
            on_reject,
            on_cleanup,
            timeout_seconds,
        } = call;
        let pair = |callback: &Callback| (callback.function, callback.environment);
        Self {
            callee: Bytes(callee.as_slice()),
            method,
            arg: Bytes(arg),
            cycles: *cycles,
            on_reply: pair(on_reply),
            on_reject: pair(on_reject),
            on_cleanup: on_cleanup.as_ref().map(pair),
            timeout_seconds: *timeout_seconds,
        }
    }
}

impl TryFrom<Effects<'_>> for execution::Effects {
    type Error = Malformed;

    /// The effects without their memory.
    fn try_from(wire: Effects<'_>) -> Result<Self, Malformed> {
        let calls = wire.calls.0.into_iter().map(execution::OutgoingCall::try_from);
        Ok(Self {
            memory: MemoryDelta::default(),
            globals: wire.globals.0.into_iter().map(Into::into).collect::<Arc<[_]>>(),
            answer: wire.answer.map(|answer| match answer {
                Answer::Reply(data) => execution::Answer::Reply(data.0.to_vec()),
                Answer::Reject(text) => execution::Answer::Reject(text.to_owned()),
            }),
            calls: calls.collect::<Result<_, _>>()?,
            certified_data: wire.certified_data.map(|data| data.0.to_vec()),
            global_timer: wire.global_timer,
            cycles_accepted: wire.cycles_accepted,
            cycles_burned: wire.cycles_burned,
            accepted: wire.accepted,
        })
    }
}

impl TryFrom<Call<'_>> for execution::OutgoingCall {
    type Error = Malformed;

    fn try_from(wire: Call<'_>) -> Result<Self, Malformed> {
        let callback = |(function, environment)| Callback { function, environment };
        Ok(Self {
            callee: principal(wire.callee)?,
            method: wire.method.to_owned(),
            arg: wire.arg.0.to_vec(),
            cycles: wire.cycles,
            on_reply: callback(wire.on_reply),
            on_reject: callback(wire.on_reject),
            on_cleanup: wire.on_cleanup.map(callback),
            timeout_seconds: wire.timeout_seconds,
        })
    }
}

pub(crate) fn principal(bytes: Bytes<'_>) -> Result<Principal, Malformed> {
    Principal::try_from_slice(bytes.0).map_err(|_| Malformed("principal longer than 29 bytes"))
}
