//! A canister's queue in batches. What the messages behind the next one will ask of the backend is worked out ahead and
//! given to it with the next one, so that it may run them without being asked again.
//!
//! Nothing here changes a result. Each message goes the way that it goes alone: through the gate, `check` and `apply`.
//! Only when it asks the backend, the answer is there already, provided that what it asks is to the last field what was
//! expected. If it isn't, the rest of the batch is discarded.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use crate::run::{Env, MESSAGE_OVERHEAD, begin};
use crate::state::{CanisterMessage, CanisterState, Input};
use crate::{
    Backend, BackendError, Batch, Effects, Ending, Execution, Instructions, Invocation, MemoryDelta, Outcome,
    Snapshot,
};

/// The backend of one canister's turn in a round.
pub(crate) struct Batching {
    backend: Arc<dyn Backend>,
    ahead: Mutex<Ahead>,
}

struct Ahead {
    /// What will be asked next, in order, as far as is known now.
    expected: VecDeque<Invocation>,
    /// Those of them that have been run.
    batch: Option<Box<dyn Batch>>,
    /// Messages of the next look ahead; 0: there is none any more.
    most: usize,
    /// Messages that were what they were expected to be, since the last one.
    foreseen: usize,
    /// Whether a batch failed around the guest.
    failed: bool,
}

impl Batching {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        let most = backend.batch_max();
        let ahead = Ahead { expected: VecDeque::new(), batch: None, most, foreseen: 0, failed: false };
        Self { backend, ahead: Mutex::new(ahead) }
    }

    /// Looks ahead at the queue of `canister`, which has `budget` left, unless there is still something expected.
    pub(crate) fn look_ahead(&self, env: &Env, canister: &CanisterState, budget: Instructions) {
        let mut ahead = self.lock();
        if ahead.most == 0 || !ahead.expected.is_empty() {
            return;
        }
        // Twice as far as the last one came: messages behind which nothing can be foretold cost little.
        let most = match ahead.foreseen {
            0 => ahead.most,
            foreseen => foreseen.saturating_mul(2),
        };
        let affordable = usize::try_from(budget / MESSAGE_OVERHEAD).unwrap_or(usize::MAX);
        let most = most.min(self.backend.batch_max()).min(affordable.saturating_add(1));
        let expected = expected(env, canister, most);
        (ahead.most, ahead.foreseen) = (most, 0);
        if expected.len() > 1 {
            ahead.expected = expected.into();
        } else {
            // The next message alone is what can be foretold.
            ahead.foreseen = 1;
        }
    }

    /// Expects nothing any more, and discards what has been run ahead. Whether a batch failed around the guest.
    pub(crate) fn end(&self) -> bool {
        let mut ahead = self.lock();
        ahead.end();
        ahead.failed
    }

    fn lock(&self) -> MutexGuard<'_, Ahead> {
        // A canister's turn has one thread; one that has panicked asks no more.
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Batching {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let mut ahead = self.lock();
        match ahead.take(&*self.backend, snapshot, invocation) {
            Some(Ok(execution)) => {
                ahead.foreseen += 1;
                if let Execution::Finished(outcome) = &execution {
                    ahead.charge(snapshot.module.interface.memory64, outcome.instructions);
                }
                return Ok(execution);
            }
            // Which of its messages it failed on isn't told: this one may be none of it.
            Some(Err(error)) => {
                tracing::debug!(%error, "a batch failed, its messages run alone");
                ahead.failed = true;
                ahead.most = 0;
            }
            None => {}
        }
        // Before the backend is asked for anything else: what it holds for the batch is given back.
        ahead.end();
        self.backend.execute(snapshot, invocation)
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.backend.query(snapshot, invocation, overlay)
    }

    fn relieve(&self, short: &BackendError) -> bool {
        self.backend.relieve(short)
    }
}

impl Ahead {
    /// The execution of what is asked, with a batch or out of one; `None`: it wasn't expected, or is all that was.
    fn take(
        &mut self,
        backend: &dyn Backend,
        snapshot: &Snapshot,
        invocation: &Invocation,
    ) -> Option<Result<Execution, BackendError>> {
        self.expected.pop_front().filter(|expected| expected.same_run(invocation))?;
        if let Some(batch) = self.batch.as_mut().filter(|batch| batch.left().executions > 0) {
            return batch.next(snapshot, invocation);
        }
        self.batch = None;
        if self.expected.is_empty() {
            // No batch: whatever it fails with is its own.
            return None;
        }
        let executed = backend.execute_batch(snapshot, invocation, self.expected.make_contiguous());
        Some(executed.map(|(execution, batch)| {
            self.batch = batch;
            execution
        }))
    }

    /// A message has used so many instructions: that was not foreseen.
    fn charge(&mut self, memory64: bool, instructions: Instructions) {
        self.expected.iter_mut().for_each(|expected| expected.charge(memory64, instructions));
    }

    fn end(&mut self) {
        self.expected.clear();
        if self.batch.take().is_some_and(|batch| batch.left().executions > 0) {
            // Nobody pays for what is discarded: it happens once in a turn.
            self.most = 0;
        }
    }
}

/// What the first `most` messages in the queue of `canister` will ask of the backend, by [`Backend::execute_batch`]'s
/// rule for what is expected. Nothing, if one message is all that waits.
fn expected(env: &Env, canister: &CanisterState, most: usize) -> Vec<Invocation> {
    let asked = Arc::new(Asked::default());
    let env = Arc::new(Env {
        backend: Arc::clone(&asked) as Arc<dyn Backend>,
        invocations: Arc::default(),
        observer: None,
        ..env.clone()
    });
    let mut canister = canister.clone();
    let mut answering = BTreeSet::new();
    for place in 0..most {
        let Some(input) = canister.take_input() else { break };
        if place == 0 && canister.inputs.is_empty() {
            break;
        }
        // What follows an install runs other code.
        if matches!(input, Input::Install(_)) {
            break;
        }
        // A second callback of a call context sees the instructions of the first, and whether that answered.
        if context(&canister, &input).is_some_and(|context| !answering.insert(context)) {
            break;
        }
        let Poll::Ready(Ok(stepped)) = begin(Arc::clone(&env), canister, input, 0).go_on() else { break };
        canister = stepped.canister;
    }
    asked.take()
}

/// The call context that `input` goes on with, if it is a response.
fn context(canister: &CanisterState, input: &Input) -> Option<u64> {
    match input {
        Input::Canister(CanisterMessage::Response(response)) => {
            Some(canister.calls.callbacks.get(&response.callback)?.context)
        }
        Input::Canister(CanisterMessage::Request(_))
        | Input::Ingress(_)
        | Input::Task(_)
        | Input::Install(_) => None,
    }
}

/// Notes what it is asked, and answers that nothing happened.
#[derive(Default)]
struct Asked(Mutex<Vec<Invocation>>);

impl Asked {
    fn take(&self) -> Vec<Invocation> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Backend for Asked {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(invocation.clone());
        Ok(Execution::Finished(Outcome {
            ending: Ending::Returned,
            instructions: 0,
            heap_pages_dirty: 0,
            stable_pages_dirty: 0,
            logs: Vec::new(),
            effects: Some(Effects {
                memory: MemoryDelta::default(),
                globals: Arc::clone(&snapshot.globals),
                ..Effects::default()
            }),
        }))
    }

    fn query(
        &self,
        _snapshot: &Snapshot,
        _invocation: &Invocation,
        _overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        Err(BackendError::Engine("a queue holds no queries".into()))
    }
}
