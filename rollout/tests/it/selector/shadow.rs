//! What shadow costs at most, and what is kept of a difference: `[shadow]`.

use std::path::Path;
use std::time::Instant;

use rollout::{Divergence, Observed, Observer, Reproducer};

use super::*;

/// A selector in shadow under a policy file with these lines in its `[shadow]`.
fn under(shadow: &str, control: &Arc<Fake>, candidate: &Arc<Fake>) -> (Selector, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    save(directory.path(), shadow);
    let live = LivePolicy::watch(&directory.path().join("p.toml"), "s", "n").unwrap();
    let sandbox = Sandbox::Ready(Arc::clone(candidate) as _);
    let recorder = Arc::new(Recorder::new());
    let options = ShadowOptions::default();
    (Selector::with(live, Arc::clone(control) as _, sandbox, recorder, None, options), directory)
}

fn save(directory: &Path, shadow: &str) {
    let text = format!("schema = 1\n[default]\nmode = \"shadow\"\n[shadow]\n{shadow}\n");
    std::fs::write(directory.join("p.toml"), text).unwrap();
}

/// Hangs at the gate in its first so many runs.
fn hanging(gate: &Arc<Gate>, first: u64) -> Arc<Fake> {
    let (door, runs) = (Arc::clone(gate), AtomicU64::new(0));
    Fake::new(move |snapshot, _| {
        if runs.fetch_add(1, Ordering::SeqCst) < first {
            door.pass();
        }
        Ok(Execution::Finished(outcome(snapshot)))
    })
}

const QUICK: &str = "deadline_min = \"10ms\"\ndeadline_factor = 1\nmax_cpu_share = 1";

#[test]
fn a_candidate_that_hangs_is_given_up_at_its_deadline_and_the_next_one_is_compared() {
    let gate = Arc::new(Gate::default());
    let (control, candidate) = (Fake::finishing(|_, _| {}), hanging(&gate, 1));
    let (selector, _directory) = under(QUICK, &control, &candidate);
    let snapshot = snapshot();
    selector.execute(&snapshot, &invocation(1)).unwrap();
    assert!(selector.settle(PATIENCE), "nobody waits for it");
    let counts = selector.shadow_counts();
    assert_eq!((counts.offered, counts.timed_out, counts.equal), (1, 1, 0));
    // Those after it have 10 ms each: on a busy machine the first may not be enough.
    until(&selector, &snapshot, |counts| counts.equal > 0);
    gate.open();
}

/// Executes until shadow has counted what is waited for.
fn until(selector: &Selector, snapshot: &Snapshot, mut will_do: impl FnMut(ShadowCounts) -> bool) {
    let began = Instant::now();
    while !will_do(selector.shadow_counts()) {
        assert!(began.elapsed() < PATIENCE, "{:?}", selector.shadow_counts());
        selector.execute(snapshot, &invocation(9)).unwrap();
        assert!(selector.settle(PATIENCE));
    }
}

#[test]
fn so_many_candidates_may_hang_and_no_more_and_when_they_end_the_next_is_compared() {
    let gate = Arc::new(Gate::default());
    let (control, candidate) = (Fake::finishing(|_, _| {}), hanging(&gate, 1_000));
    let (selector, _directory) = under(QUICK, &control, &candidate);
    let snapshot = snapshot();
    until(&selector, &snapshot, |counts| counts.dropped > 0);
    let counts = selector.shadow_counts();
    assert_eq!((counts.timed_out, counts.equal), (5, 0), "one that runs and four that are left behind");
    gate.open();
    until(&selector, &snapshot, |counts| counts.equal > 0);
}

#[test]
fn candidates_that_waited_with_those_that_hang_are_let_go() {
    let gate = Arc::new(Gate::default());
    let (control, candidate) = (Fake::finishing(|_, _| {}), hanging(&gate, 1_000));
    let (selector, _directory) = under(QUICK, &control, &candidate);
    let snapshot = snapshot();
    for id in 0..50 {
        selector.execute(&snapshot, &invocation(id)).unwrap();
    }
    assert!(selector.settle(PATIENCE));
    let counts = selector.shadow_counts();
    assert_eq!((counts.timed_out, counts.dropped), (5, 45), "{counts:?}");
    // They took their deadline at least, and what is measured says so.
    let measured = selector.recorder().total(Arm::ShadowCandidate, "update").unwrap();
    assert_eq!(measured.len(), 5);
    assert!(measured.min() >= 9_900_000, "{}", measured.min());
    gate.open();
}

#[test]
fn a_difference_counts_before_it_is_kept_however_long_that_takes() {
    struct Slow(Arc<Gate>);
    impl Observer for Slow {
        fn on_executed(&self, _observed: &Observed) {}
        fn on_new_divergence(&self, _reproducer: &Reproducer<'_>) -> Option<Result<String, String>> {
            self.0.pass();
            Some(Ok("kept".into()))
        }
    }
    let gate = Arc::new(Gate::default());
    let selector = Selector::with(
        LivePolicy::fixed(Mode::Shadow),
        Fake::finishing(|_, _| {}),
        Sandbox::Ready(Fake::finishing(|_, outcome| outcome.instructions += 1)),
        Arc::new(Recorder::new()),
        Some(Arc::new(Slow(Arc::clone(&gate))) as _),
        ShadowOptions::default(),
    );
    selector.execute(&snapshot(), &invocation(1)).unwrap();
    gate.reached();
    assert_eq!(selector.shadow_counts().confirmed, 1);
    assert_eq!(selector.divergences()[0].bundle, None);
    gate.open();
    assert!(selector.settle(PATIENCE));
    assert_eq!(selector.divergences()[0].bundle, Some(Ok("kept".into())));
}

#[test]
fn a_sample_takes_its_part_of_any_order_of_messages_and_counts_the_others() {
    let (control, candidate) = (Fake::finishing(|_, _| {}), Fake::finishing(|_, _| {}));
    let (selector, _directory) = under("sample_ppm = 250_000\nmax_cpu_share = 1", &control, &candidate);
    let snapshot = snapshot();
    let mut sampled = [0_u64; 2];
    for id in 0..4_000 {
        let before = selector.shadow_counts().offered;
        selector.execute(&snapshot, &invocation(id)).unwrap();
        sampled[usize::try_from(id % 2).unwrap()] += selector.shadow_counts().offered - before;
        assert!(selector.settle(PATIENCE));
    }
    let counts = selector.shadow_counts();
    assert_eq!(counts.offered + counts.unsampled, 4_000);
    assert_eq!(control.runs(), 4_000);
    // A quarter of each of two kinds of messages that take turns; the hash is fixed, and so are these.
    for sampled in sampled {
        assert!((425..=575).contains(&sampled), "{sampled} of 2,000");
    }
    assert_eq!(candidate.runs() + counts.over_budget, counts.offered);
}

#[test]
fn candidates_that_took_their_share_of_the_processors_let_others_go_and_are_counted() {
    // Twenty times what may be saved up, whatever machine it is.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let busy = Duration::from_millis(20) * u32::try_from(processors).unwrap();
    let (control, candidate) = (
        Fake::finishing(|_, _| {}),
        Fake::finishing(move |_, _| {
            let began = Instant::now();
            while began.elapsed() < busy {
                std::hint::spin_loop();
            }
        }),
    );
    let (selector, directory) = under("max_cpu_share = 0.001\ndeadline_min = \"1h\"", &control, &candidate);
    let snapshot = snapshot();
    until(&selector, &snapshot, |counts| counts.equal == 1);
    // It takes 19 s until that is made up for.
    for id in 0..100 {
        selector.execute(&snapshot, &invocation(id)).unwrap();
    }
    let counts = selector.shadow_counts();
    assert_eq!((control.runs() - counts.offered, candidate.runs()), (0, 1));
    assert!(counts.over_budget >= 100, "{counts:?}");
    // The share is in force as soon as it is changed.
    save(directory.path(), "max_cpu_share = 1");
    assert!(selector.live().wait_until(PATIENCE, |in_force, _| in_force.generation == 2));
    until(&selector, &snapshot, |counts| counts.equal > 1);
}

/// Keeps what it is told of new differences.
#[derive(Default)]
struct Keeper(Mutex<Vec<(String, Vec<Field>, DivergenceClass)>>);

impl Observer for Keeper {
    fn on_executed(&self, _observed: &Observed) {}

    fn on_new_divergence(&self, reproducer: &Reproducer<'_>) -> Option<Result<String, String>> {
        let Reproducer { snapshot, invocation, query, control, candidate, differences, class } = *reproducer;
        assert!(!compare(snapshot, control, candidate).is_empty());
        let what = format!("{} {} query {}", snapshot.canister, invocation.id, query.is_some());
        let mut kept = self.0.lock().unwrap();
        kept.push((what, differences.iter().map(|difference| difference.field).collect(), class));
        Some(if kept.len() == 1 { Ok("first".into()) } else { Err("no room".into()) })
    }

    fn on_divergence(&self, _divergence: &Divergence) {
        assert!(!self.0.lock().unwrap().is_empty(), "the reproducer is kept first");
    }
}

#[test]
fn a_new_kind_of_difference_is_kept_once_and_its_record_says_where_or_why_not() {
    let control = Fake::finishing(|_, _| {});
    let candidate = Fake::new(|snapshot, invocation| {
        let mut outcome = outcome(snapshot);
        outcome.instructions += 1;
        if invocation.id == 3 {
            outcome.heap_pages_dirty += 1;
        }
        Ok(Execution::Finished(outcome))
    });
    let keeper = Arc::new(Keeper::default());
    let selector = Selector::with(
        LivePolicy::fixed(Mode::Shadow),
        control,
        Sandbox::Ready(candidate),
        Arc::new(Recorder::new()),
        Some(Arc::clone(&keeper) as _),
        ShadowOptions::default(),
    );
    let snapshot = snapshot();
    for id in 1..=4 {
        selector.execute(&snapshot, &invocation(id)).unwrap();
    }
    selector.query(&snapshot, &invocation(5), None).unwrap();
    assert!(selector.settle(PATIENCE));
    let canister = snapshot.canister;
    let confirmed = DivergenceClass::Confirmed;
    assert_eq!(
        *keeper.0.lock().unwrap(),
        [
            (format!("{canister} 1 query false"), vec![Field::Instructions], confirmed),
            (
                format!("{canister} 3 query false"),
                vec![Field::Instructions, Field::HeapPagesDirty],
                confirmed
            ),
        ]
    );
    let records = selector.divergences();
    let kept: Vec<_> =
        records.iter().map(|record| (record.first.difference.field, record.bundle.clone())).collect();
    assert_eq!(
        kept,
        [
            (Field::Instructions, Some(Ok("first".into()))),
            (Field::HeapPagesDirty, Some(Err("no room".into())))
        ]
    );
}

#[test]
fn records_are_bounded_by_what_the_policy_says_and_the_others_counted() {
    let control = Fake::finishing(|_, _| {});
    let candidate = Fake::finishing(|_, outcome| {
        outcome.instructions += 1;
        outcome.heap_pages_dirty += 1;
    });
    let (selector, _directory) = under("records_max = 1\nmax_cpu_share = 1", &control, &candidate);
    until(&selector, &snapshot(), |counts| counts.confirmed == 1);
    assert_eq!((selector.divergences().len(), selector.shadow_counts().unrecorded), (1, 1));
}
