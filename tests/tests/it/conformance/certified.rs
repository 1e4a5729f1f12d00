//! CD, and what of A and Q is about certificates: each certificate is verified as an agent does it.

use super::check::{
    Check, Code, certificate, check, install, install_code, on_canister, one, query, read, reinstall,
    settings, stranger, update, upgrade, user,
};
use super::management::{Install, Settings};

const OK: &[u8] = b"DIDL\0\0";

/// Certifies its argument, and gives its certificate.
const CERTIFIED: &str = r#"
    (update "set" (call $certified_data_set (i32.const 0x4000) (call $arg)) (call $reply))
    (update "twice" (call $certified_data_set (lit "one")) (call $certified_data_set (lit "two")) (call $reply))
    (update "fail" (call $certified_data_set (lit "three")) (unreachable))
    (query "certificate"
      (call $certificate_copy (i32.const 0x4000) (i32.const 0) (call $certificate_size))
      (call $say (i32.const 0x4000) (call $certificate_size)))
    (query "present" (call $say32 (call $certificate_present)))
    (update "present in update" (call $say32 (call $certificate_present)))
    (update "size in update" (drop (call $certificate_size)))
    (func $present (param i32) (call $say32 (call $certificate_present)))
    (elem (i32.const 5) $present)
    (composite "own" (call $say32 (call $certificate_present)))
    (composite "callee" (call $peer (lit "present")) (call $sent))
    (composite "callback" (call $peer_to (lit "present") (i32.const 5) (i32.const 5)) (call $sent))
"#;

/// SHA-256 of the eight bytes of an empty module.
const EMPTY_MODULE: &str = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";

const SECTIONS: &str = r#"(@custom "icp:public x" "hello") (@custom "icp:private y" "own")"#;

pub(super) fn checks() -> Vec<Check> {
    let (seven, eight) = ([7; 32], [8; 33]);
    let sevens = "07".repeat(32);
    let mut both = [user(), stranger()];
    both.sort();
    // Tag 55799, an array of two, two byte strings of 29 bytes.
    let controllers = format!("d9d9f782581d{}581d{}", hex::encode(both[0]), hex::encode(both[1]));
    let empty_module = Code::Bytes(b"\0asm\x01\0\0\0".to_vec());
    vec![
        check(
            "CD01",
            [CERTIFIED],
            [
                update("set").arg(seven).reply(""),
                certificate(0, &sevens),
                update("set").arg(eight).error("IC0504", "32"),
                certificate(0, &sevens),
                update("set").reply(""),
                certificate(0, ""),
            ],
        ),
        check(
            "CD02 certificate",
            [CERTIFIED],
            [
                update("twice").reply(""),
                certificate(0, &hex::encode("two")),
                update("fail").error("IC0502", "unreachable"),
                certificate(0, &hex::encode("two")),
            ],
        ),
        check(
            "CD03",
            [CERTIFIED],
            [
                update("set").arg(seven).reply(""),
                upgrade(0, CERTIFIED, None).reply(OK),
                certificate(0, &sevens),
                reinstall(0, CERTIFIED).reply(OK),
                certificate(0, ""),
                update("set").arg(seven).reply(""),
                on_canister("uninstall_code", 0).reply(OK),
                install(0, CERTIFIED).reply(OK),
                certificate(0, ""),
            ],
        ),
        check(
            "CD04",
            [""],
            [
                on_canister("start_canister", 0).reply(OK),
                read(0, ["module_hash"], "absent"),
                read(0, ["last_install_timestamp"], "absent"),
                read(0, ["metadata", "x"], "absent"),
                install_code(0, Install::Install, empty_module, b"").reply(OK),
                read(0, ["module_hash"], EMPTY_MODULE),
                on_canister("uninstall_code", 0).reply(OK),
                read(0, ["module_hash"], "absent"),
            ],
        ),
        check(
            "CD05",
            [""],
            [
                settings(0, Settings { controllers: Some(both.to_vec()), ..Settings::default() }).reply(OK),
                read(0, ["controllers"], &controllers),
                settings(0, Settings { controllers: Some(Vec::new()), ..Settings::default() }).reply(OK),
                read(0, ["controllers"], "d9d9f780"),
            ],
        ),
        check(
            "CD06",
            [SECTIONS],
            [
                read(0, ["metadata", "x"], &hex::encode("hello")),
                read(0, ["metadata", "y"], "refused"),
                read(0, ["metadata", "y"], &hex::encode("own")).from(user()),
                read(0, ["metadata", "z"], "absent"),
                read(0, ["certified_data"], "refused").from(user()),
            ],
        ),
        check("Q02 certificate", [CERTIFIED], [certificate(0, ""), certificate(0, "").from(user())]),
        check(
            "A14",
            [CERTIFIED, CERTIFIED],
            [
                query("present").numbers(&[1]),
                update("present").numbers(&[0]),
                update("present in update").numbers(&[0]),
                query("own").numbers(&[1]),
                query("callee").numbers(&[0]),
                query("callback").numbers(&[0]),
            ],
        ),
        one("A14 size", CERTIFIED, update("size in update").error("IC0504", "data_certificate_size")),
        one("A14 replicated size", CERTIFIED, update("certificate").error("IC0504", "data_certificate_size")),
    ]
}
