//! Snapshots (sections 4.8 and 5, level 2).

use execution::state::SnapshotId;
use ic_management_canister_types::{
    DeleteCanisterSnapshotArgs, LoadCanisterSnapshotArgs, Snapshot, TakeCanisterSnapshotArgs,
};

use super::check::{Check, Ids, Step, check, look, manage, on_canister, query, reinstall, stranger, update};

const OK: &[u8] = b"DIDL\0\0";

/// Heap, global, stable memory, certified data and timer that a method sets, and tells.
const KEEPS: &str = r#"
    (global $g (mut i32) (i32.const 1))
    (update "seven" (call $set (i32.const 7)))
    (update "grow" (drop (memory.grow (i32.const 3))) (drop (call $grow (i64.const 2))) (call $set (i32.const 9)))
    (func $set (param i32)
      (global.set $g (local.get 0)) (i32.store (i32.const 0) (local.get 0)) (i32.store (i32.const 0x1fff0) (local.get 0))
      (drop (call $grow (i64.const 1))) (call $write (i64.const 0) (i64.const 0) (i64.const 8))
      (call $certified_data_set (i32.const 0) (i32.const 1)) (drop (call $timer_set (i64.const -1)))
      (call $print (i32.const 0) (i32.const 1)) (call $reply))
    (query "get"
      (call $put32 (global.get $g)) (call $put32 (i32.load (i32.const 0))) (call $put32 (i32.load (i32.const 0x1fff0)))
      (call $put32 (memory.size)) (call $put (call $size))
      (call $read (i64.const 8) (i64.const 0) (i64.const 8)) (call $put (i64.load (i32.const 8)))
      (call $reply))
"#;

fn id(ids: &Ids, canister: usize, number: u64) -> Vec<u8> {
    SnapshotId { canister: ids[canister], number }.to_bytes()
}

fn take(replace: Option<u64>, uninstall: bool) -> Step {
    manage("take_canister_snapshot", move |ids| {
        let arg = TakeCanisterSnapshotArgs {
            canister_id: ids[0],
            replace_snapshot: replace.map(|number| id(ids, 0, number)),
            uninstall_code: Some(uninstall),
            sender_canister_version: None,
        };
        candid::encode_one(arg).expect("an argument encodes")
    })
}

/// Loads the snapshot of canister 0 onto `to`.
fn load(to: usize, number: u64) -> Step {
    manage("load_canister_snapshot", move |ids| {
        let arg = LoadCanisterSnapshotArgs {
            canister_id: ids[to],
            snapshot_id: id(ids, 0, number),
            sender_canister_version: None,
        };
        candid::encode_one(arg).expect("an argument encodes")
    })
}

fn delete(number: u64) -> Step {
    manage("delete_canister_snapshot", move |ids| {
        let arg = DeleteCanisterSnapshotArgs { canister_id: ids[0], snapshot_id: id(ids, 0, number) };
        candid::encode_one(arg).expect("an argument encodes")
    })
}

/// The numbers of the snapshots in a list.
fn numbers(reply: &[u8]) -> String {
    let list = candid::decode_one::<Vec<Snapshot>>(reply).expect("a list");
    let numbers = list.iter().map(|snapshot| SnapshotId::from_bytes(&snapshot.id).expect("an id").number);
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
}

fn state(seen: &str) -> Step {
    look(
        0,
        |canister| {
            let (certified, log) = (&canister.certified_data, &canister.log.records);
            format!(
                "{certified:?} timer {} {} lines version {}",
                canister.global_timer != 0,
                log.len(),
                canister.version
            )
        },
        seen,
    )
}

pub(super) fn checks() -> Vec<Check> {
    vec![
        check(
            "G04",
            [KEEPS],
            [
                update("seven").reply(""),
                take(None, false).replies_with("DIDL"),
                state("[7] timer true 1 lines version 2"),
                update("grow").reply(""),
                query("get").numbers(&[9, 9, 9, 5, 4, 9]),
                load(0, 0).reply(OK),
                query("get").numbers(&[7, 7, 7, 2, 1, 7]),
                state("[7] timer true 2 lines version 4"),
                update("grow").reply(""),
                query("get").numbers(&[9, 9, 9, 5, 4, 9]),
                load(0, 0).reply(OK),
                update("get").numbers(&[7, 7, 7, 2, 1, 7]),
            ],
        ),
        check(
            "G04 other code",
            [KEEPS],
            [
                update("seven").reply(""),
                take(None, false).replies_with("DIDL"),
                reinstall(0, r#"(query "get" (call $say (lit "other")))"#).reply(OK),
                query("get").reply("other"),
                state("[] timer false 0 lines version 3"),
                load(0, 0).reply(OK),
                query("get").numbers(&[7, 7, 7, 2, 1, 7]),
                // The timer stays as it was, the log too.
                state("[7] timer false 0 lines version 4"),
            ],
        ),
        check(
            "G04 uninstalled",
            [KEEPS],
            [
                update("seven").reply(""),
                take(None, true).replies_with("DIDL"),
                query("get").error("IC0537", ""),
                take(None, false).error("IC0406", "empty"),
                load(0, 0).reply(OK),
                query("get").numbers(&[7, 7, 7, 2, 1, 7]),
                on_canister("stop_canister", 0).reply(OK),
                take(Some(0), false).replies_with("DIDL"),
                load(0, 1).reply(OK),
                on_canister("start_canister", 0).reply(OK),
                update("get").numbers(&[7, 7, 7, 2, 1, 7]),
            ],
        ),
        check(
            "G05",
            [KEEPS],
            (0..10)
                .map(|_| take(None, false).replies_with("DIDL"))
                .chain([
                    take(None, false).error("IC0406", "maximum number of snapshots allowed: 10"),
                    take(Some(3), false).replies_with("DIDL"),
                    take(Some(3), false).error("IC0305", ""),
                    on_canister("list_canister_snapshots", 0).reads(numbers, "0 1 2 4 5 6 7 8 9 10"),
                    delete(0).reply(OK),
                    delete(0).error("IC0305", ""),
                    take(None, false).replies_with("DIDL"),
                    on_canister("list_canister_snapshots", 0).reads(numbers, "1 2 4 5 6 7 8 9 10 11"),
                ])
                .collect::<Vec<_>>(),
        ),
        check(
            "G snapshot rights",
            [KEEPS, KEEPS],
            [
                take(None, false).from(stranger()).refused("IC0512"),
                take(None, false).replies_with("DIDL"),
                load(0, 0).from(stranger()).refused("IC0512"),
                delete(0).from(stranger()).refused("IC0512"),
                on_canister("list_canister_snapshots", 0).from(stranger()).refused("IC0512"),
                load(1, 0).error("IC0406", "does not belong"),
                load(0, 9).error("IC0305", ""),
                manage("load_canister_snapshot", |ids| {
                    let (canister_id, snapshot_id) = (ids[0], vec![1, 2, 3]);
                    let arg =
                        LoadCanisterSnapshotArgs { canister_id, snapshot_id, sender_canister_version: None };
                    candid::encode_one(arg).expect("an argument encodes")
                })
                .error("IC0408", "010203"),
            ],
        ),
    ]
}
