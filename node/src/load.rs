//! The open loop: message number i is due at start + i / rate, whether or not earlier ones are answered.

mod workload;

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use execution::{Failure, Ingress, IngressStatus, MessageId, Nanoseconds, Principal, RoundReport, UserError};
use rollout::{Arm, Mode, Recorder};

use crate::drun::InstallMode;
use crate::log::{Admission, Entry};
use crate::observation::{Answer, Observation};
use crate::{Node, management};
use workload::Workload;
pub(crate) use workload::{Counts, SHIPPED};

/// Messages that one round takes at most.
const MESSAGES_PER_ROUND_MAX: u64 = 256;
/// Rounds in a row in which the node may fail to run a canister before the load is given up.
const FAILED_ROUNDS_MAX: u32 = 3;
/// Rounds that creating or installing a canister takes at most.
const SET_UP_ROUNDS_MAX: u32 = 100;

/// What a load is put on: a node by itself, or several in step.
pub(crate) trait Target {
    /// The node whose answers count.
    fn node(&self) -> &Node;

    /// Takes a message in for the next round.
    ///
    /// # Errors
    /// It is refused; nothing is changed then.
    fn submit(&mut self, message: Ingress) -> Result<MessageId, UserError>;

    /// Runs a round.
    ///
    /// # Errors
    /// No further round can be run.
    fn round(&mut self, time: Nanoseconds, seed: [u8; 32]) -> Result<RoundReport, String>;
}

impl Target for Node {
    fn node(&self) -> &Node {
        self
    }

    fn submit(&mut self, message: Ingress) -> Result<MessageId, UserError> {
        Self::submit(self, message)
    }

    fn round(&mut self, time: Nanoseconds, seed: [u8; 32]) -> Result<RoundReport, String> {
        Ok(Self::round(self, time, seed))
    }
}

/// The load and its measurements.
pub(crate) struct Load {
    books: Books,
    rate: u32,
    messages: u64,
    /// Messages sent before the clock of the load started.
    first: u64,
    started: Instant,
    ended: Option<Instant>,
    last_answer: Instant,
    worst_gap: Duration,
    answers: Recorder,
    more: bool,
}

/// What was sent and answered.
struct Books {
    workload: Workload,
    sent: u64,
    answered: u64,
    waiting: HashMap<MessageId, Waiting>,
}

struct Waiting {
    index: u64,
    /// `None`: sent before a restart.
    due: Option<Instant>,
    mode: Option<Mode>,
}

/// Times and seeds of rounds. They are part of the ordered input, so they are recorded with it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Nanoseconds,
}

impl Clock {
    /// A clock that never shows a time before `last`.
    pub(crate) fn after(last: Nanoseconds) -> Self {
        Self { last }
    }

    /// The wall clock's time, or a nanosecond after the last one where it was set back, and a seed.
    pub(crate) fn next(&mut self) -> (Nanoseconds, [u8; 32]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(self.last + 1);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.last.to_be_bytes());
        (self.last, seed)
    }
}

impl Books {
    fn open(workload: Workload) -> Self {
        Self { workload, sent: 0, answered: 0, waiting: HashMap::new() }
    }

    /// The next message.
    fn next(&self) -> Ingress {
        let message = self.workload.message(self.sent);
        Ingress {
            sender: Principal::anonymous(),
            receiver: message.receiver,
            method: message.method.to_owned(),
            arg: message.arg.into(),
            nonce: self.sent.to_be_bytes().to_vec(),
        }
    }

    /// The next message was taken in.
    fn sent(&mut self, id: MessageId, due: Option<Instant>) {
        self.workload.sent(self.sent);
        self.waiting.insert(id, Waiting { index: self.sent, due, mode: None });
        self.sent += 1;
    }
}

/// A load as far as a log tells of it.
#[derive(Default)]
pub(crate) struct Past {
    books: Option<Books>,
    /// Users' messages in the log so far.
    messages: u64,
    /// The load's among them that have no answer, by number.
    waiting: HashMap<u64, MessageId>,
}

impl Past {
    /// Follows the log: `entry` comes next, and `node` is where it was before.
    ///
    /// # Errors
    /// A canister can't be asked for its count.
    pub(crate) fn follow(&mut self, node: &Node, entry: &Entry<'_>) -> Result<(), String> {
        match entry {
            Entry::Submit { message, admission } => {
                self.messages += 1;
                if self.books.is_none() && message.receiver != Principal::management_canister() {
                    let canisters = installed(node);
                    // Other messages than the load's may come before its canisters are there.
                    let Some(canisters) = canisters else { return Ok(()) };
                    self.books = Some(Books::open(open(node, canisters)?));
                }
                let (Some(books), Admission::Taken) = (&mut self.books, admission) else { return Ok(()) };
                let ingress = Ingress::from(message.clone());
                if ingress == books.next() {
                    let id = ingress.id();
                    books.sent(id, None);
                    self.waiting.insert(self.messages, id);
                }
            }
            Entry::Observed(Observation::Answered { message, answer }) => {
                let Some((id, books)) = self.waiting.remove(message).zip(self.books.as_mut()) else {
                    return Ok(());
                };
                if let Some(waiting) = books.waiting.remove(&id) {
                    books.answered += 1;
                    let reply = match answer {
                        Answer::Reply(reply) => Some(reply.start.as_slice()),
                        Answer::Rejected(_) => None,
                    };
                    books.workload.answered(waiting.index, reply);
                }
            }
            Entry::Head(_)
            | Entry::Create { .. }
            | Entry::Query { .. }
            | Entry::Round { .. }
            | Entry::Observed(_)
            | Entry::End { .. } => {}
        }
        Ok(())
    }
}

/// The load's canisters, if all are there and have code.
fn installed(node: &Node) -> Option<Vec<Principal>> {
    let canisters: Vec<_> = node.state().canisters.values().take(SHIPPED.len()).collect();
    let whole = canisters.len() == SHIPPED.len() && canisters.iter().all(|canister| canister.code.is_some());
    whole.then(|| canisters.iter().map(|canister| canister.id).collect())
}

fn open(node: &Node, canisters: Vec<Principal>) -> Result<Workload, String> {
    Workload::new(canisters, &|canister, method| read(node, canister, method))
}

impl Load {
    /// Creates and installs the canisters, and opens the books. Tells `goes_on` of each; false ends it.
    pub(crate) fn set_up(
        target: &mut impl Target,
        clock: &mut Clock,
        rate: u32,
        messages: u64,
        goes_on: impl FnMut(&str) -> bool,
    ) -> Result<Self, String> {
        Self::resume(target, clock, Past::default(), (rate, messages), goes_on)
    }

    /// Goes on where the log that `past` followed ends. What of the set-up isn't done is done.
    pub(crate) fn resume(
        target: &mut impl Target,
        clock: &mut Clock,
        past: Past,
        (rate, messages): (u32, u64),
        goes_on: impl FnMut(&str) -> bool,
    ) -> Result<Self, String> {
        let books = match past.books {
            Some(books) => books,
            None => {
                let canisters = set_up(target, clock, goes_on)?;
                Books::open(open(target.node(), canisters)?)
            }
        };
        let now = Instant::now();
        Ok(Self {
            first: books.sent,
            books,
            rate,
            messages,
            started: now,
            ended: None,
            last_answer: now,
            worst_gap: Duration::ZERO,
            answers: Recorder::new(),
            more: false,
        })
    }

    /// Starts the clock of the load.
    pub(crate) fn start(&mut self) {
        self.started = Instant::now();
        self.last_answer = self.started;
    }

    /// Messages taken by the node so far.
    pub(crate) fn sent(&self) -> u64 {
        self.books.sent
    }

    /// Messages answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.books.answered
    }

    /// Whether messages wait for their answer.
    pub(crate) fn waits(&self) -> bool {
        !self.books.waiting.is_empty()
    }

    /// Whether all messages are sent and answered.
    pub(crate) fn is_over(&self) -> bool {
        self.sent() == self.messages && !self.waits()
    }

    /// Waits for something to do, and runs a round with all messages that are due.
    pub(crate) fn step(
        &mut self,
        target: &mut impl Target,
        clock: &mut Clock,
    ) -> Result<RoundReport, String> {
        if !self.more && !self.waits() && self.sent() < self.messages {
            std::thread::sleep(self.next_due().saturating_duration_since(Instant::now()));
        }
        self.offer(target)?;
        self.round(target, clock)
    }

    /// Hands all messages to the node that are due.
    pub(crate) fn offer(&mut self, target: &mut impl Target) -> Result<(), String> {
        let now = Instant::now();
        for _ in 0..MESSAGES_PER_ROUND_MAX {
            let due = self.next_due();
            if self.sent() == self.messages || due > now || !self.submit(target, due)? {
                break;
            }
        }
        Ok(())
    }

    /// Runs rounds until all that was sent is answered, or the time is up.
    pub(crate) fn drain(
        &mut self,
        target: &mut impl Target,
        clock: &mut Clock,
        patience: Duration,
    ) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        while self.waits() && Instant::now() < deadline {
            self.round(target, clock)?;
        }
        self.ended = Some(self.last_answer);
        Ok(())
    }

    /// When the next message is due.
    pub(crate) fn next_due(&self) -> Instant {
        let (index, rate) = (self.sent() - self.first, u64::from(self.rate));
        self.started + Duration::from_secs(index / rate) + Duration::from_secs(index % rate) / self.rate
    }

    /// Hands the next message to the node; false when a queue is full: it goes first next time.
    fn submit(&mut self, target: &mut impl Target, due: Instant) -> Result<bool, String> {
        match target.submit(self.books.next()) {
            Ok(id) => {
                self.books.sent(id, Some(due));
                Ok(true)
            }
            Err(error) if error.code == execution::ErrorCode::QUEUE_FULL => Ok(false),
            Err(error) => Err(format!("message {} was refused: {error}", self.sent())),
        }
    }

    /// Runs a round and takes the answers that it brought.
    pub(crate) fn round(
        &mut self,
        target: &mut impl Target,
        clock: &mut Clock,
    ) -> Result<RoundReport, String> {
        let (time, seed) = clock.next();
        let report = target.round(time, seed)?;
        if let Some(failure) = report.failures.iter().find(|failure| failure.rounds >= FAILED_ROUNDS_MAX) {
            return Err(cannot_run(failure));
        }
        self.more = report.more;
        let node = target.node();
        for executed in &report.executed {
            if let Some(waiting) = executed.ingress.as_ref().and_then(|id| self.books.waiting.get_mut(id)) {
                let measured = node.measured(executed.invocation);
                waiting.mode = waiting.mode.or(measured.map(|measured| measured.mode));
            }
        }
        self.collect(node);
        Ok(report)
    }

    fn collect(&mut self, node: &Node) {
        let now = Instant::now();
        let answered_before = self.answered();
        let Self { books: Books { workload, answered, waiting, .. }, answers, .. } = self;
        waiting.retain(|id, message| {
            match node.status(id) {
                IngressStatus::Replied(reply) => workload.answered(message.index, Some(&reply)),
                IngressStatus::Rejected(_) => workload.answered(message.index, None),
                // An answer is there until the next round at least.
                IngressStatus::Unknown
                | IngressStatus::Received
                | IngressStatus::Processing
                | IngressStatus::Done => return true,
            }
            *answered += 1;
            if let (Some(mode), Some(due)) = (message.mode, message.due) {
                answers.record(Arm::committed(mode), "update", now.saturating_duration_since(due));
            }
            false
        });
        if self.answered() > answered_before {
            self.worst_gap = self.worst_gap.max(now.saturating_duration_since(self.last_answer));
            self.last_answer = now;
        }
    }

    /// Closes the books.
    pub(crate) fn counts(&self, node: &Node) -> Result<Counts, String> {
        self.books.workload.close(&|canister, method| read(node, canister, method))
    }

    /// Longest time without any answer.
    pub(crate) fn worst_gap(&self) -> Duration {
        self.worst_gap
    }

    /// Seconds from the first message's time to the last answer.
    pub(crate) fn seconds(&self) -> f64 {
        self.ended.unwrap_or_else(Instant::now).saturating_duration_since(self.started).as_secs_f64()
    }

    /// Answer times from the intended start, by the mode that ran the message.
    pub(crate) fn answers(&self) -> &Recorder {
        &self.answers
    }
}

/// Creates and installs the canisters that aren't there yet. Messages of an earlier try that was cut short are the same
/// ones, so that nothing is made twice.
fn set_up(
    target: &mut impl Target,
    clock: &mut Clock,
    mut goes_on: impl FnMut(&str) -> bool,
) -> Result<Vec<Principal>, String> {
    target.node().compile_ahead(&SHIPPED.map(|shipped| shipped.module));
    let mut canisters = Vec::with_capacity(SHIPPED.len());
    for (index, shipped) in SHIPPED.iter().enumerate() {
        let nonce = index as u64;
        let there = target.node().state().canisters.values().nth(index);
        let canister = match there.map(|canister| canister.id) {
            Some(canister) => canister,
            None => {
                let arg = management::provisional_create();
                let created = manage(target, clock, nonce, "provisional_create_canister_with_cycles", arg)?;
                management::created_canister(&created)
                    .ok_or_else(|| "the reply of create isn't a canister id".to_owned())?
            }
        };
        if target.node().state().canister(&canister).is_none_or(|canister| canister.code.is_none()) {
            let arg = management::install_code(
                InstallMode::Install,
                canister,
                shipped.module,
                &(shipped.init)(),
                false,
            );
            manage(target, clock, nonce, "install_code", arg)
                .map_err(|error| format!("{}: {error}", shipped.name))?;
        }
        if !goes_on(&format!("{canister}  {}", shipped.name)) {
            return Err("stopped before the first message".to_owned());
        }
        canisters.push(canister);
    }
    Ok(canisters)
}

/// Sends a message to the management canister and runs rounds until it is answered.
fn manage(
    target: &mut impl Target,
    clock: &mut Clock,
    nonce: u64,
    method: &str,
    arg: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let ingress = Ingress {
        sender: Principal::anonymous(),
        receiver: Principal::management_canister(),
        method: method.to_owned(),
        arg: arg.into(),
        nonce: nonce.to_be_bytes().to_vec(),
    };
    let message = target.submit(ingress).map_err(|error| error.to_string())?;
    for _ in 0..SET_UP_ROUNDS_MAX {
        let (time, seed) = clock.next();
        let report = target.round(time, seed)?;
        match target.node().status(&message) {
            IngressStatus::Replied(reply) => return Ok(reply.to_vec()),
            IngressStatus::Rejected(error) => return Err(error.to_string()),
            IngressStatus::Unknown
            | IngressStatus::Received
            | IngressStatus::Processing
            | IngressStatus::Done => {}
        }
        if let Some(failure) = report.failures.first() {
            return Err(cannot_run(failure));
        }
    }
    Err(format!("`{method}` was not answered within {SET_UP_ROUNDS_MAX} rounds"))
}

fn cannot_run(failure: &Failure) -> String {
    format!("the node could not run canister {}: {}", failure.canister, failure.error)
}

/// Asks a canister for a number.
fn read(node: &Node, canister: Principal, method: &str) -> Result<Vec<u8>, String> {
    node.query(Principal::anonymous(), canister, method, b"DIDL\0\0")
        .result
        .map_err(|error| error.to_string())
}
