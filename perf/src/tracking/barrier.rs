//! Ways in which code can tell which pages of its heap it wrote, as text of WebAssembly.
//!
//! Memory 1 holds, in this order: one byte for each 4 KiB page of the heap; one byte for each 64 of those
//! (the summary); room for a list of page indices (the list).

use crate::modules::Heap;

/// Log2 of the bytes in a tracked page.
const PAGE_BITS: u32 = 12;
/// Log2 of the pages that one byte of the summary stands for.
pub(super) const SUMMARY_BITS: u32 = 6;

/// `expression`, an address, as an `i32` index of its page.
fn page(heap: Heap, expression: &str) -> String {
    match heap {
        Heap::Bits32 => format!("(i32.shr_u {expression} (i32.const {PAGE_BITS}))"),
        Heap::Bits64 => format!("(i32.wrap_i64 (i64.shr_u {expression} (i64.const {PAGE_BITS})))"),
    }
}

/// What follows each store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    /// Nothing: the limit.
    None,
    /// The bytes of the first and the last page written are set.
    Bytes,
    /// Both bytes are read; if one is zero, a function sets it and appends the page to the list.
    List,
    /// The bytes of both pages and of their summaries are set.
    Summary,
    /// Both bytes are read; if one is zero, a function sets it and its byte of the summary.
    SummaryOnce,
}

impl Barrier {
    /// All of them; the limit first.
    pub(super) const ALL: [Self; 5] = [Self::None, Self::Bytes, Self::List, Self::Summary, Self::SummaryOnce];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::Summary => "bytes and summary",
            Self::SummaryOnce => "summary at first write",
        }
    }
}

/// Where memory 1 has what, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) pages: usize,
    pub(super) summary: usize,
    pub(super) list: usize,
    pub(super) end: usize,
}

impl Layout {
    /// For a heap of `bytes` bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let pages = usize::try_from(bytes >> PAGE_BITS).expect("a heap fits the address space");
        let list = (pages + (pages >> SUMMARY_BITS)).next_multiple_of(8);
        Self { pages, summary: pages, list, end: list + 4 * pages }
    }
}

/// Writes the barrier's code for one heap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) heap: Heap,
    pub(super) barrier: Barrier,
    pub(super) layout: Layout,
}

impl Writer {
    /// `i64.store` of `value` at local `$address` + `offset`, and its barrier. Uses local `$value`.
    pub(super) fn store(self, offset: u32, value: &str) -> String {
        let mark = self.mark(offset);
        format!(
            "(local.set $value {value})
             (i64.store offset={offset} (local.get $address) (local.get $value))
             {mark}\n"
        )
    }

    /// What follows a store of eight bytes at `$address` + `offset`.
    fn mark(self, offset: u32) -> String {
        let (first, last) = (self.page_at(offset), self.page_at(offset + 7));
        match self.barrier {
            Barrier::None => String::new(),
            Barrier::Bytes => [&first, &last].map(|page| set(page)).concat(),
            Barrier::Summary => [&first, &last].map(|page| set(page) + &self.set_summary(page)).concat(),
            Barrier::List | Barrier::SummaryOnce => format!(
                "(if (i32.eqz (i32.and (i32.load8_u 1 {first}) (i32.load8_u 1 {last})))
                   (then (call $mark {first} {last})))"
            ),
        }
    }

    /// What follows a `memory.fill` of `bytes` bytes at local `$address`.
    pub(super) fn mark_range(self, bytes: u64) -> String {
        let ty = self.heap.pointer();
        let end = format!("({ty}.add (local.get $address) ({ty}.const {}))", bytes - 1);
        let call = |function| format!("(call {function} {} {})", self.page_at(0), page(self.heap, &end));
        match self.barrier {
            Barrier::None => String::new(),
            Barrier::Bytes => call("$set_range"),
            Barrier::Summary => call("$set_range") + &call("$set_summary_range"),
            Barrier::List | Barrier::SummaryOnce => call("$mark_range"),
        }
    }

    fn address(self, offset: u32) -> String {
        let ty = self.heap.pointer();
        match offset {
            0 => "(local.get $address)".into(),
            offset => format!("({ty}.add (local.get $address) ({ty}.const {offset}))"),
        }
    }

    fn page_at(self, offset: u32) -> String {
        page(self.heap, &self.address(offset))
    }

    fn set_summary(self, page: &str) -> String {
        format!(
            "(i32.store8 1 offset={} (i32.shr_u {page} (i32.const {SUMMARY_BITS})) (i32.const 1))",
            self.layout.summary
        )
    }

    /// The functions that the barrier calls.
    pub(super) fn functions(self) -> String {
        let first_time = match self.barrier {
            Barrier::SummaryOnce => self.set_summary("(local.get $page)"),
            _ => format!(
                "(i32.store 1 offset={} (i32.shl (global.get $listed) (i32.const 2)) (local.get $page))
                 (global.set $listed (i32.add (global.get $listed) (i32.const 1)))",
                self.layout.list
            ),
        };
        let set = set("(local.get $page)");
        let (summary, summary_bits) = (self.layout.summary, SUMMARY_BITS);
        format!(
            "(func $mark_page (param $page i32)
               (if (i32.eqz (i32.load8_u 1 (local.get $page))) (then {set} {first_time})))
             (func $mark (param $first i32) (param $last i32)
               (call $mark_page (local.get $first))
               (call $mark_page (local.get $last)))
             (func $mark_range (param $page i32) (param $last i32)
               (loop $next
                 (call $mark_page (local.get $page))
                 (local.set $page (i32.add (local.get $page) (i32.const 1)))
                 (br_if $next (i32.le_u (local.get $page) (local.get $last)))))
             (func $set_range (param $first i32) (param $last i32)
               (memory.fill 1 (local.get $first) (i32.const 1)
                 (i32.add (i32.sub (local.get $last) (local.get $first)) (i32.const 1))))
             (func $set_summary_range (param $first i32) (param $last i32)
               (local.set $first (i32.shr_u (local.get $first) (i32.const {summary_bits})))
               (memory.fill 1 (i32.add (local.get $first) (i32.const {summary})) (i32.const 1)
                 (i32.add (i32.const 1)
                   (i32.sub (i32.shr_u (local.get $last) (i32.const {summary_bits})) (local.get $first)))))"
        )
    }
}

fn set(page: &str) -> String {
    format!("(i32.store8 1 {page} (i32.const 1))")
}
