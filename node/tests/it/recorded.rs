//! A recording in memory, of a canister that does something of everything.

use std::io::{Read, Seek};

use bulkhead_node::drun::InstallMode;
use bulkhead_node::log::{Entry, Reader, Writer};
use bulkhead_node::node::on_executor_stack;
use bulkhead_node::replay::{Play, Verdict};
use bulkhead_node::{Node, NodeOptions, Preset, management};
use execution::{Ingress, Principal};
use rollout::Mode;

use crate::driver::Driver;

/// Writes heap and stable memory, prints, traps, rejects, calls itself, sets timer and certified data, and refuses
/// the method `never`.
pub(crate) const CANISTER: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "debug_print" (func $print (param i32 i32)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "canister_self_size" (func $self_size (result i32)))
  (import "ic0" "canister_self_copy" (func $self_copy (param i32 i32 i32)))
  (import "ic0" "global_timer_set" (func $timer (param i64) (result i64)))
  (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $store (param i64 i64 i64)))
  (import "ic0" "accept_message" (func $accept))
  (import "ic0" "msg_method_name_size" (func $name_size (result i32)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_perform" (func $call (result i32)))
  (memory 1)
  (table funcref (elem $answer))
  (global $calls (mut i32) (i32.const 0))
  (data (i32.const 16) "hello")
  (data (i32.const 64) "inc")
  (func $inc (i32.store8 (i32.const 0) (i32.add (i32.load8_u (i32.const 0)) (i32.const 1)))
    (global.set $calls (i32.add (global.get $calls) (i32.const 1))))
  (func $value (call $append (i32.const 0) (i32.const 1)) (call $reply))
  (func $answer (param i32) (call $value))
  (func (export "canister_init") (drop (call $grow (i64.const 1))))
  (func (export "canister_inspect_message")
    (if (i32.ne (call $name_size) (i32.const 5)) (then (call $accept))))
  (func (export "canister_global_timer") (call $inc))
  (func (export "canister_query get") (call $value))
  (func (export "canister_update never") (call $value))
  (func (export "canister_update inc") (call $inc) (call $print (i32.const 16) (i32.const 5)) (call $value))
  (func (export "canister_update keep") (call $inc)
    (call $store (i64.const 8192) (i64.const 0) (i64.const 32))
    (call $certify (i32.const 0) (i32.const 8))
    (drop (call $timer (i64.add (call $time) (i64.const 1000000000))))
    (call $value))
  (func (export "canister_update fail") (call $inc) (call $trap (i32.const 16) (i32.const 5)))
  (func (export "canister_update no") (call $reject (i32.const 16) (i32.const 5)))
  (func (export "canister_update inc_by_call")
    (call $self_copy (i32.const 256) (i32.const 0) (call $self_size))
    (call $call_new (i32.const 256) (call $self_size) (i32.const 64) (i32.const 3)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (drop (call $call))))"#;

/// The updates of the recording, in order; the second is refused. After each, the canister is asked.
pub(crate) const METHODS: [&str; 7] = ["inc", "never", "keep", "fail", "no", "inc_by_call", "inc"];

pub(crate) fn module() -> Vec<u8> {
    wat::parse_str(CANISTER).expect("the module's text is valid")
}

/// Gives a canister the code of [`CANISTER`], sends it [`METHODS`], asks after each, and runs an empty round.
pub(crate) fn play(driver: &mut Driver, canister: Principal) {
    let user = Principal::anonymous();
    let install = management::install_code(InstallMode::Install, canister, &module(), b"", false);
    let installed = driver.send(Principal::management_canister(), "install_code", &install, 0);
    driver.answer(&installed);
    for (nonce, method) in METHODS.iter().enumerate() {
        let nonce = nonce.to_be_bytes().to_vec();
        let message = Ingress {
            sender: user,
            receiver: canister,
            method: (*method).to_owned(),
            arg: (*b"argument").into(),
            nonce,
        };
        let _refused = driver.node.submit(message);
        driver.round();
        let _asked = driver.node.query(user, canister, "get", b"");
    }
    driver.round();
}

/// A whole log: a canister made by the operator, its code, [`METHODS`], and an empty round.
pub(crate) fn log() -> Vec<u8> {
    let mut node = Node::new(NodeOptions::fixed(Mode::InProcess, Preset::Application)).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    node.record(file.try_clone().unwrap()).unwrap();
    on_executor_stack(move || {
        let mut driver = Driver::new(node);
        let user = Principal::anonymous();
        let canister = driver.node.create_canister(user, 1_000_000_000_000_000).unwrap();
        play(&mut driver, canister);
        driver.node.finish_recording().unwrap();
    });
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Writes `log` again with each record changed by `change`, which gets its number and may drop it.
pub(crate) fn edited(log: &[u8], mut change: impl FnMut(usize, &mut Entry<'_>) -> bool) -> Vec<u8> {
    let mut reader = Reader::begin(log).unwrap();
    let Some(Entry::Head(mut head)) = reader.read().unwrap() else { panic!("no head") };
    let mut changed = Entry::Head(head.clone());
    if change(0, &mut changed)
        && let Entry::Head(changed) = changed
    {
        head = changed;
    }
    let mut writer = Writer::begin(Vec::new(), head).unwrap();
    let mut number = 1;
    while let Some(mut entry) = reader.read().unwrap() {
        if change(number, &mut entry) {
            writer.append(&entry).unwrap();
        }
        number += 1;
    }
    writer.into_inner().unwrap()
}

/// Replays `log` in-process beside what it says.
pub(crate) fn replayed(log: &[u8]) -> Verdict {
    let node = Node::new(NodeOptions::fixed(Mode::InProcess, Preset::Application)).unwrap();
    on_executor_stack(|| {
        let mut log = Reader::begin(log).unwrap();
        Play::beside_recording(node, "replayed").run(&mut log, None).unwrap()
    })
}
