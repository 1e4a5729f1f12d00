//! What the observer of rounds hears of messages, and when.

use std::sync::{Arc, Mutex};

use execution::{Backend, MessageKey, Principal, RoundObserver, SchedulerOptions, SubnetConfig};

use crate::batches::Ahead;
use crate::scripted::{Bench, Op, Scripted, call, killed};

/// A moment, with the number of the message or of the invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Ready(u64),
    Begun(u64, &'static str),
    Dropped(u64),
    Checked(u64),
    Committed(u64),
}

use Heard::{Begun, Checked, Committed, Dropped, Ready};

#[derive(Default)]
struct Notes(Mutex<Vec<Heard>>);

impl Notes {
    fn note(&self, heard: Heard) {
        self.0.lock().unwrap().push(heard);
    }

    fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl RoundObserver for Notes {
    fn ready(&self, message: MessageKey) {
        self.note(Ready(message.number()));
    }

    fn begun(&self, message: MessageKey, _: &Principal, kind: &'static str) {
        self.note(Begun(message.number(), kind));
    }

    fn dropped(&self, message: MessageKey) {
        self.note(Dropped(message.number()));
    }

    fn checked(&self, invocation: u64) {
        self.note(Checked(invocation));
    }

    fn committed(&self, invocation: u64) {
        self.note(Committed(invocation));
    }
}

/// A subnet whose messages are noted, from now on.
fn observed(backend: impl FnOnce(&Arc<Scripted>) -> Arc<dyn Backend>) -> (Bench, Principal, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let observer = Some(Arc::clone(&notes) as Arc<dyn RoundObserver>);
    let options = SchedulerOptions { threads: 1, observer, ..SchedulerOptions::default() };
    let mut bench = Bench::scheduled(SubnetConfig::application(), options, backend);
    let canister = bench.canister("");
    notes.take();
    (bench, canister, notes)
}

fn scripted(script: &Arc<Scripted>) -> Arc<dyn Backend> {
    Arc::clone(script) as _
}

/// Without the numbers.
fn words(heard: &[Heard]) -> Vec<&'static str> {
    let word = |heard: &Heard| match heard {
        Ready(_) => "ready",
        Begun(_, kind) => kind,
        Dropped(_) => "dropped",
        Checked(_) => "checked",
        Committed(_) => "committed",
    };
    heard.iter().map(word).collect()
}

#[test]
fn each_message_is_ready_begins_is_checked_and_committed_once_in_this_order() {
    let (mut bench, a, notes) = observed(scripted);
    let program = bench.program([Op::Reply(vec![])]).to_be_bytes();
    let id = bench.submit(a, "run", &program).unwrap();
    let key = MessageKey::of_ingress(&id).number();
    assert_eq!(notes.take(), [Ready(key)], "it waits before any round");
    let report = bench.round();
    let number = report.executed[0].invocation;
    assert_eq!(notes.take(), [Begun(key, "update"), Checked(number), Committed(number)]);
    bench.round();
    assert_eq!(notes.take(), []);
}

#[test]
fn calls_and_their_answers_wait_as_well_each_under_a_key_of_its_own() {
    let (mut bench, a, notes) = observed(scripted);
    let b = bench.canister("");
    notes.take();
    let callee = bench.program([Op::Reply(vec![7])]);
    let answered = bench.program([Op::ReplyResponse]);
    let caller = bench.program([Op::Call(call(b, callee, answered))]).to_be_bytes();
    assert_eq!(bench.ingress(a, "run", &caller).unwrap(), [7]);
    let heard = notes.take();
    let ready: Vec<u64> =
        heard.iter().filter_map(|heard| if let Ready(key) = heard { Some(*key) } else { None }).collect();
    let begun: Vec<u64> =
        heard.iter().filter_map(|heard| if let Begun(key, _) = heard { Some(*key) } else { None }).collect();
    assert_eq!(ready, begun, "in the order of their runs");
    assert!(ready[0] != ready[1] && ready[1] != ready[2] && ready[0] != ready[2], "{ready:?}");
    let run = |kind| [kind, "checked", "committed"];
    let whole = [vec!["ready"], run("update").to_vec(), vec!["ready"], run("update").to_vec()].concat();
    assert_eq!(words(&heard), [whole, vec!["ready"], run("reply_callback").to_vec()].concat());
}

#[test]
fn a_heartbeat_waits_from_the_start_of_its_round() {
    let (mut bench, _, notes) = observed(scripted);
    bench.canister(&format!("heartbeat={}", u64::MAX));
    notes.take();
    for _ in 0..2 {
        bench.round();
        assert_eq!(words(&notes.take()), ["ready", "heartbeat", "checked", "committed"]);
    }
}

#[test]
fn a_message_that_the_gate_refuses_is_dropped_and_never_begins() {
    let (mut bench, a, notes) = observed(scripted);
    let id = bench.submit(a, "no such method", &[]).unwrap();
    bench.round();
    let key = MessageKey::of_ingress(&id).number();
    assert_eq!(notes.take(), [Ready(key), Dropped(key)]);
}

#[test]
fn a_callback_that_traps_is_committed_with_its_cleanup() {
    let (mut bench, a, notes) = observed(scripted);
    let answered = bench.program([Op::Trap("no")]);
    let cleanup = bench.program([]);
    let mut made = call(a, u64::MAX, answered);
    made.on_cleanup = Some(cleanup);
    let caller = bench.program([Op::Call(made)]).to_be_bytes();
    bench.ingress(a, "run", &caller).unwrap_err();
    let heard = notes.take();
    let [checked, committed] =
        ["checked", "committed"].map(|word| words(&heard).iter().filter(|heard| **heard == word).count());
    assert_eq!((checked, committed), (4, 3), "of three messages the last has two runs: {heard:?}");
}

#[test]
fn a_message_of_several_slices_is_checked_and_committed_once_however_often_it_begins() {
    for given_up in [false, true] {
        let (mut bench, a, notes) = observed(scripted);
        let program = bench.program([Op::Slices(3), Op::Reply(vec![])]).to_be_bytes();
        bench.submit(a, "run", &program).unwrap();
        bench.round();
        if given_up {
            bench.subnet.abort_paused();
        }
        for _ in 0..4 {
            bench.round();
        }
        let begun: &[&str] = if given_up { &["update", "update"] } else { &["update"] };
        assert_eq!(words(&notes.take()), [&["ready"], begun, &["checked", "committed"]].concat());
    }
}

#[test]
fn a_message_that_fails_around_the_guest_is_neither_checked_nor_committed() {
    let (mut bench, a, notes) = observed(scripted);
    let program = bench.program([Op::Reply(vec![])]).to_be_bytes();
    *bench.script.failing.lock().unwrap() = Some((3, a, killed));
    bench.submit(a, "run", &program).unwrap();
    assert_eq!(bench.round().failures.len(), 1);
    assert_eq!(words(&notes.take()), ["ready", "update"]);
    bench.round();
    assert_eq!(words(&notes.take()), ["update", "checked", "committed"]);
}

#[test]
fn a_claim_that_check_refuses_is_not_told_as_checked() {
    let (mut bench, a, notes) = observed(scripted);
    let lie = Op::Lie(|outcome| outcome.instructions = u64::MAX);
    let program = bench.program([Op::Reply(vec![]), lie]).to_be_bytes();
    bench.submit(a, "run", &program).unwrap();
    assert_eq!(bench.round().failures.len(), 1);
    assert_eq!(words(&notes.take()), ["ready", "update"]);
}

#[test]
fn a_query_is_checked_and_nothing_else() {
    let (mut bench, a, notes) = observed(scripted);
    let program = bench.program([Op::Reply(vec![])]).to_be_bytes();
    let answer = bench.subnet.query(Principal::anonymous(), a, "ask", &program);
    assert_eq!(answer.executed.len(), 1, "{:?}", answer.result);
    assert_eq!(notes.take(), [Checked(answer.executed[0].invocation)]);
    bench.round();
    assert_eq!(notes.take(), []);
}

#[test]
fn nothing_is_told_of_looking_ahead() {
    let heard = |most| {
        let (mut bench, a, notes) = observed(|script| Arc::new(Ahead::new(script, most)) as _);
        let program = bench.program([Op::Reply(vec![])]).to_be_bytes();
        for _ in 0..5 {
            bench.submit(a, "run", &program).unwrap();
        }
        bench.round();
        notes.take()
    };
    assert_eq!(heard(4), heard(1));
    assert_eq!(words(&heard(4)).iter().filter(|word| **word == "committed").count(), 5);
}
