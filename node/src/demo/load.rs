//! The open loop: message number i is due at start + i / rate, whether or not earlier ones are answered.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use execution::{Failure, Ingress, IngressStatus, MessageId, Nanoseconds, Principal, RoundReport};
use rollout::{Arm, Mode, Recorder};

use super::workload::{Counts, SHIPPED, Workload};
use crate::drun::InstallMode;
use crate::{Node, management};

/// Messages that one round takes at most.
const MESSAGES_PER_ROUND_MAX: u64 = 256;
/// Rounds in a row in which the node may fail to run a canister before the demo is given up.
const FAILED_ROUNDS_MAX: u32 = 3;
/// Rounds that creating or installing a canister takes at most.
const SET_UP_ROUNDS_MAX: u32 = 100;

/// The load and its measurements.
pub(super) struct Load {
    clock: Clock,
    workload: Workload,
    rate: u32,
    messages: u64,
    started: Instant,
    ended: Option<Instant>,
    sent: u64,
    answered: u64,
    waiting: HashMap<MessageId, Waiting>,
    last_answer: Instant,
    worst_gap: Duration,
    answers: Recorder,
    more: bool,
}

struct Waiting {
    index: u64,
    due: Instant,
    mode: Option<Mode>,
}

/// Times and seeds of rounds. They are part of the ordered input, so they are recorded with it.
struct Clock {
    last: Nanoseconds,
}

impl Clock {
    fn next(&mut self) -> (Nanoseconds, [u8; 32]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(self.last + 1);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.last.to_be_bytes());
        (self.last, seed)
    }
}

impl Load {
    /// Creates and installs the canisters, and opens the books. Tells `goes_on` of each; false ends it.
    pub(super) fn set_up(
        node: &mut Node,
        rate: u32,
        messages: u64,
        mut goes_on: impl FnMut(&str) -> bool,
    ) -> Result<Self, String> {
        node.compile_ahead(&SHIPPED.map(|shipped| shipped.module));
        let mut clock = Clock { last: 0 };
        let mut canisters = Vec::with_capacity(SHIPPED.len());
        for (index, shipped) in SHIPPED.iter().enumerate() {
            let nonce = index as u64;
            let created = manage(
                node,
                &mut clock,
                nonce,
                "provisional_create_canister_with_cycles",
                management::provisional_create(),
            )?;
            let canister = management::created_canister(&created)
                .ok_or_else(|| "the reply of create isn't a canister id".to_owned())?;
            let arg = management::install_code(
                InstallMode::Install,
                canister,
                shipped.module,
                &(shipped.init)(),
                false,
            );
            manage(node, &mut clock, nonce, "install_code", arg)
                .map_err(|error| format!("{}: {error}", shipped.name))?;
            if !goes_on(&format!("{canister}  {}", shipped.name)) {
                return Err("stopped before the first message".to_owned());
            }
            canisters.push(canister);
        }
        let workload = Workload::new(canisters, &|canister, method| read(node, canister, method))?;
        let now = Instant::now();
        Ok(Self {
            clock,
            workload,
            rate,
            messages,
            started: now,
            ended: None,
            sent: 0,
            answered: 0,
            waiting: HashMap::new(),
            last_answer: now,
            worst_gap: Duration::ZERO,
            answers: Recorder::new(),
            more: false,
        })
    }

    /// Starts the clock of the load.
    pub(super) fn start(&mut self) {
        self.started = Instant::now();
        self.last_answer = self.started;
    }

    /// Messages taken by the node so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// Whether all messages are sent and answered.
    pub(super) fn is_over(&self) -> bool {
        self.sent == self.messages && self.waiting.is_empty()
    }

    /// Waits for something to do, and runs a round with all messages that are due.
    pub(super) fn step(&mut self, node: &mut Node) -> Result<RoundReport, String> {
        if !self.more && self.waiting.is_empty() && self.sent < self.messages {
            std::thread::sleep(self.due(self.sent).saturating_duration_since(Instant::now()));
        }
        let now = Instant::now();
        for _ in 0..MESSAGES_PER_ROUND_MAX {
            let due = self.due(self.sent);
            if self.sent == self.messages || due > now || !self.submit(node, due)? {
                break;
            }
        }
        self.round(node)
    }

    /// Runs rounds until all that was sent is answered, or the time is up.
    pub(super) fn drain(&mut self, node: &mut Node, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        while !self.waiting.is_empty() && Instant::now() < deadline {
            self.round(node)?;
        }
        self.ended = Some(self.last_answer);
        Ok(())
    }

    fn due(&self, index: u64) -> Instant {
        self.started + Duration::from_nanos(index * 1_000_000_000 / u64::from(self.rate))
    }

    /// Hands the next message to the node; false when a queue is full: it goes first next time.
    fn submit(&mut self, node: &mut Node, due: Instant) -> Result<bool, String> {
        let index = self.sent;
        let message = self.workload.message(index);
        let ingress = Ingress {
            sender: Principal::anonymous(),
            receiver: message.receiver,
            method: message.method.to_owned(),
            arg: message.arg.into(),
            nonce: index.to_be_bytes().to_vec(),
        };
        match node.submit(ingress) {
            Ok(id) => {
                self.workload.sent(index);
                self.waiting.insert(id, Waiting { index, due, mode: None });
                self.sent += 1;
                Ok(true)
            }
            Err(error) if error.code == execution::ErrorCode::QUEUE_FULL => Ok(false),
            Err(error) => Err(format!("message {index} was refused: {error}")),
        }
    }

    fn round(&mut self, node: &mut Node) -> Result<RoundReport, String> {
        let (time, seed) = self.clock.next();
        let report = node.round(time, seed);
        if let Some(failure) = report.failures.iter().find(|failure| failure.rounds >= FAILED_ROUNDS_MAX) {
            return Err(cannot_run(failure));
        }
        self.more = report.more;
        for executed in &report.executed {
            if let Some(waiting) = executed.ingress.as_ref().and_then(|id| self.waiting.get_mut(id)) {
                let measured = node.measured(executed.invocation);
                waiting.mode = waiting.mode.or(measured.map(|measured| measured.mode));
            }
        }
        self.collect(node);
        Ok(report)
    }

    /// Takes the answers that the round brought.
    fn collect(&mut self, node: &Node) {
        let now = Instant::now();
        let answered_before = self.answered;
        let Self { waiting, workload, answers, answered, .. } = self;
        waiting.retain(|id, message| {
            match node.status(id) {
                IngressStatus::Replied(reply) => workload.answered(message.index, Ok(&reply)),
                IngressStatus::Rejected(error) => workload.answered(message.index, Err(&error)),
                // An answer is there until the next round at least.
                IngressStatus::Unknown
                | IngressStatus::Received
                | IngressStatus::Processing
                | IngressStatus::Done => return true,
            }
            *answered += 1;
            if let Some(mode) = message.mode {
                let waited = now.saturating_duration_since(message.due);
                answers.record(Arm::committed(mode), "update", waited);
            }
            false
        });
        if self.answered > answered_before {
            self.worst_gap = self.worst_gap.max(now.saturating_duration_since(self.last_answer));
            self.last_answer = now;
        }
    }

    /// Closes the books.
    pub(super) fn counts(&self, node: &mut Node) -> Result<Counts, String> {
        self.workload.close(&|canister, method| read(node, canister, method))
    }

    /// Longest time without any answer.
    pub(super) fn worst_gap(&self) -> Duration {
        self.worst_gap
    }

    /// Seconds from the first message's time to the last answer.
    pub(super) fn seconds(&self) -> f64 {
        self.ended.unwrap_or_else(Instant::now).saturating_duration_since(self.started).as_secs_f64()
    }

    /// Answer times from the intended start, by the mode that ran the message.
    pub(super) fn answers(&self) -> &Recorder {
        &self.answers
    }
}

/// Sends a message to the management canister and runs rounds until it is answered.
fn manage(
    node: &mut Node,
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
    let message = node.submit(ingress).map_err(|error| error.to_string())?;
    for _ in 0..SET_UP_ROUNDS_MAX {
        let (time, seed) = clock.next();
        let report = node.round(time, seed);
        match node.status(&message) {
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
