//! What the interface shows, as data: the status and the latencies.

use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use rollout::{
    Arm, DivergenceClass, Interval, KINDS, MessagePhase, MessageTimes, Mode, PhaseTimes, SAMPLED,
    SandboxPhase, ShadowCounts, Start, SwitchDirection, SwitchPhase, SwitchTimes, UnderWay,
};
use serde_json::{Map, Value, json};

use super::status::{Board, Committed, NodeView, Phase};

/// Steps of a percentile curve for each halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;
/// Whose outcomes are committed.
pub(super) const COMMITTED: [Arm; 3] = [Arm::InProcess, Arm::Sandboxed, Arm::ShadowControl];

/// Everything but latencies.
pub(super) fn status(board: &Board) -> Value {
    let (committed, since) = board.committed().unzip();
    let known = |value: fn(&Committed) -> Value| committed.as_ref().map(value);
    let phase = board.phase();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": phase.as_str(),
        "ready": phase == Phase::Serving,
        "why_not_ready": phase.why_not_ready(),
        "began": seconds(board.began()),
        "data_age_seconds": since.map(|since| since.elapsed().as_secs_f64()),
        "rounds": known(|committed| committed.rounds.into()),
        "round_time_ns": known(|committed| committed.time.into()),
        "messages": {
            "in_log": known(|committed| committed.messages.into()),
            "acknowledged": known(|committed| committed.acknowledged.into()),
            "refused": known(|committed| committed.refused.into()),
        },
        "input_log_bytes": known(|committed| committed.log_bytes.into()),
        "state_root": known(|committed| hex::encode(committed.state_root).into()),
        "certified_root": known(|committed| hex::encode(committed.certified_root).into()),
        "nodes": board.nodes().iter().map(node).collect::<Vec<_>>(),
        "divergences_found_before": board.found_before().kinds.len(),
        "rollouts": *board.rollouts(),
    })
}

fn node(node: &NodeView) -> Value {
    let instruments = &node.instruments;
    let in_force = instruments.live().in_force();
    let shadow = instruments.shadow_counts();
    let sandbox = instruments.sandbox().map(|status| {
        json!({
            "confinement": status.confinement.as_ref().map(ToString::to_string),
            "layers_off": status.layers.iter().filter(|(_, on)| !on).map(|(name, _)| name).collect::<Vec<_>>(),
            "workers": status.workers.iter().map(|worker| json!({
                "pid": worker.pid,
                "canister": worker.canister.map(|(canister, _)| canister.to_text()),
                "memory_bytes": worker.memory_bytes,
            })).collect::<Vec<_>>(),
            "workers_max": status.workers_max,
            "memory_bytes": status.memory_bytes,
            "launches": status.launches,
            "deaths": status.deaths,
            "violations": status.violations,
            "launch_error": status.launch_error,
        })
    });
    json!({
        "node": node.name,
        "mode": in_force.mode().as_str(),
        "resolution": in_force.resolution.to_json(),
        "generation": in_force.generation,
        "in_force_since": seconds(in_force.since_time),
        "restart_for": in_force.restart_for,
        "under_way": under_way(instruments.live().under_way()),
        "switches": switches(&instruments.live().switch_times()),
        "policy_refused": instruments.live().last_error().map(|error| error.to_string()),
        "sandbox": sandbox,
        "shadow": {
            "offered": shadow.offered, "equal": shadow.equal, "diverged": shadow.diverged,
            "dropped": shadow.dropped, "over_budget": shadow.over_budget, "timed_out": shadow.timed_out,
            "failed": shadow.failed, "unsampled": shadow.unsampled, "classes": classes(&shadow),
        },
    })
}

/// Executions under way, by whether their policy is still in force, and by mode.
fn under_way((current, old): (UnderWay, UnderWay)) -> Value {
    let modes = |counts: UnderWay| -> Map<String, Value> {
        Mode::ALL.into_iter().map(|mode| (mode.as_str().to_owned(), counts.one(mode).into())).collect()
    };
    json!({ "current": modes(current), "old": modes(old) })
}

/// How long switches took, by where they led. What was not measured is `null`.
fn switches(times: &SwitchTimes) -> Map<String, Value> {
    let of = |direction| -> Map<String, Value> {
        let one = |phase| times.one(direction, phase).map_or(Value::Null, quantiles);
        SwitchPhase::ALL.into_iter().map(|phase| (phase.as_str().to_owned(), one(phase))).collect()
    };
    let directions = SwitchDirection::ALL.into_iter();
    directions.map(|direction| (direction.as_str().to_owned(), of(direction).into())).collect()
}

/// How many diverged in each way.
fn classes(counts: &ShadowCounts) -> Map<String, Value> {
    DivergenceClass::ALL
        .into_iter()
        .map(|class| (class.as_str().to_owned(), counts.of(class).into()))
        .collect()
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What each node measured.
fn measured(board: &Board) -> Vec<Interval> {
    board.nodes().iter().map(|node| node.instruments.recorder().total_interval()).collect()
}

/// What all nodes measured together; exact.
pub(super) fn merged(board: &Board) -> Interval {
    sum(&measured(board))
}

fn sum(intervals: &[Interval]) -> Interval {
    let (first, others) = intervals.split_first().expect("there is a node");
    let mut sum = first.clone();
    others.iter().for_each(|interval| sum.add(interval));
    sum
}

/// Latencies by kind and mode, of each node and of all together. What was not measured is `null`.
pub(super) fn latencies(board: &Board) -> Value {
    let intervals = measured(board);
    let merged = sum(&intervals);
    let times: Vec<Times> = board.nodes().iter().map(Times::of).collect();
    let mut all = Times::default();
    times.iter().for_each(|times| all.add(times));
    let nodes = board.nodes().iter().zip(intervals.iter().zip(&times));
    json!({
        "unit": "ns",
        "since": seconds(merged.start),
        "data_age_seconds": board.committed().map(|(_, since)| since.elapsed().as_secs_f64()),
        "nodes": nodes
            .map(|(node, (interval, times))| {
                json!({ "node": node.name, "kinds": kinds(interval), "phases": times.to_json() })
            })
            .collect::<Vec<_>>(),
        "merged": { "kinds": kinds(&merged), "phases": all.to_json() },
    })
}

/// Where the time went.
#[derive(Default)]
struct Times {
    sandbox: PhaseTimes,
    messages: MessageTimes,
}

impl Times {
    fn of(node: &NodeView) -> Self {
        Self { sandbox: node.instruments.phases().total(), messages: node.instruments.messages().total() }
    }

    /// What both hold; exact.
    fn add(&mut self, other: &Self) {
        self.sandbox.add(&other.sandbox);
        self.messages.add(&other.messages);
    }

    /// By start, the phases of sandboxed executions in their order, with the bare round trip beside them; by mode, those
    /// of messages; by kind, how long these waited. What was not measured is `null`.
    fn to_json(&self) -> Value {
        let shown = |histogram: Option<&Histogram<u64>>| histogram.map_or(Value::Null, quantiles);
        let start = |start: Start| -> Map<String, Value> {
            let one = |phase| shown(self.sandbox.one(start, phase));
            SandboxPhase::ALL.into_iter().map(|phase| (phase.as_str().to_owned(), one(phase))).collect()
        };
        let mode = |arm: Arm| -> Map<String, Value> {
            let one = |phase| shown(self.messages.one(arm, phase));
            MessagePhase::ALL.into_iter().map(|phase| (phase.as_str().to_owned(), one(phase))).collect()
        };
        let modes = COMMITTED.map(|arm| (arm.as_str().to_owned(), mode(arm).into()));
        let waits = KINDS.into_iter().filter_map(|kind| Some((kind, self.messages.waits(kind)?)));
        json!({
            "warm": start(Start::Warm),
            "cold": start(Start::Cold),
            "round_trip": shown(self.sandbox.round_trip()),
            "modes": modes.into_iter().collect::<Map<_, _>>(),
            "queue_wait": waits.map(|(kind, waits)| (kind.to_owned(), quantiles(waits))).collect::<Map<_, _>>(),
            "sampled_one_in": SAMPLED,
        })
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
    json!({
        "count": histogram.len(),
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "max": histogram.max(),
    })
}

fn kinds(interval: &Interval) -> Value {
    let kinds =
        KINDS.into_iter().filter(|kind| Arm::ALL.iter().any(|arm| interval.one(*arm, kind).is_some()));
    let arms = |kind: &str| -> Map<String, Value> {
        Arm::ALL.into_iter().map(|arm| (arm.as_str().to_owned(), series(interval, arm, kind))).collect()
    };
    kinds.map(|kind| (kind.to_owned(), Value::Object(arms(kind)))).collect::<Map<_, _>>().into()
}

fn series(interval: &Interval, arm: Arm, kind: &str) -> Value {
    let Some(histogram) = interval.one(arm, kind) else { return Value::Null };
    let curve: Vec<Value> = histogram
        .iter_quantiles(TICKS_PER_HALF)
        .map(|step| json!([step.quantile_iterated_to(), step.value_iterated_to().min(histogram.max())]))
        .collect();
    let mut series = quantiles(histogram);
    series["curve"] = curve.into();
    series
}
