//! Messages to a node's canisters, and rounds until they are answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_node::drun::InstallMode;
use bulkhead_node::{Node, management};
use execution::{Ingress, IngressStatus, MessageId, Principal};

const ROUNDS_MAX: u64 = 10_000;
const COUNTER: &[u8] = include_bytes!("../../../tests/canisters/c/counter.wasm");
/// No values.
pub(crate) const EMPTY: &[u8] = b"DIDL\0\0";

pub(crate) struct Driver {
    pub(crate) node: Node,
    rounds: u64,
    /// Why canisters were skipped, as texts.
    pub(crate) failures: Vec<String>,
    /// Invocations that were committed.
    pub(crate) executed: Vec<u64>,
}

impl Driver {
    pub(crate) fn new(node: Node) -> Self {
        Self { node, rounds: 0, failures: Vec::new(), executed: Vec::new() }
    }

    pub(crate) fn round(&mut self) {
        self.rounds += 1;
        assert!(self.rounds < ROUNDS_MAX, "in vain: {:?}", self.failures.iter().collect::<BTreeSet<_>>());
        let report = self.node.round(1_620_328_630_000_000_000 + self.rounds * 1_000_000_000, [1; 32]);
        self.executed.extend(report.executed.iter().map(|executed| executed.invocation));
        self.failures.extend(report.failures.into_iter().map(|failure| failure.error));
    }

    pub(crate) fn send(&mut self, receiver: Principal, method: &str, arg: &[u8], nonce: u64) -> MessageId {
        let nonce = nonce.to_be_bytes().to_vec();
        let (sender, method, arg) = (Principal::anonymous(), method.to_owned(), Arc::from(arg));
        self.node.submit(Ingress { sender, receiver, method, arg, nonce }).unwrap()
    }

    pub(crate) fn answer(&mut self, message: &MessageId) -> Arc<[u8]> {
        loop {
            match self.node.status(message) {
                IngressStatus::Replied(reply) => return reply,
                IngressStatus::Rejected(error) => panic!("{error}"),
                IngressStatus::Done => panic!("the answer is forgotten"),
                IngressStatus::Unknown | IngressStatus::Received | IngressStatus::Processing => self.round(),
            }
        }
    }

    pub(crate) fn create(&mut self, nonce: u64) -> Principal {
        let (management, create) = (Principal::management_canister(), management::provisional_create());
        let made = self.send(management, "provisional_create_canister_with_cycles", &create, nonce);
        management::created_canister(&self.answer(&made)).unwrap()
    }

    /// Asks for the code of a canister that counts.
    pub(crate) fn install(&mut self, canister: Principal, nonce: u64) -> MessageId {
        let install = management::install_code(InstallMode::Install, canister, COUNTER, EMPTY, false);
        self.send(Principal::management_canister(), "install_code", &install, nonce)
    }
}
