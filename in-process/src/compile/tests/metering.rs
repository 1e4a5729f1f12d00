//! The counter (`canister-execution.md` section 3).

use wasmtime::Trap;

use super::{Run, instrumented};

const PRELUDE: &str = "(memory 1) (table 2 funcref) (elem (i32.const 0) $empty) (elem declare func $empty)
    (global $g (mut i32) (i32.const 0)) (data $d \"abcd\") (type $none (func)) (func $empty)";

/// Instructions used by a method with this body.
fn cost(body: &str) -> i64 {
    let text = format!("(module {PRELUDE} (func (export \"canister_update x\") (local i32 i64) {body}))");
    Run::new(&text).call("x").unwrap_or_else(|error| panic!("{body}: {error:#}"))
}

/// What `instruction` costs beside operands that cost 1 each and a `drop` for each result.
pub(super) fn assert_costs(expected: i64, operands: &[&str], instruction: &str, results: usize) {
    let body = format!("{} {instruction} {}", operands.join(" "), "drop ".repeat(results));
    let others = 1 + i64::try_from(operands.len() + results).expect("few operands");
    assert_eq!(cost(&body) - others, expected, "{instruction}");
}

pub(super) const I32: &str = "i32.const 7";
pub(super) const I64: &str = "i64.const 7";
pub(super) const F32: &str = "f32.const 7";
pub(super) const F64: &str = "f64.const 7";
pub(super) const V128: &str = "v128.const i64x2 7 9";

#[test]
fn an_empty_function_costs_one() {
    assert_eq!(cost(""), 1);
}

#[test]
fn integer_instructions_cost_as_the_table_says() {
    for ty in ["i32", "i64"] {
        let operand = format!("{ty}.const 7");
        let two = [operand.as_str(), operand.as_str()];
        for name in ["add", "sub", "mul", "and", "or", "xor", "shl", "shr_s", "shr_u", "rotl", "rotr"] {
            assert_costs(1, &two, &format!("{ty}.{name}"), 1);
        }
        for name in ["eq", "ne", "lt_s", "lt_u", "gt_s", "gt_u", "le_s", "le_u", "ge_s", "ge_u"] {
            assert_costs(1, &two, &format!("{ty}.{name}"), 1);
        }
        for name in ["div_s", "div_u", "rem_s", "rem_u"] {
            assert_costs(10, &two, &format!("{ty}.{name}"), 1);
        }
        for name in ["clz", "ctz", "popcnt", "eqz", "extend8_s", "extend16_s"] {
            assert_costs(1, &[&operand], &format!("{ty}.{name}"), 1);
        }
    }
    assert_costs(1, &[I64], "i32.wrap_i64", 1);
    assert_costs(1, &[I32], "i64.extend_i32_s", 1);
    assert_costs(1, &[I32], "i64.extend_i32_u", 1);
    assert_costs(1, &[F64], "i64.reinterpret_f64", 1);
}

#[test]
fn float_instructions_cost_as_the_table_says() {
    for (ty, operand, div, sqrt, copysign) in [("f32", F32, 3, 5, 2), ("f64", F64, 5, 8, 3)] {
        let two = [operand, operand];
        for (name, expected) in [("add", 2), ("sub", 2), ("mul", 2), ("div", div), ("copysign", copysign)] {
            assert_costs(expected, &two, &format!("{ty}.{name}"), 1);
        }
        for name in ["eq", "ne", "lt", "gt", "le", "ge"] {
            assert_costs(3, &two, &format!("{ty}.{name}"), 1);
        }
        for name in ["min", "max"] {
            assert_costs(18, &two, &format!("{ty}.{name}"), 1);
        }
        for (name, expected) in
            [("abs", 1), ("neg", 1), ("ceil", 2), ("floor", 2), ("trunc", 2), ("nearest", 2), ("sqrt", sqrt)]
        {
            assert_costs(expected, &[operand], &format!("{ty}.{name}"), 1);
        }
        for (from, source) in [("i32", I32), ("i64", I64)] {
            assert_costs(3, &[source], &format!("{ty}.convert_{from}_s"), 1);
            assert_costs(16, &[source], &format!("{ty}.convert_{from}_u"), 1);
            for sign in ["s", "u"] {
                assert_costs(20, &[operand], &format!("{from}.trunc_{ty}_{sign}"), 1);
                assert_costs(20, &[operand], &format!("{from}.trunc_sat_{ty}_{sign}"), 1);
            }
        }
    }
    assert_costs(1, &[F32], "f64.promote_f32", 1);
    assert_costs(1, &[F64], "f32.demote_f64", 1);
}

#[test]
fn variables_memory_and_tables_cost_as_the_table_says() {
    assert_costs(1, &[], "local.get 0", 1);
    assert_costs(1, &[I32], "local.set 0", 0);
    assert_costs(1, &[I32], "local.tee 0", 1);
    assert_costs(2, &[], "global.get $g", 1);
    assert_costs(2, &[I32], "global.set $g", 0);
    assert_costs(1, &[I32, I32, I32], "select", 1);
    assert_costs(1, &[], "nop", 0);
    assert_costs(1, &[I32], "i32.load", 1);
    assert_costs(1, &[I32], "i64.load8_u", 1);
    assert_costs(1, &[I32, I32], "i32.store", 0);
    assert_costs(1, &[I32, F64], "f64.store", 0);
    assert_costs(20, &[], "memory.size", 1);
    assert_costs(300, &[I32], "memory.grow", 1);
    assert_costs(100, &[], "table.size", 1);
    assert_costs(5, &["i32.const 0"], "table.get 0", 1);
    assert_costs(1, &[], "ref.null func", 1);
    assert_costs(130, &[], "ref.func $empty", 1);
    assert_costs(5, &["ref.null func"], "ref.is_null", 1);
    assert_costs(300, &[], "data.drop $d", 0);
    assert_costs(300, &[], "elem.drop 1", 0);
}

#[test]
fn a_64_bit_memory_makes_loads_and_stores_cost_two() {
    let cost = |body: &str| {
        let text = format!("(module (memory i64 1) (func (export \"canister_update x\") {body}))");
        Run::new(&text).call("x").expect("it returns")
    };
    assert_eq!(cost("i64.const 8 i32.load drop"), 1 + 1 + 2 + 1);
    assert_eq!(cost("i64.const 8 i64.const 8 i64.store"), 1 + 2 + 2);
    assert_eq!(cost("i64.const 8 v128.load drop"), 1 + 1 + 2 + 1);
    assert_eq!(cost("i64.const 8 i32.const 1 i64.const 70 memory.fill"), 1 + 3 + 100 + 70);
}

#[test]
fn calls_cost_their_own_price_and_one_for_the_callee() {
    assert_eq!(cost("call $empty"), 1 + 5 + 1);
    assert_eq!(cost("i32.const 0 call_indirect (type $none)"), 1 + 1 + 10 + 1);
    assert_eq!(cost("return_call $empty"), 1 + 3 + 1);
    assert_eq!(cost("i32.const 0 return_call_indirect (type $none)"), 1 + 1 + 60 + 1);
    assert_eq!(cost("return"), 1 + 1);
}

#[test]
fn bulk_operations_pay_their_size_operand() {
    for size in [0, 1, 4_000] {
        let operands = |second: &str| format!("i32.const 0 i32.const {second} i32.const {size}");
        assert_eq!(cost(&format!("{} memory.fill", operands("7"))), 1 + 3 + 100 + size);
        assert_eq!(cost(&format!("{} memory.copy", operands("9"))), 1 + 3 + 100 + size);
    }
    assert_eq!(cost("i32.const 0 i32.const 1 i32.const 3 memory.init $d"), 1 + 3 + 100 + 3);
}

#[test]
fn only_the_blocks_that_are_entered_are_paid() {
    let branch = |condition: i32| {
        format!("i32.const {condition} if i32.const 1 drop else i32.const 1 drop i32.const 1 drop end")
    };
    assert_eq!(cost(&branch(1)), 1 + 1 + 2 + 2);
    assert_eq!(cost(&branch(0)), 1 + 1 + 2 + 4);
    let skip = |condition: i32| format!("block i32.const {condition} br_if 0 i32.const 1 drop end nop");
    assert_eq!(cost(&skip(1)), 1 + 1 + 2 + 1);
    assert_eq!(cost(&skip(0)), 1 + 1 + 2 + 2 + 1);
    let case = |index: i32| {
        format!("block block block i32.const {index} br_table 0 1 2 end nop br 1 end nop nop br 0 end")
    };
    assert_eq!(cost(&case(0)), 1 + 3 + 1 + 2);
    assert_eq!(cost(&case(1)), 1 + 3 + 2 + 2);
    assert_eq!(cost(&case(9)), 1 + 3);
}

#[test]
fn a_plain_block_belongs_to_the_block_around_it() {
    // Entering pays for all up to the first branch, the `block` instruction itself costs nothing.
    assert_eq!(cost("nop block nop end nop"), 1 + 3);
}

#[test]
fn each_turn_of_a_loop_is_paid() {
    let turns = 10;
    let body = format!(
        "i32.const {turns} local.set 0
         loop local.get 0 i32.const 1 i32.sub local.tee 0 br_if 0 end"
    );
    assert_eq!(cost(&body), 1 + 2 + turns * (4 + 2));
}

#[test]
fn an_endless_loop_runs_out_of_instructions() {
    let mut run = Run::new(r#"(module (func (export "canister_update x") loop br 0 end))"#);
    let error = run.call("x").expect_err("it never returns");
    assert_eq!(error.downcast_ref(), Some(&Trap::OutOfFuel));
    assert_eq!(run.left(), -1);
}

#[test]
fn endless_recursion_runs_out_of_instructions_at_function_entry() {
    let mut run =
        Run::new(r#"(module (func $f return_call $f) (func (export "canister_update x") call $f))"#);
    let error = run.call("x").expect_err("it never returns");
    assert_eq!(error.downcast_ref(), Some(&Trap::OutOfFuel));
}

#[test]
fn an_oversized_operand_runs_out_of_instructions_instead_of_trapping_out_of_bounds() {
    for (memory, size) in
        [("", "i32.const -1"), ("i64", "i64.const -1"), ("i64", "i64.const 0x4000000000000000")]
    {
        let ty = if memory.is_empty() { "i32" } else { memory };
        for operation in [
            format!("{ty}.const 0 i32.const 0 {size} memory.fill"),
            format!("{ty}.const 0 {ty}.const 0 {size} memory.copy"),
        ] {
            let mut run = Run::new(&format!(
                "(module (memory {memory} 1) (func (export \"canister_update x\") {operation}))"
            ));
            let error = run.call("x").expect_err("it must not run");
            assert_eq!(error.downcast_ref(), Some(&Trap::OutOfFuel), "{operation}");
        }
    }
}

/// Instructions that are gone when a method with this body has trapped.
fn cost_of_trap(body: &str) -> i64 {
    let text = format!("(module {PRELUDE} (func (export \"canister_update x\") (local i32 i64) {body}))");
    let mut run = Run::new(&text);
    run.call("x").expect_err(body);
    super::BUDGET - run.left()
}

#[test]
fn whatever_traps_has_paid_the_blocks_entered_and_no_more() {
    let mut traps = vec![
        ("unreachable".to_owned(), 1),
        ("i32.const 9 table.get 0 drop".into(), 1 + 5 + 1),
        ("i32.const 9 call_indirect (type $none)".into(), 1 + 10),
        ("i32.const -1 i32.const 0 i32.const 1 memory.fill".into(), 3 + 100 + 1),
        ("i32.const -1 i32.const 0 i32.const 1 memory.copy".into(), 3 + 100 + 1),
        ("i32.const 0 i32.const 4 i32.const 1 memory.init $d".into(), 3 + 100 + 1),
        ("i32.const -1 v128.load drop".into(), 1 + 1 + 1),
        ("i32.const -1 v128.const i64x2 0 0 v128.store8_lane 0".into(), 2 + 1),
    ];
    for ty in ["i32", "i64"] {
        for sign in ["s", "u"] {
            for operation in ["div", "rem"] {
                traps.push((format!("{ty}.const 1 {ty}.const 0 {ty}.{operation}_{sign} drop"), 2 + 10 + 1));
            }
            for float in ["f32", "f64"] {
                traps.push((format!("{float}.const nan {ty}.trunc_{float}_{sign} drop"), 1 + 20 + 1));
            }
        }
    }
    for ty in ["i32", "i64", "f32", "f64"] {
        traps.push((format!("i32.const -1 {ty}.load drop"), 1 + 1 + 1));
        traps.push((format!("i32.const -1 {ty}.const 0 {ty}.store"), 2 + 1));
    }
    for (trap, price) in traps {
        // In a block of its own, which the last instruction belongs to; the one behind that is not entered.
        let body = format!("local.get 0 br_if 0 {trap} nop block local.get 0 br_if 0 nop end");
        let rest = if trap == "unreachable" { 0 } else { 1 + 1 + 2 };
        assert_eq!(cost_of_trap(&body), 1 + 1 + 2 + price + rest, "{trap}");
    }
}

#[test]
fn a_count_is_right_whichever_way_led_there() {
    // A call changes the counter behind the back of one way, the other has changed it alone.
    let arms = |condition: i32| {
        format!(
            "i32.const {condition} if call $empty else nop nop end nop i32.const 0 i32.load drop unreachable"
        )
    };
    assert_eq!(cost_of_trap(&arms(1)), 1 + 1 + 2 + (5 + 1) + 5);
    assert_eq!(cost_of_trap(&arms(0)), 1 + 1 + 2 + 2 + 5);
    let only_then = |condition: i32| format!("i32.const {condition} if call $empty end unreachable");
    assert_eq!(cost_of_trap(&only_then(1)), 1 + 1 + 2 + (5 + 1) + 1);
    assert_eq!(cost_of_trap(&only_then(0)), 1 + 1 + 2 + 1);
    let block = |condition: i32| {
        format!("block call $empty i32.const {condition} br_if 0 nop call $empty nop end unreachable")
    };
    assert_eq!(cost_of_trap(&block(1)), 1 + (5 + 1) + 1 + 2 + 1);
    assert_eq!(cost_of_trap(&block(0)), 1 + (5 + 1) + 1 + 2 + 1 + (5 + 1) + 1 + 1);
    // No turn of this loop but the last shows the counter to anybody.
    let turns = "i32.const 10 local.set 0 loop local.get 0 i32.const 1 i32.sub local.tee 0 br_if 0 end";
    assert_eq!(cost_of_trap(&format!("{turns} unreachable")), 1 + 2 + 10 * (4 + 2) + 1);
    let calling = "i32.const 10 local.set 0
        loop local.get 0 i32.const 1 i32.sub local.tee 0 if call $empty br 1 end end unreachable";
    assert_eq!(cost_of_trap(calling), 1 + 2 + 10 * (4 + 2) + 9 * (5 + 1 + 2) + 1);
}

#[test]
fn a_caller_finds_the_count_whichever_way_the_callee_returned() {
    let returned = |body: &str| {
        let text = format!(
            "(module {PRELUDE} (func $f (param i32) (local i32) {body})
               (func (export \"canister_update x\") i32.const 1 call $f unreachable))"
        );
        let mut run = Run::new(&text);
        run.call("x").expect_err(body);
        super::BUDGET - run.left() - (1 + 1 + 5 + 1) - 1
    };
    assert_eq!(returned("nop"), 1);
    assert_eq!(returned("nop return"), 1 + 1);
    assert_eq!(returned("local.get 0 br_if 0 nop nop nop"), 1 + 2);
    assert_eq!(returned("block loop local.get 0 br_if 2 br 0 end end nop"), 1 + 2);
    assert_eq!(returned("block local.get 0 br_table 0 1 0 end nop"), 1 + 2);
    assert_eq!(returned("block local.get 0 br_table 1 0 1 end nop nop"), 1 + 2 + 2);
    assert_eq!(returned("local.get 0 if nop return else nop nop end nop"), 1 + 2 + 1 + 1);
    assert_eq!(returned("local.get 0 if call $empty else nop end"), 1 + 2 + 5 + 1);
    assert_eq!(returned("local.get 0 i32.eqz if call $empty else nop end"), 1 + 1 + 2 + 1);
    assert_eq!(returned("nop return_call $empty"), 1 + 3 + 1);
    assert_eq!(returned("nop i32.const 0 return_call_indirect (type $none)"), 1 + 1 + 60 + 1);
}

#[test]
fn straight_code_may_overshoot_but_a_loop_header_stops_it() {
    let mut run = Run::new(
        r#"(module (global $g (mut i32) (i32.const 0))
             (func (export "canister_update x")
               block nop nop end
               global.get $g br_if 0
               nop nop nop
               loop end))"#,
    );
    run.set_left(8);
    let error = run.call("x").expect_err("it runs out");
    assert_eq!(error.downcast_ref(), Some(&Trap::OutOfFuel));
    assert_eq!(run.left(), 8 - (1 + 2 + 2 + 2 + 3));
}

#[test]
fn compiling_is_charged_by_the_instrumented_module() {
    let empty = instrumented("(module)").interface.compile_instructions;
    assert_eq!(empty, 6_000 * 2, "the counter alone");
    // Entry: subtract (4), test (6); the body's nop and end.
    let function = instrumented("(module (func nop))").interface.compile_instructions;
    assert_eq!(function, 6_000 * (2 + 4 + 6 + 2));
    let global = instrumented("(module (global i32 (i32.const 0)))").interface.compile_instructions;
    assert_eq!(global, 6_000 * (2 + 2));
}
