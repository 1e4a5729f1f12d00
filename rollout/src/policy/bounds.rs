//! Bounds of a node, `[memory]`, `[sandbox]` and `[in_process]`. They can't change a result, and they are read when the
//! node starts.

use super::units::{DURATION, SIZE, Units};

/// What the file says; `None` where it is silent and what is built in holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Memory of record of all canisters, bytes.
    pub memory_bytes: Option<u64>,
    /// Memory of record of one canister, older snapshots included, bytes.
    pub arena_bytes: Option<u64>,
    /// Workers with a canister.
    pub workers_max: Option<u64>,
    /// Private memory of all workers with a canister, bytes.
    pub worker_memory_bytes: Option<u64>,
    /// Workers launched ahead.
    pub pool: Option<u64>,
    /// Query workers of one canister.
    pub query_workers: Option<u64>,
    /// How long a worker may be idle before it goes, milliseconds.
    pub idle_ms: Option<u64>,
    /// How long a worker may take over anything but running, milliseconds.
    pub step_patience_ms: Option<u64>,
    /// Instructions a second that a running worker has to reach.
    pub instructions_per_second_min: Option<u64>,
    /// Warm in-process instances kept.
    pub instances_max: Option<u64>,
    /// Modules whose code stays mapped.
    pub code_max: Option<u64>,
}

/// A key of one of the tables, and what may stand there.
pub(super) struct Key {
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    /// `None`: a whole number.
    pub(super) units: Option<&'static Units>,
    pub(super) least: u64,
    pub(super) most: u64,
    field: fn(&mut Bounds) -> &mut Option<u64>,
}

/// Tables with bounds.
pub(super) const TABLES: [&str; 3] = ["memory", "sandbox", "in_process"];

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const MIB: u64 = 1 << 20;
const PIB: u64 = 1 << 50;

/// All of them. An upper bound is there to find slips, not to be reached.
pub(super) const KEYS: [Key; 11] = {
    const fn key(
        table: &'static str,
        name: &'static str,
        units: Option<&'static Units>,
        (least, most): (u64, u64),
        field: fn(&mut Bounds) -> &mut Option<u64>,
    ) -> Key {
        Key { table, name, units, least, most, field }
    }
    let [memory, sandbox, in_process] = TABLES;
    [
        key(memory, "total", Some(&SIZE), (64 * MIB, PIB), |all| &mut all.memory_bytes),
        key(memory, "canister", Some(&SIZE), (MIB, PIB >> 10), |all| &mut all.arena_bytes),
        key(sandbox, "workers_max", None, (1, 100_000), |all| &mut all.workers_max),
        key(sandbox, "worker_memory", Some(&SIZE), (64 * MIB, PIB), |all| &mut all.worker_memory_bytes),
        key(sandbox, "pool", None, (0, 1_000), |all| &mut all.pool),
        key(sandbox, "query_workers", None, (1, 100), |all| &mut all.query_workers),
        key(sandbox, "idle", Some(&DURATION), (SECOND, 720 * HOUR), |all| &mut all.idle_ms),
        key(sandbox, "step_patience", Some(&DURATION), (SECOND, HOUR), |all| &mut all.step_patience_ms),
        key(sandbox, "instructions_per_second_min", None, (1_000_000, 100_000_000_000), |all| {
            &mut all.instructions_per_second_min
        }),
        key(in_process, "instances_max", None, (0, 4_000), |all| &mut all.instances_max),
        key(in_process, "code_max", None, (1, 100_000), |all| &mut all.code_max),
    ]
};

impl Key {
    pub(super) fn set(&self, bounds: &mut Bounds, value: u64) {
        *(self.field)(bounds) = Some(value);
    }

    /// A value as the file writes it.
    pub(super) fn write(&self, value: u64) -> String {
        self.units.map_or_else(|| value.to_string(), |units| units.write(value))
    }
}

impl Bounds {
    /// The keys by which `now` differs, `table.key` each.
    pub(crate) fn changed(mut self, mut now: Self) -> Vec<String> {
        let differs = |key: &&Key| (key.field)(&mut self) != (key.field)(&mut now);
        KEYS.iter().filter(differs).map(|key| format!("{}.{}", key.table, key.name)).collect()
    }
}
