//! What people ask of rollouts: from the interface to the thread that drives them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use rollout::machine::Promotion;
use serde_json::Value;
use tokio::sync::oneshot;

/// Commands that wait.
const WAITING_MAX: usize = 16;
/// How long a command may wait before it is begun. One that waited longer is never done.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked, by whom and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) verb: Verb,
    /// `uid N`, as the kernel said.
    pub(super) actor: String,
    pub(super) reason: Option<String>,
    /// Only if this generation of the policy is in force.
    pub(super) if_generation: Option<u64>,
    /// Only say what would be done.
    pub(super) dry_run: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Of a rollout, by its id.
    Rollout(String, Ask),
    /// Engage the kill switch, or release it.
    Kill(bool),
    /// Stop the line, or let it go on.
    StopLine(bool),
}

/// What may be asked of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Start,
    Pause,
    Resume,
    Promote(Promotion),
    Abort,
    Acknowledge,
    Retry,
    Finish,
}

impl Ask {
    /// The word in the audit log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote(Promotion::Next) => "promote",
            Self::Promote(Promotion::SkipBake) => "promote-skip-bake",
            Self::Promote(Promotion::Full) => "promote-full",
            Self::Abort => "abort",
            Self::Acknowledge => "ack",
            Self::Retry => "retry",
            Self::Finish => "finish",
        }
    }
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

type Answer = Result<Value, Refused>;

/// A command that waits, and the way back.
pub(super) struct Pending {
    pub(super) command: Command,
    begun: Arc<AtomicBool>,
    /// From here on nobody waits for it, and it is not begun any more.
    until: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Pending {
    /// Answers. Whoever asked may be gone.
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// Where commands are given.
#[derive(Clone)]
pub(super) struct Commands(SyncSender<Pending>);

/// Where they are taken.
pub(super) struct CommandQueue {
    pending: Receiver<Pending>,
    /// So that it only waits when nobody is there to ask.
    _open: SyncSender<Pending>,
}

/// Both ends.
pub(super) fn queue() -> (Commands, CommandQueue) {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    (Commands(sender.clone()), CommandQueue { pending: receiver, _open: sender })
}

impl Commands {
    /// Gives a command and waits for its answer. One that is not begun within 10 s is not done at all.
    pub(super) async fn send(&self, command: Command) -> Answer {
        let busy = |why: &str| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why);
        let begun = Arc::new(AtomicBool::new(false));
        let (answer, mut answered) = oneshot::channel();
        let until = Instant::now() + PATIENCE;
        self.0.try_send(Pending { command, begun: Arc::clone(&begun), until, answer }).map_err(|error| {
            match error {
                TrySendError::Full(_) => busy("as many commands wait as may; nothing was done"),
                TrySendError::Disconnected(_) => busy("the process is stopping; nothing was done"),
            }
        })?;
        let gone =
            || busy("the process is stopping; whether it was done, `status` tells after the next start");
        match tokio::time::timeout(PATIENCE, &mut answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
            // Whoever is first to set it decides.
            Err(_) if !begun.swap(true, Ordering::AcqRel) => {
                Err(busy("it waited for 10 s; nothing was done"))
            }
            Err(_) => match tokio::time::timeout(PATIENCE, answered).await {
                Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
                Err(_) => {
                    let why = "it is under way, and takes longer than 10 s; `status` tells what comes of it";
                    Err(Refused::new(StatusCode::GATEWAY_TIMEOUT, why))
                }
            },
        }
    }
}

impl CommandQueue {
    /// The next command that somebody still waits for, within `patience`.
    pub(super) fn next(&self, patience: Duration) -> Option<Pending> {
        let pending = self.pending.recv_timeout(patience).ok()?;
        let waits = Instant::now() < pending.until && !pending.answer.is_closed();
        (waits && !pending.begun.swap(true, Ordering::AcqRel)).then_some(pending)
    }
}
