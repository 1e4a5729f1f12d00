//! A backend that takes another way for every execution: in-process, warm or fresh, or sandboxed; with workers
//! killed, instances and workers evicted, and messages cut into slices. All of it follows from a seed, but for
//! where in a message a kill hits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use execution::memory::limit;
use execution::{
    Backend, BackendError, Batch, Execution, Instructions, Invocation, Outcome, PausedRun, Principal,
    Snapshot,
};
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{Role, SandboxOptions, Sandboxed};

use super::dice::Dice;
use super::sandbox;
use crate::processes;

/// Warm instances: fewer than a world's canisters need.
const INSTANCES_MAX: usize = 5;
/// Workers, likewise; more than can be busy and paused at once.
const WORKERS_MAX: usize = 9;
/// How long a killer waits at most, in turns of the scheduler.
const TURNS_MAX: u64 = 300;

/// The backend. Clones share everything.
#[derive(Clone)]
pub(super) struct Chaos(Arc<Inner>);

struct Inner {
    seed: u64,
    warm: InProcess,
    fresh: InProcess,
    sandbox: Arc<Sandboxed>,
    fates: Mutex<HashMap<Principal, Fate>>,
    account: Account,
}

/// What has happened to a canister's invocation.
#[derive(Clone, Copy, Default)]
struct Fate {
    invocation: u64,
    /// Invocations of this canister before.
    number: u64,
    attempts: u64,
    /// A message is tried three times: one kill is for it, one may be left over from the one before.
    killed: bool,
}

/// How often something happened.
#[derive(Debug, Default)]
pub(super) struct Account {
    warm: AtomicU64,
    fresh: AtomicU64,
    sandboxed: AtomicU64,
    /// Run behind one of these in its request.
    pub(super) ahead: AtomicU64,
    queries: AtomicU64,
    pub(super) kills: AtomicU64,
    pub(super) deaths: AtomicU64,
    pub(super) relieved: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) resumed: AtomicU64,
}

impl Account {
    /// Executions in-process and warm, in-process and fresh, and sandboxed.
    pub(super) fn ways(&self) -> [u64; 3] {
        [&self.warm, &self.fresh, &self.sandboxed].map(|count| count.load(Ordering::Relaxed))
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Where something runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Warm,
    Fresh,
    Sandboxed,
}

/// When a worker is killed.
#[derive(Clone, Copy)]
enum Kill {
    Before,
    /// After so many turns of the scheduler, unless the message is over by then.
    During(u64),
}

/// What is chosen for an execution.
struct Choice {
    way: Way,
    kill: Option<Kill>,
    relieve: bool,
    /// In which of 1,000 parts of its last third the first of two slices ends.
    cut: Option<u64>,
}

impl Chaos {
    pub(super) fn new(engine: &Engine, seed: u64) -> Self {
        let in_process = |instances_max| {
            InProcess::new(engine.clone(), &InProcessOptions { instances_max, ..InProcessOptions::default() })
        };
        let options = SandboxOptions { workers_max: WORKERS_MAX, pool: 1, ..SandboxOptions::default() };
        Self(Arc::new(Inner {
            seed,
            warm: in_process(INSTANCES_MAX),
            fresh: in_process(0),
            sandbox: sandbox(options),
            fates: Mutex::default(),
            account: Account::default(),
        }))
    }

    pub(super) fn account(&self) -> &Account {
        &self.0.account
    }
}

impl Inner {
    fn fates(&self) -> MutexGuard<'_, HashMap<Principal, Fate>> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows from the seed, the canister, and which of its invocations and attempts this is.
    fn choose(&self, canister: Principal, invocation: u64) -> Choice {
        let mut fates = self.fates();
        let fate = fates.entry(canister).or_default();
        if fate.invocation != invocation {
            *fate = Fate { invocation, number: fate.number + 1, attempts: 0, killed: false };
        }
        fate.attempts += 1;
        let mut dice = Dice::of(&[self.seed, number(canister), fate.number, fate.attempts]);
        let way = match dice.below(10) {
            0..=3 => Way::Warm,
            4 => Way::Fresh,
            _ => Way::Sandboxed,
        };
        let kill = (way == Way::Sandboxed && !fate.killed).then(|| kill(&mut dice, 12)).flatten();
        fate.killed |= kill.is_some();
        Choice { way, kill, relieve: dice.one_in(40), cut: dice.one_in(6).then(|| dice.below(1_000)) }
    }

    fn backend(&self, way: Way) -> &dyn Backend {
        match way {
            Way::Warm => &self.warm,
            Way::Fresh => &self.fresh,
            Way::Sandboxed => &*self.sandbox,
        }
    }

    fn count(&self, way: Way) {
        add(match way {
            Way::Warm => &self.account.warm,
            Way::Fresh => &self.account.fresh,
            Way::Sandboxed => &self.account.sandboxed,
        });
    }

    /// Gives back what is idle, as if the node was short of it.
    fn relieve(&self) {
        for limit in [limit::MEMORY, limit::OPEN_FILES] {
            let short = BackendError::Exhausted { limit, detail: "so it is said".into() };
            if self.warm.relieve(&short) | self.sandbox.relieve(&short) {
                add(&self.account.relieved);
            }
        }
    }

    /// The worker that serves a canister in a role.
    fn worker(&self, canister: Principal, role: Role) -> Option<u32> {
        let workers = self.sandbox.status().workers;
        let serves = workers.into_iter().find(|worker| worker.canister == Some((canister, role)))?;
        Some(serves.pid.cast_unsigned())
    }

    fn kill(&self, pid: u32) {
        if processes::kill(pid) {
            add(&self.account.kills);
        }
    }

    /// Runs something while its worker is killed.
    fn with_kill<T>(
        &self,
        kill: Option<Kill>,
        worker: impl FnOnce() -> Option<u32>,
        run: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let kill = kill.and_then(|kill| Some((kill, worker()?)));
        let result = match kill {
            None => run(),
            Some((Kill::Before, pid)) => {
                self.kill(pid);
                run()
            }
            Some((Kill::During(turns), pid)) => std::thread::scope(|scope| {
                scope.spawn(move || {
                    (0..turns).for_each(|_| std::thread::yield_now());
                    self.kill(pid);
                });
                run()
            }),
        };
        if result.is_err() {
            add(&self.account.deaths);
        }
        result
    }

    /// The slice that ends in the last third of the message; `None` if it has slices anyway.
    fn cut(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        share: u64,
    ) -> Result<Option<Instructions>, BackendError> {
        let Execution::Finished(whole) = self.fresh.execute(snapshot, invocation)? else { return Ok(None) };
        let two_thirds = whole.instructions * 2 / 3 + 1;
        Ok(Some(two_thirds + (whole.instructions - whole.instructions.min(two_thirds)) * share / 1_000))
    }
}

/// A number for a canister.
fn number(canister: Principal) -> u64 {
    canister.as_slice().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn kill(dice: &mut Dice, share: u64) -> Option<Kill> {
    match dice.below(share * 2) {
        0 => Some(Kill::Before),
        1 => Some(Kill::During(dice.below(TURNS_MAX))),
        _ => None,
    }
}

impl Backend for Chaos {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let choice = self.0.choose(snapshot.canister, invocation.id);
        self.chosen(choice, snapshot, invocation)
    }

    fn batch_max(&self) -> usize {
        self.0.sandbox.batch_max()
    }

    /// In a batch where the sandbox is chosen and nothing is cut, with its worker killed before or during all of it.
    fn execute_batch(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
    ) -> Result<(Execution, Option<Box<dyn Batch>>), BackendError> {
        let Self(inner) = self;
        let choice = inner.choose(snapshot.canister, invocation.id);
        if choice.way != Way::Sandboxed || choice.cut.is_some() {
            return Ok((self.chosen(choice, snapshot, invocation)?, None));
        }
        if choice.relieve {
            inner.relieve();
        }
        inner.count(choice.way);
        let worker = || inner.worker(snapshot.canister, Role::Update);
        let executed = inner
            .with_kill(choice.kill, worker, || inner.sandbox.execute_batch(snapshot, invocation, expected))?;
        Ok(match executed {
            (Execution::Paused(run), batch) => {
                (Execution::Paused(self.between(run, snapshot, invocation, choice.way)), batch)
            }
            (finished, batch) => {
                let ahead = batch.as_ref().map_or(0, |batch| batch.left().executions);
                inner.account.ahead.fetch_add(ahead as u64, Ordering::Relaxed);
                (finished, batch)
            }
        })
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        let Self(inner) = self;
        let choice = inner.choose(snapshot.canister, invocation.id);
        inner.count(choice.way);
        add(&inner.account.queries);
        let worker = || inner.worker(snapshot.canister, Role::Query);
        inner
            .with_kill(choice.kill, worker, || inner.backend(choice.way).query(snapshot, invocation, overlay))
    }

    fn relieve(&self, short: &BackendError) -> bool {
        self.0.warm.relieve(short) | self.0.sandbox.relieve(short)
    }
}

impl Chaos {
    /// Runs a message in the way that was chosen.
    fn chosen(
        &self,
        choice: Choice,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Result<Execution, BackendError> {
        let Self(inner) = self;
        if choice.relieve {
            inner.relieve();
        }
        inner.count(choice.way);
        let cut = choice.cut.filter(|_| invocation.entry.is_replicated());
        let slice = match cut {
            Some(share) => inner.cut(snapshot, invocation, share)?,
            None => None,
        };
        let cut = slice.map(|slice| Invocation { slice, ..invocation.clone() });
        let worker = || inner.worker(snapshot.canister, Role::Update);
        let execution = inner.with_kill(choice.kill, worker, || {
            inner.backend(choice.way).execute(snapshot, cut.as_ref().unwrap_or(invocation))
        })?;
        match (execution, slice) {
            (Execution::Paused(run), Some(slice)) => {
                add(&inner.account.cut);
                run.resume(slice)
            }
            (Execution::Paused(run), None) => {
                Ok(Execution::Paused(self.between(run, snapshot, invocation, choice.way)))
            }
            (finished @ Execution::Finished(_), _) => Ok(finished),
        }
    }

    fn between(
        &self,
        run: Box<dyn PausedRun>,
        snapshot: &Snapshot,
        invocation: &Invocation,
        way: Way,
    ) -> Box<dyn PausedRun> {
        let (canister, invocation) = (snapshot.canister, invocation.id);
        Box::new(Between { run, chaos: self.clone(), canister, invocation, way, slices: 0 })
    }
}

/// A message between two slices.
struct Between {
    run: Box<dyn PausedRun>,
    chaos: Chaos,
    canister: Principal,
    invocation: u64,
    way: Way,
    slices: u64,
}

impl Between {
    /// Whether its worker is killed now.
    fn kill(&self) -> Option<Kill> {
        let Chaos(inner) = &self.chaos;
        let mut fates = inner.fates();
        let fate = fates.get_mut(&self.canister)?;
        if self.way != Way::Sandboxed || fate.killed || fate.invocation != self.invocation {
            return None;
        }
        let mut dice =
            Dice::of(&[inner.seed, number(self.canister), fate.number, fate.attempts, self.slices]);
        let kill = kill(&mut dice, 12);
        fate.killed |= kill.is_some();
        kill
    }
}

impl PausedRun for Between {
    fn resume(mut self: Box<Self>, slice: Instructions) -> Result<Execution, BackendError> {
        self.slices += 1;
        let kill = self.kill();
        let Self { run, chaos, canister, invocation, way, slices } = *self;
        let Chaos(inner) = &chaos;
        add(&inner.account.resumed);
        let worker = || inner.worker(canister, Role::Update);
        match inner.with_kill(kill, worker, || run.resume(slice))? {
            Execution::Paused(run) => {
                let run = Self { run, chaos: chaos.clone(), canister, invocation, way, slices };
                Ok(Execution::Paused(Box::new(run)))
            }
            finished @ Execution::Finished(_) => Ok(finished),
        }
    }

    fn abort(self: Box<Self>) {
        self.run.abort();
    }
}
