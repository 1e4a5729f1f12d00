//! Q and I: queries, and which messages are taken in.

use super::check::{Check, check, manage, on_canister, one, query, stranger, update, user};

const BOTH: &str = r#"
    (query "ask" (i32.store (i32.const 0) (i32.const 9)) (call $put32 (i32.load (i32.const 0))) (call $put32 (call $replicated)) (call $reply))
    (update "change" (i32.store (i32.const 0) (i32.const 5)) (call $reply))
    (query "get" (call $say32 (i32.load (i32.const 0))))
    (query "silent")
    (query "fail" (unreachable))
    (query "timer" (drop (call $timer_set (i64.const 1))))
    (query "certify" (call $certified_data_set (i32.const 0) (i32.const 1)))
    (query "call" (call $peer (lit "ask")))
    (query "key" (call $say32 (call $root_key_size)))
    (query "certificate" (call $say32 (call $certificate_present)))
    (query "spin" (loop $l (br $l)))
    (query "caller" (call $caller_copy (i32.const 0) (i32.const 0) (call $caller_size)) (call $say (i32.const 0) (call $caller_size)))
    (query "answer" (call $say (lit "leaf")))
    (composite "many" (call $peer (lit "answer")) (call $sent))
    (composite "own" (call $own (lit "answer")) (call $sent))
    (composite "update" (call $peer (lit "change")) (call $sent))
    (composite "deep" (call $own (lit "deep")) (call $sent))
    (composite "in" (call $say32 (call $replicated)))
"#;

fn inspecting(body: &str) -> String {
    format!(
        "(global $n (mut i32) (i32.const 0)) (on \"inspect_message\" (global.set $n (i32.const 1)) {body})
         (update \"go\" (call $say32 (global.get $n))) (update \"pass\" (call $own (lit \"go\")) (call $sent)) (query \"ask\" (call $say32 (global.get $n)))"
    )
}

pub(super) fn checks() -> Vec<Check> {
    vec![
        check(
            "Q02",
            [BOTH],
            [
                query("caller").reply(user().as_slice()),
                query("caller").from(stranger()).reply(stranger().as_slice()),
            ],
        ),
        check(
            "Q03",
            [BOTH, ""],
            [
                query("ask").on(2).error("IC0301", "not found"),
                query("ask").on(1).error("IC0537", ""),
                on_canister("stop_canister", 0).reply(b"DIDL\0\0"),
                query("ask").error("IC0508", "is stopped"),
                update("change").refused("IC0508"),
            ],
        ),
        one(
            "Q04",
            BOTH,
            query("spin").error(
                "IC0522",
                "Canister exceeded the limit of 1000000 instructions for single message execution",
            ),
        )
        .limits(|limits| limits.query_instructions = 1_000_000),
        check(
            "Q05",
            [BOTH],
            [
                query("silent").error("IC0506", "did not reply"),
                update("silent").error("IC0506", "did not reply"),
            ],
        ),
        check("Q06", [BOTH, BOTH], [query("many").reply("leaf"), query("own").reply("leaf")]),
        one("Q07", BOTH, query("deep").replies_with("5 IC0525")),
        check(
            "Q08",
            [BOTH, BOTH],
            [query("update").replies_with("5 IC0536"), query("get").on(1).numbers(&[0])],
        ),
        one("Q09", BOTH, update("many").error("IC0527", "")),
        check(
            "Q10 A13",
            [BOTH],
            [
                update("ask").numbers(&[9, 1]),
                query("ask").numbers(&[9, 0]),
                query("in").numbers(&[0]),
                query("get").numbers(&[0]),
            ],
        ),
        check(
            "Q11",
            [BOTH],
            [
                query("change").error("IC0536", "query method 'change'"),
                query("none").error("IC0536", ""),
                update("none").error("IC0536", "update method 'none'"),
            ],
        ),
        check("A06", [BOTH], [query("call").error("IC0504", ""), update("call").error("IC0504", "")]),
        check("A07", [BOTH], [query("certify").error("IC0504", ""), update("certify").error("IC0504", "")]),
        check("A12", [BOTH], [query("timer").error("IC0504", ""), update("timer").error("IC0504", "")]),
        check("A15", [BOTH], [query("key").error("IC0504", ""), update("key").replies_bytes(8)]),
        one("A14 replicated", BOTH, update("certificate").numbers(&[0])),
        check(
            "R13 query",
            [BOTH],
            [query("fail").error("IC0502", "unreachable"), update("fail").error("IC0502", "unreachable")],
        ),
        check(
            "I02",
            [&inspecting("(call $accept)")],
            [update("go").numbers(&[0]), query("ask").numbers(&[0])],
        ),
        check("I01", [r#"(update "go" (call $reply))"#], [update("go").reply("")]),
        check(
            "I06",
            [&inspecting(
                "(i32.store (i32.const 0) (i32.const 9)) (global.set $n (i32.const 9)) (call $accept)",
            )],
            [update("go").numbers(&[0]), query("ask").numbers(&[0])],
        ),
        one("I02 no", &inspecting(""), update("go").refused("IC0406")),
        one("I02 trap", &inspecting("(call $trap (lit \"no\"))"), update("go").refused("IC0503")),
        one("I03", &inspecting("(call $accept) (call $accept)"), update("go").refused("IC0504")),
        check(
            "I04",
            [&inspecting(
                r#"
            (call $method_copy (i32.const 0) (i32.const 0) (call $method_size))
            (call $caller_copy (i32.const 16) (i32.const 0) (call $caller_size))
            (if (i32.and (i32.and (i32.eq (call $method_size) (i32.const 2)) (i32.eq (i32.load16_u (i32.const 0)) (i32.const 0x6f67)))
                  (i32.and (i32.eq (call $caller_size) (i32.const 29)) (i32.eq (call $arg) (i32.const 3))))
              (then (call $accept)))"#,
            )],
            [
                update("go").arg("abc").numbers(&[0]),
                update("go").refused("IC0406"),
                update("pass").arg("abc").refused("IC0406"),
            ],
        ),
        check(
            "I05",
            [&inspecting(r#"(if (i32.eq (call $method_size) (i32.const 4)) (then (call $accept)))"#)],
            [
                update("go").refused("IC0406"),
                update("pass").numbers(&[0]),
                query("ask").numbers(&[0]),
                on_canister("canister_status", 0).replies_with("DIDL"),
            ],
        ),
        one("I07", &inspecting("(loop $l (br $l))"), update("go").refused("IC0522")),
        check(
            "I08",
            [BOTH],
            [
                on_canister("stop_canister", 0).from(stranger()).refused("IC0512"),
                on_canister("uninstall_code", 0).from(stranger()).refused("IC0512"),
                on_canister("canister_status", 0).from(stranger()).refused("IC0512"),
                on_canister("deposit_cycles", 0).refused("IC0406"),
                manage("raw_rand", |_| b"DIDL\0\0".to_vec()).refused("IC0406"),
                manage("create_canister", |_| b"DIDL\0\0".to_vec()).refused("IC0406"),
                manage("install_code", |_| b"DIDL\0\0".to_vec()).refused("IC0408"),
            ],
        ),
        check("I empty", [""], [update("go").refused("IC0537"), update("go").on(1).refused("IC0301")]),
    ]
}
