//! The thread that measures workers and ends those that have to go, so that no message waits for it.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use execution::BackendError;

use crate::pool::{descriptors_left, no_thread};
use crate::source::WorkerSource;
use crate::status::Registry;
use crate::table::Table;

/// Looks at all workers at intervals, until it is dropped.
pub(crate) struct Housekeeping {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeping {
    pub(crate) fn start(
        source: Arc<dyn WorkerSource>,
        registry: Arc<Registry>,
        table: Arc<Table>,
        interval: Duration,
        idle_max: Duration,
    ) -> Result<Self, BackendError> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("sandbox-house".into())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
                    registry.measure(source.as_ref());
                    table.evict_idle(idle_max);
                    // What busy workers hold stays; a cold start says so if it has to.
                    let _over = table.make_room();
                    if let Err(short) = descriptors_left() {
                        table.relieve(&short);
                    }
                }
            })
            .map_err(no_thread)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own hook, and there is nothing left to do for it.
            let _panicked = thread.join();
        }
    }
}
