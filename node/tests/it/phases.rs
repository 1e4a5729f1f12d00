//! Where the time of a node's messages goes, in each mode.

use std::time::{Duration, Instant};

use bulkhead_node::node::on_executor_stack;
use bulkhead_node::{Node, NodeOptions, Preset};
use execution::{MessageId, MessageKey, Principal};
use rollout::{Arm, KINDS, MessagePhase, Mode, SandboxPhase, Start, is_sampled};

use crate::driver::{Driver, EMPTY};

const MESSAGES: u64 = 200;
/// Longer than anything takes that goes well.
const PATIENCE: Duration = Duration::from_secs(60);
const QUERIES: u64 = 40;

/// Runs messages and queries on a node in `mode`, and looks at what it measured.
fn measured(mode: Mode, arm: Arm) {
    let node = Node::new(NodeOptions::fixed(mode, Preset::System)).unwrap();
    on_executor_stack(move || {
        let mut driver = Driver::new(node);
        let canister = driver.create(1);
        let installed = driver.install(canister, 1);
        driver.answer(&installed);
        let instruments = driver.node.instruments();
        assert!(driver.node.settle_shadow(PATIENCE));
        instruments.clear();

        let before = driver.executed.last().copied().expect("its code was installed");
        let start = Instant::now();
        let sent: Vec<MessageId> =
            (0..MESSAGES).map(|nonce| driver.send(canister, "inc", EMPTY, nonce)).collect();
        driver.executed.clear();
        for message in &sent {
            driver.answer(message);
        }
        let ask = |_| driver.node.query(Principal::anonymous(), canister, "get", EMPTY).executed;
        let asked: Vec<u64> = (0..QUERIES).flat_map(ask).map(|executed| executed.invocation).collect();
        let whole = start.elapsed();

        let times = instruments.messages().total();
        let count = |phase| times.one(arm, phase).map_or(0, |times| times.len());
        let sampled = |ids: &[u64]| ids.iter().filter(|id| is_sampled(**id)).count() as u64;
        let keys: Vec<u64> = sent.iter().map(|id| MessageKey::of_ingress(id).number()).collect();
        let waits = |kinds: &[&str]| -> u64 {
            kinds.iter().filter_map(|kind| times.waits(kind)).map(|waits| waits.len()).sum()
        };
        // What ran, and what inspected messages or answered queries: that waits for nothing and is committed nowhere.
        let all: Vec<u64> = (before + 1..=asked[asked.len() - 1]).collect();
        let (all_sampled, committed) = (sampled(&all), sampled(&driver.executed));
        assert_eq!(all.len(), driver.executed.len() + sent.len() + asked.len());
        assert_eq!(
            MessagePhase::ALL.map(count),
            [waits(&KINDS), all_sampled, all_sampled, committed],
            "{mode}"
        );
        assert_eq!(waits(&["update"]), sampled(&keys));
        for other in Arm::ALL.into_iter().filter(|other| *other != arm) {
            assert!(MessagePhase::ALL.iter().all(|phase| times.one(other, *phase).is_none()), "{mode}");
        }
        // Each of all phases but the queue, in which messages wait at the same time.
        let [_, once @ ..] = MessagePhase::ALL;
        let lowest = |phase| times.one(arm, phase).map_or(0, |times| times.min() * times.len());
        assert!(u128::from(once.map(lowest).iter().sum::<u64>()) <= whole.as_nanos(), "{mode}");

        let sandbox = instruments.phases().total();
        let runs = |phase| -> u64 {
            Start::ALL.iter().filter_map(|start| sandbox.one(*start, phase)).map(|times| times.len()).sum()
        };
        let of = SandboxPhase::ALL.map(runs);
        if mode == Mode::Sandboxed {
            assert_eq!(of, [all.len() as u64; 3], "each execution once");
            assert!(sandbox.round_trip().is_some(), "one before the first warm one");
        } else if mode == Mode::InProcess {
            assert_eq!((of, sandbox.round_trip()), ([0; 3], None));
        }
        let (current, old) = instruments.live().under_way();
        assert!(Mode::ALL.iter().all(|mode| current.one(*mode) == 0 && old.one(*mode) == 0));
    });
}

#[test]
fn each_phase_counts_each_sampled_execution_in_process() {
    measured(Mode::InProcess, Arm::InProcess);
}

#[test]
fn each_phase_counts_each_sampled_execution_sandboxed() {
    measured(Mode::Sandboxed, Arm::Sandboxed);
}

#[test]
fn each_phase_counts_each_sampled_execution_in_shadow() {
    measured(Mode::Shadow, Arm::ShadowControl);
}
