//! MT: what each instruction and function costs, as the table of section 3.2 says.

use super::check::{Check, Code, again, check, cost, install_code, one, spent, update};
use super::management::Install;

/// Code that leaves nothing on the stack, and what it costs by the table: constants, `drop` and locals are 1.
const INSTRUCTIONS: &[(&str, u64)] = &[
    ("", 0),
    ("(block) (loop)", 0),
    ("(nop)", 1),
    ("(drop (i32.const 0))", 2),
    ("(drop (i32.add (i32.const 1) (i32.const 2)))", 4),
    ("(drop (i64.mul (i64.const 1) (i64.const 2)))", 4),
    ("(drop (i32.clz (i32.const 1)))", 3),
    ("(drop (i32.popcnt (i32.const 1)))", 3),
    ("(drop (i32.lt_u (i32.const 1) (i32.const 2)))", 4),
    ("(drop (i64.eqz (i64.const 1)))", 3),
    ("(drop (i32.wrap_i64 (i64.const 1)))", 3),
    ("(drop (i64.extend_i32_u (i32.const 1)))", 3),
    ("(drop (i32.reinterpret_f32 (f32.const 1)))", 3),
    ("(drop (f64.promote_f32 (f32.const 1)))", 3),
    ("(drop (i32.extend8_s (i32.const 1)))", 3),
    ("(drop (i32.load (i32.const 0)))", 3),
    ("(drop (local.get 0))", 2),
    ("(local.set 0 (local.tee 0 (local.get 0)))", 3),
    ("(drop (select (i32.const 1) (i32.const 2) (i32.const 3)))", 5),
    ("(drop (ref.null func))", 2),
    ("(drop (f64.abs (f64.const 1)))", 3),
    ("(drop (f64.neg (f64.const 1)))", 3),
    ("(drop (f64.add (f64.const 1) (f64.const 1)))", 5),
    ("(drop (f32.mul (f32.const 1) (f32.const 1)))", 5),
    ("(drop (f64.ceil (f64.const 1)))", 4),
    ("(drop (f32.copysign (f32.const 1) (f32.const 1)))", 5),
    ("(drop (f64.copysign (f64.const 1) (f64.const 1)))", 6),
    ("(drop (global.get $g))", 3),
    ("(global.set $g (i32.const 0))", 3),
    ("(if (i32.const 1) (then (nop)))", 4),
    ("(if (i32.const 0) (then (nop)) (else (nop) (nop)))", 5),
    ("(block $b (br $b))", 2),
    ("(block $b (br_if $b (i32.const 1)))", 3),
    ("(block $b (br_table $b $b (i32.const 1)))", 3),
    ("(drop (f64.eq (f64.const 1) (f64.const 1)))", 6),
    ("(drop (f32.div (f32.const 1) (f32.const 1)))", 6),
    ("(drop (f64.div (f64.const 1) (f64.const 1)))", 8),
    ("(drop (f64.convert_i32_s (i32.const 1)))", 5),
    ("(drop (f64.convert_i64_u (i64.const 1)))", 18),
    ("(drop (i32.trunc_f64_s (f64.const 1)))", 22),
    ("(drop (i64.trunc_sat_f32_u (f32.const 1)))", 22),
    ("(drop (f32.sqrt (f32.const 1)))", 7),
    ("(drop (f64.sqrt (f64.const 1)))", 10),
    ("(drop (f64.min (f64.const 1) (f64.const 1)))", 21),
    ("(drop (i32.div_u (i32.const 1) (i32.const 1)))", 13),
    ("(drop (i64.rem_s (i64.const 1) (i64.const 1)))", 13),
    ("(call $empty)", 6),
    ("(call_indirect (i32.const 0))", 12),
    ("(return_call $empty)", 4),
    ("(return_call_indirect (i32.const 0))", 62),
    ("(drop (table.get 0 (i32.const 0)))", 7),
    ("(drop (ref.is_null (ref.null func)))", 7),
    ("(drop (memory.size))", 21),
    ("(drop (table.size 0))", 101),
    ("(drop (ref.func $empty))", 131),
    ("(drop (memory.grow (i32.const 0)))", 302),
    ("(data.drop $d)", 300),
    ("(memory.fill (i32.const 0) (i32.const 0) (i32.const 0))", 103),
    ("(memory.copy (i32.const 0) (i32.const 0) (i32.const 0))", 103),
    ("(memory.init $d (i32.const 0) (i32.const 0) (i32.const 0))", 103),
    (
        "(drop (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (v128.const i64x2 0 0) (v128.const i64x2 0 0)))",
        6,
    ),
    ("(drop (f64x2.div (v128.const i64x2 0 0) (v128.const i64x2 0 0)))", 15),
    ("(drop (i64x2.mul (v128.const i64x2 0 0) (v128.const i64x2 0 0)))", 7),
    ("(drop (i32x4.add (v128.const i64x2 0 0) (v128.const i64x2 0 0)))", 4),
];

/// Functions: code and what it costs, with 5 for the call.
const FUNCTIONS: &[(&str, u64)] = &[
    ("(call $append (i32.const 0) (i32.const 10))", 2 + 5 + 500 + 50 * 10),
    ("(drop (call $arg_size))", 1 + 5 + 500),
    ("(call $arg_copy (i32.const 0) (i32.const 0) (i32.const 0))", 3 + 5 + 500),
    ("(drop (call $time))", 1 + 5 + 500),
    ("(drop (call $counter (i32.const 0)))", 2 + 5 + 200),
    ("(drop (call $is_controller (i32.const 0x8000) (i32.const 10)))", 3 + 5 + 1_000 + 10),
    ("(drop (call $size))", 1 + 5),
    ("(drop (call $grow (i64.const 0)))", 2 + 5 + 100),
    ("(call $read (i64.const 0) (i64.const 0) (i64.const 0))", 3 + 5 + 20),
    ("(call $peer (lit \"name\"))", 2 + 5 + 1 + 8 + 5 + 1_500 + 10 + 4),
    ("(call $certified_data_set (i32.const 0) (i32.const 8))", 2 + 5 + 500 + 8),
    ("(drop (call $timer_set (i64.const 0)))", 2 + 5 + 500),
    ("(drop (call $replicated))", 1 + 5 + 500),
];

/// Each line in a method of its own, which starts with 1.
fn table(lines: &[(&str, u64)], body: &str) -> (String, Vec<super::check::Step>) {
    let mut text = body.to_owned();
    let mut steps = Vec::new();
    for (n, (code, price)) in lines.iter().enumerate() {
        text.push_str(&format!("(func (export \"canister_update {n}\") (local i32) {code})\n"));
        steps.push(update(&n.to_string()).error("IC0506", ""));
        steps.push(cost(1 + price));
    }
    (text, steps)
}

/// Instructions in a turn of [`turns`]: a thousand times `table.size` and `drop`, which take no time to speak of.
const TURN: u64 = 1_000 * (100 + 1);

fn turns() -> String {
    "(drop (table.size 0)) ".repeat(1_000)
}

/// A module whose `canister_init` costs 3 and, for each turn, [`TURN`] and 7 for the loop.
fn long_init(turn_count: u64) -> String {
    format!(
        "(module (table 1 funcref) (func (export \"canister_init\") (local $n i64) (local.set $n (i64.const {turn_count}))
           (loop $turn {} (br_if $turn (i32.wrap_i64 (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))))",
        turns()
    )
}

/// How many turns an install of 300·10⁹ instructions has room for, compiling included.
fn turns_of_an_install() -> u64 {
    let wasm = wat::parse_str(long_init(1 << 20)).expect("a module");
    let module =
        in_process::compile::instrument(&execution::Limits::application(), &wasm).expect("a valid module");
    // `local.get`, `i64.const`, `i64.sub`, `local.tee`, `i32.wrap_i64` and `br_if`, which is 2.
    (300_000_000_000 - module.interface.compile_instructions - 3) / (TURN + 7)
}

pub(super) fn checks() -> Vec<Check> {
    let endless = format!("(update \"go\" (loop $turn {} (br $turn)))", turns());
    let [before, after] = spent(0, 5_000_000 + 40_000_000_000 + 1_200_000 + 2_000 * 10);
    let most = turns_of_an_install();
    let long = |turns: u64| install_code(0, Install::Install, Code::Wat(long_init(turns)), b"");
    let (text, steps) = table(
        INSTRUCTIONS,
        "(memory 1) (global $g (mut i32) (i32.const 0)) (func $empty) (table 1 funcref) (elem (i32.const 0) $empty) (data $d \"abc\")",
    );
    let instructions = check(
        "MT01",
        [""],
        std::iter::once(
            super::check::install_code(
                0,
                super::management::Install::Install,
                Code::Wat(format!("(module {text})")),
                b"",
            )
            .reply(b"DIDL\0\0"),
        )
        .chain(steps),
    );
    let (text, steps) = table(FUNCTIONS, "");
    let wide = "(module (memory i64 1)
        (func (export \"canister_update load\") (drop (i32.load (i64.const 0))))
        (func (export \"canister_update store\") (i32.store (i64.const 0) (i32.const 1))))";
    vec![
        instructions,
        check("MT04 MT05", [&text], steps),
        check("MT06", [""], [
            super::check::install_code(0, super::management::Install::Install, Code::Wat(wide.to_owned()), b"").reply(b"DIDL\0\0"),
            update("load").error("IC0506", ""), cost(1 + 1 + 2 + 1),
            update("store").error("IC0506", ""), cost(1 + 2 + 2 + 4_000),
        ]),
        one("MT02", "(update \"go\" (loop $l (br $l)))", update("go").error("IC0522", "Canister exceeded the limit of 1000000 instructions for single message execution."))
            .limits(|limits| limits.update_instructions = 1_000_000),
        check("MT03", ["(update \"fill\" (memory.fill (i32.const 0) (i32.const 1) (i32.const 5000))) (update \"copy\" (memory.copy (i32.const 0) (i32.const 8192) (i32.const 100)))"], [
            update("fill").error("IC0506", ""), cost(1 + 3 + 100 + 5_000 + 2 * 1_000),
            update("copy").error("IC0506", ""), cost(1 + 3 + 100 + 100 + 1_000),
        ]),
        check("MT07", ["(elem (i32.const 2) $back)
            (update \"go\" (call $own (lit \"x\")) (call $new (i32.const 0x8000) (i32.const 10) (lit \"x\") (i32.const 2) (i32.const 0) (i32.const 2) (i32.const 0)) (memory.fill (i32.const 0) (i32.const 0) (i32.const 100000)) (call $sent))
            (update \"x\" (call $reply))
            (func $back (param i32) (call $put32 (i64.lt_u (call $counter (i32.const 0)) (i64.const 2000))) (call $put32 (i64.gt_u (call $counter (i32.const 1)) (i64.const 100000))) (call $reply))"],
            [update("go").numbers(&[1, 1])]),
        check("MT08", ["(update \"k\" (local $n i32) (local.set $n (i32.const 8)) (loop $l (i32.store8 (i32.shl (local.get $n) (i32.const 12)) (i32.const 1)) (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))"],
            // Eight stores at pages 8 to 1: what a turn of the loop costs, and 1,000 for each page.
            [update("k").error("IC0506", ""), cost(1 + 2 + 8 * (5 + 4 + 2) + 8 * 1_000)]),
        check("MT09", ["(update \"w\" (drop (call $grow (i64.const 1))) (call $write (i64.const 0) (i64.const 0) (i64.const 1)) (call $write (i64.const 1) (i64.const 0) (i64.const 1)))"],
            [update("w").error("IC0506", ""), cost(1 + 107 + 2 * (3 + 5 + 20 + 1) + 1_000)]),
        check("MT02 the whole limit", [&endless], [
            before,
            // Twenty slices, one a round.
            update("go").waits(),
            super::check::after(1).times(16),
            again(0).error("IC0522", "Canister exceeded the limit of 40000000000 instructions for single message execution."),
            cost(40_000_000_000),
            after,
        ]),
        check("MT10 the most", [""], [
            long(most).waits(), super::check::after(1).times(146), again(0).reply(b"DIDL\0\0"), cost(3 + most * (TURN + 7)),
        ]),
        check("MT10 a turn more", [""], [
            long(most + 1).waits(), super::check::after(1).times(146), again(0).error("IC0522", "instructions for single message execution"),
        ]),
        check("MT10", [""], [
            super::check::install(0, "(on \"init\" (loop $l (br $l)))").error("IC0522", "instructions for single message execution"),
        ]).limits(|limits| limits.install_instructions = 100_000_000),
    ]
}
