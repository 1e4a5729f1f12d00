//! L and CD: install, upgrade, uninstall, statuses, settings, versions, certified data.

use super::check::{
    Check, after, again, check, install, look, manage, on_canister, pass, query, reinstall, settings,
    stranger, update, upgrade, user,
};
use super::management::{self, Persistence, Settings, Upgrade, Variable};
use super::prelude::{PARK, PASS};

const OK: &[u8] = b"DIDL\0\0";

/// Heap, global and stable memory that a method sets, and tells.
const KEEPS: &str = r#"
    (global $g (mut i32) (i32.const 1))
    (update "set" (global.set $g (i32.const 7)) (i32.store (i32.const 0) (i32.const 7))
      (drop (call $grow (i64.const 1))) (call $write (i64.const 0) (i64.const 0) (i64.const 8)) (call $certified_data_set (lit "cert")) (call $reply))
    (query "get" (call $put32 (global.get $g)) (call $put32 (i32.load (i32.const 0))) (call $put (call $size)) (call $put (call $version)) (call $reply))
    (query "stable" (call $read (i64.const 8) (i64.const 0) (i64.const 8)) (call $say64 (i64.load (i32.const 8))))
"#;

fn with(more: &str) -> String {
    format!("{KEEPS} {more}")
}

fn kept(persistence: Option<Persistence>, skip: bool) -> Option<Upgrade> {
    Some(Upgrade { skip_pre_upgrade: Some(skip), wasm_memory_persistence: persistence })
}

fn version(to: usize, version: u64) -> super::check::Step {
    look(to, |canister| canister.version.to_string(), version)
}

fn certified(text: &str) -> super::check::Step {
    look(0, |canister| String::from_utf8_lossy(&canister.certified_data).into_owned(), text)
}

fn controllers(count: u8) -> Settings {
    let mut all: Vec<_> = (1..count).map(|n| candid::Principal::self_authenticating([n])).collect();
    all.push(user());
    Settings { controllers: Some(all), ..Settings::default() }
}

const PERSISTENT: &str = r#"(@custom "icp:private enhanced-orthogonal-persistence" "")"#;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = versions();
    checks.extend(statuses());
    checks.extend(upgrades());
    checks
}

fn upgrades() -> Vec<Check> {
    let init = r#"(on "init" (call $caller_copy (i32.const 64) (i32.const 0) (call $caller_size)))
        (on "post_upgrade" (unreachable)) (query "caller" (call $say (i32.const 64) (i32.const 29)))"#;
    let order = r#"(on "pre_upgrade" (i32.store (i32.const 0) (i32.const 1)) (drop (call $grow (i64.const 1)))
        (i64.store (i32.const 8) (call $version)) (call $write (i64.const 0) (i64.const 8) (i64.const 8)))"#;
    let after_order = r#"(func $start (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 10)))) (start $start)
        (on "init" (unreachable))
        (on "post_upgrade" (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 100))) (i64.store (i32.const 8) (call $version)))
        (query "get" (call $put32 (i32.load (i32.const 0))) (call $put (i64.load (i32.const 8)))
          (call $read (i64.const 16) (i64.const 0) (i64.const 8)) (call $put (i64.load (i32.const 16))) (call $reply))"#;
    let failing_pre = with(
        r#"(on "pre_upgrade" (i32.store (i32.const 0) (i32.const 9)) (call $write (i64.const 0) (i64.const 0) (i64.const 8)) (unreachable))"#,
    );
    let writing_pre = with(
        r#"(on "pre_upgrade" (i32.store (i32.const 0) (i32.const 9)) (call $write (i64.const 0) (i64.const 0) (i64.const 8)))"#,
    );
    let persistent = with(PERSISTENT);
    vec![
        check("L02", [KEEPS], [install(0, KEEPS).error("IC0514", "not empty"), query("get").numbers(&[1, 0, 0, 1])]),
        check("L03", [KEEPS], [
            update("set").reply(""), certified("cert"), reinstall(0, &with(init)).reply(OK), certified(""),
            query("get").numbers(&[1, 0, 0, 3]), query("caller").reply(user().as_slice()),
        ]),
        check("L04", [""], [
            install(0, r#"(on "init" (call $print (lit "x")) (call $trap (lit "no")))"#).error("IC0503", "no"),
            look(0, |canister| canister.code.is_none().to_string(), true), version(0, 0),
        ]),
        check("L04 reinstall", [KEEPS], [
            update("set").reply(""), reinstall(0, r#"(on "init" (unreachable))"#).error("IC0502", "unreachable"),
            query("get").numbers(&[7, 7, 1, 2]), query("stable").numbers(&[7]), certified("cert"),
        ]),
        check("L05 L10", [order], [upgrade(0, after_order, None).reply(OK), query("get").numbers(&[110, 2, 1])]),
        check("L06", [&failing_pre], [
            update("set").reply(""), upgrade(0, KEEPS, None).error("IC0502", "unreachable"),
            query("get").numbers(&[7, 7, 1, 2]), query("stable").numbers(&[7]),
        ]),
        check("L07", [&writing_pre], [
            update("set").reply(""), upgrade(0, r#"(on "post_upgrade" (drop (call $grow (i64.const 3))) (call $trap (lit "post")))"#, None).error("IC0503", "post"),
            query("get").numbers(&[7, 7, 1, 2]), query("stable").numbers(&[7]),
        ]),
        check("L08", [&failing_pre], [update("set").reply(""), upgrade(0, KEEPS, kept(None, true)).reply(OK), query("get").numbers(&[1, 0, 1, 3]), query("stable").numbers(&[7])]),
        check("L09", [""], [upgrade(0, KEEPS, None).error("IC0537", "")]),
        check("L11 S04 CD03", [KEEPS], [
            update("set").reply(""), upgrade(0, KEEPS, None).reply(OK), query("get").numbers(&[1, 0, 1, 3]), query("stable").numbers(&[7]), certified("cert"),
            reinstall(0, KEEPS).reply(OK), query("get").numbers(&[1, 0, 0, 4]),
        ]),
        check("L12", [&persistent], [
            update("set").reply(""), upgrade(0, &persistent, kept(Some(Persistence::Keep), false)).reply(OK),
            query("get").numbers(&[1, 7, 1, 3]),
        ]),
        check("L12 heap too large for the new module", [&persistent], [
            update("set").reply(""),
            upgrade(0, &format!("{persistent} (memory 1 1)"), kept(Some(Persistence::Keep), false)).error("IC0504", "it has 2 pages, the new module's has 1 at most"),
            query("get").numbers(&[7, 7, 1, 2]),
        ]),
        check("L13", [&persistent], [
            update("set").reply(""),
            upgrade(0, KEEPS, kept(Some(Persistence::Keep), false)).error("IC0504", "Invalid upgrade option"),
            upgrade(0, &persistent, None).error("IC0504", "Missing upgrade option"),
            query("get").numbers(&[7, 7, 1, 2]),
            upgrade(0, &persistent, kept(Some(Persistence::Replace), false)).reply(OK),
            query("get").numbers(&[1, 0, 1, 3]),
        ]),
        check("A02", [""], [install(0, "(func $start (drop (call $time))) (start $start)").error("IC0504", "cannot be executed in")]),
        check("A03", [""], [
            install(0, &with(r#"(func $start (call $print (lit "hi")) (drop (call $grow (i64.const 1))) (i32.store (i32.const 8) (i32.const 5)) (call $write (i64.const 0) (i64.const 8) (i64.const 8))) (start $start)"#)).reply(OK),
            query("stable").numbers(&[5]),
        ]),
        check("A04", [""], [install(0, r#"(on "init" (call $reply))"#).error("IC0504", "cannot be executed in")]),
        check("A05", [""], [install(0, r#"(on "init" (call $own (lit "x")))"#).error("IC0504", "cannot be executed in")]),
        check("A05 upgrade", [r#"(on "pre_upgrade" (call $own (lit "x")))"#], [
            upgrade(0, KEEPS, None).error("IC0504", "cannot be executed in"),
            upgrade(0, r#"(on "post_upgrade" (call $own (lit "x")))"#, kept(None, true)).error("IC0504", "cannot be executed in"),
        ]),
        check("CD02", [r#"(update "two" (call $certified_data_set (lit "one")) (call $certified_data_set (lit "two")) (call $reply))
            (update "fail" (call $certified_data_set (lit "three")) (unreachable))"#],
            [update("two").reply(""), certified("two"), update("fail").error("IC0502", ""), certified("two")]),
    ]
}

fn statuses() -> Vec<Check> {
    let late = |_: &super::check::Ids| Vec::new();
    vec![
        check(
            "L14",
            [PARK],
            [
                update("park").waits(),
                on_canister("uninstall_code", 0).reply(OK),
                again(0).error("IC0406", "uninstalled"),
                update("park").refused("IC0537"),
            ],
        ),
        check(
            "L14 canister",
            [PASS, PARK],
            [
                pass(Some(1), "park", 0, late).waits(),
                on_canister("uninstall_code", 1).reply(OK),
                again(0).replies_with("4 IC0"),
            ],
        ),
        check(
            "L15",
            [PARK],
            [
                update("park").waits(),
                on_canister("stop_canister", 0).waits(),
                update("tick").refused("IC0509"),
                query("none").error("IC0509", ""),
                after(40),
                again(0).reply("at last"),
                again(1).reply(OK),
                update("tick").refused("IC0508"),
            ],
        ),
        check(
            "L16",
            [PARK],
            [
                update("park").waits(),
                on_canister("stop_canister", 0).waits(),
                on_canister("start_canister", 0).reply(OK),
                again(1).error("IC0511", ""),
                update("tick").reply(""),
            ],
        ),
        check(
            "L17",
            [PASS, PASS],
            [
                on_canister("delete_canister", 1).error("IC0510", ""),
                on_canister("stop_canister", 1).reply(OK),
                pass(Some(1), "x", 0, late).replies_with("5 IC0508"),
                on_canister("delete_canister", 1).reply(OK),
                pass(Some(1), "x", 0, late).replies_with("3 IC0301"),
                update("x").on(1).refused("IC0301"),
            ],
        ),
        check(
            "L stop twice",
            [PASS],
            [
                on_canister("stop_canister", 0).reply(OK),
                on_canister("stop_canister", 0).reply(OK),
                version(0, 4),
            ],
        ),
        check(
            "L stop timeout",
            [r#"
            (update "wait" (call $new (i32.const 0) (i32.const 0) (lit "stop_canister") (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
              (call $data (i32.const 0x4000) (call $arg)) (call $sent))"#],
            [
                update("wait").with(|ids| management::canister(ids[0])).waits(),
                after(301),
                after(1),
                again(0).replies_with("2 IC0206"),
            ],
        ),
        check(
            "L19",
            [KEEPS],
            [
                settings(0, Settings::default()).from(stranger()).refused("IC0512"),
                install(0, KEEPS).from(stranger()).refused("IC0512"),
                on_canister("start_canister", 0).from(stranger()).refused("IC0512"),
                on_canister("delete_canister", 0).from(stranger()).refused("IC0512"),
            ],
        ),
        check(
            "L19 canister",
            [PASS, KEEPS],
            [
                pass(None, "stop_canister", 0, |ids| management::canister(ids[1])).replies_with("5 IC0512"),
                pass(None, "canister_status", 0, |ids| management::canister(ids[1])).replies_with("5 IC0512"),
                pass(None, "canister_status", 0, |ids| management::canister(ids[0])).replies_with("DIDL"),
            ],
        ),
        check(
            "L20",
            [KEEPS],
            [
                settings(0, controllers(11)).error("IC0408", "11 controllers"),
                settings(0, controllers(10)).reply(OK),
                look(0, |canister| canister.settings.controllers.len().to_string(), 10),
                settings(0, Settings { controllers: Some(vec![user(), user()]), ..Settings::default() })
                    .reply(OK),
                look(0, |canister| canister.settings.controllers.len().to_string(), 1),
            ],
        ),
        check(
            "L22",
            [
                r#"(query "get" (call $put32 (call $env_count)) (call $put32 (call $env_exists (lit "A"))) (call $put32 (call $env_exists (lit "C")))
              (call $env_copy (lit "B") (i32.const 0) (i32.const 0) (call $env_size (lit "B"))) (call $append (i32.const 0) (call $env_size (lit "B")))
              (call $env_name_copy (i32.const 0) (i32.const 0) (i32.const 0) (call $env_name_size (i32.const 0))) (call $append (i32.const 0) (i32.const 1)) (call $reply))
            (query "none" (drop (call $env_name_size (i32.const 2))))"#,
            ],
            [
                settings(0, Settings { environment_variables: Some(variables()), ..Settings::default() })
                    .reply(OK),
                query("get").reply(b"\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0valueA"),
                query("none").error("IC0504", ""),
            ],
        ),
        check(
            "L23",
            [KEEPS],
            [
                settings(
                    0,
                    Settings {
                        freezing_threshold: Some(0_u64.into()),
                        compute_allocation: Some(50_u64.into()),
                        ..Settings::default()
                    },
                )
                .reply(OK),
                after(1_000_000),
                look(
                    0,
                    |canister| {
                        format!("{} {}", canister.code.is_none(), canister.settings.compute_allocation)
                    },
                    "true 0",
                ),
            ],
        ),
        check(
            "L settings",
            [KEEPS],
            [settings(0, Settings { compute_allocation: Some(101_u64.into()), ..Settings::default() })
                .error("IC0504", "")],
        ),
    ]
}

fn variables() -> Vec<Variable> {
    [("B", "value"), ("A", "")]
        .map(|(name, value)| Variable { name: name.to_owned(), value: value.to_owned() })
        .into()
}

fn versions() -> Vec<Check> {
    let body = r#"(update "x" (call $reply)) (update "fail" (unreachable)) (query "ask" (call $say64 (call $version))) (update "call" (call $own (lit "x")) (call $sent))
        (on "init" (i64.store (i32.const 0) (call $version))) (query "init" (call $say64 (i64.load (i32.const 0))))"#;
    vec![
        check(
            "L01",
            [""],
            [
                version(0, 0),
                manage("provisional_create_canister_with_cycles", |_| b"DIDL\0\0".to_vec())
                    .replies_with("DIDL"),
                look(
                    1,
                    |canister| {
                        format!(
                            "{} {:?} {} {}",
                            canister.version,
                            canister.status,
                            canister.code.is_none(),
                            canister.settings.controllers == [user()]
                        )
                    },
                    "0 Running true true",
                ),
            ],
        ),
        check(
            "L18",
            [body],
            [
                version(0, 1),
                query("init").numbers(&[1]),
                update("x").reply(""),
                version(0, 2),
                update("fail").error("IC0502", ""),
                version(0, 2),
                query("ask").numbers(&[2]),
                version(0, 2),
                update("ask").numbers(&[2]),
                version(0, 3),
                update("call").reply(""),
                version(0, 6),
                settings(0, Settings::default()).reply(OK),
                version(0, 7),
                on_canister("stop_canister", 0).reply(OK),
                version(0, 9),
                on_canister("start_canister", 0).reply(OK),
                version(0, 10),
                upgrade(0, body, None).reply(OK),
                version(0, 11),
                on_canister("uninstall_code", 0).reply(OK),
                version(0, 12),
                install(0, body).reply(OK),
                version(0, 13),
                query("init").numbers(&[13]),
            ],
        ),
        check(
            "L25",
            [PASS],
            [
                pass(None, "update_settings", 0, |ids| {
                    management::settings(ids[0], Settings::default(), Some(99))
                })
                .replies_with("5 IC0504"),
                version(0, 3),
                pass(None, "update_settings", 0, |ids| {
                    management::settings(ids[0], Settings::default(), Some(3))
                })
                .reply(OK),
                version(0, 6),
            ],
        ),
        check(
            "CD04 uninstall",
            [KEEPS],
            [
                update("set").reply(""),
                on_canister("uninstall_code", 0).reply(OK),
                certified(""),
                query("get").error("IC0537", ""),
            ],
        ),
    ]
}
