//! Whoever keeps failing waits for the next try. Nobody sleeps for it: who asks is told.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use execution::BackendError;

use crate::status::lock;

/// Longest text that is kept of a failure, in characters.
const WHY_CHARS_MAX: usize = 200;

/// How long whoever fails waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    /// Failures in a row before the first pause.
    pub(crate) free: u32,
    /// The first; doubled by each further failure.
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

/// Who is in back-off. Node-local, and in no result.
#[derive(Debug)]
pub(crate) struct BackOff<K> {
    pauses: Pauses,
    failing: Mutex<HashMap<K, Failing>>,
    /// How many there are, so that a success, which is what nearly always happens, asks for no lock.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Failing {
    /// In a row.
    failures: u32,
    since: Instant,
    pause: Duration,
    /// What the last one was.
    why: String,
}

impl<K: Copy + Eq + Hash> BackOff<K> {
    pub(crate) fn new(pauses: Pauses) -> Self {
        Self { pauses, failing: Mutex::default(), count: AtomicUsize::new(0) }
    }

    /// Whether `key` may try.
    ///
    /// # Errors
    /// [`BackendError::BackOff`].
    pub(crate) fn may_try(&self, key: &K) -> Result<(), BackendError> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let failing = lock(&self.failing);
        let Some(entry) = failing.get(key) else { return Ok(()) };
        let left = entry.pause.saturating_sub(entry.since.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        Err(BackendError::BackOff {
            failures: entry.failures,
            milliseconds: u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
            last: entry.why.clone(),
        })
    }

    /// All is well with `key`.
    pub(crate) fn succeeded(&self, key: &K) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut failing = lock(&self.failing);
            failing.remove(key);
            self.count.store(failing.len(), Ordering::Relaxed);
        }
    }

    /// A try of `key` failed, for what it is or did.
    pub(crate) fn failed(&self, key: K, error: &BackendError) {
        let Pauses { free, first, longest } = self.pauses;
        let mut failing = lock(&self.failing);
        // Whoever has been left alone for twice the longest pause begins anew, and is forgotten.
        failing.retain(|_, entry| entry.since.elapsed() < 2 * longest);
        let failures = failing.get(&key).map_or(0, |entry| entry.failures).saturating_add(1);
        let doublings = failures.saturating_sub(free);
        let pause = match 1_u32.checked_shl(doublings.saturating_sub(1)) {
            _ if doublings == 0 => Duration::ZERO,
            Some(times) => first.saturating_mul(times).min(longest),
            None => first.saturating_mul(u32::MAX).min(longest),
        };
        let why = error.to_string().chars().take(WHY_CHARS_MAX).collect();
        failing.insert(key, Failing { failures, since: Instant::now(), pause, why });
        self.count.store(failing.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use execution::Principal;

    use super::*;
    use crate::resident::Key;
    use crate::status::Role;

    const PAUSES: Pauses =
        Pauses { free: 3, first: Duration::from_millis(100), longest: Duration::from_secs(10) };

    fn keys() -> [Key; 2] {
        [Role::Update, Role::Query].map(|role| (Principal::anonymous(), role))
    }

    fn died() -> BackendError {
        BackendError::WorkerDied { how: "x".repeat(10_000) }
    }

    /// The pause after each of `failures` failures.
    fn pauses(failures: usize) -> Vec<u128> {
        let (back_off, [key, _]) = (BackOff::new(PAUSES), keys());
        let pause = |_| {
            back_off.failed(key, &died());
            lock(&back_off.failing)[&key].pause.as_millis()
        };
        (0..failures).map(pause).collect()
    }

    #[test]
    fn pauses_begin_after_a_rounds_tries_double_and_are_bounded() {
        let expected = [0, 0, 0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000];
        assert_eq!(pauses(12), expected);
        assert_eq!(pauses(50)[49], 10_000);
    }

    #[test]
    fn who_is_in_back_off_is_told_why_and_nobody_else_is() {
        let (back_off, [key, other]) = (BackOff::new(PAUSES), keys());
        for _ in 0..PAUSES.free {
            back_off.failed(key, &died());
            back_off.may_try(&key).unwrap();
        }
        back_off.failed(key, &died());
        let refused = back_off.may_try(&key).unwrap_err().to_string();
        assert!(refused.starts_with("4 tries in a row failed"), "{refused}");
        assert!(refused.len() < 2 * WHY_CHARS_MAX, "{refused}");
        back_off.may_try(&other).unwrap();
        back_off.succeeded(&other);
        assert!(back_off.may_try(&key).is_err());
        back_off.succeeded(&key);
        back_off.may_try(&key).unwrap();
        assert_eq!(back_off.count.load(Ordering::Relaxed), 0);
    }
}
