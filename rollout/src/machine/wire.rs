//! The stored form of a rollout's state: JSON, version 2. Version 1 held a share instead of the step that is
//! cut over to.

use serde::{Deserialize, Serialize};

use super::{Active, Pause, Phase, Plan, PlanError, Rollback, Rollout, Step};
use crate::head::{self, HeadError};

/// Largest stored state, bytes.
pub const STATE_BYTES_MAX: usize = 1 << 20;

const FORMAT: &str = "bulkhead-rollout";
const VERSION: u64 = 2;

/// Why a stored state can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is larger than any state.
    #[error("it has {0} bytes; {STATE_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// It is no JSON object with the fields of a state.
    #[error("it is no rollout state: {0}")]
    Foreign(String),
    /// It has another version than this program reads.
    #[error("a rollout state of version {found}; this program reads version {expected}")]
    Version {
        /// Its version.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Its plan is none.
    #[error("its plan: {0}")]
    Plan(#[from] PlanError),
    /// Its parts contradict each other.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl From<HeadError> for StateError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Foreign(what) => Self::Foreign(what),
            HeadError::Version { found, expected } => Self::Version { found, expected },
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateV2 {
    format: String,
    version: u64,
    plan: PlanV2,
    phase: PhaseV2,
    entered_ms: u64,
    step: usize,
    run: u32,
    exposed_step: Option<usize>,
    baked_ms: u64,
    counted_until_ms: u64,
    fast: bool,
    frozen: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanV2 {
    steps: Vec<StepV2>,
    warmup_ms: u64,
    switch_deadline_ms: u64,
    retry_cooldown_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepV2 {
    name: String,
    digest: String,
    bake_ms: u64,
    max_bake_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum PhaseV2 {
    Active(ActiveV2),
    Paused { from: ActiveV2, why: PauseV2 },
    RollingBack(RollbackV2),
    RolledBack { why: RollbackV2, acknowledged: bool },
    Finished,
}

/// The words of an enum in stored states, both ways.
macro_rules! words {
    ($wire:ident for $domain:ident: $($word:ident)*) => {
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum $wire { $($word),* }

        impl From<$domain> for $wire {
            fn from(domain: $domain) -> Self {
                match domain { $($domain::$word => Self::$word),* }
            }
        }

        impl From<$wire> for $domain {
            fn from(wire: $wire) -> Self {
                match wire { $($wire::$word => Self::$word),* }
            }
        }
    };
}

words!(ActiveV2 for Active: Draft Planned Waiting Switching Warmup Baking Completed Superseded);
words!(PauseV2 for Pause: User Guard Inconclusive);
words!(RollbackV2 for Rollback: Aborted Killed Guard Deadline);

pub(super) fn write(rollout: &Rollout) -> String {
    let steps = rollout.plan.steps().iter().map(|step| StepV2 {
        name: step.name.clone(),
        digest: hex::encode(step.digest),
        bake_ms: step.bake_ms,
        max_bake_ms: step.max_bake_ms,
    });
    let state = StateV2 {
        format: FORMAT.to_owned(),
        version: VERSION,
        plan: PlanV2 {
            steps: steps.collect(),
            warmup_ms: rollout.plan.warmup_ms(),
            switch_deadline_ms: rollout.plan.switch_deadline_ms(),
            retry_cooldown_ms: rollout.plan.retry_cooldown_ms(),
        },
        phase: match rollout.phase {
            Phase::Active(active) => PhaseV2::Active(active.into()),
            Phase::Paused { from, why } => PhaseV2::Paused { from: from.into(), why: why.into() },
            Phase::RollingBack(why) => PhaseV2::RollingBack(why.into()),
            Phase::RolledBack { why, acknowledged } => PhaseV2::RolledBack { why: why.into(), acknowledged },
            Phase::Finished => PhaseV2::Finished,
        },
        entered_ms: rollout.entered_ms,
        step: rollout.step,
        run: rollout.run,
        exposed_step: rollout.exposed_step,
        baked_ms: rollout.baked_ms,
        counted_until_ms: rollout.counted_until_ms,
        fast: rollout.fast,
        frozen: rollout.frozen,
    };
    serde_json::to_string_pretty(&state).expect("strings and numbers") + "\n"
}

pub(super) fn read(bytes: &[u8]) -> Result<Rollout, StateError> {
    if bytes.len() > STATE_BYTES_MAX {
        return Err(StateError::TooLarge(bytes.len()));
    }
    let foreign = |error: serde_json::Error| StateError::Foreign(error.to_string());
    head::check(bytes, FORMAT, VERSION)?;
    let state: StateV2 = serde_json::from_slice(bytes).map_err(foreign)?;
    let rollout = Rollout {
        plan: state.plan.check()?,
        phase: match state.phase {
            PhaseV2::Active(active) => Phase::Active(active.into()),
            PhaseV2::Paused { from, why } => Phase::Paused { from: from.into(), why: why.into() },
            PhaseV2::RollingBack(why) => Phase::RollingBack(why.into()),
            PhaseV2::RolledBack { why, acknowledged } => Phase::RolledBack { why: why.into(), acknowledged },
            PhaseV2::Finished => Phase::Finished,
        },
        entered_ms: state.entered_ms,
        step: state.step,
        run: state.run,
        exposed_step: state.exposed_step,
        baked_ms: state.baked_ms,
        counted_until_ms: state.counted_until_ms,
        fast: state.fast,
        frozen: state.frozen,
    };
    check(&rollout)?;
    Ok(rollout)
}

impl PlanV2 {
    fn check(self) -> Result<Plan, StateError> {
        let steps: Result<Vec<Step>, StateError> = self
            .steps
            .into_iter()
            .map(|step| {
                let mut digest = [0; 32];
                hex::decode_to_slice(&step.digest, &mut digest).map_err(|_| {
                    StateError::Foreign("a digest that isn't 64 hexadecimal digits".to_owned())
                })?;
                Ok(Step { name: step.name, digest, bake_ms: step.bake_ms, max_bake_ms: step.max_bake_ms })
            })
            .collect();
        Ok(Plan::new(steps?, self.warmup_ms, self.switch_deadline_ms, self.retry_cooldown_ms)?)
    }
}

/// What holds in every state that a rollout comes to.
fn check(rollout: &Rollout) -> Result<(), StateError> {
    let Rollout { step, exposed_step, .. } = *rollout;
    let last = rollout.plan.steps().len() - 1;
    if step > last {
        return Err(StateError::Contradiction("a step that its plan doesn't have"));
    }
    if rollout.run == 0 {
        return Err(StateError::Contradiction("a run before the first"));
    }
    let holds = match rollout.phase {
        Phase::Active(active) | Phase::Paused { from: active, .. } => match active {
            Active::Draft | Active::Planned => exposed_step.is_none(),
            // What is in force is that of an earlier step, or of this one if it bakes again.
            Active::Waiting | Active::Superseded => exposed_step.is_none_or(|exposed| exposed <= step),
            Active::Switching | Active::Warmup | Active::Baking => exposed_step == Some(step),
            Active::Completed => exposed_step == Some(step) && step == last,
        },
        Phase::RollingBack(_) | Phase::RolledBack { .. } => exposed_step.is_none(),
        Phase::Finished => exposed_step == Some(step) && step == last,
    };
    if holds { Ok(()) } else { Err(StateError::Contradiction("an exposed step that its phase doesn't have")) }
}
