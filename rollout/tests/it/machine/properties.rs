//! What no sequence of events can do to a rollout.

use proptest::prelude::*;
use rollout::Verdict;
use rollout::machine::{Active, Effect, Event, OnFail, Phase, Plan, Promotion, Refusal, Rollback, Rollout};

use super::{COOLDOWN_MS, DEADLINE_MS, LONG_MS, WARMUP_MS, onwards, plan, three_steps};

fn any_plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec(0_u8..3, 1..4).prop_map(|texts| plan(&texts))
}

fn any_event() -> impl Strategy<Value = Event> {
    let verdict = prop::sample::select(vec![Verdict::Pass, Verdict::Fail, Verdict::Inconclusive]);
    let on_fail = prop::sample::select(vec![OnFail::Rollback, OnFail::Pause, OnFail::Observe]);
    let promotion = prop::sample::select(vec![Promotion::Next, Promotion::SkipBake, Promotion::Full]);
    prop_oneof![
        8 => prop::sample::select(vec![
            Event::Validated,
            Event::Start,
            Event::Ready,
            Event::Converged,
            Event::Tick,
            Event::Tick,
            Event::Pause,
            Event::Resume,
            Event::Drained,
            Event::Acknowledge,
            Event::Retry,
            Event::Finish,
            Event::Restarted,
            Event::StoreLost,
            Event::StoreFound,
        ]),
        1 => prop::sample::select(vec![Event::Abort, Event::Kill]),
        3 => (0..2 * LONG_MS).prop_map(|ms| Event::Exposed { ms }),
        3 => (verdict, on_fail).prop_map(|(verdict, on_fail)| Event::Judged { verdict, on_fail }),
        1 => promotion.prop_map(Event::Promote),
        1 => any_plan().prop_map(Event::Edited),
    ]
}

/// Events with the time that passes before each; now and then the clock goes back.
fn any_events(most: usize) -> impl Strategy<Value = Vec<(Event, i64)>> {
    let ms = prop_oneof![4 => 0..LONG_MS.cast_signed(), 1 => 0..1_000_i64, 1 => -5_000..0_i64];
    prop::collection::vec((any_event(), ms), 0..most)
}

/// Half of the way by chance, half of it straight on, so that every phase is met.
fn walk(
    plan: Plan,
    events: Vec<(Event, i64)>,
    mut each: impl FnMut(&Rollout, &Event, u64, &Rollout, &[Effect]),
) -> (Rollout, u64) {
    let mut now_ms = 1_700_000_000_000_u64;
    let mut rollout = Rollout::new(plan, now_ms);
    for (event, ms) in events {
        for event in [onwards(&rollout), event] {
            now_ms = now_ms.saturating_add_signed(ms / 2);
            let (next, effects) = rollout.clone().step(event.clone(), now_ms);
            each(&rollout, &event, now_ms, &next, &effects);
            rollout = next;
        }
    }
    (rollout, now_ms)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_sequence_of_events_leads_to_a_phase_without_a_way_to_the_end(
        plan in any_plan(), events in any_events(30), clock_is_set: bool,
    ) {
        let (mut rollout, mut now_ms) = walk(plan, events, |_, _, _, _, _| {});
        if clock_is_set {
            now_ms = 0;
        }
        // Found store, resume, rollback and retry, then seven events for each of at most three steps.
        for _ in 0..40 {
            if rollout.phase() == Phase::Finished {
                return Ok(());
            }
            now_ms += LONG_MS;
            // A switch that is waited for this long is over its deadline, but only a tick says so.
            let event = onwards(&rollout);
            rollout = rollout.step(event, now_ms).0;
        }
        prop_assert!(false, "stuck in {:?}", rollout);
    }

    #[test]
    fn one_event_rolls_back_from_every_phase_that_can_be(plan in any_plan(), events in any_events(30)) {
        let (rollout, now_ms) = walk(plan, events, |_, _, _, _, _| {});
        for (event, why) in [(Event::Abort, Rollback::Aborted), (Event::Kill, Rollback::Killed)] {
            let latched_before = rollout.is_latched();
            let (back, effects) = rollout.clone().step(event.clone(), now_ms);
            if rollout.phase() == Phase::Finished {
                prop_assert_eq!(effects, vec![Effect::Refused(Refusal::Finished)]);
                continue;
            }
            prop_assert!(back.is_latched());
            prop_assert_eq!(back.exposed_step(), None);
            if !latched_before {
                prop_assert_eq!(back.phase(), Phase::RollingBack(why));
                let cut_over = Effect::CutOver { step: None };
                prop_assert!(effects.contains(&cut_over));
            }
            // Again: nothing.
            let (again, effects) = back.clone().step(event, now_ms);
            prop_assert_eq!((again, effects), (back, vec![]));
        }
    }

    #[test]
    fn a_latch_outlives_every_edit_restart_and_command_but_acknowledgement_and_retry(
        plan in any_plan(), events in any_events(30), later in any_events(60),
    ) {
        let (rollout, mut now_ms) = walk(plan, events, |_, _, _, _, _| {});
        prop_assume!(rollout.phase() != Phase::Finished && !rollout.is_latched());
        let mut latched = rollout.step(Event::Abort, now_ms).0;
        for (event, ms) in later {
            now_ms = now_ms.saturating_add_signed(ms);
            let acknowledges = event == Event::Acknowledge;
            let (next, effects) = latched.step(event, now_ms);
            let exposes = effects.iter().any(|effect| matches!(effect, Effect::CutOver { step: Some(_) }));
            prop_assert!(!exposes && next.exposed_step().is_none(), "{:?} {:?}", next, effects);
            prop_assert!(next.is_latched());
            if acknowledges && matches!(next.phase(), Phase::RolledBack { acknowledged: true, .. }) {
                // From here on a retry may lift it: seen elsewhere.
                return Ok(());
            }
            // Out of the store and back, as at a restart.
            latched = Rollout::from_json(next.to_json().as_bytes()).unwrap();
        }
    }

    #[test]
    fn the_exposed_step_is_none_while_latched_and_only_a_switch_brings_another(
        plan in any_plan(), events in any_events(40),
    ) {
        walk(plan, events, |before, event, _, next, effects| {
            if next.is_latched() {
                assert_eq!(next.exposed_step(), None, "{next:?}");
            }
            let switches = next.phase() == Phase::Active(Active::Switching) && *event == Event::Ready;
            match next.exposed_step() {
                Some(exposed) => {
                    let said = &next.plan().steps()[exposed];
                    // Unless it was switched to, the same text was exposed before.
                    let before = before.exposed_step().map(|step| &before.plan().steps()[step].digest);
                    assert!(switches || before == Some(&said.digest), "{event:?}: {next:?}");
                    assert!(exposed <= next.step_index());
                }
                None if before.exposed_step().is_some() => {
                    assert!(effects.contains(&Effect::CutOver { step: None }), "{event:?}: {next:?}");
                    assert!(next.is_latched() || next.phase() == Phase::Active(Active::Superseded));
                }
                None => {}
            }
            // What is told to be put in force is what the state says.
            for effect in effects {
                if let Effect::CutOver { step } = effect {
                    assert_eq!(*step, next.exposed_step());
                }
            }
        });
    }

    #[test]
    fn a_stored_state_comes_back_equal_and_a_restart_keeps_the_phase(plan in any_plan(), events in any_events(40)) {
        let (rollout, now_ms) = walk(plan, events, |_, _, _, next, _| {
            assert_eq!(&Rollout::from_json(next.to_json().as_bytes()).unwrap(), next);
        });
        let (restarted, effects) = rollout.clone().step(Event::Restarted, now_ms);
        let kept = |rollout: &Rollout| {
            (rollout.phase(), rollout.step_index(), rollout.run(), rollout.exposed_step(), rollout.baked_ms())
        };
        prop_assert_eq!(kept(&restarted), kept(&rollout));
        let in_force = effects.contains(&Effect::CutOver { step: rollout.exposed_step() });
        prop_assert_eq!(in_force, rollout.phase() != Phase::Finished);
    }

    #[test]
    fn no_more_is_baked_than_the_clock_went_on_in_the_step(plan in any_plan(), events in any_events(40)) {
        let (mut went_ms, mut last_ms) = (0, u64::MAX);
        walk(plan, events, |before, event, now_ms, next, _| {
            if next.baked_ms() > before.baked_ms() {
                assert!(matches!(event, Event::Exposed { .. }), "{event:?}");
                assert_eq!(before.phase(), Phase::Active(Active::Baking));
                assert!(!before.is_frozen());
            }
            // A step is measured from where its bake begins. What the clock goes back isn't taken off.
            went_ms += now_ms.saturating_sub(last_ms);
            last_ms = now_ms;
            if next.baked_ms() == 0 && before.phase() != Phase::Active(Active::Baking) {
                went_ms = 0;
            }
            assert!(next.baked_ms() <= went_ms, "{next:?}");
        });
    }

    #[test]
    fn a_clock_set_back_by_any_time_delays_nothing_by_more_than_the_time_that_it_takes_anyway(
        plan in any_plan(), events in any_events(30), set_to_ms in 0_u64..1_700_000_000_000,
    ) {
        let (rollout, _) = walk(plan, events, |_, _, _, _, _| {});
        let told = rollout.step(Event::Tick, set_to_ms).0;
        let later = |event, ms| told.clone().step(event, set_to_ms + ms);
        let frozen = told.is_frozen();
        match told.phase() {
            Phase::Active(Active::Switching) => {
                let late = later(Event::Tick, DEADLINE_MS + 1).0;
                prop_assert_eq!(late.phase(), Phase::RollingBack(Rollback::Deadline));
            }
            Phase::Active(Active::Warmup) if !frozen => {
                prop_assert_eq!(later(Event::Tick, WARMUP_MS).0.phase(), Phase::Active(Active::Baking));
            }
            Phase::Active(Active::Baking) if !frozen => {
                let counted = later(Event::Exposed { ms: 1_000 }, WARMUP_MS + 1_000).0;
                prop_assert_eq!(counted.baked_ms(), told.baked_ms() + 1_000);
            }
            Phase::RolledBack { acknowledged: true, .. } if !frozen => {
                let again = later(Event::Retry, COOLDOWN_MS).0;
                prop_assert_eq!(again.phase(), Phase::Active(Active::Planned));
            }
            _ => {}
        }
    }

    #[test]
    fn while_the_store_is_lost_nothing_advances(plan in any_plan(), events in any_events(30), later in any_events(30)) {
        let (rollout, mut now_ms) = walk(plan, events, |_, _, _, _, _| {});
        let mut frozen = rollout.step(Event::StoreLost, now_ms).0;
        for (event, ms) in later {
            if event == Event::StoreFound {
                break;
            }
            now_ms = now_ms.saturating_add_signed(ms);
            let next = frozen.clone().step(event, now_ms).0;
            let same = next.phase() == frozen.phase() && next.exposed_step() == frozen.exposed_step();
            prop_assert!(same || next.is_latched(), "{:?} to {:?}", frozen, next);
            prop_assert_eq!(next.baked_ms(), frozen.baked_ms());
            frozen = next;
        }
    }

    #[test]
    fn no_change_of_a_stored_byte_makes_it_panic(at in 0_usize..900, byte: u8) {
        let mut bytes = Rollout::new(three_steps(), 5).to_json().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _refused_or_not = Rollout::from_json(&bytes);
    }
}

/// A node as [`Rollout::step`] asks for one, whose store fails and which dies.
struct Node {
    disk: Rollout,
    memory: Rollout,
    in_force: Option<usize>,
}

/// When the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dies {
    No,
    BeforeTheEffects,
    AfterThem,
}

impl Node {
    fn happened(&mut self, event: Event, now_ms: u64, store_works: bool, dies: Dies) {
        let (next, effects) = self.memory.clone().step(event, now_ms);
        if store_works {
            self.disk = Rollout::from_json(next.to_json().as_bytes()).unwrap();
        }
        let taken = store_works || next.is_latched();
        if taken {
            self.memory = next;
        }
        if !store_works {
            self.memory = self.memory.clone().step(Event::StoreLost, now_ms).0;
        }
        for effect in effects.into_iter().filter(|_| taken && dies != Dies::BeforeTheEffects) {
            if let Effect::CutOver { step } = effect {
                self.in_force = step;
            }
        }
        if dies != Dies::No {
            (self.memory, self.in_force) = (self.disk.clone(), None);
            self.happened(Event::Restarted, now_ms, store_works, Dies::No);
        } else if store_works && self.memory.is_frozen() {
            self.happened(Event::StoreFound, now_ms, true, Dies::No);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whenever_the_store_fails_and_the_process_dies_nothing_is_in_force_that_is_not_stored(
        plan in any_plan(),
        events in any_events(60),
        fates in prop::collection::vec(
            (
                prop::bool::weighted(0.7),
                prop::sample::select(vec![Dies::No, Dies::No, Dies::No, Dies::BeforeTheEffects, Dies::AfterThem]),
            ),
            60,
        ),
    ) {
        let mut now_ms = 1_700_000_000_000_u64;
        let draft = Rollout::new(plan, now_ms);
        let mut node = Node { disk: draft.clone(), memory: draft, in_force: None };
        for ((event, ms), (store_works, dies)) in events.into_iter().zip(fates) {
            now_ms = now_ms.saturating_add_signed(ms / 2);
            let onwards = onwards(&node.memory);
            node.happened(onwards, now_ms, true, Dies::No);
            let was_latched = node.memory.is_latched();
            let retries = event == Event::Retry;
            node.happened(event, now_ms, store_works, dies);
            prop_assert!(node.in_force.is_none() || node.in_force == node.disk.exposed_step());
            if node.memory.is_latched() {
                prop_assert_eq!(node.in_force, None);
            }
            if store_works {
                let stored = (node.disk.phase(), node.disk.exposed_step(), node.disk.is_frozen());
                prop_assert_eq!(stored, (node.memory.phase(), node.memory.exposed_step(), false));
                // Of a finished rollout the policy file says it.
                let said = node.in_force == node.disk.exposed_step() || node.disk.phase() == Phase::Finished;
                prop_assert!(said, "{:?}", node.memory);
                prop_assert!(!was_latched || retries || node.disk.is_latched());
            }
        }
    }
}
