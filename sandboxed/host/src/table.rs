//! Which workers serve which canister, how many, and which goes first.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use execution::{BackendError, Principal};

use crate::resident::{Key, Resident};
use crate::status::{Role, lock};

/// All workers with a canister. Those that are busy are out, and counted.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Mutex<Entries>,
    returned: Condvar,
    workers_max: usize,
    query_workers: usize,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, Entry>,
    /// Workers with a canister, idle and busy, and those about to get one.
    workers: usize,
    /// Threads that wait for a worker: waking costs a call, also where nobody waits.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Entry {
    idle: Vec<Idle>,
    busy: usize,
}

#[derive(Debug)]
struct Idle {
    resident: Resident,
    since: Instant,
}

/// The right to one worker of a canister. Dropping it without putting a worker back makes room for another.
#[derive(Debug)]
pub(crate) struct Lease {
    table: Arc<Table>,
    key: Key,
    put_back: bool,
}

impl Table {
    pub(crate) fn new(workers_max: usize, query_workers: usize) -> Self {
        Self {
            entries: Mutex::default(),
            returned: Condvar::new(),
            workers_max: workers_max.max(1),
            query_workers: query_workers.max(1),
        }
    }

    /// Waits for the right to one of the canister's workers, and takes an idle one if there is any.
    pub(crate) fn lease(
        self: &Arc<Self>,
        key: Key,
        patience: Duration,
    ) -> Result<(Lease, Option<Resident>), BackendError> {
        let most = match key.1 {
            Role::Update => 1,
            Role::Query => self.query_workers,
        };
        let start = Instant::now();
        let mut entries = lock(&self.entries);
        loop {
            let entry = entries.by_key.entry(key).or_default();
            if entry.busy < most {
                entry.busy += 1;
                let idle = entry.idle.pop();
                if idle.is_none() {
                    entries.workers += 1;
                }
                // From here on the lease gives back what has been taken.
                let lease = Lease { table: Arc::clone(self), key, put_back: false };
                let evicted = entries.evict_to(self.workers_max);
                let over = idle.is_none() && entries.workers > self.workers_max;
                drop(entries);
                drop(evicted);
                return if over { Err(self.full()) } else { Ok((lease, idle.map(|idle| idle.resident))) };
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
                return Err(BackendError::Deadline { milliseconds });
            }
            entries.waiting += 1;
            entries = self.returned.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
            entries.waiting -= 1;
        }
    }

    /// Ends the idle workers of a canister. Their mirrors keep old page versions, which an arena that is full
    /// needs back.
    pub(crate) fn evict_canister(&self, canister: Principal) {
        let mut entries = lock(&self.entries);
        let mut evicted = Vec::new();
        for role in [Role::Update, Role::Query] {
            if let Some(entry) = entries.by_key.get_mut(&(canister, role)) {
                evicted.append(&mut entry.idle);
            }
        }
        entries.workers = entries.workers.saturating_sub(evicted.len());
        entries.forget_empty();
        drop(entries);
        drop(evicted);
    }

    fn full(&self) -> BackendError {
        BackendError::Exhausted {
            limit: "workers_max",
            detail: format!("all {} sandbox workers are busy", self.workers_max),
        }
    }

    /// Ends workers that have been idle for longer than `idle_max`.
    pub(crate) fn evict_idle(&self, idle_max: Duration) {
        let mut entries = lock(&self.entries);
        let mut evicted = Vec::new();
        for entry in entries.by_key.values_mut() {
            evicted.extend(entry.idle.extract_if(.., |idle| idle.since.elapsed() > idle_max));
        }
        entries.workers = entries.workers.saturating_sub(evicted.len());
        entries.forget_empty();
        drop(entries);
        // Killed and reaped here, not under the lock.
        drop(evicted);
    }
}

impl Entries {
    /// Takes the workers idle for longest until no more than `workers_max` are left, or none is idle.
    fn evict_to(&mut self, workers_max: usize) -> Vec<Idle> {
        let mut evicted = Vec::new();
        while self.workers > workers_max {
            let oldest = self
                .by_key
                .values_mut()
                .filter(|entry| !entry.idle.is_empty())
                .min_by_key(|entry| entry.idle.first().map(|idle| idle.since));
            let Some(entry) = oldest else { break };
            evicted.push(entry.idle.remove(0));
            self.workers -= 1;
        }
        if !evicted.is_empty() {
            self.forget_empty();
        }
        evicted
    }

    fn forget_empty(&mut self) {
        self.by_key.retain(|_, entry| entry.busy > 0 || !entry.idle.is_empty());
    }
}

impl Lease {
    /// Puts a worker back for the next message.
    pub(crate) fn put_back(mut self, resident: Resident) {
        self.put_back = true;
        let mut entries = lock(&self.table.entries);
        let entry = entries.by_key.entry(self.key).or_default();
        entry.idle.push(Idle { resident, since: Instant::now() });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut entries = lock(&self.table.entries);
        if let Some(entry) = entries.by_key.get_mut(&self.key) {
            entry.busy = entry.busy.saturating_sub(1);
        }
        if !self.put_back {
            entries.workers = entries.workers.saturating_sub(1);
            entries.forget_empty();
        }
        let waiting = entries.waiting > 0;
        drop(entries);
        if waiting {
            self.table.returned.notify_all();
        }
    }
}
