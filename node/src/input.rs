//! The ordered input of a subnet: what consensus would hand to every node.

use execution::{Ingress, Nanoseconds};

/// Rounds in order. The same input gives the same state, in whatever modes it is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input(pub(crate) Vec<InputRound>);

/// A round of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputRound {
    pub(crate) time: Nanoseconds,
    pub(crate) seed: [u8; 32],
    /// Messages taken in before the round, in order.
    pub(crate) messages: Vec<Ingress>,
}

impl Input {
    pub(crate) fn push(&mut self, time: Nanoseconds, seed: [u8; 32], messages: Vec<Ingress>) {
        self.0.push(InputRound { time, seed, messages });
    }

    /// How many rounds it has.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.0.len()
    }
}
