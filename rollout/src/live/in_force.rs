//! A policy from one moment on, with every decision made beforehand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use execution::Principal;
use jiff::Timestamp;

use super::Checksum;
use super::under_way::{Counts, UnderWay};
use crate::measure::SwitchRecorder;
use crate::policy::{Buckets, PPM};
use crate::{Bounds, Conditions, Decision, Exposures, Mode, Policy, Resolution, Scope, SwitchDirection};

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
    /// Canisters with rules of their own that are placed otherwise than those without.
    canisters: HashMap<Principal, Placed>,
    /// All others.
    others: Others,
    /// Whether any canister runs sandboxed.
    sandboxes: bool,
    /// How far rollouts are exposed.
    pub exposures: Arc<Exposures>,
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
    /// Where it leads from what was in force before.
    directions: Vec<SwitchDirection>,
    /// What is under way under it.
    under_way: Counts,
    /// Told when nothing holds it any more.
    switches: Option<Arc<SwitchRecorder>>,
    /// When a canister, or all of them, were last taken out of the sandbox.
    pub(super) rolled_back: Option<Instant>,
    /// The latest moment before now, and the first after it, at which what the policy says changes by itself.
    holds: (Option<Timestamp>, Option<Timestamp>),
}

/// Where a canister runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) mode: Mode,
    /// Whether guards look at it.
    pub(crate) on_trial: bool,
}

impl From<Decision> for Placed {
    fn from(decision: Decision) -> Self {
        Self { mode: decision.mode, on_trial: decision.on_trial }
    }
}

/// Canisters without rules of their own.
#[derive(Debug)]
enum Others {
    /// All the same.
    Alike(Placed),
    /// By bucket: the bucket at which each range ends.
    Divided(Buckets, [(u32, Placed); 3]),
}

impl Others {
    fn placed(&self, canister: &Principal) -> Placed {
        match self {
            Self::Alike(placed) => *placed,
            Self::Divided(buckets, _) => self.at(buckets.of(canister)),
        }
    }

    fn at(&self, bucket: u32) -> Placed {
        match self {
            Self::Alike(placed) => *placed,
            Self::Divided(_, ranges) => ranges.iter().find(|(end, _)| bucket < *end).unwrap_or(&ranges[2]).1,
        }
    }

    /// The first bucket of each range that has one.
    fn starts(&self) -> Vec<u32> {
        let ends: &[(u32, Placed)] = match self {
            Self::Alike(_) => &[],
            Self::Divided(_, ranges) => ranges,
        };
        let mut starts: Vec<u32> = ends.iter().map(|(end, _)| *end).filter(|end| *end < PPM).collect();
        starts.push(0);
        starts
    }

    fn any(&self, is: impl Fn(&Placed) -> bool) -> bool {
        self.starts().into_iter().any(|bucket| is(&self.at(bucket)))
    }

    /// Whether some canister that is sandboxed here isn't in `next`.
    fn leave_sandbox(&self, next: &Self) -> bool {
        let sandboxed = |placed: &Placed| placed.mode == Mode::Sandboxed;
        if let (Self::Divided(ours, _), Self::Divided(theirs, _)) = (self, next)
            && ours != theirs
        {
            // Other canisters in the same buckets.
            return self.any(sandboxed) && next.any(|placed| !sandboxed(placed));
        }
        let starts = self.starts().into_iter().chain(next.starts());
        starts.into_iter().any(|bucket| sandboxed(&self.at(bucket)) && !sandboxed(&next.at(bucket)))
    }
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
        (at, killed): (Timestamp, bool),
        exposures: Arc<Exposures>,
        started: &Bounds,
        swap: u64,
    ) -> Self {
        let Accepted { policy, generation, checksum } = accepted;
        let conditions = Conditions { at, killed, exposures: &exposures };
        let mut resolution = policy.resolve(&place.scope(None), conditions);
        resolution.generation = generation;
        let others = match policy.by_bucket(&place.scope(None), conditions) {
            Some((buckets, ranges)) => {
                Others::Divided(buckets, ranges.map(|(end, decision)| (end, decision.into())))
            }
            None => Others::Alike(Placed { mode: resolution.mode, on_trial: false }),
        };
        let decided = |&id: &Principal| (id, policy.decide(&place.scope(Some(id)), conditions).into());
        let canisters: HashMap<_, Placed> =
            policy.canisters().map(decided).filter(|(id, placed)| *placed != others.placed(id)).collect();
        let sandboxed = |placed: &Placed| placed.mode == Mode::Sandboxed;
        Self {
            sandboxes: others.any(sandboxed) || canisters.values().any(sandboxed),
            canisters,
            others,
            exposures: Arc::clone(&exposures),
            killed,
            restart_for: started.changed(policy.bounds()),
            generation,
            checksum,
            swap,
            since: Instant::now(),
            since_time: SystemTime::now(),
            directions: Vec::new(),
            under_way: Counts::default(),
            switches: None,
            rolled_back: None,
            holds: (
                policy.turns().filter(|&turn| turn <= at).max(),
                policy.turns().filter(|&turn| turn > at).min(),
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

    /// The mode of a canister. A look into a small map, and a hash where a rollout divides canisters; allocates nothing.
    #[must_use]
    pub fn mode_of(&self, canister: &Principal) -> Mode {
        self.placed(canister).mode
    }

    pub(crate) fn placed(&self, canister: &Principal) -> Placed {
        // Most policies have no such rule: then nothing is hashed.
        if self.canisters.is_empty() {
            return self.others.placed(canister);
        }
        self.canisters.get(canister).copied().unwrap_or_else(|| self.others.placed(canister))
    }

    /// Whether the guards of a rollout look at a canister.
    #[must_use]
    pub fn is_on_trial(&self, canister: &Principal) -> bool {
        self.placed(canister).on_trial
    }

    /// Whether any canister runs sandboxed.
    #[must_use]
    pub fn may_sandbox(&self) -> bool {
        self.sandboxes
    }

    /// Whether some canister that runs sandboxed under this one doesn't under `next`.
    pub(super) fn leaves_sandbox(&self, next: &Self) -> bool {
        let left = |id| self.mode_of(id) == Mode::Sandboxed && next.mode_of(id) != Mode::Sandboxed;
        self.others.leave_sandbox(&next.others)
            || self.canisters.keys().chain(next.canisters.keys()).any(left)
    }

    /// Where the change to `next` leads.
    pub(super) fn directions_to(&self, next: &Self) -> Vec<SwitchDirection> {
        let leads = |direction: &SwitchDirection| match direction {
            SwitchDirection::ToSandbox => next.leaves_sandbox(self),
            SwitchDirection::FromSandbox => self.leaves_sandbox(next),
        };
        SwitchDirection::ALL.into_iter().filter(leads).collect()
    }

    /// Has its switch measured, which leads in these `directions`.
    pub(super) fn measured_by(&mut self, switches: &Arc<SwitchRecorder>, directions: Vec<SwitchDirection>) {
        switches.enter(self.swap);
        self.switches = Some(Arc::clone(switches));
        self.directions = directions;
    }

    /// Where it leads from what was in force before.
    pub(super) fn directions(&self) -> &[SwitchDirection] {
        &self.directions
    }

    /// The first execution under it has finished.
    pub(crate) fn first_execution(&self, finished: Instant) {
        if let Some(switches) = &self.switches {
            switches.first_execution(&self.directions, finished.saturating_duration_since(self.since));
        }
    }

    /// Something begins that runs in `mode`.
    pub(crate) fn enter(&self, mode: Mode) {
        self.under_way.enter(mode);
    }

    /// It has ended.
    pub(crate) fn leave(&self, mode: Mode) {
        self.under_way.leave(mode);
    }

    /// What is under way under it.
    #[must_use]
    pub fn under_way(&self) -> UnderWay {
        UnderWay::of(&self.under_way)
    }

    /// What its decisions depend on, at another time.
    #[must_use]
    pub fn conditions(&self, at: Timestamp) -> Conditions<'_> {
        Conditions { at, killed: self.killed, exposures: &self.exposures }
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

impl Drop for InForce {
    fn drop(&mut self) {
        if let Some(switches) = &self.switches {
            switches.gone(self.swap);
        }
    }
}
