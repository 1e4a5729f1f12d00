//! What is under way under which policy, and how long switches take.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use execution::{Backend, Execution, Limits, Principal};
use rollout::{
    Exposures, LivePolicy, Mode, Recorder, Sandbox, Selector, ShadowOptions, SwitchDirection, SwitchPhase,
    Trigger,
};

use crate::selector::{Ahead, Fake, Gate, Once, exposed, invocation, on_trial, outcome, selector, snapshot};

#[test]
fn what_is_under_way_is_told_by_its_mode_and_by_whether_its_policy_is_in_force() {
    let paused = Fake::new(|snapshot, _| Ok(Execution::Paused(Box::new(Once(outcome(snapshot))))));
    let (_directory, selector) = on_trial(&paused, &paused);
    let live = selector.live();
    let now = || {
        let (current, old) = live.under_way();
        [current, old].map(|counts| [Mode::InProcess, Mode::Sandboxed].map(|mode| counts.one(mode)))
    };
    let pause = |id| match selector.execute(&snapshot(), &invocation(id)).unwrap() {
        Execution::Paused(run) => run,
        Execution::Finished(_) => panic!("it pauses"),
    };
    assert_eq!(now(), [[0, 0], [0, 0]]);
    let (first, second) = (pause(1), pause(2));
    assert_eq!(now(), [[2, 0], [0, 0]]);
    live.expose(exposed(Some(4)));
    let third = pause(3);
    assert_eq!(now(), [[0, 1], [2, 0]]);
    first.resume(1_000).unwrap();
    third.abort();
    assert_eq!(now(), [[0, 0], [1, 0]]);
    second.abort();
    assert_eq!(now(), [[0, 0], [0, 0]]);
    assert!(live.is_drained());
}

#[test]
fn a_batch_that_waits_is_under_way_and_one_that_fails_is_not() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let fake = Fake::new(move |snapshot, _| match failing.load(Ordering::SeqCst) {
        true => Err(execution::BackendError::Engine("no".into())),
        false => Ok(Execution::Finished(outcome(snapshot))),
    });
    let live = LivePolicy::fixed(Mode::Sandboxed);
    let sandbox = Sandbox::Ready(Arc::new(Ahead(Arc::clone(&fake))));
    let selector = Selector::new(Arc::clone(&live), fake, sandbox, Arc::new(Recorder::new()));
    let (_, batch) = selector.execute_batch(&snapshot(), &invocation(1), &[invocation(2)]).unwrap();
    assert_eq!(live.under_way().0.one(Mode::Sandboxed), 1);
    drop(batch);
    assert_eq!(live.under_way().0.one(Mode::Sandboxed), 0);
    fails.store(true, Ordering::SeqCst);
    assert!(selector.execute_batch(&snapshot(), &invocation(3), &[invocation(4)]).is_err());
    assert!(selector.execute(&snapshot(), &invocation(5)).is_err());
    assert_eq!(live.under_way().0.one(Mode::Sandboxed), 0);
}

#[test]
fn what_runs_on_another_thread_than_it_is_asked_from_is_under_way_meanwhile() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let fake = Fake::new(move |snapshot, _| {
        door.pass();
        Ok(Execution::Finished(outcome(snapshot)))
    });
    let (selector, _) = selector(Mode::InProcess, &fake, &fake, ShadowOptions::default());
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| selector.execute(&snapshot(), &invocation(1)).map(drop));
        gate.reached();
        assert_eq!(selector.live().under_way().0.one(Mode::InProcess), 1);
        gate.open();
        ran.join().unwrap().unwrap();
    });
    assert_eq!(selector.live().under_way().0.one(Mode::InProcess), 0);
}

/// How many switches were measured: got ready for, cut over, drained, and with a first execution.
fn switched(live: &LivePolicy, direction: SwitchDirection) -> [u64; 4] {
    let times = live.switch_times();
    SwitchPhase::ALL.map(|phase| times.one(direction, phase).map_or(0, |times| times.len()))
}

#[test]
fn a_switch_is_measured_to_its_cutover_its_drain_and_its_first_execution_each_when_it_comes() {
    use SwitchDirection::{FromSandbox, ToSandbox};
    let paused = Fake::new(|snapshot, _| Ok(Execution::Paused(Box::new(Once(outcome(snapshot))))));
    let (_directory, selector) = on_trial(&paused, &Fake::finishing(|_, _| {}));
    let live = selector.live();
    let Execution::Paused(before) = selector.execute(&snapshot(), &invocation(1)).unwrap() else {
        panic!("it pauses")
    };
    assert_eq!(switched(live, ToSandbox), [0, 0, 0, 0], "no data");
    live.expose(exposed(Some(4)));
    assert_eq!(switched(live, ToSandbox), [0, 1, 0, 0]);
    selector.execute(&snapshot(), &invocation(2)).unwrap();
    selector.execute(&snapshot(), &invocation(3)).unwrap();
    assert_eq!(switched(live, ToSandbox), [0, 1, 0, 1], "what began before it is paused");
    live.expose(exposed(None));
    assert_eq!((switched(live, ToSandbox), switched(live, FromSandbox)), ([0, 1, 0, 1], [0, 1, 0, 0]));
    before.resume(1_000).unwrap();
    assert_eq!((switched(live, ToSandbox), switched(live, FromSandbox)), ([0, 1, 1, 1], [0, 1, 1, 0]));
    assert!(live.is_drained());
}

#[test]
fn a_policy_that_moves_nothing_is_no_switch_and_one_that_moves_both_ways_counts_in_both() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let (a, b) = (snapshot().canister, execution::Principal::from_slice(&[9]));
    let save = |path: &Path, mode: &str, sandboxed: &str| {
        let text = format!(
            "schema = 1\n[default]\nmode = \"{mode}\"\n[[canisters]]\nid = \"{sandboxed}\"\nmode = \"sandboxed\"\n"
        );
        std::fs::write(path, text).unwrap();
    };
    save(&path, "in-process", &a.to_text());
    let live = LivePolicy::watch(&path, "s", "n").unwrap();
    let all = || SwitchDirection::ALL.map(|direction| switched(&live, direction)[1]);
    // The file is watched as well: whoever reads it first, it is one switch.
    save(&path, "shadow", &a.to_text());
    live.reload(Trigger::Request).unwrap();
    assert_eq!(all(), [0, 0]);
    save(&path, "in-process", &b.to_text());
    live.reload(Trigger::Request).unwrap();
    assert_eq!(all(), [1, 1]);
}

fn numbered(number: u8) -> Principal {
    Principal::from_slice(&[number, 1])
}

#[test]
fn before_a_step_workers_are_launched_for_those_of_its_canisters_that_ran_last_and_for_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    std::fs::write(&path, crate::rollouts::FULL).unwrap();
    let live = LivePolicy::watch(&path, "one", "n1").unwrap();
    let control = Fake::having((0..200).map(numbered).collect(), Vec::new());
    let candidate = Fake::finishing(|_, _| {});
    let sandbox = Sandbox::Ready(Arc::clone(&candidate) as _);
    let selector = Selector::new(Arc::clone(&live), control, sandbox, Arc::new(Recorder::new()));
    let ready = |step| {
        let launched = selector.prewarm(&exposed(step), &Limits::application(), || true).unwrap();
        let canisters = std::mem::take(&mut *candidate.ready.lock().unwrap());
        assert_eq!(launched, canisters.len());
        canisters
    };
    // Nothing, half of them in shadow, a tenth sandboxed, all.
    let steps = [None, Some(1), Some(3), Some(4)].map(|step| (step, ready(step)));
    assert_eq!(live.load().mode(), Mode::InProcess, "nothing is switched yet");
    let counts = steps.map(|(step, ready)| {
        let next = live.expose(exposed(step));
        let moved = (0..200).map(numbered).filter(|canister| next.mode_of(canister) != Mode::InProcess);
        assert_eq!(ready, moved.take(64).collect::<Vec<_>>(), "{step:?}");
        ready.len()
    });
    assert!(counts[0] == 0 && counts[1] == 64 && (1..64).contains(&counts[2]), "{counts:?}");
    assert_eq!(counts[3], 64);
}

#[test]
fn what_runs_sandboxed_already_needs_no_worker_ahead() {
    let selector = Selector::new(
        LivePolicy::fixed(Mode::Sandboxed),
        Fake::having((0..3).map(numbered).collect(), Vec::new()),
        Sandbox::Ready(Fake::finishing(|_, _| {}) as _),
        Arc::new(Recorder::new()),
    );
    assert_eq!(selector.prewarm(Exposures::none(), &Limits::application(), || true).unwrap(), 0);
}

#[test]
fn a_canister_whose_worker_fails_costs_no_other_one_its_own_and_where_none_can_be_had_it_is_said() {
    let live = LivePolicy::fixed(Mode::Shadow);
    let control = Fake::having((0..9).map(numbered).collect(), Vec::new());
    let recorder = Arc::new(Recorder::new());
    let of =
        |sandbox| Selector::new(Arc::clone(&live), Arc::clone(&control) as _, sandbox, Arc::clone(&recorder));
    let failing = Fake::having(Vec::new(), [0, 4].map(numbered).into());
    let selector = of(Sandbox::Ready(Arc::clone(&failing) as _));
    assert_eq!(selector.prewarm(Exposures::none(), &Limits::application(), || true).unwrap(), 7);
    assert_eq!(*failing.ready.lock().unwrap(), [1, 2, 3, 5, 6, 7, 8].map(numbered));
    assert_eq!(
        selector.prewarm(Exposures::none(), &Limits::application(), || false).unwrap(),
        0,
        "it may not go on"
    );
    let error = of(Sandbox::Unavailable("no kernel".into()))
        .prewarm(Exposures::none(), &Limits::application(), || true)
        .unwrap_err();
    assert!(error.to_string().contains("no kernel"), "{error}");
    live.prewarmed(Duration::from_millis(5));
    assert_eq!(switched(&live, SwitchDirection::ToSandbox), [1, 0, 0, 0]);
    assert_eq!(switched(&live, SwitchDirection::FromSandbox), [0, 0, 0, 0]);
}
