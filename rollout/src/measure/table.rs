//! Both modes side by side.

use std::fmt;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::recorder::Histograms;
use super::{Arm, KINDS};
use crate::Mode;

/// Columns, their quantile; the last is the maximum.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

const MODES: [&str; 2] = ["in-process", "sandboxed"];
const SHADOW: [&str; 2] = ["shadow-control", "shadow-candidate"];

/// Latencies of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Measurements.
    pub count: u64,
    /// p50, p90, p99, p99.9 and the maximum, nanoseconds.
    pub nanoseconds: [u64; 5],
}

/// One kind of message in two arms; `None` where nothing was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `EntryPoint::kind`.
    pub kind: &'static str,
    /// The in-process run.
    pub control: Option<Summary>,
    /// The sandboxed run.
    pub candidate: Option<Summary>,
}

impl Row {
    /// Candidate over control, for each of `Summary::nanoseconds`; `None` without both.
    #[must_use]
    pub fn ratios(&self) -> Option<[f64; 5]> {
        let (control, candidate) = (self.control.as_ref()?, self.candidate.as_ref()?);
        #[expect(clippy::cast_precision_loss, reason = "latencies of at most 60 s are exact in an f64")]
        let ratio = |at: usize| candidate.nanoseconds[at] as f64 / control.nanoseconds[at].max(1) as f64;
        Some(std::array::from_fn(ratio))
    }
}

/// Latencies by kind of message. `Display` is plain text of at most 100 columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Mode `in-process` against mode `sandboxed`.
    pub modes: Vec<Row>,
    /// Both runs of mode `shadow`.
    pub shadow: Vec<Row>,
}

impl Table {
    pub(super) fn new(histograms: &Histograms) -> Self {
        let within = |control, candidate| rows([histograms, histograms], [control, candidate]);
        Self {
            modes: within(Arm::InProcess, Arm::Sandboxed),
            shadow: within(Arm::ShadowControl, Arm::ShadowCandidate),
        }
    }

    /// The same as data: latencies in nanoseconds, `null` where nothing was measured.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "modes": rows_json(&self.modes, MODES),
            "shadow": rows_json(&self.shadow, SHADOW),
        })
    }
}

/// What two nodes committed, each in a mode of its own, by kind of message. `Display` is plain text of at most
/// 100 columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// What the rows of the first and of the second node are called: their modes, told apart where they are equal.
    pub names: [String; 2],
    /// The first node's is `control`.
    pub rows: Vec<Row>,
}

impl Beside {
    pub(super) fn new(histograms: [&Histograms; 2], modes: [Mode; 2]) -> Self {
        Self { names: Self::names_of(modes), rows: rows(histograms, modes.map(Arm::committed)) }
    }

    /// The modes' names, told apart where they are equal.
    #[must_use]
    pub fn names_of(modes: [Mode; 2]) -> [String; 2] {
        let names = modes.map(|mode| mode.as_str().to_owned());
        if modes[0] == modes[1] { [names[0].clone() + " A", names[1].clone() + " B"] } else { names }
    }

    /// The same as data: latencies in nanoseconds, `null` where nothing was measured.
    #[must_use]
    pub fn to_json(&self) -> Value {
        rows_json(&self.rows, [&self.names[0], &self.names[1]])
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, &self.rows, [&self.names[0], &self.names[1]])
    }
}

fn rows(histograms: [&Histograms; 2], arms: [Arm; 2]) -> Vec<Row> {
    KINDS
        .into_iter()
        .map(|kind| Row {
            kind,
            control: histograms[0].get(&(arms[0], kind)).and_then(summary),
            candidate: histograms[1].get(&(arms[1], kind)).and_then(summary),
        })
        .filter(|row| row.control.is_some() || row.candidate.is_some())
        .collect()
}

fn rows_json(rows: &[Row], names: [&str; 2]) -> Value {
    rows.iter()
        .map(|row| {
            json!({
                "kind": row.kind,
                (names[0]): row.control.as_ref().map(Summary::to_json),
                (names[1]): row.candidate.as_ref().map(Summary::to_json),
                "ratio": row.ratios().map(columns),
            })
        })
        .collect()
}

impl Summary {
    fn to_json(&self) -> Value {
        let mut value = columns(self.nanoseconds);
        value["count"] = self.count.into();
        value
    }
}

fn columns<T: Into<Value>>(values: [T; 5]) -> Value {
    QUANTILES.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), value.into())).collect()
}

fn summary(histogram: &Histogram<u64>) -> Option<Summary> {
    if histogram.is_empty() {
        return None;
    }
    let nanoseconds =
        QUANTILES.map(|(_, quantile)| histogram.value_at_quantile(quantile).min(histogram.max()));
    Some(Summary { count: histogram.len(), nanoseconds })
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, &self.modes, MODES)?;
        if !self.shadow.is_empty() {
            f.write_str("\n\n")?;
            section(f, &self.shadow, SHADOW)?;
        }
        Ok(())
    }
}

fn section(f: &mut fmt::Formatter<'_>, rows: &[Row], names: [&str; 2]) -> fmt::Result {
    write!(f, "{:<16} {:<16} {:>9}", "kind", "mode", "count")?;
    for (name, _) in QUANTILES {
        write!(f, " {name:>9}")?;
    }
    if rows.is_empty() {
        write!(f, "\n{:<16} {:<16} {:>9}", "-", "-", "-")?;
    }
    for row in rows {
        for (name, summary, kind) in [(names[0], &row.control, row.kind), (names[1], &row.candidate, "")] {
            write!(f, "\n{kind:<16} {name:<16}")?;
            match summary {
                Some(summary) => {
                    write!(f, " {:>9}", summary.count)?;
                    for nanoseconds in summary.nanoseconds {
                        write!(f, " {:>9}", shown(nanoseconds))?;
                    }
                }
                None => write!(f, "{}", "         -".repeat(1 + QUANTILES.len()))?,
            }
        }
        write!(f, "\n{:<16} {:<16} {:>9}", "", "ratio", "")?;
        match row.ratios() {
            Some(ratios) => {
                for ratio in ratios {
                    write!(f, " {:>9}", format!("{ratio:.2}x"))?;
                }
            }
            None => write!(f, "{}", "         -".repeat(QUANTILES.len()))?,
        }
    }
    Ok(())
}

/// Three or four significant digits with a unit, at most 8 characters.
fn shown(nanoseconds: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with at most four digits")]
    let value = nanoseconds as f64;
    let (value, unit) = match nanoseconds {
        0..1_000_000 => (value / 1e3, "us"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    if value < 100.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}
