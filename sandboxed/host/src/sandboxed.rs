//! The backend.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use execution::{Backend, BackendError, Batch, Execution, Invocation, Limits, Outcome, Principal, Snapshot};
use sandbox_protocol::BATCH_MAX;

use crate::behind::{Behind, Terms};
use crate::fault::{Fault, Kind, Result, violation};
use crate::housekeeping::Housekeeping;
use crate::launchers::Launchers;
use crate::options::{Phases, ROUND_TRIP_EVERY, SandboxOptions};
use crate::pace::Pace;
use crate::paused::Paused;
use crate::pool::Pool;
use crate::resident::{Executed, Resident, Step};
use crate::source::{LauncherSource, WorkerSource};
use crate::status::{Registry, Role, SandboxStatus};
use crate::table::{Lease, Table};

/// Runs each canister in a worker process of its own. Dropping it ends all workers.
pub struct Sandboxed {
    // In the order in which they go: nobody looks at the workers, then they, then the launcher that the source
    // holds.
    _housekeeping: Housekeeping,
    table: Arc<Table>,
    pool: Pool,
    registry: Arc<Registry>,
    source: Arc<dyn WorkerSource>,
    options: SandboxOptions,
    pace: Pace,
    /// Executions on warm workers.
    warm: AtomicU64,
}

impl Sandboxed {
    /// With workers from `launchers`, some of them ahead.
    ///
    /// # Errors
    /// [`BackendError::Exhausted`] when no thread can be started.
    pub fn start(
        launchers: Arc<Launchers>,
        options: SandboxOptions,
    ) -> std::result::Result<Self, BackendError> {
        let source = LauncherSource::new(launchers, options.group_bytes_max(), options.private_images);
        Self::with_source(Box::new(source), options)
    }

    /// The same with workers from another source.
    ///
    /// # Errors
    /// [`BackendError::Exhausted`] when no thread can be started.
    pub fn with_source(
        source: Box<dyn WorkerSource>,
        options: SandboxOptions,
    ) -> std::result::Result<Self, BackendError> {
        let bounds = options.bounds();
        let source: Arc<dyn WorkerSource> = source.into();
        let registry = Arc::new(Registry::new(bounds));
        let table = Arc::new(Table::new(bounds, Arc::clone(&registry), options.restart_pause));
        let housekeeping = Housekeeping::start(
            Arc::clone(&source),
            Arc::clone(&registry),
            Arc::clone(&table),
            options.housekeeping,
            options.idle_max,
        )?;
        let pool = Pool::start(
            Arc::clone(&source),
            Arc::clone(&registry),
            options.pool,
            options.step_patience,
            options.unwanted.clone(),
        )?;
        let pace = Pace::new(&options);
        let warm = AtomicU64::new(0);
        Ok(Self { _housekeeping: housekeeping, table, pool, registry, source, options, pace, warm })
    }

    /// Launches a worker, if none is ready: whether this machine and user can confine one as is required.
    ///
    /// # Errors
    /// What stands against it.
    pub fn probe(&self) -> std::result::Result<(), BackendError> {
        self.counted(self.pool.hand_over(|worker| {
            self.pool.put_back(worker);
            Ok(())
        }))
    }

    /// Live workers, counts and layers.
    #[must_use]
    pub fn status(&self) -> SandboxStatus {
        self.registry.status()
    }

    /// Workers that were launched ahead and wait for a canister, in their lock.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.pool.ready()
    }

    /// When a worker of each canister was last found dead; of the 10,000 latest.
    #[must_use]
    pub fn crashes(&self) -> BTreeMap<Principal, Instant> {
        self.registry.crashes()
    }

    /// Process ids of the workers that serve a canister.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        let workers = self.registry.status().workers;
        workers.iter().filter(|worker| worker.canister.is_some()).map(|worker| worker.pid).collect()
    }

    fn run(
        &self,
        role: Role,
        target: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
    ) -> Result<(Execution, Option<Behind>)> {
        let start = Instant::now();
        let (lease, warm) = self.table.lease((target.canister, role), self.options.step_patience)?;
        let warm = warm.filter(|resident| resident.can_follow(target, &invocation.limits));
        let cold = warm.is_none();
        if cold {
            lease.may_start()?;
        }
        let mut aside = Duration::ZERO;
        let began = |resident: Resident| {
            let prepared = Instant::now();
            let Executed { answer, run, behind, resident } =
                resident.execute(target, invocation, expected, self.pace)?;
            let answered = Instant::now();
            let patience = run.patience;
            let step = resident.take(answer, run).inspect_err(|fault| lease.make_room(&fault.error))?;
            Ok((step.judged(target, invocation)?, behind, patience, prepared, answered))
        };
        let result = match warm {
            Some(resident) => self.round_trip(resident, invocation, &mut aside).and_then(began),
            None => {
                let loaded = self.table.make_room().map_err(Fault::from);
                loaded.and_then(|()| self.load(role, target, &invocation.limits)).and_then(began)
            }
        };
        lease.note(&result);
        let (step, behind, patience, prepared, answered) = result?;
        // One request served them all, each to the same part.
        let messages = u32::try_from(behind.len()).unwrap_or(u32::MAX).saturating_add(1);
        let phases = Phases {
            canister: target.canister,
            invocation: invocation.id,
            cold,
            prepare: prepared.duration_since(start).saturating_sub(aside) / messages,
            worker: answered.duration_since(prepared) / messages,
            pages: answered.elapsed(),
        };
        if let Some(observer) = &self.options.observer {
            observer(&phases);
        }
        self.registry.ran_ahead(behind.len());
        let terms = Terms {
            pace: self.pace,
            patience,
            phases: Phases { cold: false, ..phases },
            observer: self.options.observer.clone(),
            registry: Arc::clone(&self.registry),
        };
        Ok(terms.end(step, behind, invocation, lease))
    }

    /// The worker again, now and then after a bare round trip to it. What that took is no part of the execution, and is
    /// put `aside`.
    fn round_trip(
        &self,
        resident: Resident,
        invocation: &Invocation,
        aside: &mut Duration,
    ) -> Result<Resident> {
        let Some(observer) = &self.options.round_trips else { return Ok(resident) };
        if !self.warm.fetch_add(1, Ordering::Relaxed).is_multiple_of(ROUND_TRIP_EVERY) {
            return Ok(resident);
        }
        let start = Instant::now();
        let (took, resident) = resident.round_trip(invocation.id, self.options.step_patience)?;
        observer(took);
        *aside = start.elapsed();
        Ok(resident)
    }

    /// A worker with the canister in it.
    fn load(&self, role: Role, target: &Snapshot, limits: &Limits) -> Result<Resident> {
        self.pool.hand_over(|worker| {
            let (number, pid) = (worker.registered().number(), worker.process().pid());
            let resident = Resident::load(worker, role, target, limits, self.options.step_patience)?;
            // What it holds now counts for the next one.
            self.registry.measure_worker(self.source.as_ref(), number, pid);
            Ok(resident)
        })
    }

    /// What the caller hears.
    fn counted<T>(&self, result: Result<T>) -> std::result::Result<T, BackendError> {
        result.map_err(|fault| {
            self.registry.failed(&fault);
            fault.error
        })
    }
}

/// Puts the worker back, or keeps it with its paused run.
pub(crate) fn end(step: Step, invocation: &Invocation, lease: Lease, registry: &Arc<Registry>) -> Execution {
    match step {
        Step::Finished(outcome, resident) => {
            if let Some(resident) = resident {
                lease.put_back(resident);
            }
            Execution::Finished(outcome)
        }
        Step::Paused(resident, run) => {
            let invocation = invocation.clone();
            Execution::Paused(Box::new(Paused {
                resident,
                run,
                invocation,
                lease,
                registry: Arc::clone(registry),
            }))
        }
    }
}

impl Backend for Sandboxed {
    fn execute(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> std::result::Result<Execution, BackendError> {
        self.counted(self.run(Role::Update, snapshot, invocation, &[])).map(|(execution, _)| execution)
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn execute_batch(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
    ) -> std::result::Result<(Execution, Option<Box<dyn Batch>>), BackendError> {
        let (execution, behind) = self.counted(self.run(Role::Update, snapshot, invocation, expected))?;
        Ok((execution, behind.map(|behind| Box::new(behind) as Box<dyn Batch>)))
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> std::result::Result<Outcome, BackendError> {
        let run = self.run(Role::Query, overlay.unwrap_or(snapshot), invocation, &[]);
        self.counted(run.and_then(|(execution, _)| match execution {
            Execution::Finished(outcome) => Ok(outcome),
            Execution::Paused(_) => Err(violation(Kind::Claim, "paused a query")),
        }))
    }

    /// Loads the canister into a worker, if it has none and none has to go for it.
    fn prewarm(&self, snapshot: &Snapshot, limits: &Limits) -> std::result::Result<bool, BackendError> {
        let Some(lease) = self.table.spare((snapshot.canister, Role::Update)) else { return Ok(false) };
        lease.may_start()?;
        let loaded = self.load(Role::Update, snapshot, limits);
        if loaded.is_err() {
            // Not the other way round: only a message shows that its worker is well.
            lease.note(&loaded);
        }
        lease.put_back(self.counted(loaded)?);
        Ok(true)
    }

    /// Ends some idle workers.
    fn relieve(&self, short: &BackendError) -> bool {
        self.table.relieve(short)
    }
}

impl fmt::Debug for Sandboxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandboxed").field("options", &self.options).finish_non_exhaustive()
    }
}
