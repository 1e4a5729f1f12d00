//! R: answering, and what of A and B unit tests don't have.

use super::check::{Check, Code, Step, check, one, query, update};

fn loads(body: &str) -> String {
    format!("(update \"get\" (call $say32 (i32.load (i32.const 0)))) {body}")
}

/// A module that answers with bytes of a heap that it hasn't.
fn without_memory(id: &'static str, step: Step) -> Check {
    let mut check = one(id, "", step);
    let text = r#"(module (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
        (func (export "canister_update go") (call $append (i32.const 0) (i32.const 1))))"#;
    check.canisters[0].code = Code::Wat(text.to_owned());
    check
}

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![
        one(
            "R01",
            r#"(update "go" (call $append (lit "ab")) (call $append (lit "c")) (call $reply))"#,
            update("go").reply("abc"),
        ),
        one("R02", r#"(update "go" (call $reply))"#, update("go").reply("")),
        one(
            "B03",
            r#"(update "go" (call $arg_copy (i32.const 0) (i32.const 10) (i32.const 0)) (call $reply))"#,
            update("go").arg("0123456789").reply(""),
        ),
        one(
            "B05",
            r#"(update "go" (memory.fill (i32.const 96) (i32.const 0x2d) (i32.const 16))
            (call $arg_copy (i32.const 100) (i32.const 3) (i32.const 4)) (call $say (i32.const 96) (i32.const 16)))"#,
            update("go").arg("0123456789").reply("----3456--------"),
        ),
        without_memory("B06", update("go").error("IC0504", "must define memory")),
        one("R06a", r#"(update "go" (call $reject (lit "no")))"#, update("go").error("IC0406", "no")),
        one(
            "R07",
            r#"(update "go" (call $append (lit "ab")) (call $reject (lit "no")))"#,
            update("go").error("IC0406", "no"),
        ),
        one(
            "R09",
            r#"(memory 40) (update "go" (call $say (i32.const 0) (i32.const 2097152)))"#,
            update("go").replies_bytes(2_097_152),
        ),
        one(
            "R09a",
            r#"(memory 40) (update "go" (call $say (i32.const 0) (i32.const 2097153)))"#,
            update("go").error("IC0504", ""),
        ),
        one(
            "R10",
            r#"(memory 50) (query "go" (call $say (i32.const 0) (i32.const 3145728)))"#,
            query("go").replies_bytes(3_145_728),
        ),
        one(
            "R10a",
            r#"(memory 50) (query "go" (call $say (i32.const 0) (i32.const 3145729)))"#,
            query("go").error("IC0504", ""),
        ),
        check(
            "R14",
            [
                r#"(update "go" (call $append (lit "old")) (call $peer (lit "echo")) (call $sent))"#,
                r#"(update "echo" (call $say (lit "new")))"#,
            ],
            [update("go").reply("new")],
        ),
        check(
            "R15",
            [
                r#"(update "go" (call $peer (lit "echo")) (call $data (lit "hello")) (call $sent))"#,
                r#"(update "echo" (call $say (i32.const 0x4000) (call $arg)))"#,
            ],
            [update("go").reply("hello")],
        ),
        check(
            "R06",
            [&loads(r#"(update "go" (i32.store (i32.const 0) (i32.const 5)) (call $reject (lit "no")))"#)],
            [update("go").error("IC0406", "no"), update("get").numbers(&[5])],
        ),
        check(
            "R11",
            [&loads(r#"(update "go" (i32.store (i32.const 0) (i32.const 5)))"#)],
            [update("go").error("IC0506", "did not reply to the call"), update("get").numbers(&[5])],
        ),
        check(
            "R08",
            [&loads(
                r#"(data (i32.const 16) "\ff\fe") (update "go" (i32.store (i32.const 0) (i32.const 5)) (call $reject (i32.const 16) (i32.const 2)))"#,
            )],
            [update("go").error("IC0504", ""), update("get").numbers(&[0])],
        ),
    ];
    // Each ends the message with an error that undoes it.
    let undone = [
        ("R03", r#"(call $say (lit "a")) (call $reply)"#, "IC0504", ""),
        ("R04", r#"(call $say (lit "a")) (call $append (lit "b"))"#, "IC0504", ""),
        ("R05", r#"(call $say (lit "a")) (call $reject (lit "b"))"#, "IC0504", ""),
        ("R05a", r#"(call $reject (lit "b")) (call $say (lit "a"))"#, "IC0504", ""),
        ("R12", r#"(call $trap (lit "boom"))"#, "IC0503", "boom"),
        ("R13 unreachable", "(unreachable)", "IC0502", "unreachable"),
        (
            "R13 division",
            "(drop (i32.div_s (i32.const 1) (i32.load (i32.const 100))))",
            "IC0502",
            "integer division by 0",
        ),
        ("R13 heap", "(drop (i32.load (i32.const 0x7fffffff)))", "IC0502", "heap out of bounds"),
        ("R13 recursion", "(call $deep)", "IC0502", "stack overflow"),
        ("M06 large frames", "(drop (call $wide (i64.const 1) (f64.const 2)))", "IC0502", "stack overflow"),
        (
            "M06 callback frames",
            "(call_indirect (param i32) (i32.const 0) (i32.const 5))",
            "IC0502",
            "stack overflow",
        ),
        ("A08", "(call $accept)", "IC0504", "cannot be executed in"),
        ("A09", "(drop (call $reject_code))", "IC0504", "cannot be executed in"),
        ("A18", "(drop (call $counter (i32.const 2)))", "IC0504", ""),
        ("B01", "(call $arg_copy (i32.const 0) (i32.const 1) (i32.const 1))", "IC0504", ""),
        ("B02", "(call $self_copy (i32.const 131070) (i32.const 0) (i32.const 10))", "IC0504", ""),
        ("B03 beyond", "(call $arg_copy (i32.const 0) (i32.const 1) (i32.const 0))", "IC0504", ""),
        ("B04", "(call $self_copy (i32.const -1) (i32.const 0) (i32.const 2))", "IC0504", ""),
        ("B07", "(drop (call $is_controller (i32.const 0) (i32.const 30)))", "IC0504", ""),
        ("B09", "(call $trap (i32.const -1) (i32.const 5))", "IC0503", ""),
        ("M07 signature", "(call_indirect (param i64) (i64.const 0) (i32.const 0))", "IC0504", ""),
        ("M07 null", "(call_indirect (param i32) (i32.const 0) (i32.const 7))", "IC0502", ""),
        (
            "M07 index",
            "(call_indirect (param i32) (i32.const 0) (i32.const 8))",
            "IC0502",
            "table out of bounds",
        ),
        ("M10 nan", "(drop (i32.trunc_f32_s (f32.const nan)))", "IC0502", ""),
        (
            "M10 overflow",
            "(drop (i32.div_s (i32.const -2147483648) (i32.sub (i32.load (i32.const 100)) (i32.const 1))))",
            "IC0502",
            "",
        ),
        (
            "S03",
            "(call $read (i64.const 0) (i64.const 65535) (i64.const 2))",
            "IC0502",
            "stable memory out of bounds",
        ),
        (
            "S10",
            "(drop (call $grow (i64.const 9))) (call $write (i64.const 0) (i64.const 131071) (i64.const 2))",
            "IC0502",
            "heap out of bounds",
        ),
        ("CD01", "(call $certified_data_set (i32.const 0) (i32.const 33))", "IC0504", ""),
        (
            "Y06",
            r#"(call $peer (lit "x")) (call $attach (i64.const 9) (i64.const 0))"#,
            "IC0504",
            "out of cycles",
        ),
        ("C08 data", r#"(call $data (lit "x"))"#, "IC0504", ""),
        ("C08 cycles", "(call $attach (i64.const 0) (i64.const 1))", "IC0504", ""),
        ("C08 cleanup", "(call $on_cleanup (i32.const 0) (i32.const 0))", "IC0504", ""),
        ("C08 perform", "(drop (call $perform))", "IC0504", ""),
        ("C08 best effort", "(call $best_effort (i32.const 1))", "IC0504", ""),
        (
            "C10",
            r#"(call $peer (lit "x")) (call $on_cleanup (i32.const 0) (i32.const 0)) (call $on_cleanup (i32.const 0) (i32.const 0))"#,
            "IC0504",
            "",
        ),
        ("C11", r#"(call $peer (lit "x")) (call $sent) (call $data (lit "x"))"#, "IC0504", ""),
        ("C13", r#"(call $own (lit "mark")) (call $sent) (call $trap (lit "late"))"#, "IC0503", "late"),
        ("C20", "(call $peer (i32.const 0) (i32.const 20001))", "IC0504", ""),
        (
            "C22",
            "(call $new (i32.const 0) (i32.const 30) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
            "IC0504",
            "",
        ),
        (
            "C27 twice",
            r#"(call $peer (lit "x")) (call $best_effort (i32.const 1)) (call $best_effort (i32.const 1))"#,
            "IC0504",
            "",
        ),
        ("L22 unknown", r#"(drop (call $env_size (lit "none")))"#, "IC0504", ""),
    ];
    for (id, body, code, part) in undone {
        let body = format!(
            "(func $deep (call $deep))
             (func $wide (param i64 f64) (result i64) (local i64 v128 i64)
               (local.set 2 (i64.mul (local.get 0) (i64.const 7)))
               (local.set 3 (v128.load (i32.const 64)))
               (local.set 4 (call $wide (local.get 2) (f64.add (local.get 1) (f64.const 1))))
               (i64.add (i64.add (local.get 4) (local.get 2)) (i64x2.extract_lane 0 (local.get 3))))
             (func $indirect (param i32) (call_indirect (param i32) (i32.add (local.get 0) (i32.const 1)) (i32.const 5)) (i32.store (i32.const 128) (local.get 0)))
             (elem (i32.const 5) $indirect)
             (global $g (mut i32) (i32.const 0))
             (update \"mark\" (i32.store (i32.const 0) (i32.const 9)) (call $reply))
             (update \"seen\" (call $put (call $size)) (call $put32 (global.get $g)) (call $put (call $timer_set (i64.const 0))) (call $reply))
             (update \"go\" (i32.store (i32.const 0) (i32.const 5)) (global.set $g (i32.const 5))
               (drop (call $grow (i64.const 1))) (drop (call $timer_set (i64.const 9223372036854775807)))
               {body})"
        );
        let body = loads(&body);
        checks.push(check(
            id,
            [&body],
            [update("go").error(code, part), update("get").numbers(&[0]), update("seen").numbers(&[0, 0, 0])],
        ));
    }
    checks
}
