//! Canister modules and pieces of them, as text of WebAssembly.

/// Bytes by which heaps grow.
pub(crate) const WASM_PAGE_BYTES: u64 = 1 << 16;

/// Width of heap addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heap {
    Bits32,
    Bits64,
}

impl Heap {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Bits32, Self::Bits64];

    /// Bits of an address.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }

    /// The type of an address.
    pub(crate) fn pointer(self) -> &'static str {
        match self {
            Self::Bits32 => "i32",
            Self::Bits64 => "i64",
        }
    }

    /// A loop that runs `body` with local `$address` at 0, `stride`, ... below `end`.
    pub(crate) fn walk(self, body: &str, stride: u64, end: u64) -> String {
        format!("(loop $next {body} {})", self.advance(stride, end))
    }

    /// The end of such a loop.
    pub(crate) fn advance(self, stride: u64, end: u64) -> String {
        let ty = self.pointer();
        format!(
            "(local.set $address ({ty}.add (local.get $address) ({ty}.const {stride})))
             (br_if $next ({ty}.lt_u (local.get $address) ({ty}.const {end})))"
        )
    }
}

/// One turn of a random generator with its state in local `$x`, an `i64`.
pub(crate) const XORSHIFT: &str =
    "(local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
     (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
     (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))";
/// Its first state.
pub(crate) const XORSHIFT_SEED: u64 = 88_172_645_463_325_252;

/// Words that [`memory`]'s loops handle in one turn.
const UNROLLED: u64 = 8;

/// A canister with a heap of `bytes` bytes and methods `empty`, `store` (writes every word), `fill` (the same
/// by `memory.fill`), `load` (reads every word) and `pages` (writes a word in each of the first `dirty` pages).
pub(crate) fn memory(heap: Heap, bytes: u64, dirty: u64) -> String {
    let ty = heap.pointer();
    let stores: String = (0..UNROLLED)
        .map(|word| format!("(i64.store offset={} (local.get $address) (global.get $value))", 8 * word))
        .collect();
    // As the bare reader is compiled: two words at a time, into sums that don't wait for each other.
    let loads: String = (0..UNROLLED)
        .map(|pair| {
            let sum = if pair % 2 == 0 { "$even" } else { "$odd" };
            format!(
                "(local.set {sum} (i64x2.add (local.get {sum}) (v128.load offset={} (local.get $address))))",
                16 * pair
            )
        })
        .collect();
    let store_loop = heap.walk(&stores, 8 * UNROLLED, bytes);
    let load_loop = heap.walk(&loads, 16 * UNROLLED, bytes);
    let page_loop = heap.walk("(i64.store (local.get $address) (global.get $value))", 4096, 4096 * dirty);
    format!(
        "(module
           (import \"ic0\" \"msg_reply\" (func $reply))
           (memory {ty} {heap_pages})
           (global $value (mut i64) (i64.const 0))
           (func $change (global.set $value (i64.add (global.get $value) (i64.const 0x0101010101010101))))
           (func (export \"canister_update empty\") (call $reply))
           (func (export \"canister_update store\") (local $address {ty})
             (call $change) {store_loop} (call $reply))
           (func (export \"canister_update fill\")
             (call $change)
             (memory.fill ({ty}.const 0) (i32.wrap_i64 (global.get $value)) ({ty}.const {bytes}))
             (call $reply))
           (func (export \"canister_update load\") (local $address {ty}) (local $even v128) (local $odd v128)
             {load_loop}
             (global.set $value (i64x2.extract_lane 0 (i64x2.add (local.get $even) (local.get $odd))))
             (call $reply))
           (func (export \"canister_update pages\") (local $address {ty})
             (call $change) {page_loop} (call $reply)))",
        heap_pages = bytes / WASM_PAGE_BYTES
    )
}

/// A canister that computes `turns` turns of xorshift in method `compute`.
pub(crate) fn compute(turns: u64) -> String {
    format!(
        "(module
           (import \"ic0\" \"msg_reply\" (func $reply))
           (memory 1)
           (global $result (mut i64) (i64.const 0))
           (func (export \"canister_update compute\") (local $x i64) (local $turn i64)
             (local.set $x (i64.const {XORSHIFT_SEED}))
             (loop $next
               {XORSHIFT}
               (local.set $turn (i64.add (local.get $turn) (i64.const 1)))
               (br_if $next (i64.lt_u (local.get $turn) (i64.const {turns}))))
             (global.set $result (local.get $x))
             (call $reply)))"
    )
}

/// Module of the bare host whose functions may refuse.
pub(crate) const REFUSABLE: &str = "refusable";

/// System API calls of [`system_calls`]'s method.
pub(crate) const SYSTEM_CALLS: u32 = 1_000;

/// A canister with methods `calls`, which makes [`SYSTEM_CALLS`] System API calls in a loop, and `turns`, the same loop
/// without them. `module` has the function `time` that is called: `ic0`, or [`REFUSABLE`].
pub(crate) fn system_calls(module: &str) -> String {
    let function = |name: &str, body: &str| {
        format!(
            "(func (export \"canister_update {name}\") (local $turn i32)
               (loop $next
                 {body}
                 (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
                 (br_if $next (i32.lt_u (local.get $turn) (i32.const {SYSTEM_CALLS}))))
               (call $reply))"
        )
    };
    format!(
        "(module
           (import \"ic0\" \"msg_reply\" (func $reply))
           (import \"{module}\" \"time\" (func $time (result i64)))
           (memory 1)
           (global $sum (mut i64) (i64.const 0))
           {}
           {})",
        function("calls", "(global.set $sum (i64.add (global.get $sum) (call $time)))"),
        function("turns", "(global.set $sum (i64.add (global.get $sum) (i64.const 1)))")
    )
}

/// A canister whose method `kernel` computes a Fibonacci number by calling itself: hardly anything but calls.
pub(crate) fn calls() -> String {
    "(module
       (memory 1)
       (global $result (mut i32) (i32.const 0))
       (func $fibonacci (param $n i32) (result i32)
         (if (result i32) (i32.lt_u (local.get $n) (i32.const 2))
           (then (local.get $n))
           (else (i32.add
             (call $fibonacci (i32.sub (local.get $n) (i32.const 1)))
             (call $fibonacci (i32.sub (local.get $n) (i32.const 2)))))))
       (func (export \"canister_update kernel\") (global.set $result (call $fibonacci (i32.const 24)))))"
        .into()
}

/// A canister whose method `kernel` sums a MiB word by word, eight times: a loop as tight as loads can be in.
pub(crate) fn loads() -> String {
    let walk = Heap::Bits32.walk(
        "(local.set $sum (i64.add (local.get $sum) (i64.load (local.get $address))))",
        8,
        16 * WASM_PAGE_BYTES,
    );
    format!(
        "(module
           (memory 16)
           (global $result (mut i64) (i64.const 0))
           (func (export \"canister_update kernel\") (local $address i32) (local $sum i64) (local $turn i32)
             (loop $again
               (local.set $address (i32.const 0))
               {walk}
               (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
               (br_if $again (i32.lt_u (local.get $turn) (i32.const 8))))
             (global.set $result (local.get $sum))))"
    )
}
