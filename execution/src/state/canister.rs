//! Everything that the subnet knows of a canister (`canister-execution.md` section 4.1).

use std::sync::Arc;

use execution_memory::{Arena, Memory};
use imbl::Vector;

use crate::state::{
    Calls, CanisterSnapshots, ChunkStore, Debit, Input, Inputs, Origin, PausedMessage, SnapshotId, Task,
};
use crate::{
    Cycles, Freezing, GlobalValue, Limits, Module, ModuleHash, Nanoseconds, Principal, RunStatus, Snapshot,
};

/// Bytes of system state of an empty canister that storage is charged for.
const CANISTER_BYTES: u64 = 256;
/// Changes kept in a canister's history.
const HISTORY_CHANGES_MAX: usize = 20;
/// Bytes of the log's capacity that a record takes at least, whatever it says: an empty one is memory, too. A decision;
/// the implementation of the Internet Computer counts an overhead for each record.
const LOG_RECORD_BYTES: usize = 16;
/// `log_memory_limit` of a new canister.
const LOG_BYTES: u64 = 4096;
/// `wasm_memory_limit` as the low-memory hook sees it when none is set.
const HOOK_LIMIT_BYTES: u64 = 4 << 30;

/// Code and memory of a canister that isn't empty.
#[derive(Clone, Debug)]
pub struct Code {
    /// The module.
    pub module: Arc<Module>,
    /// Physical: where page versions live.
    pub arena: Arc<Arena>,
    /// Wasm heap.
    pub heap: Memory,
    /// Stable memory.
    pub stable: Memory,
    /// Mutable globals.
    pub globals: Arc<[GlobalValue]>,
    /// Time of the round in which the module was installed.
    pub installed: Nanoseconds,
}

impl Code {
    /// Bytes stored: memories, module, custom sections.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.heap
            .bytes()
            .saturating_add(self.stable.bytes())
            .saturating_add(self.module.wasm_bytes)
            .saturating_add(self.custom_sections_bytes())
    }

    /// Bytes of the `icp:` custom sections, names included.
    #[must_use]
    pub fn custom_sections_bytes(&self) -> u64 {
        let sections = self.module.interface.custom_sections.iter();
        sections.map(|(name, section)| (name.len() + section.content.len()) as u64).sum()
    }
}

/// Status, with the stop calls that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Takes calls.
    Running,
    /// Takes responses only, until no call context is left.
    Stopping(Vector<StopWaiter>),
    /// Takes nothing.
    Stopped,
}

/// A `stop_canister` call that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopWaiter {
    /// Who waits.
    pub origin: Origin,
    /// Cycles to give back.
    pub cycles: Cycles,
    /// Since when.
    pub since: Nanoseconds,
}

/// Who may see something of a canister besides its controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Nobody.
    #[default]
    Controllers,
    /// Everybody.
    Public,
    /// These, ascending.
    AllowedViewers(Vec<Principal>),
}

impl Visibility {
    /// Whether `viewer`, who isn't a controller, may see it.
    #[must_use]
    pub fn allows(&self, viewer: &Principal) -> bool {
        match self {
            Self::Controllers => false,
            Self::Public => true,
            Self::AllowedViewers(viewers) => viewers.contains(viewer),
        }
    }
}

/// What controllers set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Controllers, ascending, at most 10.
    pub controllers: Vec<Principal>,
    /// Percent.
    pub compute_allocation: u64,
    /// Bytes.
    pub memory_allocation: u64,
    /// Seconds.
    pub freezing_threshold: u64,
    /// Cycles.
    pub reserved_cycles_limit: Cycles,
    /// Bytes; 0: none.
    pub wasm_memory_limit: u64,
    /// Bytes.
    pub wasm_memory_threshold: u64,
    /// Who may read the log.
    pub log_visibility: Visibility,
    /// Bytes of log that are kept; 0: none.
    pub log_memory_limit: u64,
    /// Who may list the snapshots.
    pub snapshot_visibility: Visibility,
    /// Who may ask for the status.
    pub status_visibility: Visibility,
    /// Sorted bytewise by name.
    pub environment_variables: Vec<(String, String)>,
    /// Calls of canisters with fewer cycles are rejected.
    pub minimum_incoming_canister_call_cycles: Cycles,
}

impl Settings {
    /// The defaults of a new canister.
    #[must_use]
    pub fn new(controllers: Vec<Principal>) -> Self {
        Self {
            controllers,
            compute_allocation: 0,
            memory_allocation: 0,
            freezing_threshold: 2_592_000,
            reserved_cycles_limit: 5_000_000_000_000,
            wasm_memory_limit: 3 << 30,
            wasm_memory_threshold: 0,
            log_visibility: Visibility::Controllers,
            log_memory_limit: LOG_BYTES,
            snapshot_visibility: Visibility::Controllers,
            status_visibility: Visibility::Controllers,
            environment_variables: Vec::new(),
            minimum_incoming_canister_call_cycles: 0,
        }
    }
}

/// Whether `canister_on_low_wasm_memory` is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// There is memory.
    #[default]
    NotSatisfied,
    /// It is low and the hook has not run.
    Ready,
    /// It is low and the hook has run.
    Executed,
}

/// Which task goes first in the next round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskPointer {
    /// Timer, then heartbeat.
    #[default]
    Timer,
    /// Heartbeat, then timer.
    Heartbeat,
}

/// How code was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallMode {
    /// `install`.
    Install,
    /// `reinstall`.
    Reinstall,
    /// `upgrade`.
    Upgrade,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeDetails {
    /// The canister was made.
    Creation(Vec<Principal>),
    /// Its code was removed.
    CodeUninstall,
    /// Code came.
    CodeDeployment(InstallMode, ModuleHash),
    /// Its controllers changed.
    ControllersChange(Vec<Principal>),
    /// It became what it was when a snapshot was taken.
    LoadSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The canister's version when it was taken.
        version: u64,
        /// When it was taken.
        taken_at: Nanoseconds,
    },
}

/// An entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub time: Nanoseconds,
    /// Version after it.
    pub version: u64,
    /// Who did it.
    pub origin: Principal,
    /// Version of the canister that did it, when it said so.
    pub origin_version: Option<u64>,
    /// Whether `origin` is a user.
    pub by_user: bool,
    /// What.
    pub details: ChangeDetails,
}

/// The last changes and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// All changes ever.
    pub total: u64,
    /// The last ones, oldest first.
    pub recent: Vector<Change>,
}

impl History {
    /// Adds a change and forgets the oldest above the bound.
    pub fn push(&mut self, change: Change) {
        self.total += 1;
        self.recent.push_back(change);
        if self.recent.len() > HISTORY_CHANGES_MAX {
            self.recent.pop_front();
        }
    }
}

/// A record of the canister log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Counts on over the canister's life.
    pub index: u64,
    /// Time of the message.
    pub time: Nanoseconds,
    /// Content.
    pub text: Arc<[u8]>,
}

/// The canister log: the last records within its capacity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Index of the next record.
    pub next: u64,
    /// Bytes in `records`.
    pub bytes: usize,
    /// Oldest first.
    pub records: Vector<LogRecord>,
}

impl Log {
    /// Adds a record, cut to the capacity; forgets the oldest ones that no longer fit.
    pub fn push(&mut self, time: Nanoseconds, text: &[u8], capacity: usize) {
        let text: Arc<[u8]> = Arc::from(&text[..text.len().min(capacity)]);
        self.bytes += text.len();
        self.records.push_back(LogRecord { index: self.next, time, text });
        self.next += 1;
        self.trim(capacity);
    }

    /// Forgets the oldest records that don't fit into `capacity`.
    pub fn trim(&mut self, capacity: usize) {
        while self.bytes > capacity || self.records.len() > capacity / LOG_RECORD_BYTES {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.text.len();
        }
    }

    /// Forgets all records; indices count on.
    pub fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }
}

/// A canister. Clone is cheap: everything large is shared.
#[derive(Clone, Debug)]
pub struct CanisterState {
    /// Its id.
    pub id: Principal,
    /// What controllers set.
    pub settings: Arc<Settings>,
    /// Cycles.
    pub balance: Cycles,
    /// Cycles set aside for storage.
    pub reserved: Cycles,
    /// `canister_version`.
    pub version: u64,
    /// Running, stopping or stopped.
    pub status: Status,
    /// At most 32 bytes.
    pub certified_data: Vec<u8>,
    /// When `canister_global_timer` is due; 0: not set.
    pub global_timer: Nanoseconds,
    /// Low-memory hook.
    pub hook: Hook,
    /// Which task is first.
    pub task_pointer: TaskPointer,
    /// History.
    pub history: History,
    /// Log.
    pub log: Log,
    /// Chunk store.
    pub chunks: ChunkStore,
    /// Snapshots.
    pub snapshots: CanisterSnapshots,
    /// Instructions of installs ahead of the subnet's rate.
    pub install_debit: Debit,
    /// Bytes written ahead of the subnet's rate.
    pub heap_delta: Debit,
    /// Input queues.
    pub inputs: Inputs,
    /// The message in hand, if one is paused.
    pub paused: Option<PausedMessage>,
    /// Call contexts and callbacks.
    pub calls: Calls,
    /// Code and memory; `None`: empty.
    pub code: Option<Code>,
    /// Time of the round in which it was made.
    pub created: Nanoseconds,
}

impl CanisterState {
    /// An empty, running canister, made at the time of the round, `created`.
    #[must_use]
    pub fn new(id: Principal, controllers: Vec<Principal>, balance: Cycles, created: Nanoseconds) -> Self {
        Self {
            id,
            settings: Arc::new(Settings::new(controllers)),
            balance,
            reserved: 0,
            version: 0,
            status: Status::Running,
            certified_data: Vec::new(),
            global_timer: 0,
            hook: Hook::NotSatisfied,
            task_pointer: TaskPointer::Timer,
            history: History::default(),
            log: Log::default(),
            chunks: ChunkStore::default(),
            snapshots: CanisterSnapshots::default(),
            install_debit: Debit::default(),
            heap_delta: Debit::default(),
            inputs: Inputs::default(),
            paused: None,
            calls: Calls::default(),
            code: None,
            created,
        }
    }

    /// What a backend runs on; `None` when empty.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let Code { module, arena, heap, stable, globals, installed: _ } = self.code.as_ref()?;
        Some(Snapshot {
            canister: self.id,
            module: Arc::clone(module),
            arena: Arc::clone(arena),
            heap: heap.clone(),
            stable: stable.clone(),
            globals: Arc::clone(globals),
        })
    }

    /// The module; `None` when empty.
    #[must_use]
    pub fn module(&self) -> Option<&Arc<Module>> {
        self.code.as_ref().map(|code| &code.module)
    }

    /// Whether `principal` controls it.
    #[must_use]
    pub fn is_controlled_by(&self, principal: &Principal) -> bool {
        self.settings.controllers.contains(principal)
    }

    /// Status as the System API gives it.
    #[must_use]
    pub fn run_status(&self) -> RunStatus {
        match self.status {
            Status::Running => RunStatus::Running,
            Status::Stopping(_) => RunStatus::Stopping,
            Status::Stopped => RunStatus::Stopped,
        }
    }

    /// Bytes stored: memories, module, custom sections, chunk store, snapshots.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.code
            .as_ref()
            .map_or(0, Code::bytes)
            .saturating_add(self.chunks.bytes())
            .saturating_add(self.snapshots.bytes())
            .saturating_add(CANISTER_BYTES)
    }

    /// Bytes of the subnet's memory that are taken for it: what it stores, or its allocation if that is more.
    #[must_use]
    pub fn memory_taken(&self) -> u64 {
        self.memory_bytes().max(self.settings.memory_allocation)
    }

    /// Whether it holds anything that storage is charged for and that it loses when it can't pay.
    #[must_use]
    pub fn holds_anything(&self) -> bool {
        self.code.is_some() || !self.chunks.chunks.is_empty() || !self.snapshots.taken.is_empty()
    }

    /// Bytes of messages (`canister-execution.md` sections 3.6 and 4.4): what waits in its input queues, and what
    /// is kept free for responses. A decision: both count for the one who gets the message, and a response
    /// counts besides what was kept free for it until its callback has run.
    #[must_use]
    pub fn message_bytes(&self) -> u64 {
        self.calls.guaranteed.saturating_mul(Freezing::RESPONSE_BYTES).saturating_add(self.inputs.bytes)
    }

    /// Where its page versions lie, if it has any: code and snapshots share one arena, so that a snapshot is
    /// taken and loaded without copying.
    #[must_use]
    pub fn arena(&self) -> Option<&Arc<Arena>> {
        let snapshot = || self.snapshots.taken.values().next().map(|snapshot| &snapshot.code);
        self.code.as_ref().or_else(snapshot).map(|code| &code.arena)
    }

    /// Bytes of log that it keeps.
    #[must_use]
    pub fn log_capacity(&self) -> usize {
        usize::try_from(self.settings.log_memory_limit).unwrap_or(usize::MAX)
    }

    /// Inputs of the freezing limit as they stand.
    #[must_use]
    pub fn freezing(&self) -> Freezing {
        Freezing {
            memory_bytes: self.memory_bytes(),
            message_bytes: self.message_bytes(),
            memory_allocation: self.settings.memory_allocation,
            compute_allocation: self.settings.compute_allocation,
            threshold_seconds: self.settings.freezing_threshold,
            reserved: self.reserved,
        }
    }

    /// Cycles that may be spent without freezing it.
    #[must_use]
    pub fn liquid(&self, limits: &Limits) -> Cycles {
        self.freezing().liquid(limits, self.balance, 0)
    }

    /// Whether its balance is below the freezing limit.
    #[must_use]
    pub fn is_frozen(&self, limits: &Limits) -> bool {
        self.missing(limits) > 0
    }

    /// Cycles that its balance lacks to reach the freezing limit.
    #[must_use]
    pub fn missing(&self, limits: &Limits) -> Cycles {
        let limit = self.freezing().limit(limits, 0).saturating_sub(self.reserved);
        limit.saturating_sub(self.balance)
    }

    /// Moves the low-memory hook's state after memory or settings changed.
    pub fn update_hook(&mut self) {
        let heap = self.code.as_ref().map_or(0, |code| code.heap.bytes());
        let limit = match self.settings.wasm_memory_limit {
            0 => HOOK_LIMIT_BYTES,
            limit => limit,
        };
        let low = self.settings.wasm_memory_threshold > limit.saturating_sub(heap);
        self.hook = match (low, self.hook) {
            (false, _) => Hook::NotSatisfied,
            (true, Hook::NotSatisfied) => Hook::Ready,
            (true, hook) => hook,
        };
    }

    /// Whether a round would find something to do for it besides due timers and heartbeats.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.paused.is_some() || self.low_memory_due() || !self.inputs.is_empty()
    }

    /// Takes the next input; the low-memory hook goes before all others.
    pub fn take_input(&mut self) -> Option<Input> {
        if self.low_memory_due() { Some(Input::Task(Task::LowWasmMemory)) } else { self.inputs.pop() }
    }

    /// Whether the low-memory hook is to run now.
    fn low_memory_due(&self) -> bool {
        self.hook == Hook::Ready
            && self.status == Status::Running
            && self.module().is_some_and(|module| module.interface.exports.low_wasm_memory)
    }
}
