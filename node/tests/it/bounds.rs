//! A node with hardly any room: canisters wait for each other's workers, and nothing of it shows in the state.

use std::io::{BufReader, Seek};

use bulkhead_node::log::Reader;
use bulkhead_node::node::on_executor_stack;
use bulkhead_node::replay::{Play, Verdict};
use bulkhead_node::{Node, NodeOptions, PolicySource, Preset};
use execution::{MessageId, Principal};
use rollout::Mode;

use crate::driver::{Driver, EMPTY};
use crate::program::folder_with;

const CANISTERS: u64 = 4;
const MESSAGES: u64 = 5;

#[test]
fn with_one_worker_for_four_canisters_messages_wait_and_all_end_as_if_there_were_room() {
    let policy = b"schema = 1\n[default]\nmode = \"sandboxed\"\n[sandbox]\nworkers_max = 1\npool = 0\n";
    let folder = folder_with(&[("policy.toml", policy)]);
    let (subnet, node) = ("s".to_owned(), "n".to_owned());
    let policy =
        PolicySource::File { path: folder.path().join("policy.toml"), subnet, node, generations: None };
    let fixed = NodeOptions::fixed(Mode::Sandboxed, Preset::System);
    let mut node = Node::new(NodeOptions { policy, threads: Some(2), ..fixed }).unwrap();
    let mut log = tempfile::tempfile().unwrap();
    node.record(log.try_clone().unwrap()).unwrap();
    on_executor_stack(move || {
        let mut driver = Driver::new(node);
        let canisters: Vec<Principal> = (0..CANISTERS).map(|number| driver.create(number)).collect();
        let mut sent: Vec<MessageId> =
            canisters.iter().map(|canister| driver.install(*canister, CANISTERS)).collect();
        for message in &sent {
            driver.answer(message);
        }
        for nonce in 0..MESSAGES {
            sent.extend(canisters.iter().map(|canister| driver.send(*canister, "inc", EMPTY, nonce)));
        }
        for message in &sent {
            driver.answer(message);
        }
        let waited = |failure: &String| failure == "out of workers_max: all 1 sandbox workers are busy";
        assert!(driver.failures.iter().all(waited), "{:?}", driver.failures);
        let status = driver.node.sandbox().unwrap();
        assert_eq!((status.workers_max, status.violations), (1, 0));
        assert!(status.evictions.count >= CANISTERS - 1, "{:?}", status.evictions);
        driver.node.finish_recording().unwrap();
        log.rewind().unwrap();
        let [with_room, too] = [(), ()].map(|()| driver.node.twin(Mode::InProcess).unwrap());
        // Compared with each other, and not with rounds in which a canister had to wait.
        let mut play = Play::beside(with_room, too, ["one", "other"].map(str::to_owned));
        let mut log = Reader::begin(BufReader::new(log)).unwrap();
        assert_eq!(play.run(&mut log, None).unwrap(), Verdict::Equal);
        let with_room = play.nodes().0;
        // Not the state roots: they say in which round a message was answered.
        for canister in canisters {
            let [here, there] = [&driver.node, &*with_room]
                .map(|node| node.query(Principal::anonymous(), canister, "get", EMPTY).result.unwrap());
            assert_eq!(here, there);
        }
    });
}
