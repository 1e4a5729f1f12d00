//! Bounds of a node, `[memory]`, `[sandbox]`, `[in_process]` and `[code_cache]`. They can't change a result, and they are
//! read when the node starts.

use std::path::PathBuf;

use super::units::{DURATION, SIZE, Units};

/// What the file says; `None` where it is silent and what is built in holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Where compiled modules are kept on disk: an absolute path.
    pub code_cache_directory: Option<PathBuf>,
    /// All of its files, bytes.
    pub code_cache_bytes: Option<u64>,
    /// Modules in it.
    pub code_cache_modules: Option<u64>,
}

/// How a number is written.
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
    pub(super) value: Value,
}

/// What may stand behind a key, and where it goes.
pub(super) enum Value {
    Number(Ranged),
    /// An absolute path.
    Path(fn(&mut Bounds) -> &mut Option<PathBuf>),
}

/// A number and its range.
pub(super) struct Ranged {
    pub(super) kind: Kind,
    pub(super) least: u64,
    pub(super) most: u64,
    field: fn(&mut Bounds) -> &mut Option<u64>,
}

/// Tables with bounds.
pub(super) const TABLES: [&str; 4] = ["memory", "sandbox", "in_process", "code_cache"];

/// Longest path that the kernel takes, bytes.
pub(super) const PATH_BYTES_MAX: usize = 4095;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const MIB: u64 = 1 << 20;
const PIB: u64 = 1 << 50;

/// All of them. An upper bound is there to find slips, not to be reached.
pub(super) const KEYS: [Key; 15] = {
    const fn key(
        table: &'static str,
        name: &'static str,
        kind: Kind,
        (least, most): (u64, u64),
        field: fn(&mut Bounds) -> &mut Option<u64>,
    ) -> Key {
        Key { table, name, value: Value::Number(Ranged { kind, least, most, field }) }
    }
    use Kind::{Flag, Number, Quantity};
    let [memory, sandbox, in_process, code_cache] = TABLES;
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
        Key { table: code_cache, name: "directory", value: Value::Path(|all| &mut all.code_cache_directory) },
        key(code_cache, "size", Quantity(&SIZE), (MIB, PIB), |all| &mut all.code_cache_bytes),
        key(code_cache, "modules_max", Number, (1, 50_000), |all| &mut all.code_cache_modules),
    ]
};

impl Ranged {
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
    pub(crate) fn changed(&self, now: &Self) -> Vec<String> {
        let (mut before, mut now) = (self.clone(), now.clone());
        let differs = |key: &&Key| match &key.value {
            Value::Number(number) => (number.field)(&mut before) != (number.field)(&mut now),
            Value::Path(field) => field(&mut before) != field(&mut now),
        };
        KEYS.iter().filter(differs).map(|key| format!("{}.{}", key.table, key.name)).collect()
    }
}
