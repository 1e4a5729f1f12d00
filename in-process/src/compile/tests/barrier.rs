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
    // A byte and a list entry of four for each page, their number, and the counter.
    assert_eq!(pages("1 819"), 1);
    assert_eq!(pages("1 820"), 2);
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
