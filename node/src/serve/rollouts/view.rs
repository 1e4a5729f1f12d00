//! Rollouts as others see them.

use rollout::machine::{Active, Pause, Phase, Rollback, Status};
use rollout::{RolloutRule, StepRule};
use serde_json::{Value, json};

use super::driven::Driven;
use super::milliseconds;

/// The word of a phase in answers, metrics and the audit log.
pub(super) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Active(active) => active_word(active),
        Phase::Paused { .. } => "paused",
        Phase::RollingBack(_) => "rolling-back",
        Phase::RolledBack { .. } => "rolled-back",
        Phase::Finished => "finished",
    }
}

fn active_word(active: Active) -> &'static str {
    match active {
        Active::Draft => "draft",
        Active::Planned => "planned",
        Active::Waiting => "waiting",
        Active::Switching => "switching",
        Active::Warmup => "warmup",
        Active::Baking => "baking",
        Active::Completed => "completed",
        Active::Superseded => "superseded",
    }
}

/// All words of phases.
pub(in crate::serve) const PHASES: [&str; 12] = [
    "draft",
    "planned",
    "waiting",
    "switching",
    "warmup",
    "baking",
    "completed",
    "superseded",
    "paused",
    "rolling-back",
    "rolled-back",
    "finished",
];

/// Why it is paused or rolled back.
pub(super) fn why(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Paused { why: Pause::User, .. } => Some("a person paused it"),
        Phase::Paused { why: Pause::Guard, .. } => Some("a guard failed"),
        Phase::Paused { why: Pause::Inconclusive, .. } => {
            Some("the longest bake is over, and a guard is still open")
        }
        Phase::RollingBack(why) | Phase::RolledBack { why, .. } => Some(match why {
            Rollback::Aborted => "it was aborted",
            Rollback::Killed => "the kill switch is engaged",
            Rollback::Guard => "a guard failed",
            Rollback::Deadline => "the candidate was not in force everywhere in time",
        }),
        Phase::Active(_) | Phase::Finished => None,
    }
}

pub(super) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Promoted => "promoted",
        Status::FastPromoted => "fast-promoted",
        Status::RolledBack => "rolled-back",
        Status::Aborted => "aborted",
        Status::Superseded => "superseded",
    }
}

fn step(step: &StepRule, number: usize) -> Value {
    json!({
        "number": number, "name": step.name, "design": step.design.as_str(), "mode": step.mode.as_str(),
        "percent": f64::from(step.percent_ppm) / 1e4, "nodes_per_subnet": step.nodes_per_subnet,
        "subnets": step.subnets, "bake_ms": milliseconds(step.bake), "max_bake_ms": milliseconds(step.max_bake),
    })
}

/// A rollout of the policy file that this process drives, or has driven.
pub(super) fn rollout(id: &str, driven: &Driven, next: &str) -> Value {
    let state = &driven.state;
    let phase = state.phase();
    let acknowledged = matches!(phase, Phase::RolledBack { acknowledged: true, .. });
    let index = driven.steps.get(state.step_index()).copied().unwrap_or_default();
    let named = |rule: &RolloutRule| {
        let now = &rule.steps.get(index)?;
        Some(
            json!({ "index": index, "count": rule.steps.len(), "name": now.name, "design": now.design.as_str() }),
        )
    };
    let plan = &state.plan().steps()[state.step_index()];
    json!({
        "id": id,
        "candidate": driven.rule.as_ref().map(|rule| rule.candidate.as_str()),
        "control": driven.rule.as_ref().map(|rule| rule.control.as_str()),
        "phase": word(phase),
        "from": match phase { Phase::Paused { from, .. } => Some(active_word(from)), _ => None },
        "paused": match phase {
            Phase::Paused { why, .. } => Some(match why {
                Pause::User => "user",
                Pause::Guard => "guard",
                Pause::Inconclusive => "inconclusive",
            }),
            _ => None,
        },
        "why": driven.cause.as_deref().or(why(phase)),
        "since_ms": state.entered_ms(),
        "step": driven.rule.as_ref().and_then(named),
        "steps": driven.rule.iter().flat_map(|rule| &rule.steps).zip(1..).map(|(rule, number)| step(rule, number)).collect::<Vec<_>>(),
        "run": state.run(),
        "latched": state.is_latched(),
        "acknowledged": acknowledged,
        "frozen": state.is_frozen(),
        "baked_ms": state.baked_ms(),
        "bake_ms": plan.bake_ms,
        "max_bake_ms": plan.max_bake_ms,
        "exposed_step": driven.in_force.and_then(|step| driven.steps.get(step)).map(|step| step + 1),
        "block": driven.block.map(|side| format!("{side:?}").to_lowercase()),
        "look": driven.looks,
        "looks": driven.schedule.map(|schedule| schedule.planned),
        "look_seconds": driven.schedule.map(|schedule| schedule.period.as_secs_f64()),
        "messages": driven.trial.as_ref().map(|trial| trial.counts.messages),
        "traps": driven.trial.as_ref().map(|trial| trial.counts.traps),
        "compared": driven.trial.as_ref().map(|trial| trial.counts.compared),
        "incomplete": driven.trial.as_ref().and_then(|trial| trial.why_incomplete()),
        "next": next,
        "verdicts": driven.verdicts,
        "record": driven.record,
        "ended": driven.ended,
    })
}
