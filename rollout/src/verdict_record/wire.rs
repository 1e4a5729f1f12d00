//! A verdict record as JSON, version 1.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Guard, Look, NAME_BYTES_MAX, RECORD_BYTES_MAX, RecordError, Said, Series, Source, Test, VerdictRecord,
};
use crate::experiment::{BLOCK_LENGTHS, BLOCKS_MAX, Block, Blocks, COUNTS_MAX, Design};
use crate::guards::{
    ALPHA, BLOCKS_MIN, CONFIDENCE, Crashed, Divergences, GUARDS_MAX, LatencyRatio, Limit, Looks, Quantile,
    RESAMPLES, Rate, RateRatio, TAIL_EVENTS, Verdict,
};
use crate::head::{self, HeadError};
use crate::measure::{Arm, KINDS, Latencies};

const FORMAT: &str = "bulkhead-verdict";
const VERSION: u64 = 1;
/// Most sources of a look.
const SOURCES_MAX: usize = 1_024;

/// What is read first, whatever else there is.
impl From<HeadError> for RecordError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Foreign(what) => Self::Foreign(what),
            HeadError::Version { found, expected } => Self::Version { found, expected },
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordV1 {
    format: String,
    version: u64,
    method: Method,
    run: String,
    step: String,
    look: u32,
    looks: u32,
    sources: Vec<SourceV1>,
    series: Vec<SeriesV1>,
    guards: Vec<GuardV1>,
}

/// How verdicts are reached. A record of another method is refused, not judged by ours.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Method {
    latency: String,
    rate: String,
    seed: String,
    alpha: f64,
    confidence: f64,
    blocks_min: usize,
    tail_events: u64,
    resamples: usize,
}

impl Method {
    fn ours() -> Self {
        Self {
            latency: "paired block bootstrap of the log quantile ratio, t bounds, Bonferroni, A/A at 95 % within the limit; PCG32"
                .to_owned(),
            rate: "conditional exact binomial, Clopper-Pearson, Bonferroni".to_owned(),
            seed: "first 8 bytes of SHA-256 of run, step, look, guard, each behind its length".to_owned(),
            alpha: ALPHA,
            confidence: CONFIDENCE,
            blocks_min: BLOCKS_MIN,
            tail_events: TAIL_EVENTS,
            resamples: RESAMPLES,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceV1 {
    name: String,
    sha256: String,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesV1 {
    kind: String,
    control: String,
    candidate: String,
    design: String,
    block_ms: u64,
    left_out: usize,
    /// Control and candidate of each block: histograms as in an interval log.
    blocks: Vec<[String; 2]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuardV1 {
    name: String,
    /// Hexadecimal; for readers, who can compute it.
    seed: String,
    test: TestV1,
    said: SaidV1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum TestV1 {
    LatencyRatio { series: usize, quantile_ppm: u32, limit: f64 },
    RateRatio { limit: f64, allowance: u64, control: [u64; 2], candidate: [u64; 2] },
    Divergence { compared: u64, confirmed: u64, compared_min: u64 },
    Crash { canisters: u64, max: u64, executed: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidV1 {
    verdict: String,
    reason: String,
    ratio: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    samples: [u64; 2],
    blocks: usize,
}

pub(super) fn write(record: &VerdictRecord) -> String {
    let VerdictRecord { look, said } = record;
    let guards = look.guards.iter().zip(said).map(|(guard, said)| GuardV1 {
        name: guard.name.clone(),
        seed: format!("{:016x}", look.seed(guard)),
        test: TestV1::from(&guard.test),
        said: SaidV1::from(said),
    });
    let record = RecordV1 {
        format: FORMAT.to_owned(),
        version: VERSION,
        method: Method::ours(),
        run: look.run.clone(),
        step: look.step.clone(),
        look: look.look,
        looks: look.looks.looks(),
        sources: look.sources.iter().map(SourceV1::from).collect(),
        series: look.series.iter().map(SeriesV1::from).collect(),
        guards: guards.collect(),
    };
    serde_json::to_string_pretty(&record).expect("strings and numbers") + "\n"
}

pub(super) fn read(bytes: &[u8]) -> Result<VerdictRecord, RecordError> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge(bytes.len()));
    }
    let foreign = |error: serde_json::Error| RecordError::Foreign(error.to_string());
    head::check(bytes, FORMAT, VERSION)?;
    let record: RecordV1 = serde_json::from_slice(bytes).map_err(foreign)?;
    if record.method != Method::ours() {
        return Err(RecordError::Method(different(&record.method)));
    }
    let looks = u32::try_from(record.guards.len())
        .ok()
        .and_then(|guards| Looks::new(record.looks, guards))
        .filter(|_| record.look > 0)
        .ok_or_else(|| {
            wrong("looks", format!("look {} of {}, {GUARDS_MAX} guards at most", record.look, record.looks))
        })?;
    if record.sources.len() > SOURCES_MAX || record.series.len() > KINDS.len() {
        return Err(wrong("sources, series", "more than there can be"));
    }
    let sources: Result<_, _> = record.sources.into_iter().map(SourceV1::check).collect();
    let mut distinct = 0;
    let series: Result<Vec<_>, _> = record
        .series
        .into_iter()
        .enumerate()
        .map(|(at, series)| series.check(&format!("series {at}"), &mut distinct))
        .collect();
    let (mut guards, mut said) = (Vec::new(), Vec::new());
    for (at, guard) in record.guards.into_iter().enumerate() {
        let place = format!("guard {at}");
        guards.push(Guard { name: name(guard.name, &place)?, test: guard.test.check(&place)? });
        said.push(guard.said.check(&place)?);
    }
    let look = Look {
        run: name(record.run, "run")?,
        step: name(record.step, "step")?,
        look: record.look,
        looks,
        sources: sources?,
        series: series?,
        guards,
    };
    Ok(VerdictRecord { look, said })
}

/// The first field in which a method isn't ours.
fn different(method: &Method) -> String {
    let ours = Method::ours();
    let fields = |method: &Method| {
        [
            ("latency", method.latency.clone()),
            ("rate", method.rate.clone()),
            ("seed", method.seed.clone()),
            ("alpha", method.alpha.to_string()),
            ("confidence", method.confidence.to_string()),
            ("blocks_min", method.blocks_min.to_string()),
            ("tail_events", method.tail_events.to_string()),
            ("resamples", method.resamples.to_string()),
        ]
    };
    let pairs = fields(method).into_iter().zip(fields(&ours));
    let first = pairs.into_iter().find(|(theirs, ours)| theirs != ours);
    first.map_or(String::new(), |((name, theirs), _)| format!("{name}: {}", theirs.escape_debug()))
}

fn wrong(place: &str, what: impl Into<String>) -> RecordError {
    RecordError::Value { place: place.to_owned(), what: what.into() }
}

/// A name that may be printed.
fn name(name: String, place: &str) -> Result<String, RecordError> {
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(wrong(
            place,
            format!("a name of more than {NAME_BYTES_MAX} bytes or with control characters"),
        ));
    }
    Ok(name)
}

impl From<&Source> for SourceV1 {
    fn from(source: &Source) -> Self {
        Self { name: source.name.clone(), sha256: source.sha256.clone(), bytes: source.bytes }
    }
}

impl SourceV1 {
    fn check(self) -> Result<Source, RecordError> {
        let sha256 = hex::decode(&self.sha256).ok().filter(|digest| digest.len() == 32);
        sha256.ok_or_else(|| wrong("sources", "a digest that isn't 64 hexadecimal digits"))?;
        Ok(Source { name: name(self.name, "sources")?, sha256: self.sha256, bytes: self.bytes })
    }
}

impl From<&Series> for SeriesV1 {
    fn from(series: &Series) -> Self {
        let Series { kind, arms: [control, candidate], blocks } = series;
        Self {
            kind: (*kind).to_owned(),
            control: control.as_str().to_owned(),
            candidate: candidate.as_str().to_owned(),
            design: blocks.design.as_str().to_owned(),
            block_ms: u64::try_from(blocks.length.as_millis()).unwrap_or(u64::MAX),
            left_out: blocks.left_out,
            blocks: blocks
                .pairs
                .iter()
                .map(|pair| [pair.control.encode(), pair.candidate.encode()])
                .collect(),
        }
    }
}

impl SeriesV1 {
    fn check(self, place: &str, distinct: &mut usize) -> Result<Series, RecordError> {
        let kind = KINDS.into_iter().find(|kind| *kind == self.kind);
        let arm = |word: &str| Arm::ALL.into_iter().find(|arm| arm.as_str() == word);
        let arms = arm(&self.control).zip(arm(&self.candidate));
        let (Some(kind), Some(arms), Some(design)) = (kind, arms, Design::from_word(&self.design)) else {
            return Err(wrong(place, "an unknown kind, arm or design"));
        };
        let length = Duration::from_millis(self.block_ms);
        let [shortest, longest] = BLOCK_LENGTHS;
        if !(shortest..=longest).contains(&length) || self.blocks.len() > BLOCKS_MAX {
            return Err(wrong(place, format!("blocks of {length:?}, or more than {BLOCKS_MAX} of them")));
        }
        let mut latencies = |text: &str| {
            let latencies = Latencies::decode(text).map_err(|error| wrong(place, error.to_string()))?;
            *distinct += latencies.counts().len();
            match latencies.measurements() {
                0 => Err(wrong(place, "a block without measurements")),
                _ if *distinct > COUNTS_MAX => Err(wrong(place, format!("more than {COUNTS_MAX} latencies"))),
                _ => Ok(latencies),
            }
        };
        let pairs: Result<_, _> = self
            .blocks
            .iter()
            .map(|[control, candidate]| {
                Ok::<_, RecordError>(Block { control: latencies(control)?, candidate: latencies(candidate)? })
            })
            .collect();
        let blocks = Blocks { design, length, pairs: pairs?, left_out: self.left_out };
        Ok(Series { kind, arms: arms.into(), blocks })
    }
}

impl From<&Test> for TestV1 {
    fn from(test: &Test) -> Self {
        let counts = |rate: &Rate| [rate.events(), rate.messages()];
        match test {
            Test::Latency { series, ratio: LatencyRatio { quantile, limit } } => {
                Self::LatencyRatio { series: *series, quantile_ppm: quantile.ppm(), limit: limit.as_f64() }
            }
            Test::Rate { ratio: RateRatio { limit, allowance }, control, candidate } => Self::RateRatio {
                limit: limit.as_f64(),
                allowance: *allowance,
                control: counts(control),
                candidate: counts(candidate),
            },
            Test::Divergence(Divergences { compared, confirmed, compared_min }) => {
                Self::Divergence { compared: *compared, confirmed: *confirmed, compared_min: *compared_min }
            }
            Test::Crash(Crashed { canisters, max, executed }) => {
                Self::Crash { canisters: *canisters, max: *max, executed: *executed }
            }
        }
    }
}

impl TestV1 {
    fn check(self, place: &str) -> Result<Test, RecordError> {
        let limit =
            |ratio| Limit::new(ratio).ok_or_else(|| wrong(place, format!("a limit of {ratio}; 1 to 1000")));
        let rate = |[events, messages]: [u64; 2]| {
            Rate::new(events, messages)
                .ok_or_else(|| wrong(place, format!("{events} events of {messages} messages")))
        };
        Ok(match self {
            Self::LatencyRatio { series, quantile_ppm, limit: ratio } => {
                let quantile = Quantile::from_ppm(quantile_ppm)
                    .ok_or_else(|| wrong(place, format!("a quantile of {quantile_ppm} parts per million")))?;
                Test::Latency { series, ratio: LatencyRatio { quantile, limit: limit(ratio)? } }
            }
            Self::RateRatio { limit: ratio, allowance, control, candidate } => Test::Rate {
                ratio: RateRatio { limit: limit(ratio)?, allowance },
                control: rate(control)?,
                candidate: rate(candidate)?,
            },
            Self::Divergence { compared, confirmed, compared_min } => {
                if confirmed > compared {
                    return Err(wrong(place, format!("{confirmed} differences in {compared} comparisons")));
                }
                Test::Divergence(Divergences { compared, confirmed, compared_min })
            }
            Self::Crash { canisters, max, executed } => Test::Crash(Crashed { canisters, max, executed }),
        })
    }
}

impl From<&Said> for SaidV1 {
    fn from(said: &Said) -> Self {
        let [ratio, lower, upper] = said.numbers;
        Self {
            verdict: said.verdict.as_str().to_owned(),
            reason: said.reason.clone(),
            ratio,
            lower,
            upper,
            samples: said.samples,
            blocks: said.blocks,
        }
    }
}

impl SaidV1 {
    fn check(self, place: &str) -> Result<Said, RecordError> {
        Ok(Said {
            verdict: Verdict::from_word(&self.verdict)
                .ok_or_else(|| wrong(place, "a verdict that is not PASS, FAIL or INCONCLUSIVE"))?,
            reason: name(self.reason, place)?,
            numbers: [self.ratio, self.lower, self.upper],
            samples: self.samples,
            blocks: self.blocks,
        })
    }
}
