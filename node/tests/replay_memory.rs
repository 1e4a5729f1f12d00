//! A long log is read as a stream. Its own program: memory is measured of a whole process.

#[path = "it/driver.rs"]
mod driver;

use std::io::{BufReader, Seek};

use bulkhead_node::log::{Extent, Reader, survey};
use bulkhead_node::node::on_executor_stack;
use bulkhead_node::replay::{Play, Verdict};
use bulkhead_node::{Node, NodeOptions, Preset};
use driver::{Driver, EMPTY};
use rollout::Mode;

const MESSAGES: u64 = 100_000;
const MESSAGES_PER_ROUND: u64 = 500;
/// A round every ten seconds, so that answers are forgotten as they are in a subnet that lives long.
const ROUND: u64 = 10_000_000_000;
const ARGUMENT_BYTES: usize = 4_000;

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_log_of_100_000_messages_is_recorded_and_replayed_in_a_fraction_of_its_size() {
    let node = Node::new(NodeOptions::fixed(Mode::InProcess, Preset::System)).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    on_executor_stack(|| {
        let mut driver = Driver::new(node);
        driver.node.record(file.try_clone().unwrap()).unwrap();
        let canister = driver.create(0);
        let installed = driver.install(canister, 0);
        driver.answer(&installed);
        let argument = [EMPTY, &[0; ARGUMENT_BYTES]].concat();
        for nonce in 0..MESSAGES {
            driver.send(canister, "inc", &argument, nonce);
            if nonce % MESSAGES_PER_ROUND == MESSAGES_PER_ROUND - 1 {
                driver.node.round(1_700_000_000_000_000_000 + nonce / MESSAGES_PER_ROUND * ROUND, [2; 32]);
            }
        }
        let recorded = driver.node.finish_recording().unwrap().unwrap();
        let twin = driver.node.twin(Mode::InProcess).unwrap();
        drop(driver);

        file.rewind().unwrap();
        let held = survey(BufReader::new(&file)).unwrap();
        assert!(matches!(held.extent, Extent::Whole));
        assert_eq!(held.messages, MESSAGES + 2);
        file.rewind().unwrap();
        let mut play = Play::beside_recording(twin, "in-process");
        let mut log = Reader::begin(BufReader::new(&file)).unwrap();
        assert_eq!(play.run(&mut log, None).unwrap(), Verdict::Equal);
        assert_eq!(play.counts().messages, MESSAGES + 2);
        let (peak, log) = (peak(), recorded.bytes);
        assert!(peak < log / 2, "a peak of {peak} bytes with a log of {log}");
    });
}
