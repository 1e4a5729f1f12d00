//! The nodes of the subnet, in step: each runs every round, and all have to come to the same.

use std::sync::Arc;
use std::time::Duration;

use execution::{ErrorCode, Ingress, MessageId, Nanoseconds, RoundReport, UserError};

use super::signals::Stop;
use super::status::{Board, Committed, Phase};
use crate::Node;
use crate::load::Target;
use crate::log::AppendError;
use crate::observation::Observation;
use crate::recording::{Recorded, Recording};

/// First wait before a node tries again what it could not do; it doubles.
const PATIENCE_FIRST: Duration = Duration::from_millis(100);
/// Longest such wait.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// The nodes and their log.
pub(super) struct Nodes {
    /// The first one's answers and observations are those that count.
    nodes: Vec<Node>,
    log: Recording,
    log_bytes_max: u64,
    /// Submitted since the last round, with what became of each.
    submitted: Vec<(Ingress, Result<MessageId, UserError>)>,
    committed: Committed,
    board: Arc<Board>,
    stop: Arc<Stop>,
    /// While a node can't do what the others did: the phase before, and how long it waits before the next try.
    held: Option<(Phase, Duration)>,
    /// Why no further round is run.
    halted: Option<String>,
}

impl Nodes {
    pub(super) fn new(
        nodes: Vec<Node>,
        log: Recording,
        log_bytes_max: u64,
        board: Arc<Board>,
        stop: Arc<Stop>,
    ) -> Self {
        let mut nodes = Self {
            nodes,
            log,
            log_bytes_max,
            submitted: Vec::new(),
            committed: Committed::default(),
            board,
            stop,
            held: None,
            halted: None,
        };
        nodes.show();
        nodes
    }

    /// Whether messages wait for the next round.
    pub(super) fn has_submitted(&self) -> bool {
        !self.submitted.is_empty()
    }

    /// Whether the log is as large as it may be: no message is taken in and no round is to be run. The last round
    /// before may have passed the bound, by what it had to write.
    pub(super) fn is_full(&self) -> bool {
        self.log.recorded().bytes >= self.log_bytes_max
    }

    /// Whether no further round will be run.
    pub(super) fn is_halted(&self) -> bool {
        self.halted.is_some()
    }

    /// Ends the log, with its last record if all went `well`, and then the nodes with their workers.
    pub(super) fn finish(self, well: bool) -> Result<Recorded, String> {
        if !well {
            // Without its last record: what is in it ends with the last whole round.
            return Ok(self.log.recorded());
        }
        self.log.finish().map_err(|error| cannot_write(&error))
    }

    /// Shows what is committed.
    fn show(&mut self) {
        let recorded = self.log.recorded();
        self.committed = Committed {
            rounds: recorded.rounds,
            messages: recorded.messages,
            log_bytes: recorded.bytes,
            time: self.nodes[0].state().time,
            state_root: self.nodes[0].state_root(),
            certified_root: self.nodes[0].certified_root(),
            ..self.committed
        };
        self.board.set_committed(self.committed);
    }

    fn halt<T>(&mut self, why: String) -> Result<T, String> {
        tracing::error!("no further round is run: {why}");
        self.halted = Some(why.clone());
        Err(why)
    }

    /// Says why the round is held, and waits before the next try, each time twice as long.
    ///
    /// # Errors
    /// It is time to stop.
    fn hold(&mut self, why: String) -> Result<(), String> {
        tracing::warn!("{why}; the round is tried again");
        let (phase, patience) = self.held.take().unwrap_or_else(|| (self.board.phase(), PATIENCE_FIRST));
        self.board.set_phase(Phase::Held(why.clone()));
        if self.stop.wait_for(patience) {
            return Err(format!("{why}. Stopped before it could; nothing of the round is in the log"));
        }
        self.held = Some((phase, (patience * 2).min(PATIENCE_MAX)));
        Ok(())
    }

    /// The node could do it.
    fn release(&mut self) {
        if let Some((phase, _)) = self.held.take() {
            self.board.set_phase(phase);
        }
    }

    /// Runs the round on one node. One that can't run all of it is put back to where it was and tries again, in the mode
    /// that is in force then: skipping a canister would leave it with another state than its peers.
    fn run(
        &mut self,
        index: usize,
        time: Nanoseconds,
        seed: [u8; 32],
    ) -> Result<(RoundReport, Vec<Observation>), String> {
        let before = self.nodes[index].before();
        loop {
            let node = &mut self.nodes[index];
            let (report, observed) = node.observed_round(time, seed);
            let Some(failure) = report.failures.first() else {
                self.release();
                return Ok((report, observed));
            };
            let why =
                format!("node n{} can't run canister {}: {}", index + 1, failure.canister, failure.error);
            node.go_back(before.clone());
            self.hold(why)?;
        }
    }

    /// Compares all nodes with the first.
    fn compare(&mut self) -> Result<(), String> {
        let roots = |node: &mut Node| [node.state_root(), node.certified_root()];
        let first = roots(&mut self.nodes[0]);
        for index in 1..self.nodes.len() {
            let other = roots(&mut self.nodes[index]);
            for (what, first, other) in
                [("state", first[0], other[0]), ("certified state", first[1], other[1])]
            {
                if first != other {
                    return self.halt(format!(
                        "after round {} the root of the {what} is {} on node n1 and {} on node n{}; nothing of the round is in the log",
                        self.committed.rounds + 1,
                        hex::encode(first),
                        hex::encode(other),
                        index + 1
                    ));
                }
            }
        }
        Ok(())
    }

    /// Puts the round into the log, and waits until it is on the disk. Only then is anything of it acknowledged.
    fn commit(
        &mut self,
        time: Nanoseconds,
        seed: [u8; 32],
        observed: Vec<Observation>,
    ) -> Result<(), String> {
        for (message, result) in self.submitted.drain(..) {
            self.log.submit(&message, &result);
            match result {
                Ok(_) => self.committed.acknowledged += 1,
                Err(_) => self.committed.refused += 1,
            }
        }
        self.log.round(time, seed, observed);
        if let Err(error) = self.log.sync() {
            return self.halt(cannot_write(&error));
        }
        self.show();
        Ok(())
    }
}

fn cannot_write(error: &AppendError) -> String {
    format!("could not write the input log: {error}")
}

/// Whether a node could not say what the subnet says.
fn is_of_node(error: &UserError) -> bool {
    UserError::is_of_node(error.code, error.description.as_bytes())
}

impl Target for Nodes {
    fn node(&self) -> &Node {
        &self.nodes[0]
    }

    /// The first node decides, and the others have to agree.
    fn submit(&mut self, message: Ingress) -> Result<MessageId, UserError> {
        if self.is_full() {
            let text = format!("The input log has {} bytes, as many as it may", self.log.recorded().bytes);
            return Err(UserError::new(ErrorCode::INGRESS_HISTORY_FULL, text));
        }
        let result = self.nodes[0].submit(message.clone());
        if let Err(error) = &result
            && is_of_node(error)
        {
            // No decision of the subnet: the message never was there.
            self.nodes[0].forget_refused();
            return result;
        }
        for index in 1..self.nodes.len() {
            loop {
                let other = self.nodes[index].submit(message.clone());
                match &other {
                    Err(error) if is_of_node(error) => {
                        self.nodes[index].forget_refused();
                        let why =
                            format!("node n{} can't take a message in: {}", index + 1, error.description);
                        if let Err(why) = self.hold(why) {
                            self.halted = Some(why);
                            return result;
                        }
                    }
                    other if *other == result => {
                        self.release();
                        break;
                    }
                    other => {
                        let why = format!(
                            "node n{} says {other:?} to a message, and node n1 says {result:?}",
                            index + 1
                        );
                        let _: Result<(), _> = self.halt(why);
                        return result;
                    }
                }
            }
        }
        self.submitted.push((message, result.clone()));
        result
    }

    fn round(&mut self, time: Nanoseconds, seed: [u8; 32]) -> Result<RoundReport, String> {
        if let Some(why) = &self.halted {
            return Err(why.clone());
        }
        let (report, observed) = self.run(0, time, seed)?;
        for index in 1..self.nodes.len() {
            self.run(index, time, seed)?;
        }
        self.compare()?;
        self.commit(time, seed, observed)?;
        Ok(report)
    }
}
