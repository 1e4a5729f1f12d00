//! The table of results, its verdicts and its JSON form.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::benchmarks::{ALL, Bench, Benchmark};

/// What a benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// Stable name; starts with its benchmark's.
    pub(crate) id: String,
    /// As in [`Benchmark::code`].
    pub(crate) code: Option<&'static str>,
    /// What ran.
    pub(crate) workload: String,
    /// The limit or peer, measured in the same run, with its unit.
    pub(crate) limit: String,
    /// The product, with its unit.
    pub(crate) measured: String,
    /// measured / limit; nothing where nothing was measured.
    pub(crate) ratio: Option<f64>,
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
    /// What the benchmark needs isn't here: nothing was measured, and nothing is said of the product.
    Absent,
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
    /// Printed as a factor.
    Factor,
    /// Printed as a number.
    Count,
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
            Self::Count => format!("{value:.3}"),
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
            code: None,
            workload,
            limit: compared.unit.show(compared.limit),
            measured: compared.unit.show(compared.measured),
            ratio: Some(ratio),
            target: target.text(),
            verdict: target.judge(ratio, control_held),
        }
    }

    /// Says that nothing was measured, because something isn't here.
    pub(crate) fn absent(id: impl Into<String>, why: String) -> Self {
        Self {
            id: id.into(),
            code: None,
            workload: format!("NOT RUN: {why}"),
            limit: "-".into(),
            measured: "-".into(),
            ratio: None,
            target: Target::None.text(),
            verdict: Verdict::Absent,
        }
    }

    /// Its line of the table.
    fn print(&self) {
        println!(
            "{:<34} {:<4} {:>12} {:>12} {:>8}  {:<8} {:<8}  {}",
            self.id,
            self.code.unwrap_or("-"),
            self.limit,
            self.measured,
            self.ratio.map_or("-".into(), |ratio| format!("{ratio:.3}")),
            self.target,
            format!("{:?}", self.verdict),
            self.workload
        );
    }
}

/// Runs all benchmarks, or those that `only` selects, prints the table and writes the JSON. One that fails doesn't keep
/// the others from running.
pub(crate) fn run(only: Option<&str>, json: Option<&Path>) -> Result<(), String> {
    let chosen = choose(only)?;
    let started = Instant::now();
    let bench = Bench::new()?;
    let (mut findings, mut failures) = (Vec::new(), Vec::new());
    println!(
        "{:<34} {:<4} {:>12} {:>12} {:>8}  {:<8} verdict",
        "id", "code", "limit", "measured", "ratio", "target"
    );
    for benchmark in chosen {
        match (benchmark.run)(&bench) {
            Ok(found) => {
                for finding in found {
                    let finding = Finding { code: benchmark.code, ..finding };
                    finding.print();
                    findings.push(finding);
                }
            }
            Err(error) => {
                eprintln!("{} FAILED: {error}", benchmark.id);
                failures.push(format!("{}: {error}", benchmark.id));
            }
        }
    }
    println!("{:.0} s in all", started.elapsed().as_secs_f64());
    if let Some(path) = json {
        write(path, &findings)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

fn write(path: &Path, findings: &[Finding]) -> Result<(), String> {
    let text = serde_json::to_string_pretty(&serde_json::json!({ "benchmarks": findings }))
        .map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("can't write {}: {error}", path.display()))
}

/// The benchmarks that `only` selects, by code or by how the id begins; all of them without it.
fn choose(only: Option<&str>) -> Result<Vec<&'static Benchmark>, String> {
    let Some(wanted) = only else { return Ok(ALL.iter().collect()) };
    let chosen: Vec<_> = ALL.iter().filter(|benchmark| benchmark.is(wanted)).collect();
    if chosen.is_empty() {
        let known: Vec<_> = ALL.iter().map(Benchmark::name).collect();
        return Err(format!("no benchmark {wanted:?}; there are: {}", known.join(", ")));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(only: &str) -> Vec<&'static str> {
        choose(Some(only)).unwrap().iter().map(|benchmark| benchmark.id).collect()
    }

    #[test]
    fn a_code_selects_its_benchmark_and_not_those_with_longer_codes() {
        assert_eq!(ids("B1"), ["empty-update"]);
        assert_eq!(ids("B10"), ["pull"]);
    }

    #[test]
    fn several_benchmarks_may_have_one_code() {
        assert_eq!(ids("B9"), ["tracking-store", "tracking-harvest", "tracking-pages"]);
    }

    #[test]
    fn the_start_of_an_id_selects_all_that_begin_so() {
        assert_eq!(ids("idle"), ["idle-workers"]);
        assert_eq!(ids("tracking-p"), ["tracking-pages"]);
    }

    #[test]
    fn an_unknown_one_is_refused_with_ids_and_codes() {
        let refused = choose(Some("B")).unwrap_err();
        assert!(refused.contains("empty-update (B1), "), "{refused}");
        assert!(refused.contains(", footprint, ") || refused.contains(": footprint, "), "{refused}");
    }

    #[test]
    fn no_two_benchmarks_have_one_id() {
        let mut ids: Vec<_> = ALL.iter().map(|benchmark| benchmark.id).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn a_target_is_met_or_missed_at_its_edge() {
        assert_eq!(Target::AtMost(1.5).judge(1.5, true), Verdict::Met);
        assert_eq!(Target::AtMost(1.5).judge(1.51, true), Verdict::Missed);
        assert_eq!(Target::AtLeast(0.9).judge(0.9, true), Verdict::Met);
        assert_eq!(Target::AtLeast(0.9).judge(0.89, true), Verdict::Missed);
    }

    #[test]
    fn a_failed_control_leaves_a_target_unjudged_and_a_figure_a_figure() {
        assert_eq!(Target::AtMost(1.5).judge(1.0, false), Verdict::Unjudged);
        assert_eq!(Target::None.judge(1.0, false), Verdict::Info);
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let absent = Finding::absent("peer", "no peer".into());
        assert_eq!((absent.ratio, absent.verdict), (None, Verdict::Absent));
    }
}
