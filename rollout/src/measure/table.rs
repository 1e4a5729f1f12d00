//! Both modes side by side.

use std::fmt;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::recorder::Histograms;
use super::{Arm, KINDS};

/// Columns, their quantile; the last is the maximum.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

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
        let rows = |control: Arm, candidate: Arm| {
            KINDS
                .into_iter()
                .map(|kind| Row {
                    kind,
                    control: histograms.get(&(control, kind)).and_then(summary),
                    candidate: histograms.get(&(candidate, kind)).and_then(summary),
                })
                .filter(|row| row.control.is_some() || row.candidate.is_some())
                .collect()
        };
        Self {
            modes: rows(Arm::InProcess, Arm::Sandboxed),
            shadow: rows(Arm::ShadowControl, Arm::ShadowCandidate),
        }
    }

    /// The same as data: latencies in nanoseconds, `null` where nothing was measured.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows = |rows: &[Row], control: Arm, candidate: Arm| -> Vec<Value> {
            rows.iter()
                .map(|row| {
                    json!({
                        "kind": row.kind,
                        (control.as_str()): row.control.as_ref().map(Summary::to_json),
                        (candidate.as_str()): row.candidate.as_ref().map(Summary::to_json),
                        "ratio": row.ratios().map(columns),
                    })
                })
                .collect()
        };
        json!({
            "modes": rows(&self.modes, Arm::InProcess, Arm::Sandboxed),
            "shadow": rows(&self.shadow, Arm::ShadowControl, Arm::ShadowCandidate),
        })
    }
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
        section(f, &self.modes, [Arm::InProcess, Arm::Sandboxed])?;
        if !self.shadow.is_empty() {
            f.write_str("\n\n")?;
            section(f, &self.shadow, [Arm::ShadowControl, Arm::ShadowCandidate])?;
        }
        Ok(())
    }
}

fn section(f: &mut fmt::Formatter<'_>, rows: &[Row], arms: [Arm; 2]) -> fmt::Result {
    write!(f, "{:<16} {:<16} {:>9}", "kind", "mode", "count")?;
    for (name, _) in QUANTILES {
        write!(f, " {name:>9}")?;
    }
    if rows.is_empty() {
        write!(f, "\n{:<16} {:<16} {:>9}", "-", "-", "-")?;
    }
    for row in rows {
        for (arm, summary, name) in [(arms[0], &row.control, row.kind), (arms[1], &row.candidate, "")] {
            write!(f, "\n{name:<16} {:<16}", arm.as_str())?;
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
