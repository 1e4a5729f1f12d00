//! What a run of an entry point claims to have done. A claim: `check` decides, then `apply` commits.

use std::sync::Arc;

use execution_memory::PageVersion;

use crate::{Callback, Cycles, ErrorCode, GlobalValue, Instructions, Nanoseconds, Principal, Snapshot};

/// The result of one run of an entry point: deterministic, the same in every mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Instructions used, dirty-page charges included, at most the run's limit.
    pub instructions: Instructions,
    /// Heap pages written in this message (4 KiB; counted also when it trapped).
    pub heap_pages_dirty: u64,
    /// Stable pages written in this message.
    pub stable_pages_dirty: u64,
    /// Log lines (`debug_print`, trap), kept also when it trapped.
    pub logs: Vec<LogLine>,
    /// What is to be committed; `None` unless the ending is `Returned`.
    pub effects: Option<Effects>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The entry point returned.
    Returned,
    /// It trapped, ran out of instructions or broke the canister contract.
    Trapped(Trap),
}

/// Why a run was undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Error code.
    pub code: ErrorCode,
    /// The text without the `Error from Canister <id>:` prefix, e.g. `Canister trapped: stack overflow`.
    pub text: String,
}

/// A line for the canister's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its bytes, capped by the log capacity.
    pub text: Vec<u8>,
}

/// What a run that returned did besides computing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// New contents of heap and stable memory. Empty for kinds that keep no memory.
    pub memory: MemoryDelta,
    /// Mutable globals after the run, in index order.
    pub globals: Arc<[GlobalValue]>,
    /// The answer, if given in this message.
    pub answer: Option<Answer>,
    /// Calls in the order of `call_perform`.
    pub calls: Vec<OutgoingCall>,
    /// `certified_data_set`, at most 32 bytes.
    pub certified_data: Option<Vec<u8>>,
    /// `global_timer_set`; 0 deactivates.
    pub global_timer: Option<Nanoseconds>,
    /// Cycles accepted from the call.
    pub cycles_accepted: Cycles,
    /// Cycles burnt.
    pub cycles_burned: Cycles,
    /// `accept_message` was called (inspect only).
    pub accepted: bool,
}

impl Effects {
    /// Whether nothing but memory, globals, answer and certified data has changed: what a message behind this one is
    /// expected to find (`Backend::execute_batch`).
    #[must_use]
    pub fn are_foreseen(&self) -> bool {
        let Self {
            memory: _,
            globals: _,
            answer: _,
            calls,
            certified_data: _,
            global_timer,
            cycles_accepted,
            cycles_burned,
            accepted: _,
        } = self;
        calls.is_empty() && global_timer.is_none() && *cycles_accepted == 0 && *cycles_burned == 0
    }
}

/// An answer of a call context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `msg_reply`.
    Reply(Vec<u8>),
    /// `msg_reject`.
    Reject(String),
}

/// A call to another canister.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingCall {
    /// The callee.
    pub callee: Principal,
    /// Method name.
    pub method: String,
    /// Argument.
    pub arg: Vec<u8>,
    /// Attached cycles, already taken from the balance.
    pub cycles: Cycles,
    /// Reply callback.
    pub on_reply: Callback,
    /// Reject callback.
    pub on_reject: Callback,
    /// Cleanup callback.
    pub on_cleanup: Option<Callback>,
    /// Seconds of a best-effort call, at most 300; `None`: guaranteed response.
    pub timeout_seconds: Option<u32>,
}

/// New page versions, staged by the backend in the canister's arena, and new sizes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryDelta {
    /// Heap size in 64 KiB pages after the run; `None`: unchanged.
    pub heap_pages: Option<u64>,
    /// Stable memory size in 64 KiB pages after the run; `None`: unchanged.
    pub stable_pages: Option<u64>,
    /// Heap pages written, by ascending 4 KiB page index.
    pub heap: Vec<(u64, PageVersion)>,
    /// Stable pages written, by ascending 4 KiB page index.
    pub stable: Vec<(u64, PageVersion)>,
}

impl MemoryDelta {
    /// What takes `before` to memories of `[heap, stable]` 64 KiB pages with the given pages written.
    #[must_use]
    pub fn of(
        before: &Snapshot,
        [heap_pages, stable_pages]: [u64; 2],
        heap: Vec<(u64, PageVersion)>,
        stable: Vec<(u64, PageVersion)>,
    ) -> Self {
        let changed = |before: u64, after: u64| (before != after).then_some(after);
        Self {
            heap_pages: changed(before.heap.wasm_pages(), heap_pages),
            stable_pages: changed(before.stable.wasm_pages(), stable_pages),
            heap,
            stable,
        }
    }
}
