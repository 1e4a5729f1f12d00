//! M: heap and globals over messages; what is undone.

use execution::{Ending, EntryPoint, ErrorCode, GlobalValue};

use crate::canister::{Canister, after, assert_trap, import, module, reply_of, update};

const HEAP: [&str; 3] = ["msg_reply_data_append", "msg_reply", "trap"];
/// Answers with the first 8 bytes of the heap.
const ANSWER: &str = "(call $msg_reply_data_append (i32.const 0) (i32.const 8)) (call $msg_reply)";

fn counting() -> Canister {
    Canister::new(&module(
        &HEAP,
        &format!(
            "(global $kept (export \"kept\") (mut i32) (i32.const 1)) (global $hidden (mut i64) (i64.const 1))
             (global $f (mut f64) (f64.const 0.5)) (global $v (mut v128) (v128.const i64x2 1 2))
             (data (i32.const 4) \"\\2a\")
             (func $bump
                (global.set $kept (i32.add (global.get $kept) (i32.const 1)))
                (global.set $hidden (i64.add (global.get $hidden) (i64.const 1)))
                (global.set $f (f64.add (global.get $f) (f64.const 1)))
                (global.set $v (i64x2.add (global.get $v) (v128.const i64x2 1 1)))
                (i32.store8 (i32.const 0) (global.get $kept))
                (i32.store8 (i32.const 1) (i32.wrap_i64 (global.get $hidden)))
                (i32.store8 (i32.const 4) (i32.add (i32.load8_u (i32.const 4)) (i32.const 1))))
             (func (export \"canister_update bump\") (call $bump) {ANSWER})
             (func (export \"canister_update trap\") (call $bump) unreachable)
             (func (export \"canister_update grow\") (drop (memory.grow (i32.const 1)))
                (i32.store8 (i32.const 0) (memory.size)) (i32.store8 (i32.const 70000) (i32.const 1)) {ANSWER})
             (func (export \"canister_update grow_trap\") (drop (memory.grow (i32.const 1)))
                (i32.store8 (i32.const 70000) (i32.const 1)) unreachable)
             (func (export \"canister_query read\") {ANSWER})
             (func (export \"canister_query write\") (call $bump) {ANSWER})
             (func (export \"canister_query grow_q\") (drop (memory.grow (i32.const 1))) {ANSWER})
             (func (export \"canister_query size\") (i32.store8 (i32.const 0) (memory.size)) {ANSWER})"
        ),
    ))
}

#[test]
fn heap_and_globals_carry_over() {
    let mut canister = counting();
    assert_eq!(canister.reply("bump", &[])[..5], [2, 2, 0, 0, 43]);
    assert_eq!(canister.reply("bump", &[])[..5], [3, 3, 0, 0, 44]);
    let expected = [
        GlobalValue::I32(3),
        GlobalValue::I64(3),
        GlobalValue::F64(2.5_f64.to_bits()),
        GlobalValue::V128(3 | 4 << 64),
    ];
    assert_eq!(&canister.snapshot.globals[..], &expected);
}

#[test]
fn a_trap_undoes_heap_and_globals() {
    let mut canister = counting();
    canister.update("bump", &[]);
    let trapped = canister.update("trap", &[]);
    assert_trap(&trapped, ErrorCode::CANISTER_TRAPPED, "unreachable");
    assert_eq!((trapped.effects, trapped.heap_pages_dirty), (None, 1));
    assert_eq!(canister.reply("bump", &[])[..5], [3, 3, 0, 0, 44]);
}

/// The first of stores to one address marks for all of them, also for one that can't be made.
#[test]
fn a_trap_among_stores_to_one_address_undoes_those_before_it() {
    let text = |heap: &str| {
        format!(
            "(module (import \"ic0\" \"msg_reply\" (func $msg_reply))
               (import \"ic0\" \"msg_reply_data_append\" (func $msg_reply_data_append (param i32 i32)))
               (memory {heap})
               (func (export \"canister_update trap\") (local $at i32) (local.set $at (i32.const 65535))
                 (i32.store8 (local.get $at) (i32.const 7)) (i32.store8 offset=4000 (local.get $at) (i32.const 7)))
               (func (export \"canister_update read\")
                 (call $msg_reply_data_append (i32.const 65528) (i32.const 8)) (call $msg_reply)))"
        )
    };
    for heap in ["1", "1 1"] {
        let mut canister = Canister::new(&text(heap));
        for _ in 0..3 {
            let trapped = canister.update("trap", &[]);
            assert_trap(&trapped, ErrorCode::CANISTER_TRAPPED, "heap out of bounds");
            assert_eq!(trapped.heap_pages_dirty, 1, "none behind the heap's end");
            assert_eq!(canister.reply("read", &[]), [0; 8]);
        }
    }
}

#[test]
fn a_query_undoes_heap_and_globals() {
    let canister = counting();
    for _ in 0..2 {
        assert_eq!(canister.query("write")[..5], [2, 2, 0, 0, 43]);
        assert_eq!(canister.query("read")[..5], [0, 0, 0, 0, 42]);
    }
    let entry = EntryPoint::ReplicatedQuery { method: "write".into(), arg: [].into() };
    let outcome = canister.run(entry);
    let effects = outcome.effects.unwrap();
    assert_eq!(effects.memory, execution::MemoryDelta::default());
    assert_eq!(effects.globals, canister.snapshot.globals);
}

#[test]
fn an_outcome_that_is_not_committed_leaves_nothing_behind() {
    let mut canister = counting();
    let ignored = canister.run(update("bump", &[]));
    assert_eq!(reply_of(&ignored)[..2], [2, 2]);
    assert_eq!(canister.reply("bump", &[])[..5], [2, 2, 0, 0, 43]);
    // Nor does growth that is not committed.
    assert_eq!(reply_of(&canister.run(update("grow", &[])))[0], 2);
    assert_eq!(reply_of(&canister.run(update("grow", &[])))[0], 2);
}

#[test]
fn growth_is_kept_by_a_return_and_undone_by_a_trap_or_a_query() {
    let mut canister = counting();
    canister.query("grow_q");
    assert_trap(&canister.update("grow_trap", &[]), ErrorCode::CANISTER_TRAPPED, "unreachable");
    assert_eq!(canister.query("size")[0], 1);
    assert_eq!(canister.reply("grow", &[])[0], 2);
    assert_eq!(canister.snapshot.heap.wasm_pages(), 2);
    assert_eq!(canister.query("size")[0], 2);
    assert_trap(&canister.update("grow_trap", &[]), ErrorCode::CANISTER_TRAPPED, "unreachable");
    assert_eq!(canister.reply("grow", &[])[0], 3);
}

#[test]
fn growth_beyond_the_declared_maximum_fails() {
    let wat = "(module (memory 1 2) (func (export \"canister_update m\")
        (i32.store (i32.const 0) (memory.grow (i32.const 2))) (i32.store (i32.const 4) (memory.grow (i32.const 1)))
        (i32.store (i32.const 8) (memory.grow (i32.const 1)))))";
    let effects = Canister::new(wat).update("m", &[]).effects.unwrap();
    let page = effects.memory.heap[0].1.clone();
    assert_eq!(page.bytes()[..12], [255, 255, 255, 255, 1, 0, 0, 0, 255, 255, 255, 255]);
    assert_eq!(effects.memory.heap_pages, Some(2));
}

#[test]
fn limits_on_growth_trap_with_their_codes() {
    let grow = "(func $g (drop (memory.grow (i32.const 1))))
        (export \"canister_update m\" (func $g)) (export \"canister_query q\" (func $g))";
    let fresh = || Canister::new(&module(&[], grow));
    let query = || EntryPoint::Query { method: "q".into(), arg: [].into() };

    let mut limited = fresh();
    limited.system.wasm_memory_limit = 65_536;
    assert_trap(&limited.update("m", &[]), ErrorCode::WASM_MEMORY_LIMIT, "limit of 65536 bytes");
    assert_eq!(limited.run(query()).ending, Ending::Returned, "not enforced in queries");

    let mut full = fresh();
    full.system.subnet_memory_available = 65_535;
    assert_trap(&full.update("m", &[]), ErrorCode::OUT_OF_MEMORY, "cannot grow its memory usage");

    let mut poor = fresh();
    poor.system.freezing.threshold_seconds = 1 << 30;
    poor.system.balance = 1_000;
    assert_trap(&poor.update("m", &[]), ErrorCode::CYCLES_MEMORY_GROW, "cannot grow memory by 65536 bytes");
    assert_eq!(poor.run(query()).ending, Ending::Returned, "a query pays nothing");
}

#[test]
fn nan_results_are_canonical() {
    let wat = "(module (memory 1) (func (export \"canister_update m\")
        (f64.store (i32.const 0) (f64.div (f64.const 0) (f64.const 0)))
        (f64.store (i32.const 8) (f64.sqrt (f64.const -1)))
        (f64.store (i32.const 16) (f64.add (f64.const nan:0x123) (f64.const 1)))
        (f32.store (i32.const 24) (f32.div (f32.const 0) (f32.const 0)))))";
    let effects = Canister::new(wat).update("m", &[]).effects.unwrap();
    let page = effects.memory.heap[0].1.clone();
    let doubles: Vec<u64> =
        page.bytes()[..24].chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(doubles, [0x7ff8_0000_0000_0000; 3]);
    assert_eq!(page.bytes()[24..28], 0x7fc0_0000_u32.to_le_bytes());
}

#[test]
fn a_message_after_data_drop_still_has_the_segment() {
    let wat = module(
        &HEAP,
        &format!(
            "(data $d \"xyz\") (func (export \"canister_update m\")
               (memory.init $d (i32.const 0) (i32.const 0) (i32.const 3)) (data.drop $d) {ANSWER})"
        ),
    );
    let mut canister = Canister::new(&wat);
    assert_eq!(canister.reply("m", &[])[..3], *b"xyz");
    assert_eq!(canister.reply("m", &[])[..3], *b"xyz");
}

#[test]
fn composite_steps_see_each_others_pages_and_leave_none() {
    let wat = module(
        &HEAP,
        &format!(
            "(table 1 1 funcref) (elem (i32.const 0) $callback)
             (func (export \"canister_composite_query c\") (i32.store8 (i32.const 0) (i32.const 7)))
             (func $callback (param i32) {ANSWER}) (func (export \"canister_query q\") {ANSWER})"
        ),
    );
    let mut canister = Canister::new(&wat);
    let first = canister.run(EntryPoint::CompositeQuery { method: "c".into(), arg: [].into() });
    let committed = canister.snapshot.clone();
    canister.snapshot = after(&committed, &first.effects.unwrap());
    let callback = EntryPoint::Reply {
        callback: execution::Callback { function: 0, environment: 0 },
        data: [].into(),
        composite: true,
    };
    assert_eq!(reply_of(&canister.run(callback))[0], 7);
    canister.snapshot = committed;
    assert_eq!(canister.query("q")[0], 0);
}

#[test]
fn a_64_bit_heap_grows_beyond_4_gib_and_is_undone_there() {
    let wat = format!(
        "(module {} {} (memory i64 1) (func $touch (drop (memory.grow (i64.const 65536)))
            (i64.store (i64.const 0x1_0000_0100) (i64.const 0x0102030405060708)))
          (func (export \"canister_update grow\") (call $touch))
          (func (export \"canister_update trap\") (i64.store (i64.const 0x1_0000_0100) (i64.const 9)) unreachable)
          (func (export \"canister_query read\")
            (call $msg_reply_data_append (i64.const 0x1_0000_0100) (i64.const 8)) (call $msg_reply)))",
        import("msg_reply_data_append", "i64"),
        import("msg_reply", "i64")
    );
    let mut canister = Canister::new(&wat);
    let grown = canister.update("grow", &[]).effects.unwrap().memory;
    assert_eq!((grown.heap_pages, grown.heap.len(), grown.heap[0].0), (Some(65_537), 1, 1 << 20));
    assert_trap(&canister.update("trap", &[]), ErrorCode::CANISTER_TRAPPED, "unreachable");
    assert_eq!(canister.query("read"), [8, 7, 6, 5, 4, 3, 2, 1]);
}
