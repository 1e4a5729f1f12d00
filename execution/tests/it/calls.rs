//! Calls between canisters: order, answers, callbacks, cleanup.

use execution::state::Status;
use execution::{ErrorCode, IngressStatus, Principal};

use crate::scripted::{ANONYMOUS, Bench, NOTHING, Op, call, killed};

fn two() -> (Bench, Principal, Principal) {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let b = bench.canister("");
    (bench, a, b)
}

#[test]
fn the_first_canister_of_each_kind_of_subnet_has_its_known_id() {
    let mut bench = Bench::new();
    assert_eq!(bench.empty_canister().to_text(), "22ajg-aqaaa-aaaap-adukq-cai");
    let mut bench = Bench::with(execution::SubnetConfig::system(), 1);
    assert_eq!(bench.empty_canister().to_text(), "rwlgt-iiaaa-aaaaa-aaaaa-cai");
}

#[test]
fn an_update_replies_and_keeps_its_memory_and_globals() {
    let (mut bench, a, _) = two();
    assert_eq!(bench.run(a, [Op::Heap(3, 9), Op::Global(5), Op::Reply(b"ok".to_vec())]).unwrap(), b"ok");
    assert_eq!(bench.heap(a, 3), 9);
    assert_eq!(bench.run(a, [Op::ReplyHeap(3)]).unwrap(), [9]);
    assert_eq!(bench.state(a).code.as_ref().unwrap().globals[0], execution::GlobalValue::I64(5));
}

#[test]
fn a_trap_undoes_all_but_log_and_charge() {
    let (mut bench, a, _) = two();
    let before = bench.state(a).clone();
    let error = bench
        .run(a, [Op::Heap(3, 9), Op::Timer(5), Op::Certify(b"x"), Op::Print("seen"), Op::Trap("boom")])
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::CALLED_TRAP);
    let first = error.description.lines().next().unwrap();
    let expected = format!("Error from Canister {a}: Canister called `ic0.trap` with message: 'boom'.");
    assert_eq!(first, expected);
    let after = bench.state(a);
    assert_eq!(bench.heap(a, 3), 0);
    assert_eq!((after.global_timer, &after.certified_data[..], after.version), (0, &b""[..], before.version));
    assert_eq!(&*after.log.records.last().unwrap().text, b"seen");
    assert!(after.balance < before.balance);
}

#[test]
fn no_answer_is_ic0506_and_keeps_the_state() {
    let (mut bench, a, _) = two();
    assert_eq!(bench.run(a, [Op::Heap(3, 9)]).unwrap_err().code, ErrorCode::DID_NOT_REPLY);
    assert_eq!(bench.heap(a, 3), 9);
}

#[test]
fn a_reject_reaches_the_user_as_ic0406_with_its_text_alone() {
    let (mut bench, a, _) = two();
    let error = bench.run(a, [Op::Reject("no")]).unwrap_err();
    assert_eq!((error.code, error.description.as_str()), (ErrorCode::CANISTER_REJECTED, "no"));
}

#[test]
fn unknown_canister_method_and_module_have_their_codes() {
    let (mut bench, a, _) = two();
    let nobody = Principal::from_slice(&[9; 10]);
    let error = bench.ingress(nobody, "run", b"").unwrap_err();
    assert_eq!(error.to_string(), format!("IC0301: Canister {nobody} not found"));
    let error = bench.ingress(a, "foo", b"").unwrap_err();
    let expected = format!("IC0536: Error from Canister {a}: Canister has no update method 'foo'..");
    assert_eq!(error.to_string().lines().next().unwrap(), expected);
    let error = bench.ingress(a, "ask_all", b"").unwrap_err();
    assert_eq!(error.code, ErrorCode::COMPOSITE_QUERY_IN_REPLICATED_MODE);
    let empty = bench.empty_canister();
    assert_eq!(bench.ingress(empty, "run", b"").unwrap_err().code, ErrorCode::NO_WASM_MODULE);
}

#[test]
fn the_answer_of_a_callback_reaches_the_user_once() {
    let (mut bench, a, b) = two();
    let echo = bench.program([Op::Reply(b"pong".to_vec())]);
    let back = bench.program([Op::ReplyResponse, Op::Heap(1, 1)]);
    let calls = [Op::Call(call(b, echo, back)), Op::Call(call(b, echo, NOTHING))];
    assert_eq!(bench.run(a, calls).unwrap(), b"pong");
    assert!(bench.state(a).calls.contexts.is_empty() && bench.state(a).calls.callbacks.is_empty());
    assert!(bench.state(a).calls.outstanding.is_empty());
    // Two callbacks that answer: the second one traps, the first answer stands.
    let calls = [Op::Call(call(b, echo, back)), Op::Call(call(b, echo, back))];
    assert_eq!(bench.run(a, calls).unwrap(), b"pong");
}

#[test]
fn what_the_callee_did_wrong_reaches_the_callers_reject_callback() {
    let (mut bench, a, b) = two();
    let back = bench.program([Op::ReplyResponse]);
    let reject = bench.program([Op::Reject("x")]);
    let trap = bench.program([Op::Trap("boom")]);
    let said = |answer: Vec<u8>| String::from_utf8(answer).unwrap();
    assert_eq!(said(bench.run(a, [Op::Call(call(b, reject, back))]).unwrap()), "4 x");
    let trapped = said(bench.run(a, [Op::Call(call(b, trap, back))]).unwrap());
    assert!(trapped.starts_with("5 IC0503: Error from Canister"), "{trapped}");
    assert_eq!(said(bench.run(a, [Op::Call(call(b, NOTHING, back))]).unwrap()), "5 No response");
    let nobody = Principal::from_slice(&[9; 10]);
    let lost = said(bench.run(a, [Op::Call(call(nobody, NOTHING, back))]).unwrap());
    assert!(lost.starts_with("3 IC0301: "), "{lost}");
    let mut missing = call(b, NOTHING, back);
    missing.method = "nope";
    let missing = said(bench.run(a, [Op::Call(missing)]).unwrap());
    assert!(missing.starts_with("5 IC0536: "), "{missing}");
    let mut management = call(Principal::management_canister(), NOTHING, back);
    management.method = "nope";
    let unknown = said(bench.run(a, [Op::Call(management)]).unwrap());
    assert_eq!(unknown, "5 IC0536: Management canister has no method 'nope'");
}

#[test]
fn calls_of_one_sender_run_in_order_and_to_oneself_as_a_later_message() {
    let (mut bench, a, b) = two();
    let programs: Vec<_> =
        (1..=3).map(|n| bench.program([Op::Print(["", "1", "2", "3"][n]), Op::Reply(vec![])])).collect();
    let own = bench.program([Op::Print("own"), Op::Reply(vec![])]);
    let mut ops: Vec<Op> = programs.iter().map(|&program| Op::Call(call(b, program, NOTHING))).collect();
    ops.push(Op::Call(call(a, own, NOTHING)));
    ops.push(Op::Print("sent"));
    ops.push(Op::Reply(vec![]));
    bench.run(a, ops).unwrap();
    let printed = |id| {
        let records = bench.state(id).log.records.iter();
        records.map(|record| String::from_utf8(record.text.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(printed(b), ["1", "2", "3"]);
    assert_eq!(printed(a), ["sent", "own"]);
}

#[test]
fn a_trap_after_a_call_sends_nothing() {
    let (mut bench, a, b) = two();
    let touch = bench.program([Op::Heap(1, 1), Op::Reply(vec![])]);
    bench.run(a, [Op::Call(call(b, touch, NOTHING)), Op::Trap("no")]).unwrap_err();
    bench.round();
    assert_eq!(bench.heap(b, 1), 0);
}

#[test]
fn a_trapped_callback_runs_cleanup_on_the_state_before_it() {
    let (mut bench, a, b) = two();
    let echo = bench.program([Op::Reply(vec![])]);
    let bad = bench.program([Op::Heap(1, 1), Op::Trap("callback")]);
    let mut with_cleanup = call(b, echo, bad);
    with_cleanup.on_cleanup = Some(bench.program([Op::Heap(2, 2)]));
    let error = bench.run(a, [Op::Call(with_cleanup.clone())]).unwrap_err();
    assert_eq!(error.code, ErrorCode::CALLED_TRAP);
    assert_eq!((bench.heap(a, 1), bench.heap(a, 2)), (0, 2));
    with_cleanup.on_cleanup = Some(bench.program([Op::Heap(2, 3), Op::Trap("cleanup")]));
    let error = bench.run(a, [Op::Call(with_cleanup)]).unwrap_err();
    assert!(error.description.contains("'callback'\n\ncall_on_cleanup also failed:\n\nCanister called"));
    assert_eq!(bench.heap(a, 2), 2);
}

#[test]
fn a_query_method_called_as_an_update_replies_and_drops_its_heap() {
    let (mut bench, a, b) = two();
    let write = bench.program([Op::Heap(1, 1), Op::Reply(b"q".to_vec())]);
    assert_eq!(bench.ingress(a, "ask", &write.to_be_bytes()).unwrap(), b"q");
    let back = bench.program([Op::ReplyResponse]);
    let mut ask = call(b, write, back);
    ask.method = "ask";
    assert_eq!(bench.run(a, [Op::Call(ask)]).unwrap(), b"q");
    assert_eq!((bench.heap(a, 1), bench.heap(b, 1)), (0, 0));
}

#[test]
fn the_501st_call_to_one_callee_is_refused() {
    let (mut bench, a, b) = two();
    let echo = bench.program([Op::Reply(vec![])]);
    let mut ops: Vec<Op> = (0..501).map(|_| Op::Call(call(b, echo, NOTHING))).collect();
    ops.push(Op::Reply(vec![]));
    // Each call sets 42 billion cycles aside.
    bench.run(a, ops).unwrap();
    let seen = bench.script.seen.lock().unwrap();
    assert_eq!(
        seen.iter().filter(|invocation| invocation.system.canister == b && invocation.caller == a).count(),
        500
    );
}

#[test]
fn a_best_effort_call_is_rejected_at_its_deadline_and_does_not_run_after_it() {
    let (mut bench, a, b) = two();
    // B's backend fails for two rounds, so its turn comes too late.
    let back = bench.program([Op::ReplyResponse]);
    let slow = bench.program([Op::Reply(b"late".to_vec())]);
    let mut best_effort = call(b, slow, back);
    best_effort.timeout = Some(2);
    *bench.script.failing.lock().unwrap() = Some((6, b, killed));
    let answer = bench.run(a, [Op::Call(best_effort)]).unwrap();
    assert!(answer.starts_with(b"6 IC0601"), "{}", String::from_utf8_lossy(&answer));
    bench.subnet.release(&b);
    bench.round();
    assert!(bench.state(b).calls.contexts.is_empty() && bench.state(b).inputs.is_empty());
    assert!(bench.state(a).calls.callbacks.is_empty());
}

#[test]
fn the_same_message_twice_runs_once() {
    let (mut bench, a, _) = two();
    let program = bench.program([Op::Print("once"), Op::Reply(vec![])]);
    let ingress = execution::Ingress {
        sender: ANONYMOUS,
        receiver: a,
        method: "run".into(),
        arg: std::sync::Arc::from(program.to_be_bytes()),
        nonce: vec![1],
    };
    let id = bench.subnet.submit(ingress.clone()).unwrap();
    assert_eq!(bench.subnet.status(&id), IngressStatus::Received);
    bench.round();
    assert_eq!(bench.subnet.submit(ingress).unwrap(), id);
    bench.round();
    assert_eq!(bench.subnet.status(&id), IngressStatus::Replied(std::sync::Arc::from([])));
    assert_eq!(bench.state(a).log.records.len(), 1);
}

#[test]
fn a_full_ingress_queue_refuses_now() {
    let (mut bench, a, _) = two();
    let max = bench.subnet.config().limits.ingress_queue_length;
    for _ in 0..max {
        bench.submit(a, "run", b"").unwrap();
    }
    assert_eq!(bench.submit(a, "run", b"").unwrap_err().code, ErrorCode::QUEUE_FULL);
    assert_eq!(bench.state(a).status, Status::Running);
}
