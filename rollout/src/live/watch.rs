//! The thread that notices a save.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{LoadError, Shared};

/// Wait for the end of a save that has begun.
const SAVE: Duration = Duration::from_millis(10);
/// A file that is refused is read again for this long first: it may be half written.
const SECOND_LOOK: Duration = Duration::from_millis(20);
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
        let mut places = Places { notify, path: path.to_owned(), watched: HashSet::new() };
        places.follow().map_err(|error| failed(error.to_string()))?;
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
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    }
}

fn run(signals: &Receiver<Signal>, places: &mut Places, shared: &Shared) {
    while let Ok(signal) = signals.recv() {
        if !saved(signal, signals) {
            return;
        }
        match settle(signals, places, shared) {
            Settled::Good => {}
            Settled::Bad(error) => {
                // The same refusal is told once, however many events come.
                let told = shared.lock().last_error.as_ref().map(ToString::to_string);
                if told != Some(error.to_string()) {
                    shared.refuse(&error);
                }
            }
            Settled::Stop => return,
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

enum Settled {
    Good,
    Bad(LoadError),
    Stop,
}

/// Reloads, again after each further change while the file is bad, until the second look is over.
fn settle(signals: &Receiver<Signal>, places: &mut Places, shared: &Shared) -> Settled {
    let end = Instant::now() + SECOND_LOOK;
    loop {
        let late = Instant::now() >= end;
        let result = places
            .follow()
            .map_err(|error| LoadError::Watch { path: places.path.clone(), detail: error.to_string() })
            .and_then(|()| shared.reload());
        match result {
            Ok(_) => return Settled::Good,
            Err(error) if late => return Settled::Bad(error),
            Err(_) => {}
        }
        match signals.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Settled::Stop,
            Ok(Signal::Writing | Signal::Changed) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
