//! The mutation test of `check`: for each of its checks, a lie that only this check stops, with the nearest honest
//! claim beside it. Refusals are compared by their whole text, so a check that goes missing, moves its border or is
//! covered by another one makes the test fail that names its lie; and a check without a lie makes
//! [`every_refusal_in_the_source_has_a_lie`] fail.

mod table;

use std::sync::Arc;

use execution::check::{check, check_interface, stable_pages_accessible};
use execution::memory::{Arena, Blob, Memory, PAGE_BYTES, PageVersion};
use execution::module::{DataSegment, Interface};
use execution::outcome::LogLine;
use execution::{
    Answer, Callback, Effects, Ending, EntryPoint, ErrorCode, Freezing, GlobalValue, Invocation, Limits,
    Module, ModuleHash, Outcome, OutgoingCall, Principal, RunStatus, Snapshot, SystemView, Trap,
};

use table::LIES;

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
