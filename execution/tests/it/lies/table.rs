//! The lies, and beside each the nearest claim that passes.

use std::sync::Arc;

use execution::outcome::OutgoingCall;
use execution::{Answer, Ending, EntryPoint, ErrorCode, GlobalValue, Principal, Trap};

use super::{Row, call, composite_query, init, principal, replicated_query};

pub(super) const LIES: &[Row] = &[
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
