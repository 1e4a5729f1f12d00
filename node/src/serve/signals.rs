//! SIGINT and SIGTERM stop in good order, the second one at once; SIGHUP reads the policy again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rollout::Trigger;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::status::Board;

/// Whether it is time to stop.
#[derive(Debug, Default)]
pub(super) struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Set by the first SIGINT or SIGTERM. The second ends the process with code 1.
    pub(super) fn on_signals() -> Result<Arc<Self>, String> {
        let stop = Arc::new(Self::default());
        let watched = Arc::clone(&stop);
        listen(&[SIGINT, SIGTERM], move || {
            if watched.is_set() {
                std::process::exit(1);
            }
            watched.set();
        })?;
        // Until there is a policy to read again, a hang-up is no reason to end.
        listen(&[SIGHUP], || {})?;
        Ok(stop)
    }

    /// Reads the policy of every node again on SIGHUP.
    pub(super) fn reload_on_hangup(&self, board: &Arc<Board>) {
        let board = Arc::clone(board);
        if let Err(error) = listen(&[SIGHUP], move || _ = board.reload(Trigger::Hangup)) {
            tracing::warn!("SIGHUP reads no policy: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    pub(super) fn is_set(&self) -> bool {
        *self.lock()
    }

    /// Waits until it is time to stop.
    pub(super) fn wait(&self) {
        let _set = self.changed.wait_while(self.lock(), |set| !*set).unwrap_or_else(PoisonError::into_inner);
    }

    /// Waits `patience` at most; true: it is time to stop.
    pub(super) fn wait_for(&self, patience: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), patience, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Calls `on_signal` for each of `signals`, on a thread of its own.
fn listen(signals: &[i32], mut on_signal: impl FnMut() + Send + 'static) -> Result<(), String> {
    let cannot = |error| format!("could not watch for signals: {error}");
    let mut signals = Signals::new(signals).map_err(cannot)?;
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || signals.forever().for_each(|_| on_signal())).map_err(cannot)?;
    Ok(())
}
