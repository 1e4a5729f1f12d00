//! The phases of messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use execution::{Backend, MessageId, MessageKey, RoundObserver};
use rollout::{
    Arm, Collector, KINDS, LivePolicy, MessagePhase, MessageTimes, Mode, Recorder, SAMPLED, Sandbox,
    Selector, ShadowOptions, is_sampled,
};

use crate::selector::{Fake, PATIENCE, invocation, selector, snapshot};

/// A message of its own for each number.
fn message(number: u64) -> MessageKey {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    MessageKey::of_ingress(&MessageId(id))
}

/// The first messages that are measured, and the first invocations.
fn measured(count: usize) -> Vec<(MessageKey, u64)> {
    let messages = (0..).map(message).filter(|message| is_sampled(message.number()));
    let invocations = (1..).filter(|id| is_sampled(*id));
    messages.zip(invocations).take(count).collect()
}

/// What a subnet does with a message that waits.
fn run(selector: &Selector, message: MessageKey, id: u64) {
    let snapshot = snapshot();
    selector.begun(message, &snapshot.canister, "update");
    selector.execute(&snapshot, &invocation(id)).unwrap();
    selector.checked(id);
    selector.committed(id);
}

fn counts(times: &MessageTimes, arm: Arm) -> [u64; 4] {
    MessagePhase::ALL.map(|phase| times.one(arm, phase).map_or(0, |times| times.len()))
}

fn ready(selector: &Selector, messages: &[(MessageKey, u64)]) {
    messages.iter().for_each(|(message, _)| selector.ready(*message));
}

fn fakes() -> (Arc<Fake>, Arc<Fake>) {
    (Fake::finishing(|_, _| {}), Fake::finishing(|_, _| {}))
}

#[test]
fn each_phase_counts_each_sampled_message_once_under_its_mode() {
    for (mode, arm) in [
        (Mode::InProcess, Arm::InProcess),
        (Mode::Sandboxed, Arm::Sandboxed),
        (Mode::Shadow, Arm::ShadowControl),
    ] {
        let (control, candidate) = fakes();
        let (selector, _) = selector(mode, &control, &candidate, ShadowOptions::default());
        let all: Vec<_> = (1..=1_000).map(|id| (message(id), id)).collect();
        ready(&selector, &all);
        all.iter().for_each(|(message, id)| run(&selector, *message, *id));
        assert!(selector.settle(PATIENCE));
        let queued = all.iter().filter(|(message, _)| is_sampled(message.number())).count() as u64;
        let ran = all.iter().filter(|(_, id)| is_sampled(*id)).count() as u64;
        let times = selector.messages().total();
        assert_eq!(counts(&times, arm), [queued, ran, ran, ran]);
        // Shadow's candidates among them: they are committed nowhere.
        for other in Arm::ALL.into_iter().filter(|other| *other != arm) {
            assert_eq!(counts(&times, other), [0; 4], "{other:?} in {mode}");
        }
        assert_eq!(times.waits("update").unwrap().len(), queued);
    }
}

#[test]
fn one_in_sixteen_is_measured_in_any_pattern_of_numbers() {
    for step in 1..=64 {
        let sampled = (0..16_000).filter(|number| is_sampled(number * step + 7)).count();
        assert!((900..=1_100).contains(&sampled), "{sampled} of every {step}th");
    }
    assert_eq!(SAMPLED, 16);
}

#[test]
fn the_phases_of_a_message_together_take_no_longer_than_the_message() {
    for (mode, arm) in [(Mode::InProcess, Arm::InProcess), (Mode::Sandboxed, Arm::Sandboxed)] {
        let (control, candidate) = fakes();
        let (selector, _) = selector(mode, &control, &candidate, ShadowOptions::default());
        let start = Instant::now();
        ready(&selector, &measured(1));
        let (message, id) = measured(1)[0];
        run(&selector, message, id);
        let whole = start.elapsed();
        let times = selector.messages().total();
        // The lower end of a bucket: a histogram has three digits.
        let phases = MessagePhase::ALL.map(|phase| times.one(arm, phase).unwrap().min());
        assert!(Duration::from_nanos(phases.iter().sum()) <= whole, "{phases:?} of {whole:?}");
    }
}

#[test]
fn the_last_of_a_queue_has_waited_for_all_that_ran_before_it() {
    let (control, candidate) = fakes();
    let (selector, seen) = selector(Mode::InProcess, &control, &candidate, ShadowOptions::default());
    let mut waits = Vec::new();
    for length in [1, 100] {
        let queue = measured(length);
        selector.messages().clear();
        ready(&selector, &queue);
        queue.iter().for_each(|(message, id)| run(&selector, *message, *id));
        let before: Duration = seen.drain().iter().rev().skip(1).map(|seen| seen.duration).sum();
        let longest = selector.messages().total().waits("update").unwrap().max();
        assert!(Duration::from_nanos(longest) >= before, "{longest} ns, and {before:?} ran before");
        waits.push(selector.messages().total().waits("update").unwrap().len());
    }
    assert_eq!(waits, [1, 100]);
}

#[test]
fn a_message_that_begins_again_or_is_dropped_waits_no_second_time() {
    let (control, candidate) = fakes();
    let (selector, _) = selector(Mode::InProcess, &control, &candidate, ShadowOptions::default());
    let [(first, one), (second, two)] = measured(2)[..] else { panic!("two") };
    ready(&selector, &measured(2));
    selector.begun(first, &snapshot().canister, "update");
    run(&selector, first, one);
    selector.dropped(second);
    run(&selector, second, two);
    assert_eq!(counts(&selector.messages().total(), Arm::InProcess), [1, 2, 2, 2]);
}

#[test]
fn what_is_not_checked_is_in_no_phase_and_no_other_executions_moments_are_taken_for_its_own() {
    let (control, candidate) = fakes();
    let (selector, _) = selector(Mode::InProcess, &control, &candidate, ShadowOptions::default());
    let ids: Vec<u64> = measured(2).into_iter().map(|(_, id)| id).collect();
    selector.execute(&snapshot(), &invocation(ids[0])).unwrap();
    selector.checked(ids[1]);
    selector.committed(ids[0]);
    assert_eq!(counts(&selector.messages().total(), Arm::InProcess), [0; 4]);
}

#[test]
fn waits_have_the_kinds_that_there_are_and_nothing_is_none() {
    let (control, candidate) = fakes();
    let (selector, _) = selector(Mode::InProcess, &control, &candidate, ShadowOptions::default());
    assert!(KINDS.iter().all(|kind| selector.messages().total().waits(kind).is_none()));
    let messages = measured(KINDS.len());
    ready(&selector, &messages);
    for ((message, _), kind) in messages.iter().zip(KINDS) {
        selector.begun(*message, &snapshot().canister, kind);
    }
    let times = selector.messages().total();
    assert!(KINDS.iter().all(|kind| times.waits(kind).unwrap().len() == 1));
    assert!(times.waits("no kind").is_none());
}

#[test]
fn times_of_two_nodes_add_up_to_what_one_would_have_measured() {
    let (control, candidate) = fakes();
    let nodes = [Mode::InProcess, Mode::Sandboxed].map(|mode| {
        let (selector, _) = selector(mode, &control, &candidate, ShadowOptions::default());
        ready(&selector, &measured(5));
        measured(5).iter().for_each(|(message, id)| run(&selector, *message, *id));
        selector.messages().total()
    });
    let mut both = nodes[0].clone();
    both.add(&nodes[1]);
    for (node, arm) in nodes.iter().zip([Arm::InProcess, Arm::Sandboxed]) {
        for phase in MessagePhase::ALL {
            assert_eq!(both.one(arm, phase), node.one(arm, phase));
        }
    }
    let mut waits = nodes[0].waits("update").unwrap().clone();
    waits.add(nodes[1].waits("update").unwrap()).unwrap();
    assert_eq!(both.waits("update"), Some(&waits));
}

#[test]
fn what_nobody_observes_costs_no_phase() {
    let seen = Arc::new(Collector::new(10));
    let fake = Fake::finishing(|_, _| {});
    let selector = Selector::with(
        LivePolicy::fixed(Mode::InProcess),
        Arc::clone(&fake) as _,
        Sandbox::Ready(fake),
        Arc::new(Recorder::new()),
        Some(Arc::clone(&seen) as _),
        ShadowOptions::default(),
    );
    for (_, id) in measured(3) {
        selector.execute(&snapshot(), &invocation(id)).unwrap();
    }
    assert_eq!(seen.drain().len(), 3);
    assert_eq!(counts(&selector.messages().total(), Arm::InProcess), [0; 4]);
}
