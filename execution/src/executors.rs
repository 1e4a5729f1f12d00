//! Threads that run canisters: a fixed number, made once.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::Principal;
use crate::memory::Budget;

/// Stack of a thread that runs rounds or queries, bytes: modules are validated and compiled on it. Canister code has
/// stacks of its own.
pub const EXECUTOR_STACK_BYTES: usize = 16 << 20;

/// Called on each executor thread with its number before its first job, e.g. to pin it to a core.
pub type OnThreadStart = Arc<dyn Fn(usize) + Send + Sync>;

/// How rounds are run on this node. Nothing here changes results.
#[derive(Clone)]
pub struct SchedulerOptions {
    /// Executor threads; at least 1.
    pub threads: usize,
    /// Runs once on each of them.
    pub on_thread_start: Option<OnThreadStart>,
    /// Whether each [`crate::report::Executed`] carries its canister's part of the state root.
    pub message_roots: bool,
    /// How much memory canisters may hold.
    pub memory: MemoryOptions,
}

/// How much memory canisters may hold on this node. Where one of these is met, the message waits.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// Bytes of page versions of one canister, those of older snapshots included; at most 1 TiB.
    pub arena_bytes: u64,
    /// Bytes of page versions of all canisters (limit `memory_bytes`).
    pub budget: Arc<Budget>,
}

impl Default for MemoryOptions {
    /// As much as an arena can hold, and all canisters together as much as the kernel gives.
    fn default() -> Self {
        Self { arena_bytes: 1 << 40, budget: Budget::unbounded() }
    }
}

impl fmt::Debug for SchedulerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerOptions")
            .field("threads", &self.threads)
            .field("message_roots", &self.message_roots)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl Default for SchedulerOptions {
    /// One executor for each core.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, on_thread_start: None, message_roots: false, memory: MemoryOptions::default() }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads. Dropping it ends and joins them.
pub(crate) struct Executors {
    threads: Vec<Executor>,
    /// Where each canister ran last, so that it runs there again.
    homes: BTreeMap<Principal, usize>,
}

struct Executor {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Executors {
    /// Starts the threads.
    ///
    /// # Panics
    /// If the operating system refuses a thread: without executors there is no node.
    pub(crate) fn new(options: &SchedulerOptions) -> Self {
        let threads = (0..options.threads.max(1))
            .map(|number| {
                let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
                let on_start = options.on_thread_start.clone();
                let thread = std::thread::Builder::new()
                    .name(format!("executor-{number}"))
                    .stack_size(EXECUTOR_STACK_BYTES)
                    .spawn(move || {
                        if let Some(on_start) = on_start {
                            on_start(number);
                        }
                        queue.into_iter().for_each(|job| job());
                    })
                    .expect("an executor thread can be started");
                Executor { jobs: Some(jobs), thread: Some(thread) }
            })
            .collect();
        Self { threads, homes: BTreeMap::new() }
    }

    /// Runs `work` on every item, in parallel, and gives the results in the items' order.
    /// A single item runs on the calling thread.
    pub(crate) fn map<T, R, F>(&mut self, mut items: Vec<(Principal, T)>, work: F) -> Vec<R>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Fn(T) -> R + Send + Sync + 'static,
    {
        if items.len() == 1 {
            return items.pop().map(|(_, item)| work(item)).into_iter().collect();
        }
        let work = Arc::new(work);
        let (results, done) = channel();
        let count = items.len();
        let places = self.place(items.iter().map(|(id, _)| *id));
        for (index, ((_, item), place)) in items.into_iter().zip(places).enumerate() {
            let work = Arc::clone(&work);
            let results = results.clone();
            let job: Job = Box::new(move || {
                let result = catch_unwind(AssertUnwindSafe(|| work(item)));
                // The receiver is gone only if the round itself has panicked.
                let _ = results.send((index, result));
            });
            let jobs = self.threads[place].jobs.as_ref().expect("executors live until drop");
            jobs.send(job).expect("executors live until drop");
        }
        drop(results);
        let mut ordered: Vec<Option<R>> = (0..count).map(|_| None).collect();
        for (index, result) in done {
            match result {
                Ok(result) => ordered[index] = Some(result),
                Err(panic) => resume_unwind(panic),
            }
        }
        ordered.into_iter().map(|result| result.expect("every job sends its result")).collect()
    }

    /// A thread for each canister: where it ran last, unless that thread has its share already.
    fn place(&mut self, ids: impl ExactSizeIterator<Item = Principal>) -> Vec<usize> {
        let share = ids.len().div_ceil(self.threads.len());
        let mut load = vec![0; self.threads.len()];
        ids.map(|id| {
            let home = self.homes.get(&id).copied().filter(|&home| load[home] < share);
            let place = home.unwrap_or_else(|| {
                (0..load.len()).min_by_key(|&thread| load[thread]).expect("there is a thread")
            });
            load[place] += 1;
            self.homes.insert(id, place);
            place
        })
        .collect()
    }

    /// Forgets where a canister ran.
    pub(crate) fn forget(&mut self, id: &Principal) {
        self.homes.remove(id);
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        for executor in &mut self.threads {
            executor.jobs = None;
        }
        for executor in &mut self.threads {
            if let Some(thread) = executor.thread.take() {
                // A job's panic was caught and passed on; the thread itself has nothing to say.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items_on_any_number_of_threads() {
        for threads in [1, 2, 4] {
            let mut executors = Executors::new(&SchedulerOptions { threads, ..SchedulerOptions::default() });
            let items = (0..50_u8).map(|n| (Principal::from_slice(&[n]), n)).collect();
            let squares = executors.map(items, |n| u32::from(n) * u32::from(n));
            assert_eq!(squares, (0..50).map(|n| n * n).collect::<Vec<_>>());
        }
    }
}
