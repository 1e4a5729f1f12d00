//! Latency ratio at a quantile.

use std::fmt;
use std::time::Duration;

use super::bootstrap::{LogRatio, log_ratio};
use super::verdict::{
    BLOCKS_MIN, CONFIDENCE, Estimate, Judgement, Limit, Looks, TAIL_EVENTS, Verdict, VerdictReason, decide,
    t_exceeded,
};
use crate::experiment::{Blocks, Design};

/// A quantile in parts per million: whole, so that p99.9 is exactly that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantile(u32);

const MILLION: u32 = 1_000_000;

impl Quantile {
    /// From 1 to 999,999 parts per million; `None` outside.
    #[must_use]
    pub fn from_ppm(ppm: u32) -> Option<Self> {
        (1..MILLION).contains(&ppm).then_some(Self(ppm))
    }

    /// What `text` names: `p50`, `p99`, `p99.9`, with at most four decimals.
    #[must_use]
    pub fn from_word(text: &str) -> Option<Self> {
        let number = text.strip_prefix('p')?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole, 2) || !digits(decimals, 4) {
            return None;
        }
        let decimals: u32 = format!("{decimals:0<4}").parse().ok()?;
        Self::from_ppm(whole.parse::<u32>().ok()? * 10_000 + decimals)
    }

    /// In parts per million.
    #[must_use]
    pub fn ppm(self) -> u32 {
        self.0
    }

    /// As HdrHistogram takes it.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }

    /// Fewest messages with [`TAIL_EVENTS`] beyond the quantile.
    fn messages_min(self) -> u64 {
        (TAIL_EVENTS * u64::from(MILLION)).div_ceil(u64::from(MILLION - self.0))
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / 10_000, self.0 % 10_000);
        let text = format!("p{whole}.{decimals:04}");
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The candidate's quantile is at most so many times the control's.
///
/// The ratio's standard error is that of the paired block bootstrap, its bounds are those of Student's t with
/// one degree of freedom less than there are blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyRatio {
    /// Which latency.
    pub quantile: Quantile,
    /// How much slower is accepted.
    pub limit: Limit,
}

impl LatencyRatio {
    /// Judges all of `blocks`. The same seed gives the same judgement.
    #[must_use]
    pub fn judge(&self, blocks: &Blocks, looks: Looks, seed: u64) -> Judgement {
        let samples = [
            blocks.pairs.iter().map(|block| block.control.measurements()).sum(),
            blocks.pairs.iter().map(|block| block.candidate.measurements()).sum(),
        ];
        let says = |verdict, reason, estimate| Judgement {
            verdict,
            reason,
            estimate,
            samples,
            blocks: blocks.pairs.len(),
        };
        if let Some(shortage) = self.shortage(blocks, samples) {
            return says(Verdict::Inconclusive, shortage, None);
        }
        let ratio = log_ratio(blocks, self.quantile, seed);
        #[expect(clippy::cast_precision_loss, reason = "at most 1,440 blocks")]
        let freedom = (blocks.pairs.len() - 1) as f64;
        let bound = |chance| t_exceeded(freedom, chance) * ratio.standard_error;
        let (below, above) = (bound(looks.alpha()), bound(1.0 - CONFIDENCE));
        let estimate = Estimate {
            ratio: ratio.estimate.exp(),
            lower: (ratio.estimate - below).exp(),
            upper: (ratio.estimate + above).exp(),
        };
        let (verdict, reason) = match blocks.design {
            Design::Percent => (Verdict::Inconclusive, VerdictReason::Confounded),
            Design::Aa => {
                // One interval at each look, as wide as the confidence asks for and no wider: that equal arms look
                // unequal now and then costs a person's look, and believing unequal ones costs every later verdict.
                let either_way = bound((1.0 - CONFIDENCE) / 2.0);
                let limit = self.limit.as_f64().ln();
                if ratio.estimate.abs() > either_way {
                    (Verdict::Fail, VerdictReason::NotComparable)
                } else if either_way < limit {
                    (Verdict::Pass, VerdictReason::Comparable { detectable: either_way.exp_m1() })
                } else {
                    // The half-width shrinks with the square root of the number of blocks.
                    let more = (freedom + 1.0) * ((either_way / limit).powi(2) - 1.0);
                    let eta = blocks_more(blocks.length, more);
                    (Verdict::Inconclusive, VerdictReason::TooWide { detectable: either_way.exp_m1(), eta })
                }
            }
            Design::NodeSplit | Design::Switchback => match decide(self.limit, Some(estimate)) {
                Verdict::Fail => (Verdict::Fail, VerdictReason::AboveLimit),
                Verdict::Pass => (Verdict::Pass, VerdictReason::WithinLimit),
                Verdict::Inconclusive => {
                    let eta = self.eta(blocks, ratio, [below, above]);
                    (Verdict::Inconclusive, VerdictReason::Undecided { detectable: below.exp_m1(), eta })
                }
            },
        };
        says(verdict, reason, Some(estimate))
    }

    /// What is missing before anything can be said.
    fn shortage(&self, blocks: &Blocks, samples: [u64; 2]) -> Option<VerdictReason> {
        if samples.contains(&0) {
            return Some(VerdictReason::NoData);
        }
        let number = blocks.pairs.len();
        let missing = samples.map(|measured| self.quantile.messages_min().saturating_sub(measured));
        let short = BLOCKS_MIN.saturating_sub(number);
        if short == 0 && missing == [0, 0] {
            return None;
        }
        let blocks_for = |[missing, measured]: [u64; 2]| (missing * number as u64).div_ceil(measured);
        let more = (short as u64)
            .max(blocks_for([missing[0], samples[0]]))
            .max(blocks_for([missing[1], samples[1]]));
        Some(VerdictReason::TooFew { blocks: short, samples: missing, eta: times(blocks.length, more) })
    }

    /// The time until a bound clears the limit, if the ratio stays and its standard error shrinks with the
    /// square root of the number of blocks.
    fn eta(&self, blocks: &Blocks, ratio: LogRatio, [below, above]: [f64; 2]) -> Option<Duration> {
        let excess = ratio.estimate - self.limit.as_f64().ln();
        let width = if excess > 0.0 { below } else { above };
        #[expect(clippy::cast_precision_loss, reason = "at most 1,440 blocks")]
        let more = blocks.pairs.len() as f64 * ((width / excess).powi(2) - 1.0);
        blocks_more(blocks.length, more)
    }
}

/// How long so many more blocks take, one at least. Beyond a hundred times the most blocks there can be it is no
/// forecast.
fn blocks_more(length: Duration, more: f64) -> Option<Duration> {
    if more.is_nan() || more > 144_000.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 144,000")]
    let more = more.ceil().max(1.0) as u64;
    times(length, more)
}

fn times(length: Duration, blocks: u64) -> Option<Duration> {
    u32::try_from(blocks).ok().and_then(|blocks| length.checked_mul(blocks))
}
