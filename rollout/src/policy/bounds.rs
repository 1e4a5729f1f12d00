//! Bounds of a node, `[memory]`, `[sandbox]`, `[in_process]` and `[code_cache]`. They can't change a result, and they are
//! read when the node starts.

use std::path::PathBuf;

use super::document::Document;
use super::kind::Value;

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

/// Where the value of a key goes.
#[derive(Debug)]
pub(super) enum Field {
    Number(fn(&mut Bounds) -> &mut Option<u64>),
    Path(fn(&mut Bounds) -> &mut Option<PathBuf>),
}

use Field::{Number, Path};

/// Each key of these tables, with its field.
pub(super) const FIELDS: [(&str, &str, Field); 15] = [
    ("memory", "total", Number(|all| &mut all.memory_bytes)),
    ("memory", "canister", Number(|all| &mut all.arena_bytes)),
    ("sandbox", "workers_max", Number(|all| &mut all.workers_max)),
    ("sandbox", "worker_memory", Number(|all| &mut all.worker_memory_bytes)),
    ("sandbox", "pool", Number(|all| &mut all.pool)),
    ("sandbox", "query_workers", Number(|all| &mut all.query_workers)),
    ("sandbox", "idle", Number(|all| &mut all.idle_ms)),
    ("sandbox", "step_patience", Number(|all| &mut all.step_patience_ms)),
    ("sandbox", "instructions_per_second_min", Number(|all| &mut all.instructions_per_second_min)),
    ("sandbox", "private_images", Number(|all| &mut all.private_images)),
    ("in_process", "instances_max", Number(|all| &mut all.instances_max)),
    ("in_process", "code_max", Number(|all| &mut all.code_max)),
    ("code_cache", "directory", Path(|all| &mut all.code_cache_directory)),
    ("code_cache", "size", Number(|all| &mut all.code_cache_bytes)),
    ("code_cache", "modules_max", Number(|all| &mut all.code_cache_modules)),
];

impl Bounds {
    pub(super) fn read(document: &Document) -> Self {
        let mut bounds = Self::default();
        for (table, key, field) in &FIELDS {
            let said = document.of(table).find_map(|entry| entry.get(key));
            match (field, said.map(|said| &said.value)) {
                (Number(field), Some(Value::Number(number))) => *field(&mut bounds) = Some(*number),
                (Path(field), Some(Value::Path(path))) => *field(&mut bounds) = Some(path.clone()),
                (Number(_) | Path(_), _) => {}
            }
        }
        bounds
    }

    /// What stands behind a key of these tables.
    pub(super) fn value(&self, table: &str, key: &str) -> Option<Value> {
        let mut bounds = self.clone();
        let (_, _, field) = FIELDS.iter().find(|(of, name, _)| (*of, *name) == (table, key))?;
        match field {
            Number(field) => field(&mut bounds).map(Value::Number),
            Path(field) => field(&mut bounds).clone().map(Value::Path),
        }
    }

    /// The keys by which `now` differs, `table.key` each.
    pub(crate) fn changed(&self, now: &Self) -> Vec<String> {
        let differs =
            |(table, key, _): &&(&str, &str, Field)| self.value(table, key) != now.value(table, key);
        FIELDS.iter().filter(differs).map(|(table, key, _)| format!("{table}.{key}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::schema::SECTIONS;

    #[test]
    fn every_key_of_these_tables_has_its_field() {
        let tables = ["memory", "sandbox", "in_process", "code_cache"];
        let keys: Vec<_> = SECTIONS
            .iter()
            .filter(|section| tables.contains(&section.name))
            .flat_map(|section| section.keys.iter().map(|key| (section.name, key.name)))
            .collect();
        let fields: Vec<_> = FIELDS.iter().map(|(table, key, _)| (*table, *key)).collect();
        assert_eq!(keys, fields);
    }
}
