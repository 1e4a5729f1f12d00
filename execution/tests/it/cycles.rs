//! Cycles: what is charged, what comes back, and that none are made or lost.

use std::sync::Arc;

use execution::{Cycles, ErrorCode, Limits, Principal};

use crate::scripted::{Bench, NOTHING, Op, SECOND, call, killed};

fn two() -> (Bench, Principal, Principal) {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let b = bench.canister("");
    (bench, a, b)
}

#[test]
fn an_empty_update_costs_its_fees_and_its_instructions() {
    let (mut bench, a, _) = two();
    let before = bench.state(a).balance;
    bench.run(a, []).unwrap_err();
    let bytes = "run".len() + 8 + 8;
    let induction = 1_200_000 + 2_000 * bytes as Cycles;
    assert_eq!(before - bench.state(a).balance, induction + 5_000_000 + 1_000);
    let seen = bench.script.seen.lock().unwrap();
    let shown = seen.last().unwrap().system.balance;
    assert_eq!(shown, before - induction - 5_000_000 - 40_000_000_000);
}

#[test]
fn a_call_costs_its_fee_its_bytes_and_its_callback() {
    let (mut bench, a, b) = two();
    let callee = bench.program([Op::Reply(vec![0; 100])]);
    let (before_a, before_b) = (bench.state(a).balance, bench.state(b).balance);
    bench.run(a, [Op::Call(call(b, callee, NOTHING))]).unwrap_err();
    let induction = 1_200_000 + 2_000 * (3 + 8 + 8);
    let bytes = 3 + 8;
    let runs = 2 * 5_000_000 + 1_010 + 1_000;
    let fee = 260_000 + 1_000 * bytes + 1_000 * 100;
    assert_eq!(before_a - bench.state(a).balance, induction + runs + fee);
    assert_eq!(before_b - bench.state(b).balance, 5_000_000 + 1_010);
}

#[test]
fn what_the_callee_does_not_accept_comes_back() {
    let (mut bench, a, b) = two();
    let callee = bench.program([Op::Accept(4_000), Op::Reply(vec![])]);
    let mut request = call(b, callee, NOTHING);
    request.cycles = 10_000;
    let before = bench.state(b).balance;
    bench.run(a, [Op::Call(request.clone())]).unwrap_err();
    assert_eq!(bench.state(b).balance, before + 4_000 - 5_000_000 - 1_020);
    let refunded = bench.script.seen.lock().unwrap().last().unwrap().system.cycles_refunded;
    assert_eq!(refunded, 6_000);

    let callee = bench.program([Op::Accept(4_000), Op::Trap("no")]);
    request.arg = callee.to_be_bytes().to_vec();
    let before = bench.state(b).balance;
    bench.run(a, [Op::Call(request)]).unwrap_err();
    assert_eq!(bench.state(b).balance, before - 5_000_000 - 1_020);
    assert_eq!(bench.script.seen.lock().unwrap().last().unwrap().system.cycles_refunded, 10_000);
}

#[test]
fn burning_all_that_is_liquid_is_possible_and_freezes_the_canister() {
    let (mut bench, a, _) = two();
    bench.run(a, [Op::Burn(Cycles::MAX), Op::Reply(vec![])]).unwrap();
    // The unused prepayment came back, but it doesn't reach for another one.
    let error = bench.run(a, []).unwrap_err();
    assert_eq!(error.code, ErrorCode::OUT_OF_CYCLES);
    assert!(error.description.contains("is out of cycles: please top up the canister with at least"));
}

#[derive(candid::CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

#[derive(candid::CandidType)]
struct Settings {
    freezing_threshold: Option<candid::Nat>,
}

#[test]
fn a_frozen_canister_refuses_calls_and_queries_but_not_responses() {
    let (mut bench, a, b) = two();
    let settings = Settings { freezing_threshold: Some(candid::Nat::from(1_000_000_000_000_000_u64)) };
    let arg = candid::encode_one(UpdateSettings { canister_id: b, settings }).unwrap();
    // B's call to A is out while it freezes: A is stuck for one round.
    let echo = bench.program([Op::Reply(vec![])]);
    let back = bench.program([Op::Heap(1, 1), Op::Reply(b"still".to_vec())]);
    let open = bench.program([Op::Call(call(a, echo, back))]);
    *bench.script.failing.lock().unwrap() = Some((3, a, killed));
    let open = bench.submit(b, "run", &open.to_be_bytes()).unwrap();
    bench.round();
    bench.manage("update_settings", &arg).unwrap();
    assert!(bench.state(b).is_frozen(&Limits::application()));
    bench.round();
    let answer = execution::IngressStatus::Replied(Arc::from(*b"still"));
    assert_eq!((bench.subnet.status(&open), bench.heap(b, 1)), (answer, 1));

    assert_eq!(bench.submit(b, "run", b"").unwrap_err().code, ErrorCode::OUT_OF_CYCLES);
    let asked = bench.subnet.query(crate::scripted::ANONYMOUS, b, "ask", b"");
    assert_eq!(asked.result.unwrap_err().code, ErrorCode::OUT_OF_CYCLES);
    let back = bench.program([Op::ReplyResponse]);
    assert!(bench.run(a, [Op::Call(call(b, NOTHING, back))]).unwrap().starts_with(b"2 IC0207"));
}

#[test]
fn a_charge_for_storage_shows_to_nobody_who_has_the_state_of_before() {
    // Whoever has the state makes it shared, and what is shared is not charged in place.
    let charge = |had: bool| {
        let mut bench = Bench::new();
        let ids: Vec<Principal> = (0..100).map(|_| bench.canister("")).collect();
        let root = had.then(|| bench.subnet.state_root());
        let before = had.then(|| bench.subnet.state().clone());
        let balances: Vec<Cycles> = ids.iter().map(|id| bench.state(*id).balance).collect();
        bench.time += 1_000 * SECOND;
        bench.round();
        for (id, balance) in ids.iter().zip(&balances) {
            // 127,000 cycles for a GiB and second.
            let due = 127_000 * Cycles::from(bench.state(*id).memory_bytes()) * 1_001 / (1 << 30);
            assert_eq!(bench.state(*id).balance, balance - due);
            if let Some(before) = &before {
                assert_eq!(before.canister(id).unwrap().balance, *balance);
            }
        }
        assert_eq!(before.as_ref().map(execution::state_root), root);
        assert_eq!(bench.subnet.state_root(), execution::state_root(bench.subnet.state()));
        bench.subnet.state_root()
    };
    assert_eq!(charge(false), charge(true));
}
