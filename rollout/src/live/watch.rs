//! The thread that notices a save.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{LoadError, Shared, Trigger};

/// Wait for the end of a save that has begun.
const SAVE: Duration = Duration::from_millis(10);
/// How often the file is looked at, whatever the kernel tells: a directory that was removed takes its watch with it.
const TICK: Duration = Duration::from_millis(250);
/// Signals waiting; more of them say nothing new.
const SIGNALS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// A write began or goes on.
    Writing,
    /// A file was closed, moved, made or removed.
    Changed,
    Stop,
}

pub(super) struct Watcher {
    stop: SyncSender<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(super) fn start(path: &Path, shared: Arc<Shared>) -> Result<Self, LoadError> {
        let failed = |detail: String| LoadError::Watch { path: path.to_owned(), detail };
        let (stop, signals) = sync_channel(SIGNALS_MAX);
        let sender = stop.clone();
        let notify = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // A lost or failed event means: look.
            let signal = event.map_or(Some(Signal::Changed), |event| signal(event.kind));
            if let Some(signal) = signal {
                match sender.try_send(signal) {
                    Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
                }
            }
        })
        .map_err(|error| failed(error.to_string()))?;
        let mut places =
            Places { notify, path: path.to_owned(), watched: HashSet::new(), seen: Stamp::of(path) };
        // The file may have changed between its first reading and the watch.
        let _ = stop.try_send(Signal::Changed);
        let thread = std::thread::Builder::new()
            .name("policy-watch".into())
            .spawn(move || run(&signals, &mut places, &shared))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Blocks only while the queue is full, which the thread empties.
        let _ = self.stop.send(Signal::Stop);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

fn signal(kind: EventKind) -> Option<Signal> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Signal::Changed),
        // Our own reads.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) | EventKind::Create(_) => Some(Signal::Writing),
        EventKind::Any | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => {
            Some(Signal::Changed)
        }
    }
}

/// The directories in which a change can change the file: its own and its target's.
struct Places {
    notify: RecommendedWatcher,
    path: PathBuf,
    watched: HashSet<PathBuf>,
    /// The file as it was last looked at.
    seen: Option<Stamp>,
}

/// What tells that a file has changed, without reading it.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
        Some(Self { device, inode, size, changed: (metadata.ctime(), metadata.ctime_nsec()) })
    }
}

impl Places {
    /// Watches where the file lies now. A symlink may lead elsewhere after each change.
    fn follow(&mut self) -> notify::Result<()> {
        let own = directory(&self.path);
        let target = std::fs::canonicalize(&self.path).ok().map(|target| directory(&target));
        let own = own.canonicalize().unwrap_or(own);
        let wanted: HashSet<PathBuf> = std::iter::once(own).chain(target).collect();
        for gone in self.watched.difference(&wanted).cloned().collect::<Vec<_>>() {
            // Fails when the directory is gone, and its watch with it.
            let _ = self.notify.unwatch(&gone);
            self.watched.remove(&gone);
        }
        for new in wanted.difference(&self.watched).cloned().collect::<Vec<_>>() {
            self.notify.watch(&new, RecursiveMode::NonRecursive)?;
            self.watched.insert(new);
        }
        Ok(())
    }

    /// Watches nothing, so that the next look watches anew.
    fn forget(&mut self) {
        for gone in self.watched.drain() {
            // Fails where the directory is gone.
            let _ = self.notify.unwatch(&gone);
        }
    }

    /// Whether the file is another than at the last look.
    fn changed(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

pub(super) fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    }
}

fn run(signals: &Receiver<Signal>, places: &mut Places, shared: &Shared) {
    loop {
        let signal = match signals.recv_timeout(TICK) {
            Ok(signal) => Some(signal),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match signal {
            None if !places.changed() => continue,
            // The kernel told nothing of a change that is there: its watches are worth nothing.
            None => places.forget(),
            Some(signal) if !saved(signal, signals) => return,
            Some(_) => {}
        }
        let look = || {
            places.seen = Stamp::of(&places.path);
            if let Err(error) = places.follow() {
                tracing::warn!("changes of {} are noticed late: {error}", places.path.display());
            }
        };
        let wait = |left| {
            !matches!(signals.recv_timeout(left), Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected))
        };
        if shared.reload(Trigger::Watch, look, wait).is_none() {
            return;
        }
    }
}

/// Waits until a save that has begun has ended, or seems to take longer. False: stop.
fn saved(mut signal: Signal, signals: &Receiver<Signal>) -> bool {
    let end = Instant::now() + SAVE;
    while signal == Signal::Writing {
        match signals.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(next) => signal = next,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    signal != Signal::Stop
}
