//! The scheduler: order between two canisters, a turn for everybody, and the same on any number of threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use execution::{EntryPoint, Executed, IngressStatus, Principal, SubnetConfig};
use proptest::prelude::*;

use crate::history::{self, Event, History, free};
use crate::scripted::{Bench, Op, call};

/// Rounds that a canister with work waits at most for its message in hand to begin, for each place in the queue.
const ROUNDS_A_TURN: usize = 4;

/// A canister that always has work: every message sends the same one again, then takes `slices`.
fn busy(bench: &mut Bench, id: Principal, slices: u32) {
    let program = bench.program([]);
    let again = bench.program([]);
    let ops = [Op::Call(call(id, program, again)), Op::Slices(slices), Op::Reply(Vec::new())];
    bench.script.replace(program, ops);
    bench.submit(id, "run", &program.to_be_bytes()).unwrap();
}

fn config(paused_messages: usize) -> SubnetConfig {
    let mut config = free();
    let limits = Arc::make_mut(&mut config.limits);
    limits.paused_messages = paused_messages;
    // A few messages fill a round.
    limits.round_instructions = 2_000_000;
    config
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn calls_from_one_canister_to_another_arrive_in_their_order(events in history::calm()) {
        let mut history = History::new(free(), 2);
        events.iter().for_each(|event| history.event(event));
        history.settle();
        let mut sent: BTreeMap<(Principal, Principal), Vec<Vec<u8>>> = BTreeMap::new();
        let mut arrived = sent.clone();
        for ran in &history.runs {
            let canister = ran.executed.canister;
            if let EntryPoint::Update { arg, .. } = &ran.claim.entry
                && history.ids.contains(&ran.claim.caller)
            {
                arrived.entry((ran.claim.caller, canister)).or_default().push(arg.to_vec());
            }
            let calls = ran.claim.outcome.effects.iter().filter(|_| ran.is_committed()).flat_map(|e| &e.calls);
            for call in calls.filter(|call| history.ids[..history::CANISTERS].contains(&call.callee)) {
                sent.entry((canister, call.callee)).or_default().push(call.arg.clone());
            }
        }
        prop_assert_eq!(sent, arrived);
    }

    #[test]
    fn every_canister_with_work_gets_its_turn_whatever_the_others_do(
        others in prop::collection::vec((0..4_u32, 1..4_usize), 1..7),
        place in 0..7_usize,
        room in 1..4_usize,
        slices in 0..3_u32,
        threads in 1..3_usize,
    ) {
        let mut bench = Bench::with(config(room), threads);
        let ids: Vec<Principal> = (0..=others.len()).map(|_| bench.canister("")).collect();
        let place = place.min(others.len());
        let (one, rest) = (ids[place], ids.iter().filter(|id| **id != ids[place]));
        for (id, (slices, count)) in rest.zip(&others) {
            (0..*count).for_each(|_| busy(&mut bench, *id, *slices));
        }
        for _ in 0..3 {
            bench.round();
        }
        let program = bench.program([Op::Slices(slices), Op::Reply(b"done".to_vec())]);
        let message = bench.submit(one, "run", &program.to_be_bytes()).unwrap();
        // Short ones are done at once; long ones wait for those before them.
        let rounds = if slices == 0 { 1 } else { (others.len() + 2) * ROUNDS_A_TURN };
        let done = (0..rounds).any(|_| {
            bench.round();
            bench.subnet.status(&message) == IngressStatus::Replied(Arc::from(*b"done"))
        });
        prop_assert!(done, "not done in {} rounds", rounds);
    }

    #[test]
    fn which_message_runs_in_which_round_does_not_depend_on_the_number_of_threads(
        sent in prop::collection::vec((0..4_u32, 1..9_usize, any::<bool>()), 5..10),
    ) {
        let run = |threads| {
            let mut bench = Bench::with(config(2), threads);
            let ids: Vec<Principal> = sent.iter().map(|_| bench.canister("")).collect();
            let nothing = bench.program([]);
            let done = bench.program([Op::Reply(Vec::new())]);
            for (at, (slices, count, calls)) in sent.iter().enumerate() {
                let next = ids[(at + 1) % ids.len()];
                let called = calls.then(|| Op::Call(call(next, done, nothing)));
                let ops = called.into_iter().chain([Op::Slices(*slices), Op::Reply(Vec::new())]);
                let program = bench.program(ops);
                for _ in 0..*count {
                    bench.submit(ids[at], "run", &program.to_be_bytes()).unwrap();
                }
            }
            let round = |_| {
                bench.round();
                bench.subnet.state_root()
            };
            (0..12).map(round).collect::<Vec<_>>()
        };
        let alone = run(1);
        prop_assert!(run(2) == alone && run(4) == alone);
    }

    #[test]
    fn what_comes_of_a_history_does_not_depend_on_the_number_of_threads(events in history::wild()) {
        let run = |threads| {
            let mut history = History::new(free(), threads);
            let mut roots = Vec::new();
            // Which of several paused messages a resumption fails for depends on who comes first.
            for event in events.iter().filter(|event| !matches!(event, Event::FailResumed { .. })) {
                history.event(event);
                roots.push(history.bench.subnet.state_root());
            }
            history.settle();
            roots.push(history.bench.subnet.state_root());
            let runs: Vec<Executed> = history
                .runs
                .iter()
                .map(|ran| Executed { invocation: 0, ..ran.executed.clone() })
                .collect();
            (roots, runs)
        };
        let alone = run(1);
        prop_assert!(run(2) == alone && run(4) == alone);
    }
}

/// Messages that each canister of a subnet has run after one round, of as many as were sent to it. Four fill a round.
fn ran_in_a_round(sent: &[usize]) -> Vec<usize> {
    let mut bench = Bench::with(config(4), 2);
    let ids: Vec<Principal> = sent.iter().map(|_| bench.canister("")).collect();
    let program = bench.program([Op::Reply(Vec::new())]);
    for (id, &count) in ids.iter().zip(sent) {
        for _ in 0..count {
            bench.submit(*id, "run", &program.to_be_bytes()).unwrap();
        }
    }
    let executed = bench.round().executed;
    ids.iter().map(|id| executed.iter().filter(|executed| executed.canister == *id).count()).collect()
}

#[test]
fn up_to_four_busy_canisters_have_a_whole_round_each() {
    assert_eq!(ran_in_a_round(&[9; 4]), [4; 4]);
}

#[test]
fn more_busy_canisters_share_a_round_and_make_it_no_longer_for_one_that_is_not() {
    let mut sent = [9; 10];
    sent[3] = 1;
    let mut ran = [2; 10];
    ran[3] = 1;
    assert_eq!(ran_in_a_round(&sent), ran, "8 million instructions are 16 messages; each has its share");
}

#[test]
fn what_others_leave_of_a_round_goes_to_who_has_more_to_do_and_to_nobody_beyond_a_whole_one() {
    let mut sent = [1; 8];
    sent[5] = 9;
    let mut ran = [1; 8];
    ran[5] = 4;
    assert_eq!(ran_in_a_round(&sent), ran);
}

#[test]
fn those_that_become_active_by_calls_share_the_reserve_of_a_round() {
    let mut bench = Bench::with(config(4), 2);
    let ids: Vec<Principal> = (0..8).map(|_| bench.canister("")).collect();
    let one = bench.canister("");
    let [done, nothing] = [vec![Op::Reply(Vec::new())], Vec::new()].map(|ops| bench.program(ops));
    let calls = ids.iter().flat_map(|id| (0..4).map(|_| Op::Call(call(*id, done, nothing))));
    let program = bench.program(calls.chain([Op::Reply(Vec::new())]));
    bench.submit(one, "run", &program.to_be_bytes()).unwrap();
    let executed = bench.round().executed;
    let ran = ids.iter().map(|id| executed.iter().filter(|executed| executed.canister == *id).count());
    // Half of 8 million is one message each; what is left then is less than another one each.
    assert_eq!(ran.collect::<Vec<_>>(), [1; 8]);
}

#[test]
fn who_sends_itself_messages_without_end_keeps_what_is_left_of_a_round_from_nobody() {
    let mut config = config(4);
    Arc::make_mut(&mut config.limits).round_instructions = 1_000_000_000;
    let mut bench = Bench::with(config, 2);
    let endless = bench.canister("");
    busy(&mut bench, endless, 0);
    let done = bench.program([Op::Reply(Vec::new())]);
    for _ in 0..7 {
        let quiet = bench.canister("");
        bench.submit(quiet, "run", &done.to_be_bytes()).unwrap();
    }
    let flooded = bench.canister("");
    for _ in 0..1_000 {
        bench.submit(flooded, "run", &done.to_be_bytes()).unwrap();
    }
    let executed = bench.round().executed;
    let of = |id| executed.iter().filter(|executed| executed.canister == id).count();
    assert!(of(endless) >= 256, "it sends itself messages until the last delivery: {}", of(endless));
    assert_eq!(of(flooded), 1_000, "its share, a ninth of four billion, is 889 messages");
}
