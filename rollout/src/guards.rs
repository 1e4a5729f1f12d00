//! Guards: what has to hold for a candidate, judged with stated error rates.
//!
//! Three verdicts: no data is inconclusive, never pass or fail. Everything that a verdict came from is kept
//! in a [`crate::VerdictRecord`] and gives the same verdict again. The methods and their error rates are in
//! `docs/decisions/0010-guard-statistics.md`.

mod bootstrap;
mod crash;
mod divergence;
mod latency;
mod rate;
mod verdict;

pub use crash::{CrashFuse, CrashFuseError, Crashed};
pub use divergence::Divergences;
pub use latency::{LatencyRatio, Quantile};
pub use rate::{EVENTS_MAX, Rate, RateRatio};
pub use verdict::{
    ALPHA, BLOCKS_MIN, CONFIDENCE, Estimate, GUARDS_MAX, Judgement, LOOKS_MAX, Limit, Looks, TAIL_EVENTS,
    Verdict, VerdictReason,
};

pub use bootstrap::{RESAMPLES, seed};
pub(crate) use bootstrap::{below, generator};
