//! How often executions ended how.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rollout::{Mode, Observed};

/// Error codes of traps that are counted one by one; any others together.
const CODES_MAX: usize = 64;

/// Counts committed executions by mode, kind and ending, and traps by error code.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<Counts>);

/// The counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By mode, `EntryPoint::kind` and word of the outcome.
    pub executions: BTreeMap<(Mode, &'static str, &'static str), u64>,
    /// By mode and error code; `None`: codes beyond the first 64 different ones.
    pub traps: BTreeMap<(Mode, Option<u16>), u64>,
}

impl Outcomes {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, observed: &Observed) {
        let mut counts = self.lock();
        let ending = (observed.mode, observed.kind, observed.outcome.as_str());
        *counts.executions.entry(ending).or_default() += 1;
        if let Some(code) = observed.code {
            let known = counts.traps.contains_key(&(observed.mode, Some(code)));
            let code = (known || counts.traps.len() < CODES_MAX).then_some(code);
            *counts.traps.entry((observed.mode, code)).or_default() += 1;
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Counts from zero again.
    pub(crate) fn clear(&self) {
        *self.lock() = Counts::default();
    }
}
