//! Management calls that the host answers.

use execution::{ErrorCode, PendingError, Principal, SubnetConfig, UserError, state_root};

use crate::scripted::{Bench, NOTHING, Op, call};

/// A subnet whose host makes HTTP outcalls, and a canister that has made `calls` of them with 100 cycles each.
fn waiting(calls: usize) -> (Bench, Principal) {
    let config = SubnetConfig { host_methods: vec!["http_request".into()], ..SubnetConfig::application() };
    let mut bench = Bench::with(config, 1);
    let a = bench.canister("");
    let back = bench.program([Op::ReplyResponse]);
    for n in 0..calls {
        let mut request = call(Principal::management_canister(), NOTHING, back);
        (request.method, request.arg, request.cycles) = ("http_request", vec![n as u8], 100);
        let program = bench.program([Op::Call(request)]);
        bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    }
    bench.round();
    (bench, a)
}

fn pending(bench: &Bench) -> Vec<(u64, Vec<u8>)> {
    bench.subnet.pending_calls().map(|(id, call)| (id, call.arg.to_vec())).collect()
}

#[test]
fn a_call_waits_until_the_host_replies_in_any_order() {
    let (mut bench, a) = waiting(2);
    assert_eq!(pending(&bench), [(0, vec![0]), (1, vec![1])]);
    for _ in 0..5 {
        bench.round();
    }
    assert_eq!(pending(&bench).len(), 2);
    bench.subnet.answer_pending(1, Ok(b"second".to_vec()), 0).unwrap();
    bench.subnet.answer_pending(0, Ok(b"first".to_vec()), 0).unwrap();
    assert_eq!(bench.subnet.state_root(), state_root(bench.subnet.state()));
    bench.round();
    let replies: Vec<Vec<u8>> = bench
        .subnet
        .state()
        .ingress
        .records
        .values()
        .filter_map(|record| match &record.status {
            execution::IngressStatus::Replied(data) if record.receiver == a => Some(data.to_vec()),
            _ => None,
        })
        .collect();
    assert_eq!(replies.len(), 2);
    assert!(replies.contains(&b"first".to_vec()) && replies.contains(&b"second".to_vec()));
    assert_eq!(pending(&bench), []);
}

#[test]
fn a_reject_carries_its_code_and_the_cycles_that_the_host_gives_back() {
    let (mut bench, a) = waiting(1);
    let balance = bench.state(a).balance;
    let error = UserError::new(ErrorCode::CANISTER_REJECTED, "No consensus");
    bench.subnet.answer_pending(0, Err(error), 60).unwrap();
    bench.round();
    let seen = bench.script.seen.lock().unwrap();
    let callback = seen.last().unwrap();
    assert_eq!(callback.system.cycles_refunded, 60);
    assert!(callback.system.balance > balance);
    let execution::EntryPoint::Reject { code, message, .. } = &callback.entry else { panic!("{callback:?}") };
    assert_eq!((*code, message.as_str()), (4, "IC0406: No consensus"));
}

#[test]
fn an_answer_that_cannot_be_is_refused_and_the_call_goes_on_waiting() {
    let (mut bench, _) = waiting(1);
    let answer =
        |bench: &mut Bench, id, bytes, refund| bench.subnet.answer_pending(id, Ok(vec![0; bytes]), refund);
    assert_eq!(answer(&mut bench, 7, 0, 0), Err(PendingError::Unknown(7)));
    assert_eq!(answer(&mut bench, 0, 0, 101), Err(PendingError::Refund { refund: 101, attached: 100 }));
    let (bytes, max) = ((2 << 20) + 1, 2 << 20);
    assert_eq!(answer(&mut bench, 0, bytes, 0), Err(PendingError::TooLarge { bytes: bytes as u64, max }));
    assert_eq!(pending(&bench).len(), 1);
    answer(&mut bench, 0, 2 << 20, 100).unwrap();
    assert_eq!(answer(&mut bench, 0, 0, 0), Err(PendingError::Unknown(0)));
}

#[test]
fn calls_beyond_the_limit_are_rejected_with_their_cycles() {
    let mut limits = execution::Limits::application();
    limits.pending_management_calls = 1;
    let host_methods = vec!["sign_with_ecdsa".into()];
    let limits = std::sync::Arc::new(limits);
    let mut bench = Bench::with(SubnetConfig { limits, host_methods, ..SubnetConfig::application() }, 1);
    let a = bench.canister("");
    let mut request = call(Principal::management_canister(), NOTHING, NOTHING);
    request.method = "sign_with_ecdsa";
    let program = bench.program([Op::Call(request)]);
    bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    bench.round();
    assert!(bench.manage_with(a, "sign_with_ecdsa", vec![], 5).starts_with(b"2 IC0201"));
    assert_eq!(pending(&bench).len(), 1);
}

#[test]
fn without_a_host_the_methods_answer_as_before_and_users_never_reach_it() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    assert!(bench.manage_as(a, "http_request", vec![]).starts_with(b"5 IC0504"));
    let (mut bench, _) = waiting(0);
    assert_eq!(bench.manage("http_request", b"").unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    assert_eq!(pending(&bench), []);
}
