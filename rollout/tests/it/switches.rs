//! What is under way under which policy, and how long switches take.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use execution::{Backend, Execution};
use rollout::{
    LivePolicy, Mode, Recorder, Sandbox, Selector, ShadowOptions, SwitchDirection, SwitchPhase, Trigger,
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

/// How many switches were measured: cut over, drained, and with a first execution.
fn switched(live: &LivePolicy, direction: SwitchDirection) -> [u64; 3] {
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
    assert_eq!(switched(live, ToSandbox), [0, 0, 0], "no data");
    live.expose(exposed(Some(4)));
    assert_eq!(switched(live, ToSandbox), [1, 0, 0]);
    selector.execute(&snapshot(), &invocation(2)).unwrap();
    selector.execute(&snapshot(), &invocation(3)).unwrap();
    assert_eq!(switched(live, ToSandbox), [1, 0, 1], "what began before it is paused");
    live.expose(exposed(None));
    assert_eq!((switched(live, ToSandbox), switched(live, FromSandbox)), ([1, 0, 1], [1, 0, 0]));
    before.resume(1_000).unwrap();
    assert_eq!((switched(live, ToSandbox), switched(live, FromSandbox)), ([1, 1, 1], [1, 1, 0]));
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
    let all = || SwitchDirection::ALL.map(|direction| switched(&live, direction)[0]);
    // The file is watched as well: whoever reads it first, it is one switch.
    save(&path, "shadow", &a.to_text());
    live.reload(Trigger::Request).unwrap();
    assert_eq!(all(), [0, 0]);
    save(&path, "in-process", &b.to_text());
    live.reload(Trigger::Request).unwrap();
    assert_eq!(all(), [1, 1]);
}
