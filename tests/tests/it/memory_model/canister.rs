//! The canister under test: its module, its programs, and its state of record without a node around it.

use std::fmt::Write as _;
use std::sync::Arc;

use execution::memory::{Arena, Memory};
use execution::{
    Backend, BackendError, Callback, Compiler, EntryPoint, Execution, Freezing, Invocation, Limits, Module,
    Outcome, Principal, RunStatus, Snapshot, SystemView,
};
use in_process::Engine;
use in_process::compile::ModuleCompiler;

/// Heap of a canister at its start, 64 KiB pages.
pub(super) const HEAP_PAGES_MIN: u64 = 2;
/// Where the active data segment lies: across the first page's end.
pub(super) const ACTIVE_AT: usize = 4090;
/// The active data segment.
pub(super) const ACTIVE: &[u8] = b"data of the module";
/// Bytes of the passive data segment: more than two pages of 4 KiB.
const PASSIVE_BYTES: usize = 10_000;
/// Bytes of a record, the form in which an [`Op`] is read.
pub(super) const RECORD_BYTES: usize = 32;
/// Instructions of a message: enough for every program but one that spins.
const INSTRUCTIONS_MAX: u64 = 10_000_000;
/// Instructions of `whole`: a reply costs many for each byte.
const WHOLE_INSTRUCTIONS_MAX: u64 = 100_000_000;
/// Operation codes of stores are below: two for each of [`STORES`].
const FIRST_OTHER: u64 = 100;

/// The passive data segment.
pub(super) fn passive() -> Vec<u8> {
    (0..PASSIVE_BYTES).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// Every store instruction: its name, the lane that it names, its value made of the local `$b`, its width.
pub(super) const STORES: [(&str, &str, &str, usize); 14] = [
    ("i32.store8", "", "(i32.wrap_i64 (local.get $b))", 1),
    ("i32.store16", "", "(i32.wrap_i64 (local.get $b))", 2),
    ("i32.store", "", "(i32.wrap_i64 (local.get $b))", 4),
    ("i64.store8", "", "(local.get $b)", 1),
    ("i64.store16", "", "(local.get $b)", 2),
    ("i64.store32", "", "(local.get $b)", 4),
    ("i64.store", "", "(local.get $b)", 8),
    ("f32.store", "", "(f32.reinterpret_i32 (i32.wrap_i64 (local.get $b)))", 4),
    ("f64.store", "", "(f64.reinterpret_i64 (local.get $b))", 8),
    ("v128.store", "", "(i64x2.splat (local.get $b))", 16),
    ("v128.store8_lane", "0", "(i64x2.splat (local.get $b))", 1),
    ("v128.store16_lane", "0", "(i64x2.splat (local.get $b))", 2),
    ("v128.store32_lane", "0", "(i64x2.splat (local.get $b))", 4),
    ("v128.store64_lane", "0", "(i64x2.splat (local.get $b))", 8),
];

/// The static offsets that stores are there with.
pub(super) const OFFSETS: [u64; 2] = [0, 4093];

/// What a program consists of. Addresses and sizes are the guest's: a 32-bit canister drops their upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A store of `value` at `at` with a static offset; indices of [`STORES`] and [`OFFSETS`].
    Store { store: usize, offset: usize, at: u64, value: u64 },
    /// `memory.fill`.
    Fill { at: u64, byte: u8, bytes: u64 },
    /// `memory.copy`.
    Copy { to: u64, from: u64, bytes: u64 },
    /// `memory.init` from the passive segment.
    Init { to: u64, from: u64, bytes: u64 },
    /// `data.drop` of the passive segment; nothing in a canister that has no such instruction.
    Drop,
    /// `memory.grow`; the answer goes into a global.
    Grow { pages: u64 },
    /// `stable64_grow`; the answer goes into the same global.
    StableGrow { pages: u64 },
    /// `stable64_write`.
    StableWrite { to: u64, from: u64, bytes: u64 },
    /// `stable64_read`.
    StableRead { to: u64, from: u64, bytes: u64 },
    /// `msg_arg_data_copy` of the program itself.
    Arg { to: u64, from: u64, bytes: u64 },
    /// Sets the other globals to what `value` gives in their types.
    Globals { value: u64 },
    /// Stores all globals, four stores one after the other.
    Spill { at: u64 },
    /// Appends a range of the heap to the reply.
    Look { at: u64, bytes: u64 },
    /// Ends it with `unreachable`.
    Unreachable,
    /// Ends it by using up all instructions.
    Spin,
}

impl Op {
    fn record(self) -> [u64; 4] {
        let other = |code: u64, [a, b, c]: [u64; 3]| [FIRST_OTHER + code, a, b, c];
        match self {
            Self::Store { store, offset, at, value } => {
                [(store * OFFSETS.len() + offset) as u64, at, value, 0]
            }
            Self::Fill { at, byte, bytes } => other(0, [at, byte.into(), bytes]),
            Self::Copy { to, from, bytes } => other(1, [to, from, bytes]),
            Self::Init { to, from, bytes } => other(2, [to, from, bytes]),
            Self::Drop => other(3, [0; 3]),
            Self::Grow { pages } => other(4, [pages, 0, 0]),
            Self::StableGrow { pages } => other(5, [pages, 0, 0]),
            Self::StableWrite { to, from, bytes } => other(6, [to, from, bytes]),
            Self::StableRead { to, from, bytes } => other(7, [to, from, bytes]),
            Self::Arg { to, from, bytes } => other(8, [to, from, bytes]),
            Self::Globals { value } => other(9, [value, 0, 0]),
            Self::Spill { at } => other(10, [at, 0, 0]),
            Self::Look { at, bytes } => other(11, [at, bytes, 0]),
            Self::Unreachable => other(12, [0; 3]),
            Self::Spin => other(13, [0; 3]),
        }
    }
}

/// A program as the canister takes it: in its argument or in a reply.
pub(super) fn encode(ops: &[Op]) -> Arc<[u8]> {
    ops.iter().flat_map(|op| op.record()).flat_map(u64::to_le_bytes).collect()
}

/// What a canister's module is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Whether the heap is 64-bit.
    pub(super) memory64: bool,
    /// Whether the code has a `data.drop`.
    pub(super) drops: bool,
    /// Largest heap, 64 KiB pages.
    pub(super) heap_pages_max: u64,
}

impl Kind {
    /// The module as text. Its methods:
    ///
    /// - `run`, an update, `ask`, a query, `step`, a composite query, and function 0, a callback: go through
    ///   the program in their argument, record by record. Each is first copied to a scratch address, which is
    ///   the time: the only input that a canister reads without writing. Then they reply.
    /// - `whole`, a query: replies with the whole heap and the whole stable memory.
    fn text(self) -> String {
        let (p, memory) = if self.memory64 { ("i64", "i64") } else { ("i32", "") };
        let mut passive = String::new();
        for byte in self::passive() {
            write!(passive, "\\{byte:02x}").expect("a string takes text");
        }
        let active: String = ACTIVE.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let runs = ["update run", "query ask", "composite_query step"]
            .map(|export| format!(r#"(func (export "canister_{export}") (call $run) (call $reply))"#))
            .concat();
        format!(
            r#"(module
            (import "ic0" "time" (func $time (result i64)))
            (import "ic0" "msg_arg_data_size" (func $arg_size (result {p})))
            (import "ic0" "msg_arg_data_copy" (func $arg_copy (param {p} {p} {p})))
            (import "ic0" "msg_reply_data_append" (func $append (param {p} {p})))
            (import "ic0" "msg_reply" (func $reply))
            (import "ic0" "stable64_size" (func $stable_size (result i64)))
            (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
            (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
            (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
            (memory {memory} {HEAP_PAGES_MIN} {max})
            (table 1 1 funcref) (elem (i32.const 0) $callback)
            (data ({p}.const {ACTIVE_AT}) "{active}")
            (data $passive "{passive}")
            (global $result (mut i64) (i64.const 0))
            (global $number (mut i32) (i32.const 1))
            (global $float (mut f64) (f64.const 0.5))
            (global $vector (mut v128) (v128.const i64x2 2 3))
            (func $run
                (local $at i64) (local $scratch i64) (local $op i64) (local $a i64) (local $b i64) (local $c i64)
                (local.set $scratch (call $time))
                (loop $next
                    (if (i64.lt_u (local.get $at) {arg_size}) (then
                        (call $arg_copy {scratch} {at} ({p}.const {RECORD_BYTES}))
                        (local.set $op (i64.load {scratch}))
                        (local.set $a (i64.load offset=8 {scratch}))
                        (local.set $b (i64.load offset=16 {scratch}))
                        (local.set $c (i64.load offset=24 {scratch}))
                        (local.set $at (i64.add (local.get $at) (i64.const {RECORD_BYTES})))
                        {ops}
                        (br $next)))))
            {runs}
            (func $callback (param {p}) (call $run) (call $reply))
            (func (export "canister_query whole") (local $at i64) (local $end i64)
                (call $append ({p}.const 0) ({p}.mul (memory.size) ({p}.const 65536)))
                (local.set $end (i64.mul (call $stable_size) (i64.const 65536)))
                (loop $next
                    (if (i64.lt_u (local.get $at) (local.get $end)) (then
                        (call $stable_read (i64.const 0) (local.get $at) (i64.const 4096))
                        (call $append ({p}.const 0) ({p}.const 4096))
                        (local.set $at (i64.add (local.get $at) (i64.const 4096)))
                        (br $next))))
                (call $reply)))"#,
            max = self.heap_pages_max,
            arg_size = if self.memory64 { "(call $arg_size)" } else { "(i64.extend_i32_u (call $arg_size))" },
            scratch = self.pointer("$scratch"),
            at = self.pointer("$at"),
            ops = self.ops(),
        )
    }

    /// A local as an address of the heap or a size in it.
    fn pointer(self, local: &str) -> String {
        if self.memory64 {
            format!("(local.get {local})")
        } else {
            format!("(i32.wrap_i64 (local.get {local}))")
        }
    }

    /// The code of every operation, for its record in `$op`, `$a`, `$b` and `$c`.
    fn ops(self) -> String {
        let [a, b, c] = ["$a", "$b", "$c"].map(|local| self.pointer(local));
        let low = |local: &str| format!("(i32.wrap_i64 (local.get {local}))");
        let mut code = String::new();
        let mut case = |number: u64, body: &str| {
            writeln!(code, "(if (i64.eq (local.get $op) (i64.const {number})) (then {body}))")
                .expect("a string takes text");
        };
        let stores = STORES.iter().flat_map(|store| OFFSETS.iter().map(move |offset| (store, offset)));
        for (number, ((name, lane, value, _), offset)) in (0..).zip(stores) {
            case(number, &format!("({name} offset={offset} {lane} {a} {value})"));
        }
        let grown = if self.memory64 {
            "(memory.grow (local.get $a))"
        } else {
            "(i64.extend_i32_s (memory.grow (i32.wrap_i64 (local.get $a))))"
        };
        let drop = if self.drops { "(data.drop $passive)" } else { "" };
        let others = [
            format!("(memory.fill {a} {} {c})", low("$b")),
            format!("(memory.copy {a} {b} {c})"),
            format!("(memory.init $passive {a} {} {})", low("$b"), low("$c")),
            drop.to_owned(),
            format!("(global.set $result {grown})"),
            "(global.set $result (call $stable_grow (local.get $a)))".to_owned(),
            "(call $stable_write (local.get $a) (local.get $b) (local.get $c))".to_owned(),
            "(call $stable_read (local.get $a) (local.get $b) (local.get $c))".to_owned(),
            format!("(call $arg_copy {a} {b} {c})"),
            format!(
                "(global.set $number {}) (global.set $float (f64.reinterpret_i64 (local.get $a)))
                 (global.set $vector (i64x2.splat (local.get $a)))",
                low("$a")
            ),
            format!(
                "(i64.store {a} (global.get $result)) (i32.store offset=8 {a} (global.get $number))
                 (f64.store offset=16 {a} (global.get $float)) (v128.store offset=24 {a} (global.get $vector))"
            ),
            format!("(call $append {a} {b})"),
            "(unreachable)".to_owned(),
            "(loop $on (br $on))".to_owned(),
        ];
        for (number, body) in (FIRST_OTHER..).zip(&others) {
            case(number, body);
        }
        code
    }

    /// Compiles the module.
    pub(super) fn compile(self, engine: &Engine) -> Arc<Module> {
        let wasm = wat::parse_str(self.text()).expect("the text is a module");
        let compiler = ModuleCompiler::new(engine.clone(), Arc::new(Limits::application()));
        compiler.compile(&wasm).expect("the compiler works").expect("the module is a canister's")
    }
}

/// An arena for the page versions of one canister. The one place that makes arenas.
pub(super) fn arena(bytes: u64) -> Arc<Arena> {
    Arena::new(bytes).expect("the kernel gives a memory file")
}

/// A canister's state of record, and what it takes to run messages on it.
#[derive(Clone, Debug)]
pub(super) struct Canister {
    pub(super) snapshot: Snapshot,
    pub(super) limits: Arc<Limits>,
}

impl Canister {
    /// A canister whose code has just been installed.
    pub(super) fn new(number: u64, module: &Arc<Module>, limits: &Arc<Limits>, arena_bytes: u64) -> Self {
        let arena = arena(arena_bytes);
        let interface = &module.interface;
        let segments = interface.data.iter().map(|segment| (segment.offset, segment.bytes.as_slice()));
        let heap = Memory::with_segments(&arena, interface.heap_pages_min, segments).expect("it has room");
        let mut id = [1; 10];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let snapshot = Snapshot {
            canister: Principal::from_slice(&id),
            globals: interface.globals.clone().into(),
            module: Arc::clone(module),
            arena,
            heap,
            stable: Memory::zeroed(0),
        };
        Self { snapshot, limits: Arc::clone(limits) }
    }

    /// A message for it. `scratch` is where `run` and its like put the record that it is at.
    pub(super) fn invocation(&self, id: u64, entry: EntryPoint, scratch: u64) -> Invocation {
        let whole = entry.method() == Some("whole");
        let instructions_max = if whole { WHOLE_INSTRUCTIONS_MAX } else { INSTRUCTIONS_MAX };
        Invocation {
            id,
            entry,
            caller: Principal::anonymous(),
            instructions_max,
            slice: instructions_max,
            system: SystemView {
                canister: self.snapshot.canister,
                subnet: Principal::management_canister(),
                time: scratch,
                version: 1,
                status: RunStatus::Running,
                controllers: vec![Principal::anonymous()],
                balance: 1 << 90,
                freezing: Freezing::default(),
                cycles_available: 0,
                cycles_refunded: 0,
                deadline: 0,
                global_timer: 0,
                answered: false,
                answer_needed: true,
                call_context_instructions: 0,
                data_certificate: None,
                environment_variables: Vec::new(),
                root_key: Arc::from([]),
                wasm_memory_limit: 0,
                subnet_memory_available: 1 << 40,
                callbacks_free: 1000,
                queue_taken: Vec::new(),
                log_capacity: 4096,
                log_bytes_free: 4096,
            },
            limits: Arc::clone(&self.limits),
        }
    }
}

/// The response to the one call of a composite query, or of an update.
pub(super) fn reply(data: Arc<[u8]>, composite: bool) -> EntryPoint {
    EntryPoint::Reply { callback: Callback { function: 0, environment: 0 }, data, composite }
}

/// The snapshot that an outcome leads to: as a commit does it, and a composite query between its steps.
pub(super) fn after(snapshot: &Snapshot, outcome: &Outcome) -> Snapshot {
    let Some(effects) = &outcome.effects else { return snapshot.clone() };
    let delta = &effects.memory;
    let with = |memory: &Memory, pages: Option<u64>, written: &[_]| {
        memory.with(pages.unwrap_or(memory.wasm_pages()), written.iter().cloned())
    };
    Snapshot {
        heap: with(&snapshot.heap, delta.heap_pages, &delta.heap),
        stable: with(&snapshot.stable, delta.stable_pages, &delta.stable),
        globals: Arc::clone(&effects.globals),
        ..snapshot.clone()
    }
}

/// Runs a message where the node would run it: replicated ones on the update side.
pub(super) fn run(
    backend: &dyn Backend,
    snapshot: &Snapshot,
    invocation: &Invocation,
    overlay: Option<&Snapshot>,
) -> Result<Outcome, BackendError> {
    if !invocation.entry.is_replicated() {
        return backend.query(snapshot, invocation, overlay);
    }
    match backend.execute(snapshot, invocation)? {
        Execution::Finished(outcome) => Ok(outcome),
        Execution::Paused(_) => panic!("a message of one slice has no pause"),
    }
}
