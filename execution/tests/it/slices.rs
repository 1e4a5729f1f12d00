//! Long messages: a slice a round, alone on their canister, and nobody else waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use execution::state::{Input, Status};
use execution::{
    Backend, Compiler, IngressStatus, MessageId, Principal, SchedulerOptions, Subnet, SubnetConfig,
    state_root,
};

use crate::scripted::{Bench, Mode, NOTHING, Op, SECOND, call, id_arg, install_arg, killed};

const MANAGEMENT: Principal = Principal::management_canister();

fn replied(bench: &Bench, id: &MessageId) -> Option<Vec<u8>> {
    match bench.subnet.status(id) {
        IngressStatus::Replied(data) => Some(data.to_vec()),
        _ => None,
    }
}

/// Sends a message that takes `slices` pauses and replies with `reply`.
fn long(bench: &mut Bench, to: Principal, slices: u32, reply: &str) -> MessageId {
    let ops = [Op::Slices(slices), Op::Heap(1, 9), Op::Reply(reply.as_bytes().to_vec())];
    let program = bench.program(ops);
    bench.submit(to, "run", &program.to_be_bytes()).unwrap()
}

fn short(bench: &mut Bench, to: Principal) -> MessageId {
    let program = bench.program([Op::Reply(b"short".to_vec())]);
    bench.submit(to, "run", &program.to_be_bytes()).unwrap()
}

fn slices(bench: &Bench, id: Principal) -> Option<u32> {
    bench.state(id).paused.as_ref().map(|message| message.slices)
}

#[derive(candid::CandidType)]
struct TopUp {
    canister_id: Principal,
    amount: candid::Nat,
}

#[test]
fn a_long_message_takes_a_slice_a_round_while_other_canisters_go_on_and_its_own_messages_wait() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let (first, other) = (long(&mut bench, a, 3, "long"), short(&mut bench, b));
    let next = short(&mut bench, a);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let report = bench.round();
        seen.push((
            slices(&bench, a),
            replied(&bench, &first).is_some(),
            replied(&bench, &next).is_some(),
            report.more,
        ));
    }
    assert!(replied(&bench, &other).is_some());
    assert_eq!(
        seen,
        [
            (Some(1), false, false, true),
            (Some(2), false, false, true),
            (Some(3), false, false, true),
            (None, true, true, false),
        ]
    );
}

#[test]
fn a_paused_message_is_processing_and_shows_nothing_of_what_it_did() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let message = long(&mut bench, a, 2, "");
    bench.round();
    assert_eq!(bench.subnet.status(&message), IngressStatus::Processing);
    assert_eq!((bench.heap(a, 1), bench.state(a).version), (0, 1));
    assert!(matches!(bench.state(a).paused.as_ref().unwrap().input, Input::Ingress(_)));
    bench.round();
    bench.round();
    assert_eq!((bench.heap(a, 1), bench.state(a).version), (9, 2));
}

#[test]
fn cycles_and_messages_that_come_meanwhile_are_there_afterwards() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let calm = {
        let mut bench = Bench::new();
        let a = bench.canister("");
        long(&mut bench, a, 0, "");
        bench.round();
        bench.state(a).balance
    };
    long(&mut bench, a, 3, "");
    bench.round();
    let top_up = TopUp { canister_id: a, amount: 77_u8.into() };
    let arg = candid::encode_one(top_up).unwrap();
    let given = bench.submit(MANAGEMENT, "provisional_top_up_canister", &arg).unwrap();
    bench.round();
    assert!(replied(&bench, &given).is_some(), "cycles are given at once");
    assert!(slices(&bench, a).is_some());
    while slices(&bench, a).is_some() {
        bench.round();
    }
    assert_eq!(bench.state(a).balance, calm + 77);
}

#[test]
fn who_manages_the_canister_waits_for_it_and_who_asks_or_manages_another_does_not() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    long(&mut bench, a, 2, "");
    bench.round();
    let stop = bench.submit(MANAGEMENT, "stop_canister", &id_arg(a)).unwrap();
    let status = bench.submit(MANAGEMENT, "canister_status", &id_arg(a)).unwrap();
    let stop_other = bench.submit(MANAGEMENT, "stop_canister", &id_arg(b)).unwrap();
    bench.round();
    assert!(replied(&bench, &status).is_some() && replied(&bench, &stop_other).is_some());
    assert_eq!(bench.subnet.status(&stop), IngressStatus::Received);
    bench.round();
    bench.round();
    assert!(replied(&bench, &stop).is_some());
    assert_eq!(bench.state(a).status, Status::Stopped);
}

#[test]
fn a_heartbeat_waits_for_the_message_in_hand() {
    let mut bench = Bench::new();
    let beat = bench.program([Op::Global(1)]);
    let a = bench.canister(&format!("heartbeat={beat}"));
    bench.round();
    let program = bench.program([Op::Slices(2)]);
    bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(bench.round().executed.iter().map(|executed| executed.kind).collect::<Vec<_>>());
    }
    assert_eq!(kinds, [vec!["heartbeat"], vec![], vec!["update"], vec!["heartbeat"]]);
}

#[test]
fn a_message_that_was_given_up_begins_again_with_the_time_of_its_first_round_and_the_same_result() {
    let run = |abort: bool| {
        let mut bench = Bench::new();
        let a = bench.canister("");
        let message = long(&mut bench, a, 2, "done");
        bench.round();
        if abort {
            bench.subnet.abort_paused();
            assert_eq!(slices(&bench, a), Some(0));
        }
        while slices(&bench, a).is_some() {
            bench.round();
        }
        let seen = bench.script.seen.lock().unwrap().last().unwrap().system.clone();
        let state = bench.state(a);
        (replied(&bench, &message), state.balance, state.version, seen.time, seen.version, bench.heap(a, 1))
    };
    let calm = run(false);
    assert_eq!(calm.0, Some(b"done".to_vec()));
    assert_eq!(run(true), calm);
}

#[test]
fn who_runs_a_message_is_told_when_it_is_given_up() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let aborted = Arc::clone(&bench.script.aborted);
    long(&mut bench, a, 3, "");
    bench.round();
    bench.subnet.abort_paused();
    assert_eq!(aborted.load(Ordering::Relaxed), 1);
    long(&mut bench, b, 3, "");
    bench.round();
    drop(bench);
    assert_eq!(aborted.load(Ordering::Relaxed), 3, "a has begun again");
}

#[test]
fn a_failure_between_slices_costs_no_round() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let message = long(&mut bench, a, 3, "done");
    bench.round();
    bench.round();
    *bench.script.failing_resumptions.lock().unwrap() = 2;
    assert!(bench.round().failures.is_empty());
    assert_eq!(slices(&bench, a), Some(3), "it caught up in the same round");
    bench.round();
    assert_eq!(replied(&bench, &message), Some(b"done".to_vec()));
}

#[test]
fn a_message_that_keeps_failing_goes_on_where_it_was_in_a_later_round() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let message = long(&mut bench, a, 3, "done");
    bench.round();
    bench.round();
    *bench.script.failing_resumptions.lock().unwrap() = 3;
    let before = execution::root::canister_root(bench.state(a));
    let report = bench.round();
    assert_eq!(report.failures.len(), 1);
    assert_eq!(execution::root::canister_root(bench.state(a)), before, "nothing is changed");
    bench.round();
    assert_eq!(slices(&bench, a), Some(3));
    bench.round();
    assert_eq!(replied(&bench, &message), Some(b"done".to_vec()));
}

#[test]
fn a_round_that_was_not_run_whole_is_undone_and_run_again_as_if_nothing_had_failed() {
    let run = |deaths| {
        let mut bench = Bench::new();
        let (a, b) = (bench.canister(""), bench.canister(""));
        let message = long(&mut bench, a, 3, "done");
        bench.round();
        bench.round();
        let other = short(&mut bench, b);
        *bench.script.failing.lock().unwrap() = Some((deaths, b, killed));
        let (before, time) = (bench.subnet.state().clone(), bench.time + 1);
        let mut undone = 0;
        while !bench.subnet.round(time, [1; 32]).failures.is_empty() {
            assert_eq!(slices(&bench, a), Some(3), "others went on");
            bench.subnet.go_back(before.clone());
            assert_eq!(bench.subnet.state_root(), state_root(&before));
            undone += 1;
        }
        assert_eq!(undone > 0, deaths > 0);
        assert_eq!((slices(&bench, a), replied(&bench, &other)), (Some(3), Some(b"short".to_vec())));
        let roots = [bench.subnet.state_root(), bench.subnet.certified().root()];
        bench.round();
        assert_eq!(replied(&bench, &message), Some(b"done".to_vec()));
        roots
    };
    assert_eq!(run(3), run(0));
}

#[test]
fn quarantine_puts_the_message_back_so_that_the_canister_can_be_managed() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let message = long(&mut bench, a, 3, "done");
    let next = short(&mut bench, a);
    bench.round();
    *bench.script.failing.lock().unwrap() = Some((100, a, killed));
    *bench.script.failing_resumptions.lock().unwrap() = 1;
    while !bench.subnet.is_quarantined(&a) {
        bench.round();
    }
    assert_eq!(slices(&bench, a), None);
    assert!(bench.manage("canister_status", &id_arg(a)).is_ok());
    *bench.script.failing.lock().unwrap() = None;
    bench.subnet.release(&a);
    bench.round();
    assert_eq!((slices(&bench, a), replied(&bench, &next)), (Some(1), None), "it is the first again");
    for _ in 0..3 {
        bench.round();
    }
    assert!(replied(&bench, &message).is_some() && replied(&bench, &next).is_some());
}

#[test]
fn those_beyond_the_limit_of_paused_messages_begin_again_when_there_is_room() {
    let mut config = SubnetConfig::application();
    Arc::make_mut(&mut config.limits).paused_messages = 2;
    let mut bench = Bench::with(config, 2);
    let ids: Vec<_> = (0..5).map(|_| bench.canister("")).collect();
    let messages: Vec<_> = ids.iter().map(|&id| long(&mut bench, id, 2, "done")).collect();
    let mut answered = Vec::new();
    for _ in 0..8 {
        bench.round();
        assert!(ids.iter().filter_map(|&id| slices(&bench, id)).filter(|slices| *slices > 0).count() <= 2);
        answered.push(messages.iter().filter(|message| replied(&bench, message).is_some()).count());
    }
    assert_eq!(answered, [0, 0, 2, 2, 4, 4, 5, 5]);
}

#[test]
fn a_message_that_waits_to_begin_again_gets_its_turn_though_another_canister_always_has_work() {
    let mut config = SubnetConfig::application();
    Arc::make_mut(&mut config.limits).paused_messages = 1;
    let mut bench = Bench::with(config, 1);
    let (a, b) = (bench.canister(""), bench.canister(""));
    for _ in 0..20 {
        long(&mut bench, a, 1, "");
    }
    bench.round();
    let late = long(&mut bench, b, 1, "late");
    let answered = (0..8).map(|_| {
        bench.round();
        replied(&bench, &late).is_some()
    });
    assert_eq!(answered.collect::<Vec<_>>(), [false, false, true, true, true, true, true, true]);
}

#[test]
fn an_install_takes_slices_and_answers_when_all_of_it_is_done() {
    let mut bench = Bench::new();
    let (a, b) = (bench.empty_canister(), bench.canister(""));
    let program = bench.program([Op::Slices(2), Op::Heap(1, 5)]);
    let arg = install_arg(a, Mode::Install, "init", program);
    let install = bench.submit(MANAGEMENT, "install_code", &arg).unwrap();
    bench.round();
    assert_eq!(bench.subnet.status(&install), IngressStatus::Processing);
    assert!(bench.state(a).code.is_none(), "all or nothing");
    let other = short(&mut bench, b);
    let again =
        bench.submit(MANAGEMENT, "install_code", &install_arg(a, Mode::Install, "", NOTHING)).unwrap();
    bench.round();
    assert!(replied(&bench, &other).is_some());
    bench.round();
    assert!(replied(&bench, &install).is_some());
    assert_eq!((bench.heap(a, 1), bench.state(a).version), (5, 1));
    bench.round();
    let refused = bench.subnet.status(&again);
    assert!(
        matches!(&refused, IngressStatus::Rejected(error) if error.code.to_string() == "IC0514"),
        "{refused:?}"
    );
}

#[test]
fn all_steps_of_an_upgrade_and_a_callback_with_its_cleanup_take_slices() {
    let mut bench = Bench::new();
    let before = bench.program([Op::Slices(1)]);
    let a = bench.canister(&format!("pre_upgrade={before}"));
    let after = bench.program([Op::Slices(1), Op::Heap(1, 3)]);
    let arg = install_arg(a, Mode::Upgrade(None), "post_upgrade", after);
    let upgrade = bench.submit(MANAGEMENT, "install_code", &arg).unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        bench.round();
        seen.push(slices(&bench, a));
    }
    assert_eq!(seen, [Some(1), Some(2), None]);
    assert!(replied(&bench, &upgrade).is_some());

    let b = bench.canister("");
    let answer = bench.program([Op::Reply(vec![])]);
    let fails = bench.program([Op::Slices(1), Op::Heap(1, 1), Op::Trap("callback")]);
    let cleans = bench.program([Op::Slices(1), Op::Heap(1, 2)]);
    let mut outgoing = call(b, answer, fails);
    outgoing.on_cleanup = Some(cleans);
    let refused = bench.run(a, [Op::Call(outgoing)]).unwrap_err();
    assert!(refused.description.contains("callback"), "{refused}");
    assert_eq!(bench.heap(a, 1), 2);
}

#[test]
fn a_subnet_that_goes_on_from_a_state_with_a_paused_message_comes_to_the_same_states() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    long(&mut bench, a, 3, "done");
    bench.round();
    bench.round();
    let (state, time) = (bench.subnet.state().clone(), bench.time);
    let script = Arc::clone(&bench.script);
    let mut other = Subnet::with_state(
        SubnetConfig::application(),
        state,
        Arc::clone(&script) as Arc<dyn Backend>,
        script as Arc<dyn Compiler>,
        SchedulerOptions::default(),
    );
    for round in 1..=3 {
        bench.round();
        other.round(time + round * SECOND, [7; 32]);
        assert_eq!(state_root(other.state()), state_root(bench.subnet.state()), "round {round}");
    }
    assert!(slices(&bench, a).is_none());
}

#[test]
fn who_manages_a_canister_gets_a_turn_between_two_long_messages() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    long(&mut bench, a, 2, "");
    let second = long(&mut bench, a, 2, "");
    bench.round();
    let stop = bench.submit(MANAGEMENT, "stop_canister", &id_arg(a)).unwrap();
    bench.round();
    bench.round();
    assert!(replied(&bench, &stop).is_some(), "in the round in which the first message ended");
    assert!(matches!(bench.subnet.status(&second), IngressStatus::Rejected(_)));
}

#[test]
fn a_message_that_begins_again_sees_the_balance_that_it_saw_first() {
    let run = |abort: bool| {
        let mut bench = Bench::new();
        let a = bench.canister("");
        long(&mut bench, a, 3, "");
        bench.round();
        let arg = candid::encode_one(TopUp { canister_id: a, amount: 77_u8.into() }).unwrap();
        bench.submit(MANAGEMENT, "provisional_top_up_canister", &arg).unwrap();
        short(&mut bench, a);
        bench.round();
        if abort {
            bench.subnet.abort_paused();
        }
        while slices(&bench, a).is_some() {
            bench.round();
        }
        bench.round();
        let seen = bench.script.seen.lock().unwrap();
        let views: Vec<_> = seen.iter().filter(|seen| seen.system.canister == a).collect();
        let of = |invocation: &execution::Invocation| {
            let system = &invocation.system;
            (system.balance, system.freezing.clone(), system.subnet_memory_available, system.callbacks_free)
        };
        let last_long = views.iter().rev().nth(1).map(|invocation| of(invocation)).unwrap();
        (last_long, bench.state(a).balance, bench.state(a).version)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn new_code_ends_quarantine_however_long_it_takes_to_install() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    long(&mut bench, a, 0, "");
    *bench.script.failing.lock().unwrap() = Some((100, a, killed));
    while !bench.subnet.is_quarantined(&a) {
        bench.round();
    }
    *bench.script.failing.lock().unwrap() = None;
    let program = bench.program([Op::Slices(2)]);
    bench.install(a, Mode::Upgrade(None), "post_upgrade", program).unwrap();
    assert!(!bench.subnet.is_quarantined(&a));
}

#[test]
fn calls_that_wait_for_a_message_in_hand_are_bounded_and_take_no_room_from_others() {
    let mut config = SubnetConfig::application();
    Arc::make_mut(&mut config.limits).ingress_queue_length = 5;
    let mut bench = Bench::with(config, 1);
    let (a, b) = (bench.canister(""), bench.canister(""));
    long(&mut bench, a, 3, "");
    bench.round();
    let stop = |bench: &mut Bench, id| bench.submit(MANAGEMENT, "stop_canister", &id_arg(id));
    for _ in 0..100 {
        stop(&mut bench, a).unwrap();
    }
    assert_eq!(stop(&mut bench, a).unwrap_err().code.to_string(), "IC0201");
    let other = stop(&mut bench, b).unwrap();
    bench.round();
    assert!(replied(&bench, &other).is_some());
}

#[test]
fn an_inspection_has_no_slices_and_does_not_wait_for_the_message_in_hand() {
    let mut bench = Bench::new();
    let looks = bench.program([Op::Slices(1), Op::AcceptMessage]);
    let a = bench.canister(&format!("inspect={looks}"));
    let first = long(&mut bench, a, 2, "done");
    bench.round();
    assert_eq!(slices(&bench, a), Some(1));
    let second = short(&mut bench, a);
    bench.round();
    bench.round();
    assert!(replied(&bench, &first).is_some() && replied(&bench, &second).is_some());
    let kinds: Vec<_> =
        bench.script.seen.lock().unwrap().iter().map(|invocation| invocation.entry.kind()).collect();
    assert_eq!(kinds, ["inspect", "update", "inspect", "update"]);
}
