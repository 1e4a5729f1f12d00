//! A policy from one moment on, with every decision made beforehand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use execution::Principal;
use jiff::Timestamp;

use super::Checksum;
use crate::{Bounds, Conditions, Mode, Policy, Resolution, Scope};

/// Where a node stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) subnet: String,
    pub(super) node: String,
}

impl Place {
    pub(super) fn scope(&self, canister: Option<Principal>) -> Scope<'_> {
        Scope { subnet: &self.subnet, node: &self.node, canister }
    }
}

/// The policy in force from one moment on: until its file changes, a rule in it expires, or the kill switch is engaged
/// or released.
#[derive(Debug)]
pub struct InForce {
    /// The whole policy.
    pub policy: Arc<Policy>,
    /// What it says for this node, canisters with rules of their own aside.
    pub resolution: Resolution,
    /// Canisters that run in another mode than the node's.
    canisters: HashMap<Principal, Mode>,
    /// Whether one of them is sandboxed.
    sandboxes_some: bool,
    /// Whether the kill switch is engaged.
    pub killed: bool,
    /// Keys of [`Bounds`] that say something else than when the node started, `table.key` each. What they say now is in
    /// force after another start.
    pub restart_for: Vec<String>,
    /// One more with every change of the file's content that was accepted; from 1, or from what is kept of earlier
    /// starts.
    pub generation: u64,
    /// Of the file's bytes.
    pub checksum: Checksum,
    /// From 1; one more with each of this type that comes into force in this process.
    pub swap: u64,
    /// When it was swapped in, on the monotonic clock.
    pub since: Instant,
    /// When it was swapped in, on the wall clock.
    pub since_time: SystemTime,
    /// When a canister, or all of them, were last taken out of the sandbox.
    pub(super) rolled_back: Option<Instant>,
    /// The latest moment before now, and the first after it, at which what the policy says changes by itself.
    holds: (Option<Timestamp>, Option<Timestamp>),
}

/// A policy as it was accepted.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) policy: Arc<Policy>,
    pub(super) generation: u64,
    pub(super) checksum: Checksum,
}

impl InForce {
    /// `started`: the bounds that the node started with.
    pub(super) fn new(
        accepted: Accepted,
        place: &Place,
        conditions: Conditions,
        started: &Bounds,
        swap: u64,
    ) -> Self {
        let Accepted { policy, generation, checksum } = accepted;
        let mut resolution = policy.resolve(&place.scope(None), conditions);
        resolution.generation = generation;
        let decided = |&id: &Principal| (id, policy.decide(&place.scope(Some(id)), conditions).mode);
        let canisters: HashMap<_, _> =
            policy.canisters().map(decided).filter(|(_, mode)| *mode != resolution.mode).collect();
        Self {
            sandboxes_some: canisters.values().any(|&mode| mode == Mode::Sandboxed),
            canisters,
            killed: conditions.killed,
            restart_for: started.changed(policy.bounds()),
            generation,
            checksum,
            swap,
            since: Instant::now(),
            since_time: SystemTime::now(),
            rolled_back: None,
            holds: (
                policy.turns().filter(|&turn| turn <= conditions.at).max(),
                policy.turns().filter(|&turn| turn > conditions.at).min(),
            ),
            resolution,
            policy,
        }
    }

    /// The mode of this node, canisters with rules of their own aside.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.resolution.mode
    }

    /// The mode of a canister. One look into a small map; allocates nothing.
    #[must_use]
    pub fn mode_of(&self, canister: &Principal) -> Mode {
        // Most policies have no such rule: then nothing is hashed.
        if self.canisters.is_empty() {
            return self.resolution.mode;
        }
        self.canisters.get(canister).copied().unwrap_or(self.resolution.mode)
    }

    /// Whether any canister runs sandboxed.
    #[must_use]
    pub fn may_sandbox(&self) -> bool {
        self.resolution.mode == Mode::Sandboxed || self.sandboxes_some
    }

    /// Whether some canister that runs sandboxed under this one doesn't under `next`.
    pub(super) fn leaves_sandbox(&self, next: &Self) -> bool {
        let left = |before: Mode, after: Mode| before == Mode::Sandboxed && after != Mode::Sandboxed;
        let of_their_own = self.canisters.keys().chain(next.canisters.keys());
        left(self.mode(), next.mode())
            || of_their_own.into_iter().any(|id| left(self.mode_of(id), next.mode_of(id)))
    }

    /// Whether a policy read at `now` would say the same. The clock may have gone either way.
    pub(super) fn holds_at(&self, now: Timestamp) -> bool {
        let (from, until) = self.holds;
        from.is_none_or(|from| from <= now) && until.is_none_or(|until| now < until)
    }

    pub(super) fn accepted(&self) -> Accepted {
        Accepted { policy: Arc::clone(&self.policy), generation: self.generation, checksum: self.checksum }
    }
}
