//! Who compiles and maps code. Its own program: processor time and mappings are a whole process's.

#[path = "it/driver.rs"]
mod driver;

use bulkhead_node::node::on_executor_stack;
use bulkhead_node::{Node, NodeOptions, Preset};
use driver::{Driver, EMPTY};
use rollout::Mode;

/// Processor time in clock ticks: of this process, and of the children that it has buried (proc_pid_stat(5)).
fn processor_time() -> [u64; 2] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    [11, 13].map(|field| fields.split_whitespace().nth(field).unwrap().parse().unwrap())
}

/// Whether this process has code of a canister mapped.
fn maps_code() -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains("memfd:bulkhead-code")
}

/// Compiles a real module on a node in `mode`, runs a message, and says how much processor time this process and its
/// children took for the module, and whether code is mapped here afterwards.
fn compile_and_run(mode: Mode) -> ([u64; 2], bool) {
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/canisters/rust/ledger.wasm");
    let module = std::fs::read(module).unwrap();
    let node = Node::new(NodeOptions::fixed(mode, Preset::System)).unwrap();
    on_executor_stack(move || {
        let before = processor_time();
        node.compile(&module).unwrap().unwrap();
        let after = processor_time();
        let mut driver = Driver::new(node);
        let canister = driver.create(0);
        let installed = driver.install(canister, 0);
        driver.answer(&installed);
        let sent = driver.send(canister, "inc", EMPTY, 1);
        driver.answer(&sent);
        ([after[0] - before[0], after[1] - before[1]], maps_code())
    })
}

#[test]
fn a_sandboxed_node_neither_compiles_nor_maps_a_canisters_code() {
    let ([here, there], mapped) = compile_and_run(Mode::Sandboxed);
    assert!(here * 5 < there, "this process used {here} ticks, compilers {there}");
    assert!(!mapped, "code is mapped by workers only");

    // The control: what does both is seen.
    let ([here, there], mapped) = compile_and_run(Mode::InProcess);
    assert!(there * 5 < here, "this process used {here} ticks, compilers {there}");
    assert!(mapped, "code is mapped here");
}
