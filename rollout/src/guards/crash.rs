//! The crash fuse: it counts canisters, not crashes, so that one hostile canister can't end a rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use execution::Principal;

use super::verdict::{Judgement, Verdict, VerdictReason};

/// Most canisters that a fuse can be told to accept.
const CANISTERS_MAX: usize = 100_000;

/// Why there is no such fuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a crash fuse accepts at most {CANISTERS_MAX} canisters, in a window longer than nothing")]
pub struct CrashFuseError;

/// What a crash fuse has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed {
    /// Canisters whose workers crashed within the window; no more than one beyond `max` are counted.
    pub canisters: u64,
    /// So many are accepted.
    pub max: u64,
    /// Executions of the candidate.
    pub executed: u64,
}

impl Crashed {
    /// FAIL if there are more than are accepted.
    #[must_use]
    pub fn judge(&self) -> Judgement {
        let Self { canisters, max, executed } = *self;
        let (verdict, reason) = if canisters > max {
            (Verdict::Fail, VerdictReason::Events { found: canisters, max })
        } else if executed == 0 {
            (Verdict::Inconclusive, VerdictReason::NoData)
        } else {
            (Verdict::Pass, VerdictReason::WithinAllowance { allowance: max })
        };
        Judgement { verdict, reason, estimate: None, samples: [0, executed], blocks: 0 }
    }
}

/// Blows when workers of more than `max` canisters have crashed within a window. No statistics, no minimum.
///
/// Moments are counted from any fixed one, by a clock that doesn't go back.
#[derive(Clone, Debug)]
pub struct CrashFuse {
    max: usize,
    window: Duration,
    /// The latest crash of each canister: of those in the window, the latest `max` + 1.
    crashed: BTreeMap<Principal, Duration>,
    executed: u64,
}

impl CrashFuse {
    /// A fuse that has seen nothing.
    ///
    /// # Errors
    /// `max` is above 100,000, or the window is empty.
    pub fn new(max: usize, window: Duration) -> Result<Self, CrashFuseError> {
        if max > CANISTERS_MAX || window.is_zero() {
            return Err(CrashFuseError);
        }
        Ok(Self { max, window, crashed: BTreeMap::new(), executed: 0 })
    }

    /// Counts executions of the candidate: without any, the fuse says nothing.
    pub fn executed(&mut self, executions: u64) {
        self.executed = self.executed.saturating_add(executions);
    }

    /// A worker of `canister` crashed.
    pub fn crashed(&mut self, canister: Principal, now: Duration) {
        self.forget(now);
        let latest = self.crashed.entry(canister).or_insert(now);
        *latest = now.max(*latest);
        if self.crashed.len() > self.max + 1
            && let Some(oldest) =
                self.crashed.iter().min_by_key(|(_, at)| **at).map(|(&canister, _)| canister)
        {
            self.crashed.remove(&oldest);
        }
    }

    /// What it has seen within the window before `now`.
    #[must_use]
    pub fn seen(&mut self, now: Duration) -> Crashed {
        self.forget(now);
        Crashed { canisters: self.crashed.len() as u64, max: self.max as u64, executed: self.executed }
    }

    fn forget(&mut self, now: Duration) {
        self.crashed.retain(|_, at| now.saturating_sub(*at) < self.window);
    }
}
