//! Callback slots and memory of messages.

use std::sync::Arc;

use execution::{Freezing, Limits, Principal, SubnetConfig};

use crate::scripted::{Bench, NOTHING, Op, call, killed};

fn bench(change: fn(&mut Limits)) -> Bench {
    let mut limits = Limits::application();
    change(&mut limits);
    Bench::with(SubnetConfig { limits: Arc::new(limits), ..SubnetConfig::application() }, 1)
}

/// `a` makes `count` calls to `b`, which is stuck.
fn calls(bench: &mut Bench, a: Principal, b: Principal, count: usize, timeout: Option<u32>) {
    let echo = bench.program([Op::Reply(vec![])]);
    let mut request = call(b, echo, NOTHING);
    request.timeout = timeout;
    let program = bench.program(std::iter::repeat_n(Op::Call(request), count));
    bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    *bench.script.failing.lock().unwrap() = Some((u32::MAX, b, killed));
    bench.round();
}

fn free(bench: &mut Bench, canister: Principal) -> usize {
    bench.run(canister, [Op::Reply(vec![])]).unwrap();
    bench.script.seen.lock().unwrap().last().unwrap().system.callbacks_free
}

#[test]
fn each_canister_has_50_slots_of_its_own_and_shares_the_others() {
    let mut bench = bench(|limits| limits.callbacks_shared = 100);
    let (a, b, c) = (bench.canister(""), bench.canister(""), bench.canister(""));
    assert_eq!(free(&mut bench, a), 150);
    calls(&mut bench, a, b, 400, None);
    assert_eq!(bench.state(a).calls.callbacks.len(), 150);
    assert_eq!(bench.subnet.state().callbacks_shared, 100);
    assert_eq!((free(&mut bench, a), free(&mut bench, c)), (0, 50));
    *bench.script.failing.lock().unwrap() = None;
    bench.subnet.release(&b);
    bench.round();
    assert_eq!((bench.subnet.state().callbacks_shared, free(&mut bench, a)), (0, 150));
}

#[test]
fn memory_is_kept_free_for_each_response_without_a_deadline() {
    let mut bench = bench(|limits| limits.message_memory_bytes = 10 * Freezing::RESPONSE_BYTES);
    let (a, b) = (bench.canister(""), bench.canister(""));
    calls(&mut bench, a, b, 400, None);
    assert_eq!(bench.state(a).calls.callbacks.len(), 10);
    assert_eq!(bench.state(a).message_bytes(), 10 * Freezing::RESPONSE_BYTES);
    let queued = 10 * ("run".len() as u64 + 8);
    assert_eq!(bench.state(b).message_bytes(), queued);
    assert_eq!(bench.subnet.state().message_bytes, 10 * Freezing::RESPONSE_BYTES + queued);
    *bench.script.failing.lock().unwrap() = None;
    bench.subnet.release(&b);
    bench.round();
    assert_eq!((bench.state(a).message_bytes(), bench.state(b).message_bytes()), (0, 0));
    assert_eq!(bench.subnet.state().message_bytes, 0);
}

#[test]
fn a_call_with_a_deadline_keeps_no_memory_free() {
    let mut bench = bench(|_| {});
    let (a, b) = (bench.canister(""), bench.canister(""));
    calls(&mut bench, a, b, 7, Some(300));
    assert_eq!((bench.state(a).calls.callbacks.len(), bench.state(a).message_bytes()), (7, 0));
}

#[test]
fn messages_count_towards_the_freezing_limit() {
    let mut bench = bench(|_| {});
    let (a, b) = (bench.canister(""), bench.canister(""));
    let limits = Limits::application();
    let limit = |bench: &Bench| bench.state(a).freezing().limit(&limits, 0);
    let before = limit(&bench);
    calls(&mut bench, a, b, 100, None);
    // 127,000 cycles for a GiB and second: 200 MiB for 30 days.
    let expected = 127_000 * 200 * 2_592_000 / 1024;
    assert!((expected - 1..=expected + 1).contains(&(limit(&bench) - before)));
}
