//! C: calls between canisters.

use super::check::{Check, check, pass, query, update};
use super::prelude::{PARK, PASS};

const ECHO: &str = r#"
    (update "echo" (call $say (i32.const 0x4000) (call $arg)))
    (update "reject" (call $reject (lit "x")))
    (update "boom" (call $trap (lit "boom")))
    (update "silent")
    (update "size" (call $say32 (call $arg_size)))
    (update "note"
      (call $arg_copy (i32.add (i32.const 0x100) (i32.load (i32.const 0))) (i32.const 0) (i32.const 1))
      (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
      (call $reply))
    (query "notes" (call $say (i32.const 0x100) (i32.load (i32.const 0))))
    (query "count" (call $say32 (i32.load (i32.const 0))))
    (update "caller"
      (call $caller_copy (i32.const 0x200) (i32.const 0) (call $caller_size))
      (call $say32 (i32.and
        (i64.eq (i64.load (i32.const 0x200)) (i64.load (i32.const 0x8000)))
        (i32.eq (call $caller_size) (i32.const 10)))))
    (query "look" (i32.store (i32.const 0) (i32.const 77)) (call $say32 (i32.load (i32.const 0))))
    (composite "many" (call $reply))
    (update "deadline"
      (call $put (call $deadline))
      (call $put (i64.sub (call $deadline) (call $time)))
      (call $reply))
    (update "status" (call $say32 (call $status)))
"#;

/// One call of `name` with `set` between `call_new` and `call_perform`, and callbacks in slots 2, 3 and 4.
fn caller(name: &str, set: &str, callbacks: &str) -> String {
    format!(
        "{callbacks}
         (update \"go\" (i32.store (i32.const 0) (i32.const 1)) (call $peer_to (lit \"{name}\") (i32.const 2) (i32.const 3)) {set} (call $sent))
         (update \"get\" (call $put32 (i32.load (i32.const 0))) (call $put32 (i32.load (i32.const 8))) (call $reply))"
    )
}

const WRITES: &str = r#"
    (elem (i32.const 2) $fails $fails $cleans)
    (func $fails (param i32) (i32.store (i32.const 0) (i32.const 2)) (call $trap (lit "in callback")))
    (func $cleans (param i32) (i32.store (i32.const 8) (i32.load (i32.const 0))))"#;

const CLEANUP: &str = "(call $on_cleanup (i32.const 4) (i32.const 0))";

pub(super) fn checks() -> Vec<Check> {
    let passes = |id, method: &'static str, part: &'static str| {
        check(id, [PASS, ECHO], [pass(Some(1), method, 0, |_| b"hi".to_vec()).replies_with(part)])
    };
    vec![
        passes("C01", "echo", "hi"),
        passes("C04", "reject", "4 x"),
        passes("C05", "boom", "5 IC0503: Error from Canister"),
        passes("C05 no answer", "silent", "5 "),
        passes("C07", "nope", "5 IC0536"),
        passes("C25", "many", "5 IC0527"),
        check("C06", [PASS], [pass(Some(2), "x", 0, |_| Vec::new()).replies_with("3 IC0301")]),
        check("C29", [PASS], [pass(None, "nope", 0, |_| Vec::new()).replies_with("5 IC0536")]),
        check("C30", [PASS, ECHO], [pass(Some(1), "caller", 0, |_| Vec::new()).numbers(&[1])]),
        check(
            "A16",
            [PASS, ECHO],
            [pass(Some(1), "deadline", 0, |_| Vec::new()).replies_with("\0\0\0\0\0\0\0\0")],
        ),
        check("A17", [PASS, ECHO], [pass(Some(1), "status", 0, |_| Vec::new()).numbers(&[1])]),
        check(
            "C24",
            [PASS, ECHO],
            [pass(Some(1), "look", 0, |_| Vec::new()).numbers(&[77]), query("count").on(1).numbers(&[0])],
        ),
        check(
            "C02",
            [r#"
            (update "go" (i32.store (i32.const 0) (i32.const 5)) (call $own (lit "see")) (call $sent) (i32.store (i32.const 0) (i32.const 6)))
            (update "see" (call $say32 (i32.load (i32.const 0))))"#],
            [update("go").numbers(&[6])],
        ),
        check(
            "C03",
            [
                r#"
            (elem (i32.const 2) $none) (func $none (param i32))
            (update "go"
              (call $peer_to (lit "note") (i32.const 2) (i32.const 2)) (call $data (lit "1")) (call $sent)
              (call $peer_to (lit "note") (i32.const 2) (i32.const 2)) (call $data (lit "2")) (call $sent)
              (call $peer (lit "note")) (call $data (lit "3")) (call $sent))"#,
                ECHO,
            ],
            [update("go").reply(""), query("notes").on(1).reply("123")],
        ),
        check(
            "C09",
            [
                r#"(update "go"
              (call $peer (lit "note")) (call $data (lit "1"))
              (call $peer (lit "echo")) (call $data (lit "2")) (call $sent))"#,
                ECHO,
            ],
            [update("go").reply("2"), query("notes").on(1).reply("")],
        ),
        check(
            "C12",
            [
                r#"(update "go" (call $peer (lit "note")) (call $data (lit "1")) (call $say (lit "ok")))"#,
                ECHO,
            ],
            [update("go").reply("ok"), query("notes").on(1).reply("")],
        ),
        check(
            "C13",
            [
                r#"(update "go" (call $peer (lit "note")) (call $data (lit "1")) (call $sent) (unreachable))"#,
                ECHO,
            ],
            [update("go").error("IC0502", "unreachable"), query("notes").on(1).reply("")],
        ),
        check(
            "C14",
            [
                r#"(update "go" (call $peer_to (lit "echo") (i32.const 100) (i32.const 100)) (call $sent))"#,
                ECHO,
            ],
            [update("go").error("IC0513", "")],
        ),
        check(
            "C15",
            [
                r#"(elem (i32.const 2) $bad) (func $bad)
            (update "go" (call $peer_to (lit "echo") (i32.const 2) (i32.const 2)) (call $sent))"#,
                ECHO,
            ],
            [update("go").error("IC0504", "")],
        ),
        check(
            "C15 null",
            [r#"(update "go" (call $peer_to (lit "echo") (i32.const 7) (i32.const 7)) (call $sent))"#, ECHO],
            [update("go").error("IC0504", "")],
        ),
        check(
            "C16",
            [
                r#"(elem (i32.const 2) $env) (func $env (param i32) (call $say32 (local.get 0)))
            (update "go" (call $new (i32.const 0x8010) (i32.const 10) (lit "echo") (i32.const 2) (i32.const -1) (i32.const 2) (i32.const 1)) (call $sent))
            (update "no" (call $new (i32.const 0x8010) (i32.const 10) (lit "boom") (i32.const 2) (i32.const 3) (i32.const 2) (i32.const 1)) (call $sent))"#,
                ECHO,
            ],
            [update("go").numbers(&[0xffff_ffff]), update("no").numbers(&[1])],
        ),
        check(
            "C17",
            [&caller("echo", CLEANUP, WRITES), ECHO],
            [update("go").error("IC0503", "in callback"), update("get").numbers(&[1, 1])],
        ),
        check(
            "C17 reject",
            [&caller("boom", CLEANUP, WRITES), ECHO],
            [update("go").error("IC0503", "in callback"), update("get").numbers(&[1, 1])],
        ),
        check(
            "C17 no cleanup",
            [&caller("echo", "", WRITES), ECHO],
            [update("go").error("IC0503", "in callback"), update("get").numbers(&[1, 0])],
        ),
        check(
            "C18",
            [
                &caller(
                    "echo",
                    CLEANUP,
                    r#"
            (elem (i32.const 2) $works $works $cleans)
            (func $works (param i32) (i32.store (i32.const 0) (i32.const 2)) (call $reply))
            (func $cleans (param i32) (i32.store (i32.const 8) (i32.const 9)))"#,
                ),
                ECHO,
            ],
            [update("go").reply(""), update("get").numbers(&[2, 0])],
        ),
        check(
            "C19",
            [
                &caller(
                    "echo",
                    CLEANUP,
                    r#"
            (elem (i32.const 2) $fails $fails $cleans)
            (func $fails (param i32) (i32.store (i32.const 0) (i32.const 2)) (call $trap (lit "in callback")))
            (func $cleans (param i32) (i32.store (i32.const 8) (i32.const 9)) (unreachable))"#,
                ),
                ECHO,
            ],
            [
                update("go").error("IC0503", "in callback"),
                update("go").error("IC0503", "call_on_cleanup also failed"),
                update("get").numbers(&[1, 0]),
            ],
        ),
        check(
            "A12 cleanup",
            [
                &caller(
                    "echo",
                    CLEANUP,
                    r#"
            (elem (i32.const 2) $fails $fails $cleans)
            (func $fails (param i32) (unreachable))
            (func $cleans (param i32) (drop (call $timer_set (i64.const 5))) (i32.store (i32.const 8) (call $replicated)))"#,
                ),
                ECHO,
            ],
            [update("go").error("IC0502", "unreachable"), update("get").numbers(&[1, 1])],
        ),
        check(
            "C21",
            [
                r#"(memory 170)
            (update "go" (call $peer (lit "size")) (call $data (i32.const 0) (i32.const 10485756)) (call $sent))
            (update "no" (call $peer (lit "size")) (call $data (i32.const 0) (i32.const 10485757)) (call $sent))"#,
                ECHO,
            ],
            [update("go").numbers(&[10_485_756]), update("no").error("IC0504", "")],
        ),
        check(
            // Four of 10 MiB are below 48 MiB, the fifth is not.
            "C21 all calls of a message",
            [
                r#"(memory 170) (elem (i32.const 2) $none) (func $none (param i32))
            (update "go" (local $n i32) (local $failed i64)
              (loop $again
                (call $peer_to (lit "size") (i32.const 2) (i32.const 2)) (call $data (i32.const 0) (i32.const 10485756))
                (local.set $failed (i64.add (i64.mul (local.get $failed) (i64.const 10)) (i64.extend_i32_u (call $perform))))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const 7))))
              (call $say64 (local.get $failed)))"#,
                ECHO,
            ],
            [update("go").numbers(&[222])],
        ),
        check(
            "C23",
            [
                r#"(elem (i32.const 2) $none) (func $none (param i32))
            (update "go" (local $n i32) (local $failed i64)
              (loop $again
                (call $peer_to (lit "note") (i32.const 2) (i32.const 2)) (call $data (lit "."))
                (local.set $failed (i64.add (i64.mul (local.get $failed) (i64.const 10)) (i64.extend_i32_u (call $perform))))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const 501))))
              (call $say64 (local.get $failed)))"#,
                ECHO,
            ],
            [update("go").numbers(&[2]), query("count").on(1).numbers(&[500])],
        ),
        check(
            "C26",
            [
                r#"(update "go" (call $peer (lit "deadline")) (call $best_effort (i32.const 10)) (call $sent))"#,
                ECHO,
            ],
            [update("go").numbers(&[1_700_000_013_000_000_000, 9_999_999_993])],
        ),
        check(
            "C27",
            [
                r#"(update "go" (call $peer (lit "deadline")) (call $best_effort (i32.const 1000)) (call $sent))"#,
                ECHO,
            ],
            [update("go").numbers(&[1_700_000_303_000_000_000, 299_999_999_993])],
        ),
        check(
            "C28",
            [
                r#"(update "go" (call $peer (lit "park")) (call $best_effort (i32.const 2)) (call $sent))"#,
                PARK,
            ],
            [update("go").replies_with("6 IC0601")],
        ),
        check(
            "R06b",
            [r#"(update "go" (call $peer (lit "echo")) (call $sent) (call $say (lit "first")))"#, ECHO],
            // The callback answers again: a trap that nobody hears of.
            [update("go").reply("first")],
        ),
    ]
}
