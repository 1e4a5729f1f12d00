//! Histograms by key, sharded by thread: threads that record don't wait for each other.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::recorder::{HIGHEST_NS, histogram};

/// Threads beyond this share shards.
const SHARDS: usize = 64;

/// Histograms of nanoseconds by what was measured.
pub(super) type ByKey<K> = BTreeMap<K, Histogram<u64>>;

pub(super) struct Shards<K, const N: usize = SHARDS>([Mutex<ByKey<K>>; N]);

impl<K: Copy + Ord, const N: usize> Shards<K, N> {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(ByKey::new())))
    }

    /// Records nanoseconds; more than the highest of a histogram count as that.
    pub(super) fn record(&self, measured: impl IntoIterator<Item = (K, u64)>) {
        let mut shard = lock(&self.0[thread_number() % N]);
        for (key, nanoseconds) in measured {
            shard.entry(key).or_insert_with(histogram).saturating_record(nanoseconds.min(HIGHEST_NS));
        }
    }

    /// Records nanoseconds if they still count, which is asked while nobody can take what was recorded.
    pub(super) fn record_if(&self, counts: impl FnOnce() -> bool, key: K, nanoseconds: u64) {
        let mut shard = lock(&self.0[thread_number() % N]);
        if counts() {
            shard.entry(key).or_insert_with(histogram).saturating_record(nanoseconds.min(HIGHEST_NS));
        }
    }

    /// Adds everything to `to`.
    pub(super) fn add_to(&self, to: &mut ByKey<K>) {
        self.0.iter().for_each(|shard| add(to, &lock(shard)));
    }

    /// Adds everything to `to`, and forgets it.
    pub(super) fn move_to(&self, to: &mut ByKey<K>) {
        self.0.iter().for_each(|shard| add(to, &std::mem::take(&mut *lock(shard))));
    }

    pub(super) fn clear(&self) {
        self.0.iter().for_each(|shard| lock(shard).clear());
    }
}

/// Adds what `from` counted; exact.
pub(super) fn add<K: Copy + Ord>(to: &mut ByKey<K>, from: &ByKey<K>) {
    for (&key, found) in from {
        to.entry(key).or_insert_with(histogram).add(found).expect("equal bounds");
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A histogram is consistent whatever statement its holder stopped at.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This thread's number among those that have asked: its own while there are at most `SHARDS` threads.
pub(crate) fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SHARD.with(|mine| {
        mine.get().unwrap_or_else(|| {
            let shard = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
            mine.set(Some(shard));
            shard
        })
    })
}
