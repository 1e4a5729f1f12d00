//! `bulkhead verdict`, and how verdicts are shown.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use rollout::{
    Design, Estimate, Judgement, Look, RECORD_BYTES_MAX, RecordDifference, Test, Verdict, VerdictRecord,
};
use serde_json::{Value, json};

use crate::cli::CommandError;
use crate::compare::read_file;

/// Judges what a record holds again, and says whether it comes to what is recorded.
///
/// # Errors
/// The record can't be read or used, or says something that doesn't follow from its inputs.
pub fn recompute(path: &Path, as_json: bool) -> Result<(), CommandError> {
    let bytes = read_file(path, RECORD_BYTES_MAX)?;
    let record = VerdictRecord::from_json(&bytes)
        .map_err(|error| CommandError::Failed(format!("{}: {error}", path.display())))?;
    let (judgements, differences) = record.recompute();
    let text = if as_json {
        let mut value = shown_json(record.look(), &judgements);
        value["equal"] = differences.is_empty().into();
        value["differences"] = differences.iter().map(difference_json).collect();
        format!("{value:#}\n")
    } else {
        let mut text = shown(record.look(), &judgements);
        for RecordDifference { guard, field, recorded, recomputed } in &differences {
            writeln!(text, "{guard}: {field} recorded as {recorded}, recomputed as {recomputed}")
                .expect(STRING);
        }
        let word = if differences.is_empty() { "EQUAL" } else { "DIFFERENT" };
        writeln!(
            text,
            "{word}: {} of {} recomputed as recorded",
            judgements.len() - differences.len(),
            judgements.len()
        )
        .expect(STRING);
        text
    };
    write_out(&text)?;
    if differences.is_empty() { Ok(()) } else { Err(CommandError::Reported) }
}

const STRING: &str = "a String takes it";

/// Prints a look and what each guard says.
pub(crate) fn print(look: &Look, judgements: &[Judgement], as_json: bool) -> Result<(), CommandError> {
    write_out(&if as_json {
        format!("{:#}\n", shown_json(look, judgements))
    } else {
        shown(look, judgements)
    })
}

/// The exit code of all verdicts together.
pub(crate) fn ending(judgements: &[Judgement]) -> Result<(), CommandError> {
    match Verdict::of_all(judgements.iter().map(|judgement| judgement.verdict)) {
        Verdict::Pass => Ok(()),
        Verdict::Fail => Err(CommandError::Reported),
        Verdict::Inconclusive => Err(CommandError::Inconclusive),
    }
}

fn write_out(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| CommandError::output(&error))
}

/// At most 110 columns where names are short.
fn shown(look: &Look, judgements: &[Judgement]) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect(STRING);
    for series in &look.series {
        let blocks = &series.blocks;
        let arms = match blocks.design {
            Design::Aa => format!("{0} against {0}", series.arms[0].as_str()),
            _ => format!("{} against {}", series.arms[1].as_str(), series.arms[0].as_str()),
        };
        line(format_args!(
            "{}: {arms}, {}, {} blocks of {:?} ({} left out)",
            series.kind,
            blocks.design,
            blocks.pairs.len(),
            blocks.length,
            blocks.left_out
        ));
    }
    line(format_args!(
        "look {} of {}, {} guards: {:.4} % may fail one of them at its limit\n",
        look.look,
        look.looks.looks(),
        look.looks.guards(),
        look.looks.at(look.look).alpha() * 100.0
    ));
    line(format_args!(
        "{:<24} {:>6} {:>7} {:>18} {:>10} {:>10} {:>6}  verdict",
        "guard", "limit", "ratio", "from..to", "control", "candidate", "blocks"
    ));
    for (guard, judgement) in look.guards.iter().zip(judgements) {
        let limit = limit(&guard.test).map_or("0".to_owned(), |limit| format!("{limit:.2}"));
        let (ratio, bounds) = judgement.estimate.map_or(("-".to_owned(), "-".to_owned()), |estimate| {
            (format!("{:.3}", estimate.ratio), format!("{:.3}..{:.3}", estimate.lower, estimate.upper))
        });
        let Judgement { verdict, reason, samples: [control, candidate], blocks, .. } = judgement;
        line(format_args!(
            "{:<24} {limit:>6} {ratio:>7} {bounds:>18} {control:>10} {candidate:>10} {blocks:>6}  {verdict}",
            guard.name
        ));
        line(format_args!("  {reason}"));
    }
    let all = Verdict::of_all(judgements.iter().map(|judgement| judgement.verdict));
    line(format_args!("\n{all}"));
    text
}

fn limit(test: &Test) -> Option<f64> {
    match test {
        Test::Latency { ratio, .. } => Some(ratio.limit.as_f64()),
        Test::Rate { ratio, .. } => Some(ratio.limit.as_f64()),
        Test::Divergence(_) | Test::Crash(_) => None,
    }
}

/// What a guard on latencies compares: a quantile of one kind of message in two arms.
fn compared(look: &Look, test: &Test) -> Value {
    match test {
        Test::Latency { series, ratio } => look.series.get(*series).map_or(Value::Null, |series| {
            json!({
                "quantile": ratio.quantile.as_f64(), "kind": series.kind,
                "control": series.arms[0].as_str(), "candidate": series.arms[1].as_str(),
            })
        }),
        Test::Rate { .. } | Test::Divergence(_) | Test::Crash(_) => Value::Null,
    }
}

/// What each guard says, with its numbers.
pub(crate) fn shown_json(look: &Look, judgements: &[Judgement]) -> Value {
    let guards = look.guards.iter().zip(judgements).map(|(guard, judgement)| {
        let number = |of: fn(&Estimate) -> f64| judgement.estimate.as_ref().map(of).filter(|n| n.is_finite());
        json!({
            "guard": guard.name,
            "of": compared(look, &guard.test),
            "limit": limit(&guard.test),
            "ratio": number(|estimate| estimate.ratio),
            "lower": number(|estimate| estimate.lower),
            "upper": number(|estimate| estimate.upper),
            "samples": { "control": judgement.samples[0], "candidate": judgement.samples[1] },
            "blocks": judgement.blocks,
            "verdict": judgement.verdict.as_str(),
            "reason": judgement.reason.to_string(),
        })
    });
    let series = look.series.iter().map(|series| {
        json!({
            "kind": series.kind,
            "control": series.arms[0].as_str(),
            "candidate": series.arms[1].as_str(),
            "design": series.blocks.design.as_str(),
            "blocks": series.blocks.pairs.len(),
            "blocks_left_out": series.blocks.left_out,
            "block_seconds": series.blocks.length.as_secs_f64(),
        })
    });
    json!({
        "run": look.run,
        "look": look.look,
        "looks": look.looks.looks(),
        "series": series.collect::<Vec<_>>(),
        "guards": guards.collect::<Vec<_>>(),
        "verdict": Verdict::of_all(judgements.iter().map(|judgement| judgement.verdict)).as_str(),
    })
}

fn difference_json(difference: &RecordDifference) -> Value {
    let RecordDifference { guard, field, recorded, recomputed } = difference;
    json!({ "guard": guard, "field": field, "recorded": recorded, "recomputed": recomputed })
}
