//! The selector with backends made for each test.

mod batches;
mod shadow;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use execution::memory::{Arena, Blob, Memory, PAGE_BYTES};
use execution::message::{Freezing, RunStatus};
use execution::module::{Interface, ModuleHash};
use execution::outcome::{Effects, LogLine, MemoryDelta, OutgoingCall, Trap};
use execution::{
    Answer, Backend, BackendError, Callback, Ending, EntryPoint, ErrorCode, Execution, GlobalValue,
    Instructions, Invocation, Limits, Module, Outcome, PausedRun, Principal, Snapshot, SystemView,
};
use rollout::{
    Arm, Collector, DivergenceClass, Exposure, Exposures, Field, LivePolicy, Mode, OutcomeWord, Policy,
    Recorder, Sandbox, Selector, ShadowCounts, ShadowOptions, compare,
};

pub(crate) use batches::Ahead;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn snapshot() -> Snapshot {
    let arena = Arena::new(1 << 20).unwrap();
    let heap = Memory::with_segments(&arena, 1, [(0, &[7_u8; 4096][..])]).unwrap();
    let code = Blob::new(b"x").unwrap();
    let module = Module { hash: ModuleHash([0; 32]), wasm_bytes: 1, interface: Interface::default(), code };
    Snapshot {
        canister: Principal::from_slice(&[1, 1]),
        module: Arc::new(module),
        arena,
        heap,
        stable: Memory::zeroed(1),
        globals: Arc::from([GlobalValue::I32(1)]),
    }
}

pub(crate) fn invocation(id: u64) -> Invocation {
    let entry = EntryPoint::Update { method: "add".into(), arg: Arc::from([]) };
    let system = SystemView {
        canister: Principal::from_slice(&[1, 1]),
        subnet: Principal::from_slice(&[2]),
        time: 1,
        version: 1,
        status: RunStatus::Running,
        controllers: Vec::new(),
        balance: 0,
        freezing: Freezing::default(),
        cycles_available: 0,
        cycles_refunded: 0,
        deadline: 0,
        global_timer: 0,
        answered: false,
        answer_needed: true,
        call_context_instructions: 0,
        data_certificate: None,
        environment_variables: Vec::new(),
        root_key: Arc::from([]),
        wasm_memory_limit: 0,
        subnet_memory_available: 0,
        callbacks_free: 0,
        queue_taken: Vec::new(),
        log_capacity: 0,
        log_bytes_free: 0,
    };
    let limits = Arc::new(Limits::application());
    let caller = Principal::anonymous();
    Invocation { id, entry, caller, instructions_max: 1_000, slice: 1_000, system, limits }
}

fn page(snapshot: &Snapshot, byte: u8) -> execution::memory::PageVersion {
    snapshot.arena.store(&[byte; PAGE_BYTES]).unwrap()
}

pub(crate) fn outcome(snapshot: &Snapshot) -> Outcome {
    let memory = MemoryDelta {
        heap_pages: None,
        stable_pages: Some(2),
        heap: vec![(1, page(snapshot, 1))],
        stable: vec![(0, page(snapshot, 2))],
    };
    let effects = Effects {
        memory,
        globals: Arc::from([GlobalValue::I32(2)]),
        answer: Some(Answer::Reply(vec![1])),
        ..Effects::default()
    };
    Outcome {
        ending: Ending::Returned,
        instructions: 10,
        heap_pages_dirty: 1,
        stable_pages_dirty: 1,
        logs: vec![LogLine { text: b"hello".to_vec() }],
        effects: Some(effects),
    }
}

/// A door that a run waits at until the test opens it.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.1).unwrap());
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    /// Waits until somebody stands at the door.
    pub(crate) fn reached(&self) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| state.0 == 0).unwrap();
        assert!(!waited.1.timed_out());
    }
}

type Run = dyn Fn(&Snapshot, &Invocation) -> Result<Execution, BackendError> + Send + Sync;

/// A backend that runs a closure and counts.
pub(crate) struct Fake {
    run: Box<Run>,
    runs: AtomicU64,
    relieved: AtomicU64,
    /// Of which it has an idle instance, last first.
    pub(crate) warm: Vec<Principal>,
    /// Those whose workers fail.
    pub(crate) fails: Vec<Principal>,
    /// Those that it was to get ready.
    pub(crate) ready: Mutex<Vec<Principal>>,
}

impl Fake {
    pub(crate) fn new(
        run: impl Fn(&Snapshot, &Invocation) -> Result<Execution, BackendError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            run: Box::new(run),
            runs: AtomicU64::new(0),
            relieved: AtomicU64::new(0),
            warm: Vec::new(),
            fails: Vec::new(),
            ready: Mutex::default(),
        })
    }

    /// The same with idle instances of `warm`, and workers of `fails` that fail.
    pub(crate) fn having(warm: Vec<Principal>, fails: Vec<Principal>) -> Arc<Self> {
        let fake = Self::finishing(|_, _| {});
        Arc::new(Self { warm, fails, ..Arc::into_inner(fake).unwrap() })
    }

    pub(crate) fn finishing(change: impl Fn(&Snapshot, &mut Outcome) + Send + Sync + 'static) -> Arc<Self> {
        Self::new(move |snapshot, _| {
            let mut outcome = outcome(snapshot);
            change(snapshot, &mut outcome);
            Ok(Execution::Finished(outcome))
        })
    }

    fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }
}

impl Backend for Fake {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        (self.run)(snapshot, invocation)
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        _overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        match self.execute(snapshot, invocation)? {
            Execution::Finished(outcome) => Ok(outcome),
            Execution::Paused(_) => Err(BackendError::Engine("a query paused".into())),
        }
    }

    fn warm(&self) -> Vec<Snapshot> {
        let one = snapshot();
        self.warm.iter().map(|canister| Snapshot { canister: *canister, ..one.clone() }).collect()
    }

    fn prewarm(&self, snapshot: &Snapshot, _limits: &Limits) -> Result<bool, BackendError> {
        if self.fails.contains(&snapshot.canister) {
            return Err(BackendError::WorkerDied { how: "by SIGKILL".into() });
        }
        let mut ready = self.ready.lock().unwrap();
        let is_new = !ready.contains(&snapshot.canister);
        ready.extend(is_new.then_some(snapshot.canister));
        Ok(is_new)
    }

    fn relieve(&self, _short: &BackendError) -> bool {
        self.relieved.fetch_add(1, Ordering::SeqCst) == 0
    }
}

/// Pauses once, then finishes.
pub(crate) struct Once(pub(crate) Outcome);

impl PausedRun for Once {
    fn resume(self: Box<Self>, _slice: Instructions) -> Result<Execution, BackendError> {
        Ok(Execution::Finished(self.0))
    }

    fn abort(self: Box<Self>) {}
}

pub(crate) fn selector(
    mode: Mode,
    control: &Arc<Fake>,
    candidate: &Arc<Fake>,
    options: ShadowOptions,
) -> (Selector, Arc<Collector>) {
    let seen = Arc::new(Collector::new(1_000));
    let sandbox = Sandbox::Ready(Arc::clone(candidate) as _);
    let observer = Some(Arc::clone(&seen) as _);
    let live = LivePolicy::fixed(mode);
    let recorder = Arc::new(Recorder::new());
    (Selector::with(live, Arc::clone(control) as _, sandbox, recorder, observer, options), seen)
}

#[test]
fn both_backends_are_asked_for_what_the_node_is_short_of_whatever_the_mode() {
    for mode in [Mode::InProcess, Mode::Shadow, Mode::Sandboxed] {
        let (control, candidate) = (Fake::finishing(|_, _| {}), Fake::finishing(|_, _| {}));
        let (selector, _) = selector(mode, &control, &candidate, ShadowOptions::default());
        let short = BackendError::Exhausted { limit: "threads", detail: "none".into() };
        assert!(selector.relieve(&short), "one of them had something");
        assert_eq!([&control, &candidate].map(|fake| fake.relieved.load(Ordering::SeqCst)), [1, 1]);
        assert!(!selector.relieve(&short), "neither had any more");
    }
}

#[test]
fn each_mode_runs_its_backend_and_is_measured_under_its_name() {
    for (mode, arm, runs) in
        [(Mode::InProcess, Arm::InProcess, (3, 0)), (Mode::Sandboxed, Arm::Sandboxed, (0, 3))]
    {
        let (control, candidate) = (Fake::finishing(|_, _| {}), Fake::finishing(|_, _| {}));
        let (selector, seen) = selector(mode, &control, &candidate, ShadowOptions::default());
        let snapshot = snapshot();
        for id in 1..=3 {
            selector.execute(&snapshot, &invocation(id)).unwrap();
        }
        assert_eq!((control.runs(), candidate.runs()), runs);
        assert_eq!(selector.recorder().total(arm, "update").unwrap().len(), 3);
        let seen = seen.drain();
        assert_eq!(seen.iter().map(|observed| observed.invocation).collect::<Vec<_>>(), [1, 2, 3]);
        let first = &seen[0];
        assert_eq!(
            (first.mode, first.arm, first.generation, first.outcome),
            (mode, arm, 1, OutcomeWord::Reply)
        );
        assert_eq!((first.instructions, first.method.as_deref()), (10, Some("add")));
    }
}

#[test]
fn a_node_that_cannot_sandbox_says_so() {
    let control = Fake::finishing(|_, _| {});
    let live = LivePolicy::fixed(Mode::Sandboxed);
    let sandbox = Sandbox::Unavailable("user namespaces are off".into());
    let selector = Selector::new(live, control, sandbox, Arc::new(Recorder::new()));
    let error = selector.execute(&snapshot(), &invocation(1)).unwrap_err();
    assert_eq!(error.to_string(), "could not start a sandbox worker: user namespaces are off");
}

#[test]
fn a_lazy_sandbox_is_made_once_and_again_only_after_a_failure() {
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let sandbox = Sandbox::lazy(move || match count.fetch_add(1, Ordering::SeqCst) {
        0 => Err(BackendError::Spawn("not yet".into())),
        _ => Ok(Fake::finishing(|_, _| {})),
    });
    let live = LivePolicy::fixed(Mode::Sandboxed);
    let selector = Selector::new(live, Fake::finishing(|_, _| {}), sandbox, Arc::new(Recorder::new()));
    assert!(selector.execute(&snapshot(), &invocation(1)).is_err());
    assert!(selector.execute(&snapshot(), &invocation(1)).is_ok());
    assert!(selector.execute(&snapshot(), &invocation(2)).is_ok());
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[test]
fn an_execution_keeps_its_mode_while_the_policy_flips() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let save =
        |mode: Mode| std::fs::write(&path, format!("schema = 1\n[default]\nmode = \"{mode}\"\n")).unwrap();
    save(Mode::InProcess);
    let live = LivePolicy::watch(&path, "s", "n").unwrap();
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let control = Fake::new(move |snapshot, _| {
        door.pass();
        Ok(Execution::Paused(Box::new(Once(outcome(snapshot)))))
    });
    let candidate = Fake::finishing(|_, _| {});
    let seen = Arc::new(Collector::new(10));
    let selector = Selector::with(
        Arc::clone(&live),
        Arc::clone(&control) as _,
        Sandbox::Ready(Arc::clone(&candidate) as _),
        Arc::new(Recorder::new()),
        Some(Arc::clone(&seen) as _),
        ShadowOptions::default(),
    );
    let snapshot = snapshot();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| selector.execute(&snapshot, &invocation(1)).unwrap());
        gate.reached();
        save(Mode::Sandboxed);
        assert!(live.wait_until(PATIENCE, |in_force, _| in_force.mode() == Mode::Sandboxed));
        selector.execute(&snapshot, &invocation(2)).unwrap();
        gate.open();
        let Execution::Paused(run) = first.join().unwrap() else { panic!("it paused") };
        assert!(matches!(run.resume(10).unwrap(), Execution::Finished(_)));
    });
    assert_eq!((control.runs(), candidate.runs()), (1, 1));
    let seen: Vec<_> =
        seen.drain().iter().map(|seen| (seen.invocation, seen.mode, seen.generation)).collect();
    assert_eq!(seen, [(2, Mode::Sandboxed, 2), (1, Mode::InProcess, 1)]);
    let switches = selector.switches();
    assert_eq!(switches.len(), 1, "generation 1 finished after generation 2 had begun");
    assert_eq!((switches[0].generation, switches[0].first_invocation), (2, 2));
    assert!(switches[0].first_finished >= switches[0].swapped);
}

#[test]
fn shadow_commits_the_control_and_drops_the_pages_of_the_candidate() {
    let control = Fake::finishing(|_, _| {});
    let candidate = Fake::finishing(|_, outcome| outcome.instructions = 11);
    let (selector, seen) = selector(Mode::Shadow, &control, &candidate, ShadowOptions::default());
    let snapshot = snapshot();
    let before = snapshot.arena.bytes_used();
    let Execution::Finished(committed) = selector.execute(&snapshot, &invocation(1)).unwrap() else {
        panic!()
    };
    assert_eq!(committed.instructions, 10);
    selector.query(&snapshot, &invocation(2), None).unwrap();
    assert!(selector.settle(PATIENCE));
    drop(committed);
    assert_eq!(snapshot.arena.bytes_used(), before);
    // Each once more, to see whether it differs again.
    assert_eq!((control.runs(), candidate.runs()), (4, 4));
    for arm in [Arm::ShadowControl, Arm::ShadowCandidate] {
        assert_eq!(selector.recorder().total(arm, "update").unwrap().len(), 2);
    }
    assert_eq!(selector.recorder().table().modes, []);
    assert_eq!(seen.drain().iter().filter(|seen| seen.arm == Arm::ShadowCandidate).count(), 2);
    let records = selector.divergences();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].count, records[0].last_invocation), (2, 2));
    assert_eq!(
        records[0].first.to_string(),
        format!(
            "canister {}, message 1 (update add): instructions differs: in-process 10, sandboxed 11 (confirmed)",
            snapshot.canister
        )
    );
    let counts = selector.shadow_counts();
    assert_eq!((counts.offered, counts.diverged, counts.equal, counts.dropped), (2, 2, 0, 0));
    assert_eq!(counts.confirmed, 2);
}

/// The class of what one message shows, with what each backend makes of an outcome in its first, second, ... run.
#[track_caller]
fn class_of(control: [Option<u64>; 2], candidate: [Option<u64>; 2]) -> DivergenceClass {
    let giving = |instructions: [Option<u64>; 2]| {
        let runs = AtomicU64::new(0);
        Fake::new(move |snapshot, _| {
            let run = usize::try_from(runs.fetch_add(1, Ordering::Relaxed)).unwrap();
            match instructions[run] {
                Some(instructions) => Ok(Execution::Finished(Outcome { instructions, ..outcome(snapshot) })),
                None => Err(BackendError::WorkerDied { how: "signal 9".into() }),
            }
        })
    };
    let (selector, _) =
        selector(Mode::Shadow, &giving(control), &giving(candidate), ShadowOptions::default());
    selector.execute(&snapshot(), &invocation(1)).unwrap();
    assert!(selector.settle(PATIENCE));
    let (counts, records) = (selector.shadow_counts(), selector.divergences());
    assert_eq!((counts.offered, counts.diverged, records.len()), (1, 1, 1));
    let class = records[0].first.class;
    for other in DivergenceClass::ALL {
        assert_eq!(counts.of(other), u64::from(other == class));
    }
    class
}

#[test]
fn a_difference_is_told_by_what_both_give_again() {
    use DivergenceClass::{Confirmed, FlakyCandidate, NondeterministicControl, Unconfirmed};
    let (right, wrong) = (Some(10), Some(11));
    assert_eq!(class_of([right, right], [wrong, wrong]), Confirmed);
    assert_eq!(class_of([right, right], [wrong, Some(12)]), Confirmed);
    assert_eq!(class_of([right, right], [wrong, right]), FlakyCandidate);
    assert_eq!(class_of([right, wrong], [wrong, wrong]), NondeterministicControl);
    assert_eq!(class_of([right, None], [wrong, wrong]), Unconfirmed);
    assert_eq!(class_of([right, right], [wrong, None]), Unconfirmed);
}

#[test]
fn what_hangs_when_a_difference_is_looked_at_again_delays_no_reply() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let control = Fake::finishing(|_, _| {});
    let runs = AtomicU64::new(0);
    let candidate = Fake::new(move |snapshot, _| {
        if runs.fetch_add(1, Ordering::Relaxed) == 1 {
            door.pass();
        }
        Ok(Execution::Finished(Outcome { instructions: 11, ..outcome(snapshot) }))
    });
    let options = ShadowOptions { queue_max: 4 };
    let (selector, _) = selector(Mode::Shadow, &control, &candidate, options);
    let snapshot = snapshot();
    selector.execute(&snapshot, &invocation(1)).unwrap();
    gate.reached();
    for id in 2..=20 {
        selector.execute(&snapshot, &invocation(id)).unwrap();
    }
    assert_eq!(selector.shadow_counts().dropped, 15);
    gate.open();
    assert!(selector.settle(PATIENCE));
    let counts = selector.shadow_counts();
    assert_eq!((counts.offered, counts.confirmed, counts.dropped), (20, 5, 15));
}

#[test]
fn a_paused_candidate_runs_to_its_end() {
    let control = Fake::finishing(|_, _| {});
    let candidate = Fake::new(|snapshot, _| Ok(Execution::Paused(Box::new(Once(outcome(snapshot))))));
    let (selector, _) = selector(Mode::Shadow, &control, &candidate, ShadowOptions::default());
    selector.execute(&snapshot(), &invocation(1)).unwrap();
    assert!(selector.settle(PATIENCE));
    assert_eq!(selector.shadow_counts().equal, 1);
}

#[test]
fn a_hung_candidate_delays_no_reply_and_the_overflow_is_counted() {
    let gate = Arc::new(Gate::default());
    let door = Arc::clone(&gate);
    let control = Fake::finishing(|_, _| {});
    let candidate = Fake::new(move |snapshot, _| {
        door.pass();
        Ok(Execution::Finished(outcome(snapshot)))
    });
    let options = ShadowOptions { queue_max: 4 };
    let (selector, _) = selector(Mode::Shadow, &control, &candidate, options);
    let snapshot = snapshot();
    selector.execute(&snapshot, &invocation(1)).unwrap();
    gate.reached();
    // The candidate hangs until the gate opens, and all of these reply before it does.
    for id in 2..=20 {
        selector.execute(&snapshot, &invocation(id)).unwrap();
    }
    assert_eq!(control.runs(), 20);
    assert_eq!(selector.shadow_counts().dropped, 15);
    assert!(!selector.settle(Duration::ZERO));
    gate.open();
    assert!(selector.settle(PATIENCE));
    let counts = selector.shadow_counts();
    assert_eq!((counts.offered, counts.equal, counts.dropped), (20, 5, 15));
}

#[test]
fn a_candidate_that_fails_is_no_divergence() {
    let control = Fake::finishing(|_, _| {});
    let candidate = Fake::new(|_, _| Err(BackendError::WorkerDied { how: "signal 9".into() }));
    let (selector, _) = selector(Mode::Shadow, &control, &candidate, ShadowOptions::default());
    selector.execute(&snapshot(), &invocation(1)).unwrap();
    assert!(selector.settle(PATIENCE));
    assert_eq!((selector.shadow_counts().failed, selector.divergences().len()), (1, 0));
}

#[test]
fn a_candidate_that_panics_counts_as_failed_and_the_next_one_runs() {
    let control = Fake::finishing(|_, _| {});
    let candidate = Fake::new(|snapshot, invocation| {
        assert_ne!(invocation.id, 1, "seeded");
        Ok(Execution::Finished(outcome(snapshot)))
    });
    let (selector, _) = selector(Mode::Shadow, &control, &candidate, ShadowOptions::default());
    selector.execute(&snapshot(), &invocation(1)).unwrap();
    assert!(selector.settle(PATIENCE));
    selector.execute(&snapshot(), &invocation(2)).unwrap();
    assert!(selector.settle(PATIENCE));
    let counts = selector.shadow_counts();
    assert_eq!((counts.failed, counts.equal), (1, 1));
}

/// Every field, one seeded difference each.
#[test]
fn a_difference_in_any_field_is_found_and_only_there() {
    type Seed = fn(&Snapshot, &mut Outcome);
    fn effects(outcome: &mut Outcome) -> &mut Effects {
        outcome.effects.as_mut().unwrap()
    }
    fn bit_flipped(snapshot: &Snapshot, byte: u8) -> execution::memory::PageVersion {
        let mut bytes = [byte; PAGE_BYTES];
        bytes[4095] ^= 1;
        snapshot.arena.store(&bytes).unwrap()
    }
    let trap = |_: &Snapshot, outcome: &mut Outcome| {
        outcome.ending =
            Ending::Trapped(Trap { code: ErrorCode::CANISTER_TRAPPED, text: "unreachable".into() });
        outcome.effects = None;
    };
    let seeds: [(Field, Seed); 19] = [
        (Field::Ending, trap),
        (Field::Answer, |_, outcome| effects(outcome).answer = Some(Answer::Reply(vec![2]))),
        (Field::Answer, |_, outcome| effects(outcome).answer = None),
        (Field::Instructions, |_, outcome| outcome.instructions += 1),
        (Field::HeapPagesDirty, |_, outcome| outcome.heap_pages_dirty += 1),
        (Field::StablePagesDirty, |_, outcome| outcome.stable_pages_dirty += 1),
        (Field::Logs, |_, outcome| outcome.logs[0].text[0] ^= 1),
        (Field::HeapSize, |_, outcome| effects(outcome).memory.heap_pages = Some(2)),
        (Field::Heap, |snapshot, outcome| effects(outcome).memory.heap[0].1 = bit_flipped(snapshot, 1)),
        (Field::Heap, |_, outcome| effects(outcome).memory.heap.clear()),
        (Field::StableSize, |_, outcome| effects(outcome).memory.stable_pages = None),
        (Field::Stable, |snapshot, outcome| effects(outcome).memory.stable[0].1 = bit_flipped(snapshot, 2)),
        (Field::Globals, |_, outcome| effects(outcome).globals = Arc::from([GlobalValue::I32(3)])),
        (Field::Calls, |_, outcome| {
            let callback = Callback { function: 0, environment: 0 };
            effects(outcome).calls.push(OutgoingCall {
                callee: Principal::anonymous(),
                method: "m".into(),
                arg: Vec::new(),
                cycles: 0,
                on_reply: callback,
                on_reject: callback,
                on_cleanup: None,
                timeout_seconds: None,
            });
        }),
        (Field::CertifiedData, |_, outcome| effects(outcome).certified_data = Some(vec![1])),
        (Field::GlobalTimer, |_, outcome| effects(outcome).global_timer = Some(1)),
        (Field::Cycles, |_, outcome| effects(outcome).cycles_accepted = 1),
        (Field::Cycles, |_, outcome| effects(outcome).cycles_burned = 1),
        (Field::Accepted, |_, outcome| effects(outcome).accepted = true),
    ];
    for (field, seed) in seeds {
        let (control, candidate) = (Fake::finishing(|_, _| {}), Fake::finishing(seed));
        let (selector, _) = selector(Mode::Shadow, &control, &candidate, ShadowOptions::default());
        selector.execute(&snapshot(), &invocation(1)).unwrap();
        assert!(selector.settle(PATIENCE));
        let fields: Vec<_> =
            selector.divergences().iter().map(|record| record.first.difference.field).collect();
        assert_eq!(fields, [field]);
    }
}

#[test]
fn a_page_rewritten_with_its_own_bytes_is_no_difference() {
    let snapshot = snapshot();
    let control = outcome(&snapshot);
    let mut candidate = outcome(&snapshot);
    let memory = &mut candidate.effects.as_mut().unwrap().memory;
    memory.heap.insert(0, (0, page(&snapshot, 7)));
    memory.heap_pages = Some(1);
    memory.stable.push((5, page(&snapshot, 0)));
    assert_eq!(compare(&snapshot, &control, &candidate), []);
}

#[test]
fn a_long_value_is_cut_in_a_report() {
    let snapshot = snapshot();
    let control = outcome(&snapshot);
    let mut candidate = control.clone();
    candidate.effects.as_mut().unwrap().answer = Some(Answer::Reply(vec![0; 1 << 20]));
    let found = compare(&snapshot, &control, &candidate);
    assert!(found[0].candidate.ends_with("..."));
    assert!(found[0].candidate.len() < 210);
}

/// A policy file with `rules` after a default of `mode`, followed.
fn followed(mode: Mode, rules: &str) -> (tempfile::TempDir, Arc<LivePolicy>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    std::fs::write(&path, format!("schema = 1\n[default]\nmode = \"{mode}\"\n{rules}")).unwrap();
    let live = LivePolicy::watch(&path, "s", "n").unwrap();
    (directory, live)
}

#[test]
fn a_canister_with_a_rule_of_its_own_runs_in_its_own_mode() {
    let id = snapshot().canister;
    for (default, rules, expected) in [
        (Mode::InProcess, format!("[[canisters]]\nid = \"{id}\"\nmode = \"sandboxed\"\n"), Mode::Sandboxed),
        (Mode::InProcess, format!("[[canisters]]\nid = \"{id}\"\nmode = \"shadow\"\n"), Mode::Shadow),
        (
            Mode::Sandboxed,
            format!(
                "[[exemptions]]\nid = \"{id}\"\nmode = \"in-process\"\nexpires = 9999-01-01\nreason = \"r\"\napproved_by = [\"a\"]\n"
            ),
            Mode::InProcess,
        ),
    ] {
        let (_directory, live) = followed(default, &rules);
        let (control, candidate) = (Fake::finishing(|_, _| {}), Fake::finishing(|_, _| {}));
        let seen = Arc::new(Collector::new(10));
        let selector = Selector::with(
            live,
            Arc::clone(&control) as _,
            Sandbox::Ready(Arc::clone(&candidate) as _),
            Arc::new(Recorder::new()),
            Some(Arc::clone(&seen) as _),
            ShadowOptions::default(),
        );
        let other = Snapshot { canister: Principal::from_slice(&[9]), ..snapshot() };
        selector.execute(&snapshot(), &invocation(1)).unwrap();
        selector.query(&other, &invocation(2), None).unwrap();
        assert!(selector.settle(PATIENCE));
        let committed = seen.drain().into_iter().filter(|seen| seen.arm != Arm::ShadowCandidate);
        let modes: Vec<_> = committed.map(|seen| (seen.invocation, seen.mode, seen.generation)).collect();
        assert_eq!(modes, [(1, expected, 1), (2, default, 1)]);
    }
}

/// A policy whose step exposes this node's canisters, followed by a selector.
pub(crate) fn on_trial(control: &Arc<Fake>, candidate: &Arc<Fake>) -> (tempfile::TempDir, Selector) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    std::fs::write(&path, crate::rollouts::FULL).unwrap();
    let live = LivePolicy::watch(&path, "one", "n1").unwrap();
    let sandbox = Sandbox::Ready(Arc::clone(candidate) as _);
    let recorder = Arc::new(Recorder::new());
    (directory, Selector::new(live, Arc::clone(control) as _, sandbox, recorder))
}

pub(crate) fn exposed(step: Option<usize>) -> Exposures {
    let policy = Policy::parse("p", crate::rollouts::FULL).unwrap();
    let exposure = Exposure { step: crate::rollouts::exposed(&policy, step), ..Exposure::default() };
    Exposures { rollouts: [("q4".to_owned(), exposure)].into(), nodes: vec!["n1".to_owned()] }
}

#[test]
fn a_switch_is_drained_when_the_last_run_that_began_before_it_has_ended() {
    let paused = Fake::new(|snapshot, _| Ok(Execution::Paused(Box::new(Once(outcome(snapshot))))));
    let (_directory, selector) = on_trial(&paused, &Fake::finishing(|_, _| {}));
    let snapshot = snapshot();
    let Execution::Paused(run) = selector.execute(&snapshot, &invocation(1)).unwrap() else {
        panic!("it pauses")
    };
    assert!(selector.live().is_drained(), "nothing was switched yet");
    selector.live().expose(exposed(Some(4)));
    assert!(!selector.live().is_drained(), "a paused run is under way");
    run.resume(1_000).unwrap();
    assert!(selector.live().is_drained());
}

#[test]
fn guards_see_what_is_on_trial_and_began_after_the_last_rotation() {
    let (control, candidate) = (Fake::finishing(|_, _| {}), Fake::finishing(|_, _| {}));
    let (_directory, selector) = on_trial(&control, &candidate);
    let snapshot = snapshot();
    let seen = |swap| {
        let taken = selector.trial().rotate(swap);
        taken.interval.series().map(|(arm, kind, found)| (arm, kind, found.len())).collect::<Vec<_>>()
    };
    selector.execute(&snapshot, &invocation(1)).unwrap();
    assert_eq!(seen(0), [], "nothing is exposed");
    let aa = selector.live().expose(exposed(Some(0))).swap;
    selector.execute(&snapshot, &invocation(2)).unwrap();
    selector.execute(&snapshot, &invocation(3)).unwrap();
    assert_eq!(seen(aa), [(Arm::InProcess, "update", 2)]);
    let all = selector.live().expose(exposed(Some(4))).swap;
    selector.execute(&snapshot, &invocation(4)).unwrap();
    assert_eq!(seen(all + 1), [(Arm::Sandboxed, "update", 1)]);
    selector.execute(&snapshot, &invocation(5)).unwrap();
    assert_eq!(seen(all + 1), [], "it began under an earlier swap than the interval is of");
}
