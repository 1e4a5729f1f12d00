//! The thread on which candidates run, and which is left behind where one hangs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use execution::{BackendError, Outcome};

type Task = Box<dyn FnOnce() -> Result<Outcome, BackendError> + Send>;

/// How a run ended.
pub(super) enum Ran {
    /// With this.
    Outcome(Box<Outcome>),
    /// Something around the guest failed.
    Failed(String),
    /// It had not ended by its deadline.
    TimedOut,
}

/// Threads that run candidates, hung ones included.
#[derive(Clone, Debug, Default)]
pub(super) struct Threads(Arc<AtomicUsize>);

impl Threads {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counted for as long as the thread lives.
struct Alive(Threads);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One of them. It ends when this is dropped and what it runs has ended.
pub(super) struct Runner {
    tasks: SyncSender<Task>,
    results: Receiver<Result<Outcome, String>>,
}

impl Runner {
    pub(super) fn start(threads: &Threads) -> std::io::Result<Self> {
        let (tasks, given) = sync_channel::<Task>(1);
        let (result, results) = sync_channel(1);
        threads.0.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(threads.clone());
        std::thread::Builder::new().name("candidate".into()).spawn(move || {
            let _alive = alive;
            for task in given {
                let ran = catch_unwind(AssertUnwindSafe(task));
                let ran = ran.map_err(|_| "the backend panicked".to_owned());
                let ran = ran.and_then(|ran| ran.map_err(|error| error.to_string()));
                // Nobody waits for it any more: it hung.
                if result.send(ran).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { tasks, results })
    }

    /// Runs `task`. Where it has not ended after `deadline`, the thread is left to itself.
    pub(super) fn run(self, task: Task, deadline: Duration) -> (Option<Self>, Ran) {
        if self.tasks.send(task).is_err() {
            return (None, Ran::Failed("its thread is gone".into()));
        }
        match self.results.recv_timeout(deadline) {
            Ok(Ok(outcome)) => (Some(self), Ran::Outcome(Box::new(outcome))),
            Ok(Err(why)) => (Some(self), Ran::Failed(why)),
            Err(RecvTimeoutError::Timeout) => (None, Ran::TimedOut),
            Err(RecvTimeoutError::Disconnected) => (None, Ran::Failed("its thread is gone".into())),
        }
    }
}
