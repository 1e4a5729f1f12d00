//! Bounds and callbacks of the sandbox.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use execution::{Instructions, Principal};
use sandbox_os::machine;

/// Where the time of one execution went, on the node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// The canister.
    pub canister: Principal,
    /// `Invocation::id`.
    pub invocation: u64,
    /// Whether the worker was started or loaded for it.
    pub cold: bool,
    /// Getting a worker, cold or warm.
    pub prepare: Duration,
    /// From placing the worker until its answer was there.
    pub worker: Duration,
    /// Checking the claims and copying the written pages.
    pub pages: Duration,
}

/// Called after each execution, or its first slice, on the thread that asked for it.
pub type Observer = Arc<dyn Fn(&Phases) + Send + Sync>;

/// Called with how long a bare round trip to a worker took, on the thread that asked for it.
pub type RoundTripObserver = Arc<dyn Fn(Duration) + Send + Sync>;

/// Whether what was asked of a worker at that moment is not wanted any more. Asked of calls that take long, several
/// times a second: be quick.
pub type Unwanted = Arc<dyn Fn(Instant) -> bool + Send + Sync>;

/// Bounds of [`crate::Sandboxed`]. None of them can change a result.
#[derive(Clone)]
pub struct SandboxOptions {
    /// Workers launched ahead, confined and without a canister.
    pub pool: usize,
    /// Workers with a canister; idle ones make room for others. Those for which this process has descriptors,
    /// if that is fewer.
    pub workers_max: usize,
    /// Private memory of all workers with a canister, bytes; idle ones make room for others. `None`: three
    /// eighths of what this process may use.
    pub worker_memory_bytes_max: Option<u64>,
    /// Query workers of one canister.
    pub query_workers: usize,
    /// How long a worker may be idle before it goes.
    pub idle_max: Duration,
    /// How often workers are measured, and those looked for that have to go.
    pub housekeeping: Duration,
    /// How long a worker may take over anything but running; and how long one that runs may be without any processor
    /// time.
    pub step_patience: Duration,
    /// Instructions a second that a running worker has to reach on its processor, or its run is ended: its limit
    /// explains so much processor time and no more. So long can a worker that spins keep its round waiting (80 s with
    /// two slices of 2 billion); most code runs twenty times as fast. Code that is slower than this over a whole slice
    /// isn't run on this node.
    pub instructions_per_second_min: Instructions,
    /// Instructions a second that honest code reaches, whatever it is. What a run claims explains so much processor time
    /// and no more: with more, the claim is a violation.
    ///
    /// It has to allow for what the metering allows: a load that misses every cache costs one instruction. In a heap
    /// of 4 GiB such a load takes 410 ns here, on a busy machine, two virtual cores of which others have most
    /// (a bare chain in C; `perf --only pace` has it through the engine); half as much again is allowed. Most code runs
    /// a thousand times as fast, so this finds gross lies only.
    pub claimed_instructions_per_second_min: Instructions,
    /// Pages of 4 KiB a second that an honest worker touches for the first time, above its instructions. Each page of
    /// its memory explains so much more processor time.
    ///
    /// The first write to a page takes 2.7 us here, on a busy machine, a first read 0.6 us, an mprotect of one
    /// 1.6 us, likewise in C: nearly twice the longest is allowed.
    pub pages_per_second_min: u64,
    /// Processor time of a run that no claim needs to explain: restoring memory after a trap, and what the kernel
    /// counts for a process that others interrupt.
    pub processor_slack: Duration,
    /// How long a canister whose workers keep ending waits for the next one: at first, doubled by each further end, up
    /// to 10 s. Zero: never.
    pub restart_pause: Duration,
    /// Whether each worker gets a copy of its program in memory of its own. Shared pages let one worker tell by its
    /// caches what another one executes (Flush+Reload); a copy costs the program's size in memory and about 1 ms a
    /// launch.
    pub private_images: bool,
    /// Hears of each execution.
    pub observer: Option<Observer>,
    /// Hears of bare round trips, each made before one in [`ROUND_TRIP_EVERY`] executions on warm workers, the first of
    /// them included, and in none of its phases. `None`: none is made.
    ///
    /// It is the smallest exchange that there is: the worker is asked for none of the pages that its last run wrote. It
    /// goes the way of any other request, and what is wrong with it ends the worker: one that lies about it, or hangs,
    /// gains nothing that it doesn't have in a run. What it takes is shown and decides nothing.
    pub round_trips: Option<RoundTripObserver>,
    /// Ends calls that would still have time: their worker goes, and whoever asked hears
    /// [`execution::BackendError::Deadline`]. `None`: no call ends for that.
    pub unwanted: Option<Unwanted>,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            pool: 2,
            workers_max: 2_000,
            worker_memory_bytes_max: None,
            query_workers: 1,
            idle_max: Duration::from_secs(300),
            housekeeping: Duration::from_secs(1),
            step_patience: Duration::from_secs(10),
            instructions_per_second_min: 50_000_000,
            claimed_instructions_per_second_min: 1_600_000,
            pages_per_second_min: 200_000,
            processor_slack: Duration::from_millis(250),
            restart_pause: Duration::from_millis(100),
            private_images: false,
            observer: None,
            round_trips: None,
            unwanted: None,
        }
    }
}

/// Executions on warm workers for each bare round trip: so few that neither their mean nor their 99.9th percentile shows
/// it.
pub const ROUND_TRIP_EVERY: u64 = 2_048;

/// Descriptors that a live worker costs the node: its socket, and the handle that it is killed by.
const DESCRIPTORS_PER_WORKER: u64 = 2;

/// What there may be at once on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) workers_max: usize,
    pub(crate) query_workers: usize,
    pub(crate) memory_bytes_max: u64,
}

impl SandboxOptions {
    /// The bounds that hold on this machine, under the limits that this process has now.
    pub(crate) fn bounds(&self) -> Bounds {
        // The other half is for the files of canisters.
        let by_descriptors = machine::open_files_max() / 2 / DESCRIPTORS_PER_WORKER;
        let by_descriptors = usize::try_from(by_descriptors).unwrap_or(usize::MAX);
        Bounds {
            workers_max: self.workers_max.min(by_descriptors).max(1),
            query_workers: self.query_workers.max(1),
            memory_bytes_max: self.worker_memory_bytes(),
        }
    }

    /// What `worker_memory_bytes_max` comes to on this machine, bytes.
    #[must_use]
    pub fn worker_memory_bytes(&self) -> u64 {
        // Half of the machine's is for memory of record, an eighth for all else. A machine whose memory can't be
        // told has no limit that could be derived from it.
        let of_machine = || machine::memory_bytes().map_or(u64::MAX, |bytes| bytes / 8 * 3);
        self.worker_memory_bytes_max.unwrap_or_else(of_machine)
    }

    /// What all workers together may take before the kernel ends one of them, bytes: seven eighths of what this process
    /// may use, so that no canister is ended that could have had its memory. `worker_memory_bytes_max` is kept by
    /// ending idle workers, long before.
    pub(crate) fn group_bytes_max(&self) -> u64 {
        let of_machine = machine::memory_bytes().map_or(u64::MAX, |bytes| bytes / 8 * 7);
        of_machine.max(self.bounds().memory_bytes_max)
    }
}

impl fmt::Debug for SandboxOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxOptions")
            .field("pool", &self.pool)
            .field("workers_max", &self.workers_max)
            .field("worker_memory_bytes_max", &self.worker_memory_bytes_max)
            .field("query_workers", &self.query_workers)
            .field("idle_max", &self.idle_max)
            .field("housekeeping", &self.housekeeping)
            .field("step_patience", &self.step_patience)
            .field("instructions_per_second_min", &self.instructions_per_second_min)
            .field("claimed_instructions_per_second_min", &self.claimed_instructions_per_second_min)
            .field("pages_per_second_min", &self.pages_per_second_min)
            .field("processor_slack", &self.processor_slack)
            .field("restart_pause", &self.restart_pause)
            .field("private_images", &self.private_images)
            .finish_non_exhaustive()
    }
}
