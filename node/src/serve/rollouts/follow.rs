//! What the policy file and the kill switch have become since the last tick.

use std::sync::Arc;

use jiff::Timestamp;
use rollout::audit::{Entry, Source};
use rollout::machine::{Active, Event, Phase, Plan, Rollout, Step};
use rollout::{InForce, RolloutRule, StepRule};

use super::driven::Driven;
use super::{By, Driver, gone, milliseconds, now_ms};

/// Lines of a refusal that are audited.
const REFUSAL_LINES_MAX: usize = 16;

impl Driver {
    pub(super) fn follow_policy(&mut self, in_force: &Arc<InForce>) {
        if in_force.generation == self.generation {
            return;
        }
        let changes = self.policy.changes(&in_force.policy);
        let first = self.generation == 0;
        let rearm = self.policy.guards() != in_force.policy.guards()
            || self.policy.measure() != in_force.policy.measure();
        (self.policy, self.generation) = (Arc::clone(&in_force.policy), in_force.generation);
        if !first {
            let entry = Entry {
                to: Some(format!("sha256 {}", in_force.checksum)),
                details: changes.iter().map(ToString::to_string).collect(),
                ..self.entry(&By { actor: "file".into(), source: Source::File, ..By::node() }, "policy")
            };
            self.note(entry);
        }
        for rule in in_force.policy.rollouts() {
            if !rule.covers(&self.subnet) || self.rollouts.contains_key(&rule.id) {
                continue;
            }
            match self.plan(rule) {
                Ok((plan, _)) => {
                    self.rollouts.insert(rule.id.clone(), Driven::new(Rollout::new(plan, now_ms())));
                }
                Err(error) => tracing::error!("rollout {}: {error}", rule.id),
            }
        }
        for id in self.ids() {
            self.follow_policy_of(&id, in_force);
        }
        for driven in self.rollouts.values_mut().filter(|_| rearm) {
            driven.rearm(&self.policy);
        }
        let notices: Vec<_> = self.policy.notices(Timestamp::now()).iter().map(ToString::to_string).collect();
        let known = std::mem::replace(&mut self.notices, notices.clone());
        for notice in notices.into_iter().filter(|notice| !known.contains(notice)) {
            self.note(self.entry(&By::because("file", Source::File, notice), "notice"));
        }
        // What the file says of exposed steps may have changed.
        self.expose();
    }

    /// Notes a policy that was refused, once.
    pub(super) fn follow_refusals(&mut self) {
        let refused = self.board.nodes()[0].instruments.live().last_error().map(|error| error.to_string());
        if refused == self.refused {
            return;
        }
        if let Some(why) = &refused {
            let by = By { actor: "file".into(), source: Source::File, ..By::node() };
            let entry = Entry {
                details: why.lines().take(REFUSAL_LINES_MAX).map(str::to_owned).collect(),
                ..self.entry(&by, "policy-refused")
            };
            self.note(entry);
        }
        self.refused = refused;
    }

    /// Takes the file's version of a rollout in.
    pub(super) fn follow_policy_of(&mut self, id: &str, in_force: &InForce) {
        let rule = in_force.policy.rollout(id).filter(|rule| rule.covers(&self.subnet)).cloned();
        let planned = rule.as_ref().map(|rule| self.plan(rule));
        let Some(driven) = self.rollouts.get_mut(id) else { return };
        match (rule, planned) {
            (Some(rule), Some(Ok((plan, steps)))) => {
                (driven.rule, driven.steps, driven.planned) = (Some(rule), steps, Some(plan));
            }
            (_, Some(Err(error))) => tracing::error!("rollout {id}: {error}"),
            (None, _) | (_, None) => {
                (driven.rule, driven.planned) = (None, None);
                let completed = driven.state.phase() == Phase::Active(Active::Completed);
                if driven.is_under_way() && !completed {
                    self.step(id, Event::Abort, &gone());
                }
            }
        }
    }

    /// The plan of those steps of a rule that concern this subnet, and their places in the rule.
    fn plan(&self, rule: &RolloutRule) -> Result<(Plan, Vec<usize>), String> {
        let policy = &self.policy;
        let ours: Vec<(usize, &StepRule)> =
            rule.steps.iter().enumerate().filter(|(_, step)| step.covers(&self.subnet)).collect();
        let steps = ours.iter().map(|(_, step)| Step {
            name: step.name.clone(),
            digest: step.digest,
            bake_ms: milliseconds(step.bake),
            max_bake_ms: milliseconds(step.max_bake),
        });
        let plan = Plan::new(
            steps.collect(),
            milliseconds(policy.measure().warmup_discard),
            milliseconds(policy.drain_timeout()),
            milliseconds(rule.retry_cooldown),
        );
        let plan = plan.map_err(|error| error.to_string())?;
        Ok((plan, ours.into_iter().map(|(index, _)| index).collect()))
    }

    pub(super) fn follow_kill(&mut self, in_force: &InForce) {
        if in_force.killed != self.killed {
            self.killed = in_force.killed;
            let action = if self.killed { "kill-engaged" } else { "kill-released" };
            let file = self.policy.kill_file().map(|file| file.display().to_string()).unwrap_or_default();
            self.note(
                self.entry(&By::because("kill switch", Source::KillSwitch, format!("file {file}")), action),
            );
        }
        if !self.killed {
            return;
        }
        let under_way = self.rollouts.iter().filter(|(_, driven)| driven.is_under_way());
        for id in under_way.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            let by = By::because("kill switch", Source::KillSwitch, "the kill switch is engaged");
            self.step(&id, Event::Kill, &by);
        }
    }
}
