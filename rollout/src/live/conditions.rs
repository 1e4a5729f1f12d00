//! The threads that follow the clock and the kill switch. Neither reads the policy file or waits for a reload: a disk
//! that hangs must not stand between the switch and its effect. And where the kill switch's own disk hangs, only the
//! thread that looks there waits.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::watch::directory;
use super::{IsThere, LoadError, Shared};

/// How often each is looked at, whatever the kernel tells.
const TICK: Duration = Duration::from_millis(250);
/// How long somebody waits for one look at a file that nobody follows yet.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// The clock's thread, and what ends it by being dropped.
pub(super) struct Follower(Option<(Sender<Infallible>, JoinHandle<()>)>);

impl Follower {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self, LoadError> {
        let (stop, stopped) = channel();
        let policy = Arc::clone(shared);
        let clock = spawn("policy-clock", move || follow_clock(&stopped, &policy));
        let failed =
            |error: io::Error| LoadError::Watch { path: "(the clock)".into(), detail: error.to_string() };
        Ok(Self(Some((stop, clock.map_err(failed)?))))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some((stop, clock)) = self.0.take() {
            drop(stop);
            let _panicked = clock.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work)
}

/// One look at a file. It goes on without whoever asked where that takes long.
pub(super) fn look(is_there: &IsThere, file: &Path) -> io::Result<bool> {
    let (tell, told) = sync_channel(1);
    let (is_there, path) = (Arc::clone(is_there), file.to_owned());
    spawn("kill-look", move || _ = tell.send(is_there(&path)))?;
    told.recv_timeout(LOOK_PATIENCE).unwrap_or_else(|_| {
        let text = format!("no answer about {} within {LOOK_PATIENCE:?}", file.display());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// Follows the clock, and sees to it that the kill switch's file is followed.
fn follow_clock(stopped: &Receiver<Infallible>, shared: &Arc<Shared>) {
    let mut kill: Option<Looker> = None;
    loop {
        shared.refresh();
        let file = shared.in_force.load().policy.kill_file().map(Path::to_owned);
        if kill.as_ref().map(|looker| &looker.file) != file.as_ref() {
            kill = file.and_then(|file| Looker::start(file, shared));
        }
        if stopped.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// A thread that looks for one file. Dropping this ends it after the look that it is at; nobody waits for it.
struct Looker {
    file: PathBuf,
    _wanted: Arc<()>,
}

impl Looker {
    /// `None`: no thread can be had, now.
    fn start(file: PathBuf, shared: &Arc<Shared>) -> Option<Self> {
        let wanted = Arc::new(());
        let (path, policy, life) = (file.clone(), Arc::downgrade(shared), Arc::downgrade(&wanted));
        match spawn("kill-switch", move || follow_kill(&path, &policy, &life)) {
            Ok(_) => Some(Self { file, _wanted: wanted }),
            Err(error) => {
                tracing::error!("the kill switch's file is not followed: {error}");
                None
            }
        }
    }
}

fn follow_kill(file: &Path, policy: &Weak<Shared>, wanted: &Weak<()>) {
    // One that waits says all that more would.
    let (looks, asked) = sync_channel(1);
    let mut watcher = None;
    while wanted.strong_count() > 0
        && let Some(shared) = policy.upgrade()
    {
        watcher = watcher.or_else(|| watch(file, &looks));
        let began = Instant::now();
        let seen = (shared.is_there)(file);
        shared.kill_looked(file, seen, began);
        drop(shared);
        let _asked_or_time = asked.recv_timeout(TICK);
    }
}

/// The kernel's word on the directory of the file, where it can be had: ticks do without.
fn watch(file: &Path, looks: &SyncSender<()>) -> Option<RecommendedWatcher> {
    let looks = looks.clone();
    let look = move |event: notify::Result<notify::Event>| {
        // What others read there is no news.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // Where a look waits already, one more says nothing new.
            let _ = looks.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(look).ok()?;
    watcher.watch(&directory(file), RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}
