//! G and O: the management canister, and what lies outside.

use execution::{Principal, SubnetConfig};
use ic_management_canister_types::{
    CanisterInfoResult, CanisterMetadataArgs, CanisterMetadataResult, ChangeDetails, ChangeOrigin,
    EcdsaCurve, EcdsaKeyId, SignWithEcdsaArgs, SubnetInfoArgs,
};
use sha2::{Digest as _, Sha256};

use super::check::{Check, Code, check, look, on_canister, one, pass, query, spent, stranger, update};
use super::management;
use super::prelude::PASS;

fn nothing(_: &super::check::Ids) -> Vec<u8> {
    Vec::new()
}

/// Methods of the management canister that lie outside of an execution layer, and one that isn't one.
const OUTSIDE: [&str; 14] = [
    "sign_with_ecdsa",
    "ecdsa_public_key",
    "sign_with_schnorr",
    "schnorr_public_key",
    "vetkd_derive_key",
    "vetkd_public_key",
    "http_request",
    "bitcoin_get_balance",
    "bitcoin_send_transaction",
    "setup_initial_dkg",
    "reshare_chain_key",
    "rename_canister",
    "fetch_canister_logs",
    "no_such_method",
];

/// Calls each with 1,000 cycles and tells what came back.
fn outside() -> String {
    let calls = OUTSIDE.map(|method| {
        format!(
            r#"(update "{method}" (call $new (i32.const 0) (i32.const 0) (lit "{method}") (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 0))
              (call $attach (i64.const 0) (i64.const 1000)) (call $sent))"#
        )
    });
    let back = "(elem (i32.const 2) $back) (func $back (param i32) (call $refunded (i32.const 0)) (call $put128 (i32.const 0)) (call $reply))";
    format!("{back} {}", calls.join("\n"))
}

fn metadata(name: &'static str) -> super::check::Step {
    pass(None, "canister_metadata", 0, move |ids| {
        let arg = CanisterMetadataArgs { canister_id: ids[1], name: name.into() };
        candid::encode_one(arg).expect("an argument encodes")
    })
}

fn value(reply: &[u8]) -> String {
    match candid::decode_one::<CanisterMetadataResult>(reply) {
        Ok(result) => String::from_utf8_lossy(&result.value).into_owned(),
        Err(_) => String::from_utf8_lossy(reply).into_owned(),
    }
}

fn subnet(subnet_id: Principal) -> Vec<u8> {
    candid::encode_one(SubnetInfoArgs { subnet_id }).expect("an argument encodes")
}

/// Origin, version and kind of each change.
fn history(reply: &[u8]) -> String {
    let Ok(info) = candid::decode_one::<CanisterInfoResult>(reply) else {
        return String::from_utf8_lossy(reply).into_owned();
    };
    let changes = info.recent_changes.iter().map(|change| {
        let origin = match &change.origin {
            ChangeOrigin::FromUser(_) => "user".to_owned(),
            ChangeOrigin::FromCanister(from) => format!("canister {}", from.canister_version.unwrap_or(0)),
        };
        let kind = match &change.details {
            Some(ChangeDetails::Creation(_)) => "creation".to_owned(),
            Some(ChangeDetails::CodeDeployment(deployed)) => {
                assert_eq!(Some(&deployed.module_hash), info.module_hash.as_ref());
                format!("{:?}", deployed.mode)
            }
            Some(ChangeDetails::ControllersChange(_)) => "controllers".to_owned(),
            other => format!("{other:?}"),
        };
        format!("{origin}@{} {kind}", change.canister_version)
    });
    format!("{}: {}", info.total_num_changes, changes.collect::<Vec<_>>().join(", "))
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
                super::check::upgrade(0, PASS, None).reply(b"DIDL\0\0"),
                pass(None, "canister_info", 0, |ids| management::canister(ids[0]))
                    .reads(history, "3: user@0 creation, user@1 Install, user@2 Upgrade"),
                pass(None, "uninstall_code", 0, |ids| management::canister(ids[1])).replies_with("IC0301"),
                pass(None, "update_settings", 0, |ids| {
                    let controllers = Some(vec![ids[0], super::check::user()]);
                    management::settings(ids[0], management::Settings { controllers, ..Default::default() }, None)
                })
                .reply(b"DIDL\0\0"),
                // As many as before: the same set in another order changes nothing.
                pass(None, "canister_info", 0, |ids| management::canister(ids[0]))
                    .reads(history, "3: user@0 creation, user@1 Install, user@2 Upgrade"),
                pass(None, "update_settings", 0, |ids| {
                    let controllers = Some(vec![ids[0]]);
                    management::settings(ids[0], management::Settings { controllers, ..Default::default() }, Some(11))
                })
                .reply(b"DIDL\0\0"),
                pass(None, "canister_info", 0, |ids| management::canister(ids[0]))
                    .reads(history, "4: user@0 creation, user@1 Install, user@2 Upgrade, canister 11@13 controllers"),
            ],
        ),
        check(
            "O methods",
            [&outside()],
            OUTSIDE.iter().map(|method| update(method).numbers(&[1_000, 0])).collect::<Vec<_>>(),
        ),
        check(
            "O01 key",
            [PASS],
            [pass(None, "sign_with_ecdsa", 1_000, |_| {
                let key_id = EcdsaKeyId { curve: EcdsaCurve::Secp256k1, name: "key_1".into() };
                let arg = SignWithEcdsaArgs { message_hash: vec![0; 32], derivation_path: vec![], key_id };
                candid::encode_one(arg).expect("an argument encodes")
            })
            .replies_with("4 IC0406: Unable to route management canister request sign_with_ecdsa: Requested unknown or signing disabled threshold key: ecdsa:Secp256k1:key_1, existing keys with signing enabled: []")],
        ),
        check(
            "G metadata",
            [PASS, r#"(@custom "icp:public x" "open") (@custom "icp:private y" "closed")"#],
            [
                metadata("x").reads(value, "open"),
                metadata("y").replies_with("5 IC0512"),
                metadata("z").replies_with("4 IC0406"),
            ],
        ),
        check(
            "G subnet",
            [PASS],
            [
                pass(None, "subnet_info", 0, |_| subnet(SubnetConfig::application().subnet_id))
                    .replies_with("bulkhead"),
                pass(None, "subnet_info", 0, |ids| subnet(ids[0])).replies_with("4 IC0404"),
                super::check::manage("subnet_info", |ids| subnet(ids[0])).refused("IC0406"),
            ],
        ),
        check(
            "G composite",
            [r#"(composite "ask" (call $new (i32.const 0) (i32.const 0) (lit "canister_status") (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
              (call $data (i32.const 0x4000) (call $arg)) (call $sent))"#],
            [query("ask").with(|ids| management::canister(ids[0])).replies_with("DIDL"),
             query("ask").with(|_| management::canister(super::check::user())).replies_with("3 IC0301")],
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
