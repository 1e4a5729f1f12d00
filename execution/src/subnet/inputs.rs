//! What an executor does with one canister in a round.

use std::sync::Arc;
use std::task::Poll;

use crate::answer::Output;
use crate::report::Executed;
use crate::run::{Batching, Env, Installed, MESSAGE_OVERHEAD, Step, Stepped, begin};
use crate::state::{CanisterState, PausedMessage, Shared};
use crate::{BackendError, Instructions};

/// What an executor gets.
pub(super) struct Job {
    pub(super) canister: Shared<CanisterState>,
    pub(super) budget: Instructions,
    /// The message in hand, if it has begun.
    pub(super) step: Option<Step>,
    /// Whether each message is run by itself: a batch that fails doesn't tell which of its messages it failed on.
    pub(super) alone: bool,
}

/// What it gives back.
pub(super) struct Done {
    pub(super) canister: Shared<CanisterState>,
    pub(super) outputs: Vec<Output>,
    pub(super) executed: Vec<Executed>,
    pub(super) budget: Instructions,
    /// Instructions used, in this round alone.
    pub(super) used: Instructions,
    /// The message in hand, if its slice is over.
    pub(super) step: Option<Step>,
    pub(super) install: Option<Installed>,
    pub(super) failure: Option<BackendError>,
    /// Whether a batch failed around the guest, whatever came of its messages alone.
    pub(super) batch_failed: bool,
}

/// Runs the message in hand, then a canister's inputs one after another within its budget. Each is wholly done or not
/// at all; one that uses up a slice is the last.
pub(super) fn run_inputs(env: &Arc<Env>, job: Job) -> Done {
    if job.alone || env.backend.batch_max() == 1 {
        return run_each(env, job, |_| {});
    }
    let batching = Arc::new(Batching::new(Arc::clone(&env.backend)));
    let batches = Arc::new(Env { backend: Arc::clone(&batching) as _, ..(**env).clone() });
    let mut done = run_each(&batches, job, |done| batching.look_ahead(env, &done.canister, done.budget));
    // Not when a paused message ends, which holds on to its backend.
    done.batch_failed = batching.end();
    done
}

/// Does so, and tells `before_next` before each message that begins.
fn run_each(env: &Arc<Env>, job: Job, before_next: impl Fn(&Done)) -> Done {
    let Job { canister, budget, mut step, alone: _ } = job;
    let mut done = Done {
        canister,
        outputs: Vec::new(),
        executed: Vec::new(),
        budget,
        used: 0,
        step: None,
        install: None,
        failure: None,
        batch_failed: false,
    };
    loop {
        let advanced = match &done.canister.paused {
            Some(message) => Some(go_on(env, &done.canister, message, step.take())),
            None if done.budget > 0 => {
                before_next(&done);
                start(env, &done.canister)
            }
            None => None,
        };
        match advanced {
            Some(Advanced::Done(stepped, slices)) => {
                let in_hand = done.canister.paused.is_some();
                done.add(env, stepped, slices);
                if in_hand {
                    // Whoever waited to manage the canister comes before its next message.
                    break;
                }
            }
            Some(Advanced::Paused(canister, step)) => {
                done.canister = Shared::new(canister);
                done.used = done.used.saturating_add(env.config.limits.slice_instructions);
                done.step = Some(step);
                break;
            }
            Some(Advanced::Failed(error)) => {
                done.failure = Some(error);
                break;
            }
            None => break,
        }
    }
    done
}

impl Done {
    /// Adds what a message did. What its earlier `slices` used was on the account of other rounds.
    fn add(&mut self, env: &Env, mut stepped: Stepped, slices: u32) {
        let earlier = env.config.limits.slice_instructions.saturating_mul(slices.into());
        let used = stepped.instructions.saturating_sub(earlier).saturating_add(MESSAGE_OVERHEAD);
        self.budget = self.budget.saturating_sub(used);
        self.used = self.used.saturating_add(used);
        if env.message_roots && !stepped.executed.is_empty() {
            let root = crate::root::canister_root(&stepped.canister);
            stepped.executed.iter_mut().for_each(|executed| executed.state_root = Some(root));
        }
        self.canister = Shared::new(stepped.canister);
        if let Some((observer, last)) = env.observer.as_ref().zip(stepped.executed.last()) {
            observer.committed(last.invocation);
        }
        self.outputs.append(&mut stepped.outputs);
        self.executed.append(&mut stepped.executed);
        self.install = self.install.or(stepped.install);
    }
}

/// How far a message came.
enum Advanced {
    /// It is done; before, it had used up so many slices.
    Done(Stepped, u32),
    /// It has used up a slice; the canister has it in hand.
    Paused(CanisterState, Step),
    /// The canister is as it was.
    Failed(BackendError),
}

/// Begins with the next input; `None` when there is none.
fn start(env: &Arc<Env>, canister: &CanisterState) -> Option<Advanced> {
    let mut taken = canister.clone();
    let input = taken.take_input()?;
    let mut step = begin(Arc::clone(env), taken, input.clone(), 0);
    Some(match step.go_on() {
        Poll::Ready(Ok(stepped)) => Advanced::Done(stepped, 0),
        Poll::Ready(Err(error)) => Advanced::Failed(error),
        Poll::Pending => {
            let mut canister = canister.clone();
            // The same one again.
            let _taken = canister.take_input();
            let start = env.start(&canister);
            canister.paused = Some(PausedMessage { input, slices: 1, start });
            Advanced::Paused(canister, step)
        }
    })
}

/// Goes on with the message in hand; `step` if it has begun.
fn go_on(env: &Arc<Env>, canister: &CanisterState, message: &PausedMessage, step: Option<Step>) -> Advanced {
    let mut step = step.unwrap_or_else(|| {
        let (env, canister) = env.at(&message.start, canister);
        begin(env, canister, message.input.clone(), message.slices)
    });
    match step.go_on() {
        Poll::Ready(Ok(mut stepped)) => {
            stepped.merge(canister);
            Advanced::Done(stepped, message.slices)
        }
        Poll::Ready(Err(error)) => Advanced::Failed(error),
        Poll::Pending => {
            let paused = PausedMessage { slices: message.slices.saturating_add(1), ..message.clone() };
            Advanced::Paused(CanisterState { paused: Some(paused), ..canister.clone() }, step)
        }
    }
}
