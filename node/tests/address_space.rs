//! Mappings run out. Its own program: the limit holds for a whole process.

#[path = "it/driver.rs"]
mod driver;

use bulkhead_node::node::on_executor_stack;
use bulkhead_node::{Node, NodeOptions, Preset};
use driver::{Driver, EMPTY};
use execution::Principal;
use rollout::Mode;
use rustix::process::{Resource, Rlimit, setrlimit};

const CANISTERS: u64 = 4;
const GIB: u64 = 1 << 30;

fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Lets this process take `room` more bytes of address space.
fn limit(room: u64) {
    let current = Some(address_space() + room);
    setrlimit(Resource::As, Rlimit { current, maximum: None }).unwrap();
}

#[test]
fn an_instance_that_finds_no_room_waits_and_idle_ones_make_room() {
    let options = NodeOptions { threads: Some(1), ..NodeOptions::fixed(Mode::InProcess, Preset::System) };
    let node = Node::new(options).unwrap();
    on_executor_stack(move || {
        let mut driver = Driver::new(node);
        // Nothing is idle: the limit is named, and the message waits.
        let canister = driver.create(0);
        let installed = driver.install(canister, 0);
        limit(5 * GIB);
        driver.round();
        let [failure] = &driver.failures[..] else { panic!("{:?}", driver.failures) };
        let named = "out of memory or mappings (vm.max_map_count): could not make an instance: ";
        assert!(failure.starts_with(named), "{failure}");
        let before = address_space();
        limit(1 << 40);
        driver.answer(&installed);
        let instance = address_space() - before;

        // Room for one and a half more, and twelve to come.
        let mut canisters = vec![canister];
        canisters.extend((1..CANISTERS).map(|number| {
            let canister = driver.create(number);
            let installed = driver.install(canister, number);
            driver.answer(&installed);
            canister
        }));
        limit(instance / 2 * 3);
        for nonce in 0..3 {
            for canister in &canisters {
                let sent = driver.send(*canister, "inc", EMPTY, nonce);
                driver.answer(&sent);
                driver.node.query(Principal::anonymous(), *canister, "get", EMPTY).result.unwrap();
            }
        }
        assert_eq!(driver.failures.len(), 1, "none waited: {:?}", driver.failures);
    });
}
