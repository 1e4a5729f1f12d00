//! `/metrics`: the text formats that Prometheus scrapes, OpenMetrics 1.0 for whoever asks for it and the older one for
//! everybody else. No label has an open set of values.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use rollout::{
    Arm, DivergenceClass, KINDS, MessagePhase, Mode, SAMPLED, SandboxPhase, ShadowCounts, Start,
    SwitchDirection, SwitchPhase,
};
use sandbox_host::ROUND_TRIP_EVERY;
use serde_json::Value;

use super::rollouts::PHASES;
use super::status::{Board, NodeView, Phase};
use super::view::COMMITTED;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// What Prometheus had before, and what its tools read.
    Plain,
}

impl Format {
    /// The one for a client that accepts these types.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Plain }
    }

    /// The type that the format names.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Upper bounds of the latency buckets, seconds: 1, 2.5, 5 in each decade from 5 us to 60 s.
const BUCKETS: [f64; 23] = [
    5e-6,
    1e-5,
    2.5e-5,
    5e-5,
    1e-4,
    2.5e-4,
    5e-4,
    1e-3,
    2.5e-3,
    5e-3,
    1e-2,
    2.5e-2,
    5e-2,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    60.0,
    f64::INFINITY,
];

/// A scrape.
///
/// # Errors
/// Never: a `String` takes everything.
pub(super) fn scrape(board: &Arc<Board>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("bulkhead");
    registry.register_collector(Box::new(Scrape(Arc::clone(board))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Plain => plain(&text),
    })
}

/// OpenMetrics in the older format, where a counter's family has the name of its samples, and nothing marks the end.
fn plain(text: &str) -> String {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let counters: HashSet<&str> =
        kinds.filter(|(_, kind)| *kind == "counter").map(|(name, _)| name).collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let (mark, said) = match line.get(..7) {
            Some(mark @ ("# HELP " | "# TYPE ")) => (mark, &line[7..]),
            _ => ("", line),
        };
        match said.split_once(' ') {
            Some((name, rest)) if !mark.is_empty() && counters.contains(name) => {
                out.extend([mark, name, "_total ", rest, "\n"]);
            }
            _ => out.extend([line, "\n"]),
        }
    }
    out
}

struct Scrape(Arc<Board>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

/// A value with its labels.
type Sample<const N: usize> = ([(&'static str, String); N], u64);

fn family<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: MetricType,
    samples: impl IntoIterator<Item = Sample<N>>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    // No data is no line.
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in samples {
        if N == 0 {
            encode(&mut metric, kind, value)?;
        } else {
            encode(&mut metric.encode_family(&labels)?, kind, value)?;
        }
    }
    Ok(())
}

fn encode(metric: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter::<[(&str, &str); 0], _, u64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let nodes = self.0.nodes();
        self.subnet(encoder)?;
        durations(encoder, nodes)?;
        phases(encoder, nodes)?;
        switches(encoder, nodes)?;
        executions(encoder, nodes)?;
        policies(encoder, nodes)?;
        sandboxes(encoder, nodes)?;
        shadows(encoder, nodes)?;
        rollouts(encoder, &self.0.rollouts())
    }
}

impl Scrape {
    fn subnet(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ready = u64::from(self.0.phase() == Phase::Serving);
        let none = |value| [([], value)];
        family(
            encoder,
            ("build_info", "Version of this program"),
            MetricType::Gauge,
            [([("version", env!("CARGO_PKG_VERSION").to_owned())], 1)],
        )?;
        family(encoder, ("ready", "Whether messages are taken in"), MetricType::Gauge, none(ready))?;
        // Until the input log is run again there is nothing to say of it, and nothing isn't zero.
        let Some((committed, _)) = self.0.committed() else { return Ok(()) };
        family(encoder, ("rounds", "Rounds in the input log"), MetricType::Counter, none(committed.rounds))?;
        family(
            encoder,
            ("acknowledged_messages", "Users' messages on the disk since the start"),
            MetricType::Counter,
            none(committed.acknowledged),
        )?;
        family(
            encoder,
            ("input_log_bytes", "Size of the input log"),
            MetricType::Gauge,
            none(committed.log_bytes),
        )
    }
}

fn durations(encoder: &mut DescriptorEncoder<'_>, nodes: &[NodeView]) -> fmt::Result {
    let intervals: Vec<_> =
        nodes.iter().map(|node| (&node.name, node.instruments.recorder().total_interval())).collect();
    if intervals.iter().all(|(_, interval)| interval.series().next().is_none()) {
        return Ok(());
    }
    let help = "Time in the backend of an execution";
    let mut metric =
        encoder.encode_descriptor("execution_duration_seconds", help, None, MetricType::Histogram)?;
    for (node, interval) in &intervals {
        for (arm, kind, histogram) in interval.series() {
            let labels = [("node", node.as_str()), ("mode", arm.as_str()), ("kind", kind)];
            encode_histogram(&mut metric, &labels, histogram)?;
        }
    }
    Ok(())
}

/// Histograms with their labels, of one family.
type Series<'a, const N: usize> = Vec<([(&'static str, String); N], &'a Histogram<u64>)>;

fn histograms<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    series: Series<'_, N>,
) -> fmt::Result {
    // No data is no line.
    if series.is_empty() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    series.into_iter().try_for_each(|(labels, histogram)| encode_histogram(&mut metric, &labels, histogram))
}

fn phases(encoder: &mut DescriptorEncoder<'_>, nodes: &[NodeView]) -> fmt::Result {
    let times: Vec<_> = nodes
        .iter()
        .map(|node| (&node.name, node.instruments.phases().total(), node.instruments.messages().total()))
        .collect();
    let (mut phases, mut round_trips, mut waits) = (Series::new(), Series::new(), Series::new());
    for (name, sandbox, messages) in &times {
        let node = || ("node", (*name).clone());
        let labels = |mode: Arm, start: &str, phase: &str| {
            let mode = ("mode", mode.as_str().to_owned());
            [node(), mode, ("start", start.to_owned()), ("phase", phase.to_owned())]
        };
        for start in Start::ALL {
            let of = |phase: SandboxPhase| {
                let labels = labels(Arm::Sandboxed, start.as_str(), phase.as_str());
                Some((labels, sandbox.one(start, phase)?))
            };
            phases.extend(SandboxPhase::ALL.into_iter().filter_map(of));
        }
        for arm in COMMITTED {
            let of =
                |phase: MessagePhase| Some((labels(arm, "any", phase.as_str()), messages.one(arm, phase)?));
            phases.extend(MessagePhase::ALL.into_iter().filter_map(of));
        }
        round_trips.extend(sandbox.round_trip().map(|found| ([node()], found)));
        let wait = |kind: &str| Some(([node(), ("kind", kind.to_owned())], messages.waits(kind)?));
        waits.extend(KINDS.into_iter().filter_map(wait));
    }
    let help = format!(
        "Parts of executions: prepare, worker and pages of sandboxed ones; of one message in {SAMPLED} queue, backend, check and commit"
    );
    histograms(encoder, ("execution_phase_seconds", &help), phases)?;
    let help = format!("Bare round trips to a warm worker, one before each {ROUND_TRIP_EVERY}th execution");
    histograms(encoder, ("sandbox_round_trip_seconds", &help), round_trips)?;
    let help = format!("How long messages waited for their canister, one in {SAMPLED}");
    histograms(encoder, ("queue_wait_seconds", &help), waits)
}

/// What is under way, and how long switches took.
fn switches(encoder: &mut DescriptorEncoder<'_>, nodes: &[NodeView]) -> fmt::Result {
    let mut in_flight = Vec::new();
    for node in nodes {
        let (current, old) = node.instruments.live().under_way();
        for (generation, counts) in [("current", current), ("old", old)] {
            in_flight.extend(Mode::ALL.map(|mode| {
                let generation = ("generation", generation.to_owned());
                ([("node", node.name.clone()), ("mode", mode.to_string()), generation], counts.one(mode))
            }));
        }
    }
    let help = "Executions under way, by whether they began under the policy in force";
    family(encoder, ("inflight_executions", help), MetricType::Gauge, in_flight)?;
    let times: Vec<_> =
        nodes.iter().map(|node| (&node.name, node.instruments.live().switch_times())).collect();
    let mut series = Series::new();
    for (name, times) in &times {
        for direction in SwitchDirection::ALL {
            let of = |phase: SwitchPhase| {
                let labels = [
                    ("node", (*name).clone()),
                    ("phase", phase.as_str().to_owned()),
                    ("direction", direction.as_str().to_owned()),
                ];
                Some((labels, times.one(direction, phase)?))
            };
            series.extend(SwitchPhase::ALL.into_iter().filter_map(of));
        }
    }
    let help = "Switches of the mode: launching workers ahead, until in force, from there until drained and until the first execution";
    histograms(encoder, ("switch_duration_seconds", help), series)
}

fn encode_histogram(
    metric: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    histogram: &Histogram<u64>,
) -> fmt::Result {
    let mut buckets = BUCKETS.map(|bound| (bound, 0));
    let mut sum = 0.0;
    for step in histogram.iter_recorded() {
        #[expect(clippy::cast_precision_loss, reason = "latencies of at most 60 s are exact in an f64")]
        let (seconds, count) = (step.value_iterated_to() as f64 / 1e9, step.count_at_value());
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        buckets[bucket].1 += count;
        #[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 are none of this process")]
        let weight = count as f64;
        sum += seconds * weight;
    }
    metric.encode_family(labels)?.encode_histogram::<[(&str, &str); 0]>(sum, histogram.len(), &buckets, None)
}

fn executions(encoder: &mut DescriptorEncoder<'_>, nodes: &[NodeView]) -> fmt::Result {
    let (mut messages, mut traps) = (Vec::new(), Vec::new());
    for node in nodes {
        let counts = node.instruments.outcomes().counts();
        let labels = |mode: rollout::Mode| [("node", node.name.clone()), ("mode", mode.to_string())];
        for ((mode, kind, outcome), count) in counts.executions {
            let [node, mode] = labels(mode);
            messages.push(([node, mode, ("kind", kind.to_owned()), ("outcome", outcome.to_owned())], count));
        }
        for ((mode, code), count) in counts.traps {
            let [node, mode] = labels(mode);
            let reason = code.map_or("other".to_owned(), |code| execution::ErrorCode(code).to_string());
            traps.push(([node, mode, ("reason", reason)], count));
        }
    }
    let help = "Executions that finished, by the mode that gave their result";
    family(encoder, ("messages", help), MetricType::Counter, messages)?;
    family(encoder, ("traps", "Executions that were undone, by error code"), MetricType::Counter, traps)
}

fn policies(encoder: &mut DescriptorEncoder<'_>, nodes: &[NodeView]) -> fmt::Result {
    let labels = |node: &NodeView| ("node", node.name.clone());
    let generation = |node: &NodeView| ([labels(node)], node.instruments.live().in_force().generation);
    let good = |node: &NodeView| ([labels(node)], u64::from(node.instruments.live().last_error().is_none()));
    let mode = |node: &NodeView| {
        let mode = node.instruments.live().in_force().mode();
        ([labels(node), ("mode", mode.to_string())], 1)
    };
    let help = "Generation of the policy in force";
    family(encoder, ("config_observed_generation", help), MetricType::Gauge, nodes.iter().map(generation))?;
    let help = "Whether the policy file as it is now is in force";
    family(encoder, ("config_last_reload_successful", help), MetricType::Gauge, nodes.iter().map(good))?;
    family(encoder, ("mode_info", "The mode in force"), MetricType::Gauge, nodes.iter().map(mode))
}

fn sandboxes(encoder: &mut DescriptorEncoder<'_>, nodes: &[NodeView]) -> fmt::Result {
    let statuses: Vec<_> =
        nodes.iter().filter_map(|node| Some((&node.name, node.instruments.sandbox()?))).collect();
    let samples = |value: fn(&sandbox_host::SandboxStatus) -> u64| {
        statuses.iter().map(move |(node, status)| ([("node", (*node).clone())], value(status)))
    };
    let help = "Live worker processes";
    let workers = samples(|status| status.workers.len() as u64);
    family(encoder, ("sandbox_processes", help), MetricType::Gauge, workers)?;
    let help = "Private memory of all workers";
    family(
        encoder,
        ("sandbox_resident_bytes", help),
        MetricType::Gauge,
        samples(|status| status.memory_bytes),
    )?;
    let help = "Workers that were found dead when they were needed";
    family(encoder, ("sandbox_crashes", help), MetricType::Counter, samples(|status| status.deaths))?;
    let help = "What workers did that no correct worker does";
    family(encoder, ("sandbox_violations", help), MetricType::Counter, samples(|status| status.violations))
}

fn shadows(encoder: &mut DescriptorEncoder<'_>, nodes: &[NodeView]) -> fmt::Result {
    let counts: Vec<_> = nodes.iter().map(|node| (&node.name, node.instruments.shadow_counts())).collect();
    let results = |(node, counts): &(&String, ShadowCounts)| {
        let ShadowCounts { equal, diverged, dropped, over_budget, timed_out, failed, unsampled, .. } =
            *counts;
        let results = [
            ("equal", equal),
            ("different", diverged),
            ("dropped", dropped),
            ("over-budget", over_budget),
            ("timed-out", timed_out),
            ("failed", failed),
            ("unsampled", unsampled),
        ];
        let node = (*node).clone();
        results.map(|(word, count)| ([("node", node.clone()), ("result", word.to_owned())], count))
    };
    let help = "Executions run in shadow, by what came of the comparison";
    family(encoder, ("shadow_comparisons", help), MetricType::Counter, counts.iter().flat_map(results))?;
    let classes = |(node, counts): &(&String, ShadowCounts)| {
        let (node, counts) = ((*node).clone(), *counts);
        DivergenceClass::ALL
            .map(|class| ([("node", node.clone()), ("class", class.to_string())], counts.of(class)))
    };
    let help = "Executions whose results differed, by what both runs gave again";
    family(encoder, ("divergences", help), MetricType::Counter, counts.iter().flat_map(classes))
}

/// What the thread that drives rollouts has shown; nothing before it has.
fn rollouts(encoder: &mut DescriptorEncoder<'_>, board: &Value) -> fmt::Result {
    if board.is_null() {
        return Ok(());
    }
    let all: Vec<(String, &Value)> = items(&board["rollouts"])
        .map(|rollout| (rollout["id"].as_str().unwrap_or_default().to_owned(), rollout))
        .collect();
    let label = |id: &str| ("rollout", id.to_owned());
    let phases = all.iter().flat_map(|(id, rollout)| {
        PHASES.map(|phase| ([label(id), ("phase", phase.to_owned())], u64::from(rollout["phase"] == phase)))
    });
    family(encoder, ("rollout_phase", "Whether a rollout is in this phase"), MetricType::Gauge, phases)?;
    let of = |value: fn(&Value) -> u64| all.iter().map(move |(id, rollout)| ([label(id)], value(rollout)));
    let help = "The step under way or next, from 1";
    let step = of(|rollout| rollout["step"]["index"].as_u64().map_or(0, |index| index + 1));
    family(encoder, ("rollout_step", help), MetricType::Gauge, step)?;
    let help = "Time with traffic of the step under way, whole seconds";
    let baked = of(|rollout| rollout["baked_ms"].as_u64().unwrap_or_default() / 1_000);
    family(encoder, ("rollout_bake_seconds", help), MetricType::Gauge, baked)?;
    let help = "Whether a rollback keeps the candidate out";
    family(
        encoder,
        ("latch_active", help),
        MetricType::Gauge,
        of(|rollout| u64::from(rollout["latched"] == true)),
    )?;
    let help = "Whether the state of a rollout can't be stored";
    family(
        encoder,
        ("rollout_frozen", help),
        MetricType::Gauge,
        of(|rollout| u64::from(rollout["frozen"] == true)),
    )?;
    let ended = all.iter().flat_map(|(id, rollout)| {
        let ended = rollout["ended"].as_object().into_iter().flatten();
        ended.map(|(status, count)| {
            ([label(id), ("status", status.clone())], count.as_u64().unwrap_or_default())
        })
    });
    family(encoder, ("rollouts_ended", "Runs that ended, by how"), MetricType::Counter, ended)?;
    let guards: Vec<(String, String, &Value)> = all
        .iter()
        .flat_map(|(id, rollout)| {
            let name = |guard: &Value| guard["guard"].as_str().unwrap_or_default().to_owned();
            items(&rollout["verdicts"]).map(move |guard| (id.clone(), name(guard), guard))
        })
        .collect();
    let verdicts = guards.iter().flat_map(|(id, name, guard)| {
        ["PASS", "FAIL", "INCONCLUSIVE"].map(|verdict| {
            let labels = [label(id), ("guard", name.clone()), ("verdict", verdict.to_owned())];
            (labels, u64::from(guard["verdict"] == verdict))
        })
    });
    family(encoder, ("guard_verdict", "What a guard said at the last look"), MetricType::Gauge, verdicts)?;
    guard_values(encoder, &guards)?;
    let none = |value: bool| [([], u64::from(value))];
    let help = "Whether the kill switch is engaged";
    family(
        encoder,
        ("kill_switch_engaged", help),
        MetricType::Gauge,
        none(board["kill"]["engaged"] == true),
    )?;
    let help = "Whether no rollout may go on to a next step";
    family(encoder, ("line_stopped", help), MetricType::Gauge, none(board["line"]["stopped"].is_string()))?;
    let entries = [([], board["audit"]["entries"].as_u64().unwrap_or_default())];
    family(encoder, ("audit_entries", "Entries of the audit log"), MetricType::Counter, entries)
}

fn guard_values(encoder: &mut DescriptorEncoder<'_>, guards: &[(String, String, &Value)]) -> fmt::Result {
    let values: Vec<_> = guards
        .iter()
        .flat_map(|(id, name, guard)| {
            [("estimate", "ratio"), ("lower", "lower"), ("upper", "upper"), ("limit", "limit")]
                .map(|(stat, key)| (id, name, stat, guard[key].as_f64()))
        })
        .filter_map(|(id, name, stat, value)| Some((id, name, stat, value?)))
        .collect();
    if values.is_empty() {
        return Ok(());
    }
    let help = "Ratio of candidate to control at the last look, its bounds and its limit";
    let mut metric = encoder.encode_descriptor("guard_value", help, None, MetricType::Gauge)?;
    for (id, name, stat, value) in values {
        let labels = [("rollout", id.as_str()), ("guard", name.as_str()), ("stat", stat)];
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
