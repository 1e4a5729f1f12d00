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
