//! G and O: the management canister, and what lies outside.

use sha2::{Digest as _, Sha256};

use super::check::{Check, Code, check, look, on_canister, one, pass, query, spent, stranger, update};
use super::management;
use super::prelude::PASS;

fn nothing(_: &super::check::Ids) -> Vec<u8> {
    Vec::new()
}

fn log(seen: &str) -> super::check::Step {
    look(
        0,
        |canister| {
            let records = canister.log.records.iter();
            let lines = records.map(|r| format!("{} {}", r.index, String::from_utf8_lossy(&r.text)));
            lines.collect::<Vec<_>>().join("|")
        },
        seen,
    )
}

const PRINTS: &str = r#"
    (update "three" (call $print (lit "a")) (call $print (lit "b")) (call $print (lit "c")) (call $reply))
    (update "fail" (call $print (lit "d")) (call $trap (lit "boom")))
    (update "outside" (call $print (i32.const -1) (i32.const 4)) (call $reply))
    (update "lossy" (call $trap (i32.const 16) (i32.const 2))) (data (i32.const 16) "\ff\fe")
    (query "ask" (call $print (lit "q")) (call $reply))
    (update "much" (call $print (i32.const 0) (i32.const 3000)) (call $print (i32.const 0) (i32.const 3000)) (call $reply))
"#;

pub(super) fn checks() -> Vec<Check> {
    let empty = |_: &super::check::Ids| b"DIDL\0\0".to_vec();
    let [o02_before, o02_after] = spent(1, 0);
    let module = wat::parse_str("(module)").expect("a module");
    let hash = hex::encode(Sha256::digest(&module));
    vec![
        check(
            "G01",
            [r#"
            (elem (i32.const 2) $one $two) (data (i32.const 0x200) "DIDL\00\00")
            (func $ask (param i32) (call $new (i32.const 0) (i32.const 0) (lit "raw_rand") (local.get 0) (i32.const 0) (i32.const 1) (i32.const 0)) (call $data (i32.const 0x200) (i32.const 6)) (call $sent))
            (update "go" (call $ask (i32.const 2)))
            (func $one (param i32) (call $arg_copy (i32.const 0) (i32.const 0) (call $arg_size)) (call $ask (i32.const 3)))
            (func $two (param i32) (call $arg_copy (i32.const 64) (i32.const 0) (call $arg_size))
              (call $put32 (call $arg_size)) (call $put32 (i64.ne (i64.load (i32.const 10)) (i64.load (i32.const 74)))) (call $reply))"#],
            // 32 bytes after 10 that say what they are.
            [update("go").numbers(&[42, 1])],
        ),
        check(
            "G02",
            [PASS],
            [
                on_canister("canister_status", 0).replies_with("DIDL"),
                on_canister("canister_status", 0).from(stranger()).refused("IC0512"),
                pass(None, "canister_status", 0, |ids| management::canister(ids[0])).replies_with("DIDL"),
            ],
        ),
        check(
            "G03",
            [PASS],
            [
                pass(None, "canister_info", 0, |ids| management::canister(ids[0])).replies_with("DIDL"),
                look(0, |canister| canister.history.total.to_string(), 2),
            ],
        ),
        check(
            "G06",
            [PRINTS],
            [
                update("three").reply(""),
                log("0 a|1 b|2 c"),
                update("three").reply(""),
                log("0 a|1 b|2 c|3 a|4 b|5 c"),
            ],
        ),
        check("G08", [PRINTS], [update("fail").error("IC0503", "boom"), log("0 d|1 [TRAP]: boom")]),
        check("G09", [PRINTS], [query("ask").reply(""), log(""), update("ask").reply(""), log("0 q")]),
        check(
            "G10",
            [PRINTS],
            [
                update("three").reply(""),
                super::check::upgrade(0, PRINTS, None).reply(b"DIDL\0\0"),
                log("0 a|1 b|2 c"),
                super::check::reinstall(0, PRINTS).reply(b"DIDL\0\0"),
                log(""),
                update("fail").error("IC0503", "boom"),
                log("3 d|4 [TRAP]: boom"),
                on_canister("uninstall_code", 0).reply(b"DIDL\0\0"),
                log(""),
            ],
        ),
        check(
            "G07",
            [PRINTS],
            [
                update("much").reply(""),
                look(0, |canister| format!("{} {}", canister.log.next, canister.log.bytes <= 4096), "2 true"),
            ],
        ),
        check(
            "B08",
            [PRINTS],
            [update("outside").reply(""), look(0, |canister| canister.log.records.len().to_string(), 1)],
        ),
        check("B10", [PRINTS], [update("lossy").error("IC0503", "\u{fffd}\u{fffd}")]),
        check(
            "L21",
            [""],
            [
                super::check::install_code(0, management::Install::Install, Code::Bytes(module), b"")
                    .reply(b"DIDL\0\0"),
                look(
                    0,
                    |canister| canister.module().map(|module| hex::encode(module.hash.0)).unwrap_or_default(),
                    hash,
                ),
            ],
        ),
        check(
            "G create",
            [PASS],
            [
                pass(None, "create_canister", 499_999_999_999, empty).replies_with("4 IC0403"),
                pass(None, "create_canister", 600_000_000_000, empty).replies_with("DIDL"),
                look(1, |canister| format!("{} {}", canister.balance, canister.version), "100000000000 0"),
            ],
        ),
        check("G bad argument", [PASS], [pass(None, "canister_status", 0, nothing).replies_with("IC0408")]),
        check(
            "G unknown target",
            [PASS],
            [
                pass(None, "deposit_cycles", 1_000, |ids| management::canister(ids[2]))
                    .replies_with("IC0301"),
                on_canister("start_canister", 2).refused("IC0301"),
            ],
        ),
        check(
            "O02",
            [PASS, ""],
            [o02_before, pass(None, "http_request", 1_000, nothing).replies_with("5 IC0504"), o02_after],
        ),
        check("O01", [PASS], [pass(None, "sign_with_ecdsa", 1_000, nothing).replies_with("4 ")]),
        one(
            "O03",
            r#"(data (i32.const 16) "key_1") (update "go" (i64.store (i32.const 0) (i64.const 7))
            (call $put32 (call $cost_ecdsa (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 0)))
            (call $put32 (call $cost_ecdsa (i32.const 16) (i32.const 5) (i32.const 9) (i32.const 0)))
            (call $put (i64.load (i32.const 0))) (call $reply))"#,
            update("go").numbers(&[2, 1, 7]),
        ),
        one(
            "cost_http_request",
            r#"(update "go" (call $cost_http (i64.const 100) (i64.const 1000) (i32.const 0)) (call $say64 (i64.load (i32.const 0))))"#,
            update("go").numbers(&[(3_000_000 + 60_000 * 13 + 400 * 100 + 800 * 1000) * 13]),
        ),
    ]
}
