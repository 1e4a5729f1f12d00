//! G06 to G10 as users see them: `fetch_canister_logs`.

use candid::{CandidType, Nat};
use execution::Principal;
use ic_management_canister_types::{
    CanisterLogFilter, FetchCanisterLogsArgs, FetchCanisterLogsResult, LogVisibility,
};

use super::check::{
    Check, Step, check, manage, manage_query, pass, query, reinstall, stranger, update, upgrade,
};
use super::management;
use super::prelude::PASS;

const OK: &[u8] = b"DIDL\0\0";

const PRINTS: &str = r#"
    (update "three" (call $print (lit "a")) (call $print (lit "b")) (call $print (lit "c")) (call $say64 (call $time)))
    (update "fail" (call $print (lit "d")) (call $trap (lit "boom")))
    (query "ask" (call $print (lit "q")) (call $reply))
    (update "kib" (call $print (i32.const 0) (i32.const 1024)) (call $reply))
"#;

fn fetch(filter: Option<CanisterLogFilter>) -> Step {
    manage_query("fetch_canister_logs", move |ids| {
        let arg = FetchCanisterLogsArgs { canister_id: ids[0], filter: filter.clone() };
        candid::encode_one(arg).expect("an argument encodes")
    })
}

/// Index, second of the run and content (or its size) of each record.
fn lines(reply: &[u8]) -> String {
    let records = candid::decode_one::<FetchCanisterLogsResult>(reply).expect("records").canister_log_records;
    let line = |content: &[u8]| {
        if content.len() < 100 {
            String::from_utf8_lossy(content).into_owned()
        } else {
            content.len().to_string()
        }
    };
    let second = |nanoseconds: u64| (nanoseconds - 1_700_000_000_000_000_007) as f64 / 1e9;
    let lines =
        records.iter().map(|r| format!("{}@{} {}", r.idx, second(r.timestamp_nanos), line(&r.content)));
    lines.collect::<Vec<_>>().join("|")
}

#[derive(Clone, Default, CandidType)]
struct Settings {
    log_visibility: Option<LogVisibility>,
    log_memory_limit: Option<Nat>,
}

#[derive(CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

fn set(settings: Settings) -> Step {
    manage("update_settings", move |ids| {
        let arg = UpdateSettings { canister_id: ids[0], settings: settings.clone() };
        candid::encode_one(arg).expect("an argument encodes")
    })
}

fn visible(log_visibility: LogVisibility) -> Step {
    set(Settings { log_visibility: Some(log_visibility), ..Settings::default() })
}

fn limit(bytes: u64) -> Step {
    set(Settings { log_memory_limit: Some(bytes.into()), ..Settings::default() })
}

pub(super) fn checks() -> Vec<Check> {
    vec![
        check(
            "G06",
            [PRINTS],
            [
                fetch(None).reads(lines, ""),
                update("three").numbers(&[1_700_000_002_000_000_007]),
                fetch(None).reads(lines, "0@2 a|1@2 b|2@2 c"),
                update("fail").error("IC0503", "boom"),
                fetch(None).reads(lines, "0@2 a|1@2 b|2@2 c|3@3 d|4@3 [TRAP]: boom"),
                fetch(Some(CanisterLogFilter::ByIdx { start: 1, end: 2 })).reads(lines, "1@2 b|2@2 c"),
                fetch(Some(CanisterLogFilter::ByTimestampNanos {
                    start: 1_700_000_003_000_000_007,
                    end: u64::MAX,
                }))
                .reads(lines, "3@3 d|4@3 [TRAP]: boom"),
                query("ask").reply(""),
                fetch(Some(CanisterLogFilter::ByIdx { start: 4, end: 9 })).reads(lines, "4@3 [TRAP]: boom"),
            ],
        ),
        check(
            "G07",
            [PRINTS],
            (0..5)
                .map(|_| update("kib").reply(""))
                .chain([fetch(None).reads(lines, "1@3 1024|2@4 1024|3@5 1024|4@6 1024")])
                .collect::<Vec<_>>(),
        ),
        check(
            "G10",
            [PRINTS],
            [
                update("three").numbers(&[1_700_000_002_000_000_007]),
                upgrade(0, PRINTS, None).reply(OK),
                fetch(None).reads(lines, "0@2 a|1@2 b|2@2 c"),
                reinstall(0, PRINTS).reply(OK),
                fetch(None).reads(lines, ""),
                update("fail").error("IC0503", "boom"),
                fetch(None).reads(lines, "3@5 d|4@5 [TRAP]: boom"),
                super::check::on_canister("uninstall_code", 0).reply(OK),
                fetch(None).reads(lines, ""),
            ],
        ),
        check(
            "G10 update",
            [PASS],
            [
                manage("fetch_canister_logs", |ids| management::canister(ids[0])).refused("IC0406"),
                pass(None, "fetch_canister_logs", 0, |ids| management::canister(ids[0]))
                    .replies_with("4 IC0406"),
            ],
        ),
        check(
            "G log viewers",
            [PRINTS],
            [
                fetch(None).from(stranger()).error("IC0406", "not allowed"),
                visible(LogVisibility::AllowedViewers(vec![stranger()])).reply(OK),
                fetch(None).from(stranger()).reads(lines, ""),
                fetch(None).from(Principal::anonymous()).error("IC0406", "not allowed"),
                visible(LogVisibility::Public).reply(OK),
                fetch(None).from(Principal::anonymous()).reads(lines, ""),
                visible(LogVisibility::AllowedViewers(
                    (0..11).map(|n| Principal::from_slice(&[n])).collect(),
                ))
                .error("IC0408", "11 viewers"),
            ],
        ),
        check(
            "G log limit",
            [PRINTS],
            [
                limit(4_095).error("IC0504", ""),
                limit((2 << 20) + 1).error("IC0504", ""),
                limit(8_192).reply(OK),
                update("kib").reply(""),
                update("kib").reply(""),
                update("kib").reply(""),
                update("kib").reply(""),
                update("kib").reply(""),
                fetch(None).reads(lines, "0@5 1024|1@6 1024|2@7 1024|3@8 1024|4@9 1024"),
                limit(4_096).reply(OK),
                fetch(None).reads(lines, "1@6 1024|2@7 1024|3@8 1024|4@9 1024"),
                limit(0).reply(OK),
                update("kib").reply(""),
                fetch(None).reads(lines, ""),
            ],
        ),
    ]
}
