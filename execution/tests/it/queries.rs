//! Queries, composite queries, inspection.

use execution::{ErrorCode, Principal};

use crate::scripted::{ANONYMOUS, Bench, NOTHING, Op, call};

fn ask(
    bench: &Bench,
    canister: Principal,
    method: &str,
    ops: Vec<Op>,
) -> Result<Vec<u8>, execution::UserError> {
    let program = bench.program(ops);
    bench.subnet.query(ANONYMOUS, canister, method, &program.to_be_bytes()).result
}

#[test]
fn a_query_replies_and_changes_nothing() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    bench.run(a, [Op::Heap(1, 5), Op::Reply(vec![])]).unwrap();
    let root = bench.subnet.state_root();
    assert_eq!(ask(&bench, a, "ask", vec![Op::ReplyHeap(1), Op::Print("seen")]).unwrap(), [5]);
    assert_eq!(bench.subnet.state_root(), root);
    assert_eq!(ask(&bench, a, "ask", vec![]).unwrap_err().code, ErrorCode::DID_NOT_REPLY);
    assert_eq!(ask(&bench, a, "ask", vec![Op::Trap("q")]).unwrap_err().code, ErrorCode::CALLED_TRAP);
    assert_eq!(ask(&bench, a, "ask", vec![Op::Reject("q")]).unwrap_err().to_string(), "IC0406: q");
    assert_eq!(ask(&bench, a, "run", vec![]).unwrap_err().code, ErrorCode::METHOD_NOT_FOUND);
    let empty = bench.empty_canister();
    assert_eq!(ask(&bench, empty, "ask", vec![]).unwrap_err().code, ErrorCode::NO_WASM_MODULE);
    let nobody = Principal::from_slice(&[9; 10]);
    assert_eq!(ask(&bench, nobody, "ask", vec![]).unwrap_err().code, ErrorCode::CANISTER_NOT_FOUND);
}

#[test]
fn a_view_answers_from_the_state_it_was_taken_from() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let view = bench.subnet.queries();
    bench.run(a, [Op::Heap(1, 5), Op::Reply(vec![])]).unwrap();
    let program = bench.program([Op::ReplyHeap(1)]).to_be_bytes();
    assert_eq!(view.query(ANONYMOUS, a, "ask", &program).result.unwrap(), [0]);
    assert_eq!(bench.subnet.query(ANONYMOUS, a, "ask", &program).result.unwrap(), [5]);
}

#[test]
fn a_composite_query_asks_others_and_itself_on_a_state_that_is_dropped() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let callee = bench.program([Op::Reply(b"b".to_vec()), Op::Heap(1, 1)]);
    let back = bench.program([Op::ReplyHeap(2)]);
    let mut other = call(b, callee, NOTHING);
    other.method = "ask";
    let mut own = call(a, bench.program([Op::ReplyHeap(2)]), back);
    own.method = "ask";
    let ops = vec![Op::Heap(2, 9), Op::Call(other.clone()), Op::Call(own)];
    assert_eq!(ask(&bench, a, "ask_all", ops).unwrap(), [9]);
    assert_eq!((bench.heap(a, 2), bench.heap(b, 1)), (0, 0));
    other.method = "run";
    let back = bench.program([Op::ReplyResponse]);
    (other.on_reject, other.on_reply) = (back, back);
    let refused = ask(&bench, a, "ask_all", vec![Op::Call(other)]).unwrap();
    assert!(refused.starts_with(b"5 IC0536"));
}

#[test]
fn composite_queries_end_at_their_depth() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let back = bench.program([Op::ReplyResponse]);
    let mut program = bench.program([Op::Reply(b"end".to_vec())]);
    let answers: Vec<_> = (0..7)
        .map(|_| {
            let answer = bench.subnet.query(ANONYMOUS, a, "ask_all", &program.to_be_bytes()).result.unwrap();
            let mut next = call(a, program, back);
            next.method = "ask_all";
            program = bench.program([Op::Call(next)]);
            answer
        })
        .collect();
    assert_eq!(answers[5], b"end");
    assert!(answers[6].starts_with(b"5 IC0525"), "{}", String::from_utf8_lossy(&answers[6]));
}

#[test]
fn inspection_accepts_refuses_and_keeps_nothing() {
    let mut bench = Bench::new();
    let accept = bench.program([Op::AcceptMessage]);
    let a = bench.canister(&format!("inspect={accept}"));
    assert_eq!(bench.run(a, [Op::Reply(b"in".to_vec())]).unwrap(), b"in");
    let b = bench.canister("inspect");
    assert_eq!(bench.run(b, []).unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    let trap = bench.program([Op::Trap("no")]);
    let c = bench.canister(&format!("inspect={trap}"));
    assert_eq!(bench.run(c, []).unwrap_err().code, ErrorCode::CALLED_TRAP);
    let back = bench.program([Op::ReplyResponse]);
    let callee = bench.program([Op::Reply(b"not asked".to_vec())]);
    assert_eq!(bench.run(a, [Op::Call(call(b, callee, back))]).unwrap(), b"not asked");
}
