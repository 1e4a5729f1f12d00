//! Verdict records: what a look saw, what it said, and the way to the same words again.

mod wire;

use crate::experiment::Blocks;
use crate::guards::{Crashed, Divergences, Judgement, LatencyRatio, Looks, Rate, RateRatio, Verdict, seed};
use crate::measure::Arm;

/// Largest record, bytes.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Longest name of a run, step, guard or source, bytes.
pub const NAME_BYTES_MAX: usize = 4_096;
/// Two computations of a number agree when they differ by no more than this part of it: processors and
/// compilers may differ in the last digits of a logarithm.
const AGREEMENT: f64 = 1e-9;

/// A look at a candidate: everything that its verdicts follow from.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The run that it belongs to.
    pub run: String,
    /// The step of that run.
    pub step: String,
    /// Which look it is, from one. Beyond the planned ones, see [`Looks::at`].
    pub look: u32,
    /// How often the step is looked at, and at how many guards.
    pub looks: Looks,
    /// Where the measurements were read.
    pub sources: Vec<Source>,
    /// What was measured.
    pub series: Vec<Series>,
    /// What has to hold.
    pub guards: Vec<Guard>,
}

/// A file that measurements come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, as given.
    pub name: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// The latencies of one kind of message in both arms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// `EntryPoint::kind`.
    pub kind: &'static str,
    /// Arms of control and candidate.
    pub arms: [Arm; 2],
    /// What they measured.
    pub blocks: Blocks,
}

/// A guard and what it is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// Unique in its look: part of its seed.
    pub name: String,
    /// What has to hold, of what.
    pub test: Test,
}

/// What a guard asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Of the latencies in one of the look's series.
    Latency {
        /// Which, from zero. One that isn't there counts as no data.
        series: usize,
        /// What has to hold.
        ratio: LatencyRatio,
    },
    /// Of how often something happened.
    Rate {
        /// What has to hold.
        ratio: RateRatio,
        /// The control's events.
        control: Rate,
        /// The candidate's.
        candidate: Rate,
    },
    /// Of comparisons.
    Divergence(Divergences),
    /// Of workers.
    Crash(Crashed),
}

impl Look {
    /// Judges each guard, in order. Equal looks give equal judgements.
    #[must_use]
    pub fn judge(&self) -> Vec<Judgement> {
        self.guards.iter().map(|guard| self.judge_one(guard)).collect()
    }

    fn judge_one(&self, guard: &Guard) -> Judgement {
        let looks = self.looks.at(self.look);
        match &guard.test {
            Test::Latency { series, ratio } => match self.series.get(*series) {
                Some(series) => ratio.judge(&series.blocks, looks, self.seed(guard)),
                None => Judgement::no_data(),
            },
            Test::Rate { ratio, control, candidate } => ratio.judge(*control, *candidate, looks),
            Test::Divergence(divergences) => divergences.judge(),
            Test::Crash(crashed) => crashed.judge(),
        }
    }

    /// The seed of a guard's lots in this look.
    #[must_use]
    pub fn seed(&self, guard: &Guard) -> u64 {
        seed(&self.run, &self.step, self.look, &guard.name)
    }
}

/// A look and the words that were said at it.
#[derive(Clone, Debug, PartialEq)]
pub struct VerdictRecord {
    look: Look,
    said: Vec<Said>,
}

/// What a guard said.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    verdict: Verdict,
    reason: String,
    /// Ratio, lower and upper bound; infinite ones are absent, and all of them where there is no estimate.
    numbers: [Option<f64>; 3],
    samples: [u64; 2],
    blocks: usize,
}

impl Said {
    fn of(judgement: &Judgement) -> Self {
        let numbers = judgement.estimate.map_or([None; 3], |estimate| {
            [estimate.ratio, estimate.lower, estimate.upper]
                .map(|number| Some(number).filter(|n| n.is_finite()))
        });
        Self {
            verdict: judgement.verdict,
            reason: judgement.reason.to_string(),
            numbers,
            samples: judgement.samples,
            blocks: judgement.blocks,
        }
    }

    /// The first thing that the two say differently, and both versions of it.
    fn differs(&self, other: &Self) -> Option<(&'static str, [String; 2])> {
        let both = |name, of: fn(&Self) -> String| Some((name, [of(self), of(other)]));
        if self.verdict != other.verdict {
            return both("verdict", |said| said.verdict.to_string());
        }
        let agree = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= AGREEMENT * a.abs().max(b.abs()),
            (a, b) => a.is_none() && b.is_none(),
        };
        for (at, name) in ["ratio", "lower bound", "upper bound"].into_iter().enumerate() {
            let (a, b) = (self.numbers[at], other.numbers[at]);
            if !agree(a, b) {
                return Some((
                    name,
                    [a, b].map(|number| number.map_or("none".to_owned(), |n| n.to_string())),
                ));
            }
        }
        if self.samples != other.samples {
            return both("samples", |said| format!("{} + {}", said.samples[0], said.samples[1]));
        }
        if self.blocks != other.blocks {
            return both("blocks", |said| said.blocks.to_string());
        }
        if self.reason != other.reason {
            return both("reason", |said| said.reason.clone());
        }
        None
    }
}

/// What a record says and its inputs don't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordDifference {
    /// The guard's name.
    pub guard: String,
    /// What differs.
    pub field: &'static str,
    /// As recorded.
    pub recorded: String,
    /// As it comes out of the recorded inputs.
    pub recomputed: String,
}

/// Why a record can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is larger than any record.
    #[error("it has {0} bytes; {RECORD_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// It is no JSON object with the fields of a record.
    #[error("it is no verdict record: {0}")]
    Foreign(String),
    /// It has another version than this program reads.
    #[error("a verdict record of version {found}; this program reads version {expected}")]
    Version {
        /// Its version.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Its verdicts were reached in another way than this program's.
    #[error("its verdicts were reached in another way ({0}); this program can't recompute them")]
    Method(String),
    /// A value is out of bounds.
    #[error("{place}: {what}")]
    Value {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        what: String,
    },
}

impl VerdictRecord {
    /// Judges a look and keeps what was said.
    #[must_use]
    pub fn of(look: Look) -> Self {
        Self::judged(look).0
    }

    /// As [`VerdictRecord::of`], with the judgements themselves.
    #[must_use]
    pub fn judged(look: Look) -> (Self, Vec<Judgement>) {
        let judgements = look.judge();
        let said = judgements.iter().map(Said::of).collect();
        (Self { look, said }, judgements)
    }

    /// What was looked at.
    #[must_use]
    pub fn look(&self) -> &Look {
        &self.look
    }

    /// Whether a guard said FAIL.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.said.iter().any(|said| said.verdict == Verdict::Fail)
    }

    /// The record as JSON, a line for each guard's and block's part, with a line feed at the end.
    #[must_use]
    pub fn to_json(&self) -> String {
        wire::write(self)
    }

    /// Reads a record. Whoever wrote it is not trusted: that its words follow from its inputs is what
    /// [`VerdictRecord::recompute`] finds out.
    ///
    /// # Errors
    /// It is too large, no record, of another version or method, or holds a value out of bounds.
    pub fn from_json(bytes: &[u8]) -> Result<Self, RecordError> {
        wire::read(bytes)
    }

    /// Judges the recorded look again: the judgements, and for each guard the first thing that was recorded
    /// otherwise.
    #[must_use]
    pub fn recompute(&self) -> (Vec<Judgement>, Vec<RecordDifference>) {
        let judgements = self.look.judge();
        let differences = self
            .look
            .guards
            .iter()
            .zip(self.said.iter().zip(&judgements))
            .filter_map(|(guard, (said, judgement))| {
                let (field, [recorded, recomputed]) = said.differs(&Said::of(judgement))?;
                Some(RecordDifference { guard: guard.name.clone(), field, recorded, recomputed })
            })
            .collect();
        (judgements, differences)
    }
}
