//! Memories as large as they may be: what lies at their ends works, and only written pages cost anything.

use bulkhead_node::node::on_executor_stack;
use execution::memory::{PAGE_BYTES, WASM_PAGE_BYTES};
use execution::{GlobalValue, Limits};
use in_process::Engine;

use super::canister::{Kind, Op};
use super::subject::{Subject, assert_trapped, pages, reply};
use super::ways;

const PAGE: u64 = PAGE_BYTES as u64;
const GIB: u64 = 1 << 30;
/// What the tests below write, in pages, and the pages of the module's data.
const PAGES_USED_MAX: usize = 12;

/// An `i64.store`.
const fn store(at: u64, value: u64) -> Op {
    Op::Store { store: 6, offset: 0, at, value }
}

/// Runs a test in both modes, each warm and fresh.
fn in_all_ways(kind: Kind, test: impl Fn(&mut Subject<'_>) + Sync) {
    let engine = Engine::new().expect("the engine starts");
    let module = kind.compile(&engine);
    let ways = [
        ways::in_process(&engine),
        ways::in_process_fresh(&engine),
        ways::sandboxed(),
        ways::sandboxed_fresh(),
    ];
    for way in ways {
        println!("{}:", way.name);
        on_executor_stack(|| {
            let mut subject = Subject::new(&way, &module);
            test(&mut subject);
            let used = subject.bytes_used();
            assert!(used <= PAGES_USED_MAX * PAGE_BYTES, "{}: {used} bytes of the arena", way.name);
        });
    }
}

#[test]
fn the_last_page_of_a_heap_of_4_gib_is_written_read_and_restored() {
    let kind = Kind { memory64: false, drops: false, heap_pages_max: 4 * GIB / WASM_PAGE_BYTES };
    in_all_ways(kind, |subject| {
        let grown = subject.update(&[Op::Grow { pages: 65_534 }, store(4 * GIB - 8, 1)]);
        let delta = &grown.effects.as_ref().expect("it returned").memory;
        assert_eq!((delta.heap_pages, pages(&delta.heap)), (Some(65_536), vec![0, 4 * GIB / PAGE - 1]));
        assert_eq!(delta.heap[1].1.bytes()[PAGE_BYTES - 8..], 1_u64.to_le_bytes());

        let look = [Op::Look { at: 4 * GIB - 16, bytes: 16 }];
        let expected = [0_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
        assert_eq!(subject.ask(&look), expected);
        assert_trapped(&subject.update(&[store(4 * GIB - 8, 2), Op::Unreachable]), "unreachable");
        assert_trapped(&subject.update(&[store(4 * GIB - 7, 2)]), "heap out of bounds");
        assert!(subject.ask(&[store(4 * GIB - 16, 3)]).is_empty(), "it only writes");
        assert_eq!(reply(&subject.update(&look)), expected);
        // Across 2 GiB, where a signed offset would end; by the host; and no further page.
        let line = 2 * GIB - 4;
        let more = subject.update(&[
            store(line, 4),
            Op::Arg { to: 3 * GIB - 1, from: 0, bytes: 2 },
            Op::Copy { to: 4 * GIB - 32, from: line, bytes: 8 },
            Op::Grow { pages: 1 },
        ]);
        let delta = &more.effects.as_ref().expect("it returned").memory;
        let [two, three, four] = [2, 3, 4].map(|gib: u64| gib * GIB / PAGE);
        assert_eq!(pages(&delta.heap), [0, two - 1, two, three - 1, three, four - 1]);
        assert_eq!((delta.heap_pages, subject.result()), (None, GlobalValue::I64(-1)));
    });
}

#[test]
fn pages_beyond_4_gib_and_the_last_page_of_a_heap_of_6_gib_are_written_read_and_restored() {
    let kind = Kind { memory64: true, drops: false, heap_pages_max: 6 * GIB / WASM_PAGE_BYTES };
    in_all_ways(kind, |subject| {
        let grown = subject.update(&[
            Op::Grow { pages: 98_302 },
            // Across the line that 32 bits end at.
            store(4 * GIB - 4, 0x0807_0605_0403_0201),
            // Mistaken for an address of 32 bits, it would be page 5.
            store(4 * GIB + 5 * PAGE, 5),
            store(6 * GIB - 8, 6),
        ]);
        let delta = &grown.effects.as_ref().expect("it returned").memory;
        let (line, last) = (4 * GIB / PAGE, 6 * GIB / PAGE - 1);
        let wanted = vec![0, line - 1, line, line + 5, last];
        assert_eq!((delta.heap_pages, pages(&delta.heap)), (Some(98_304), wanted));

        let look = [
            Op::Look { at: 4 * GIB - 4, bytes: 8 },
            Op::Look { at: 4 * GIB + 5 * PAGE, bytes: 1 },
            Op::Look { at: 5 * PAGE, bytes: 1 },
            Op::Look { at: 6 * GIB - 8, bytes: 8 },
        ];
        let expected = [1, 2, 3, 4, 5, 6, 7, 8, 5, 0, 6, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(subject.ask(&look), expected);
        assert_trapped(&subject.update(&[store(6 * GIB - 8, 7), Op::Unreachable]), "unreachable");
        assert_trapped(&subject.update(&[store(6 * GIB - 7, 7)]), "heap out of bounds");
        assert_trapped(&subject.update(&[store(u64::MAX - 3, 7)]), "heap out of bounds");
        assert!(subject.ask(&[Op::Fill { at: 4 * GIB - 4, byte: 9, bytes: 8 }]).is_empty(), "it only writes");
        assert_eq!(reply(&subject.update(&look)), expected);
        subject.update(&[Op::Grow { pages: 1 }]);
        assert_eq!(subject.result(), GlobalValue::I64(-1), "that is all there is");
    });
}

#[test]
fn the_end_of_a_stable_memory_of_500_gib_is_written_read_and_restored() {
    let kind = Kind { memory64: true, drops: false, heap_pages_max: 16 };
    let end = Limits::application().stable_bytes;
    assert_eq!(end, 500 * GIB);
    in_all_ways(kind, |subject| {
        let read =
            |from, bytes| [Op::StableRead { to: 8 * PAGE, from, bytes }, Op::Look { at: 8 * PAGE, bytes }];
        let grown = subject.update(&[
            Op::StableGrow { pages: end / WASM_PAGE_BYTES },
            Op::Fill { at: 4 * PAGE, byte: 1, bytes: PAGE },
            // Its end, and the end of the page before it.
            Op::StableWrite { to: end - PAGE - 2, from: 4 * PAGE, bytes: 4 },
            Op::StableWrite { to: end - 1, from: 4 * PAGE, bytes: 1 },
        ]);
        let delta = &grown.effects.as_ref().expect("it returned").memory;
        assert_eq!(delta.stable_pages, Some(end / WASM_PAGE_BYTES));
        assert_eq!(pages(&delta.stable), [end / PAGE - 2, end / PAGE - 1]);
        assert_eq!((grown.stable_pages_dirty, subject.result()), (2, GlobalValue::I64(0)));

        let last = |subject: &mut Subject<'_>| subject.ask(&read(end - PAGE - 4, PAGE + 4));
        let expected = [[0, 0, 1, 1, 1, 1].as_slice(), &[0; PAGE_BYTES - 3], &[1]].concat();
        assert_eq!(last(subject), expected);
        let write = Op::StableWrite { to: end - 8, from: 4 * PAGE, bytes: 8 };
        assert_trapped(&subject.update(&[write, Op::Unreachable]), "unreachable");
        let over = Op::StableWrite { to: end - 8, from: 4 * PAGE, bytes: 9 };
        assert_trapped(&subject.update(&[over]), "stable memory out of bounds");
        assert!(subject.ask(&[write]).is_empty(), "it only writes");
        assert_eq!(last(subject), expected);
        assert_eq!(subject.ask(&read(end / 2, 3)), [0; 3], "nothing was ever written there");
        subject.update(&[Op::StableGrow { pages: 1 }]);
        assert_eq!(subject.result(), GlobalValue::I64(-1), "that is all there is");
    });
}
