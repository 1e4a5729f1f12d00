//! Which workers serve which canister, how many, and which goes first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use execution::BackendError;
use execution::memory::limit;

use crate::back_off::{BackOff, Pauses};
use crate::fault;
use crate::options::Bounds;
use crate::resident::{Key, Resident};
use crate::source::{NAMESPACES, PROCESSES};
use crate::status::{Reason, Registry, Role, lock};

/// Idle workers that go at once when the kernel refuses something: enough for one worker's descriptors and
/// those that have to be left, few enough to be launched again soon.
const RELIEF: usize = 8;
/// Workers of a canister in a row that may end before the first pause: as many as a message is tried on in a round.
const FREE: u32 = 3;
/// The longest pause.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);

/// All workers with a canister. Those that are busy are out, and counted.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Mutex<Entries>,
    returned: Condvar,
    bounds: Bounds,
    registry: Arc<Registry>,
    back_off: BackOff<Key>,
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
    pub(crate) fn new(bounds: Bounds, registry: Arc<Registry>, restart_pause: Duration) -> Self {
        Self {
            entries: Mutex::default(),
            returned: Condvar::new(),
            bounds,
            registry,
            back_off: BackOff::new(Pauses { free: FREE, first: restart_pause, longest: RESTART_PAUSE_MAX }),
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
            Role::Query => self.bounds.query_workers,
        };
        // When it began to wait.
        let mut start = None;
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
                let over = entries.workers.saturating_sub(self.bounds.workers_max);
                let evicted = entries.evict(over);
                drop(entries);
                let full = self.end(Reason::Count, evicted) < over && idle.is_none();
                return if full { Err(self.full()) } else { Ok((lease, idle.map(|idle| idle.resident))) };
            }
            let left = patience.saturating_sub(start.get_or_insert_with(Instant::now).elapsed());
            if left.is_zero() {
                let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
                return Err(BackendError::Deadline { milliseconds });
            }
            entries.waiting += 1;
            entries = self.returned.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
            entries.waiting -= 1;
        }
    }

    /// The right to a canister's first worker; `None` where it has one, or others would have to go for it.
    pub(crate) fn spare(self: &Arc<Self>, key: Key) -> Option<Lease> {
        if self.registry.memory_bytes() >= self.bounds.memory_bytes_max {
            return None;
        }
        let mut entries = lock(&self.entries);
        if entries.by_key.contains_key(&key) || entries.workers >= self.bounds.workers_max {
            return None;
        }
        entries.by_key.entry(key).or_default().busy = 1;
        entries.workers += 1;
        Some(Lease { table: Arc::clone(self), key, put_back: false })
    }

    /// Ends workers that have been idle for longer than `idle_max`.
    pub(crate) fn evict_idle(&self, idle_max: Duration) {
        let evicted = lock(&self.entries).evict_if(|_, idle| idle.since.elapsed() > idle_max);
        self.end(Reason::Idle, evicted);
    }

    /// Ends idle workers until all together hold no more memory than they may.
    ///
    /// # Errors
    /// [`BackendError::Exhausted`] when the busy ones alone hold more.
    pub(crate) fn make_room(&self) -> Result<(), BackendError> {
        let max = self.bounds.memory_bytes_max;
        loop {
            let held = self.registry.memory_bytes();
            if held <= max {
                return Ok(());
            }
            if self.evict(Reason::Memory, 1) == 0 {
                return Err(memory_full(held, max));
            }
        }
    }

    /// Ends some idle workers if the kernel refused something that they hold. Whether any went: it may be had
    /// now.
    pub(crate) fn relieve(&self, short: &BackendError) -> bool {
        Reason::of(short).is_some_and(|reason| self.evict(reason, RELIEF) > 0)
    }

    /// Ends the `count` idle workers that go first, or all there are.
    fn evict(&self, reason: Reason, count: usize) -> usize {
        let evicted = lock(&self.entries).evict(count);
        self.end(reason, evicted)
    }

    /// Kills and reaps, which is not to be done under the lock.
    fn end(&self, reason: Reason, evicted: Vec<Idle>) -> usize {
        if !evicted.is_empty() {
            self.registry.evicted(reason, evicted.len());
        }
        evicted.len()
    }

    fn full(&self) -> BackendError {
        BackendError::Exhausted {
            limit: "workers_max",
            detail: format!("all {} sandbox workers are busy", self.bounds.workers_max),
        }
    }
}

fn memory_full(held: u64, max: u64) -> BackendError {
    BackendError::Exhausted {
        limit: "worker_memory_bytes_max",
        detail: format!("busy sandbox workers hold {held} bytes of {max} ([sandbox] worker_memory)"),
    }
}

/// Idle workers go in this order: first those for queries, for which no round waits, then those for messages;
/// within a role the one idle for longest.
fn eviction_order(key: &Key, since: Instant) -> (Reverse<Role>, Instant) {
    (Reverse(key.1), since)
}

impl Entries {
    /// Takes out the `count` idle workers that go first, or all there are.
    fn evict(&mut self, count: usize) -> Vec<Idle> {
        let mut evicted = Vec::new();
        while evicted.len() < count {
            // Of a canister's workers, the first has been idle for longest.
            let firsts = self.by_key.iter_mut().filter_map(|(key, entry)| {
                let order = eviction_order(key, entry.idle.first()?.since);
                Some((order, entry))
            });
            let Some((_, entry)) = firsts.min_by_key(|(order, _)| *order) else { break };
            evicted.push(entry.idle.remove(0));
        }
        self.forget(evicted.len());
        evicted
    }

    fn evict_if(&mut self, goes: impl Fn(&Key, &Idle) -> bool) -> Vec<Idle> {
        let mut evicted = Vec::new();
        for (key, entry) in &mut self.by_key {
            evicted.extend(entry.idle.extract_if(.., |idle| goes(key, idle)));
        }
        self.forget(evicted.len());
        evicted
    }

    /// Workers have been taken out.
    fn forget(&mut self, workers: usize) {
        if workers > 0 {
            self.workers = self.workers.saturating_sub(workers);
            self.forget_empty();
        }
    }

    fn forget_empty(&mut self) {
        self.by_key.retain(|_, entry| entry.busy > 0 || !entry.idle.is_empty());
    }
}

impl Lease {
    /// Whether a worker may be started for it.
    ///
    /// # Errors
    /// [`BackendError::BackOff`].
    pub(crate) fn may_start(&self) -> Result<(), BackendError> {
        self.table.back_off.may_try(&self.key)
    }

    /// Notes what came of a worker, for the next one.
    pub(crate) fn note<T>(&self, result: &fault::Result<T>) {
        match result.as_ref().map_err(|fault| &fault.error) {
            Ok(_) => self.table.back_off.succeeded(&self.key),
            Err(
                error @ (BackendError::WorkerDied { .. }
                | BackendError::Deadline { .. }
                | BackendError::Engine(_)
                | BackendError::Violation(_)),
            ) => self.table.back_off.failed(self.key, error),
            // None of the worker's doing.
            Err(BackendError::Spawn(_) | BackendError::Exhausted { .. } | BackendError::BackOff { .. }) => {}
        }
    }

    /// Where a run failed because an arena was full: the message runs again, and old page versions that the mirrors of
    /// the canister's idle workers keep are not to be in its way then.
    pub(crate) fn make_room(&self, error: &BackendError) {
        if matches!(error, BackendError::Exhausted { limit: "arena_bytes" | "memory_bytes", .. }) {
            let evicted = lock(&self.table.entries).evict_if(|key, _| key.0 == self.key.0);
            self.table.end(Reason::Arena, evicted);
        }
    }

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

impl Reason {
    /// What idle workers can give back that the kernel refused.
    fn of(short: &BackendError) -> Option<Self> {
        let BackendError::Exhausted { limit, .. } = short else { return None };
        match *limit {
            limit::OPEN_FILES | limit::SYSTEM_FILES => Some(Self::Descriptors),
            limit::MEMORY => Some(Self::Memory),
            PROCESSES | NAMESPACES => Some(Self::Processes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use execution::Principal;

    use super::*;

    #[test]
    fn query_workers_go_first_and_then_whoever_was_idle_for_longest() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let key = |role| (Principal::anonymous(), role);
        let mut idle = [(Role::Update, 0), (Role::Query, 2), (Role::Update, 3), (Role::Query, 1)];
        idle.sort_by_key(|(role, second)| eviction_order(&key(*role), at(*second)));
        assert_eq!(idle, [(Role::Query, 1), (Role::Query, 2), (Role::Update, 0), (Role::Update, 3)]);
    }
}
