//! The thread that follows the clock and the kill switch. It reads no file and waits for no reload: a disk that hangs
//! must not stand between the switch and its effect.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::watch::directory;
use super::{LoadError, Shared};

/// How often both are looked at, whatever the kernel tells.
const TICK: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Look,
    Stop,
}

pub(super) struct Follower {
    signals: SyncSender<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self, LoadError> {
        // One that waits says all that more would.
        let (signals, looks) = sync_channel(1);
        let mut kill = KillWatch { signals: signals.clone(), watched: None };
        let thread = std::thread::Builder::new()
            .name("policy-clock".into())
            .spawn(move || run(&looks, &mut kill, &shared))
            .map_err(|error| LoadError::Watch { path: "(the clock)".into(), detail: error.to_string() })?;
        Ok(Self { signals, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Blocks only while a look waits, which the thread takes.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(looks: &Receiver<Signal>, kill: &mut KillWatch, shared: &Shared) {
    loop {
        kill.follow(shared.in_force.load().policy.kill_file().map(directory));
        shared.refresh();
        match looks.recv_timeout(TICK) {
            Ok(Signal::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The kernel's word on the directory of the kill switch's file, where it can be had: ticks do without.
struct KillWatch {
    signals: SyncSender<Signal>,
    watched: Option<(PathBuf, RecommendedWatcher)>,
}

impl KillWatch {
    fn follow(&mut self, directory: Option<PathBuf>) {
        if self.watched.as_ref().map(|(watched, _)| watched) == directory.as_ref() {
            return;
        }
        self.watched = directory.and_then(|directory| {
            let signals = self.signals.clone();
            let look = move |event: notify::Result<notify::Event>| {
                // What others read there is no news.
                if !event.is_ok_and(|event| event.kind.is_access()) {
                    // Where a look waits already, one more says nothing new.
                    let _ = signals.try_send(Signal::Look);
                }
            };
            let mut watcher = notify::recommended_watcher(look).ok()?;
            watcher.watch(&directory, RecursiveMode::NonRecursive).ok()?;
            Some((directory, watcher))
        });
    }
}
