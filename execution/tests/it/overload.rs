//! More messages than can be run: refused when they arrive, with the bound and advice; nobody else suffers.

use std::collections::BTreeMap;
use std::sync::Arc;

use execution::state::Receiver;
use execution::{ErrorCode, Ingress, IngressStatus, Limits, MessageId, Principal, SubnetConfig, UserError};
use proptest::prelude::*;

use crate::history::{self, History, free};
use crate::scripted::{ANONYMOUS, Bench, Mode, Op, SECOND, install_arg};

const MIB: u64 = 1 << 20;
/// As large as a message may be, its method's name and nonce included.
const LARGEST: usize = 2 * MIB as usize - 3 - 8;

fn bench(change: impl FnOnce(&mut Limits)) -> Bench {
    let mut config = free();
    change(Arc::make_mut(&mut config.limits));
    Bench::with(config, 1)
}

/// Sends messages of `bytes` bytes until one is refused: how many were taken, and why no more were.
fn flood(bench: &mut Bench, canister: Principal, bytes: usize) -> (u64, UserError) {
    let arg = vec![0; bytes];
    let mut taken = 0;
    loop {
        match bench.submit(canister, "run", &arg) {
            Ok(_) => taken += 1,
            Err(error) => return (taken, error),
        }
    }
}

/// A message that is answered with `reply`.
fn echo(bench: &mut Bench, canister: Principal, reply: &[u8]) -> Result<MessageId, UserError> {
    let program = bench.program([Op::Reply(reply.to_vec())]);
    bench.submit(canister, "run", &program.to_be_bytes())
}

#[test]
fn what_a_queue_does_not_hold_is_refused_with_the_bound_and_taken_after_the_next_round() {
    let mut bench = bench(|limits| limits.ingress_queue_length = 10);
    let a = bench.canister("");
    let (taken, error) = flood(&mut bench, a, 0);
    assert_eq!((taken, error.code), (10, ErrorCode::QUEUE_FULL));
    assert_eq!(error.description, format!("Canister {a} input queue is full: 10 messages wait, retry later"));
    bench.round();
    let next = echo(&mut bench, a, b"next").unwrap();
    bench.round();
    assert_eq!(bench.subnet.status(&next), IngressStatus::Replied(Arc::from(*b"next")));
}

#[test]
fn large_messages_are_bounded_by_their_bytes_and_leave_as_many_for_others() {
    let mut bench = bench(|limits| limits.ingress_waiting_bytes = 40 * MIB);
    let (a, b, c) = (bench.canister(""), bench.canister(""), bench.canister(""));
    let (taken, error) = flood(&mut bench, a, LARGEST);
    assert_eq!((taken, error.code), (10, ErrorCode::QUEUE_FULL));
    assert_eq!(
        error.description,
        format!(
            "Canister {a} input queue is full: 20971520 bytes wait and 2097152 more would be more than are left \
             for others, of 41943040 in all; retry later"
        )
    );
    // Half of what a leaves, then half of that.
    assert_eq!((flood(&mut bench, b, LARGEST).0, flood(&mut bench, c, LARGEST).0), (5, 2));
    assert_eq!(bench.subnet.state().ingress.waiting_bytes, 34 * MIB);
    bench.round();
    assert_eq!(bench.subnet.state().ingress.waiting_bytes, 0);
    assert_eq!(flood(&mut bench, a, LARGEST).0, 10);
}

#[test]
fn however_many_canisters_are_flooded_memory_is_bounded_and_another_finds_room() {
    let mut bench = bench(|limits| limits.ingress_waiting_bytes = 40 * MIB);
    let flooded: Vec<Principal> = (0..50).map(|_| bench.canister("")).collect();
    let quiet = bench.canister("");
    for bytes in [LARGEST, LARGEST / 20, 0] {
        for canister in &flooded {
            let (_, error) = flood(&mut bench, *canister, bytes);
            assert!(error.description.ends_with("retry later"), "{error}");
        }
    }
    // And 64 KiB of its own for each.
    assert!(bench.subnet.state().ingress.waiting_bytes <= 40 * MIB + 50 * (64 << 10));
    let message = echo(&mut bench, quiet, b"here").unwrap();
    bench.round();
    assert_eq!(bench.subnet.status(&message), IngressStatus::Replied(Arc::from(*b"here")));
    assert_eq!(bench.subnet.state().ingress.waiting_bytes, 0);
}

#[test]
fn calls_of_the_management_canister_are_bounded_by_their_bytes_too() {
    let mut bench = bench(|limits| limits.ingress_waiting_bytes = 40 * MIB);
    let a = bench.canister("");
    let arg = install_arg(a, Mode::Reinstall, &" ".repeat(9 << 20), 0);
    let install = |bench: &mut Bench| bench.submit(Principal::management_canister(), "install_code", &arg);
    install(&mut bench).unwrap();
    install(&mut bench).unwrap();
    assert_eq!(install(&mut bench).unwrap_err().code, ErrorCode::QUEUE_FULL);
    bench.round();
    install(&mut bench).unwrap();
}

#[test]
fn one_canisters_messages_do_not_fill_the_history_for_the_others() {
    let mut bench = bench(|limits| limits.ingress_history_length = 400);
    let (a, b, c) = (bench.canister(""), bench.canister(""), bench.canister(""));
    // Their installs are remembered, too.
    let (taken, error) = flood(&mut bench, a, 0);
    assert_eq!((taken, error.code), (198, ErrorCode::INGRESS_HISTORY_FULL));
    assert_eq!(
        error.description,
        format!(
            "Ingress history is full for canister {a}: 198 messages of the last 5 minutes, and one more would be \
             more than are left for others, of 400 in all; retry later"
        )
    );
    bench.round();
    // Answered, but remembered, so that none of them runs twice.
    assert_eq!(flood(&mut bench, a, 0).0, 0);
    // There is less than they have of their own.
    assert_eq!((flood(&mut bench, b, 0).0, flood(&mut bench, c, 0).0), (100, 100));
    bench.round();
    bench.time += 300 * SECOND;
    bench.round();
    assert_eq!(flood(&mut bench, a, 0).0, 200);
}

#[test]
fn answers_beyond_the_bound_are_forgotten_the_oldest_first_and_no_message_runs_again() {
    let mut bench = bench(|limits| limits.ingress_answer_bytes = 1_000);
    let a = bench.canister("");
    let program = bench.program([Op::Reply(vec![7; 300])]);
    let message = |number: u8| Ingress {
        sender: ANONYMOUS,
        receiver: a,
        method: "run".into(),
        arg: Arc::from(program.to_be_bytes()),
        nonce: vec![number],
    };
    let messages: Vec<MessageId> =
        (0..5).map(|number| bench.subnet.submit(message(number)).unwrap()).collect();
    bench.round();
    // Whoever looks after the round sees them all.
    let replied = IngressStatus::Replied(Arc::from([7; 300]));
    assert!(messages.iter().all(|message| bench.subnet.status(message) == replied));
    bench.round();
    let statuses: Vec<IngressStatus> = messages.iter().map(|message| bench.subnet.status(message)).collect();
    let done = IngressStatus::Done;
    assert_eq!(statuses, [done.clone(), done.clone(), replied.clone(), replied.clone(), replied]);
    let path = [b"request_status".to_vec(), messages[0].0.to_vec(), b"status".to_vec()];
    let certificate = bench.subnet.read_state(ANONYMOUS, a, &[path.to_vec()]).unwrap();
    let label = certificate.tree.lookup_path([&b"request_status"[..], &messages[0].0, b"status"]);
    assert_eq!(label, ic_certification::LookupResult::Found(b"done"));

    let ran = bench.script.seen.lock().unwrap().len();
    assert_eq!(bench.subnet.submit(message(0)).unwrap(), messages[0]);
    bench.round();
    assert_eq!((bench.script.seen.lock().unwrap().len(), bench.subnet.status(&messages[0])), (ran, done));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_of_messages_comes_to_what_the_books_say(events in history::wild()) {
        let config = SubnetConfig { limits: Arc::new(Limits { ingress_answer_bytes: 40, ..(*free().limits).clone() }), ..free() };
        let mut history = History::new(config, 1);
        for event in &events {
            history.event(event);
            let kept = &history.bench.subnet.state().ingress;
            let mut receivers: BTreeMap<Principal, Receiver> = BTreeMap::new();
            let mut answer_bytes = 0;
            for record in kept.records.values() {
                let receiver = receivers.entry(record.receiver).or_default();
                receiver.messages += 1;
                if record.status.is_terminal() {
                    answer_bytes += record.bytes;
                } else {
                    receiver.waiting_bytes += record.bytes;
                }
            }
            prop_assert_eq!(kept.waiting_bytes, receivers.values().map(|has| has.waiting_bytes).sum::<u64>());
            prop_assert_eq!(kept.answer_bytes, answer_bytes);
            prop_assert_eq!(kept.receivers.iter().map(|(id, has)| (*id, *has)).collect::<BTreeMap<_, _>>(), receivers);
            let done = kept.records.values().filter(|record| record.status == IngressStatus::Done).count();
            prop_assert_eq!(kept.forgotten, done);
        }
    }
}
