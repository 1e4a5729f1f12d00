//! V: which modules are installed.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::check::{Check, Code, Step, check, install_code, look, query, update};
use super::management::Install;

const OK: &[u8] = b"DIDL\0\0";

fn installs(code: Code) -> Step {
    install_code(0, Install::Install, code, b"").reply(OK)
}

/// Refused, naming something; the canister stays as it was.
fn refused(code: Code, part: &str) -> [Step; 2] {
    let step = install_code(0, Install::Install, code, b"").error("IC0505", part);
    [step, look(0, |canister| format!("{} {}", canister.code.is_none(), canister.version), "true 0")]
}

fn module(text: &str) -> Code {
    Code::Wat(format!("(module {text})"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Modules that are installed.
const GOOD: &[(&str, &str)] = &[
    ("V08", r#"(import "ic0" "msg_arg_data_size" (func (result i64))) (memory i64 1)"#),
    ("V09", r#"(import "ic0" "msg_arg_data_size" (func (result i32)))"#),
    ("V14", r#"(func (export "foo"))"#),
    ("V22", r#"(@custom "foo" "x") (@custom "producers" "")"#),
    (
        "V28",
        r#"(memory 1) (table 1 funcref) (data $d "x") (func (drop (table.get 0 (i32.const 0))) (drop (table.size 0))
        (memory.copy (i32.const 0) (i32.const 0) (i32.const 0)) (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)) (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0)))"#,
    ),
    ("V29", "(func (drop (i32x4.add (v128.const i64x2 0 0) (v128.const i64x2 0 0))))"),
    (
        "V32",
        r#"(func $f (result i32) (return_call $g)) (func $g (result i32) (drop (i32.extend8_s (i32.const 1))) (i32.trunc_sat_f32_s (f32.const 1)))
        (func (result i32 i32) (block (result i32 i32) (i32.const 1) (i32.const 2))) (elem declare func $f) (func (drop (ref.func $f)) (drop (ref.null func)))"#,
    ),
    ("V33", r#"(memory 1) (data (i32.const 65535) "x")"#),
    ("V35", "(memory i64 1 98304)"),
    ("V legacy", r#"(import "ic0" "stable_size" (func (result i32))) (memory 1)"#),
    (
        "V function import as a method",
        r#"(import "ic0" "msg_reply" (func $reply)) (export "canister_update reply" (func $reply))"#,
    ),
];

/// Modules that are refused, and a word that the refusal has to have.
const BAD: &[(&str, &str, &str)] = &[
    ("V04", r#"(import "env" "time" (func (result i64)))"#, "env"),
    ("V05", r#"(import "ic0" "no_such_function" (func))"#, "no_such_function"),
    ("V06", r#"(import "ic0" "time" (func (result i32)))"#, "time"),
    ("V07", r#"(import "ic0" "stable_size" (func (result i32))) (memory i64 1)"#, "stable_size"),
    (
        "V07 accept",
        r#"(import "ic0" "msg_cycles_accept" (func (param i64) (result i64))) (memory i64 1)"#,
        "msg_cycles_accept",
    ),
    (
        "V08 i32",
        r#"(import "ic0" "msg_arg_data_size" (func (result i32))) (memory i64 1)"#,
        "msg_arg_data_size",
    ),
    ("V09 i64", r#"(import "ic0" "msg_arg_data_size" (func (result i64)))"#, "msg_arg_data_size"),
    ("V10", "(memory 1) (memory 1)", ""),
    ("V11", r#"(import "ic0" "g" (global i32))"#, ""),
    ("V imported memory", r#"(import "env" "memory" (memory 1))"#, ""),
    ("V imported table", r#"(import "env" "table" (table 1 funcref))"#, ""),
    ("V12", r#"(func (export "canister_init") (param i32))"#, "canister_init"),
    ("V12 result", r#"(func (export "canister_init") (result i32) (i32.const 1))"#, "canister_init"),
    ("V12 update", r#"(func (export "canister_update x") (param i32))"#, "canister_update x"),
    ("V13", r#"(func (export "canister_update a")) (func (export "canister_query a"))"#, "a"),
    (
        "V13 composite",
        r#"(func (export "canister_composite_query a")) (func (export "canister_query a"))"#,
        "a",
    ),
    ("V14 reserved", r#"(func (export "canister_foo"))"#, "canister_foo"),
    (
        "V reserved names",
        r#"(global (export "canister counter_instructions") i32 (i32.const 0))"#,
        "counter_instructions",
    ),
    ("V21", r#"(@custom "icp:public x" "") (@custom "icp:private x" "")"#, "x"),
    ("V22 visibility", r#"(@custom "icp:foo x" "")"#, "icp:foo"),
    ("V22 space", r#"(@custom "icp:public" "")"#, "icp:public"),
    ("V28 set", "(table 1 funcref) (func (table.set 0 (i32.const 0) (ref.null func)))", "table.set"),
    (
        "V28 grow",
        "(table 1 funcref) (func (drop (table.grow 0 (ref.null func) (i32.const 0))))",
        "table.grow",
    ),
    (
        "V28 fill",
        "(table 1 funcref) (func (table.fill 0 (i32.const 0) (ref.null func) (i32.const 0)))",
        "table.fill",
    ),
    (
        "V28 copy",
        "(table 1 funcref) (func (table.copy (i32.const 0) (i32.const 0) (i32.const 0)))",
        "table.copy",
    ),
    (
        "V28 init",
        "(table 1 funcref) (elem $e funcref) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 0)))",
        "table.init",
    ),
    (
        "V29 relaxed",
        "(func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))",
        "",
    ),
    ("V30", "(memory 1 2 shared)", ""),
    ("V30 atomic", "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))", ""),
    ("V31 tag", "(tag (param i32))", ""),
    ("V31 struct", "(type (struct (field i32)))", ""),
    ("V31 call_ref", "(type $t (func)) (func (call_ref $t (ref.null $t)))", ""),
    ("V31 extended const", "(global i32 (i32.add (i32.const 1) (i32.const 2)))", ""),
    (
        "V31 wide",
        "(func (drop (drop (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)))))",
        "",
    ),
    ("V31 page size", "(memory 1 (pagesize 1))", ""),
    ("V33 past", r#"(memory 1) (data (i32.const 65535) "xy")"#, ""),
    ("V34", r#"(global $g i32 (i32.const 0)) (memory 1) (data (global.get $g) "x")"#, ""),
    ("V35 larger", "(memory i64 1 98305)", ""),
    ("V two tables", "(table 1 funcref) (table 1 funcref)", ""),
    ("V large table", "(table 1000001 funcref)", ""),
    ("V reference global", "(global funcref (ref.null func))", ""),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    checks.extend(GOOD.iter().map(|(id, text)| check(id, [""], [installs(module(text))])));
    checks.extend(BAD.iter().map(|(id, text, part)| check(id, [""], refused(module(text), part))));
    let valid = wat::parse_str(r#"(module (func (export "canister_update x")))"#).expect("a module");
    /// A check's id, the module with so many of something, and how many are allowed.
    type Limit = (&'static str, fn(usize) -> String, usize);
    let limits: [Limit; 5] = [
        (
            "V17",
            |n| {
                (0..n).map(|i| format!("(export \"canister_query {i}\" (func 0))")).collect::<String>()
                    + "(func)"
            },
            1_000,
        ),
        ("V18", |n| format!("(func (export \"canister_query {}\"))", "n".repeat(n)), 20_000),
        ("V19", |n| "(func)".repeat(n), 50_000),
        ("V20", |n| "(global i32 (i32.const 0))".repeat(n), 1_000),
        ("V23", |n| (0..n).map(|i| format!("(@custom \"icp:public {i}\" \"\")")).collect(), 16),
    ];
    for (id, text, most) in limits {
        checks.push(check(id, [""], [installs(module(&text(most)))]));
        checks.push(check(id, [""], refused(module(&text(most + 1)), &most.to_string())));
    }
    let section = |bytes: usize| module(&format!("(@custom \"icp:public x\" \"{}\")", "y".repeat(bytes)));
    let long = |nops: usize| module(&format!("(func {})", "nop ".repeat(nops)));
    checks.extend([
        check(
            "V01",
            [""],
            [installs(module("")), update("x").error("IC0536", ""), query("x").error("IC0536", "")],
        ),
        check("V01 empty", [""], refused(Code::Bytes(Vec::new()), "")),
        check("V02", [""], refused(Code::Bytes(b"hello, I am no module".to_vec()), "")),
        check("V02 version", [""], refused(Code::Bytes(b"\0asm\x02\0\0\0".to_vec()), "")),
        check("V03", [""], [installs(Code::Bytes(gzip(&valid))), update("x").error("IC0506", "")]),
        check("V03 wrong size", [""], refused(Code::Bytes(with_size(gzip(&valid), 7)), "")),
        check(
            "V15",
            [""],
            [installs(module(r#"(func (export "canister_update "))"#)), update("").error("IC0506", "")],
        ),
        check(
            "V16",
            [""],
            [
                installs(module(r#"(func (export "canister_query a b  c"))"#)),
                query("a b  c").error("IC0506", ""),
            ],
        ),
        check("V24", [""], [installs(section((1 << 20) - 1))]),
        check("V24 more", [""], refused(section(1 << 20), "")),
        check("V25", [""], refused(long(1_000_001), "")),
        check("V27", [""], refused(Code::Bytes(gzip(&vec![0; (100 << 20) + 1])), "")),
        check("V31 component", [""], refused(Code::Bytes(b"\0asm\x0d\0\x01\0".to_vec()), "")),
    ]);
    checks
}

/// A gzip file that claims another size.
fn with_size(mut gzip: Vec<u8>, size: u32) -> Vec<u8> {
    let end = gzip.len() - 4;
    gzip[end..].copy_from_slice(&size.to_le_bytes());
    gzip
}
