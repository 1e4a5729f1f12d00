//! R: answering and ending.

use execution::{Answer, Ending, EntryPoint, ErrorCode};

use crate::canister::{Canister, assert_trap, module, reply_callback, reply_of, update};

const ANSWERING: [&str; 4] = ["msg_reply_data_append", "msg_reply", "msg_reject", "trap"];

fn run(body: &str) -> execution::Outcome {
    let data = "(data (i32.const 0) \"abcno\\ff\\fe\")";
    let wat = module(&ANSWERING, &format!("{data} (func (export \"canister_update m\") {body})"));
    Canister::new(&wat).update("m", &[])
}

const APPEND_AB: &str = "(call $msg_reply_data_append (i32.const 0) (i32.const 2))";
const REPLY: &str = "(call $msg_reply)";
const REJECT_NO: &str = "(call $msg_reject (i32.const 3) (i32.const 2))";

#[test]
fn appended_parts_make_the_reply() {
    let outcome =
        run(&format!("{APPEND_AB} (call $msg_reply_data_append (i32.const 2) (i32.const 1)) {REPLY}"));
    assert_eq!(reply_of(&outcome), b"abc");
    assert_eq!(reply_of(&run(REPLY)), b"", "nothing appended");
}

#[test]
fn a_context_answers_once() {
    for body in [
        format!("{REPLY} {REPLY}"),
        format!("{REPLY} {APPEND_AB}"),
        format!("{REPLY} {REJECT_NO}"),
        format!("{REJECT_NO} {REPLY}"),
    ] {
        assert_trap(&run(&body), ErrorCode::CONTRACT_VIOLATION, "already replied");
    }
    let mut answered =
        Canister::new(&module(&ANSWERING, "(func (export \"canister_update m\") (call $msg_reply))"));
    answered.system.answered = true;
    assert_trap(&answered.update("m", &[]), ErrorCode::CONTRACT_VIOLATION, "already replied");
}

#[test]
fn a_reject_drops_what_was_appended() {
    let outcome = run(&format!("{APPEND_AB} {REJECT_NO}"));
    assert_eq!(outcome.effects.unwrap().answer, Some(Answer::Reject("no".into())));
}

#[test]
fn a_reject_must_be_utf_8() {
    let outcome = run("(call $msg_reject (i32.const 5) (i32.const 2))");
    assert_trap(&outcome, ErrorCode::CONTRACT_VIOLATION, "UTF-8");
}

#[test]
fn returning_without_an_answer_is_no_error_here() {
    let outcome = run("");
    assert_eq!(outcome.ending, Ending::Returned);
    assert_eq!(outcome.effects.unwrap().answer, None);
}

#[test]
fn replies_have_a_largest_size_by_kind() {
    let wat = "(module
        (import \"ic0\" \"msg_reply_data_append\" (func $append (param i32 i32)))
        (import \"ic0\" \"msg_reply\" (func $msg_reply))
        (memory 49)
        (func $two (call $append (i32.const 0) (i32.const 2097152)) (call $msg_reply))
        (func $two_more (call $append (i32.const 0) (i32.const 2097153)) (call $msg_reply))
        (func $three (call $append (i32.const 0) (i32.const 3145728)) (call $msg_reply))
        (func $three_more (call $append (i32.const 0) (i32.const 3145729)) (call $msg_reply))
        (export \"canister_update two\" (func $two)) (export \"canister_update two_more\" (func $two_more))
        (export \"canister_query three\" (func $three)) (export \"canister_query three_more\" (func $three_more)))";
    let mut canister = Canister::new(wat);
    assert_eq!(canister.reply("two", &[]).len(), 2 << 20);
    assert_trap(&canister.update("two_more", &[]), ErrorCode::CONTRACT_VIOLATION, "payload size");
    assert_eq!(canister.query("three").len(), 3 << 20);
    let query = EntryPoint::Query { method: "three_more".into(), arg: [].into() };
    assert_trap(&canister.run(query), ErrorCode::CONTRACT_VIOLATION, "payload size");
}

#[test]
fn traps_of_the_engine_have_their_words() {
    for (body, words) in [
        ("unreachable", "Canister trapped: unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "Canister trapped: integer division by 0"),
        ("(drop (i32.load (i32.const 65536)))", "Canister trapped: heap out of bounds"),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", "Canister trapped: unknown"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "Canister trapped: unknown"),
    ] {
        assert_trap(&run(body), ErrorCode::CANISTER_TRAPPED, words);
    }
}

#[test]
fn endless_recursion_is_a_stack_overflow() {
    let wat = "(module (func $f (export \"canister_update m\") (call $f) (call $f)))";
    assert_trap(&Canister::new(wat).update("m", &[]), ErrorCode::CANISTER_TRAPPED, "stack overflow");
}

#[test]
fn ic0_trap_gives_its_message() {
    let outcome = run("(call $trap (i32.const 0) (i32.const 3))");
    assert_trap(&outcome, ErrorCode::CALLED_TRAP, "Canister called `ic0.trap` with message: 'abc'");
    assert_eq!(outcome.logs[0].text, b"[TRAP]: abc");
    let lossy = run("(call $trap (i32.const 5) (i32.const 2))");
    assert_trap(&lossy, ErrorCode::CALLED_TRAP, "\u{fffd}\u{fffd}");
    let outside = run("(call $trap (i32.const 65535) (i32.const 2))");
    assert_trap(&outside, ErrorCode::CALLED_TRAP, "out of memory bounds");
}

#[test]
fn a_reply_buffer_does_not_outlive_its_message() {
    let wat = module(
        &ANSWERING,
        "(data (i32.const 0) \"abc\") (table 1 1 funcref) (elem (i32.const 0) $callback)
         (func (export \"canister_update m\") (call $msg_reply_data_append (i32.const 0) (i32.const 2)))
         (func $callback (param i32)
            (call $msg_reply_data_append (i32.const 2) (i32.const 1)) (call $msg_reply))",
    );
    let mut canister = Canister::new(&wat);
    canister.update("m", &[]);
    assert_eq!(reply_of(&canister.run(reply_callback(0, 0, &[]))), b"c");
}

#[test]
fn a_page_written_where_the_stack_ends_is_restored_in_a_warm_instance_too() {
    // `store` is the last frame that fits, and what follows its store inside it needs one more. Frames of different
    // sizes in between make the stack end at every place that it can.
    let pads: String = (0..8)
        .map(|live| {
            let read: String = (0..live).map(|n| format!("(i64.load (i32.const {}))", n * 8)).collect();
            let write = if live == 0 { String::new() } else { "i64.add ".repeat(live - 1) + "global.set $g" };
            format!(
                "(func $pad{live} (param i32) {read} (call $down (local.get 0)) {write})
                 (func (export \"canister_update m{live}\") (call $pad{live} (call $msg_arg_data_size)))"
            )
        })
        .collect();
    let wat = module(
        &["msg_arg_data_size", "msg_reply_data_append", "msg_reply"],
        &format!(
            "(global $g (mut i64) (i64.const 1))
             (func $store (i64.store (i32.const 30000) (i64.const 1)))
             (func $down (param i32)
               (if (local.get 0)
                 (then (call $down (i32.sub (local.get 0) (i32.const 1))))
                 (else (call $store))))
             {pads}
             (func (export \"canister_update read\")
               (call $msg_reply_data_append (i32.const 30000) (i32.const 1)) (call $msg_reply))"
        ),
    );
    let canister = Canister::new(&wat);
    for live in 0..8 {
        let method = format!("m{live}");
        let ends_at = |depth: usize| canister.run(update(&method, &vec![0; depth])).effects.is_none();
        let (mut fits, mut ends) = (1_000, 400_000);
        assert!(!ends_at(fits) && ends_at(ends));
        while ends - fits > 1 {
            let depth = usize::midpoint(fits, ends);
            if ends_at(depth) { ends = depth } else { fits = depth }
        }
        assert_trap(
            &canister.run(update(&method, &vec![0; ends])),
            ErrorCode::CANISTER_TRAPPED,
            "stack overflow",
        );
        assert_eq!(reply_of(&canister.run(update("read", &[]))), [0], "{method} at depth {ends}");
    }
}
