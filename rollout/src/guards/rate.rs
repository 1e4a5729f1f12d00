//! Rate ratio: traps, rejects, errors. Exact, and right without a single event of the control.

use statrs::function::beta::beta_reg;

use super::verdict::{CONFIDENCE, Estimate, Judgement, Limit, Looks, Verdict, VerdictReason, decide};

/// Most events of one side; beyond, the incomplete beta function loses digits.
pub const EVENTS_MAX: u64 = 5_000;
/// Most messages of one side: exact as an `f64`.
const MESSAGES_MAX: u64 = 1 << 53;
/// Fewest messages of each side: what a guard on p50 asks for.
const MESSAGES_MIN: u64 = 200;

/// Events among messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    events: u64,
    messages: u64,
}

impl Rate {
    /// At most [`EVENTS_MAX`] events, each of another message; `None` otherwise.
    #[must_use]
    pub fn new(events: u64, messages: u64) -> Option<Self> {
        let within = events <= EVENTS_MAX && events <= messages && messages <= MESSAGES_MAX;
        within.then_some(Self { events, messages })
    }

    /// Events.
    #[must_use]
    pub fn events(self) -> u64 {
        self.events
    }

    /// Messages.
    #[must_use]
    pub fn messages(self) -> u64 {
        self.messages
    }
}

/// The candidate's rate is at most so many times the control's, by the conditional exact binomial test: of
/// all events together, the candidate's are Bin(x, L n_s / (L n_s + n_c)) at the limit L.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRatio {
    /// How much more often is accepted.
    pub limit: Limit,
    /// So many events of the candidate are always accepted.
    pub allowance: u64,
}

impl RateRatio {
    /// Judges the events of control and candidate.
    #[must_use]
    pub fn judge(&self, control: Rate, candidate: Rate, looks: Looks) -> Judgement {
        let samples = [control.messages, candidate.messages];
        let says = |verdict, reason, estimate| Judgement { verdict, reason, estimate, samples, blocks: 0 };
        if samples.contains(&0) {
            return says(Verdict::Inconclusive, VerdictReason::NoData, None);
        }
        let missing = samples.map(|messages| MESSAGES_MIN.saturating_sub(messages));
        if missing != [0, 0] {
            let few = VerdictReason::TooFew { blocks: 0, samples: missing, eta: None };
            return says(Verdict::Inconclusive, few, None);
        }
        let estimate = estimate(control, candidate, looks);
        if candidate.events <= self.allowance {
            let accepted = VerdictReason::WithinAllowance { allowance: self.allowance };
            return says(Verdict::Pass, accepted, Some(estimate));
        }
        let verdict = decide(self.limit, Some(estimate));
        let reason = match verdict {
            Verdict::Fail => VerdictReason::AboveLimit,
            Verdict::Pass => VerdictReason::WithinLimit,
            Verdict::Inconclusive => {
                VerdictReason::Undecided { detectable: estimate.ratio / estimate.lower - 1.0, eta: None }
            }
        };
        says(verdict, reason, Some(estimate))
    }
}

/// The ratio with its Clopper-Pearson bounds. The lower one is above the limit exactly when the chance of so
/// many events at the limit is below the look's alpha: one test, seen from both ends.
#[expect(clippy::cast_precision_loss, reason = "events and messages are bounded far below 2^53")]
fn estimate(control: Rate, candidate: Rate, looks: Looks) -> Estimate {
    let (control_events, events) = (control.events as f64, candidate.events as f64);
    let exposure = control.messages as f64 / candidate.messages as f64;
    // From the candidate's share of all events to the ratio of rates.
    let ratio = |share: f64| share / (1.0 - share) * exposure;
    let lower = if candidate.events == 0 {
        0.0
    } else {
        share_at(|share| beta_reg(events, control_events + 1.0, share), looks.alpha())
    };
    let upper = if control.events == 0 {
        1.0
    } else {
        share_at(|share| beta_reg(events + 1.0, control_events, share), CONFIDENCE)
    };
    let measured = if candidate.events == 0 { 0.0 } else { events / (events + control_events) };
    Estimate { ratio: ratio(measured), lower: ratio(lower), upper: ratio(upper) }
}

/// Where a rising function of a share reaches `chance`, by bisection: a bounded number of steps whatever the
/// counts.
fn share_at(rising: impl Fn(f64) -> f64, chance: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if rising(middle) < chance { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}
