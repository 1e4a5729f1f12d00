//! Intervals, looks and fuses of the step under way.

use std::time::Duration;

use rollout::audit::Source;
use rollout::machine::{Active, Event, OnFail, Phase};
use rollout::store::Counts;
use rollout::{
    Design, Guard, GuardRule, GuardTest, Interval, Judgement, Mode, Side, Test, TrialInterval, Verdict,
    VerdictRecord, seed,
};
use serde_json::{Value, json};

use super::driven::Driven;
use super::judge;
use super::trial::Trial;
use super::{By, Driver, HISTORY_MAX, milliseconds, now_ms};
use crate::verdict;

impl Driver {
    /// The rollout whose step is measured: one at most covers this subnet.
    fn measured(&self) -> Option<String> {
        let bakes = |driven: &Driven| {
            matches!(
                driven.state.phase(),
                Phase::Active(Active::Baking) | Phase::Paused { from: Active::Baking, .. }
            )
        };
        self.rollouts.iter().find(|(_, driven)| bakes(driven)).map(|(id, _)| id.clone())
    }

    /// Takes the interval that has ended, if one has.
    pub(super) fn measure(&mut self) {
        let (now, measured) = (now_ms(), self.measured());
        self.count_comparisons();
        if let Some(id) = &measured {
            self.begin(id);
        }
        let length = milliseconds(self.policy.measure().interval);
        let waits = self.interval_ends_ms.saturating_sub(now);
        // A clock that was set back, or another length: not for longer than an interval.
        if waits > 0 && waits <= length {
            return;
        }
        let ended = now - now % length;
        self.interval_ends_ms = ended + length;
        let Some(id) = measured else { return };
        // Another block, then the rotation: nothing of the block before comes into the next interval.
        self.turn(&id, now);
        let mut taken = self.take();
        let interval = &mut taken.interval;
        let duration = milliseconds(interval.duration);
        if duration >= length / 2 && duration <= length + length / 2 {
            // As planned: without what the thread was late by, an interval belongs to one block.
            interval.start = std::time::UNIX_EPOCH + Duration::from_millis(ended.saturating_sub(length));
            interval.duration = Duration::from_millis(length);
        }
        self.add(&id, &taken, now);
    }

    /// Begins to measure a step, or goes on after a restart.
    fn begin(&mut self, id: &str) {
        let policy = self.policy.clone();
        let directory = self.state.join("trials").join(id);
        let Some(driven) = self.rollouts.get_mut(id) else { return };
        let (None, Some(rule), Some(step)) = (&driven.trial, &driven.rule, driven.step_rule()) else {
            return;
        };
        let schedule = step.schedule(policy.measure().looks);
        let own = driven.counts();
        let stored = driven.stored.filter(|stored| (stored.run, stored.step) == (own.run, own.step));
        let counts = stored.unwrap_or(own);
        let guards = policy.guards().iter().filter(|guard| guard.judges(step));
        let kinds = guards.filter(|guard| matches!(guard.test, GuardTest::Latency(_)));
        let kinds = kinds.flat_map(|guard| guard.kinds.iter().copied());
        match Trial::resume(rule, step, kinds, policy.measure().block, counts, directory) {
            Ok(trial) => {
                driven.looks = schedule.due(watched(driven, counts));
                (driven.trial, driven.schedule) = (Some(trial), Some(schedule));
            }
            Err(error) => return self.trouble(format!("step can't be measured: {error}")),
        }
        self.turn(id, now_ms());
        // What ran before doesn't count.
        self.take();
    }

    /// In a switchback: whose block this is. In each two that follow each other, a lot decides who is first.
    fn turn(&mut self, id: &str, now: u64) {
        let block_ms = milliseconds(self.policy.measure().block);
        let Some(driven) = self.rollouts.get_mut(id) else { return };
        let Some(step) = driven.step_rule().filter(|step| step.design == Design::Switchback) else { return };
        let block = now / block_ms;
        let pair = u32::try_from(block / 2 % u64::from(u32::MAX)).unwrap_or_default();
        let first = seed(&driven.run(id), &step.name, pair, "block") & 1;
        let side = if block % 2 == first { Side::Candidate } else { Side::Control };
        if driven.block != Some(side) {
            driven.block = Some(side);
            self.expose();
        }
    }

    /// What all nodes measured since the last time.
    pub(super) fn take(&self) -> TrialInterval {
        let mut nodes = self.board.nodes().iter().map(|node| {
            let instruments = &node.instruments;
            instruments.trial().rotate(instruments.live().load().swap)
        });
        let mut all = nodes.next().expect("a process has one node at least");
        for other in nodes {
            all.interval.add(&other.interval);
            for (arm, traps) in other.traps {
                *all.traps.entry(arm).or_default() += traps;
            }
        }
        all
    }

    fn add(&mut self, id: &str, taken: &TrialInterval, now: u64) {
        let Some(driven) = self.rollouts.get_mut(id) else { return };
        let Some(trial) = &mut driven.trial else { return };
        let Interval { duration, .. } = taken.interval;
        if now <= driven.state.counted_until_ms() {
            // Warming up after a restart.
            return;
        }
        let before = trial.counts.messages[1];
        let traffic = trial.add(taken);
        let executed = trial.counts.messages[1] - before;
        if let Some(crashes) = &mut driven.crashes {
            crashes.executed(executed);
        }
        let ms = milliseconds(duration);
        if traffic && matches!(driven.state.phase(), Phase::Paused { .. }) {
            trial.counts.paused_ms += ms;
        }
        let counts = trial.counts;
        if let Err(error) = self.store.save_counts(id, &counts) {
            self.trouble(error.to_string());
        }
        if traffic {
            self.step(id, Event::Exposed { ms }, &By::node());
        }
        let Some(driven) = self.rollouts.get_mut(id) else { return };
        let due = driven.schedule.map_or(0, |schedule| schedule.due(watched(driven, counts)));
        if due > driven.looks {
            driven.looks = due;
            if let Err(error) = self.look(id) {
                self.trouble(format!("a look: {error}"));
            }
        }
    }

    /// Judges, keeps the record, and tells the machine.
    fn look(&mut self, id: &str) -> Result<(), String> {
        let Some(driven) = self.rollouts.get_mut(id) else { return Ok(()) };
        let Some(schedule) = driven.schedule else { return Ok(()) };
        let crashed = driven.crashes.as_mut().map(judge::Crashes::seen).unwrap_or_default();
        let (Some(trial), Some(step)) = (&driven.trial, driven.step_rule()) else { return Ok(()) };
        let (look, on_fail) =
            judge::look(&self.policy, step, trial, &crashed, (&driven.run(id), driven.looks, schedule))?;
        let (is_aa, bake_ms) = (step.design == Design::Aa, milliseconds(step.bake));
        let (record, judgements) = VerdictRecord::judged(look);
        let mut shown = verdict::shown_json(record.look(), &judgements);
        let mut judged: Vec<(String, OnFail, Judgement)> = Vec::new();
        for ((guard, on_fail), judgement) in record.look().guards.iter().zip(on_fail).zip(judgements) {
            judged.push((guard.name.clone(), on_fail, judgement));
        }
        let verdicts: Vec<_> = judged.iter().map(|(_, on_fail, judged)| (*on_fail, judged.verdict)).collect();
        let (verdict, mut on_fail) = judge::together(&verdicts);
        if is_aa {
            // Nothing is exposed that could be rolled back; and equal arms look unequal at one look in twenty.
            on_fail = OnFail::Pause;
            if driven.state.baked_ms() < bake_ms {
                return Ok(());
            }
        }
        let lines = |wanted: Verdict| {
            let decides = judged.iter().filter(|(_, on_fail, said)| {
                said.verdict == wanted && (*on_fail != OnFail::Observe || wanted != Verdict::Fail)
            });
            decides.map(|(name, _, said)| judge::line(name, said)).collect::<Vec<_>>().join("; ")
        };
        let reason = lines(verdict);
        let observed: Vec<String> = judged
            .iter()
            .filter(|(_, on_fail, said)| *on_fail == OnFail::Observe && said.verdict == Verdict::Fail)
            .map(|(name, _, said)| judge::line(name, said))
            .collect();
        let name = driven.record_name(None, verdict);
        driven.verdicts =
            judged.iter().map(|(name, on_fail, said)| shown_one(&mut shown, name, *on_fail, said)).collect();
        if driven.history.len() >= HISTORY_MAX {
            driven.history.pop_front();
        }
        let step = driven.step_rule().map(|step| step.name.clone());
        driven.history.push_back(json!({
            "time_ms": now_ms(), "step": step, "look": driven.looks, "verdict": verdict.as_str(),
            "guards": driven.verdicts,
        }));
        self.board.set_history(id, driven.history.iter().cloned().collect());
        driven.record = None;
        for line in observed {
            let event = Event::Judged { verdict: Verdict::Fail, on_fail: OnFail::Observe };
            self.step(id, event, &By::because("guards", Source::Guard, line));
        }
        self.step(id, Event::Judged { verdict, on_fail }, &By::because("guards", Source::Guard, reason));
        self.keep_record(id, name, &record)
    }

    /// Keeps what a verdict came from. After the rollback that it caused: that waits for no disk.
    fn keep_record(&mut self, id: &str, name: String, record: &VerdictRecord) -> Result<(), String> {
        if record.look().guards.is_empty() {
            return Ok(());
        }
        let kept = self.store.keep_verdict(id, &name, record.to_json().as_bytes());
        kept.map_err(|error| format!("its record could not be kept: {error}"))?;
        if let Some(driven) = self.rollouts.get_mut(id) {
            driven.record = Some(name);
        }
        Ok(())
    }

    /// What was compared in shadow so far, and what of it differed and not for the control's own sake.
    pub(super) fn comparisons(&self) -> [u64; 2] {
        let counts = self.board.nodes().iter().map(|node| node.instruments.shadow_counts());
        counts.fold([0; 2], |all, counts| {
            [all[0] + counts.equal + counts.diverged, all[1] + counts.confirmed + counts.flaky_candidate]
        })
    }

    /// What was compared in shadow since the last time.
    fn count_comparisons(&mut self) {
        let all = self.comparisons();
        let before = std::mem::replace(&mut self.shadow_seen, all);
        let more = [0, 1].map(|which| all[which].saturating_sub(before[which]));
        for driven in self.rollouts.values_mut() {
            if driven.in_force_rule().is_none_or(|step| step.mode != Mode::Shadow) {
                continue;
            }
            driven.confirmed += more[1];
            if let Some(trial) = &mut driven.trial {
                trial.counts.compared += more[0];
                trial.counts.confirmed += more[1];
            }
        }
    }

    /// What needs no statistics: told as soon as it is seen, in every phase in which something is exposed.
    pub(super) fn fuses(&mut self, id: &str) {
        let Some(driven) = self.rollouts.get_mut(id) else { return };
        if driven.in_force.is_none() || driven.state.is_latched() {
            return;
        }
        let mut blown: Vec<(GuardRule, Test, Judgement)> = Vec::new();
        if let Some(crashes) = &mut driven.crashes {
            for node in self.board.nodes() {
                let in_force = node.instruments.live().in_force();
                crashes.saw(&node.instruments.crashes(), |canister| in_force.is_on_trial(canister));
            }
            let seen = crashes.seen().into_iter();
            blown.extend(seen.map(|(guard, seen)| (guard, Test::Crash(seen), seen.judge())));
        }
        if let Some(step) = driven.in_force_rule() {
            let fuses = self.policy.guards().iter();
            let fuses = fuses.filter(|guard| guard.test == GuardTest::Divergences && guard.judges(step));
            let counts = driven.trial.as_ref().map_or_else(Counts::default, |trial| trial.counts);
            let confirmed = driven.confirmed.max(counts.confirmed);
            let compared = counts.compared.max(confirmed);
            let seen = judge::divergences(step, Counts { confirmed, compared, ..counts });
            blown.extend(fuses.map(|guard| (guard.clone(), Test::Divergence(seen), seen.judge())));
        }
        blown.retain(|(_, _, judgement)| judgement.verdict == Verdict::Fail);
        // What rolls back goes first, and no record is written before all of them have acted.
        blown.sort_by_key(|(guard, _, _)| guard.on_fail != OnFail::Rollback);
        let blown = blown.into_iter();
        let records: Vec<_> =
            blown.filter_map(|(guard, test, judgement)| self.fuse(id, &guard, test, &judgement)).collect();
        // The last one is shown: that of the rollback, if there is one.
        for (name, record) in records.into_iter().rev() {
            if let Err(error) = self.keep_record(id, name, &record) {
                self.trouble(format!("a fuse: {error}"));
            }
        }
    }

    /// Acts on a fuse that is blown, unless it has been acted on. Gives the record to keep.
    fn fuse(
        &mut self,
        id: &str,
        guard: &GuardRule,
        test: Test,
        judgement: &Judgement,
    ) -> Option<(String, VerdictRecord)> {
        let number = self.policy.guards().iter().position(|one| one.name == guard.name)? + 1;
        let driven = self.rollouts.get_mut(id)?;
        let again = match guard.on_fail {
            OnFail::Observe => !driven.blown.insert(guard.name.clone()),
            OnFail::Pause => matches!(driven.state.phase(), Phase::Paused { .. }),
            OnFail::Rollback => driven.state.is_latched(),
        };
        if again {
            return None;
        }
        let (run, planned) = (driven.run(id), driven.schedule.map_or(1, |schedule| schedule.planned));
        let named = Guard { name: guard.name.clone(), test };
        let look = judge::blown((&run, driven.in_force_rule()?, driven.looks.max(1)), planned, named)?;
        if !driven.state.is_latched() {
            driven.verdicts = vec![shown_one(&mut Value::Null, &guard.name, guard.on_fail, judgement)];
        }
        let name = driven.record_name(Some(number), Verdict::Fail);
        let by =
            By::because(&format!("guard {}", guard.name), Source::Guard, judge::line(&guard.name, judgement));
        self.step(id, Event::Judged { verdict: Verdict::Fail, on_fail: guard.on_fail }, &by);
        Some((name, VerdictRecord::of(look)))
    }
}

impl Driven {
    /// The name of a run, in seeds and records.
    pub(super) fn run(&self, id: &str) -> String {
        format!("{id}/{}", self.state.run())
    }

    /// What the record of a verdict that is reached now is called; `fuse`: by that guard of the file alone, from one.
    fn record_name(&self, fuse: Option<usize>, verdict: Verdict) -> String {
        let fuse = fuse.map_or_else(String::new, |number| format!("-guard{number}"));
        format!(
            "{:012}-run{}-step{}-look{}{fuse}-{verdict}.json",
            now_ms() / 1_000,
            self.state.run(),
            self.state.step_index() + 1,
            self.looks
        )
    }
}

/// How long a step was measured with traffic.
fn watched(driven: &Driven, counts: Counts) -> Duration {
    Duration::from_millis(driven.state.baked_ms().saturating_add(counts.paused_ms))
}

/// What a guard says, as the look shows it or in the same form.
fn shown_one(look: &mut Value, name: &str, on_fail: OnFail, judgement: &Judgement) -> Value {
    let guards = look["guards"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    let known = guards.iter_mut().find(|guard| guard["guard"] == name).map(Value::take);
    let mut shown = known.unwrap_or_else(|| {
        json!({
            "guard": name, "of": null, "limit": null, "ratio": null, "lower": null, "upper": null,
            "samples": { "control": judgement.samples[0], "candidate": judgement.samples[1] },
            "blocks": judgement.blocks,
            "verdict": judgement.verdict.as_str(), "reason": judgement.reason.to_string(),
        })
    });
    shown["on_fail"] = match on_fail {
        OnFail::Rollback => "rollback",
        OnFail::Pause => "pause",
        OnFail::Observe => "observe",
    }
    .into();
    shown["line"] = judge::line(name, judgement).into();
    shown
}
