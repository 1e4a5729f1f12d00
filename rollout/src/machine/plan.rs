//! What a rollout is to do.

/// Most steps of a plan.
pub const STEPS_MAX: usize = 100;
/// Longest name of a step, bytes.
const NAME_BYTES_MAX: usize = 128;
/// Longest time that a plan asks for, milliseconds: 400 days. Sums with it stay far from overflow.
const TIME_MS_MAX: u64 = 400 * 86_400_000;

/// A step: for how long the candidate is exposed as its text says, before the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As in the policy file.
    pub name: String,
    /// SHA-256 of its text there: what was passed stays passed while this is the same.
    pub digest: [u8; 32],
    /// Shortest exposure before it passes, milliseconds.
    pub bake_ms: u64,
    /// Exposure after which an open guard pauses, milliseconds.
    pub max_bake_ms: u64,
}

/// The steps and what holds for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
    warmup_ms: u64,
    switch_deadline_ms: u64,
    retry_cooldown_ms: u64,
}

/// Why a plan is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No step, or too many.
    #[error("a plan has 1 to {STEPS_MAX} steps; this one has {0}")]
    Steps(usize),
    /// A name that can't be shown.
    #[error("step {0}: a name has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name(usize),
    /// A bake that can't end.
    #[error("step {0}: bake is longer than max_bake")]
    Bake(usize),
    /// A time beyond 400 days.
    #[error("a time of more than 400 days")]
    Time,
}

impl Plan {
    /// A plan with these steps. `warmup_ms` after a switch don't count; a switch that takes longer than
    /// `switch_deadline_ms` is rolled back; after a rollback nothing is tried for `retry_cooldown_ms`.
    ///
    /// # Errors
    /// The steps, one of them or a time is out of bounds.
    pub fn new(
        steps: Vec<Step>,
        warmup_ms: u64,
        switch_deadline_ms: u64,
        retry_cooldown_ms: u64,
    ) -> Result<Self, PlanError> {
        if steps.is_empty() || steps.len() > STEPS_MAX {
            return Err(PlanError::Steps(steps.len()));
        }
        for (at, step) in steps.iter().enumerate() {
            let name = &step.name;
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
                return Err(PlanError::Name(at));
            }
            if step.bake_ms > step.max_bake_ms {
                return Err(PlanError::Bake(at));
            }
        }
        let times = steps.iter().map(|step| step.max_bake_ms);
        if times.chain([warmup_ms, switch_deadline_ms, retry_cooldown_ms]).any(|time| time > TIME_MS_MAX) {
            return Err(PlanError::Time);
        }
        Ok(Self { steps, warmup_ms, switch_deadline_ms, retry_cooldown_ms })
    }

    /// The steps, at least one.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What doesn't count after a switch or a restart, milliseconds.
    #[must_use]
    pub fn warmup_ms(&self) -> u64 {
        self.warmup_ms
    }

    /// Longest time of a switch, milliseconds.
    #[must_use]
    pub fn switch_deadline_ms(&self) -> u64 {
        self.switch_deadline_ms
    }

    /// From a rollback to the next attempt, milliseconds.
    #[must_use]
    pub fn retry_cooldown_ms(&self) -> u64 {
        self.retry_cooldown_ms
    }

    /// How many steps from the first on are the same text in `other`.
    pub(super) fn steps_kept(&self, other: &Self) -> usize {
        let pairs = self.steps.iter().zip(&other.steps);
        pairs.take_while(|(ours, theirs)| ours.digest == theirs.digest).count()
    }
}
