//! Threads that run canisters: a fixed number, made once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::memory::Budget;
use crate::{Principal, RoundObserver};

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
    /// Hears of messages on their way.
    pub observer: Option<Arc<dyn RoundObserver>>,
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
        let memory = MemoryOptions::default();
        Self { threads, on_thread_start: None, message_roots: false, memory, observer: None }
    }
}

/// How long a thread that has done its share waits before it takes jobs that wait for others. Moving a worker costs
/// cold caches; within so short a time the others mostly get there themselves.
const PATIENCE: Duration = Duration::from_micros(200);

/// Of the queues' lock.
const UNPOISONED: &str = "no job runs under the lock";

/// Runs on the thread of this number.
type Job = Box<dyn FnOnce(usize) + Send>;

/// The threads. Dropping it ends and joins them.
pub(crate) struct Executors {
    threads: Vec<JoinHandle<()>>,
    queues: Arc<Queues>,
    /// Where each canister ran last, so that it runs there again.
    homes: BTreeMap<Principal, usize>,
}

/// What waits for each thread, under one lock: whoever looks sees all jobs of a round or none.
struct Queues {
    waiting: Mutex<Waiting>,
    /// By thread: there is something for it.
    wake: Vec<Condvar>,
}

struct Waiting {
    /// By thread.
    jobs: Vec<VecDeque<Job>>,
    ended: bool,
}

impl Queues {
    fn new(threads: usize) -> Self {
        let jobs = std::iter::repeat_with(VecDeque::new).take(threads).collect();
        let wake = std::iter::repeat_with(Condvar::new).take(threads).collect();
        Self { waiting: Mutex::new(Waiting { jobs, ended: false }), wake }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect(UNPOISONED)
    }

    /// Runs what waits for thread `number`, and what waits behind long jobs of others, until the end.
    fn work(&self, number: usize) {
        let mut waiting = self.lock();
        let mut patient = true;
        loop {
            let own = waiting.jobs[number].pop_front();
            patient |= own.is_some();
            let job = if patient { own } else { own.or_else(|| waiting.take_last()) };
            if let Some(job) = job {
                drop(waiting);
                job(number);
                waiting = self.lock();
            } else if waiting.ended {
                return;
            } else if waiting.jobs.iter().any(|queue| !queue.is_empty()) {
                let (woken, late) = self.wake[number].wait_timeout(waiting, PATIENCE).expect(UNPOISONED);
                (waiting, patient) = (woken, !late.timed_out());
            } else {
                waiting = self.wake[number].wait(waiting).expect(UNPOISONED);
                patient = true;
            }
        }
    }
}

impl Waiting {
    /// The last job of the longest queue.
    fn take_last(&mut self) -> Option<Job> {
        self.jobs.iter_mut().max_by_key(|queue| queue.len())?.pop_back()
    }
}

impl Executors {
    /// Starts the threads.
    ///
    /// # Panics
    /// If the operating system refuses a thread: without executors there is no node.
    pub(crate) fn new(options: &SchedulerOptions) -> Self {
        let count = options.threads.max(1);
        let queues = Arc::new(Queues::new(count));
        let threads = (0..count)
            .map(|number| {
                let on_start = options.on_thread_start.clone();
                let queues = Arc::clone(&queues);
                thread::Builder::new()
                    .name(format!("executor-{number}"))
                    .stack_size(EXECUTOR_STACK_BYTES)
                    .spawn(move || {
                        if let Some(on_start) = on_start {
                            on_start(number);
                        }
                        queues.work(number);
                    })
                    .expect("an executor thread can be started")
            })
            .collect();
        Self { threads, queues, homes: BTreeMap::new() }
    }

    /// Runs `work` on every item, in parallel, and gives the results in the items' order.
    /// A single item runs on the calling thread: to wake another one costs more than to move its worker.
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
        let ids: Vec<Principal> = items.iter().map(|(id, _)| *id).collect();
        let places = self.place(&ids);
        let job = |(index, (_, item)): (usize, (Principal, T))| -> Job {
            let work = Arc::clone(&work);
            let results = results.clone();
            Box::new(move |thread| {
                let result = catch_unwind(AssertUnwindSafe(|| work(item)));
                // The receiver is gone only if the round itself has panicked.
                let _ = results.send((index, thread, result));
            })
        };
        let jobs = items.into_iter().enumerate().map(job);
        let mut waiting = self.queues.lock();
        for (place, job) in places.iter().copied().zip(jobs) {
            waiting.jobs[place].push_back(job);
        }
        // Where jobs wait behind others, those who have none are to look for some a little later.
        let crowded = waiting.jobs.iter().any(|queue| queue.len() > 1);
        drop((waiting, results));
        let all = 0..self.threads.len();
        let woken: BTreeSet<usize> = if crowded { all.collect() } else { places.into_iter().collect() };
        for thread in woken {
            self.queues.wake[thread].notify_one();
        }
        let mut ordered: Vec<Option<R>> = ids.iter().map(|_| None).collect();
        for (index, thread, result) in done {
            match result {
                Ok(result) => ordered[index] = Some(result),
                Err(panic) => resume_unwind(panic),
            }
            self.homes.insert(ids[index], thread);
        }
        ordered.into_iter().map(|result| result.expect("every job sends its result")).collect()
    }

    /// A thread for each canister: where it ran last, unless that thread has its share already.
    fn place(&self, ids: &[Principal]) -> Vec<usize> {
        let share = ids.len().div_ceil(self.threads.len());
        let mut load = vec![0; self.threads.len()];
        // Whoever has a home comes before those who may go anywhere.
        let places: Vec<Option<usize>> = ids
            .iter()
            .map(|id| {
                let home = self.homes.get(id).copied().filter(|&home| load[home] < share)?;
                load[home] += 1;
                Some(home)
            })
            .collect();
        let anywhere = |place: Option<usize>| {
            place.unwrap_or_else(|| {
                let least = (0..load.len()).min_by_key(|&thread| load[thread]).expect("there is a thread");
                load[least] += 1;
                least
            })
        };
        places.into_iter().map(anywhere).collect()
    }

    /// Forgets where a canister ran.
    pub(crate) fn forget(&mut self, id: &Principal) {
        self.homes.remove(id);
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        self.queues.lock().ended = true;
        for (thread, wake) in self.threads.drain(..).zip(&self.queues.wake) {
            wake.notify_one();
            // A job's panic was caught and passed on; the thread itself has nothing to say.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn executors(threads: usize) -> Executors {
        Executors::new(&SchedulerOptions { threads, ..SchedulerOptions::default() })
    }

    /// Canisters by number.
    fn items(numbers: impl IntoIterator<Item = u8>) -> Vec<(Principal, u8)> {
        numbers.into_iter().map(|number| (Principal::from_slice(&[number]), number)).collect()
    }

    #[test]
    fn results_keep_the_order_of_the_items_on_any_number_of_threads() {
        for threads in [1, 2, 4] {
            let squares = executors(threads).map(items(0..50), |n| u32::from(n) * u32::from(n));
            assert_eq!(squares, (0..50).map(|n| n * n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_canister_stays_on_the_thread_that_it_ran_on() {
        let mut executors = executors(4);
        let threads = |executors: &mut Executors, order: [u8; 4]| {
            // None is done before all have begun, each on a thread of its own.
            let all = Barrier::new(4);
            let ran = executors.map(items(order), move |n| {
                all.wait();
                (n, thread::current().id())
            });
            ran.into_iter().collect::<std::collections::HashMap<_, _>>()
        };
        let first = threads(&mut executors, [0, 1, 2, 3]);
        for order in [[3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]] {
            assert_eq!(threads(&mut executors, order), first);
        }
    }

    #[test]
    fn what_waits_behind_a_long_message_is_done_by_a_thread_that_is_idle() {
        let mut executors = executors(2);
        for _ in 0..10 {
            // The first ends when the nine others, some of which wait behind it, have.
            let (done, others) = channel();
            let others = Mutex::new(others);
            executors.map(items(0..10), move |n| match n {
                0 => others.lock().unwrap().iter().take(9).for_each(drop),
                _ => done.send(()).unwrap(),
            });
        }
    }

    #[test]
    fn a_thread_that_has_no_share_takes_what_waits_behind_a_long_message() {
        let mut executors = executors(4);
        for number in 0..6 {
            executors.homes.insert(Principal::from_slice(&[number]), usize::from(number / 2));
        }
        // Three threads have two each. None of their first ends before all second ones have, which is left to the fourth.
        let ended = Arc::new((Mutex::new(0), Condvar::new()));
        executors.map(items(0..6), move |n| {
            let (seconds, changed) = &*ended;
            let mut seconds = seconds.lock().unwrap();
            if n % 2 == 1 {
                *seconds += 1;
                changed.notify_all();
            } else {
                drop(changed.wait_while(seconds, |seconds| *seconds < 3).unwrap());
            }
        });
    }
}
