//! Generated canisters: valid modules with random functions under every name that the system calls.

use std::fmt::Write as _;

use in_process::Context;
use in_process::api::{FUNCTIONS, P};

use super::dice::Dice;
use super::statements::{self, COMPOSITES, LITERALS, OWN, QUERIES, TABLE, UPDATES, Writer};

/// The generated module with this number.
pub(super) fn module(number: u64) -> Vec<u8> {
    let text = text(number);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("module {number}: {error}\n{text}"))
}

/// Its text.
fn text(number: u64) -> String {
    let mut dice = Dice::of(&[0x6d6f_6475_6c65, number]);
    let wide = dice.one_in(3);
    let passive = dice.one_in(5);
    let persistent = wide && dice.one_in(2);
    let optional: Vec<(&str, Context)> = [
        ("canister_inspect_message", Context::Inspect, 4),
        ("canister_heartbeat", Context::Heartbeat, 8),
        ("canister_global_timer", Context::GlobalTimer, 2),
        ("canister_on_low_wasm_memory", Context::LowWasmMemory, 2),
        ("canister_init", Context::Init, 2),
        ("canister_pre_upgrade", Context::PreUpgrade, 2),
        ("canister_post_upgrade", Context::Init, 2),
    ]
    .into_iter()
    .filter_map(|(name, context, share)| dice.one_in(share).then_some((name, context)))
    .collect();
    let starts = dice.one_in(6);
    let mut writer = Writer { dice: &mut dice, wide, passive, literals: String::new() };
    let functions = functions(&mut writer, &optional, starts);
    assemble(&writer, &functions, starts, persistent)
}

/// All functions, in no order that matters.
fn functions(writer: &mut Writer<'_>, optional: &[(&str, Context)], starts: bool) -> String {
    let mut out = String::new();
    let mut export = |writer: &mut Writer<'_>, name: &str, context| {
        let body = writer.body(context);
        writeln!(out, "(func (export \"{name}\") {body})").expect("a string takes it");
    };
    for (prefix, names, context) in [
        ("canister_update", &UPDATES[..], Context::Update),
        ("canister_query", &QUERIES[..], Context::Query),
        ("canister_composite_query", &COMPOSITES[..], Context::CompositeQuery),
    ] {
        names.iter().for_each(|name| export(writer, &format!("{prefix} {name}"), context));
    }
    optional.iter().for_each(|(name, context)| export(writer, name, *context));
    let pointer = writer.pointer();
    for (name, context) in [
        ("reply0", Context::Reply),
        ("reply1", Context::Reply),
        ("reject", Context::Reject),
        ("cleanup", Context::Cleanup),
        ("composite_reply", Context::CompositeReply),
        ("composite_reject", Context::CompositeReject),
    ] {
        let body = writer.body(context);
        writeln!(out, "(func ${name} (param $e {pointer}) {body})").expect("a string takes it");
    }
    for leaf in 0..statements::LEAVES.len() {
        let body = writer.leaf();
        writeln!(out, "(func $leaf{leaf} (param $x i64) (result i64) {body})").expect("a string takes it");
    }
    if starts {
        let body = writer.body(Context::Start);
        writeln!(out, "(func $start {body})").expect("a string takes it");
    }
    out
}

fn assemble(writer: &Writer<'_>, functions: &str, starts: bool, persistent: bool) -> String {
    let mut wat = String::from("(module\n");
    if persistent {
        wat.push_str("(@custom \"icp:private enhanced-orthogonal-persistence\" \"\")\n");
    }
    wat.push_str("(type $leaf (func (param i64) (result i64)))\n");
    for function in FUNCTIONS.iter().filter(|function| {
        functions.contains(&format!("(call ${})", function.name))
            || functions.contains(&format!("(call ${} ", function.name))
    }) {
        let kind = |kind: &P| match kind {
            P::I => writer.pointer(),
            P::I32 => "i32",
            P::I64 => "i64",
        };
        let params: String =
            function.params.iter().map(|param| format!(" (param {})", kind(param))).collect();
        let result = function.result.map_or(String::new(), |result| format!(" (result {})", kind(&result)));
        let name = function.name;
        writeln!(wat, "(import \"ic0\" \"{name}\" (func ${name}{params}{result}))")
            .expect("a string takes it");
    }
    let memory = if writer.wide { "i64 3 24" } else { "3 24" };
    let offset = writer.at(LITERALS);
    let free = writer.at(0x1_0000);
    writeln!(
        wat,
        "(memory {memory}) (table {TABLE} {TABLE} funcref)
         (global $g0 (mut i64) (i64.const 1)) (global $g1 (mut i64) (i64.const -7)) (global $g2 (mut i64) (i64.const 0))
         (global $f (mut f64) (f64.const 0.1))
         (elem (i32.const 0) $reply0 $reply1 $reject $cleanup $composite_reply $composite_reject $leaf0 $leaf1 $leaf2)
         (data {offset} \"{}\") (data {free} \"some bytes\")",
        writer.literals
    )
    .expect("a string takes it");
    if writer.passive {
        wat.push_str("(data $passive \"passively\")\n");
    }
    if starts {
        wat.push_str("(start $start)\n");
    }
    assert!(
        LITERALS - OWN + writer.literals.len() as u64 / 3 < 0x1_0000,
        "the third page holds the literals"
    );
    wat + functions + ")"
}
