//! `bulkhead compare`: a look at what interval logs say of two arms.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use rollout::{
    Arm, BlockError, Design, Divergences, Guard, KINDS, LOG_BYTES_MAX, LatencyRatio, Limit, Look, Looks,
    Quantile, RECORD_BYTES_MAX, Rate, RateRatio, Series, Side, Source, Test, VerdictRecord, Windows,
    read_log, seed,
};
use sha2::{Digest, Sha256};

use crate::cli::CommandError;
use crate::verdict;

/// The step that a look from the command line belongs to.
const STEP: &str = "compare";

/// What is compared, and how.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// HdrHistogram interval logs with tags MODE.KIND, as `bulkhead demo --hlog` writes them
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// What is known
    #[arg(long, value_enum, value_name = "ARM", default_value = "in-process")]
    control: ArmArg,
    /// What is on trial
    #[arg(long, value_enum, value_name = "ARM", default_value = "sandboxed")]
    candidate: ArmArg,
    /// Kinds of messages, each judged by itself
    #[arg(long, value_name = "KIND", default_value = "update", value_parser = PossibleValuesParser::new(KINDS))]
    kind: Vec<String>,
    /// How the arms share the traffic
    #[arg(long, value_enum, default_value = "node-split")]
    design: DesignArg,
    /// Largest ratio of candidate to control that is accepted, by quantile
    #[arg(long, value_name = "QUANTILE=RATIO", default_values = ["p50=1.30", "p99=1.50"], value_parser = limit)]
    limit: Vec<(Quantile, Limit)>,
    /// Length of the blocks that are compared
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    block: Duration,
    /// Which look this is of how many that are planned; each costs the others power
    #[arg(long, value_name = "N/PLANNED", default_value = "1/1", value_parser = look)]
    look: (u32, u32),
    /// Traps among messages, of control and candidate
    #[arg(long, value_name = "TRAPS/MESSAGES,TRAPS/MESSAGES", value_parser = rates)]
    traps: Option<[Rate; 2]>,
    /// Largest ratio of rates of traps that is accepted
    #[arg(long, value_name = "RATIO", default_value = "1.10", value_parser = ratio)]
    traps_limit: Limit,
    /// Traps of the candidate that are always accepted
    #[arg(long, value_name = "N", default_value_t = 3)]
    traps_allowance: u64,
    /// Confirmed divergences among comparisons; one of them fails
    #[arg(long, value_name = "CONFIRMED/COMPARED", value_parser = divergences)]
    divergences: Option<(u64, u64)>,
    /// Fewest comparisons that pass: the default shows a rate below 1e-5
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    comparisons_min: u64,
    /// Write all that the verdicts follow from into this new file, for `bulkhead verdict`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ArmArg {
    /// Mode in-process
    InProcess,
    /// Mode sandboxed
    Sandboxed,
    /// Mode shadow, the run whose result counts
    ShadowControl,
    /// Mode shadow, the run that is compared and dropped
    ShadowCandidate,
}

impl From<ArmArg> for Arm {
    fn from(arm: ArmArg) -> Self {
        match arm {
            ArmArg::InProcess => Self::InProcess,
            ArmArg::Sandboxed => Self::Sandboxed,
            ArmArg::ShadowControl => Self::ShadowControl,
            ArmArg::ShadowCandidate => Self::ShadowCandidate,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DesignArg {
    /// Both at the same time on the same work: nodes of a subnet, both sides of shadow
    NodeSplit,
    /// One node changes between them: neighbouring blocks are compared
    Switchback,
    /// Control against control: does this find a difference where there is none?
    Aa,
    /// Different canisters in each: exposes, doesn't compare, never decides
    Percent,
}

impl From<DesignArg> for Design {
    fn from(design: DesignArg) -> Self {
        match design {
            DesignArg::NodeSplit => Self::NodeSplit,
            DesignArg::Switchback => Self::Switchback,
            DesignArg::Aa => Self::Aa,
            DesignArg::Percent => Self::Percent,
        }
    }
}

fn limit(text: &str) -> Result<(Quantile, Limit), String> {
    let (quantile, limit) = text.split_once('=').ok_or("write QUANTILE=RATIO, e.g. p99=1.50")?;
    let quantile =
        Quantile::from_word(quantile).ok_or("a quantile is written p50, p99 or p99.9, below p100")?;
    Ok((quantile, ratio(limit)?))
}

fn ratio(text: &str) -> Result<Limit, String> {
    text.parse()
        .ok()
        .and_then(Limit::new)
        .ok_or_else(|| "a limit is a ratio from 1 to 1000, e.g. 1.50".to_owned())
}

/// A whole number of seconds, minutes or hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("write a whole number of s, m or h, e.g. 60s".to_owned()),
    };
    let time =
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).map(Duration::from_secs);
    time.ok_or_else(|| "write a whole number of s, m or h, e.g. 60s".to_owned())
}

fn look(text: &str) -> Result<(u32, u32), String> {
    let numbers =
        text.split_once('/').and_then(|(look, planned)| Some((look.parse().ok()?, planned.parse().ok()?)));
    numbers
        .filter(|(look, planned)| Looks::new(*planned, 1).is_some() && (1..=*planned).contains(look))
        .ok_or_else(|| format!("write LOOK/PLANNED, e.g. 3/12, with at most {} planned", rollout::LOOKS_MAX))
}

fn fraction(text: &str) -> Option<(u64, u64)> {
    let (part, whole) = text.split_once('/')?;
    Some((part.parse().ok()?, whole.parse().ok()?)).filter(|(part, whole)| part <= whole)
}

fn rates(text: &str) -> Result<[Rate; 2], String> {
    let rate = |text| fraction(text).and_then(|(events, messages)| Rate::new(events, messages));
    let both = text.split_once(',').and_then(|(control, candidate)| Some([rate(control)?, rate(candidate)?]));
    both.ok_or_else(|| {
        format!(
            "write TRAPS/MESSAGES,TRAPS/MESSAGES, e.g. 12/90000,15/91000, with at most {} traps each",
            rollout::EVENTS_MAX
        )
    })
}

fn divergences(text: &str) -> Result<(u64, u64), String> {
    fraction(text).ok_or_else(|| "write CONFIRMED/COMPARED, e.g. 0/300000".to_owned())
}

/// Compares, prints what each guard says, and writes the record that was asked for.
///
/// # Errors
/// A log can't be read or used, the record can't be written, a guard fails, or one is inconclusive.
pub fn run(arguments: &CompareArgs) -> Result<(), CommandError> {
    let look = look_at(arguments)?;
    let (record, judgements) = VerdictRecord::judged(look);
    if let Some(path) = &arguments.record {
        write(path, &record.to_json())?;
    }
    verdict::print(record.look(), &judgements, arguments.json)?;
    verdict::ending(&judgements)
}

fn look_at(arguments: &CompareArgs) -> Result<Look, CommandError> {
    let arms: [Arm; 2] = [arguments.control.into(), arguments.candidate.into()];
    let design = Design::from(arguments.design);
    if arms[0] == arms[1] && design != Design::Aa {
        let arm = arms[0].as_str();
        return Err(CommandError::Usage(format!(
            "control and candidate are both {arm}; `--design aa` compares an arm with itself"
        )));
    }
    let sides: &[(Arm, Side)] = match design {
        Design::Aa => &[(arms[0], Side::Control)],
        Design::NodeSplit | Design::Switchback | Design::Percent => {
            &[(arms[0], Side::Control), (arms[1], Side::Candidate)]
        }
    };
    let mut windows = BTreeMap::new();
    for kind in KINDS.into_iter().filter(|kind| arguments.kind.iter().any(|asked| asked == kind)) {
        let new = Windows::new(design, arguments.block);
        windows.insert(kind, new.map_err(|error| CommandError::Usage(error.to_string()))?);
    }
    let sources = read(&arguments.logs, sides, &mut windows)?;
    let mut run = Sha256::new();
    sources.iter().for_each(|source| run.update(&source.sha256));
    let run = hex::encode(run.finalize());
    let mut series = Vec::new();
    for (kind, windows) in &windows {
        let lots = seed(&run, STEP, arguments.look.0, kind);
        let blocks =
            windows.pair(lots).map_err(|error: BlockError| CommandError::Failed(error.to_string()))?;
        series.push(Series { kind, arms: [arms[0], sides.last().map_or(arms[1], |side| side.0)], blocks });
    }
    let guards = guards(arguments, &series);
    let looks = u32::try_from(guards.len()).ok().and_then(|guards| Looks::new(arguments.look.1, guards));
    let looks =
        looks.ok_or_else(|| CommandError::Usage(format!("more than {} guards", rollout::GUARDS_MAX)))?;
    Ok(Look { run, step: STEP.to_owned(), look: arguments.look.0, looks, sources, series, guards })
}

/// Reads the logs into the windows of their kinds.
fn read(
    logs: &[PathBuf],
    sides: &[(Arm, Side)],
    windows: &mut BTreeMap<&'static str, Windows>,
) -> Result<Vec<Source>, CommandError> {
    let mut sources: Vec<Source> = Vec::new();
    for path in logs {
        let bytes = read_file(path, LOG_BYTES_MAX)?;
        let source = Source {
            name: file_name(path),
            sha256: hex::encode(Sha256::digest(&bytes)),
            bytes: bytes.len() as u64,
        };
        if sources.iter().any(|known| known.sha256 == source.sha256) {
            return Err(CommandError::Usage(format!("{}: the same log twice", path.display())));
        }
        sources.push(source);
        let side = |arm| sides.iter().find(|(of, _)| *of == arm).map(|(_, side)| *side);
        let kinds: Vec<&str> = windows.keys().copied().collect();
        let wanted = |arm, kind: &str| side(arm).is_some() && kinds.contains(&kind);
        read_log(&bytes, wanted, |interval| {
            let (Some(side), Some(windows)) = (side(interval.arm), windows.get_mut(interval.kind)) else {
                return Ok(());
            };
            let added = windows.add(side, interval.start, interval.duration, &interval.latencies);
            added.map_err(|error| error.to_string())
        })
        .map_err(|error| CommandError::Failed(format!("{}: {error}", path.display())))?;
    }
    Ok(sources)
}

fn guards(arguments: &CompareArgs, series: &[Series]) -> Vec<Guard> {
    let limits: BTreeMap<Quantile, Limit> = arguments.limit.iter().copied().collect();
    let latencies = series.iter().enumerate().flat_map(|(at, series)| {
        limits.iter().map(move |(&quantile, &limit)| Guard {
            name: format!("{} {quantile}", series.kind),
            test: Test::Latency { series: at, ratio: LatencyRatio { quantile, limit } },
        })
    });
    let traps = arguments.traps.map(|[control, candidate]| Guard {
        name: "traps".to_owned(),
        test: Test::Rate {
            ratio: RateRatio { limit: arguments.traps_limit, allowance: arguments.traps_allowance },
            control,
            candidate,
        },
    });
    let divergences = arguments.divergences.map(|(confirmed, compared)| Guard {
        name: "divergence".to_owned(),
        test: Test::Divergence(Divergences { compared, confirmed, compared_min: arguments.comparisons_min }),
    });
    latencies.chain(traps).chain(divergences).collect()
}

/// All of a file that has at most so many bytes.
pub(crate) fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, CommandError> {
    let failed = |what: String| CommandError::Failed(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| failed(format!("could not open it: {error}")))?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("could not read it: {error}")))?;
    if bytes.len() > bytes_max {
        return Err(failed(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// The last part of a path, as it may stand in a record: without control characters.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A record is evidence: it never takes another file's place.
fn write(path: &Path, record: &str) -> Result<(), CommandError> {
    let failed = |what: String| CommandError::Failed(format!("could not write {}: {what}", path.display()));
    if record.len() > RECORD_BYTES_MAX {
        return Err(failed(format!(
            "it would have {} bytes, and {RECORD_BYTES_MAX} can be read; take longer blocks or fewer kinds",
            record.len()
        )));
    }
    File::create_new(path)
        .and_then(|mut file| file.write_all(record.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| failed(error.to_string()))
}
