//! A message as a future, and what comes of it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::answer::Output;
use crate::management;
use crate::report::Executed;
use crate::run::{Env, Staged, stop_when_idle};
use crate::state::{CanisterMessage, CanisterState, Input};
use crate::{BackendError, Cycles, Instructions};

/// A message that has begun. Pending between two slices; dropping it gives it up.
pub(crate) struct Step(Pin<Box<dyn Future<Output = Result<Stepped, BackendError>> + Send>>);

impl Step {
    /// Goes on until the message is done or has used up a slice.
    pub(crate) fn go_on(&mut self) -> Poll<Result<Stepped, BackendError>> {
        self.0.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

/// What came of an install.
#[derive(Clone, Copy)]
pub(crate) struct Installed {
    /// Whether there is new code.
    pub(crate) done: bool,
    /// Instructions used, compilation included.
    pub(crate) instructions: Instructions,
}

/// What a message did.
pub(crate) struct Stepped {
    /// The canister after it.
    pub(crate) canister: CanisterState,
    /// The balance that it started from.
    balance_before: Cycles,
    pub(crate) outputs: Vec<Output>,
    pub(crate) executed: Vec<Executed>,
    pub(crate) instructions: Instructions,
    /// If it was an install.
    pub(crate) install: Option<Installed>,
}

impl Stepped {
    /// Adds what became of the canister while it had the message in hand, as `now` has it: messages have come, and
    /// cycles have come or gone. Nothing else changes such a canister.
    pub(crate) fn merge(&mut self, now: &CanisterState) {
        let canister = &mut self.canister;
        canister.balance = canister.balance.saturating_add(now.balance).saturating_sub(self.balance_before);
        canister.inputs = now.inputs.clone();
    }
}

/// Begins with `input` on `canister`, from whose queues it has been taken. The first `slices_at_once` slices end
/// without a pause.
pub(crate) fn begin(env: Arc<Env>, canister: CanisterState, input: Input, slices_at_once: u32) -> Step {
    let balance_before = canister.balance;
    let mut staged = Staged::new(env, canister, slices_at_once);
    Step(Box::pin(async move {
        let install = staged.take(input).await?;
        if let Some((observer, message)) = staged.env.observer.as_ref().zip(staged.waiting) {
            observer.dropped(message);
        }
        stop_when_idle(&mut staged.canister, &mut staged.outputs);
        let Staged { canister, outputs, executed, instructions, .. } = staged;
        Ok(Stepped { canister, balance_before, outputs, executed, instructions, install })
    }))
}

impl Staged {
    /// Does all that an input asks for.
    async fn take(&mut self, input: Input) -> Result<Option<Installed>, BackendError> {
        match input {
            Input::Install(install) => return management::install(self, &install).await.map(Some),
            Input::Task(task) => self.task(task).await?,
            Input::Canister(CanisterMessage::Request(request)) => self.request(&request).await?,
            Input::Canister(CanisterMessage::Response(response)) => self.response(&response).await?,
            Input::Ingress(ingress) => self.ingress(&ingress).await?,
        }
        Ok(None)
    }
}

/// Pending once.
pub(super) fn pause() -> impl Future<Output = ()> {
    let mut paused = false;
    poll_fn(move |_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending })
}
