//! One lie each: `check` refuses what no correct backend says, and never panics.

use std::sync::Arc;

use execution::memory::PAGE_BYTES;
use execution::outcome::LogLine;
use execution::{Answer, Callback, Ending, ErrorCode, GlobalValue, Outcome, OutgoingCall, Principal, Trap};

use crate::scripted::{BALANCE, Bench, NOTHING, Op, call};

type Lie = fn(&mut Outcome);

/// What check says of an honest update's outcome after `lie`.
fn lied(lie: fn(&mut Outcome)) -> Option<String> {
    judged("run", lie)
}

fn judged(method: &'static str, lie: fn(&mut Outcome)) -> Option<String> {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let program = bench.program([Op::Lie(lie)]);
    bench.submit(a, method, &program.to_be_bytes()).unwrap();
    let before = bench.state(a).code.clone().unwrap();
    let report = bench.round();
    let violation = report.failures.first().map(|failure| {
        assert!(failure.violation);
        failure.error.clone()
    });
    if violation.is_some() {
        let after = bench.state(a).code.clone().unwrap();
        assert_eq!((after.globals, after.heap.wasm_pages()), (before.globals, before.heap.wasm_pages()));
    }
    violation
}

fn effects(outcome: &mut Outcome) -> &mut execution::Effects {
    outcome.effects.as_mut().unwrap()
}

fn outgoing() -> OutgoingCall {
    let callback = Callback { function: 0, environment: 0 };
    OutgoingCall {
        callee: Principal::from_slice(&[1; 10]),
        method: "m".into(),
        arg: Vec::new(),
        cycles: 0,
        on_reply: callback,
        on_reject: callback,
        on_cleanup: None,
        timeout_seconds: None,
    }
}

fn trapped(outcome: &mut Outcome, code: ErrorCode, text: String) {
    outcome.ending = Ending::Trapped(Trap { code, text });
    outcome.effects = None;
}

/// Versions of a page made in another arena: content doesn't matter to the checks.
fn page() -> execution::memory::PageVersion {
    execution::memory::Arena::new(1 << 16).unwrap().store(&[1; PAGE_BYTES]).unwrap()
}

#[test]
fn an_honest_outcome_passes() {
    assert_eq!(lied(|_| {}), None);
    assert_eq!(lied(|outcome| effects(outcome).calls = vec![outgoing()]), None);
}

#[test]
fn instructions_over_the_limit_are_refused() {
    assert!(lied(|outcome| outcome.instructions = 40_000_000_001).is_some());
    assert!(lied(|outcome| outcome.instructions = u64::MAX).is_some());
}

#[test]
fn effects_that_do_not_fit_the_ending_are_refused() {
    assert!(lied(|outcome| outcome.effects = None).is_some());
    assert_eq!(lied(|outcome| trapped(outcome, ErrorCode::CALLED_TRAP, String::new())), None);
    assert!(
        lied(|outcome| {
            let text = String::new();
            outcome.ending = Ending::Trapped(Trap { code: ErrorCode::CALLED_TRAP, text });
        })
        .is_some()
    );
}

#[test]
fn unknown_foreign_and_oversized_traps_are_refused() {
    assert!(lied(|outcome| trapped(outcome, ErrorCode(599), String::new())).is_some());
    assert!(lied(|outcome| trapped(outcome, ErrorCode::OUT_OF_CYCLES, String::new())).is_some());
    let long = |outcome: &mut Outcome| trapped(outcome, ErrorCode::CALLED_TRAP, "x".repeat(64 * 1024 + 1));
    assert!(lied(long).is_some());
}

#[test]
fn too_much_log_is_refused() {
    assert!(lied(|outcome| outcome.logs = vec![LogLine { text: vec![0; 32 * 1024 + 1] }]).is_some());
    assert!(lied(|outcome| outcome.logs = vec![LogLine { text: vec![0; 32 * 1024] }; 65]).is_some());
    assert!(lied(|outcome| outcome.logs = vec![LogLine { text: Vec::new() }; 2 * 1024 * 1024 + 1]).is_some());
}

#[test]
fn memory_that_shrinks_or_grows_too_far_is_refused() {
    assert!(lied(|outcome| effects(outcome).memory.heap_pages = Some(0)).is_some());
    assert!(lied(|outcome| effects(outcome).memory.heap_pages = Some(11)).is_some());
    assert!(lied(|outcome| effects(outcome).memory.heap_pages = Some(u64::MAX)).is_some());
    assert!(lied(|outcome| effects(outcome).memory.stable_pages = Some(500 * 16 * 1024 + 1)).is_some());
    assert!(lied(|outcome| effects(outcome).memory.stable_pages = Some(u64::MAX)).is_some());
    assert_eq!(lied(|outcome| effects(outcome).memory.heap_pages = Some(10)), None);
}

#[test]
fn pages_out_of_order_repeated_outside_or_uncounted_are_refused() {
    fn with(outcome: &mut Outcome, pages: &[u64]) {
        effects(outcome).memory.heap = pages.iter().map(|&index| (index, page())).collect();
        outcome.heap_pages_dirty = pages.len() as u64;
    }
    assert_eq!(lied(|outcome| with(outcome, &[0, 15])), None);
    assert!(lied(|outcome| with(outcome, &[1, 0])).is_some());
    assert!(lied(|outcome| with(outcome, &[1, 1])).is_some());
    assert!(lied(|outcome| with(outcome, &[16])).is_some());
    assert!(lied(|outcome| with(outcome, &[u64::MAX])).is_some());
    assert!(lied(|outcome| effects(outcome).memory.heap = vec![(0, page())]).is_some());
    assert!(
        lied(|outcome| {
            effects(outcome).memory.stable = vec![(0, page())];
            outcome.stable_pages_dirty = 1;
        })
        .is_some()
    );
    assert!(lied(|outcome| outcome.heap_pages_dirty = 17).is_some());
    assert!(lied(|outcome| outcome.stable_pages_dirty = u64::MAX).is_some());
}

#[test]
fn globals_of_another_number_or_type_are_refused() {
    assert!(lied(|outcome| effects(outcome).globals = Arc::from([])).is_some());
    assert!(lied(|outcome| effects(outcome).globals = Arc::from([GlobalValue::I32(1)])).is_some());
    let two = |outcome: &mut Outcome| effects(outcome).globals = Arc::from([GlobalValue::I64(1); 2]);
    assert!(lied(two).is_some());
}

#[test]
fn answers_that_are_too_long_are_refused() {
    assert_eq!(lied(|outcome| effects(outcome).answer = Some(Answer::Reply(vec![0; 2 << 20]))), None);
    assert!(lied(|outcome| effects(outcome).answer = Some(Answer::Reply(vec![0; (2 << 20) + 1]))).is_some());
    let reject =
        |outcome: &mut Outcome| effects(outcome).answer = Some(Answer::Reject("x".repeat((2 << 20) + 1)));
    assert!(lied(reject).is_some());
}

#[test]
fn a_second_answer_and_one_that_nobody_waits_for_are_refused() {
    let answer = |outcome: &mut Outcome| effects(outcome).answer = Some(Answer::Reply(Vec::new()));
    let mut bench = Bench::new();
    let a = bench.canister("");
    let liar = bench.program([Op::Lie(answer)]);
    let program = bench.program([Op::Call(call(a, NOTHING, liar)), Op::Reply(Vec::new())]);
    bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    assert_eq!(bench.round().failures[0].error, "violation: a second answer");
    let mut bench = Bench::new();
    let liar = bench.program([Op::Lie(answer)]);
    bench.canister(&format!("heartbeat={liar}"));
    assert_eq!(bench.round().failures[0].error, "violation: an answer in heartbeat");
}

#[test]
fn effects_outside_their_context_are_refused() {
    let lies: [(&str, Lie); 5] = [
        ("a call in replicated_query", |outcome| effects(outcome).calls = vec![outgoing()]),
        ("certified data in replicated_query", |outcome| effects(outcome).certified_data = Some(vec![])),
        ("a timer in replicated_query", |outcome| effects(outcome).global_timer = Some(1)),
        ("accept_message in replicated_query", |outcome| effects(outcome).accepted = true),
        ("replicated_query keeps no memory", |outcome| effects(outcome).memory.heap_pages = Some(1)),
    ];
    for (claim, lie) in lies {
        assert_eq!(judged("ask", lie).unwrap(), format!("violation: {claim}"));
    }
    let mut bench = Bench::new();
    let id = bench.empty_canister();
    let liar = bench.program([Op::Lie(|outcome| effects(outcome).cycles_accepted = 1)]);
    let arg = crate::scripted::install_arg(id, crate::scripted::Mode::Install, "init", liar);
    bench.submit(Principal::management_canister(), "install_code", &arg).unwrap();
    assert_eq!(bench.round().failures[0].error, "violation: accepted cycles in init");
    assert!(bench.state(id).code.is_none());
}

#[test]
fn cycles_that_are_not_there_are_refused() {
    assert!(lied(|outcome| effects(outcome).cycles_accepted = 1).is_some());
    assert!(lied(|outcome| effects(outcome).cycles_burned = BALANCE).is_some());
    assert!(lied(|outcome| effects(outcome).cycles_burned = u128::MAX).is_some());
    let attached = |outcome: &mut Outcome| {
        let call = OutgoingCall { cycles: BALANCE, ..outgoing() };
        effects(outcome).calls = vec![call];
    };
    assert!(lied(attached).is_some());
    let overflowing = |outcome: &mut Outcome| {
        let call = OutgoingCall { cycles: u128::MAX, ..outgoing() };
        effects(outcome).calls = vec![call.clone(), call];
    };
    assert!(lied(overflowing).is_some());
}

#[test]
fn certified_data_over_32_bytes_is_refused() {
    assert_eq!(lied(|outcome| effects(outcome).certified_data = Some(vec![0; 32])), None);
    assert!(lied(|outcome| effects(outcome).certified_data = Some(vec![0; 33])).is_some());
}

#[test]
fn calls_over_their_bounds_are_refused() {
    fn large(calls: u8) -> Vec<OutgoingCall> {
        let call = |callee| OutgoingCall {
            callee: Principal::from_slice(&[callee]),
            arg: vec![0; 10_000_000],
            ..outgoing()
        };
        (0..calls).map(call).collect()
    }
    fn with(outcome: &mut Outcome, change: fn(&mut OutgoingCall)) {
        let mut call = outgoing();
        change(&mut call);
        effects(outcome).calls = vec![call];
    }
    assert!(lied(|outcome| with(outcome, |call| call.method = "x".repeat(20_001))).is_some());
    assert!(lied(|outcome| with(outcome, |call| call.arg = vec![0; 10 << 20])).is_some());
    assert!(lied(|outcome| with(outcome, |call| call.timeout_seconds = Some(301))).is_some());
    assert!(lied(|outcome| effects(outcome).calls = vec![outgoing(); 501]).is_some());
    assert!(
        lied(|outcome| effects(outcome).calls = large(6)).is_some_and(|said| said.contains("calls of 60"))
    );
    assert!(lied(|outcome| effects(outcome).calls = vec![outgoing(); 100_001]).is_some());
    assert_eq!(lied(|outcome| with(outcome, |call| call.timeout_seconds = Some(300))), None);
}

#[test]
fn a_violation_says_what_was_claimed() {
    let said = lied(|outcome| outcome.instructions = 40_000_000_001).unwrap();
    assert_eq!(said, "violation: 40000000001 instructions used of 40000000000");
}

#[test]
fn an_interface_that_no_correct_compiler_gives_is_refused() {
    use execution::check::check_interface;
    use execution::module::{DataSegment, Interface};
    let limits = execution::Limits::application();
    let honest = Interface {
        has_memory: true,
        heap_pages_min: 1,
        heap_pages_max: 65_536,
        data: vec![DataSegment { offset: 65_535, bytes: vec![1] }],
        ..Interface::default()
    };
    assert_eq!(check_interface(&honest, &limits), Ok(()));
    let lies: [fn(&mut Interface); 6] = [
        |lie| lie.has_memory = false,
        |lie| lie.heap_pages_max = 65_537,
        |lie| lie.heap_pages_max = 0,
        |lie| lie.data[0].offset = 65_536,
        |lie| lie.data[0].offset = u64::MAX,
        |lie| lie.globals = vec![GlobalValue::I32(1); 1_001],
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let mut interface = honest.clone();
        lie(&mut interface);
        assert!(check_interface(&interface, &limits).is_err(), "lie {index}");
    }
}
