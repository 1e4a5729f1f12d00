//! Verdicts: what there is to say, and the one rule that says it.

use std::fmt;
use std::time::Duration;

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Chance that a step rolls a candidate back at its limit, over all of its looks and guards.
pub const ALPHA: f64 = 0.01;
/// Confidence with which a candidate has to be shown within its limit.
pub const CONFIDENCE: f64 = 0.95;
/// Fewest blocks that anything is said about.
pub const BLOCKS_MIN: usize = 10;
/// Fewest measurements of each side beyond a quantile: 200 messages for p50, 10,000 for p99.
pub const TAIL_EVENTS: u64 = 100;
/// Most looks of a step.
pub const LOOKS_MAX: u32 = 10_000;
/// Most guards of a step.
pub const GUARDS_MAX: u32 = 64;

/// What is known of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Shown within the limit.
    Pass,
    /// Shown above the limit.
    Fail,
    /// Neither is shown. No data is this.
    Inconclusive,
}

impl Verdict {
    /// The word in output and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
        }
    }

    /// The verdict that `word` names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Pass, Self::Fail, Self::Inconclusive].into_iter().find(|verdict| verdict.as_str() == word)
    }

    /// The verdict on all guards together: one that fails decides, then one that is open. Of none, it is
    /// open.
    #[must_use]
    pub fn of_all(verdicts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = None;
        for verdict in verdicts {
            all = Some(match (all, verdict) {
                (Some(Self::Fail), _) | (_, Self::Fail) => Self::Fail,
                (Some(Self::Inconclusive), _) | (_, Self::Inconclusive) => Self::Inconclusive,
                (None | Some(Self::Pass), Self::Pass) => Self::Pass,
            });
        }
        all.unwrap_or(Self::Inconclusive)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The largest ratio of candidate to control that is accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit(f64);

impl Limit {
    /// From 1 (no worse at all) to 1,000; `None` for anything else.
    #[must_use]
    pub fn new(ratio: f64) -> Option<Self> {
        (1.0..=1000.0).contains(&ratio).then_some(Self(ratio))
    }

    /// As a ratio.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0
    }
}

/// How often a step may be judged: each look and each guard gets its part of [`ALPHA`] (Bonferroni).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    looks: u32,
    guards: u32,
    /// How far beyond the planned looks.
    over: u32,
}

impl Looks {
    /// Planned looks, 1 to [`LOOKS_MAX`], at so many guards, 1 to [`GUARDS_MAX`]; `None` outside.
    #[must_use]
    pub fn new(looks: u32, guards: u32) -> Option<Self> {
        let within = (1..=LOOKS_MAX).contains(&looks) && (1..=GUARDS_MAX).contains(&guards);
        within.then_some(Self { looks, guards, over: 0 })
    }

    /// These at look number `look`, from one. A step that was paused for long is looked at more often than planned; each
    /// look beyond the plan gets half the part of the one before, so that all of them together have no more than one
    /// planned look, and a candidate that is clearly slow still fails.
    #[must_use]
    pub fn at(self, look: u32) -> Self {
        Self { over: look.saturating_sub(self.looks).min(Self::OVER_MAX), ..self }
    }

    /// Halvings from which on a part is as good as none.
    const OVER_MAX: u32 = 20;

    /// Planned looks.
    #[must_use]
    pub fn looks(self) -> u32 {
        self.looks
    }

    /// Guards.
    #[must_use]
    pub fn guards(self) -> u32 {
        self.guards
    }

    /// Chance of a false FAIL that one look at one guard may have.
    #[must_use]
    pub fn alpha(self) -> f64 {
        ALPHA / (f64::from(self.looks) * f64::from(self.guards) * f64::from(1_u32 << self.over))
    }
}

/// A ratio of candidate to control and where it may lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// As measured.
    pub ratio: f64,
    /// It is above this, but for the look's part of [`ALPHA`]. FAIL: this is above the limit.
    pub lower: f64,
    /// It is below this, with [`CONFIDENCE`]; may be infinite. PASS: this is within the limit.
    pub upper: f64,
}

/// What a guard says, and from how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why not another one.
    pub reason: VerdictReason,
    /// The ratio, where there is one.
    pub estimate: Option<Estimate>,
    /// Messages, or comparisons, of control and candidate.
    pub samples: [u64; 2],
    /// Pairs of blocks that were compared; none where the test needs none.
    pub blocks: usize,
}

impl Judgement {
    /// What is said of nothing.
    #[must_use]
    pub fn no_data() -> Self {
        let (verdict, reason) = (Verdict::Inconclusive, VerdictReason::NoData);
        Self { verdict, reason, estimate: None, samples: [0, 0], blocks: 0 }
    }
}

/// Why a verdict is what it is. `Display` is a sentence without a full stop.
#[derive(Clone, Debug, PartialEq)]
pub enum VerdictReason {
    /// All that is plausible is within the limit.
    WithinLimit,
    /// All that is plausible is above the limit.
    AboveLimit,
    /// No more events than are always accepted.
    WithinAllowance {
        /// So many.
        allowance: u64,
    },
    /// Nothing was measured of one side or both.
    NoData,
    /// Less than anything is said about.
    TooFew {
        /// Blocks that are missing.
        blocks: usize,
        /// Messages of control and candidate that are missing.
        samples: [u64; 2],
        /// How long that takes at the rate so far.
        eta: Option<Duration>,
    },
    /// Both sides of the limit are plausible.
    Undecided {
        /// Smallest excess over a ratio that would be told from it, e.g. 0.05 for five percent.
        detectable: f64,
        /// How long a decision takes if the ratio stays as it is; nothing where it would take for ever.
        eta: Option<Duration>,
    },
    /// The arms hold different work.
    Confounded,
    /// Control against control: a ratio of one is plausible.
    Comparable {
        /// Smallest excess that would be told from one.
        detectable: f64,
    },
    /// Control against control: a ratio at the limit would not have been told from one.
    TooWide {
        /// Smallest excess that would be told from one.
        detectable: f64,
        /// How long it takes until the limit would be, if the arms stay as they are.
        eta: Option<Duration>,
    },
    /// Control against control: a ratio of one is not plausible.
    NotComparable,
    /// Events that may not be.
    Events {
        /// So many.
        found: u64,
        /// Accepted ones.
        max: u64,
    },
    /// None of the events that may not be.
    NoEvents {
        /// Upper bound of their rate, with 95 % confidence.
        rate_below: f64,
    },
}

impl fmt::Display for VerdictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let eta =
            |eta: &Option<Duration>| eta.map_or(String::new(), |eta| format!(", about {} more", shown(eta)));
        match self {
            Self::WithinLimit => f.write_str("shown within the limit"),
            Self::AboveLimit => f.write_str("shown above the limit"),
            Self::WithinAllowance { allowance } => {
                write!(f, "no more than the {allowance} that are accepted")
            }
            Self::NoData => f.write_str("no data of control, candidate or both"),
            Self::TooFew { blocks, samples: [control, candidate], eta: more } => {
                write!(f, "needs {blocks} more blocks, {control} + {candidate} more messages{}", eta(more))
            }
            Self::Undecided { detectable, eta: more } => {
                write!(f, "either side of the limit is plausible; tells {:.1} % apart", detectable * 100.0)?;
                match more {
                    Some(_) => f.write_str(&eta(more)),
                    None => f.write_str(", and more of the same won't decide"),
                }
            }
            Self::Confounded => f.write_str("the arms hold different canisters; exposes, doesn't compare"),
            Self::Comparable { detectable } => {
                write!(f, "no difference between equal arms; tells {:.1} % apart", detectable * 100.0)
            }
            Self::TooWide { detectable, eta: more } => write!(
                f,
                "too much noise between equal arms: tells {:.1} % apart, which isn't within the limit{}",
                detectable * 100.0,
                eta(more)
            ),
            Self::NotComparable => {
                f.write_str("equal arms differ: nothing measured this way can be believed")
            }
            Self::Events { found, max } => write!(f, "{found} found, {max} accepted"),
            Self::NoEvents { rate_below } => write!(f, "none found; a rate below {rate_below:.1e} at 95 %"),
        }
    }
}

/// To the second, minute or hour, at most 8 characters.
fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3_600)),
    }
}

/// The one rule: shown above the limit fails, shown within it passes, and anything else is open. `estimate`
/// is absent where there is less than anything is said about.
pub(super) fn decide(limit: Limit, estimate: Option<Estimate>) -> Verdict {
    match estimate {
        Some(estimate) if estimate.lower > limit.0 => Verdict::Fail,
        Some(estimate) if estimate.upper < limit.0 => Verdict::Pass,
        _ => Verdict::Inconclusive,
    }
}

/// What a t-distributed number exceeds with this chance; from 1e-9 to one half.
pub(super) fn t_exceeded(freedom: f64, chance: f64) -> f64 {
    // By the lower tail: 1 - chance has lost the digits that matter.
    -StudentsT::new(0.0, 1.0, freedom).expect("at least one degree of freedom").inverse_cdf(chance)
}
