//! Timer, heartbeat, low-memory hook.

use execution::Principal;
use execution::state::{Hook, Status};

use crate::scripted::{Bench, Op, SECOND, id_arg};

fn kinds(report: &execution::RoundReport) -> Vec<&'static str> {
    report.executed.iter().map(|executed| executed.kind).collect()
}

#[test]
fn a_timer_fires_once_and_stays_off_when_its_handler_traps() {
    let mut bench = Bench::new();
    let handler = bench.program([Op::Heap(1, 1), Op::Trap("timer")]);
    let a = bench.canister(&format!("timer={handler}"));
    let due = bench.time + 5 * SECOND;
    bench.run(a, [Op::Timer(due), Op::Reply(vec![])]).unwrap();
    assert_eq!(bench.state(a).global_timer, due);
    let mut fired = Vec::new();
    for _ in 0..8 {
        let report = bench.round();
        fired.extend(report.executed.iter().map(|_| bench.time));
    }
    assert_eq!(fired, [due]);
    assert_eq!((bench.state(a).global_timer, bench.heap(a, 1)), (0, 0));
}

#[test]
fn a_heartbeat_runs_each_round_and_not_when_stopped() {
    let mut bench = Bench::new();
    let beat = bench.program([Op::Heap(1, 1)]);
    let a = bench.canister(&format!("heartbeat={beat}"));
    let version = bench.state(a).version;
    for _ in 0..3 {
        assert_eq!(kinds(&bench.round()), ["heartbeat"]);
    }
    assert_eq!((bench.heap(a, 1), bench.state(a).version), (1, version + 3));
    bench.submit(Principal::management_canister(), "stop_canister", &id_arg(a)).unwrap();
    bench.round();
    assert_eq!(bench.state(a).status, Status::Stopped);
    assert!(bench.round().executed.is_empty());
}

#[test]
fn timer_and_heartbeat_take_turns_in_going_first() {
    let mut bench = Bench::new();
    let again = bench.program([Op::Timer(1)]);
    let a = bench.canister(&format!("heartbeat={} timer={again}", u64::MAX));
    bench.run(a, [Op::Timer(1), Op::Reply(vec![])]).unwrap();
    let orders: Vec<_> = (0..2).map(|_| kinds(&bench.round())).collect();
    assert!(
        orders.contains(&vec!["timer", "heartbeat"]) && orders.contains(&vec!["heartbeat", "timer"]),
        "{orders:?}"
    );
}

#[test]
fn an_idle_round_runs_nothing_however_many_canisters_there_are() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.canister("");
    }
    let report = bench.round();
    assert!(report.executed.is_empty() && !report.more);
}

#[derive(candid::CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

#[derive(candid::CandidType)]
struct Settings {
    wasm_memory_limit: Option<candid::Nat>,
    wasm_memory_threshold: Option<candid::Nat>,
}

#[test]
fn the_low_memory_hook_runs_once_when_memory_gets_low() {
    let mut bench = Bench::new();
    let hook = bench.program([Op::Heap(1, 1)]);
    let a = bench.canister(&format!("low_wasm_memory={hook}"));
    let settings = Settings {
        wasm_memory_limit: Some(candid::Nat::from(10 * 65_536_u32)),
        wasm_memory_threshold: Some(candid::Nat::from(8 * 65_536_u32)),
    };
    let arg = candid::encode_one(UpdateSettings { canister_id: a, settings }).unwrap();
    bench.manage("update_settings", &arg).unwrap();
    assert_eq!(bench.state(a).hook, Hook::NotSatisfied);
    bench.run(a, [Op::Grow(3), Op::Reply(vec![])]).unwrap();
    assert_eq!((bench.state(a).hook, bench.heap(a, 1)), (Hook::Executed, 1));
    bench.run(a, [Op::Grow(1), Op::Reply(vec![])]).unwrap();
    assert_eq!(bench.state(a).hook, Hook::Executed);
}
