//! What a replay shows.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use rollout::{Mode, ShadowCounts};
use serde_json::{Value, json};

use super::{Counts, Difference, Play, Verdict};
use crate::Node;
use crate::log::{Extent, Survey, VERSION};
use crate::observation::escaped;

/// The end of a replay.
pub(super) struct Output {
    pub(super) survey: Survey,
    pub(super) verdict: Verdict,
    counts: Counts,
    sides: Vec<Side>,
    latencies: Latencies,
}

/// A node at the end.
struct Side {
    mode: Mode,
    state_root: [u8; 32],
    layers_off: Vec<&'static str>,
    shadow: Option<ShadowCounts>,
}

enum Latencies {
    One(Box<rollout::Table>),
    Both(Box<rollout::Beside>),
}

impl Output {
    pub(super) fn new(survey: Survey, verdict: Verdict, mut play: Play, modes: [Option<Mode>; 2]) -> Self {
        let counts = play.counts();
        let (node, other) = play.nodes();
        let latencies = match (&other, modes) {
            (Some(other), [Some(mode), Some(against)]) => {
                Latencies::Both(Box::new(node.recorder().beside(other.recorder(), [mode, against])))
            }
            _ => Latencies::One(Box::new(node.recorder().table())),
        };
        let nodes = [Some(node), other].into_iter().zip(modes);
        let sides = nodes.filter_map(|(node, mode)| Some(Side::of(node?, mode?))).collect();
        Self { survey, verdict, counts, sides, latencies }
    }

    /// Writes it to standard output.
    pub(super) fn print(&self, path: &Path, as_json: bool) -> io::Result<()> {
        let text = if as_json { format!("{:#}\n", self.json()) } else { self.text(path) };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn text(&self, path: &Path) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a String takes it");
        let Survey { head, rounds, messages, queries, rounds_end: _, extent } = &self.survey;
        line(format_args!(
            "{}: format {VERSION}, {} subnet, recorded by bulkhead {}: {rounds} rounds, {messages} messages, {queries} queries",
            path.display(),
            head.preset.as_str(),
            escaped(&head.program),
        ));
        if let Extent::Until(_, error) = extent {
            line(format_args!("{error}: replayed up to its last whole round, round {rounds}"));
        }
        line(format_args!("\nTime of an execution in its backend"));
        match &self.latencies {
            Latencies::One(table) => line(format_args!("{table}")),
            Latencies::Both(beside) => line(format_args!("{beside}")),
        }
        let counts = &self.counts;
        line(format_args!(
            "\nreplayed      {} rounds, {} messages ({} refused at admission), {} queries, {} runs",
            counts.rounds, counts.messages, counts.refused, counts.queries, counts.runs
        ));
        for Side { mode, state_root, layers_off, shadow } in &self.sides {
            line(format_args!("state root    {}  {mode}", hex::encode(state_root)));
            if !layers_off.is_empty() {
                line(format_args!("sandbox layers off  {}", layers_off.join(", ")));
            }
            if let Some(ShadowCounts { offered, equal, diverged, dropped, failed, .. }) = shadow {
                line(format_args!(
                    "run in shadow {offered}: equal {equal}, different {diverged}, not compared {}",
                    dropped + failed
                ));
            }
        }
        match &self.verdict {
            Verdict::Equal => match extent {
                Extent::Whole => line(format_args!("EQUAL")),
                Extent::Until(..) => line(format_args!("EQUAL up to round {rounds}")),
            },
            Verdict::Undecided(why) => line(format_args!("UNDECIDED: {why}")),
            Verdict::Different(difference) => {
                let Difference { round, what, field, names, .. } = &**difference;
                line(format_args!("DIFFERENT in round {round}: {what}"));
                line(format_args!("  {:<18}  {}", "field", field.name));
                for (name, value) in names.iter().zip(&field.values) {
                    line(format_args!("  {name:<18}  {value}"));
                }
            }
        }
        text
    }

    fn json(&self) -> Value {
        let Survey { head, rounds, messages, queries, rounds_end: _, extent } = &self.survey;
        let (verdict, difference, undecided) = match &self.verdict {
            Verdict::Equal => ("equal", Value::Null, None),
            Verdict::Different(difference) => ("different", difference_json(difference), None),
            Verdict::Undecided(why) => ("undecided", Value::Null, Some(why)),
        };
        let (executions, nodes) = match &self.latencies {
            Latencies::One(table) => (table.to_json(), None),
            Latencies::Both(beside) => (beside.to_json(), Some(&beside.names)),
        };
        let counts = self.counts;
        json!({
            "verdict": verdict,
            "difference": difference,
            "undecided": undecided,
            "log": {
                "format": VERSION, "program": escaped(&head.program), "preset": head.preset.as_str(),
                "rounds": rounds, "messages": messages, "queries": queries,
                "ends_early": match extent {
                    Extent::Whole => None,
                    Extent::Until(_, error) => Some(error.to_string()),
                },
            },
            "replayed": {
                "rounds": counts.rounds, "messages": counts.messages, "refused": counts.refused,
                "queries": counts.queries, "runs": counts.runs,
            },
            "compared": nodes,
            "sides": self.sides.iter().map(Side::json).collect::<Vec<_>>(),
            "executions_ns": executions,
        })
    }
}

impl Side {
    fn of(node: &mut Node, mode: Mode) -> Self {
        Self {
            mode,
            state_root: node.state_root(),
            layers_off: node.layers_off(),
            shadow: (mode == Mode::Shadow).then(|| node.shadow_counts()),
        }
    }

    fn json(&self) -> Value {
        json!({
            "mode": self.mode.as_str(),
            "state_root": hex::encode(self.state_root),
            "sandbox_layers_off": self.layers_off,
            "shadow": self.shadow.map(|counts| json!({
                "compared": counts.equal + counts.diverged, "diverged": counts.diverged,
                "dropped": counts.dropped, "failed": counts.failed,
            })),
        })
    }
}

fn difference_json(difference: &Difference) -> Value {
    let Difference { round, run, message, canister, method, what, field, names } = difference;
    let page = field.page.map(|(space, page)| json!({ "memory": space.as_str(), "page": page }));
    json!({
        "round": round, "run": run, "message": message,
        "canister": canister.map(|canister| canister.to_text()), "method": method,
        "what": what, "field": field.name, "page": page,
        "values": names.iter().zip(&field.values).map(|(name, value)| json!({ "of": name, "value": value })).collect::<Vec<_>>(),
    })
}
