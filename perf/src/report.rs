//! The table of results, its verdicts and its JSON form.

use std::path::Path;

use serde::Serialize;

use crate::benchmarks::{ALL, Bench};

/// What a benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// Stable name; starts with its benchmark's.
    pub(crate) id: String,
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
    /// There is no target: a figure to read.
    Info,
}

/// What a ratio is asked to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Target {
    /// The judgement on `ratio`; `control_held` says whether the machine was quiet enough for one.
    pub(crate) fn judge(self, ratio: f64, control_held: bool) -> Verdict {
        let met = match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
            Self::None => return Verdict::Info,
        };
        match (control_held, met) {
            (false, _) => Verdict::Unjudged,
            (true, true) => Verdict::Met,
            (true, false) => Verdict::Missed,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most}"),
            Self::AtLeast(least) => format!(">= {least}"),
            Self::None => "-".into(),
        }
    }
}

/// The two sides of a ratio, with how to print them.
pub(crate) struct Compared {
    pub(crate) limit: f64,
    pub(crate) measured: f64,
    pub(crate) unit: Unit,
}

/// Units of measured values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// Given in nanoseconds, printed in whichever of ns, us, ms and s fits.
    Time,
    /// Given in bytes, printed in KB or MB.
    Bytes,
    /// Given in operations a second.
    Rate,
    /// Printed as a number.
    Factor,
}

impl Unit {
    /// `value` as text.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Time if value < 10.0 => format!("{value:.2} ns"),
            Self::Time if value < 1e3 => format!("{value:.0} ns"),
            Self::Time if value < 1e6 => format!("{:.2} us", value / 1e3),
            Self::Time if value < 1e9 => format!("{:.2} ms", value / 1e6),
            Self::Time => format!("{:.2} s", value / 1e9),
            Self::Bytes if value < 10e6 => format!("{:.1} KB", value / 1e3),
            Self::Bytes => format!("{:.1} MB", value / 1e6),
            Self::Rate => format!("{value:.1}/s"),
            Self::Factor => format!("{value:.2}x"),
        }
    }
}

impl Finding {
    /// A finding with the verdict on `compared`'s ratio.
    pub(crate) fn new(
        id: impl Into<String>,
        compared: &Compared,
        target: Target,
        control_held: bool,
        workload: String,
    ) -> Self {
        let ratio = compared.measured / compared.limit;
        Self {
            id: id.into(),
            workload,
            limit: compared.unit.show(compared.limit),
            measured: compared.unit.show(compared.measured),
            ratio,
            target: target.text(),
            verdict: target.judge(ratio, control_held),
        }
    }
}

/// Runs all benchmarks, or those whose id starts with `only`, prints the table and writes the JSON.
pub(crate) fn run(only: Option<&str>, json: Option<&Path>) -> Result<(), String> {
    let chosen: Vec<_> =
        ALL.iter().filter(|benchmark| only.is_none_or(|id| benchmark.id.starts_with(id))).collect();
    if chosen.is_empty() {
        let known: Vec<_> = ALL.iter().map(|benchmark| benchmark.id).collect();
        return Err(format!("no benchmark {:?}; there are: {}", only.unwrap_or(""), known.join(", ")));
    }
    let bench = Bench::new()?;
    let mut findings = Vec::new();
    println!("{:<32} {:>12} {:>12} {:>8}  {:<8} verdict", "id", "limit", "measured", "ratio", "target");
    for benchmark in chosen {
        for finding in (benchmark.run)(&bench).map_err(|error| format!("{}: {error}", benchmark.id))? {
            println!(
                "{:<32} {:>12} {:>12} {:>8.3}  {:<8} {:<8}  {}",
                finding.id,
                finding.limit,
                finding.measured,
                finding.ratio,
                finding.target,
                format!("{:?}", finding.verdict),
                finding.workload
            );
            findings.push(finding);
        }
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "benchmarks": findings }))
            .map_err(|error| error.to_string())?;
        std::fs::write(path, text).map_err(|error| format!("can't write {}: {error}", path.display()))?;
    }
    Ok(())
}
