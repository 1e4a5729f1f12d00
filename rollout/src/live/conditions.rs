//! The threads that follow the clock and the kill switch. Neither reads the policy file or waits for a reload: a disk
//! that hangs must not stand between the switch and its effect. And where the kill switch's own disk hangs, only the
//! thread that looks there waits.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::watch::directory;
use super::{LoadError, Shared};

/// How often each is looked at, whatever the kernel tells.
const TICK: Duration = Duration::from_millis(250);

pub(super) struct Follower {
    /// The clock's thread, and what ends it by being dropped.
    clock: Option<(Sender<Infallible>, JoinHandle<()>)>,
    /// Has the kill switch looked for at once.
    looks: SyncSender<()>,
}

impl Follower {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self, LoadError> {
        // One that waits says all that more would.
        let (looks, asked) = sync_channel(1);
        let (stop, stopped) = channel();
        let (kill, policy) = (KillWatch { looks: looks.clone(), watched: None }, Arc::downgrade(shared));
        spawn("kill-switch", move || follow_kill(kill, &asked, &policy))?;
        let policy = Arc::clone(shared);
        let clock = spawn("policy-clock", move || follow_clock(&stopped, &policy))?;
        Ok(Self { clock: Some((stop, clock)), looks })
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LoadError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| LoadError::Watch { path: format!("({name})").into(), detail: error.to_string() })
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some((stop, clock)) = self.clock.take() {
            drop(stop);
            let _panicked = clock.join();
        }
        // Not waited for: its look may never end. Without a policy it ends by itself; where a look waits, it comes to see
        // that anyway.
        let _ = self.looks.try_send(());
    }
}

fn follow_clock(stopped: &Receiver<Infallible>, shared: &Shared) {
    while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        shared.refresh();
    }
}

fn follow_kill(mut kill: KillWatch, asked: &Receiver<()>, policy: &Weak<Shared>) {
    while let Some(shared) = policy.upgrade() {
        // What is in force isn't held meanwhile: whether it is drained is told from that.
        let directory = shared.in_force.load().policy.kill_file().map(directory);
        kill.follow(directory);
        shared.look_for_kill();
        drop(shared);
        let _asked_or_time = asked.recv_timeout(TICK);
    }
}

/// The kernel's word on the directory of the kill switch's file, where it can be had: ticks do without.
struct KillWatch {
    looks: SyncSender<()>,
    watched: Option<(PathBuf, RecommendedWatcher)>,
}

impl KillWatch {
    fn follow(&mut self, directory: Option<PathBuf>) {
        if self.watched.as_ref().map(|(watched, _)| watched) == directory.as_ref() {
            return;
        }
        self.watched = directory.and_then(|directory| {
            let looks = self.looks.clone();
            let look = move |event: notify::Result<notify::Event>| {
                // What others read there is no news.
                if !event.is_ok_and(|event| event.kind.is_access()) {
                    // Where a look waits already, one more says nothing new.
                    let _ = looks.try_send(());
                }
            };
            let mut watcher = notify::recommended_watcher(look).ok()?;
            watcher.watch(&directory, RecursiveMode::NonRecursive).ok()?;
            Some((directory, watcher))
        });
    }
}
