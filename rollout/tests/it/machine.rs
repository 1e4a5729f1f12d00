//! The rollout's state machine: every event in every phase.

mod properties;

use rollout::Verdict;
use rollout::machine::{
    Active, Effect, Event, OnFail, Pause, Phase, Plan, PlanError, Promotion, Refusal, Rollback, Rollout,
    StateError, Status, Step,
};
use serde_json::{Value, json};

const WARMUP_MS: u64 = 120_000;
const DEADLINE_MS: u64 = 30_000;
const COOLDOWN_MS: u64 = 3_600_000;
const BAKE_MS: u64 = 1_000_000;
const MAX_BAKE_MS: u64 = 3_000_000;
/// More than any of them.
const LONG_MS: u64 = 10_000_000;

/// Steps with these texts.
fn plan(steps: &[u8]) -> Plan {
    let steps = steps
        .iter()
        .map(|&text| Step {
            name: format!("step-{text}"),
            digest: [text; 32],
            bake_ms: BAKE_MS,
            max_bake_ms: MAX_BAKE_MS,
        })
        .collect();
    Plan::new(steps, WARMUP_MS, DEADLINE_MS, COOLDOWN_MS).unwrap()
}

fn three_steps() -> Plan {
    plan(&[1, 2, 3])
}

fn judged(verdict: Verdict, on_fail: OnFail) -> Event {
    Event::Judged { verdict, on_fail }
}

/// The state after these events, each a second after the one before.
fn after(rollout: Rollout, events: impl IntoIterator<Item = Event>, now_ms: &mut u64) -> Rollout {
    events.into_iter().fold(rollout, |rollout, event| {
        *now_ms += 1_000;
        rollout.step(event, *now_ms).0
    })
}

/// The one event that leads on, towards the end.
fn onwards(rollout: &Rollout) -> Event {
    if rollout.is_frozen() {
        return Event::StoreFound;
    }
    match rollout.phase() {
        Phase::Active(Active::Draft) => Event::Validated,
        Phase::Active(Active::Planned | Active::Superseded) => Event::Start,
        Phase::Active(Active::Waiting) => Event::Ready,
        Phase::Active(Active::Switching) => Event::Converged,
        Phase::Active(Active::Warmup) => Event::Tick,
        Phase::Active(Active::Baking) if rollout.baked_ms() < BAKE_MS => Event::Exposed { ms: LONG_MS },
        Phase::Active(Active::Baking) => judged(Verdict::Pass, OnFail::Rollback),
        Phase::Active(Active::Completed) => Event::Finish,
        Phase::Paused { .. } => Event::Resume,
        Phase::RollingBack(_) => Event::Drained,
        Phase::RolledBack { acknowledged: false, .. } => Event::Acknowledge,
        Phase::RolledBack { acknowledged: true, .. } => Event::Retry,
        Phase::Finished => Event::Tick,
    }
}

/// A rollout of three steps in each phase, as events lead there: at the second step where there is one.
pub(crate) fn in_every_phase(now_ms: &mut u64) -> Vec<(&'static str, Rollout)> {
    let mut reached: Vec<(&'static str, Rollout)> = Vec::new();
    let mut rollout = Rollout::new(three_steps(), *now_ms);
    while rollout.phase() != Phase::Finished {
        let name = match rollout.phase() {
            Phase::Active(Active::Draft) => "draft",
            Phase::Active(Active::Planned) => "planned",
            Phase::Active(Active::Waiting) => "waiting",
            Phase::Active(Active::Switching) => "switching",
            Phase::Active(Active::Warmup) => "warmup",
            Phase::Active(Active::Baking) => "baking",
            Phase::Active(Active::Completed) => "completed",
            phase => panic!("{phase:?} on the straight way"),
        };
        if rollout.step_index() == 1 || matches!(name, "draft" | "planned" | "completed") {
            reached.retain(|(known, _)| *known != name);
            reached.push((name, rollout.clone()));
        }
        *now_ms += LONG_MS;
        let event = onwards(&rollout);
        rollout = rollout.step(event, *now_ms).0;
    }
    let baking =
        reached.iter().find(|(name, _)| *name == "baking").map(|(_, rollout)| rollout.clone()).unwrap();
    let edited = Event::Edited(plan(&[1, 9]));
    reached.push(("superseded", after(baking.clone(), [edited], now_ms)));
    reached.push(("paused", after(baking.clone(), [Event::Pause], now_ms)));
    reached.push(("rolling back", after(baking.clone(), [Event::Abort], now_ms)));
    reached.push(("rolled back", after(baking.clone(), [Event::Abort, Event::Drained], now_ms)));
    let seen = [Event::Abort, Event::Drained, Event::Acknowledge];
    reached.push(("acknowledged", after(baking, seen, now_ms)));
    reached.push(("finished", rollout));
    reached
}

fn word(rollout: &Rollout) -> &'static str {
    match rollout.phase() {
        Phase::Active(active) => match active {
            Active::Draft => "draft",
            Active::Planned => "planned",
            Active::Waiting => "waiting",
            Active::Switching => "switching",
            Active::Warmup => "warmup",
            Active::Baking => "baking",
            Active::Completed => "completed",
            Active::Superseded => "superseded",
        },
        Phase::Paused { .. } => "paused",
        Phase::RollingBack(_) => "rolling back",
        Phase::RolledBack { acknowledged: false, .. } => "rolled back",
        Phase::RolledBack { acknowledged: true, .. } => "acknowledged",
        Phase::Finished => "finished",
    }
}

#[test]
fn every_command_in_every_phase_leads_somewhere_or_is_refused() {
    // What is told: never refused.
    let reports = [
        ("tick", Event::Tick),
        ("exposed", Event::Exposed { ms: 1 }),
        ("pass", judged(Verdict::Pass, OnFail::Rollback)),
        ("inconclusive", judged(Verdict::Inconclusive, OnFail::Rollback)),
        ("fail, rollback", judged(Verdict::Fail, OnFail::Rollback)),
        ("fail, pause", judged(Verdict::Fail, OnFail::Pause)),
        ("fail, observe", judged(Verdict::Fail, OnFail::Observe)),
        ("drained", Event::Drained),
    ];
    // What is asked for.
    let commands = [
        ("validated", Event::Validated),
        ("start", Event::Start),
        ("ready", Event::Ready),
        ("converged", Event::Converged),
        ("pause", Event::Pause),
        ("resume", Event::Resume),
        ("promote", Event::Promote(Promotion::SkipBake)),
        ("abort", Event::Abort),
        ("acknowledge", Event::Acknowledge),
        ("retry", Event::Retry),
        ("finish", Event::Finish),
        ("edited", Event::Edited(plan(&[7]))),
    ];
    let mut now_ms = 1;
    let mut table = String::new();
    for (name, rollout) in in_every_phase(&mut now_ms) {
        assert_eq!(word(&rollout), name);
        // The clock stands where the phase was entered, so that nothing is overdue.
        let rollout = rollout.clone().step(Event::StoreFound, entered_ms(&rollout)).0;
        let outcome = |event: &Event| {
            let (next, effects) = rollout.clone().step(event.clone(), entered_ms(&rollout));
            let refused = effects.iter().any(|effect| matches!(effect, Effect::Refused(_)));
            assert!(!refused || next == rollout, "{name}, {event:?}");
            (refused, word(&next))
        };
        let told = reports.iter().filter_map(|(report, event)| {
            let (refused, next) = outcome(event);
            assert!(!refused, "{name}, {report}");
            (next != name).then(|| format!("{report} > {next}"))
        });
        let asked = commands.iter().filter_map(|(command, event)| match outcome(event) {
            (true, _) => None,
            (false, same) if same == name => Some(format!("{command} -")),
            (false, next) => Some(format!("{command} > {next}")),
        });
        let [told, asked] = [told.collect::<Vec<_>>(), asked.collect()]
            .map(|some| if some.is_empty() { "nothing".to_owned() } else { some.join("; ") });
        table += &format!("{name}\n  told: {told}\n  asked: {asked}\n");
    }
    assert_eq!(table, EVERY_COMMAND, "\n{table}");
}

fn entered_ms(rollout: &Rollout) -> u64 {
    let state: Value = serde_json::from_str(&rollout.to_json()).unwrap();
    state["entered_ms"].as_u64().unwrap()
}

#[test]
fn guards_that_only_observe_advance_nothing_and_pause_nothing() {
    for (name, rollout) in in_every_phase(&mut 1) {
        // Enough exposure for a step to pass or to be called open.
        let long_baked = after(rollout, [Event::Exposed { ms: LONG_MS }], &mut (10 * LONG_MS));
        for verdict in [Verdict::Pass, Verdict::Inconclusive, Verdict::Fail] {
            let next = after(long_baked.clone(), [judged(verdict, OnFail::Observe)], &mut (20 * LONG_MS));
            assert_eq!(next, long_baked, "{name}, {verdict}");
        }
    }
}

/// Reports that aren't named in a phase change nothing there, and commands are refused; `-`: nothing changes,
/// and that is what was asked for.
const EVERY_COMMAND: &str = "\
draft
  told: nothing
  asked: validated > planned; pause > paused; abort > rolling back; edited -
planned
  told: nothing
  asked: start > waiting; pause > paused; abort > rolling back; edited > draft
waiting
  told: fail, rollback > rolling back; fail, pause > paused
  asked: ready > switching; pause > paused; abort > rolling back; edited > superseded
switching
  told: fail, rollback > rolling back; fail, pause > paused
  asked: converged > warmup; pause > paused; abort > rolling back; edited > superseded
warmup
  told: fail, rollback > rolling back; fail, pause > paused
  asked: pause > paused; abort > rolling back; edited > superseded
baking
  told: pass > waiting; inconclusive > paused; fail, rollback > rolling back; fail, pause > paused
  asked: pause > paused; promote > waiting; abort > rolling back; edited > superseded
completed
  told: fail, rollback > rolling back; fail, pause > paused
  asked: pause > paused; abort > rolling back; finish > finished; edited > superseded
superseded
  told: fail, rollback > rolling back; fail, pause > paused
  asked: start > waiting; pause > paused; abort > rolling back; edited -
paused
  told: fail, rollback > rolling back
  asked: pause -; resume > baking; promote > waiting; abort > rolling back; edited > superseded
rolling back
  told: drained > rolled back
  asked: abort -; edited -
rolled back
  told: nothing
  asked: abort -; acknowledge > acknowledged; edited -
acknowledged
  told: nothing
  asked: abort -; acknowledge -; edited -
finished
  told: nothing
  asked: nothing
";

#[test]
fn a_rollout_goes_step_by_step_to_the_policy_file() {
    let mut now_ms = 1;
    let mut rollout = Rollout::new(three_steps(), now_ms);
    let mut cut_over = Vec::new();
    let mut last = Vec::new();
    while rollout.phase() != Phase::Finished {
        now_ms += LONG_MS;
        let event = onwards(&rollout);
        (rollout, last) = rollout.step(event, now_ms);
        cut_over.extend(last.iter().filter_map(|effect| match effect {
            Effect::CutOver { step } => Some(*step),
            _ => None,
        }));
    }
    assert_eq!(cut_over, [Some(0), Some(1), Some(2)]);
    assert_eq!(
        last,
        [Effect::Entered(Phase::Finished), Effect::RewritePolicy, Effect::Ended(Status::Promoted)]
    );
}

#[test]
fn a_switch_prepares_then_cuts_over_then_drains_and_is_rolled_back_when_it_takes_too_long() {
    let mut now_ms = 0;
    let waiting = after(Rollout::new(three_steps(), 0), [Event::Validated, Event::Start], &mut now_ms);
    let (switching, effects) = waiting.step(Event::Ready, now_ms);
    assert_eq!(
        effects,
        [
            Effect::Entered(Phase::Active(Active::Switching)),
            Effect::Prewarm { step: 0 },
            Effect::CutOver { step: Some(0) },
            Effect::Drain,
        ]
    );
    let (in_time, effects) = switching.clone().step(Event::Tick, now_ms + DEADLINE_MS);
    assert_eq!((&in_time, effects), (&switching, vec![]));
    let (late, effects) = switching.step(Event::Tick, now_ms + DEADLINE_MS + 1);
    assert_eq!(late.phase(), Phase::RollingBack(Rollback::Deadline));
    assert_eq!(effects[1..], [Effect::CutOver { step: None }, Effect::Drain]);
}

/// At the second step's start of bake.
fn baking(now_ms: &mut u64) -> Rollout {
    let phases = in_every_phase(now_ms);
    let mut rollout =
        phases.into_iter().find(|(name, _)| *name == "warmup").map(|(_, rollout)| rollout).unwrap();
    *now_ms = entered_ms(&rollout) + WARMUP_MS;
    rollout = rollout.step(Event::Tick, *now_ms).0;
    assert_eq!((rollout.phase(), rollout.baked_ms()), (Phase::Active(Active::Baking), 0));
    rollout
}

#[test]
fn bake_is_time_with_traffic_and_not_time() {
    let mut now_ms = 1;
    let mut rollout = baking(&mut now_ms);
    let mut told = |event, later_ms| {
        now_ms += later_ms;
        rollout = rollout.clone().step(event, now_ms).0;
        rollout.baked_ms()
    };
    assert_eq!(told(Event::Exposed { ms: 60_000 }, 60_000), 60_000);
    assert_eq!(told(Event::Exposed { ms: 20_000 }, 60_000), 80_000, "traffic for a third of a minute");
    assert_eq!(told(Event::Exposed { ms: 60_000 }, 0), 80_000, "the same minute again");
    assert_eq!(told(Event::Tick, 3_600_000), 80_000, "an hour without traffic");
    assert_eq!(told(Event::Pause, 0), 80_000);
    assert_eq!(told(Event::Exposed { ms: 60_000 }, 60_000), 80_000, "paused");
    assert_eq!(told(Event::Resume, 0), 80_000);
    assert_eq!(told(Event::Exposed { ms: 120_000 }, 60_000), 140_000, "of which a minute was paused");
    assert_eq!(told(Event::Restarted, 0), 140_000);
    assert_eq!(told(Event::Exposed { ms: WARMUP_MS }, WARMUP_MS), 140_000, "warming up again");
    assert_eq!(told(Event::Exposed { ms: 60_000 }, 60_000), 200_000);
}

#[test]
fn a_step_passes_by_verdict_and_bake_together() {
    let mut now_ms = 1;
    let early = baking(&mut now_ms);
    let pass = || judged(Verdict::Pass, OnFail::Rollback);
    let open = || judged(Verdict::Inconclusive, OnFail::Rollback);
    assert_eq!(early.clone().step(pass(), now_ms).0, early, "not baked");
    let baked = early.step(Event::Exposed { ms: BAKE_MS }, now_ms + BAKE_MS).0;
    assert_eq!(baked.clone().step(open(), now_ms + BAKE_MS).0, baked, "baked, and open");
    let passed = baked.clone().step(pass(), now_ms + BAKE_MS).0;
    assert_eq!((passed.phase(), passed.step_index()), (Phase::Active(Active::Waiting), 2));
    assert_eq!(passed.exposed_step(), Some(1), "until the next switch");
    let (restarted, effects) = passed.step(Event::Restarted, now_ms + BAKE_MS);
    assert_eq!((restarted.exposed_step(), effects), (Some(1), vec![Effect::CutOver { step: Some(1) }]));
    let long = baked.step(Event::Exposed { ms: MAX_BAKE_MS }, now_ms + MAX_BAKE_MS).0;
    let paused = long.step(open(), now_ms + MAX_BAKE_MS).0;
    assert_eq!(paused.phase(), Phase::Paused { from: Active::Baking, why: Pause::Inconclusive });
    assert_eq!(paused.exposed_step(), Some(1));
}

#[test]
fn promotion_asks_for_bake_unless_told_otherwise_and_is_remembered() {
    let mut now_ms = 1;
    let rollout = baking(&mut now_ms);
    let (same, effects) = rollout.clone().step(Event::Promote(Promotion::Next), now_ms);
    assert_eq!(same, rollout);
    assert_eq!(effects, [Effect::Refused(Refusal::Baking { missing_ms: BAKE_MS })]);
    let (skipped, _) = rollout.clone().step(Event::Promote(Promotion::SkipBake), now_ms);
    assert_eq!((skipped.phase(), skipped.step_index()), (Phase::Active(Active::Waiting), 2));
    let first = after(
        Rollout::new(three_steps(), 0),
        [Event::Validated, Event::Start, Event::Ready, Event::Converged],
        &mut now_ms,
    );
    now_ms += LONG_MS;
    let mut full = first.step(Event::Tick, now_ms).0.step(Event::Promote(Promotion::Full), now_ms).0;
    assert_eq!((full.phase(), full.step_index()), (Phase::Active(Active::Waiting), 2));
    let mut last = Vec::new();
    while full.phase() != Phase::Finished {
        now_ms += LONG_MS;
        let event = onwards(&full);
        (full, last) = full.step(event, now_ms);
    }
    assert_eq!(last.last(), Some(&Effect::Ended(Status::FastPromoted)));
}

#[test]
fn a_retry_takes_acknowledgement_and_the_cooldown_and_is_a_new_run() {
    let mut now_ms = 1;
    let rollout = baking(&mut now_ms);
    let back = after(rollout, [Event::Abort, Event::Drained], &mut now_ms);
    let retry = |rollout: &Rollout, at_ms| rollout.clone().step(Event::Retry, at_ms);
    let long_after = now_ms + LONG_MS;
    assert_eq!(retry(&back, long_after).1, [Effect::Refused(Refusal::Latched)]);
    let seen = back.step(Event::Acknowledge, now_ms + 1_000).0;
    let left_ms = COOLDOWN_MS - 2_000;
    assert_eq!(retry(&seen, now_ms + 2_000).1, [Effect::Refused(Refusal::Cooldown { left_ms })]);
    let again = retry(&seen, now_ms + COOLDOWN_MS).0;
    assert_eq!((again.phase(), again.run(), again.step_index()), (Phase::Active(Active::Planned), 2, 0));
    assert!(!again.is_latched());
    assert_eq!(again.exposed_step(), None);
}

#[test]
fn an_edit_keeps_passed_steps_of_the_same_text_and_what_is_in_force_while_that_is_one() {
    let mut now_ms = 1;
    let rollout = baking(&mut now_ms);
    let edited = |steps: &[u8]| {
        let (edited, effects) = rollout.clone().step(Event::Edited(plan(steps)), now_ms);
        assert_eq!(edited.phase(), Phase::Active(Active::Superseded));
        let entered = Effect::Entered(edited.phase());
        let ended = Effect::Ended(Status::Superseded);
        if edited.exposed_step().is_some() {
            assert_eq!(effects, [entered, ended]);
        } else {
            assert_eq!(effects, [entered, Effect::CutOver { step: None }, Effect::Drain, ended]);
        }
        (edited.step_index(), edited.run(), edited.exposed_step())
    };
    assert_eq!(edited(&[1, 2, 8]), (1, 2, Some(1)), "what comes after is another");
    assert_eq!(edited(&[1, 2]), (1, 2, Some(1)), "nothing comes after");
    assert_eq!(edited(&[1, 8]), (1, 2, None), "the step in force is another");
    assert_eq!(edited(&[8, 2]), (0, 2, None), "the first step is another");
    assert_eq!(edited(&[1]), (0, 2, None), "there is no second step: the first bakes again");
    let (same, effects) = rollout.clone().step(Event::Edited(three_steps()), now_ms);
    assert_eq!((same, effects), (rollout.clone(), vec![]), "no edit at all");
}

#[test]
fn an_edit_takes_nothing_back_where_nothing_is_in_force() {
    let waiting = after(Rollout::new(three_steps(), 0), [Event::Validated, Event::Start], &mut 0);
    let (edited, effects) = waiting.step(Event::Edited(plan(&[8])), 5_000);
    let entered = Effect::Entered(Phase::Active(Active::Superseded));
    assert_eq!(effects, [entered, Effect::Ended(Status::Superseded)]);
    assert_eq!(edited.exposed_step(), None);
}

/// A rollout that is switching to its first step, since `now_ms`.
fn switching(now_ms: &mut u64) -> Rollout {
    let events = [Event::Validated, Event::Start, Event::Ready];
    let switching = after(Rollout::new(three_steps(), *now_ms), events, now_ms);
    assert_eq!(switching.phase(), Phase::Active(Active::Switching));
    switching
}

#[test]
fn a_store_that_is_lost_while_switching_and_found_in_time_delays_and_rolls_nothing_back() {
    let mut now_ms = 0;
    let frozen = after(switching(&mut now_ms), [Event::StoreLost], &mut now_ms);
    let (same, effects) = frozen.clone().step(Event::Converged, now_ms);
    assert_eq!((&same, effects), (&frozen, vec![Effect::Refused(Refusal::Frozen)]));
    let (found, effects) = same.step(Event::StoreFound, now_ms);
    // So that the driver says again that it converged.
    assert_eq!(effects, [Effect::Prewarm { step: 0 }, Effect::CutOver { step: Some(0) }, Effect::Drain]);
    let warm = found.step(Event::Converged, now_ms).0;
    assert_eq!(warm.phase(), Phase::Active(Active::Warmup));
}

#[test]
fn a_switch_is_rolled_back_at_its_deadline_though_the_store_is_lost() {
    let mut now_ms = 0;
    let switching = switching(&mut now_ms);
    let frozen = switching.step(Event::StoreLost, now_ms).0;
    assert_eq!(frozen.clone().step(Event::Tick, now_ms + DEADLINE_MS).0, frozen);
    let (late, effects) = frozen.step(Event::Tick, now_ms + DEADLINE_MS + 1);
    assert_eq!(late.phase(), Phase::RollingBack(Rollback::Deadline));
    assert_eq!(effects[1..], [Effect::CutOver { step: None }, Effect::Drain]);
}

#[test]
fn a_latch_from_while_the_store_was_lost_is_in_the_first_state_that_can_be_stored() {
    let mut now_ms = 1;
    let frozen = after(baking(&mut now_ms), [Event::StoreLost], &mut now_ms);
    let (back, effects) = frozen.step(Event::Abort, now_ms);
    assert_eq!(effects[1..], [Effect::CutOver { step: None }, Effect::Drain], "done without a store");
    for (events, phase) in [
        (vec![Event::StoreFound], Phase::RollingBack(Rollback::Aborted)),
        (
            vec![Event::Drained, Event::StoreFound],
            Phase::RolledBack { why: Rollback::Aborted, acknowledged: false },
        ),
    ] {
        let found = after(back.clone(), events, &mut now_ms);
        let stored = Rollout::from_json(found.to_json().as_bytes()).unwrap();
        assert_eq!((stored.phase(), stored.exposed_step(), stored.is_frozen()), (phase, None, false));
    }
}

#[test]
fn a_store_that_was_never_lost_is_not_found() {
    for (name, rollout) in in_every_phase(&mut 1) {
        let found = rollout.clone().step(Event::StoreFound, 100 * LONG_MS);
        assert_eq!(found, (rollout, vec![]), "{name}");
    }
}

#[test]
fn plans_that_can_not_work_are_refused() {
    let with = |step: Step| Plan::new(vec![step], 0, 0, 0).unwrap_err();
    let step = || Step { name: "a".to_owned(), digest: [0; 32], bake_ms: 1, max_bake_ms: 2 };
    assert_eq!(Plan::new(vec![], 0, 0, 0).unwrap_err(), PlanError::Steps(0));
    assert_eq!(Plan::new(vec![step(); 101], 0, 0, 0).unwrap_err(), PlanError::Steps(101));
    assert_eq!(with(Step { name: String::new(), ..step() }), PlanError::Name(0));
    assert_eq!(with(Step { name: "a\nb".to_owned(), ..step() }), PlanError::Name(0));
    assert_eq!(with(Step { bake_ms: 3, ..step() }), PlanError::Bake(0));
    assert_eq!(with(Step { max_bake_ms: u64::MAX, ..step() }), PlanError::Time);
    assert_eq!(Plan::new(vec![step()], u64::MAX, 0, 0).unwrap_err(), PlanError::Time);
}

#[test]
fn a_damaged_or_foreign_state_is_refused_with_the_reason() {
    let mut now_ms = 1;
    let state: Value = serde_json::from_str(&baking(&mut now_ms).to_json()).unwrap();
    let refused = |place: &str, value: Value| {
        let mut state = state.clone();
        *state.pointer_mut(place).unwrap() = value;
        Rollout::from_json(state.to_string().as_bytes()).unwrap_err()
    };
    assert_eq!(refused("/version", json!(1)), StateError::Version { found: 1, expected: 2 });
    assert_eq!(refused("/plan/steps", json!([])), StateError::Plan(PlanError::Steps(0)));
    let exposed = StateError::Contradiction("an exposed step that its phase doesn't have");
    for (place, value) in [
        ("/exposed_step", json!(null)),
        ("/exposed_step", json!(0)),
        ("/exposed_step", json!(2)),
        ("/exposed_step", json!(3)),
        ("/step", json!(0)),
        ("/phase", json!({ "rolling-back": "aborted" })),
        ("/phase", json!({ "rolled-back": { "why": "guard", "acknowledged": true } })),
        ("/phase", json!({ "active": "planned" })),
        ("/phase", json!({ "active": "completed" })),
        ("/phase", json!("finished")),
        ("/phase", json!({ "paused": { "from": "draft", "why": "user" } })),
    ] {
        assert_eq!(refused(place, value.clone()), exposed, "{place} {value}");
    }
    assert_eq!(refused("/step", json!(3)), StateError::Contradiction("a step that its plan doesn't have"));
    assert_eq!(refused("/run", json!(0)), StateError::Contradiction("a run before the first"));
    for (place, value) in [
        ("/format", json!("x")),
        ("/phase", json!("idle")),
        ("/phase", json!({ "active": "sleeping" })),
        ("/step", json!(-1)),
        ("/plan/steps/0/digest", json!("00")),
        ("/frozen", json!(null)),
    ] {
        assert!(matches!(refused(place, value.clone()), StateError::Foreign(_)), "{place} {value}");
    }
    let mut unknown = state.clone();
    unknown["note"] = json!(1);
    assert!(matches!(Rollout::from_json(unknown.to_string().as_bytes()), Err(StateError::Foreign(_))));
    for bytes in [&b""[..], b"{}", b"null", &b"[".repeat(10_000)] {
        assert!(matches!(Rollout::from_json(bytes), Err(StateError::Foreign(_))));
    }
    assert_eq!(Rollout::from_json(&vec![b' '; 2 << 20]), Err(StateError::TooLarge(2 << 20)));
}
