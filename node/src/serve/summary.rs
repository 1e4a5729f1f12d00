//! What is said at the end.

use std::fmt;

use rollout::Table;

use super::nodes::Nodes;
use super::status::{Board, Committed};
use super::view;
use crate::load::{Counts, Load, Target};

/// The end of a process.
pub(super) struct Summary {
    committed: Committed,
    /// What became of the load since the log began; `None`: there was none, or it can't be asked.
    counts: Option<Counts>,
    /// Latencies of all nodes together.
    latencies: Table,
}

impl Summary {
    pub(super) fn new(nodes: &Nodes, load: Option<&Load>, board: &Board) -> Self {
        let counts = load.and_then(|load| load.counts(nodes.node()).ok());
        Self {
            committed: board.committed().map(|(committed, _)| committed).unwrap_or_default(),
            counts,
            latencies: view::merged(board).table(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nTime of an execution in its backend, all nodes together\n{}", self.latencies)?;
        let Committed {
            rounds, messages, acknowledged, refused, log_bytes, state_root, certified_root, ..
        } = &self.committed;
        writeln!(f, "\nthis run       {acknowledged} messages acknowledged, {refused} refused")?;
        writeln!(f, "input log      {rounds} rounds, {messages} messages, {log_bytes} bytes")?;
        if let Some(Counts { sent, answered, rejected, lost, applied_twice }) = &self.counts {
            writeln!(
                f,
                "load           sent {sent}, answered {answered}, rejected {rejected}, lost {lost}, applied twice {applied_twice}"
            )?;
        }
        writeln!(f, "state root     {}", hex::encode(state_root))?;
        writeln!(f, "certified root {}", hex::encode(certified_root))
    }
}
