//! `/v1/events`: the status once a second, as server-sent events that a client can take up again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::response::sse::Event;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};

use super::status::Board;
use super::view;

/// Time between events.
const TICK: Duration = Duration::from_secs(1);
/// Events that a client may take up again with `Last-Event-ID`.
const KEPT: usize = 120;
/// Events that wait for a client; one that is further behind is dropped.
const BEHIND_MAX: usize = 16;
/// Clients at once.
const CLIENTS_MAX: usize = 16;

/// One event.
#[derive(Clone, Debug)]
struct Tick {
    id: u64,
    data: Arc<str>,
}

impl From<Tick> for Event {
    fn from(tick: Tick) -> Self {
        Self::default().id(tick.id.to_string()).event("status").data(&*tick.data)
    }
}

/// The events so far, and who listens.
pub(super) struct Events {
    kept: Mutex<VecDeque<Tick>>,
    sender: broadcast::Sender<Tick>,
    clients: Arc<Semaphore>,
}

impl Events {
    pub(super) fn new() -> Self {
        let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
        Self { kept: Mutex::default(), sender: broadcast::Sender::new(BEHIND_MAX), clients }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Tick>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an event each second, for ever.
    pub(super) async fn tick(self: Arc<Self>, board: Arc<Board>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let data = Arc::from(view::status(&board).to_string());
            let mut kept = self.lock();
            let tick = Tick { id: kept.back().map_or(1, |last| last.id + 1), data };
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(tick.clone());
            // Nobody may be listening.
            let _ = self.sender.send(tick);
        }
    }

    /// What came after event `last`, as far as it is kept, and what comes; `None`: there are clients enough.
    pub(super) fn after(
        &self,
        last: Option<u64>,
    ) -> Option<impl Stream<Item = Result<Event, Infallible>> + use<>> {
        let permit = Arc::clone(&self.clients).try_acquire_owned().ok()?;
        // Under the lock, so that no event comes twice or not at all.
        let kept = self.lock();
        let live = BroadcastStream::new(self.sender.subscribe());
        let missed: Vec<Tick> = match last {
            // An id that isn't ours is of an earlier process: everything is new.
            Some(last) if kept.back().is_some_and(|newest| last <= newest.id) => {
                kept.iter().filter(|tick| tick.id > last).cloned().collect()
            }
            Some(_) => kept.iter().cloned().collect(),
            None => kept.back().cloned().into_iter().collect(),
        };
        drop(kept);
        // An error says that events were lost on the way to this client: it comes back with its last id.
        let ticks = tokio_stream::iter(missed).chain(live.map_while(Result::ok));
        Some(ticks.map(move |tick| Ok(holding(&permit, tick))))
    }
}

/// The client counts for as long as its stream lives.
fn holding(_permit: &OwnedSemaphorePermit, tick: Tick) -> Event {
    tick.into()
}
