//! Nothing that a backend says is believed before it has passed here.

use std::collections::BTreeMap;

use crate::memory::PAGE_BYTES;
use crate::memory::WASM_PAGE_BYTES;
use crate::module::Interface;
use crate::outcome::OutgoingCall;
use crate::{
    Answer, Cycles, Effects, Ending, EntryPoint, Invocation, Limits, Outcome, Principal, Snapshot,
    SystemView, Violation,
};

/// Longest text of a trap, bytes.
pub const TRAP_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest log line, bytes.
pub const LOG_LINE_BYTES_MAX: usize = 32 * 1024;
/// All log lines of one run, bytes, each line counting at least one.
pub const LOG_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest certified data, bytes.
const CERTIFIED_DATA_BYTES_MAX: usize = 32;
/// Longest timeout of a best-effort call, seconds.
const TIMEOUT_SECONDS_MAX: u32 = 300;
/// Globals of a module.
const GLOBALS_MAX: usize = 1_000;
/// 4 KiB pages in a WebAssembly page.
const PAGES_PER_WASM_PAGE: u64 = WASM_PAGE_BYTES / PAGE_BYTES as u64;

/// An outcome that may be applied: only [`check`] makes one.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(crate) outcome: Outcome,
    /// Balance after the run: calls, fees and reservations paid, prepayment not yet returned.
    pub(crate) balance: Cycles,
}

impl Checked {
    /// What was checked.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The same, taken out: a claim again, to whoever gets it.
    #[must_use]
    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }
}

/// What an entry point may do besides computing (`canister-execution.md` section 2).
#[derive(Clone, Copy, Default)]
struct Allowed {
    answer: bool,
    calls: bool,
    certified_data: bool,
    timer: bool,
    accept_cycles: bool,
    burn_cycles: bool,
    accept_message: bool,
}

fn allowed(entry: &EntryPoint) -> Allowed {
    let none = Allowed::default();
    let hook = Allowed { certified_data: true, timer: true, burn_cycles: true, ..none };
    match entry {
        EntryPoint::Start => none,
        EntryPoint::Init { .. } | EntryPoint::PreUpgrade | EntryPoint::PostUpgrade { .. } => hook,
        EntryPoint::InspectMessage { .. } => Allowed { accept_message: true, ..none },
        EntryPoint::Heartbeat | EntryPoint::GlobalTimer | EntryPoint::LowWasmMemory => {
            Allowed { calls: true, ..hook }
        }
        EntryPoint::Update { .. } => Allowed { answer: true, calls: true, accept_cycles: true, ..hook },
        EntryPoint::ReplicatedQuery { .. } => {
            Allowed { answer: true, accept_cycles: true, burn_cycles: true, ..none }
        }
        EntryPoint::Query { .. } | EntryPoint::Transform { .. } => Allowed { answer: true, ..none },
        EntryPoint::CompositeQuery { .. } => Allowed { answer: true, calls: true, ..none },
        EntryPoint::Reply { composite, .. } | EntryPoint::Reject { composite, .. } => {
            if *composite {
                Allowed { answer: true, calls: true, ..none }
            } else {
                Allowed { answer: true, calls: true, accept_cycles: true, ..hook }
            }
        }
        EntryPoint::Cleanup { composite: true, .. } => none,
        EntryPoint::Cleanup { composite: false, .. } => Allowed { timer: true, burn_cycles: true, ..none },
    }
}

/// Whether the private pages of the run are wanted: to be committed, or as the overlay of the next step.
#[must_use]
pub fn returns_memory(entry: &EntryPoint) -> bool {
    let composite = matches!(
        entry,
        EntryPoint::CompositeQuery { .. }
            | EntryPoint::Reply { composite: true, .. }
            | EntryPoint::Reject { composite: true, .. }
            | EntryPoint::Cleanup { composite: true, .. }
    );
    composite || entry.keeps_memory()
}

fn enforces_wasm_memory_limit(entry: &EntryPoint) -> bool {
    matches!(
        entry,
        EntryPoint::Start
            | EntryPoint::Init { .. }
            | EntryPoint::PostUpgrade { .. }
            | EntryPoint::Update { .. }
    )
}

fn require(holds: bool, claim: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(claim())) }
}

/// Decides whether `outcome` is one that a correct backend can give for `invocation` on `snapshot`.
///
/// # Errors
/// The first claim that no correct backend makes.
pub fn check(invocation: &Invocation, snapshot: &Snapshot, outcome: Outcome) -> Result<Checked, Violation> {
    require(outcome.instructions <= invocation.instructions_max, || {
        format!("{} instructions used of {}", outcome.instructions, invocation.instructions_max)
    })?;
    let mut log_bytes = 0_usize;
    for line in &outcome.logs {
        require(line.text.len() <= LOG_LINE_BYTES_MAX, || format!("log line of {} bytes", line.text.len()))?;
        log_bytes = log_bytes.saturating_add(line.text.len().max(1));
        require(log_bytes <= LOG_BYTES_MAX, || format!("more than {LOG_BYTES_MAX} bytes of log"))?;
    }
    let balance = match (&outcome.ending, &outcome.effects) {
        (Ending::Returned, Some(effects)) => {
            check_memory(invocation, snapshot, &outcome, effects)?;
            check_effects(invocation, effects)?;
            check_calls(invocation, &effects.calls)?;
            check_balance(invocation, snapshot, effects)?
        }
        (Ending::Trapped(trap), None) => {
            require(trap.code.is_known() && trap.code.reject_code() == 5, || {
                format!("error code {} for a trap", trap.code)
            })?;
            require(trap.text.len() <= TRAP_TEXT_BYTES_MAX, || {
                format!("trap text of {} bytes", trap.text.len())
            })?;
            check_dirty(invocation, &outcome, max_pages(snapshot), invocation.limits.stable_bytes)?;
            invocation.system.balance
        }
        (Ending::Returned, None) => return Err(Violation("returned without effects".into())),
        (Ending::Trapped(_), Some(_)) => return Err(Violation("trapped with effects".into())),
    };
    Ok(Checked { outcome, balance })
}

/// Decides whether a compiler's account of a module is one that memory can be made from: a compiler
/// process is believed no more than a worker.
///
/// # Errors
/// The first claim that no correct compiler makes.
pub fn check_interface(interface: &Interface, limits: &Limits) -> Result<(), Violation> {
    let Interface { memory64, has_memory, heap_pages_min, heap_pages_max, globals, data, .. } = interface;
    let (min, max) = (*heap_pages_min, *heap_pages_max);
    require(*has_memory || (min == 0 && max == 0 && data.is_empty()), || "a heap without a memory".into())?;
    let bytes = if *memory64 { limits.heap64_bytes } else { limits.heap32_bytes };
    let allowed = bytes / WASM_PAGE_BYTES;
    require(min <= max && max <= allowed, || format!("heap of {min} to {max} pages, {allowed} allowed"))?;
    require(globals.len() <= GLOBALS_MAX, || format!("{} globals", globals.len()))?;
    let end = min * WASM_PAGE_BYTES;
    for segment in data {
        let fits = segment.offset.checked_add(segment.bytes.len() as u64).is_some_and(|last| last <= end);
        require(fits, || format!("data segment at {} outside of {end} bytes", segment.offset))?;
    }
    Ok(())
}

/// Largest heap of the module, in WebAssembly pages.
fn max_pages(snapshot: &Snapshot) -> u64 {
    let interface = &snapshot.module.interface;
    if interface.has_memory { interface.heap_pages_max } else { 0 }
}

/// Most pages of stable memory that one run may touch.
#[must_use]
pub fn stable_pages_accessible(entry: &EntryPoint, limits: &Limits) -> u64 {
    let [short, long, query] = limits.stable_access_pages;
    match *entry {
        EntryPoint::Init { .. } | EntryPoint::PreUpgrade | EntryPoint::PostUpgrade { .. } => long,
        EntryPoint::Start
        | EntryPoint::Heartbeat
        | EntryPoint::GlobalTimer
        | EntryPoint::LowWasmMemory
        | EntryPoint::Update { .. }
        | EntryPoint::Reply { composite: false, .. }
        | EntryPoint::Reject { composite: false, .. }
        | EntryPoint::Cleanup { composite: false, .. } => short,
        EntryPoint::InspectMessage { .. }
        | EntryPoint::ReplicatedQuery { .. }
        | EntryPoint::Query { .. }
        | EntryPoint::Transform { .. }
        | EntryPoint::CompositeQuery { .. }
        | EntryPoint::Reply { .. }
        | EntryPoint::Reject { .. }
        | EntryPoint::Cleanup { .. } => query,
    }
}

fn check_dirty(
    invocation: &Invocation,
    outcome: &Outcome,
    heap_wasm_pages: u64,
    stable_bytes: u64,
) -> Result<(), Violation> {
    let heap_pages = heap_wasm_pages.saturating_mul(PAGES_PER_WASM_PAGE);
    require(outcome.heap_pages_dirty <= heap_pages, || {
        format!("{} dirty heap pages of {heap_pages}", outcome.heap_pages_dirty)
    })?;
    let access = stable_pages_accessible(&invocation.entry, &invocation.limits);
    let stable_pages = access.min(stable_bytes / PAGE_BYTES as u64);
    require(outcome.stable_pages_dirty <= stable_pages, || {
        format!("{} dirty stable pages of {stable_pages}", outcome.stable_pages_dirty)
    })
}

fn check_memory(
    invocation: &Invocation,
    snapshot: &Snapshot,
    outcome: &Outcome,
    effects: &Effects,
) -> Result<(), Violation> {
    let limits = &invocation.limits;
    let delta = &effects.memory;
    if !returns_memory(&invocation.entry) {
        let empty = delta.heap_pages.is_none()
            && delta.stable_pages.is_none()
            && delta.heap.is_empty()
            && delta.stable.is_empty();
        require(empty, || format!("{} keeps no memory", invocation.entry.kind()))?;
        return check_dirty(invocation, outcome, max_pages(snapshot), limits.stable_bytes);
    }
    let interface = &snapshot.module.interface;
    let heap_bytes = if interface.memory64 { limits.heap64_bytes } else { limits.heap32_bytes };
    let heap_max = max_pages(snapshot).min(heap_bytes / WASM_PAGE_BYTES);
    let stable_max = limits.stable_bytes / WASM_PAGE_BYTES;
    let heap = grown("heap", snapshot.heap.wasm_pages(), delta.heap_pages, heap_max)?;
    let stable = grown("stable memory", snapshot.stable.wasm_pages(), delta.stable_pages, stable_max)?;
    if enforces_wasm_memory_limit(&invocation.entry) && heap > snapshot.heap.wasm_pages() {
        let limit = invocation.system.wasm_memory_limit;
        require(limit == 0 || heap * WASM_PAGE_BYTES <= limit, || {
            format!("heap of {heap} pages above wasm_memory_limit {limit}")
        })?;
    }
    let growth = growth_bytes(snapshot, effects);
    require(growth <= invocation.system.subnet_memory_available, || {
        format!("{growth} bytes more than the subnet's {}", invocation.system.subnet_memory_available)
    })?;
    check_pages("heap", delta.heap.iter().map(|page| page.0), heap)?;
    check_pages("stable memory", delta.stable.iter().map(|page| page.0), stable)?;
    require(delta.heap.len() as u64 <= outcome.heap_pages_dirty, || "uncounted heap pages".into())?;
    require(delta.stable.len() as u64 <= outcome.stable_pages_dirty, || "uncounted stable pages".into())?;
    check_dirty(invocation, outcome, heap, stable * WASM_PAGE_BYTES)?;
    let before = &snapshot.globals;
    let same = effects.globals.len() == before.len()
        && effects.globals.iter().zip(before.iter()).all(|(new, old)| new.same_type(*old));
    require(same, || "globals of another number or type".into())
}

/// Bytes by which heap and stable memory grow; sizes need not be checked yet.
pub(crate) fn growth_bytes(snapshot: &Snapshot, effects: &Effects) -> u64 {
    let grown = |before: u64, after: Option<u64>| after.unwrap_or(before).saturating_sub(before);
    let heap = grown(snapshot.heap.wasm_pages(), effects.memory.heap_pages);
    let stable = grown(snapshot.stable.wasm_pages(), effects.memory.stable_pages);
    heap.saturating_add(stable).saturating_mul(WASM_PAGE_BYTES)
}

fn grown(what: &str, before: u64, after: Option<u64>, max: u64) -> Result<u64, Violation> {
    let after = after.unwrap_or(before);
    require(after >= before, || format!("{what} shrank from {before} to {after} pages"))?;
    require(after == before || after <= max, || format!("{what} of {after} pages, {max} allowed"))?;
    Ok(after)
}

fn check_pages(what: &str, indices: impl Iterator<Item = u64>, wasm_pages: u64) -> Result<(), Violation> {
    let end = wasm_pages.saturating_mul(PAGES_PER_WASM_PAGE);
    let mut next = 0_u64;
    for index in indices {
        require(index >= next, || format!("{what} page {index} out of order"))?;
        require(index < end, || format!("{what} page {index} outside of {end}"))?;
        next = index.saturating_add(1);
    }
    Ok(())
}

fn check_effects(invocation: &Invocation, effects: &Effects) -> Result<(), Violation> {
    let allowed = allowed(&invocation.entry);
    let kind = invocation.entry.kind();
    let refuse = |claim: &'static str| move || format!("{claim} in {kind}");
    let system = &invocation.system;
    let limits = &invocation.limits;
    require(allowed.calls || effects.calls.is_empty(), refuse("a call"))?;
    require(allowed.certified_data || effects.certified_data.is_none(), refuse("certified data"))?;
    require(allowed.timer || effects.global_timer.is_none(), refuse("a timer"))?;
    require(allowed.accept_cycles || effects.cycles_accepted == 0, refuse("accepted cycles"))?;
    require(allowed.burn_cycles || effects.cycles_burned == 0, refuse("burnt cycles"))?;
    require(allowed.accept_message || !effects.accepted, refuse("accept_message"))?;
    require(effects.cycles_accepted <= system.cycles_available, || {
        format!("{} cycles accepted of {}", effects.cycles_accepted, system.cycles_available)
    })?;
    let certified = effects.certified_data.as_ref().map_or(0, Vec::len);
    require(certified <= CERTIFIED_DATA_BYTES_MAX, || format!("{certified} bytes of certified data"))?;
    let Some(answer) = &effects.answer else { return Ok(()) };
    require(allowed.answer, refuse("an answer"))?;
    require(system.answer_needed, || "an answer that nobody waits for".into())?;
    require(!system.answered, || "a second answer".into())?;
    let (bytes, max) = match answer {
        Answer::Reply(data) => (data.len() as u64, reply_bytes_max(&invocation.entry, limits)),
        Answer::Reject(text) => (text.len() as u64, limits.payload_bytes),
    };
    require(bytes <= max, || format!("answer of {bytes} bytes, {max} allowed"))
}

fn reply_bytes_max(entry: &EntryPoint, limits: &Limits) -> u64 {
    if matches!(entry, EntryPoint::Query { .. } | EntryPoint::CompositeQuery { .. }) {
        limits.query_reply_bytes
    } else {
        limits.payload_bytes
    }
}

fn check_calls(invocation: &Invocation, calls: &[OutgoingCall]) -> Result<(), Violation> {
    let limits = &invocation.limits;
    let SystemView { callbacks_free, queue_taken, subnet, .. } = &invocation.system;
    require(calls.len() <= limits.calls_per_message, || format!("{} calls", calls.len()))?;
    require(calls.len() <= *callbacks_free, || {
        format!("{} calls with {callbacks_free} callback slots", calls.len())
    })?;
    let mut taken: BTreeMap<Principal, usize> = queue_taken.iter().copied().collect();
    let mut bytes_all = 0_u64;
    for call in calls {
        let name = call.method.len() as u64;
        require(name <= limits.method_name_bytes, || format!("method name of {name} bytes"))?;
        let bytes = name.saturating_add(call.arg.len() as u64);
        require(bytes <= limits.call_payload_bytes, || format!("call of {bytes} bytes"))?;
        bytes_all = bytes_all.saturating_add(bytes);
        require(bytes_all <= limits.calls_bytes, || format!("calls of {bytes_all} bytes"))?;
        let timeout = call.timeout_seconds.unwrap_or(0);
        require(timeout <= TIMEOUT_SECONDS_MAX, || format!("timeout of {timeout} s"))?;
        require(invocation.entry.is_replicated() || call.cycles == 0, || "cycles in a query's call".into())?;
        let slots = taken.entry(queue_key(call.callee, *subnet)).or_insert(0);
        *slots = slots.saturating_add(1);
        require(*slots <= limits.queue_length, || format!("queue to {} over its length", call.callee))?;
    }
    Ok(())
}

/// All names of the management canister share one queue.
pub(crate) fn queue_key(callee: Principal, subnet: Principal) -> Principal {
    if callee == subnet { Principal::management_canister() } else { callee }
}

fn check_balance(
    invocation: &Invocation,
    snapshot: &Snapshot,
    effects: &Effects,
) -> Result<Cycles, Violation> {
    let before = invocation.system.balance;
    if !invocation.entry.is_replicated() {
        return Ok(before);
    }
    let limits = &invocation.limits;
    let reserved = call_reservation(limits, snapshot.module.interface.memory64);
    let calls = effects.calls.iter().try_fold(effects.cycles_burned, |sum: Cycles, call| {
        let bytes = (call.method.len() as u64).checked_add(call.arg.len() as u64)?;
        sum.checked_add(call.cycles)?.checked_add(limits.call_fee(bytes))?.checked_add(reserved)
    });
    let after = before
        .checked_add(effects.cycles_accepted)
        .zip(calls)
        .and_then(|(have, spent)| have.checked_sub(spent));
    after.ok_or_else(|| Violation(format!("more cycles spent than the {before} there were")))
}

/// What one call sets aside for its response: the bytes, and running the callback.
pub(crate) fn call_reservation(limits: &Limits, memory64: bool) -> Cycles {
    limits.response_reservation().saturating_add(limits.execution_price(memory64, limits.update_instructions))
}
