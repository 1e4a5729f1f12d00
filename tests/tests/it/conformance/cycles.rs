//! Y: cycles.

use std::cell::Cell;
use std::rc::Rc;

use execution::Limits;

use super::check::{Check, Step, check, look, one, pass, query, settings, spent, update};
use super::management::{self, Settings};
use super::prelude::PASS;

const B: &str = r#"
    (update "see" (call $available (i32.const 0)) (call $put128 (i32.const 0)) (call $reply))
    (update "take" (call $accept_cycles (i64.const 0) (i64.const 4000000000) (i32.const 0)) (call $put128 (i32.const 0))
      (call $accept_cycles (i64.const 0) (i64.const 100000000000) (i32.const 0)) (call $put128 (i32.const 0)) (call $reply))
    (update "four" (call $accept_cycles (i64.const 0) (i64.const 4000000000) (i32.const 0)) (call $reply))
    (update "rob" (call $accept_cycles (i64.const 0) (i64.const 4000000000) (i32.const 0)) (unreachable))
    (update "echo" (call $reply))
"#;

/// Calls `name` with 10 B cycles and tells what came back.
fn refund(name: &str) -> String {
    format!(
        "(elem (i32.const 2) $back)
         (func $back (param i32) (call $refunded (i32.const 0)) (call $put128 (i32.const 0)) (call $reply))
         (update \"go\" (call $peer_to (lit \"{name}\") (i32.const 2) (i32.const 2)) (call $attach (i64.const 0) (i64.const 10000000000)) (call $sent))"
    )
}

const TEN: u64 = 10_000_000_000;

/// Keeps the balance and what is liquid of it at 0 and 16 of the heap.
const BALANCES: &str =
    r#"(update "go" (call $balance (i32.const 0)) (call $liquid (i32.const 16)) (call $reply))"#;

/// A look at the balance before, and one that holds what the canister was told against it and the freezing limit.
fn told() -> [Step; 2] {
    let balance = Rc::new(Cell::new(0));
    let before = Rc::clone(&balance);
    let first = look(
        0,
        move |canister| {
            balance.set(canister.balance);
            String::new()
        },
        "",
    );
    let second = look(
        0,
        move |canister| {
            let mut bytes = [0; 32];
            canister.code.as_ref().expect("it has code").heap.read(0, &mut bytes);
            let [told, liquid] =
                [0, 16].map(|at| u128::from_le_bytes(bytes[at..at + 16].try_into().expect("16 bytes")));
            let frozen = canister.freezing().limit(&Limits::application(), 0) - canister.reserved;
            // An ingress message of 10 bytes, and the price of a whole message in advance.
            let prepaid = 1_200_000 + 2_000 * 10 + 5_000_000 + 40_000_000_000;
            format!("{} {}", before.get() - told == prepaid, told - liquid == frozen && frozen > 0)
        },
        "true true",
    );
    [first, second]
}

pub(super) fn checks() -> Vec<Check> {
    let [before, balances] = told();
    let [y11_before, y11_after] = spent(1, 5_000_000 + 1_510);
    let [y12_before, y12_after] = spent(0, 5_000_000 + 1_200_000 + 2_000 * 10 + 506);
    // Two messages of 7,306 and 2,543 instructions, an ingress message of 10 bytes, a call of 9 bytes with an
    // empty reply.
    let execution = 2 * 5_000_000 + 7_306 + 2_543;
    let [y13_before, y13_after] = spent(0, execution + 1_200_000 + 2_000 * 10 + 260_000 + 1_000 * 9);
    let [y16_before, y16_after] = spent(1, -5_000_000_000);
    let deposit = |ids: &super::check::Ids| management::canister(ids[1]);
    vec![
        check("Y01 Y10", [BALANCES], [before, update("go").reply(""), balances]),
        one(
            "Y02",
            r#"(update "go" (call $say64 (call $balance64)))"#,
            update("go").error("IC0502", "64-bit"),
        )
        .cycles(0, 1 << 66),
        check("Y03", [PASS, B], [pass(Some(1), "see", TEN, |_| Vec::new()).numbers(&[10_000_000_000, 0])]),
        check(
            "Y04",
            [PASS, B],
            [pass(Some(1), "take", TEN, |_| Vec::new()).numbers(&[4_000_000_000, 0, 6_000_000_000, 0])],
        ),
        check("Y05", [&refund("four"), B], [update("go").numbers(&[6_000_000_000, 0])]),
        check("Y05 missing", [&refund("nope"), B], [update("go").numbers(&[10_000_000_000, 0])]),
        one(
            "Y07",
            r#"(update "go" (call $liquid (i32.const 0)) (call $burn (i64.const -1) (i64.const -1) (i32.const 16))
            (call $say32 (i32.and (i64.eq (i64.load (i32.const 0)) (i64.load (i32.const 16))) (i64.eq (i64.load (i32.const 8)) (i64.load (i32.const 24))))))"#,
            update("go").numbers(&[1]),
        ),
        check("Y08", [B], [update("see").numbers(&[0, 0]), update("take").numbers(&[0, 0, 0, 0])]),
        check(
            "Y09",
            [r#"(update "go" (call $reply)) (query "ask" (call $reply))"#],
            [
                settings(0, Settings { freezing_threshold: Some(u64::MAX.into()), ..Settings::default() })
                    .reply(b"DIDL\0\0"),
                update("go").refused("IC0207"),
                query("ask").error("IC0207", ""),
            ],
        ),
        check(
            "Y11",
            [&refund("rob"), B],
            [y11_before, update("go").numbers(&[10_000_000_000, 0]), y11_after],
        ),
        check("Y12", [r#"(update "go" (call $reply))"#], [y12_before, update("go").reply(""), y12_after]),
        check(
            "Y13",
            [r#"(update "go" (call $peer (lit "echo")) (call $data (lit "hello")) (call $sent))"#, B],
            [y13_before, update("go").reply(""), y13_after],
        ),
        check(
            "Y14",
            [
                r#"(elem (i32.const 2) $none) (func $none (param i32))
            (update "go"
              (call $burn (i64.const -1) (i64.const -1) (i32.const 0))
              (call $balance (i32.const 0))
              (call $peer_to (lit "echo") (i32.const 2) (i32.const 2))
              (call $put32 (call $perform))
              (call $balance (i32.const 16))
              (call $put (i64.sub (i64.load (i32.const 0)) (i64.load (i32.const 16))))
              (call $reply))"#,
                B,
            ],
            [update("go").numbers(&[2, 0])],
        ),
        check(
            "Y15",
            [PASS, B],
            [
                settings(
                    1,
                    Settings {
                        minimum_incoming_canister_call_cycles: Some(1_000_000_u64.into()),
                        ..Settings::default()
                    },
                )
                .reply(b"DIDL\0\0"),
                pass(Some(1), "echo", 999_999, |_| Vec::new()).replies_with("5 "),
                pass(Some(1), "echo", 1_000_000, |_| Vec::new()).reply(""),
                update("echo").on(1).reply(""),
            ],
        ),
        check(
            "Y16",
            [PASS, B],
            [y16_before, pass(None, "deposit_cycles", 5_000_000_000, deposit).reply(b"DIDL\0\0"), y16_after],
        ),
    ]
}
