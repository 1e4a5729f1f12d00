//! One message's state while it runs: everything that the System API may read or change besides memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use execution::outcome::{Effects, LogLine, OutgoingCall};
use execution::{
    Answer, Callback, Cycles, EntryPoint, Freezing, GlobalValue, Invocation, Nanoseconds, Principal,
};

use crate::context::Context;
use crate::slices::Slices;

/// Longest log line and trap message, bytes.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 32 << 10;
/// Bytes of log lines that one run hands out, with [`LOG_RECORD_BYTES`] for each; older lines go first.
const LOG_BYTES_MAX: usize = 1 << 20;
const LOG_RECORD_BYTES: usize = 24;

/// A message that is running.
pub(crate) struct Run {
    pub(crate) invocation: Invocation,
    pub(crate) context: Context,
    pub(crate) slices: Slices,
    pub(crate) cycles: Cycle,
    /// Data appended to the reply so far.
    pub(crate) reply: Vec<u8>,
    pub(crate) answer: Option<Answer>,
    /// The call under construction.
    pub(crate) preparing: Option<OutgoingCall>,
    pub(crate) calls: Vec<OutgoingCall>,
    /// Bytes of method names and arguments in `calls`.
    pub(crate) calls_bytes: u64,
    /// Calls without a deadline.
    pub(crate) guaranteed: u64,
    /// Slots that this message took in the queue to each callee.
    pub(crate) queued: BTreeMap<Principal, usize>,
    pub(crate) certified_data: Option<Vec<u8>>,
    pub(crate) global_timer: Option<Nanoseconds>,
    pub(crate) accepted: bool,
    pub(crate) logs: Logs,
    /// Bytes by which heap and stable memory have grown.
    pub(crate) grown_bytes: u64,
}

/// The cycles of a running message.
pub(crate) struct Cycle {
    pub(crate) balance: Cycles,
    /// Still to be accepted from the call.
    pub(crate) available: Cycles,
    pub(crate) accepted: Cycles,
    pub(crate) burned: Cycles,
}

impl Run {
    pub(crate) fn new(invocation: Invocation) -> Self {
        let system = &invocation.system;
        let cycles =
            Cycle { balance: system.balance, available: system.cycles_available, accepted: 0, burned: 0 };
        Self {
            context: Context::of(&invocation.entry),
            slices: Slices::new(&invocation),
            cycles,
            reply: Vec::new(),
            answer: None,
            preparing: None,
            calls: Vec::new(),
            calls_bytes: 0,
            queued: BTreeMap::new(),
            certified_data: None,
            global_timer: None,
            accepted: false,
            logs: Logs { lines: VecDeque::new(), bytes: 0, free: system.log_bytes_free },
            grown_bytes: 0,
            guaranteed: 0,
            invocation,
        }
    }

    /// Whether the call context has its answer, from this message or an earlier one, or needs none.
    pub(crate) fn is_answered(&self) -> bool {
        self.answer.is_some() || self.invocation.system.answered || !self.invocation.system.answer_needed
    }

    /// The argument, or the reply in a reply callback.
    pub(crate) fn payload(&self) -> &[u8] {
        match &self.invocation.entry {
            EntryPoint::Init { arg }
            | EntryPoint::PostUpgrade { arg }
            | EntryPoint::InspectMessage { arg, .. }
            | EntryPoint::Update { arg, .. }
            | EntryPoint::ReplicatedQuery { arg, .. }
            | EntryPoint::Query { arg, .. }
            | EntryPoint::Transform { arg, .. }
            | EntryPoint::CompositeQuery { arg, .. } => arg,
            EntryPoint::Reply { data, .. } => data,
            EntryPoint::Start
            | EntryPoint::PreUpgrade
            | EntryPoint::Heartbeat
            | EntryPoint::GlobalTimer
            | EntryPoint::LowWasmMemory
            | EntryPoint::Reject { .. }
            | EntryPoint::Cleanup { .. } => &[],
        }
    }

    /// The text of a reject.
    pub(crate) fn reject_message(&self) -> &[u8] {
        match &self.invocation.entry {
            EntryPoint::Reject { message, .. } => message.as_bytes(),
            _ => &[],
        }
    }

    /// What may be spent: the balance above the freezing limit with the memory grown and the calls made so far.
    pub(crate) fn liquid(&self) -> Cycles {
        self.freezing(0).liquid(&self.invocation.limits, self.cycles.balance, self.grown_bytes)
    }

    /// Inputs of the freezing limit with the calls made so far, and so many more, that have no deadline.
    pub(crate) fn freezing(&self, more: u64) -> Freezing {
        self.invocation.system.freezing.with_calls(self.guaranteed.saturating_add(more))
    }

    /// Bytes of memory that the subnet still has for this message.
    pub(crate) fn subnet_memory_free(&self) -> u64 {
        self.invocation.system.subnet_memory_available.saturating_sub(self.grown_bytes)
    }

    /// Cycles missing to hold `bytes` more; `None` if there are enough.
    pub(crate) fn cycles_missing_to_grow(&self, bytes: u64) -> Option<Cycles> {
        let freezing = self.freezing(0);
        if !self.context.growth_needs_cycles() || self.invocation.limits.system_subnet {
            return None;
        }
        let needed = freezing
            .limit(&self.invocation.limits, self.grown_bytes.saturating_add(bytes))
            .saturating_sub(freezing.reserved);
        (self.cycles.balance < needed).then(|| needed - self.cycles.balance)
    }

    /// Begins a call; one under construction is dropped and its cycles come back.
    pub(crate) fn prepare(&mut self, call: OutgoingCall) {
        self.drop_prepared();
        self.preparing = Some(call);
    }

    /// Drops the call under construction.
    pub(crate) fn drop_prepared(&mut self) {
        if let Some(call) = self.preparing.take() {
            self.cycles.balance = self.cycles.balance.saturating_add(call.cycles);
        }
    }

    /// What is to be committed. `globals` as they are now.
    pub(crate) fn into_effects(self, globals: Arc<[GlobalValue]>) -> Effects {
        Effects {
            memory: execution::MemoryDelta::default(),
            globals,
            answer: self.answer,
            calls: self.calls,
            certified_data: self.certified_data,
            global_timer: self.global_timer,
            cycles_accepted: self.cycles.accepted,
            cycles_burned: self.cycles.burned,
            accepted: self.accepted,
        }
    }
}

/// A callback as `call_new` takes it.
pub(crate) fn callback(function: u64, environment: u64) -> Callback {
    Callback { function, environment }
}

/// Lines printed by the message.
pub(crate) struct Logs {
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// Bytes free in the canister's log, as the price of printing counts them.
    free: usize,
}

impl Logs {
    /// Bytes free in the canister's log after what was printed so far.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Adds a line, cut to its longest; the oldest lines make room.
    pub(crate) fn push(&mut self, mut text: Vec<u8>) {
        text.truncate(LOG_LINE_BYTES_MAX);
        self.free = self.free.saturating_sub(text.len());
        self.bytes += text.len() + LOG_RECORD_BYTES;
        self.lines.push_back(LogLine { text });
        while self.bytes > LOG_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.text.len() + LOG_RECORD_BYTES;
        }
    }

    /// All lines, oldest first.
    pub(crate) fn take(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines).into()
    }
}
