//! What of the executions in shadow is run twice, and at what price: `[shadow]`.

use std::time::Duration;

use super::bucket::PPM;
use super::document::Document;

/// `[shadow]`. In force at once when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowRule {
    /// Of a million executions so many are run again, 1 to 1,000,000.
    pub sample_ppm: u32,
    /// What candidates may take of the machine's processor time, in millionths of all its processors: 1,000 to 1,000,000.
    pub cpu_share_ppm: u32,
    /// A candidate is given so many times as long as the control took, in millionths: 1 to 1,000 times.
    pub deadline_factor_ppm: u32,
    /// It is given so long at least, 10 ms to an hour: a quick message may meet a worker that has to be started first.
    pub deadline_min: Duration,
    /// Different differences kept, 1 to 100,000; beyond that they are only counted.
    pub records_max: usize,
}

impl ShadowRule {
    /// Everything that runs in shadow is compared, whatever it costs; for nodes without a policy file.
    pub const EVERYTHING: Self = Self {
        sample_ppm: PPM,
        cpu_share_ppm: PPM,
        deadline_factor_ppm: 5 * PPM,
        deadline_min: Duration::from_secs(60),
        records_max: 1_000,
    };

    /// A tenth of the machine where the file doesn't say it, so that looking costs those who don't look little.
    const SILENT: Self =
        Self { cpu_share_ppm: PPM / 10, deadline_min: Duration::from_secs(2), ..Self::EVERYTHING };

    pub(super) fn read(document: &Document) -> Self {
        let silent = Self::SILENT;
        let number = |key: &str| document.number("shadow", key);
        let ppm =
            |key: &str, silent: u32| number(key).and_then(|ppm| u32::try_from(ppm).ok()).unwrap_or(silent);
        Self {
            sample_ppm: ppm("sample_ppm", silent.sample_ppm),
            cpu_share_ppm: ppm("max_cpu_share", silent.cpu_share_ppm),
            deadline_factor_ppm: ppm("deadline_factor", silent.deadline_factor_ppm),
            deadline_min: document.duration("shadow", "deadline_min", silent.deadline_min),
            records_max: number("records_max").map_or(silent.records_max, |number| number as usize),
        }
    }

    /// How long a candidate may take whose control took `control`.
    #[must_use]
    pub fn deadline(&self, control: Duration) -> Duration {
        control
            .saturating_mul(self.deadline_factor_ppm)
            .checked_div(PPM)
            .unwrap_or(Duration::MAX)
            .max(self.deadline_min)
    }
}
