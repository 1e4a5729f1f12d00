//! The system under test: the sandboxed backend, the canisters as committed, and what every transition has to
//! leave behind.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use execution::memory::PAGE_BYTES;
use execution::{
    Answer, Backend, BackendError, Ending, EntryPoint, Execution, GlobalValue, Invocation, Outcome,
    PausedRun, Snapshot,
};
use proptest_state_machine::StateMachineTest;
use sandbox_host::{Role, SandboxOptions, Sandboxed};

use super::conversation::{
    CANISTERS, Canister, Conversation, Deviation, Message, PAGES, Plan, State, Step, Transition,
};
use super::worker::{SLICE, Shared, Workers, program, shown};
use crate::canister::{invocation, principal};
use crate::peer::snapshot;
use crate::real_worker::commit;

/// A wait that no machine exceeds, and one that a machine may exceed: there, honest workers may be late, too.
const PATIENCE: Duration = Duration::from_secs(10);
const SHORT_PATIENCE: Duration = Duration::from_millis(60);
/// Longer than all deadlines of one call together: a bound for a call that would hang.
const HANGS: Duration = Duration::from_secs(60);

/// What a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Violation,
    Died,
    Deadline,
    Spawn,
    Engine,
}

impl Class {
    fn of(error: &BackendError) -> Self {
        match error {
            BackendError::Violation(_) => Self::Violation,
            BackendError::WorkerDied { .. } => Self::Died,
            BackendError::Deadline { .. } => Self::Deadline,
            BackendError::Spawn(_) => Self::Spawn,
            BackendError::Engine(_) => Self::Engine,
            BackendError::BackOff { .. } | BackendError::Exhausted { .. } => {
                panic!("nothing is short here: {error}")
            }
        }
    }
}

/// What a deviation has to come to, and whether at once: a second answer and a death after the answer may show
/// with the next request only.
fn due(step: Step, deviation: Deviation) -> (Class, bool) {
    match deviation {
        Deviation::Dies | Deviation::DiesInsideAFrame => (Class::Died, true),
        Deviation::AnswersAndDies => (Class::Died, false),
        Deviation::Twice => (Class::Violation, false),
        Deviation::Late => (Class::Deadline, true),
        Deviation::SaysThatItFailed => (Class::Engine, true),
        Deviation::Lie(_) if step == Step::Begin => (Class::Spawn, true),
        _ => (Class::Violation, true),
    }
}

type Key = (usize, Role);
/// A paused run, its message, and how often it has paused.
type InHand = (Box<dyn PausedRun>, Message, u8);

pub(super) struct World {
    sandbox: Option<Sandboxed>,
    shared: Arc<Shared>,
    patient: bool,
    canisters: Vec<Snapshot>,
    in_hand: Vec<Option<InHand>>,
    /// Workers that are to fail at their next request, by process id, and how.
    doomed: HashMap<Key, (i32, Class)>,
    violations: u64,
    id: u64,
}

impl World {
    fn sandbox(&self) -> &Sandboxed {
        self.sandbox.as_ref().expect("there until the end")
    }

    fn pid(&self, (canister, role): Key) -> Option<i32> {
        let serves = Some((self.canisters[canister].canister, role));
        let workers = self.sandbox().status().workers;
        workers.iter().find(|worker| worker.canister == serves).map(|worker| worker.pid)
    }

    /// Makes a call that meets what is planned, and judges how it ended.
    fn call<T>(
        &mut self,
        key: Key,
        plan: Plan,
        call: impl FnOnce(&Sandboxed) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.shared.plan(plan);
        let used = self.canisters[key.0].arena.bytes_used();
        let start = Instant::now();
        let result = call(self.sandbox());
        assert!(start.elapsed() < HANGS, "an answer within the deadline");
        let happened = self.shared.happened();
        if let Some(what) = happened {
            *super::TALLY.lock().unwrap().entry(what).or_default() += 1;
        }
        let due = happened.map(|(step, deviation)| due(step, deviation));
        let doomed = self.doomed.remove(&key);
        match &result {
            Err(error) => {
                let class = Class::of(error);
                let expected = [due.map(|due| due.0), doomed.map(|doomed| doomed.1)];
                let late = class == Class::Deadline && !self.patient;
                assert!(
                    expected.contains(&Some(class)) || late,
                    "{error}, after {happened:?} and {doomed:?}"
                );
                self.violations += u64::from(class == Class::Violation);
                assert!(self.canisters[key.0].arena.bytes_used() <= used, "nothing stays staged");
            }
            Ok(_) => {
                assert!(due.is_none_or(|(_, at_once)| !at_once), "{happened:?} went unnoticed");
                let pid = self.pid(key);
                if let Some((doomed, _)) = doomed {
                    assert_ne!(pid, Some(doomed), "a worker that was to fail serves on");
                }
                if let (Some((class, _)), Some(pid)) = (due, pid) {
                    self.doomed.insert(key, (pid, class));
                }
            }
        }
        result
    }

    /// The same until it succeeds: what is planned happens once, so an honest retry comes next. Where the node is
    /// impatient, the machine may be late some times more.
    fn until_done<T>(
        &mut self,
        key: Key,
        plan: Plan,
        mut call: impl FnMut(&Sandboxed) -> Result<T, BackendError>,
    ) -> T {
        let mut plan = plan;
        // A deviation, and a doomed worker of an earlier one.
        let tries = if self.patient { 3 } else { 50 };
        for _ in 0..tries {
            if let Ok(done) = self.call(key, plan.take(), &mut call) {
                return done;
            }
        }
        panic!("the honest retry failed {tries} times");
    }

    fn invocation(&mut self, message: &Message) -> Invocation {
        self.id += 1;
        let Message { pauses, grows, traps, writes, .. } = message;
        let arg = program(*pauses, *grows, *traps, writes);
        let entry = EntryPoint::Update { method: "m".into(), arg: arg.into() };
        Invocation { slice: SLICE, ..invocation(self.id, entry) }
    }

    fn message(&mut self, canister: usize, message: &Message, plan: Plan) -> Execution {
        let invocation = self.invocation(message);
        let target = self.canisters[canister].clone();
        self.until_done((canister, Role::Update), plan, |sandbox| sandbox.execute(&target, &invocation))
    }

    /// The message in hand goes on; if its worker fails, from its beginning to where it would be.
    fn resume(&mut self, canister: usize, in_hand: InHand, plan: Plan, model: &Canister) {
        let key = (canister, Role::Update);
        let (run, message, paused) = in_hand;
        if let Ok(execution) = self.call(key, plan, |_| run.resume(SLICE)) {
            return self.end(canister, message, paused, execution, model);
        }
        'again: loop {
            let mut execution = self.message(canister, &message, None);
            for _ in 0..paused {
                let Execution::Paused(run) = execution else { panic!("a pause was due") };
                match self.call(key, None, |_| run.resume(SLICE)) {
                    Ok(next) => execution = next,
                    Err(_) if !self.patient => continue 'again,
                    Err(error) => panic!("the honest retry failed: {error}"),
                }
            }
            return self.end(canister, message, paused, execution, model);
        }
    }

    /// Keeps a run that has paused once more, or what came of one that ended.
    fn end(&mut self, canister: usize, message: Message, paused: u8, execution: Execution, model: &Canister) {
        match execution {
            Execution::Paused(run) => {
                assert_eq!(model.in_hand, Some((message.clone(), paused + 1)));
                self.in_hand[canister] = Some((run, message, paused + 1));
            }
            Execution::Finished(outcome) => {
                assert_eq!(model.in_hand, None);
                assert_eq!(matches!(outcome.ending, Ending::Trapped(_)), message.traps);
                if message.committed {
                    self.canisters[canister] = commit(&self.canisters[canister], &outcome);
                    if !message.traps {
                        assert_eq!(reply(&outcome), shows(model), "the worker's memory is the canister's");
                    }
                }
            }
        }
    }
}

fn reply(outcome: &Outcome) -> &[u8] {
    match outcome.effects.as_ref().and_then(|effects| effects.answer.as_ref()) {
        Some(Answer::Reply(data)) => data,
        other => panic!("a reply was due, not {other:?}"),
    }
}

fn shows(model: &Canister) -> Vec<u8> {
    shown((0..PAGES).map(|page| model.heap.get(&page).copied().unwrap_or(0)), model.global)
}

impl StateMachineTest for World {
    type SystemUnderTest = Self;
    type Reference = Conversation;

    fn init_test(state: &State) -> Self {
        let shared = Arc::new(Shared::default());
        let options = SandboxOptions {
            pool: 0,
            step_patience: if state.patient { PATIENCE } else { SHORT_PATIENCE },
            // Room for all: evictions have tests of their own.
            workers_max: 2 * CANISTERS,
            restart_pause: Duration::ZERO,
            ..SandboxOptions::default()
        };
        let workers = Workers { shared: Arc::clone(&shared), readable: state.readable };
        let canister = |number| Snapshot { canister: principal(number), ..snapshot() };
        Self {
            sandbox: Some(Sandboxed::with_source(Box::new(workers), options).unwrap()),
            shared,
            patient: state.patient,
            canisters: (1..).take(CANISTERS).map(canister).collect(),
            in_hand: (0..CANISTERS).map(|_| None).collect(),
            doomed: HashMap::new(),
            violations: 0,
            id: 0,
        }
    }

    fn apply(mut world: Self, after: &State, transition: Transition) -> Self {
        match transition {
            Transition::Message { canister, message, plan } => {
                let execution = world.message(canister, &message, plan);
                world.end(canister, message, 0, execution, &after.canisters[canister]);
            }
            Transition::Resume { canister, plan } => {
                let in_hand = world.in_hand[canister].take().expect("a message in hand");
                world.resume(canister, in_hand, plan, &after.canisters[canister]);
            }
            Transition::Abort { canister } => {
                world.in_hand[canister].take().expect("a message in hand").0.abort();
                world.doomed.remove(&(canister, Role::Update));
            }
            Transition::Query { canister, plan } => {
                world.id += 1;
                let query = invocation(world.id, EntryPoint::Query { method: "q".into(), arg: [].into() });
                let target = world.canisters[canister].clone();
                let outcome = world.until_done((canister, Role::Query), plan, |sandbox| {
                    sandbox.query(&target, &query, None)
                });
                assert_eq!(reply(&outcome), shows(&after.canisters[canister]));
            }
        }
        world
    }

    fn check_invariants(world: &Self, model: &State) {
        for (snapshot, model) in world.canisters.iter().zip(&model.canisters) {
            assert_eq!(snapshot.heap.wasm_pages(), model.heap_pages);
            assert_eq!(snapshot.globals[..], [GlobalValue::I32(model.global)]);
            for page in 0..model.heap_pages * PAGES {
                let byte = model.heap.get(&page).copied().unwrap_or(0);
                let mut bytes = [0; PAGE_BYTES];
                snapshot.heap.read(page * PAGE_BYTES as u64, &mut bytes);
                assert!(bytes == [byte; PAGE_BYTES], "page {page}");
            }
        }
        let status = world.sandbox().status();
        let [launched, ended] =
            [&world.shared.launched, &world.shared.ended].map(|n| n.load(Ordering::SeqCst));
        assert_eq!(launched - ended, status.workers.len(), "no process that nobody knows of");
        assert_eq!(status.violations, world.violations, "violations are counted");
    }

    fn teardown(mut world: Self, _: State) {
        world.in_hand.clear();
        world.sandbox = None;
        let [launched, ended] =
            [&world.shared.launched, &world.shared.ended].map(|n| n.load(Ordering::SeqCst));
        assert_eq!(launched, ended, "no process is left");
        for snapshot in &world.canisters {
            let stored = snapshot.heap.pages_stored() * PAGE_BYTES;
            assert_eq!(snapshot.arena.bytes_used(), stored, "no page is kept but the canister's");
        }
        let ours = world.shared.sockets.lock().unwrap();
        for file in fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let Ok(link) = fs::read_link(file.path()) else { continue };
            let inode =
                link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            assert!(inode.is_none_or(|inode: u64| !ours.contains(&inode)), "a worker's socket is left");
        }
    }
}
