//! The table of results, its verdicts and its JSON form.

use std::path::Path;

use serde::Serialize;

use crate::benchmarks;

/// What a benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// Stable name, for `--only`.
    pub(crate) id: &'static str,
    /// What ran.
    pub(crate) workload: String,
    /// The limit or peer, measured in the same run, with its unit.
    pub(crate) limit: String,
    /// The product, with its unit.
    pub(crate) measured: String,
    /// measured / limit.
    pub(crate) ratio: f64,
    /// What the ratio is asked to be.
    pub(crate) target: String,
    /// The judgement.
    pub(crate) verdict: Verdict,
}

/// A judgement; `Unjudged` counts as not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The ratio meets the target.
    Met,
    /// It does not.
    Missed,
    /// The control failed: the machine was too noisy to say.
    Unjudged,
}

impl Verdict {
    /// `Met` if `ratio` is at most `most`, `Unjudged` if the control failed.
    pub(crate) fn at_most(ratio: f64, most: f64, control_held: bool) -> Self {
        match (control_held, ratio <= most) {
            (false, _) => Self::Unjudged,
            (true, true) => Self::Met,
            (true, false) => Self::Missed,
        }
    }
}

/// Runs all benchmarks, or the one named, prints the table and writes the JSON.
pub(crate) fn run(only: Option<&str>, json: Option<&Path>) -> Result<(), String> {
    let chosen: Vec<_> =
        benchmarks::ALL.iter().filter(|benchmark| only.is_none_or(|id| benchmark.id == id)).collect();
    if chosen.is_empty() {
        let known: Vec<_> = benchmarks::ALL.iter().map(|benchmark| benchmark.id).collect();
        return Err(format!("no benchmark {:?}; there are: {}", only.unwrap_or(""), known.join(", ")));
    }
    let bench = benchmarks::Bench::new()?;
    let mut findings = Vec::new();
    println!("{:<14} {:>14} {:>14} {:>7}  {:<9} verdict", "id", "limit", "measured", "ratio", "target");
    for benchmark in chosen {
        let finding = (benchmark.run)(&bench).map_err(|error| format!("{}: {error}", benchmark.id))?;
        println!(
            "{:<14} {:>14} {:>14} {:>7.2}  {:<9} {:?}  {}",
            finding.id,
            finding.limit,
            finding.measured,
            finding.ratio,
            finding.target,
            finding.verdict,
            finding.workload
        );
        findings.push(finding);
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "benchmarks": findings }))
            .map_err(|error| error.to_string())?;
        std::fs::write(path, text).map_err(|error| format!("can't write {}: {error}", path.display()))?;
    }
    Ok(())
}
