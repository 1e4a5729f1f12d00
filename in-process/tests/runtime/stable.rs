//! S: stable memory.

use std::sync::Arc;

use execution::{EntryPoint, ErrorCode};

use crate::canister::{Canister, assert_trap, module, update};

const STABLE: [&str; 13] = [
    "stable64_size",
    "stable64_grow",
    "stable64_read",
    "stable64_write",
    "stable_size",
    "stable_grow",
    "stable_read",
    "stable_write",
    "msg_reply_data_append",
    "msg_reply",
    "msg_arg_data_copy",
    "msg_arg_data_size",
    "trap",
];

fn canister(body: &str) -> Canister {
    Canister::new(&module(&STABLE, &format!("(func (export \"canister_update m\") {body})")))
}

/// The i64 that `expression` gives.
fn value(expression: &str) -> i64 {
    let body = format!(
        "(i64.store (i32.const 0) {expression})
         (call $msg_reply_data_append (i32.const 0) (i32.const 8)) (call $msg_reply)"
    );
    i64::from_le_bytes(canister(&body).reply("m", &[]).try_into().unwrap())
}

#[test]
fn it_starts_empty_grows_and_is_zero() {
    assert_eq!(value("(call $stable64_size)"), 0);
    assert_eq!(value("(i64.extend_i32_u (call $stable_size))"), 0);
    assert_eq!(value("(call $stable64_grow (i64.const 2))"), 0);
    let grown = "(drop (call $stable64_grow (i64.const 2)))";
    assert_eq!(value(&format!("(block (result i64) {grown} (call $stable64_grow (i64.const 0)))")), 2);
    let read = "(i64.store (i32.const 16) (i64.const -1))
        (call $stable64_read (i64.const 16) (i64.const 131064) (i64.const 8)) (i64.load (i32.const 16))";
    assert_eq!(value(&format!("(block (result i64) {grown} {read})")), 0);
}

#[test]
fn growth_fails_beyond_its_limits() {
    assert_eq!(value("(call $stable64_grow (i64.const 8192001))"), -1, "500 GiB");
    assert_eq!(value("(call $stable64_grow (i64.const -1))"), -1);
    assert_eq!(value("(call $stable64_grow (i64.const 8192000))"), 0);
    assert_eq!(value("(i64.extend_i32_s (call $stable_grow (i32.const 65537)))"), -1);
    let mut full = canister("(drop (call $stable64_grow (i64.const 1)))");
    full.system.subnet_memory_available = 65_535;
    assert_eq!(full.update("m", &[]).effects.unwrap().memory.stable_pages, None);
    let mut poor = canister("(drop (call $stable64_grow (i64.const 1)))");
    poor.system.freezing.threshold_seconds = 1 << 30;
    poor.system.balance = 1_000;
    assert_trap(&poor.update("m", &[]), ErrorCode::CYCLES_MEMORY_GROW, "cannot grow memory");
}

#[test]
fn ranges_outside_trap_unless_they_are_empty() {
    let grow = "(drop (call $stable64_grow (i64.const 1)))";
    for (call, words) in [
        (
            "(call $stable64_read (i64.const 0) (i64.const 65530) (i64.const 7))",
            "stable memory out of bounds",
        ),
        (
            "(call $stable64_write (i64.const 65530) (i64.const 0) (i64.const 7))",
            "stable memory out of bounds",
        ),
        ("(call $stable64_write (i64.const -1) (i64.const 0) (i64.const 2))", "stable memory out of bounds"),
        ("(call $stable64_write (i64.const 0) (i64.const 65530) (i64.const 7))", "heap out of bounds"),
        ("(call $stable64_read (i64.const 65530) (i64.const 0) (i64.const 7))", "heap out of bounds"),
        ("(call $stable_write (i32.const 65537) (i32.const 0) (i32.const 0))", "stable memory out of bounds"),
    ] {
        assert_trap(
            &canister(&format!("{grow} {call}")).update("m", &[]),
            ErrorCode::CANISTER_TRAPPED,
            words,
        );
    }
    let empty = "(call $stable64_write (i64.const -1) (i64.const 0) (i64.const 0))
        (call $stable64_read (i64.const 0) (i64.const -1) (i64.const 0))";
    assert!(canister(empty).update("m", &[]).effects.is_some());
}

#[test]
fn the_32_bit_functions_trap_above_4_gib() {
    let grow = "(drop (call $stable64_grow (i64.const 65537)))";
    for call in [
        "(drop (call $stable_size))",
        "(drop (call $stable_grow (i32.const 1)))",
        "(call $stable_read (i32.const 0) (i32.const 0) (i32.const 1))",
        "(call $stable_write (i32.const 0) (i32.const 0) (i32.const 1))",
    ] {
        let outcome = canister(&format!("{grow} {call}")).update("m", &[]);
        assert_trap(
            &outcome,
            ErrorCode::CANISTER_TRAPPED,
            "32 bit stable memory api used on a memory larger than 4GB",
        );
    }
}

/// `put`: writes the argument to stable offset 4090 and heap-independent; `get`: reads it back.
fn store() -> Canister {
    let read = "(call $stable64_read (i64.const 100) (i64.const 4090) (i64.const 12))
        (call $msg_reply_data_append (i32.const 100) (i32.const 12)) (call $msg_reply)";
    let put = "(if (i64.eqz (call $stable64_size)) (then (drop (call $stable64_grow (i64.const 1)))))
        (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (call $msg_arg_data_size))
        (call $stable_write (i32.const 4090) (i32.const 0) (call $msg_arg_data_size))";
    let mut canister = Canister::new(&module(
        &STABLE,
        &format!(
            "(func (export \"canister_update put\") {put} {read})
             (func (export \"canister_update put_trap\") (drop (call $stable64_grow (i64.const 3))) {put} unreachable)
             (func (export \"canister_query get\") {read})
             (func (export \"canister_query put_q\") {put} {read})"
        ),
    ));
    canister.reply("put", b"hello world!");
    canister
}

#[test]
fn both_widths_see_one_memory_and_it_carries_over() {
    let mut canister = store();
    assert_eq!(canister.query("get"), b"hello world!");
    assert_eq!(canister.reply("put", b"HELLO"), b"HELLO world!");
    assert_eq!(canister.query("get"), b"HELLO world!");
    assert_eq!(canister.snapshot.stable.pages_stored(), 2);
}

#[test]
fn a_trap_undoes_size_and_bytes() {
    let mut canister = store();
    let trapped = canister.update("put_trap", b"XXXXX");
    assert_trap(&trapped, ErrorCode::CANISTER_TRAPPED, "unreachable");
    assert_eq!(trapped.stable_pages_dirty, 1);
    assert_eq!(canister.query("get"), b"hello world!");
    assert_eq!(canister.snapshot.stable.wasm_pages(), 1);
    assert_eq!(canister.reply("put", b"HELLO"), b"HELLO world!");
}

#[test]
fn a_query_sees_its_own_writes_and_keeps_none() {
    let canister = store();
    let put = EntryPoint::Query { method: "put_q".into(), arg: (*b"query").into() };
    for _ in 0..2 {
        assert_eq!(crate::canister::reply_of(&canister.run(put.clone())), b"query world!");
        assert_eq!(canister.query("get"), b"hello world!");
    }
}

#[test]
fn large_writes_come_back_page_by_page() {
    let wat = "(module
        (import \"ic0\" \"stable64_grow\" (func $grow (param i64) (result i64)))
        (import \"ic0\" \"stable64_write\" (func $write (param i64 i64 i64)))
        (memory 40)
        (func (export \"canister_update m\")
          (drop (call $grow (i64.const 100)))
          (memory.fill (i32.const 0) (i32.const 5) (i32.const 2621440))
          (call $write (i64.const 1000) (i64.const 0) (i64.const 2621440))))";
    let outcome = Canister::new(wat).update("m", &[]);
    let stable = outcome.effects.unwrap().memory.stable;
    assert_eq!(stable.len(), 641);
    assert_eq!(outcome.stable_pages_dirty, 641);
    assert!(stable.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(stable[300].1.bytes().iter().all(|&byte| byte == 5));
    assert_eq!((stable[0].1.bytes()[999], stable[0].1.bytes()[1000]), (0, 5));
}

#[test]
fn touching_more_pages_than_allowed_traps() {
    let body = "(drop (call $stable64_grow (i64.const 100)))
        (call $stable64_write (i64.const 0) (i64.const 0) (i64.const 12288))";
    let read = "(drop (call $stable64_grow (i64.const 100)))
        (call $stable64_read (i64.const 0) (i64.const 0) (i64.const 8192))
        (call $stable64_read (i64.const 0) (i64.const 8192) (i64.const 4096))";
    for (body, what) in [(body, "modified"), (read, "accessed")] {
        let mut canister = canister(body);
        let limits = Arc::make_mut(&mut canister.limits);
        limits.stable_access_pages = [2, 8, 1];
        let outcome = canister.run(update("m", &[]));
        assert_trap(&outcome, ErrorCode::MEMORY_ACCESS_LIMIT, &format!("number of {what} pages"));
        Arc::make_mut(&mut canister.limits).stable_access_pages = [3, 8, 1];
        assert!(canister.run(update("m", &[])).effects.is_some());
    }
}
