//! What the selector runs ahead of its turn, and under which mode.

use std::collections::VecDeque;

use execution::{Batch, Left};

use super::*;

/// Runs what is expected ahead, one after another.
pub(crate) struct Ahead(pub(crate) Arc<Fake>);

impl Backend for Ahead {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        self.0.execute(snapshot, invocation)
    }

    fn batch_max(&self) -> usize {
        7
    }

    fn execute_batch(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
    ) -> Result<(Execution, Option<Box<dyn Batch>>), BackendError> {
        let first = self.execute(snapshot, invocation)?;
        let behind = expected.iter().map(|expected| self.execute(snapshot, expected));
        Ok((first, Some(Box::new(Behind(behind.collect::<Result<_, _>>()?)))))
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.0.query(snapshot, invocation, overlay)
    }
}

struct Behind(VecDeque<Execution>);

impl Batch for Behind {
    fn next(&mut self, _: &Snapshot, _: &Invocation) -> Option<Result<Execution, BackendError>> {
        self.0.pop_front().map(Ok)
    }

    fn left(&self) -> Left {
        Left { executions: self.0.len(), instructions: 0 }
    }
}

#[test]
fn a_batch_is_measured_message_by_message_under_the_mode_that_it_began_in() {
    let fake = Fake::finishing(|_, _| {});
    let seen = Arc::new(Collector::new(1_000));
    let live = LivePolicy::fixed(Mode::Sandboxed);
    let selector = Selector::with(
        live,
        Arc::clone(&fake) as _,
        Sandbox::Ready(Arc::new(Ahead(Arc::clone(&fake)))),
        Arc::new(Recorder::new()),
        Some(Arc::clone(&seen) as _),
        ShadowOptions::default(),
    );
    assert_eq!(selector.batch_max(), 7);
    let snapshot = snapshot();
    let (_, batch) =
        selector.execute_batch(&snapshot, &invocation(1), &[invocation(2), invocation(3)]).unwrap();
    let mut batch = batch.unwrap();
    assert_eq!(
        (fake.runs(), batch.left().executions, seen.drain().len()),
        (3, 2, 1),
        "those that wait aren't counted"
    );
    // It is told of under the number that it is asked for with.
    batch.next(&snapshot, &invocation(20)).unwrap().unwrap();
    let told = seen.drain();
    assert_eq!(
        told.iter().map(|told| (told.invocation, told.mode)).collect::<Vec<_>>(),
        [(20, Mode::Sandboxed)]
    );
    drop(batch);
    assert_eq!(seen.drain().len(), 0, "what is discarded never happened");
}

#[test]
fn messages_that_are_compared_or_run_in_process_are_run_one_by_one() {
    for mode in [Mode::Shadow, Mode::InProcess] {
        let fake = Fake::finishing(|_, _| {});
        let (selector, _) = selector(mode, &fake, &fake, ShadowOptions::default());
        assert_eq!(selector.batch_max(), 1);
    }
}

#[test]
fn a_batch_ends_when_its_canister_alone_changes_its_mode() {
    let id = snapshot().canister;
    let (directory, live) = followed(Mode::Sandboxed, "");
    let fake = Fake::finishing(|_, _| {});
    let sandbox = Sandbox::Ready(Arc::new(Ahead(Arc::clone(&fake))));
    let selector =
        Selector::new(Arc::clone(&live), Fake::finishing(|_, _| {}), sandbox, Arc::new(Recorder::new()));
    let expected = [invocation(2), invocation(3)];
    let (_, batch) = selector.execute_batch(&snapshot(), &invocation(1), &expected).unwrap();
    let mut batch = batch.unwrap();
    assert!(batch.next(&snapshot(), &invocation(2)).is_some());
    std::fs::write(
        directory.path().join("policy.toml"),
        format!(
            "schema = 1\n[default]\nmode = \"sandboxed\"\n[[exemptions]]\nid = \"{id}\"\nmode = \"in-process\"\nexpires = 9999-01-01\nreason = \"r\"\napproved_by = [\"a\"]\n"
        ),
    )
    .unwrap();
    assert!(live.wait_until(PATIENCE, |in_force, _| in_force.mode_of(&id) == Mode::InProcess));
    assert_eq!(live.in_force().mode(), Mode::Sandboxed);
    assert!(batch.next(&snapshot(), &invocation(3)).is_none());
}

#[test]
fn a_node_that_sandboxes_one_canister_looks_ahead_and_the_others_run_one_by_one() {
    let id = snapshot().canister;
    let (_directory, live) =
        followed(Mode::Shadow, &format!("[[canisters]]\nid = \"{id}\"\nmode = \"sandboxed\"\n"));
    let (control, candidate) = (Fake::finishing(|_, _| {}), Fake::finishing(|_, _| {}));
    let sandbox = Sandbox::Ready(Arc::new(Ahead(Arc::clone(&candidate))));
    let ahead = Arc::new(Ahead(Arc::clone(&control)));
    let selector = Selector::new(live, ahead, sandbox, Arc::new(Recorder::new()));
    assert_eq!(selector.batch_max(), 7);
    let other = Snapshot { canister: Principal::from_slice(&[9]), ..snapshot() };
    selector.execute_batch(&other, &invocation(1), &[invocation(2)]).unwrap();
    assert!(selector.settle(PATIENCE));
    assert_eq!((control.runs(), selector.shadow_counts().offered), (1, 1), "what is compared is run alone");
    let (_, batch) = selector.execute_batch(&snapshot(), &invocation(3), &[invocation(4)]).unwrap();
    assert_eq!(batch.unwrap().left().executions, 1);
}
