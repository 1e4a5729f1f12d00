//! Messages in slices: the same outcome as in one go, and pauses where the counts say.

use execution::{Backend, EntryPoint, ErrorCode, Execution, Invocation, Outcome, PausedRun};
use in_process::{Engine, InProcess, InProcessOptions};

use crate::canister::{Canister, assert_trap, invocation, module, reply_of, update};

/// Counts a million times to the heap's first word: 13 instructions a turn.
const COUNT: &str = r#"(func (export "canister_update count") (local $n i32)
    (loop $l
      (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
      (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000000))))
    (call $msg_reply_data_append (i32.const 0) (i32.const 4))
    (i64.store (i32.const 8) (call $performance_counter (i32.const 0)))
    (call $msg_reply_data_append (i32.const 8) (i32.const 8))
    (call $msg_reply))"#;

fn counting() -> Canister {
    let imports = ["msg_reply", "msg_reply_data_append", "performance_counter"];
    Canister::new(&module(&imports, COUNT))
}

fn backend() -> InProcess {
    InProcess::new(Engine::new().unwrap(), &InProcessOptions::default())
}

fn sliced(canister: &Canister, entry: EntryPoint, instructions_max: u64, slice: u64) -> Invocation {
    Invocation { slice, ..invocation(canister, entry, instructions_max) }
}

/// The outcome, and how often it paused.
fn run(backend: &InProcess, canister: &Canister, invocation: &Invocation) -> (Outcome, u64) {
    let mut execution = backend.execute(&canister.snapshot, invocation).unwrap();
    let mut pauses = 0;
    loop {
        match execution {
            Execution::Finished(outcome) => return (outcome, pauses),
            Execution::Paused(run) => execution = run.resume(invocation.slice).unwrap(),
        }
        pauses += 1;
    }
}

fn paused(execution: Execution) -> Box<dyn PausedRun> {
    match execution {
        Execution::Paused(run) => run,
        Execution::Finished(outcome) => panic!("it ended: {outcome:?}"),
    }
}

#[test]
fn any_number_of_slices_gives_the_reply_counter_and_charge_of_one() {
    let canister = counting();
    let whole = canister.run(update("count", &[]));
    let used = whole.instructions;
    for slices in [2, 3, 7, 50] {
        let invocation = sliced(&canister, update("count", &[]), 40_000_000_000, used / slices + 1);
        let (outcome, pauses) = run(&backend(), &canister, &invocation);
        assert_eq!(pauses, slices - 1);
        assert_eq!(outcome.instructions, used);
        // Both the count and what performance_counter said.
        assert_eq!(reply_of(&outcome), reply_of(&whole));
    }
}

#[test]
fn what_a_slice_takes_too_much_the_next_one_lacks() {
    // Ten turns of one block of 1 + 3 * 1000 + ... instructions: checked once a turn.
    let nops = "(i32.const 0) (drop) ".repeat(500);
    let text = format!(
        "(module (func (export \"canister_update go\") (local $n i32)
           (loop $l {nops} (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10))))))"
    );
    let canister = Canister::new(&text);
    let whole = canister.run(update("go", &[]));
    // A turn: 500 * (const 1 + drop 1) + const 1 + get 1 + add 1 + tee 1 + const 1 + lt 1 + br_if 2 = 1008; and 1
    // for the function. A turn is paid when it begins, so with slices of 1,500 one begins at 1, 1009, 2017, ...:
    // the slices end at the first checks above 1,500, 3,000, 4,500, ..., 9,000: six pauses.
    assert_eq!(whole.instructions, 1 + 10 * 1008);
    let invocation = sliced(&canister, update("go", &[]), 40_000_000_000, 1_500);
    let (outcome, pauses) = run(&backend(), &canister, &invocation);
    assert_eq!((outcome.instructions, pauses), (whole.instructions, 6));
}

#[test]
fn one_operation_larger_than_a_slice_and_what_is_left_of_it_overruns() {
    let text = r#"(module (memory 2) (func (export "canister_update fill") (param) (local)
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 100000))))"#;
    let canister = Canister::new(text);
    // 1 + 3 consts + 100 are paid when the block begins, then 100,000 for the bytes.
    let used = 1 + 3 + 100 + 100_000;
    let fits =
        |slice| run(&backend(), &canister, &sliced(&canister, update("fill", &[]), 1_000_000_000, slice));
    let (outcome, pauses) = fits(used / 2 + 1);
    assert_eq!((outcome.instructions, pauses), (used + 25 * 1_000, 1));
    let (outcome, pauses) = fits(used / 2);
    assert_eq!(pauses, 0);
    assert_trap(
        &outcome,
        ErrorCode::INSTRUCTION_LIMIT,
        "a large memory operation that used 100104 instructions and exceeded the slice limit 50052",
    );
}

#[test]
fn calls_of_the_system_api_end_slices_too() {
    // Straight code, no loop: four writes of 60,000 bytes, 60,020 each and 1,000 for each of 15 pages, once.
    let write = "(call $stable64_write (i64.const 0) (i64.const 0) (i64.const 60000))";
    let body = format!(
        "(func (export \"canister_update write\") (drop (call $stable64_grow (i64.const 1))) {})",
        write.repeat(4)
    );
    let canister = Canister::new(&module(&["stable64_grow", "stable64_write"], &body));
    let whole = canister.run(update("write", &[]));
    let invocation = sliced(&canister, update("write", &[]), 1_000_000_000, 80_000);
    let (outcome, pauses) = run(&backend(), &canister, &invocation);
    // 75,1xx, 135,xxx, 195,xxx, 255,xxx: above 80,000 after the second, 160,000 after the third, 240,000 after the last.
    assert_eq!((outcome.instructions, pauses), (whole.instructions, 3));
}

#[test]
fn the_limit_of_the_message_ends_it_in_whatever_slice_it_is() {
    let canister = counting();
    let limit = 1_000_000;
    let (outcome, pauses) =
        run(&backend(), &canister, &sliced(&canister, update("count", &[]), limit, 300_000));
    assert_eq!((outcome.instructions, pauses), (limit, 3));
    assert_trap(&outcome, ErrorCode::INSTRUCTION_LIMIT, "exceeded the limit of 1000000 instructions");
}

#[test]
fn a_trap_in_a_later_slice_undoes_the_earlier_ones() {
    let body = r#"(func (export "canister_update fail") (local $n i32)
        (loop $l (i32.store (i32.const 0) (local.get $n))
          (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))
        unreachable)
      (func (export "canister_update read") (call $msg_reply_data_append (i32.const 0) (i32.const 4)) (call $msg_reply))"#;
    let canister = Canister::new(&module(&["msg_reply", "msg_reply_data_append"], body));
    let backend = backend();
    let (outcome, pauses) =
        run(&backend, &canister, &sliced(&canister, update("fail", &[]), 1_000_000, 4_000));
    assert!(pauses >= 2, "{pauses}");
    assert_trap(&outcome, ErrorCode::CANISTER_TRAPPED, "unreachable");
    // The same instance, warm.
    let (outcome, _) =
        run(&backend, &canister, &sliced(&canister, update("read", &[]), 1_000_000, 1_000_000));
    assert_eq!(reply_of(&outcome), [0; 4]);
}

#[test]
fn a_paused_run_that_is_dropped_or_aborted_leaves_nothing() {
    let canister = counting();
    let backend = backend();
    let invocation = sliced(&canister, update("count", &[]), 40_000_000_000, 1_000_000);
    drop(paused(backend.execute(&canister.snapshot, &invocation).unwrap()));
    paused(paused(backend.execute(&canister.snapshot, &invocation).unwrap()).resume(1_000_000).unwrap())
        .abort();
    let (outcome, _) = run(&backend, &canister, &invocation);
    assert_eq!(reply_of(&outcome)[..4], 1_000_000_u32.to_le_bytes());
}

#[test]
fn many_paused_runs_go_on_in_any_order_and_on_any_thread() {
    let canister = counting();
    let backend = backend();
    let invocation = sliced(&canister, update("count", &[]), 40_000_000_000, 3_000_000);
    let mut runs: Vec<_> =
        (0..8).map(|_| paused(backend.execute(&canister.snapshot, &invocation).unwrap())).collect();
    let mut replies = Vec::new();
    while let Some(run) = runs.pop() {
        let slice = invocation.slice;
        match std::thread::spawn(move || run.resume(slice)).join().unwrap().unwrap() {
            Execution::Finished(outcome) => replies.push(reply_of(&outcome)),
            Execution::Paused(run) => runs.insert(0, run),
        }
    }
    assert_eq!(replies.len(), 8);
    assert!(replies.iter().all(|reply| *reply == replies[0] && reply[..4] == 1_000_000_u32.to_le_bytes()));
}

#[test]
fn a_call_that_cannot_be_paid_is_not_made() {
    let wat = module(
        &["call_cycles_add"],
        "(func (export \"canister_update m\") (call $call_cycles_add (i64.const 1)))",
    );
    // Without a call under construction the function refuses; with too little left it is not asked. 1 for the function,
    // 1 for the constant, 5 for the call.
    let limits = [(7 + 500, ErrorCode::CONTRACT_VIOLATION), (7 + 499, ErrorCode::INSTRUCTION_LIMIT)];
    for (limit, code) in limits {
        let canister = Canister::new(&wat);
        let (outcome, pauses) =
            run(&backend(), &canister, &sliced(&canister, update("m", &[]), limit, limit));
        assert_trap(&outcome, code, "");
        assert_eq!(pauses, 0);
    }
}

#[test]
fn a_call_that_ends_a_slice_is_made_in_the_next_whoever_pays() {
    let count = |call: &str, rest: &str| {
        let body = format!(
            "(func (export \"canister_update m\") {} (i64.store (i32.const 0) (call $performance_counter (i32.const 0)))
               (call $msg_reply_data_append (i32.const 0) (i32.const 8)) (call $msg_reply)) {rest}",
            format!("(drop {call})").repeat(10)
        );
        let imports = ["time", "performance_counter", "msg_reply", "msg_reply_data_append"];
        let canister = Canister::new(&module(&imports, &body));
        let whole = run(&backend(), &canister, &sliced(&canister, update("m", &[]), 1_000_000, 1_000_000));
        let slices = run(&backend(), &canister, &sliced(&canister, update("m", &[]), 1_000_000, 1_100));
        assert_eq!(whole.0.instructions, slices.0.instructions, "{call}");
        assert_eq!(reply_of(&whole.0), reply_of(&slices.0), "{call}: what the counter shows");
        (whole.1, slices.1)
    };
    let table = "(table 1 funcref) (elem (i32.const 0) $time) (type $t (func (result i64)))";
    let last = "(func $last (result i64) (return_call $time))";
    for (call, rest) in
        [("(call $time)", ""), ("(call_indirect (type $t) (i32.const 0))", table), ("(call $last)", last)]
    {
        let (whole, slices) = count(call, rest);
        assert_eq!(whole, 0);
        assert!(
            (5..=8).contains(&slices),
            "{call}: {slices} pauses of about 8,000 instructions in slices of 1,100"
        );
    }
}
