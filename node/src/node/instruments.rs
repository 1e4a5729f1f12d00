//! What a node measures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use execution::{BackendError, Limits, Principal};
use rollout::{
    DivergenceRecord, Exposures, LivePolicy, MessageRecorder, PhaseRecorder, Recorder, Selector,
    ShadowCounts, Trial,
};
use sandbox_host::{SandboxStatus, Sandboxed};

use super::Observations;
use crate::outcomes::Outcomes;

/// What a node measures, for other threads than the one that runs its rounds.
#[derive(Clone)]
pub struct Instruments {
    pub(super) selector: Arc<Selector>,
    pub(super) sandbox: Option<Arc<Sandboxed>>,
    pub(super) phases: Arc<PhaseRecorder>,
    pub(super) observations: Arc<Observations>,
    pub(super) limits: Arc<Limits>,
}

impl Instruments {
    /// The policy that the node follows.
    #[must_use]
    pub fn live(&self) -> &LivePolicy {
        self.selector.live()
    }

    /// The latencies of all executions so far.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        self.selector.recorder()
    }

    /// What shadow has compared so far.
    #[must_use]
    pub fn shadow_counts(&self) -> ShadowCounts {
        self.selector.shadow_counts()
    }

    /// The differences that shadow has found, one record per canister, kind, method, field and class.
    #[must_use]
    pub fn divergences(&self) -> Vec<DivergenceRecord> {
        self.selector.divergences()
    }

    /// The sandbox's workers, counts and layers; `None` without a sandbox.
    #[must_use]
    pub fn sandbox(&self) -> Option<SandboxStatus> {
        self.sandbox.as_ref().map(|sandbox| sandbox.status())
    }

    /// What the guards of rollouts look at.
    #[must_use]
    pub fn trial(&self) -> &Trial {
        self.selector.trial()
    }

    /// When a worker of each canister was last found dead.
    #[must_use]
    pub fn crashes(&self) -> BTreeMap<Principal, Instant> {
        self.sandbox.as_ref().map(|sandbox| sandbox.crashes()).unwrap_or_default()
    }

    /// Whether a worker can be launched here now: tries it.
    ///
    /// # Errors
    /// Why not.
    pub fn probe_sandbox(&self) -> Result<(), BackendError> {
        match &self.sandbox {
            Some(sandbox) => sandbox.probe(),
            None => Err(BackendError::Spawn("this node has no sandbox".into())),
        }
    }

    /// See [`Selector::prewarm`].
    ///
    /// # Errors
    /// As there.
    pub fn prewarm(&self, exposures: &Exposures, go_on: impl Fn() -> bool) -> Result<usize, BackendError> {
        self.selector.prewarm(exposures, &self.limits, go_on)
    }

    /// Where the time of sandboxed executions went, those of shadow too.
    #[must_use]
    pub fn phases(&self) -> &PhaseRecorder {
        &self.phases
    }

    /// Where the time of messages goes, in every mode.
    #[must_use]
    pub fn messages(&self) -> &MessageRecorder {
        self.selector.messages()
    }

    /// How executions ended.
    #[must_use]
    pub fn outcomes(&self) -> &Outcomes {
        &self.observations.outcomes
    }

    /// Forgets latencies, phases and outcomes so far, e.g. those of what a restart ran again.
    pub fn clear(&self) {
        self.recorder().clear();
        self.phases.clear();
        self.messages().clear();
        self.outcomes().clear();
    }
}
