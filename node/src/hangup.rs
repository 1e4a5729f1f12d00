//! SIGHUP asks for the policy file to be read again.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use rollout::{LivePolicy, Trigger};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};

/// While it lives, each SIGHUP reloads a policy instead of ending this process. What came of it is in the log.
pub struct ReloadOnHangup {
    signals: Handle,
    thread: Option<JoinHandle<()>>,
}

impl ReloadOnHangup {
    /// Begins to listen.
    ///
    /// # Errors
    /// The kernel's refusal of a handler or a thread.
    pub fn start(live: Arc<LivePolicy>) -> io::Result<Self> {
        let mut signals = Signals::new([SIGHUP])?;
        let handle = signals.handle();
        let reload = move || {
            for _hangup in signals.forever() {
                // A refusal is told where it happens.
                let _told = live.reload(Trigger::Hangup);
            }
        };
        let thread = std::thread::Builder::new().name("hangup".into()).spawn(reload)?;
        Ok(Self { signals: handle, thread: Some(thread) })
    }
}

impl Drop for ReloadOnHangup {
    fn drop(&mut self) {
        self.signals.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
