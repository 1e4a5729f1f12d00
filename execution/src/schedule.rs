//! Which canisters have something to do: derived from the state, so that a round costs what is active.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::{CanisterState, Status, SubnetState};
use crate::{Nanoseconds, Principal};

/// Indices over the canisters. Not replicated: [`Schedule::of`] makes it again from any state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Something waits.
    pub(crate) active: BTreeSet<Principal>,
    /// Running and exporting a heartbeat.
    pub(crate) heartbeats: BTreeSet<Principal>,
    /// Running with a timer set, by due time.
    pub(crate) timers: BTreeSet<(Nanoseconds, Principal)>,
    /// With a message in hand.
    pub(crate) paused: BTreeSet<Principal>,
    /// Stopping.
    pub(crate) stopping: BTreeSet<Principal>,
    /// Best-effort calls that are out, by deadline.
    pub(crate) deadlines: BTreeSet<(Nanoseconds, Principal, u64)>,
    timer_of: BTreeMap<Principal, Nanoseconds>,
}

impl Schedule {
    /// The schedule of a state.
    #[must_use]
    pub(crate) fn of(state: &SubnetState) -> Self {
        let mut schedule = Self::default();
        for canister in state.canisters.values() {
            schedule.update(canister);
            for (&callback, call) in &canister.calls.callbacks {
                if call.deadline != 0 {
                    schedule.deadlines.insert((call.deadline, canister.id, callback));
                }
            }
        }
        schedule
    }

    /// Notes what a canister has to do now.
    pub(crate) fn update(&mut self, canister: &CanisterState) {
        let id = canister.id;
        let running = canister.status == Status::Running;
        let exports = canister.module().map(|module| module.interface.exports).unwrap_or_default();
        set(&mut self.active, id, canister.has_work());
        set(&mut self.paused, id, canister.paused.is_some());
        set(&mut self.heartbeats, id, running && exports.heartbeat);
        set(&mut self.stopping, id, matches!(canister.status, Status::Stopping(_)));
        let timer = if running && exports.global_timer { canister.global_timer } else { 0 };
        let before = if timer == 0 { self.timer_of.remove(&id) } else { self.timer_of.insert(id, timer) };
        if before != Some(timer) {
            self.timers.remove(&(before.unwrap_or(0), id));
            if timer != 0 {
                self.timers.insert((timer, id));
            }
        }
    }

    /// Forgets a canister that is gone.
    pub(crate) fn forget(&mut self, id: &Principal) {
        self.active.remove(id);
        self.paused.remove(id);
        self.heartbeats.remove(id);
        self.stopping.remove(id);
        if let Some(timer) = self.timer_of.remove(id) {
            self.timers.remove(&(timer, *id));
        }
    }

    /// Canisters that get a task at `now`: none that has a message in hand.
    pub(crate) fn due(&self, now: Nanoseconds) -> BTreeSet<Principal> {
        let timers = self.timers.iter().take_while(|(time, _)| *time <= now).map(|(_, id)| *id);
        timers.chain(self.heartbeats.iter().copied()).filter(|id| !self.paused.contains(id)).collect()
    }
}

fn set(members: &mut BTreeSet<Principal>, id: Principal, is_member: bool) {
    if is_member {
        members.insert(id);
    } else {
        members.remove(&id);
    }
}
