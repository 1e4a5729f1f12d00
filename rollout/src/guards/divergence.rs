//! Divergence: both modes have to give the same result. One confirmed difference fails.

use super::verdict::{Judgement, Verdict, VerdictReason};

/// Confirmed differences among comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergences {
    /// Executions that were compared.
    pub compared: u64,
    /// Those that differed, and not for the control's own sake.
    pub confirmed: u64,
    /// Fewest comparisons that pass.
    pub compared_min: u64,
}

impl Divergences {
    /// Fails at the first one, however few comparisons there are; passes after enough without one. None in n
    /// gives an upper bound of 3/n for their rate, with 95 % confidence.
    #[must_use]
    pub fn judge(&self) -> Judgement {
        let missing = self.compared_min.saturating_sub(self.compared);
        let (verdict, reason) = match (self.confirmed, self.compared) {
            (1.., _) => (Verdict::Fail, VerdictReason::Events { found: self.confirmed, max: 0 }),
            (0, 0) => (Verdict::Inconclusive, VerdictReason::NoData),
            (0, _) if missing > 0 => {
                let few = VerdictReason::TooFew { blocks: 0, samples: [missing; 2], eta: None };
                (Verdict::Inconclusive, few)
            }
            #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
            (0, compared) => (Verdict::Pass, VerdictReason::NoEvents { rate_below: 3.0 / compared as f64 }),
        };
        Judgement { verdict, reason, estimate: None, samples: [self.compared; 2], blocks: 0 }
    }
}
