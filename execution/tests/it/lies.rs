//! The mutation test of `check`: for each of its checks, a lie that only this check stops, with the nearest honest
//! claim beside it. Refusals are compared by their whole text, so a check that goes missing, moves its border or is
//! covered by another one makes the test fail that names its lie; and a check without a lie makes
//! [`every_refusal_in_the_source_has_a_lie`] fail.

use std::sync::Arc;

use execution::check::{check, check_interface, stable_pages_accessible};
use execution::memory::{Arena, Blob, Memory, PAGE_BYTES, PageVersion};
use execution::module::{DataSegment, Interface};
use execution::outcome::LogLine;
use execution::{
    Answer, Callback, Effects, Ending, EntryPoint, ErrorCode, Freezing, GlobalValue, Invocation, Limits,
    Module, ModuleHash, Outcome, OutgoingCall, Principal, RunStatus, Snapshot, SystemView, Trap,
};

const SOURCE: &str = include_str!("../../src/check.rs");

/// A run, and what a backend claims of it.
struct Claim {
    invocation: Invocation,
    snapshot: Snapshot,
    outcome: Outcome,
}

type Change = fn(&mut Claim);

/// What `check` says of the lie; the lie; the nearest claim that passes.
type Row = (&'static str, Change, Change);

fn principal(number: u8) -> Principal {
    Principal::from_slice(&[number, 1, 1])
}

/// Small bounds, so that they can be met.
fn limits() -> Limits {
    Limits {
        payload_bytes: 100,
        query_reply_bytes: 200,
        call_payload_bytes: 50,
        method_name_bytes: 20,
        calls_per_message: 4,
        calls_bytes: 120,
        queue_length: 3,
        heap32_bytes: 8 << 16,
        heap64_bytes: 16 << 16,
        stable_bytes: 4 << 16,
        stable_access_pages: [20, 30, 10],
        ..Limits::application()
    }
}

/// An update of a canister with a heap of two pages of ten and a page of stable memory, which did nothing.
fn honest() -> Claim {
    let interface = Interface {
        has_memory: true,
        heap_pages_min: 1,
        heap_pages_max: 10,
        globals: vec![GlobalValue::I64(0)],
        ..Interface::default()
    };
    let code = Blob::new(b"code").unwrap();
    let module = Module { hash: ModuleHash([1; 32]), wasm_bytes: 4, interface, code };
    let globals: Arc<[GlobalValue]> = Arc::from([GlobalValue::I64(0)]);
    Claim {
        invocation: Invocation {
            id: 1,
            entry: EntryPoint::Update { method: "m".into(), arg: Arc::from([]) },
            caller: principal(9),
            instructions_max: 1_000,
            slice: 1_000,
            system: SystemView {
                canister: principal(1),
                subnet: principal(255),
                time: 1,
                version: 1,
                status: RunStatus::Running,
                controllers: Vec::new(),
                balance: 1 << 60,
                freezing: Freezing::default(),
                cycles_available: 7,
                cycles_refunded: 0,
                deadline: 0,
                global_timer: 0,
                answered: false,
                answer_needed: true,
                call_context_instructions: 0,
                data_certificate: None,
                environment_variables: Vec::new(),
                root_key: Arc::from([0; 8]),
                wasm_memory_limit: 0,
                subnet_memory_available: 1 << 40,
                callbacks_free: 100,
                queue_taken: vec![(principal(2), 1)],
                log_capacity: 4096,
                log_bytes_free: 4096,
            },
            limits: Arc::new(limits()),
        },
        snapshot: Snapshot {
            canister: principal(1),
            module: Arc::new(module),
            arena: Arena::new(1 << 20).unwrap(),
            heap: Memory::zeroed(2),
            stable: Memory::zeroed(1),
            globals: Arc::clone(&globals),
        },
        outcome: Outcome {
            ending: Ending::Returned,
            instructions: 10,
            heap_pages_dirty: 0,
            stable_pages_dirty: 0,
            logs: Vec::new(),
            effects: Some(Effects { globals, ..Effects::default() }),
        },
    }
}

impl Claim {
    fn judged(self) -> Result<(), String> {
        let checked = check(&self.invocation, &self.snapshot, self.outcome);
        checked.map(drop).map_err(|violation| violation.to_string())
    }

    fn effects(&mut self) -> &mut Effects {
        self.outcome.effects.as_mut().unwrap()
    }

    fn limit(&mut self, change: fn(&mut Limits)) {
        change(Arc::make_mut(&mut self.invocation.limits));
    }

    fn interface(&mut self, change: fn(&mut Interface)) {
        let code = Blob::new(b"code").unwrap();
        let mut interface = self.snapshot.module.interface.clone();
        change(&mut interface);
        self.snapshot.module = Arc::new(Module { hash: ModuleHash([1; 32]), wasm_bytes: 4, interface, code });
    }

    /// Heap pages claimed, all counted.
    fn heap(&mut self, pages: &[u64]) {
        let versions = pages.iter().map(|&page| (page, self.page())).collect();
        self.effects().memory.heap = versions;
        self.outcome.heap_pages_dirty = pages.len() as u64;
    }

    fn stable(&mut self, pages: &[u64]) {
        let versions = pages.iter().map(|&page| (page, self.page())).collect();
        self.effects().memory.stable = versions;
        self.outcome.stable_pages_dirty = pages.len() as u64;
    }

    fn page(&self) -> PageVersion {
        self.snapshot.arena.store(&[1; PAGE_BYTES]).unwrap()
    }

    fn trapped(&mut self, code: ErrorCode, text_bytes: usize) {
        self.outcome.ending = Ending::Trapped(Trap { code, text: "x".repeat(text_bytes) });
        self.outcome.effects = None;
    }

    fn logs(&mut self, lines: usize, bytes: usize) {
        self.outcome.logs = vec![LogLine { text: vec![b'x'; bytes] }; lines];
    }

    fn calls(&mut self, count: usize, change: fn(&mut OutgoingCall)) {
        let mut call = call();
        change(&mut call);
        self.effects().calls = vec![call; count];
    }

    fn entry(&mut self, entry: EntryPoint) {
        self.invocation.entry = entry;
    }

    fn query(&mut self) {
        self.entry(EntryPoint::Query { method: "q".into(), arg: Arc::from([]) });
    }
}

fn call() -> OutgoingCall {
    let callback = Callback { function: 0, environment: 0 };
    OutgoingCall {
        callee: principal(3),
        method: "m".into(),
        arg: Vec::new(),
        cycles: 0,
        on_reply: callback,
        on_reject: callback,
        on_cleanup: None,
        timeout_seconds: None,
    }
}

fn replicated_query() -> EntryPoint {
    EntryPoint::ReplicatedQuery { method: "q".into(), arg: Arc::from([]) }
}

fn composite_query() -> EntryPoint {
    EntryPoint::CompositeQuery { method: "q".into(), arg: Arc::from([]) }
}

fn init() -> EntryPoint {
    EntryPoint::Init { arg: Arc::from([]) }
}

const LIES: &[Row] = &[
    (
        "1001 instructions used of 1000",
        |lie| lie.outcome.instructions = 1_001,
        |honest| honest.outcome.instructions = 1_000,
    ),
    ("log line of 32769 bytes", |lie| lie.logs(1, 32 * 1024 + 1), |honest| honest.logs(1, 32 * 1024)),
    ("more than 2097152 bytes of log", |lie| lie.logs(65, 32 * 1024), |honest| honest.logs(64, 32 * 1024)),
    (
        "more than 2097152 bytes of log",
        |lie| lie.logs(2 * 1024 * 1024 + 1, 0),
        |honest| {
            honest.logs(2 * 1024 * 1024, 0);
        },
    ),
    (
        "error code IC0599 for a trap",
        |lie| lie.trapped(ErrorCode(599), 0),
        |honest| {
            honest.trapped(ErrorCode::CALLED_TRAP, 0);
        },
    ),
    // A known code, but of what never happens inside a run.
    (
        "error code IC0207 for a trap",
        |lie| lie.trapped(ErrorCode::OUT_OF_CYCLES, 0),
        |honest| {
            honest.trapped(ErrorCode::INSTRUCTION_LIMIT, 0);
        },
    ),
    (
        "trap text of 65537 bytes",
        |lie| lie.trapped(ErrorCode::CALLED_TRAP, 64 * 1024 + 1),
        |honest| {
            honest.trapped(ErrorCode::CALLED_TRAP, 64 * 1024);
        },
    ),
    ("returned without effects", |lie| lie.outcome.effects = None, |_| {}),
    (
        "trapped with effects",
        |lie| lie.outcome.ending = Ending::Trapped(Trap { code: ErrorCode::CALLED_TRAP, text: "".into() }),
        |honest| honest.trapped(ErrorCode::CALLED_TRAP, 0),
    ),
    // What a trap had written is counted, up to the largest memories.
    (
        "161 dirty heap pages of 160",
        |lie| {
            lie.trapped(ErrorCode::CALLED_TRAP, 0);
            lie.outcome.heap_pages_dirty = 161;
        },
        |honest| {
            honest.trapped(ErrorCode::CALLED_TRAP, 0);
            honest.outcome.heap_pages_dirty = 160;
        },
    ),
    (
        "33 dirty heap pages of 32",
        |lie| lie.outcome.heap_pages_dirty = 33,
        |honest| honest.outcome.heap_pages_dirty = 32,
    ),
    (
        "1 dirty heap pages of 0",
        |lie| {
            lie.interface(|module| module.has_memory = false);
            lie.trapped(ErrorCode::CALLED_TRAP, 0);
            lie.outcome.heap_pages_dirty = 1;
        },
        |honest| {
            honest.interface(|module| module.has_memory = false);
            honest.trapped(ErrorCode::CALLED_TRAP, 0);
        },
    ),
    // Bounded by the memory of 16 pages, and by what a message may touch.
    (
        "17 dirty stable pages of 16",
        |lie| lie.outcome.stable_pages_dirty = 17,
        |honest| honest.outcome.stable_pages_dirty = 16,
    ),
    (
        "21 dirty stable pages of 20",
        |lie| {
            lie.effects().memory.stable_pages = Some(2);
            lie.outcome.stable_pages_dirty = 21;
        },
        |honest| {
            honest.effects().memory.stable_pages = Some(2);
            honest.outcome.stable_pages_dirty = 20;
        },
    ),
    (
        "11 dirty stable pages of 10",
        |lie| {
            lie.query();
            lie.outcome.stable_pages_dirty = 11;
        },
        |honest| {
            honest.query();
            honest.outcome.stable_pages_dirty = 10;
        },
    ),
    (
        "161 dirty heap pages of 160",
        |lie| {
            lie.query();
            lie.outcome.heap_pages_dirty = 161;
        },
        |honest| {
            honest.query();
            honest.outcome.heap_pages_dirty = 160;
        },
    ),
    (
        "replicated_query keeps no memory",
        |lie| {
            lie.entry(replicated_query());
            lie.effects().memory.heap_pages = Some(3);
        },
        |honest| {
            honest.entry(composite_query());
            honest.effects().memory.heap_pages = Some(3);
        },
    ),
    (
        "query keeps no memory",
        |lie| {
            lie.query();
            lie.effects().memory.stable_pages = Some(2);
        },
        |honest| honest.query(),
    ),
    (
        "query keeps no memory",
        |lie| {
            lie.query();
            lie.heap(&[0]);
        },
        |honest| {
            honest.entry(composite_query());
            honest.heap(&[0]);
        },
    ),
    (
        "query keeps no memory",
        |lie| {
            lie.query();
            lie.stable(&[0]);
        },
        |honest| {
            honest.entry(composite_query());
            honest.stable(&[0]);
        },
    ),
    (
        "heap shrank from 2 to 1 pages",
        |lie| lie.effects().memory.heap_pages = Some(1),
        |honest| honest.effects().memory.heap_pages = Some(2),
    ),
    (
        "stable memory shrank from 1 to 0 pages",
        |lie| lie.effects().memory.stable_pages = Some(0),
        |honest| honest.effects().memory.stable_pages = Some(1),
    ),
    // The module allows ten pages, the subnet eight.
    (
        "heap of 9 pages, 8 allowed",
        |lie| lie.effects().memory.heap_pages = Some(9),
        |honest| honest.effects().memory.heap_pages = Some(8),
    ),
    (
        "heap of 4 pages, 3 allowed",
        |lie| {
            lie.interface(|module| module.heap_pages_max = 3);
            lie.effects().memory.heap_pages = Some(4);
        },
        |honest| {
            honest.interface(|module| module.heap_pages_max = 3);
            honest.effects().memory.heap_pages = Some(3);
        },
    ),
    // A 64-bit heap has a limit of its own.
    (
        "heap of 17 pages, 16 allowed",
        |lie| {
            lie.interface(|module| (module.memory64, module.heap_pages_max) = (true, 100));
            lie.effects().memory.heap_pages = Some(17);
        },
        |honest| {
            honest.interface(|module| (module.memory64, module.heap_pages_max) = (true, 100));
            honest.effects().memory.heap_pages = Some(16);
        },
    ),
    (
        "stable memory of 5 pages, 4 allowed",
        |lie| lie.effects().memory.stable_pages = Some(5),
        |honest| honest.effects().memory.stable_pages = Some(4),
    ),
    // A memory above a limit that came down later may stay as it is.
    (
        "stable memory of 2 pages, 0 allowed",
        |lie| {
            lie.limit(|limits| limits.stable_bytes = 0);
            lie.effects().memory.stable_pages = Some(2);
        },
        |honest| honest.limit(|limits| limits.stable_bytes = 0),
    ),
    (
        "heap of 4 pages above wasm_memory_limit 196608",
        |lie| {
            lie.invocation.system.wasm_memory_limit = 3 << 16;
            lie.effects().memory.heap_pages = Some(4);
        },
        |honest| {
            honest.invocation.system.wasm_memory_limit = 3 << 16;
            honest.effects().memory.heap_pages = Some(3);
        },
    ),
    (
        "heap of 3 pages above wasm_memory_limit 1",
        |lie| {
            lie.invocation.system.wasm_memory_limit = 1;
            lie.effects().memory.heap_pages = Some(3);
        },
        // A heap that is above it already may stay.
        |honest| honest.invocation.system.wasm_memory_limit = 1,
    ),
    (
        "heap of 3 pages above wasm_memory_limit 1",
        |lie| {
            lie.entry(init());
            lie.invocation.system.wasm_memory_limit = 1;
            lie.effects().memory.heap_pages = Some(3);
        },
        // The limit is for what installs and what users send.
        |honest| {
            honest.entry(EntryPoint::Heartbeat);
            honest.invocation.system.wasm_memory_limit = 1;
            honest.effects().memory.heap_pages = Some(3);
        },
    ),
    (
        "131072 bytes more than the subnet's 131071",
        |lie| {
            lie.invocation.system.subnet_memory_available = (2 << 16) - 1;
            lie.effects().memory.heap_pages = Some(3);
            lie.effects().memory.stable_pages = Some(2);
        },
        |honest| {
            honest.invocation.system.subnet_memory_available = 2 << 16;
            honest.effects().memory.heap_pages = Some(3);
            honest.effects().memory.stable_pages = Some(2);
        },
    ),
    ("heap page 0 out of order", |lie| lie.heap(&[1, 0]), |honest| honest.heap(&[0, 1])),
    ("heap page 1 out of order", |lie| lie.heap(&[1, 1]), |honest| honest.heap(&[1, 2])),
    ("stable memory page 3 out of order", |lie| lie.stable(&[3, 3]), |honest| honest.stable(&[3, 4])),
    ("heap page 32 outside of 32", |lie| lie.heap(&[32]), |honest| honest.heap(&[31])),
    ("stable memory page 16 outside of 16", |lie| lie.stable(&[16]), |honest| honest.stable(&[15])),
    (
        "heap page 48 outside of 48",
        |lie| {
            lie.effects().memory.heap_pages = Some(3);
            lie.heap(&[48]);
        },
        |honest| {
            honest.effects().memory.heap_pages = Some(3);
            honest.heap(&[47]);
        },
    ),
    ("heap page 18446744073709551615 outside of 32", |lie| lie.heap(&[u64::MAX]), |honest| honest.heap(&[0])),
    (
        "uncounted heap pages",
        |lie| {
            lie.heap(&[0, 1]);
            lie.outcome.heap_pages_dirty = 1;
        },
        // Some of what was written may be what was there.
        |honest| {
            honest.heap(&[0, 1]);
            honest.outcome.heap_pages_dirty = 3;
        },
    ),
    (
        "uncounted stable pages",
        |lie| {
            lie.stable(&[0]);
            lie.outcome.stable_pages_dirty = 0;
        },
        |honest| honest.stable(&[0]),
    ),
    (
        "globals of another number or type",
        |lie| lie.effects().globals = Arc::from([]),
        |honest| honest.effects().globals = Arc::from([GlobalValue::I64(-1)]),
    ),
    (
        "globals of another number or type",
        |lie| lie.effects().globals = Arc::from([GlobalValue::F64(0)]),
        |_| {},
    ),
    (
        "globals of another number or type",
        |lie| lie.effects().globals = Arc::from([GlobalValue::I64(0); 2]),
        |_| {},
    ),
    (
        "a call in init",
        |lie| {
            lie.entry(init());
            lie.calls(1, |_| {});
        },
        |honest| {
            honest.entry(EntryPoint::Heartbeat);
            honest.calls(1, |_| {});
        },
    ),
    (
        "certified data in query",
        |lie| {
            lie.query();
            lie.effects().certified_data = Some(Vec::new());
        },
        |honest| honest.effects().certified_data = Some(Vec::new()),
    ),
    (
        "a timer in query",
        |lie| {
            lie.query();
            lie.effects().global_timer = Some(0);
        },
        |honest| honest.effects().global_timer = Some(0),
    ),
    (
        "accepted cycles in heartbeat",
        |lie| {
            lie.entry(EntryPoint::Heartbeat);
            lie.effects().cycles_accepted = 1;
        },
        |honest| {
            honest.entry(replicated_query());
            honest.effects().cycles_accepted = 1;
        },
    ),
    (
        "burnt cycles in composite_query",
        |lie| {
            lie.entry(composite_query());
            lie.effects().cycles_burned = 1;
        },
        |honest| {
            honest.entry(EntryPoint::PreUpgrade);
            honest.effects().cycles_burned = 1;
        },
    ),
    (
        "accept_message in update",
        |lie| lie.effects().accepted = true,
        |honest| {
            honest.entry(EntryPoint::InspectMessage { method: "m".into(), arg: Arc::from([]) });
            honest.effects().accepted = true;
        },
    ),
    (
        "8 cycles accepted of 7",
        |lie| lie.effects().cycles_accepted = 8,
        |honest| honest.effects().cycles_accepted = 7,
    ),
    (
        "33 bytes of certified data",
        |lie| lie.effects().certified_data = Some(vec![0; 33]),
        |honest| honest.effects().certified_data = Some(vec![0; 32]),
    ),
    (
        "an answer in heartbeat",
        |lie| {
            lie.entry(EntryPoint::Heartbeat);
            lie.effects().answer = Some(Answer::Reply(Vec::new()));
        },
        |honest| honest.effects().answer = Some(Answer::Reply(Vec::new())),
    ),
    (
        "an answer that nobody waits for",
        |lie| {
            lie.invocation.system.answer_needed = false;
            lie.effects().answer = Some(Answer::Reply(Vec::new()));
        },
        |honest| honest.invocation.system.answer_needed = false,
    ),
    (
        "a second answer",
        |lie| {
            lie.invocation.system.answered = true;
            lie.effects().answer = Some(Answer::Reject(String::new()));
        },
        |honest| honest.invocation.system.answered = true,
    ),
    (
        "answer of 101 bytes, 100 allowed",
        |lie| lie.effects().answer = Some(Answer::Reply(vec![0; 101])),
        |honest| honest.effects().answer = Some(Answer::Reply(vec![0; 100])),
    ),
    (
        "answer of 201 bytes, 200 allowed",
        |lie| {
            lie.query();
            lie.effects().answer = Some(Answer::Reply(vec![0; 201]));
        },
        |honest| {
            honest.entry(composite_query());
            honest.effects().answer = Some(Answer::Reply(vec![0; 200]));
        },
    ),
    (
        "answer of 101 bytes, 100 allowed",
        |lie| {
            lie.query();
            lie.effects().answer = Some(Answer::Reject("x".repeat(101)));
        },
        |honest| honest.effects().answer = Some(Answer::Reject("x".repeat(100))),
    ),
    (
        "5 calls",
        |lie| lie.calls(5, |_| {}),
        |honest| {
            honest.effects().calls =
                (0..4).map(|n| OutgoingCall { callee: principal(10 + n), ..call() }).collect();
        },
    ),
    (
        "2 calls with 1 callback slots",
        |lie| {
            lie.invocation.system.callbacks_free = 1;
            lie.calls(2, |_| {});
        },
        |honest| {
            honest.invocation.system.callbacks_free = 1;
            honest.calls(1, |_| {});
        },
    ),
    (
        "method name of 21 bytes",
        |lie| lie.calls(1, |call| call.method = "x".repeat(21)),
        |honest| honest.calls(1, |call| call.method = "x".repeat(20)),
    ),
    (
        "call of 51 bytes",
        |lie| lie.calls(1, |call| call.arg = vec![0; 50]),
        |honest| honest.calls(1, |call| call.arg = vec![0; 49]),
    ),
    (
        "calls of 123 bytes",
        |lie| lie.calls(3, |call| call.arg = vec![0; 40]),
        |honest| honest.calls(3, |call| call.arg = vec![0; 39]),
    ),
    (
        "timeout of 301 s",
        |lie| lie.calls(1, |call| call.timeout_seconds = Some(301)),
        |honest| honest.calls(1, |call| call.timeout_seconds = Some(300)),
    ),
    (
        "cycles in a query's call",
        |lie| {
            lie.entry(composite_query());
            lie.calls(1, |call| call.cycles = 1);
        },
        |honest| honest.calls(1, |call| call.cycles = 1),
    ),
    // One place of this queue of three is taken.
    (
        "queue to slmqz-kycae-aq over its length",
        |lie| lie.calls(3, |call| call.callee = principal(2)),
        |honest| honest.calls(2, |call| call.callee = principal(2)),
    ),
    // Both names of the management canister are one queue.
    (
        "queue to aaaaa-aa over its length",
        |lie| {
            let subnet = OutgoingCall { callee: principal(255), ..call() };
            let management = OutgoingCall { callee: Principal::management_canister(), ..call() };
            lie.effects().calls = vec![subnet.clone(), subnet.clone(), subnet, management];
        },
        |honest| {
            let subnet = OutgoingCall { callee: principal(255), ..call() };
            let management = OutgoingCall { callee: Principal::management_canister(), ..call() };
            honest.effects().calls = vec![subnet.clone(), subnet, management];
        },
    ),
    (
        "more cycles spent than the 100 there were",
        |lie| {
            lie.invocation.system.balance = 100;
            lie.effects().cycles_burned = 101;
        },
        |honest| {
            honest.invocation.system.balance = 100;
            honest.effects().cycles_burned = 100;
        },
    ),
    // What comes with the call may be spent; what doesn't, not.
    (
        "more cycles spent than the 100 there were",
        |lie| {
            lie.invocation.system.balance = 100;
            lie.effects().cycles_accepted = 7;
            lie.effects().cycles_burned = 108;
        },
        |honest| {
            honest.invocation.system.balance = 100;
            honest.effects().cycles_accepted = 7;
            honest.effects().cycles_burned = 107;
        },
    ),
    (
        "more cycles spent than the 1152921504606846976 there were",
        |lie| lie.calls(2, |call| call.cycles = u128::MAX),
        |honest| honest.calls(2, |call| call.cycles = 1),
    ),
    (
        "more cycles spent than the 340282366920938463463374607431768211455 there were",
        |lie| {
            lie.invocation.system.balance = u128::MAX;
            lie.effects().cycles_accepted = 1;
        },
        |honest| honest.invocation.system.balance = u128::MAX,
    ),
];

#[test]
fn each_lie_is_stopped_by_its_own_check_and_the_nearest_honest_claim_passes() {
    assert_eq!(honest().judged(), Ok(()));
    for (index, (said, lie, near)) in LIES.iter().enumerate() {
        let mut claim = honest();
        lie(&mut claim);
        assert_eq!(claim.judged(), Err((*said).to_owned()), "lie {index}");
        let mut claim = honest();
        near(&mut claim);
        assert_eq!(claim.judged(), Ok(()), "beside lie {index}: {said}");
    }
}

/// What a call costs besides the cycles attached, from the price list (`canister-execution.md` section 3.6): the call,
/// its bytes, the longest reply, and running the callback.
#[test]
fn a_call_is_paid_to_the_cycle() {
    let limits = limits();
    let prices = &limits.prices;
    let bytes = "m".len() as u128 + 10;
    let reply = u128::from(limits.payload_bytes);
    let callback = prices.message + prices.instruction * u128::from(limits.update_instructions);
    let cost = prices.call + prices.call_byte * (bytes + reply) + callback;
    for (balance, passes) in [(2 * cost + 4, true), (2 * cost + 3, false)] {
        let mut claim = honest();
        claim.invocation.system.balance = balance;
        claim.calls(2, |call| {
            call.arg = vec![0; 10];
            call.cycles = 2;
        });
        assert_eq!(claim.judged().is_ok(), passes, "a balance of {balance}");
    }
    // A 64-bit canister's callback costs twice the instructions.
    let dear = cost + prices.instruction * u128::from(limits.update_instructions);
    for (balance, passes) in [(dear, true), (dear - 1, false)] {
        let mut claim = honest();
        claim.interface(|module| module.memory64 = true);
        claim.invocation.system.balance = balance;
        claim.calls(1, |call| call.arg = vec![0; 10]);
        assert_eq!(claim.judged().is_ok(), passes, "a balance of {balance}");
    }
    // What a query claims to spend is nothing: it has no cycles to spend.
    let mut claim = honest();
    claim.entry(composite_query());
    claim.invocation.system.balance = 0;
    claim.calls(1, |_| {});
    assert_eq!(claim.judged(), Ok(()));
}

type InterfaceRow = (&'static str, fn(&mut Interface), fn(&mut Interface));

const INTERFACE_LIES: &[InterfaceRow] = &[
    (
        "a heap without a memory",
        |lie| lie.has_memory = false,
        |honest| (honest.has_memory, honest.heap_pages_min, honest.heap_pages_max) = (false, 0, 0),
    ),
    (
        "a heap without a memory",
        |lie| (lie.has_memory, lie.heap_pages_min) = (false, 0),
        |honest| (honest.heap_pages_min, honest.heap_pages_max) = (0, 0),
    ),
    (
        "a heap without a memory",
        |lie| {
            (lie.has_memory, lie.heap_pages_min, lie.heap_pages_max) = (false, 0, 0);
            lie.data = vec![DataSegment { offset: 0, bytes: Vec::new() }];
        },
        |honest| honest.data = vec![DataSegment { offset: 0, bytes: Vec::new() }],
    ),
    ("heap of 1 to 9 pages, 8 allowed", |lie| lie.heap_pages_max = 9, |honest| honest.heap_pages_max = 8),
    (
        "heap of 1 to 17 pages, 16 allowed",
        |lie| (lie.memory64, lie.heap_pages_max) = (true, 17),
        |honest| (honest.memory64, honest.heap_pages_max) = (true, 16),
    ),
    ("heap of 5 to 4 pages, 8 allowed", |lie| lie.heap_pages_min = 5, |honest| honest.heap_pages_min = 4),
    (
        "1001 globals",
        |lie| lie.globals = vec![GlobalValue::I32(0); 1_001],
        |honest| honest.globals = vec![GlobalValue::I32(0); 1_000],
    ),
    (
        "data segment at 65535 outside of 65536 bytes",
        |lie| lie.data = vec![DataSegment { offset: 65_535, bytes: vec![1; 2] }],
        |honest| honest.data = vec![DataSegment { offset: 65_535, bytes: vec![1] }],
    ),
    (
        "data segment at 18446744073709551615 outside of 65536 bytes",
        |lie| lie.data = vec![DataSegment { offset: u64::MAX, bytes: vec![1] }],
        |_| {},
    ),
];

#[test]
fn each_lie_about_a_module_is_stopped_by_its_own_check() {
    let honest = || Interface {
        has_memory: true,
        heap_pages_min: 1,
        heap_pages_max: 4,
        globals: vec![GlobalValue::I32(0)],
        ..Interface::default()
    };
    let judged = |change: fn(&mut Interface)| {
        let mut interface = honest();
        change(&mut interface);
        check_interface(&interface, &limits()).map_err(|violation| violation.to_string())
    };
    for (said, lie, near) in INTERFACE_LIES {
        assert_eq!(judged(*lie), Err((*said).to_owned()));
        assert_eq!(judged(*near), Ok(()), "beside: {said}");
    }
}

/// The texts of all refusals in the source, with `{}` for what is put in.
fn refusals() -> Vec<Vec<String>> {
    // Their definitions.
    let source = SOURCE.replace("fn require(", "").replace("Err(Violation(claim()))", "");
    let mut sites: Vec<usize> = ["require(", "Violation("]
        .iter()
        .flat_map(|site| source.match_indices(site))
        .map(|(at, _)| at)
        .collect();
    sites.sort_unstable();
    sites
        .into_iter()
        .map(|at| {
            let (before, text) = source[at..].split_once('"').expect("every refusal has a text");
            let text = text.split_once('"').expect("a whole literal").0;
            let text = text.replace("\\\n", "");
            let text = if before.ends_with("refuse(") { format!("{text} in {{}}") } else { text };
            // The pieces between what is put in.
            text.split('{')
                .enumerate()
                .map(|(n, piece)| {
                    let piece = if n == 0 { piece } else { piece.split_once('}').expect("closed").1 };
                    piece.to_owned()
                })
                .collect()
        })
        .collect()
}

/// Whether `said` is `refusal` with something short put in.
fn is(said: &str, refusal: &[String]) -> bool {
    let Some(mut rest) = said.strip_prefix(refusal[0].as_str()) else { return false };
    for (n, piece) in refusal.iter().enumerate().skip(1) {
        let last = n + 1 == refusal.len();
        let at = if last && piece.is_empty() { Some(rest.len()) } else { rest.find(piece.as_str()) };
        let Some(at) = at.filter(|at| rest[..*at].split(' ').count() <= 2) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty()
}

#[test]
fn every_refusal_in_the_source_has_a_lie() {
    let refusals = refusals();
    assert!(refusals.len() > 40, "{} refusals were found", refusals.len());
    let said: Vec<&str> =
        LIES.iter().map(|row| row.0).chain(INTERFACE_LIES.iter().map(|row| row.0)).collect();
    for refusal in &refusals {
        assert!(said.iter().any(|said| is(said, refusal)), "no lie is stopped by {refusal:?}");
    }
    for said in said {
        assert!(refusals.iter().any(|refusal| is(said, refusal)), "no check says {said:?}");
    }
}

/// Entry points by the names that `canister-execution.md` section 2 gives their contexts.
fn contexts() -> Vec<(&'static str, EntryPoint)> {
    let callback = Callback { function: 0, environment: 0 };
    let data: Arc<[u8]> = Arc::from([]);
    let reply = |composite| EntryPoint::Reply { callback, data: Arc::clone(&data), composite };
    let reject = |composite| EntryPoint::Reject { callback, code: 4, message: String::new(), composite };
    let cleanup = |composite| EntryPoint::Cleanup { callback, code: 0, composite };
    let (method, arg) = (String::from("m"), Arc::clone(&data));
    vec![
        ("s", EntryPoint::Start),
        ("I", init()),
        ("I", EntryPoint::PostUpgrade { arg: Arc::clone(&data) }),
        ("G", EntryPoint::PreUpgrade),
        ("U", EntryPoint::Update { method: method.clone(), arg: Arc::clone(&arg) }),
        ("RQ", replicated_query()),
        ("NRQ", EntryPoint::Query { method: method.clone(), arg: Arc::clone(&arg) }),
        ("TQ", EntryPoint::Transform { method: method.clone(), arg: Arc::clone(&arg) }),
        ("CQ", composite_query()),
        ("Ry", reply(false)),
        ("Rt", reject(false)),
        ("CRy", reply(true)),
        ("CRt", reject(true)),
        ("C", cleanup(false)),
        ("CC", cleanup(true)),
        ("F", EntryPoint::InspectMessage { method, arg }),
        ("T", EntryPoint::Heartbeat),
        ("T", EntryPoint::GlobalTimer),
        ("T", EntryPoint::LowWasmMemory),
    ]
}

#[test]
fn an_effect_passes_in_the_contexts_that_may_have_it_and_in_no_other() {
    let table: [(&str, Change, &str); 11] = [
        (
            "an answer",
            |claim| claim.effects().answer = Some(Answer::Reply(Vec::new())),
            "U RQ NRQ TQ CQ Ry Rt CRy CRt",
        ),
        ("a call", |claim| claim.calls(1, |_| {}), "U CQ Ry Rt CRy CRt T"),
        ("cycles of a call", |claim| claim.calls(1, |call| call.cycles = 1), "U Ry Rt T"),
        ("certified data", |claim| claim.effects().certified_data = Some(vec![1]), "I G U Ry Rt T"),
        ("a timer", |claim| claim.effects().global_timer = Some(1), "I G U Ry Rt C T"),
        ("accepted cycles", |claim| claim.effects().cycles_accepted = 1, "U RQ Ry Rt"),
        ("burnt cycles", |claim| claim.effects().cycles_burned = 1, "I G U RQ Ry Rt C T"),
        ("accept_message", |claim| claim.effects().accepted = true, "F"),
        // Kept by what is committed, and as the overlay of a composite query's next step.
        ("a written page", |claim| claim.heap(&[0]), "s I G U Ry Rt C T CQ CRy CRt CC"),
        ("growth", |claim| claim.effects().memory.stable_pages = Some(2), "s I G U Ry Rt C T CQ CRy CRt CC"),
        // Where no wasm_memory_limit is in force, or no heap is kept.
        (
            "a heap above wasm_memory_limit",
            |claim| {
                claim.invocation.system.wasm_memory_limit = 1;
                claim.effects().memory.heap_pages = Some(3);
            },
            "G Ry Rt C T CQ CRy CRt CC",
        ),
    ];
    for (effect, change, allowed) in table {
        for (context, entry) in contexts() {
            let mut claim = honest();
            claim.entry(entry.clone());
            change(&mut claim);
            let passes = allowed.split(' ').any(|name| name == context);
            let judged = claim.judged();
            assert_eq!(judged.is_ok(), passes, "{effect} in {}: {judged:?}", entry.kind());
        }
    }
}

#[test]
fn a_message_touches_as_many_stable_pages_as_its_kind_may() {
    for (context, entry) in contexts() {
        let [short, long, query] = limits().stable_access_pages;
        let expected = match context {
            "I" | "G" => long,
            "s" | "U" | "Ry" | "Rt" | "C" | "T" => short,
            _ => query,
        };
        assert_eq!(stable_pages_accessible(&entry, &limits()), expected, "{}", entry.kind());
    }
}
