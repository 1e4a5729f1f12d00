//! What the guards say of a step.

use std::collections::BTreeMap;
use std::time::Instant;

use execution::Principal;
use rollout::machine::OnFail;
use rollout::store::Counts;
use rollout::{
    COMPARISONS_MIN, CrashFuse, Crashed, Divergences, Guard, GuardRule, GuardTest, Judgement, Look, Looks,
    Policy, Rate, Schedule, StepRule, Test, Verdict,
};

use super::trial::Trial;

/// The fuses on crashes of a step, with what they have seen.
pub(super) struct Crashes {
    began: Instant,
    fuses: Vec<(GuardRule, CrashFuse)>,
}

impl Crashes {
    /// Those of `step`, which begins now.
    pub(super) fn new(policy: &Policy, step: &StepRule) -> Self {
        let fuses = policy.guards().iter().filter(|guard| guard.judges(step)).filter_map(|guard| match guard
            .test
        {
            GuardTest::Crashes { max, window } => Some((guard.clone(), CrashFuse::new(max, window).ok()?)),
            _ => None,
        });
        Self { began: Instant::now(), fuses: fuses.collect() }
    }

    /// The same from when `before` began.
    pub(super) fn since(self, before: &Self) -> Self {
        Self { began: before.began, ..self }
    }

    /// Takes in when a worker of each canister last crashed, if that canister is on trial.
    pub(super) fn saw(
        &mut self,
        crashed: &BTreeMap<Principal, Instant>,
        on_trial: impl Fn(&Principal) -> bool,
    ) {
        let crashed = crashed.iter().filter(|(canister, at)| **at >= self.began && on_trial(canister));
        for (&canister, &at) in crashed {
            self.fuses.iter_mut().for_each(|(_, fuse)| fuse.crashed(canister, at - self.began));
        }
    }

    pub(super) fn executed(&mut self, executions: u64) {
        self.fuses.iter_mut().for_each(|(_, fuse)| fuse.executed(executions));
    }

    /// What each has seen by now.
    pub(super) fn seen(&mut self) -> Vec<(GuardRule, Crashed)> {
        let now = self.began.elapsed();
        self.fuses.iter_mut().map(|(guard, fuse)| (guard.clone(), fuse.seen(now))).collect()
    }
}

/// Everything that the guards look at; each with what its failure does.
pub(super) fn look(
    policy: &Policy,
    step: &StepRule,
    trial: &Trial,
    crashed: &[(GuardRule, Crashed)],
    (run, look, schedule): (&str, u32, Schedule),
) -> Result<(Look, Vec<OnFail>), String> {
    let series = trial.series(run, &step.name, look);
    let mut guards = Vec::new();
    let mut consequences = Vec::new();
    for rule in policy.guards().iter().filter(|guard| guard.judges(step)) {
        match &rule.test {
            GuardTest::Latency(ratio) => {
                for kind in &rule.kinds {
                    let index = series.iter().position(|series| series.kind == *kind);
                    let name = format!("{} {kind}", rule.name);
                    let test = Test::Latency { series: index.unwrap_or(series.len()), ratio: *ratio };
                    guards.push(Guard { name, test });
                    consequences.push(rule.on_fail);
                }
            }
            GuardTest::Traps(ratio) => {
                let Counts { messages, traps, .. } = trial.counts;
                let rate = |side: usize| Rate::new(traps[side].min(messages[side]), messages[side]);
                // More traps than the test can count: of no use any more, and no pass.
                let none = Rate::new(0, 0).expect("nothing of nothing");
                let [control, candidate] = match (rate(0), rate(1)) {
                    (Some(control), Some(candidate)) => [control, candidate],
                    _ => [none; 2],
                };
                guards.push(Guard {
                    name: rule.name.clone(),
                    test: Test::Rate { ratio: *ratio, control, candidate },
                });
                consequences.push(rule.on_fail);
            }
            GuardTest::Divergences => {
                guards.push(Guard {
                    name: rule.name.clone(),
                    test: Test::Divergence(divergences(step, trial.counts)),
                });
                consequences.push(rule.on_fail);
            }
            GuardTest::Crashes { .. } => {
                let seen = crashed.iter().find(|(guard, _)| guard.name == rule.name);
                let Some((_, seen)) = seen else { continue };
                guards.push(Guard { name: rule.name.clone(), test: Test::Crash(*seen) });
                consequences.push(rule.on_fail);
            }
        }
    }
    // Those that only observe too: a record says no other number.
    let looks =
        u32::try_from(guards.len().max(1)).ok().and_then(|guards| Looks::new(schedule.planned, guards));
    let looks = looks.ok_or_else(|| format!("more than {} guards of one step", rollout::GUARDS_MAX))?;
    let (run, step) = (run.to_owned(), step.name.clone());
    Ok((Look { run, step, look, looks, sources: trial.sources(), series, guards }, consequences))
}

/// What a fuse saw that has blown between two looks.
pub(super) fn blown((run, step, look): (&str, &StepRule, u32), planned: u32, guard: Guard) -> Option<Look> {
    Some(Look {
        run: run.to_owned(),
        step: step.name.clone(),
        look,
        looks: Looks::new(planned, 1)?,
        sources: Vec::new(),
        series: Vec::new(),
        guards: vec![guard],
    })
}

/// What is known of differences in shadow.
pub(super) fn divergences(step: &StepRule, counts: Counts) -> Divergences {
    let compared_min = if step.comparisons_min == 0 { COMPARISONS_MIN } else { step.comparisons_min };
    Divergences { compared: counts.compared, confirmed: counts.confirmed, compared_min }
}

/// What all of a look comes to: the verdict of those that decide, and what a failure does.
pub(super) fn together(judged: &[(OnFail, Verdict)]) -> (Verdict, OnFail) {
    let deciding = judged.iter().filter(|(on_fail, _)| *on_fail != OnFail::Observe);
    let verdict = Verdict::of_all(deciding.clone().map(|(_, verdict)| *verdict));
    let rolls_back = deciding.clone().any(|judged| *judged == (OnFail::Rollback, Verdict::Fail));
    let on_fail = if verdict == Verdict::Fail && !rolls_back { OnFail::Pause } else { OnFail::Rollback };
    (verdict, on_fail)
}

/// A judgement in one line.
pub(super) fn line(guard: &str, judgement: &Judgement) -> String {
    let Judgement { verdict, reason, estimate, .. } = judgement;
    let ratio = estimate.map(|estimate| {
        format!(" ratio {:.3} [{:.3}..{:.3}]", estimate.ratio, estimate.lower, estimate.upper)
    });
    let ratio = ratio.unwrap_or_default();
    format!("{guard} {verdict}:{ratio} {reason}")
}
