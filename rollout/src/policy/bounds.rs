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
    /// Whether each worker gets a copy of its program (1) or all share one (0).
    pub private_images: Option<u64>,
    /// Warm in-process instances kept.
    pub instances_max: Option<u64>,
    /// Modules whose code stays mapped.
    pub code_max: Option<u64>,
}

/// How a value is written.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A whole number.
    Number,
    /// A string with a unit.
    Quantity(&'static Units),
    /// `true`, kept as 1, or `false`.
    Flag,
}

/// A key of one of the tables, and what may stand there.
pub(super) struct Key {
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
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
pub(super) const KEYS: [Key; 12] = {
    const fn key(
        table: &'static str,
        name: &'static str,
        kind: Kind,
        (least, most): (u64, u64),
        field: fn(&mut Bounds) -> &mut Option<u64>,
    ) -> Key {
        Key { table, name, kind, least, most, field }
    }
    use Kind::{Flag, Number, Quantity};
    let [memory, sandbox, in_process] = TABLES;
    [
        key(memory, "total", Quantity(&SIZE), (64 * MIB, PIB), |all| &mut all.memory_bytes),
        key(memory, "canister", Quantity(&SIZE), (MIB, PIB >> 10), |all| &mut all.arena_bytes),
        key(sandbox, "workers_max", Number, (1, 100_000), |all| &mut all.workers_max),
        key(sandbox, "worker_memory", Quantity(&SIZE), (64 * MIB, PIB), |all| &mut all.worker_memory_bytes),
        key(sandbox, "pool", Number, (0, 1_000), |all| &mut all.pool),
        key(sandbox, "query_workers", Number, (1, 100), |all| &mut all.query_workers),
        key(sandbox, "idle", Quantity(&DURATION), (SECOND, 720 * HOUR), |all| &mut all.idle_ms),
        key(sandbox, "step_patience", Quantity(&DURATION), (SECOND, HOUR), |all| &mut all.step_patience_ms),
        key(sandbox, "instructions_per_second_min", Number, (1_000_000, 100_000_000_000), |all| {
            &mut all.instructions_per_second_min
        }),
        key(sandbox, "private_images", Flag, (0, 1), |all| &mut all.private_images),
        key(in_process, "instances_max", Number, (0, 4_000), |all| &mut all.instances_max),
        key(in_process, "code_max", Number, (1, 100_000), |all| &mut all.code_max),
    ]
};

impl Key {
    pub(super) fn set(&self, bounds: &mut Bounds, value: u64) {
        *(self.field)(bounds) = Some(value);
    }

    /// A value as the file writes it.
    pub(super) fn write(&self, value: u64) -> String {
        match self.kind {
            Kind::Number => value.to_string(),
            Kind::Quantity(units) => units.write(value),
            Kind::Flag => (value != 0).to_string(),
        }
    }
}

impl Bounds {
    /// The keys by which `now` differs, `table.key` each.
    pub(crate) fn changed(mut self, mut now: Self) -> Vec<String> {
        let differs = |key: &&Key| (key.field)(&mut self) != (key.field)(&mut now);
        KEYS.iter().filter(differs).map(|key| format!("{}.{}", key.table, key.name)).collect()
    }
}
