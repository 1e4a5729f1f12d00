//! B: copying between blobs and the heap; printing.

use execution::ErrorCode;

use crate::canister::{Canister, assert_trap, module};

const COPYING: [&str; 6] = [
    "msg_arg_data_size",
    "msg_arg_data_copy",
    "msg_reply_data_append",
    "msg_reply",
    "debug_print",
    "is_controller",
];

fn canister(body: &str) -> Canister {
    Canister::new(&module(&COPYING, &format!("(func (export \"canister_update m\") {body})")))
}

fn copy(dst: u32, offset: u32, size: u32) -> execution::Outcome {
    let body = format!("(call $msg_arg_data_copy (i32.const {dst}) (i32.const {offset}) (i32.const {size}))");
    canister(&body).update("m", b"0123456789")
}

#[test]
fn ranges_outside_the_argument_or_the_heap_trap() {
    for (dst, offset, size) in
        [(0, 8, 3), (65_530, 0, 10), (0, 11, 0), (0xffff_ffff, 0, 2), (0, 0xffff_ffff, 2)]
    {
        assert_trap(&copy(dst, offset, size), ErrorCode::CONTRACT_VIOLATION, "exceeds the slice size");
    }
    for (dst, offset, size) in [(0, 10, 0), (65_536, 0, 0), (65_526, 0, 10)] {
        assert_eq!(copy(dst, offset, size).ending, execution::Ending::Returned);
    }
}

#[test]
fn exactly_the_range_is_copied() {
    let outcome = copy(100, 3, 4);
    let page = outcome.effects.unwrap().memory.heap[0].1.clone();
    let mut expected = [0; 4096];
    expected[100..104].copy_from_slice(b"3456");
    assert_eq!(page.bytes(), &expected);
}

#[test]
fn a_copy_across_pages_marks_both() {
    let outcome = copy(4_090, 0, 10);
    assert_eq!(outcome.heap_pages_dirty, 2);
    let pages: Vec<u64> = outcome.effects.unwrap().memory.heap.iter().map(|(page, _)| *page).collect();
    assert_eq!(pages, [0, 1]);
}

#[test]
fn a_module_without_memory_cannot_copy() {
    let wat = "(module (import \"ic0\" \"msg_reply_data_append\" (func $append (param i32 i32)))
        (func (export \"canister_update m\") (call $append (i32.const 0) (i32.const 1))))";
    let outcome = Canister::new(wat).update("m", &[]);
    assert_trap(&outcome, ErrorCode::CONTRACT_VIOLATION, "must define memory");
}

#[test]
fn is_controller_knows_controllers_and_refuses_long_principals() {
    let body = "(call $msg_arg_data_copy (i32.const 0) (i32.const 0) (call $msg_arg_data_size))
        (i32.store8 (i32.const 99) (call $is_controller (i32.const 0) (call $msg_arg_data_size)))
        (call $msg_reply_data_append (i32.const 99) (i32.const 1)) (call $msg_reply)";
    let mut canister = canister(body);
    assert_eq!(canister.reply("m", &[4]), [1]);
    assert_eq!(canister.reply("m", &[5]), [0]);
    assert_trap(&canister.update("m", &[5; 30]), ErrorCode::CONTRACT_VIOLATION, "invalid principal id");
}

#[test]
fn debug_print_never_traps() {
    let outcome = canister("(call $debug_print (i32.const 65535) (i32.const 2))").update("m", &[]);
    assert_eq!(outcome.logs[0].text, b"(debug_print message out of memory bounds)");
}

#[test]
fn log_lines_are_whole_up_to_their_bound_and_the_newest_stay() {
    let body = "(local $i i32) (loop $again
        (i32.store8 (i32.const 0) (local.get $i))
        (call $debug_print (i32.const 0) (i32.const 40000))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 100))))";
    let outcome = canister(body).update("m", &[]);
    assert!(outcome.logs.iter().all(|line| line.text.len() == 32 << 10));
    assert_eq!(outcome.logs.len(), 31, "1 MiB of lines");
    assert_eq!(outcome.logs.last().unwrap().text[0], 99);
}
