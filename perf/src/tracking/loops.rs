//! Loops that write, as text of WebAssembly.

use super::barrier::{Barrier, Layout, Writer};
use crate::modules::{Heap, WASM_PAGE_BYTES, XORSHIFT, XORSHIFT_SEED};

/// Bytes that the loops write to.
pub(super) const RANGE_BYTES: u64 = 64 << 20;
const FILL_BYTES: u64 = 1 << 20;

/// A loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loop {
    /// One `i64.store` after another over the whole range.
    Sequential,
    /// The same, eight stores in each turn.
    Unrolled,
    /// Reads, adds and writes at random places of the range.
    Scattered,
    /// A turn of xorshift, and a store within 64 KiB.
    Compute,
    /// `memory.fill` of 1 MiB at a time.
    Fill,
    /// Stores to one page, over and over.
    OnePage,
}

/// Whether the loop also counts instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    Absent,
    /// At the loop's head: a subtraction from a global, a test.
    AtLoopHead,
}

impl Loop {
    /// All of them.
    pub(super) const ALL: [Self; 6] =
        [Self::Sequential, Self::Unrolled, Self::OnePage, Self::Scattered, Self::Compute, Self::Fill];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Unrolled => "unrolled",
            Self::Scattered => "scattered",
            Self::Compute => "compute",
            Self::Fill => "fill",
            Self::OnePage => "one-page",
        }
    }

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Sequential => "one store after another over 64 MB",
            Self::Unrolled => "the same, eight stores in a turn",
            Self::Scattered => "read, add and store at random places of 64 MB",
            Self::Compute => "xorshift and a store within 64 KB",
            Self::Fill => "memory.fill of 1 MB at a time (each byte)",
            Self::OnePage => "stores to one page, over and over",
        }
    }

    /// Whether it does nothing but store.
    pub(super) fn is_store_loop(self) -> bool {
        matches!(self, Self::Sequential | Self::Unrolled | Self::OnePage)
    }

    /// Operations of one run: stores, or bytes for `Fill`.
    pub(super) fn operations(self) -> u64 {
        match self {
            Self::Sequential | Self::Unrolled => RANGE_BYTES / 8,
            Self::Scattered => 1 << 20,
            Self::Compute | Self::OnePage => 1 << 22,
            Self::Fill => RANGE_BYTES,
        }
    }

    fn body(self, writer: Writer) -> String {
        let heap = writer.heap;
        let ty = heap.pointer();
        let address = |bits: u64| match heap {
            Heap::Bits32 => format!("(i32.wrap_i64 (i64.and (local.get $x) (i64.const {bits})))"),
            Heap::Bits64 => format!("(i64.and (local.get $x) (i64.const {bits}))"),
        };
        let count = format!(
            "(local.set $turn (i32.add (local.get $turn) (i32.const 1)))
             (br_if $next (i32.lt_u (local.get $turn) (i32.const {})))",
            self.operations()
        );
        match self {
            Self::Sequential => writer.store(0, "(local.get $x)") + &heap.advance(8, RANGE_BYTES),
            Self::Unrolled => {
                let stores: String = (0..8).map(|at| writer.store(8 * at, "(local.get $x)")).collect();
                stores + &heap.advance(64, RANGE_BYTES)
            }
            Self::Scattered => format!(
                "{XORSHIFT} (local.set $address {}) {} {count}",
                address(RANGE_BYTES - 8),
                writer.store(0, "(i64.add (local.get $x) (i64.load (local.get $address)))")
            ),
            Self::Compute => format!(
                "{XORSHIFT} (local.set $address {}) {} {count}",
                address(0xfff8),
                writer.store(0, "(local.get $x)")
            ),
            Self::Fill => format!(
                "(memory.fill (local.get $address) (i32.const 7) ({ty}.const {FILL_BYTES})) {} {}",
                writer.mark_range(FILL_BYTES),
                heap.advance(FILL_BYTES, RANGE_BYTES)
            ),
            Self::OnePage => format!(
                "(local.set $x (i64.add (local.get $x) (i64.const 8)))
                 (local.set $address ({ty}.add (local.get $base) {})) {} {count}",
                address(0xff8),
                writer.store(0, "(local.get $x)")
            ),
        }
    }
}

/// A loop, what goes with it, and the heap it runs on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub(super) body: Loop,
    pub(super) counter: Counter,
    pub(super) barrier: Barrier,
    pub(super) heap: Heap,
    /// Size of the heap.
    pub(super) bytes: u64,
}

impl Variant {
    fn writer(self) -> Writer {
        Writer { heap: self.heap, barrier: self.barrier, layout: Layout::new(self.bytes) }
    }

    fn pages(self) -> u64 {
        self.bytes / WASM_PAGE_BYTES
    }

    /// The function that runs the loop once.
    fn function(self, name: &str) -> String {
        // As the product counts: in a local, which is written back before a store.
        let (left, counted) = match self.counter {
            Counter::Absent => ("", ""),
            Counter::AtLoopHead => (
                "(local.set $left (global.get $counter))",
                "(local.set $left (i64.sub (local.get $left) (i64.const 9)))
                 (if (i64.lt_s (local.get $left) (i64.const 0)) (then (call $out_of_instructions)))
                 (global.set $counter (local.get $left))",
            ),
        };
        format!(
            "(func (export \"{name}\")
               (local $address {ty}) (local $base {ty}) (local $x i64) (local $value i64) (local $turn i32)
               (local $left i64)
               (local.set $x (i64.const {XORSHIFT_SEED}))
               (local.set $base (global.get $base))
               {left}
               (loop $next {counted} {body}))",
            ty = self.heap.pointer(),
            body = self.body.body(self.writer())
        )
    }

    /// A module with everything that instrumentation would add. Exports `run`, and `store`, which stores at an
    /// address.
    pub(super) fn module(self) -> String {
        let writer = self.writer();
        format!(
            "(module
               (import \"__\" \"out_of_instructions\" (func $out_of_instructions))
               (memory {ty} {heap_pages})
               (memory (export \"dirty\") {dirty_pages} {dirty_pages})
               (global $counter (mut i64) (i64.const {counter_start}))
               (global $listed (export \"listed\") (mut i32) (i32.const 0))
               (global $base (mut {ty}) ({ty}.const {WASM_PAGE_BYTES}))
               {functions}
               (func (export \"store\") (param $address {ty}) (local $value i64) {store})
               {run})",
            ty = self.heap.pointer(),
            heap_pages = self.pages(),
            dirty_pages = (writer.layout.end as u64).div_ceil(WASM_PAGE_BYTES),
            counter_start = i64::MAX,
            functions = writer.functions(),
            store = writer.store(0, "(i64.const 1)"),
            run = self.function("run"),
        )
    }

    /// The same loop as a canister: bare, to be instrumented by the product.
    pub(super) fn canister(self) -> String {
        let bare = Self { counter: Counter::Absent, barrier: Barrier::None, ..self };
        format!(
            "(module
               (memory {ty} {heap_pages})
               (global $base (mut {ty}) ({ty}.const {WASM_PAGE_BYTES}))
               {run})",
            ty = self.heap.pointer(),
            heap_pages = self.pages(),
            run = bare.function("canister_update run"),
        )
    }
}
