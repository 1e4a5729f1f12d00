//! The write barrier: exactly the pages that were written are marked.

use super::Run;
use crate::bookkeeping::DirtyMap;

/// Pages marked by a method with this body, on a heap of 2 WebAssembly pages.
fn marks(memory: &str, body: &str) -> Vec<u64> {
    let text = format!(
        "(module (memory {memory} 2) (data $d \"0123456789abcdef\")
           (func (export \"canister_update x\") {body}))"
    );
    let mut run = Run::new(&text);
    run.call("x").unwrap_or_else(|error| panic!("{body}: {error:#}"));
    run.dirty()
}

const STORES: [(&str, &str, usize); 14] = [
    ("i32.store", "i32.const 1", 4),
    ("i32.store8", "i32.const 1", 1),
    ("i32.store16", "i32.const 1", 2),
    ("i64.store", "i64.const 1", 8),
    ("i64.store8", "i64.const 1", 1),
    ("i64.store16", "i64.const 1", 2),
    ("i64.store32", "i64.const 1", 4),
    ("f32.store", "f32.const 1", 4),
    ("f64.store", "f64.const 1", 8),
    ("v128.store", "v128.const i64x2 1 1", 16),
    ("v128.store8_lane LANE", "v128.const i64x2 1 1", 1),
    ("v128.store16_lane LANE", "v128.const i64x2 1 1", 2),
    ("v128.store32_lane LANE", "v128.const i64x2 1 1", 4),
    ("v128.store64_lane LANE", "v128.const i64x2 1 1", 8),
];

/// The store instruction with a static offset.
fn with_offset(store: &str, offset: usize) -> String {
    match store.strip_suffix(" LANE") {
        Some(store) => format!("{store} offset={offset} 1"),
        None => format!("{store} offset={offset}"),
    }
}

#[test]
fn a_store_marks_the_pages_of_its_first_and_last_byte() {
    for pointer in ["i32", "i64"] {
        for (store, value, bytes) in STORES {
            for offset in [0, 100] {
                let marks_at = |address: usize| {
                    let base = address - offset;
                    marks(pointer, &format!("{pointer}.const {base} {value} {}", with_offset(store, offset)))
                };
                assert_eq!(marks_at(3 * 4096), [3], "{store} at a page's start");
                assert_eq!(marks_at(4 * 4096 - bytes), [3], "{store} at a page's end");
                let crossing = if bytes == 1 { vec![3] } else { vec![3, 4] };
                assert_eq!(marks_at(4 * 4096 - bytes.div_ceil(2)), crossing, "{store} across two pages");
                assert_eq!(marks_at(2 * 65_536 - bytes), [31], "{store} at the heap's end");
            }
        }
    }
}

#[test]
fn loads_mark_nothing() {
    assert_eq!(marks("i32", "i32.const 4095 i64.load drop"), [0_u64; 0]);
}

#[test]
fn bulk_operations_mark_the_range_they_write() {
    for pointer in ["i32", "i64"] {
        let run = |destination: usize, size: usize, second: &str, operation: &str, size_type: &str| {
            let body = format!("{pointer}.const {destination} {second} {size_type}.const {size} {operation}");
            marks(pointer, &body)
        };
        let fill = |destination, size| run(destination, size, "i32.const 9", "memory.fill", pointer);
        let source = format!("{pointer}.const 0");
        let copy = |destination, size| run(destination, size, &source, "memory.copy", pointer);
        for operation in [&fill as &dyn Fn(usize, usize) -> Vec<u64>, &copy] {
            assert_eq!(operation(5 * 4096, 0), [0_u64; 0], "an empty range");
            assert_eq!(operation(5 * 4096, 1), [5]);
            assert_eq!(operation(5 * 4096 + 4095, 1), [5]);
            assert_eq!(operation(5 * 4096 + 4095, 2), [5, 6]);
            assert_eq!(operation(5 * 4096, 4096), [5]);
            assert_eq!(operation(5 * 4096, 3 * 4096 + 1), [5, 6, 7, 8]);
            assert_eq!(operation(2 * 65_536, 0), [0_u64; 0], "an empty range at the end");
        }
        let init = |destination, size| run(destination, size, "i32.const 2", "memory.init $d", "i32");
        assert_eq!(init(4090, 14), [0, 1]);
        assert_eq!(init(4096, 14), [1]);
        assert_eq!(init(4096, 0), [0_u64; 0]);
    }
}

#[test]
fn a_store_that_traps_writes_and_marks_nothing() {
    let mut run = Run::new(
        r#"(module (memory 1) (func (export "canister_update x") i32.const 65533 i32.const -1 i32.store))"#,
    );
    run.call("x").expect_err("out of bounds");
    assert_eq!(run.dirty(), [0_u64; 0]);
    assert_eq!(run.word(65_528), 0);
}

#[test]
fn an_offset_that_leaves_the_address_space_traps() {
    let mut run = Run::new(
        r#"(module (memory 1)
             (func (export "canister_update x") i32.const 8 i32.const 1 i32.store offset=0xfffffffc))"#,
    );
    run.call("x").expect_err("out of bounds");
    assert_eq!(run.dirty(), [0_u64; 0]);
}

#[test]
fn memory_that_grew_is_marked_too() {
    let body = "i32.const 1 memory.grow drop i32.const 131072 i32.const 1 i32.store8";
    assert_eq!(marks("i32", body), [32]);
}

#[test]
fn the_dirty_map_covers_the_declared_maximum() {
    let pages = |memory: &str| {
        let mut run = Run::new(&format!("(module (memory {memory}))"));
        let map = run.memory("canister bookkeeping");
        map.size(&run.store)
    };
    // A byte and a list entry of four for each page and one more, an entry more, their number, and the counter.
    assert_eq!(pages("1 818"), 1);
    assert_eq!(pages("1 819"), 2);
    assert_eq!(pages("1"), 81, "4 GiB of 4 KiB pages");
    assert_eq!(pages("i64 1"), 121, "6 GiB of 4 KiB pages");
    assert_eq!(pages("0 0"), 1);
}

#[test]
fn a_page_is_listed_once_however_often_and_however_it_is_written() {
    let body = "(i32.store (i32.const 4094) (i32.const 1)) (i32.store (i32.const 4094) (i32.const 1))
        (memory.fill (i32.const 0) (i32.const 2) (i32.const 12288)) (i32.store8 (i32.const 9000) (i32.const 3))";
    assert_eq!(marks("i32", body), [0, 1, 2]);
}

#[test]
fn the_last_page_of_a_full_heap_is_marked() {
    let fill = "(memory.fill (i32.const 0) (i32.const 1) (i32.const 131072))";
    let all: Vec<u64> = (0..32).collect();
    assert_eq!(marks("i32", &format!("{fill} {fill}")), all);
}

#[test]
fn the_host_marks_as_code_does() {
    let mut memory = vec![0; usize::try_from(crate::bookkeeping::bytes(2)).unwrap()];
    let mut map = DirtyMap::new(&mut memory, 2);
    for (start, size) in [(0, 0), (4095, 2), (8192, 4096), (131_071, 1), (4096, 1), (131_072, 0)] {
        map.mark(start, size);
    }
    assert_eq!(map.take(), [0, 1, 2, 31]);
    assert_eq!(map.take(), [0_u64; 0]);
}

/// Marks of a method of a local that holds `base`, on a heap of 2 WebAssembly pages.
fn marks_at(base: usize, body: &str) -> Vec<u64> {
    marks("i32", &format!("(local $at i32) (local $other i32) (local.set $at (i32.const {base})) {body}"))
}

#[test]
fn stores_to_one_address_mark_what_all_of_them_write() {
    let stores =
        "(i32.store offset=8 (local.get $at) (i32.const 1)) (i64.store (local.get $at) (i64.const 1))
        (i32.store8 offset=4095 (local.get $at) (i32.const 1))";
    assert_eq!(marks_at(8192, stores), [2], "4096 bytes of one page");
    assert_eq!(marks_at(8193, stores), [2, 3], "the last byte is in the next one");
    assert_eq!(marks_at(0, stores), [0], "a heap's first page");
    assert_eq!(marks_at(131_072 - 4096, stores), [31], "its last one");
}

#[test]
fn stores_further_apart_than_a_page_are_marked_apart() {
    let stores =
        "(i32.store8 (local.get $at) (i32.const 1)) (i32.store8 offset=4096 (local.get $at) (i32.const 1))
        (i32.store8 offset=12288 (local.get $at) (i32.const 1))";
    assert_eq!(marks_at(4095, stores), [0, 1, 3]);
}

#[test]
fn a_store_that_is_not_reached_is_not_marked() {
    let first = "(i32.store8 (local.get $at) (i32.const 1))";
    let second = "(i32.store8 offset=4000 (local.get $at) (i32.const 1))";
    for body in [
        format!("{first} (return) {second}"),
        format!("(block $out {first} (br_if $out (i32.const 1)) {second})"),
        format!("(block $out {first} (br $out) {second})"),
        format!("{first} (if (local.get $other) (then {second}))"),
        format!("(if (local.get $at) (then {first}) (else {second}))"),
        format!(
            "(loop $again (block $out (br_if $out (local.get $other)) {first} (local.set $other (i32.const 1)) (br $again)))"
        ),
        format!("{first} (br_if 0 (i32.const 1)) {second}"),
    ] {
        assert_eq!(marks_at(4000, &body), [0], "{body}");
    }
}

#[test]
fn an_address_that_changed_is_another_one() {
    let store = "(i32.store8 (local.get $at) (i32.const 1))";
    let changed = "(local.set $at (i32.const 20000))";
    assert_eq!(marks_at(0, &format!("{store} {changed} {store}")), [0, 4]);
    assert_eq!(
        marks_at(0, &format!("{store} (i32.store8 (local.tee $at (i32.const 20000)) (i32.const 1))")),
        [0, 4]
    );
    // What was pushed before is what the local was.
    assert_eq!(marks_at(0, &format!("(local.get $at) {changed} (i32.const 1) (i32.store8) {store}")), [0, 4]);
    assert_eq!(marks_at(0, &format!("(local.get $at) {changed} {store} (i32.const 1) (i32.store8)")), [0, 4]);
}

#[test]
fn operands_of_any_depth_and_origin_are_told_apart() {
    let store = "(i32.store8 (local.get $at) (i32.const 1))";
    // More operands lie on the first one than are remembered.
    let deep = format!("(local.get $at) {} {}", "(i32.const 0) ".repeat(70), "(drop) ".repeat(70));
    let changed = "(local.set $at (i32.const 20000))";
    assert_eq!(marks_at(4096, &format!("{deep} {changed} {store} (i32.const 1) (i32.store8)")), [1, 4]);
    let sum = "(i32.store8 (i32.add (local.get $at) (i32.const 4096)) (i32.const 1))";
    assert_eq!(marks_at(4096, &format!("{store} {sum}")), [1, 2]);
    let chosen = "(i32.store8 (select (local.get $at) (i32.const 20000) (local.get $other)) (i32.const 1))";
    assert_eq!(marks_at(4096, &format!("{store} {chosen}")), [1, 4]);
    let returned = "(i32.store8 (block (result i32) (local.get $at) (br_if 0 (i32.const 20000) (i32.const 1)) (drop)) (i32.const 1))";
    assert_eq!(marks_at(4096, &format!("{store} {returned}")), [1, 4]);
}

#[test]
fn a_trap_among_stores_to_one_address_leaves_more_marks_rather_than_fewer() {
    let run = |base: i64, between: &str| {
        let mut run = Run::new(&format!(
            "(module (memory 1 1) (func (export \"canister_update x\") (local $at i32)
               (local.set $at (i32.const {base}))
               (i32.store8 (local.get $at) (i32.const 1)) {between} (i32.store8 offset=4000 (local.get $at) (i32.const 1))))"
        ));
        run.call("x").expect_err("a trap");
        run.dirty()
    };
    assert_eq!(run(4000, "(drop (i32.div_u (i32.const 1) (i32.const 0)))"), [0, 1]);
    assert_eq!(run(65_535, ""), [15, 16], "a page behind the heap's end, which an instance leaves out");
    assert_eq!(run(65_536, ""), [0_u64; 0], "the first one traps");
}

#[test]
fn runs_go_through_what_is_straight_and_end_at_what_is_not() {
    let first = "(i32.store8 (local.get $at) (i32.const 1))";
    let second = "(i32.store8 offset=4000 (local.get $at) (i32.const 1))";
    for between in [
        "(block (nop))",
        "(block $b (br_table $b $b (local.get $other)))",
        "(drop (memory.grow (i32.const 1)))",
        "(memory.fill (i32.const 0) (i32.const 0) (i32.const 0))",
        "(drop (select (result i32) (i32.const 1) (i32.const 2) (local.get $other)))",
        "(call $nothing)",
    ] {
        let text = format!(
            "(module (memory 2) (func $nothing) (func (export \"canister_update x\") (local $at i32) (local $other i32)
               (local.set $at (i32.const 4000)) {first} {between} {second} (block {first} {second})))"
        );
        let mut run = Run::new(&text);
        run.call("x").unwrap_or_else(|error| panic!("{between}: {error:#}"));
        assert_eq!(run.dirty(), [0, 1], "{between}");
    }
}

#[test]
fn more_addresses_than_are_remembered_are_marked_all_the_same() {
    let locals = (0..20).map(|n| format!("(local $a{n} i32)")).collect::<String>();
    let sets =
        (0..20).map(|n| format!("(local.set $a{n} (i32.const {}))", n * 8192 + 4095)).collect::<String>();
    let stores = |offset: usize| {
        (0..20)
            .map(|n| format!("(i32.store8 offset={offset} (local.get $a{n}) (i32.const 1))"))
            .collect::<String>()
    };
    let mut run = Run::new(&format!(
        "(module (memory 4) (func (export \"canister_update x\") {locals} {sets} {} {}))",
        stores(0),
        stores(1)
    ));
    run.call("x").expect("it returns");
    assert_eq!(run.dirty(), (0..40).collect::<Vec<u64>>());
}

#[test]
fn stores_that_say_they_are_not_aligned_and_64_bit_runs_are_marked() {
    for pointer in ["i32", "i64"] {
        let body = format!(
            "(local $at {pointer}) (local.set $at ({pointer}.const 4094))
             (i32.store align=1 (local.get $at) (i32.const 1)) (i64.store offset=3000 align=2 (local.get $at) (i64.const 1))
             (i32.store align=1 ({pointer}.const 20478) (i32.const 1))"
        );
        assert_eq!(marks(pointer, &body), [0, 1, 4, 5], "{pointer}");
    }
}

#[test]
fn a_run_at_the_end_of_all_32_bit_addresses_wraps_and_traps() {
    let mut run = Run::new(
        "(module (memory 65536) (func (export \"canister_update x\") (local $at i32) (local.set $at (i32.const -1))
           (i32.store8 (local.get $at) (i32.const 1)) (i32.store8 offset=1 (local.get $at) (i32.const 1))))",
    );
    run.call("x").expect_err("out of bounds");
    assert_eq!(run.dirty(), [0, 1_048_575], "the last page, and one that was not written");
}

#[test]
fn functions_of_many_stores_mark_by_a_call_and_mark_the_same() {
    let stores = |count: usize| {
        let store = |n: usize| format!("(i32.store8 (i32.const {}) (i32.const 1))", n % 32 * 4096 + 4095);
        (0..count).map(store).collect::<String>()
    };
    let run = "(local $at i32) (local.set $at (i32.const 4095))";
    let crossing =
        "(i32.store (local.get $at) (i32.const 1)) (i32.store8 offset=10 (local.get $at) (i32.const 1))";
    let all: Vec<u64> = (0..32).collect();
    for count in [1, 1_998, 1_999, 2_000, 5_000] {
        let marked = marks("i32", &format!("{run} {crossing} {}", stores(count)));
        assert_eq!(marked, if count == 1 { vec![0, 1] } else { all.clone() }, "{count} stores");
    }
}
