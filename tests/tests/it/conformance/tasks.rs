//! T: timer, heartbeat, low-memory hook.

use super::check::{Check, after, check, on_canister, pass, query, settings, update, upgrade, user};
use super::management::Settings;
use super::prelude::{PARK, PASS};

const TIMER: &str = r#"
    (on "global_timer" (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
    (update "now" (call $say64 (call $timer_set (i64.const 1))))
    (update "soon" (call $say64 (call $timer_set (i64.add (call $time) (i64.const 5000000000)))))
    (update "off" (drop (call $timer_set (i64.const 0))) (call $reply))
    (query "fired" (call $say32 (i32.load (i32.const 0))))
"#;

fn beating(body: &str) -> String {
    format!("(on \"heartbeat\" {body}) (query \"beats\" (call $say32 (i32.load (i32.const 0))))")
}

const BEAT: &str = "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))";

pub(super) fn checks() -> Vec<Check> {
    vec![
        check("T02 T03", [TIMER], [
            update("now").numbers(&[0]), after(1), query("fired").numbers(&[1]),
            after(10), query("fired").numbers(&[1]),
            update("now").numbers(&[0]), after(1), query("fired").numbers(&[2]),
        ]),
        check("T03 again", [r#"
            (on "global_timer" (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (drop (call $timer_set (i64.const 1))))
            (update "now" (drop (call $timer_set (i64.const 1))) (call $reply)) (query "fired" (call $say32 (i32.load (i32.const 0))))"#],
            [update("now").reply(""), after(1).times(3), query("fired").numbers(&[3])]),
        check("T03 trap", [r#"(on "global_timer" (unreachable)) (update "now" (call $say64 (call $timer_set (i64.const 1))))"#],
            [update("now").numbers(&[0]), after(1), update("now").numbers(&[0])]),
        check("T04", [TIMER], [
            update("soon").numbers(&[0]),
            update("soon").numbers(&[1_700_000_007_000_000_007]), update("off").reply(""), after(20), query("fired").numbers(&[0]),
        ]),
        check("T05", [r#"(update "soon" (drop (call $timer_set (i64.const 1))) (call $reply))
              (on "pre_upgrade" (drop (call $timer_set (i64.const 2))))"#], [
            update("soon").reply(""),
            upgrade(0, r#"(on "post_upgrade" (i64.store (i32.const 0) (call $timer_set (i64.const 3))))
              (on "global_timer" (i32.store (i32.const 8) (i32.const 1)))
              (query "get" (call $put (i64.load (i32.const 0))) (call $put32 (i32.load (i32.const 8))) (call $reply))"#, None).reply(b"DIDL\0\0"),
            after(1), query("get").numbers(&[0, 1]),
        ]),
        check("T06", [&beating(BEAT)], [query("beats").numbers(&[0]), after(1).times(3), query("beats").numbers(&[3])]),
        check("T07", [&beating(&format!("{BEAT} (call $print (lit \"beat\")) (unreachable)"))],
            [after(1).times(3), query("beats").numbers(&[0])]),
        check("T08", [r#"(elem (i32.const 2) $back $fail)
            (on "heartbeat" (call $own (lit "x")) (call $sent)
              (call $new (i32.const 0x8000) (i32.const 10) (lit "x") (i32.const 2) (i32.const 0) (i32.const 2) (i32.const 0)) (call $sent))
            (func $back (param i32) (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
            (func $fail (param i32) (unreachable))
            (update "x" (call $reply)) (query "beats" (call $say32 (i32.load (i32.const 0))))"#],
            [after(1).times(2), query("beats").numbers(&[2])]),
        check("T09 stopped", [&beating(BEAT)], [
            on_canister("stop_canister", 0).reply(b"DIDL\0\0"), after(1).times(3),
            on_canister("start_canister", 0).reply(b"DIDL\0\0"), query("beats").numbers(&[0]),
            after(1), query("beats").numbers(&[1]),
        ]),
        check("T09 frozen", [&beating(BEAT)], [
            settings(0, Settings { freezing_threshold: Some(u64::MAX.into()), ..Settings::default() }).reply(b"DIDL\0\0"),
            after(1).times(3),
            settings(0, Settings { freezing_threshold: Some(0_u64.into()), ..Settings::default() }).reply(b"DIDL\0\0"),
            query("beats").numbers(&[1]),
        ]),
        check("T10", [r#"(memory 2 100)
            (on "on_low_wasm_memory" (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
            (update "grow" (drop (memory.grow (i32.const 20))) (call $reply)) (query "ran" (call $say32 (i32.load (i32.const 0))))"#], [
            settings(0, Settings {
                wasm_memory_limit: Some(6_553_600_u64.into()),
                wasm_memory_threshold: Some(4_000_000_u64.into()),
                ..Settings::default()
            }).reply(b"DIDL\0\0"),
            update("grow").reply(""), after(1), query("ran").numbers(&[0]),
            update("grow").reply(""), after(1), query("ran").numbers(&[1]),
            update("grow").reply(""), after(1), query("ran").numbers(&[1]),
        ]),
        check("A11", [r#"(on "heartbeat" (i32.store (i32.const 0) (i32.add (call $caller_size) (i32.const 7)))) (query "size" (call $say32 (i32.load (i32.const 0))))"#],
            [after(1), query("size").numbers(&[7])]),
        check("A10 heartbeat", [r#"(on "heartbeat" (call $print (lit "hi")) (i32.store (i32.const 0) (i32.const 1)) (drop (call $arg_size))) (query "size" (call $say32 (i32.load (i32.const 0))))"#],
            [after(1), query("size").numbers(&[0])]),
        check("C28 late", [PASS, PARK], [
            pass(Some(1), "park", 0, |_| Vec::new()).waits(),
            after(40), super::check::again(0).reply("at last"),
            update("park").on(1).from(user()).waits(),
        ]),
    ]
}
