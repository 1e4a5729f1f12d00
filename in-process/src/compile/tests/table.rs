//! The rest of the tables: each memory access with both widths, each vector instruction (`canister-execution.md`
//! section 3.2), and what each instruction weighs (1.5).

use wasmparser::{Parser, Payload};

use super::super::cost;
use super::metering::{F32, F64, I32, I64, V128, assert_costs};
use super::{Run, wat};

const LOADS: &[&str] = &[
    "i32.load",
    "i64.load",
    "f32.load",
    "f64.load",
    "i32.load8_s",
    "i32.load8_u",
    "i32.load16_s",
    "i32.load16_u",
    "i64.load8_s",
    "i64.load8_u",
    "i64.load16_s",
    "i64.load16_u",
    "i64.load32_s",
    "i64.load32_u",
    "v128.load",
    "v128.load8x8_s",
    "v128.load8x8_u",
    "v128.load16x4_s",
    "v128.load16x4_u",
    "v128.load32x2_s",
    "v128.load32x2_u",
    "v128.load8_splat",
    "v128.load16_splat",
    "v128.load32_splat",
    "v128.load64_splat",
    "v128.load32_zero",
    "v128.load64_zero",
];

const STORES: &[(&str, &str)] = &[
    ("i32.store", I32),
    ("i64.store", I64),
    ("f32.store", F32),
    ("f64.store", F64),
    ("i32.store8", I32),
    ("i32.store16", I32),
    ("i64.store8", I64),
    ("i64.store16", I64),
    ("i64.store32", I64),
    ("v128.store", V128),
    ("v128.store8_lane 1", V128),
    ("v128.store16_lane 1", V128),
    ("v128.store32_lane 1", V128),
    ("v128.store64_lane 1", V128),
];

const LANE_LOADS: &[&str] =
    &["v128.load8_lane 1", "v128.load16_lane 1", "v128.load32_lane 1", "v128.load64_lane 1"];

#[test]
fn each_load_and_store_costs_one_with_a_32_bit_heap_and_two_with_a_64_bit_heap() {
    for (pointer, price) in [("i32", 1), ("i64", 2)] {
        let address = format!("{pointer}.const 8");
        let assert_access = |operand: &str, access: &str, results: usize| {
            let body = format!("{address} {operand} {access} {}", "drop ".repeat(results));
            let text = format!("(module (memory {pointer} 1) (func (export \"canister_update x\") {body}))");
            let cost = Run::new(&text).call("x").unwrap_or_else(|error| panic!("{body}: {error:#}"));
            let operands = 1 + i64::from(!operand.is_empty());
            let others = 1 + operands + i64::try_from(results).expect("one at most");
            assert_eq!(cost - others, price, "{access}, {pointer}");
        };
        LOADS.iter().for_each(|load| assert_access("", load, 1));
        STORES.iter().for_each(|(store, value)| assert_access(value, store, 0));
        LANE_LOADS.iter().for_each(|load| assert_access(V128, load, 1));
    }
}

#[test]
fn what_isnt_an_access_costs_the_same_with_a_64_bit_heap() {
    let cost = |body: &str| {
        let text =
            format!("(module (memory i64 1) (data $d \"abc\") (func (export \"canister_update x\") {body}))");
        Run::new(&text).call("x").expect("it returns")
    };
    assert_eq!(cost("memory.size drop"), 1 + 20 + 1);
    assert_eq!(cost("i64.const 0 memory.grow drop"), 1 + 1 + 300 + 1);
    assert_eq!(cost("i64.const 0 i64.const 64 i64.const 9 memory.copy"), 1 + 3 + 100 + 9);
    assert_eq!(cost("i64.const 0 i32.const 0 i32.const 3 memory.init $d"), 1 + 3 + 100 + 3);
    assert_eq!(cost("data.drop $d"), 1 + 300);
}

/// Vector instructions that don't cost 1.
const VECTOR_COSTS: &[(i64, &[&str])] = &[
    (
        2,
        &[
            "i8x16.lt_u",
            "i8x16.gt_u",
            "i16x8.lt_u",
            "i16x8.gt_u",
            "i32x4.lt_u",
            "i32x4.gt_u",
            "i8x16.shr_u",
            "i16x8.shl",
            "i16x8.shr_s",
            "i16x8.shr_u",
            "i32x4.shl",
            "i32x4.shr_s",
            "i32x4.shr_u",
            "i64x2.shl",
            "i64x2.shr_u",
            "i16x8.extadd_pairwise_i8x16_u",
            "i16x8.extmul_high_i8x16_s",
            "i16x8.extmul_high_i8x16_u",
            "i32x4.mul",
            "i32x4.extmul_low_i16x8_s",
            "i32x4.extmul_low_i16x8_u",
            "i32x4.extmul_high_i16x8_s",
            "i32x4.extmul_high_i16x8_u",
            "i32x4.trunc_sat_f32x4_s",
            "i32x4.trunc_sat_f64x2_s_zero",
            "f32x4.ceil",
            "f32x4.floor",
            "f32x4.trunc",
            "f32x4.nearest",
            "f32x4.abs",
            "f32x4.neg",
            "f32x4.add",
            "f32x4.sub",
            "f32x4.mul",
            "f64x2.ceil",
            "f64x2.floor",
            "f64x2.trunc",
            "f64x2.nearest",
            "f64x2.abs",
            "f64x2.neg",
            "f64x2.add",
            "f64x2.sub",
            "f64x2.mul",
        ],
    ),
    (
        3,
        &[
            "i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
            "i8x16.popcnt",
            "i8x16.shl",
            "i8x16.shr_s",
            "i64x2.shr_s",
            "i32x4.extadd_pairwise_i16x8_u",
            "i32x4.trunc_sat_f64x2_u_zero",
        ],
    ),
    (
        4,
        &[
            "i64x2.mul",
            "f32x4.min",
            "f32x4.max",
            "f64x2.min",
            "i32x4.trunc_sat_f32x4_u",
            "f32x4.convert_i32x4_u",
        ],
    ),
    (5, &["f32x4.sqrt", "f64x2.max"]),
    (10, &["f32x4.div"]),
    (12, &["f64x2.div"]),
    (14, &["f64x2.sqrt"]),
];

/// Of two vectors.
const BINARY: &str = "i8x16.shuffle_0_1_2_3_4_5_6_7_8_9_10_11_12_13_14_15 i8x16.swizzle
    i8x16.eq i8x16.ne i8x16.lt_s i8x16.lt_u i8x16.gt_s i8x16.gt_u i8x16.le_s i8x16.le_u i8x16.ge_s i8x16.ge_u
    i16x8.eq i16x8.ne i16x8.lt_s i16x8.lt_u i16x8.gt_s i16x8.gt_u i16x8.le_s i16x8.le_u i16x8.ge_s i16x8.ge_u
    i32x4.eq i32x4.ne i32x4.lt_s i32x4.lt_u i32x4.gt_s i32x4.gt_u i32x4.le_s i32x4.le_u i32x4.ge_s i32x4.ge_u
    i64x2.eq i64x2.ne i64x2.lt_s i64x2.gt_s i64x2.le_s i64x2.ge_s
    f32x4.eq f32x4.ne f32x4.lt f32x4.gt f32x4.le f32x4.ge f64x2.eq f64x2.ne f64x2.lt f64x2.gt f64x2.le f64x2.ge
    v128.and v128.andnot v128.or v128.xor i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u i16x8.narrow_i32x4_s
    i16x8.narrow_i32x4_u
    i8x16.add i8x16.add_sat_s i8x16.add_sat_u i8x16.sub i8x16.sub_sat_s i8x16.sub_sat_u i8x16.min_s i8x16.min_u
    i8x16.max_s i8x16.max_u i8x16.avgr_u
    i16x8.add i16x8.add_sat_s i16x8.add_sat_u i16x8.sub i16x8.sub_sat_s i16x8.sub_sat_u i16x8.mul i16x8.min_s
    i16x8.min_u i16x8.max_s i16x8.max_u i16x8.avgr_u i16x8.q15mulr_sat_s i16x8.extmul_low_i8x16_s
    i16x8.extmul_high_i8x16_s i16x8.extmul_low_i8x16_u i16x8.extmul_high_i8x16_u
    i32x4.add i32x4.sub i32x4.mul i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u i32x4.dot_i16x8_s
    i32x4.extmul_low_i16x8_s i32x4.extmul_high_i16x8_s i32x4.extmul_low_i16x8_u i32x4.extmul_high_i16x8_u
    i64x2.add i64x2.sub i64x2.mul i64x2.extmul_low_i32x4_s i64x2.extmul_high_i32x4_s i64x2.extmul_low_i32x4_u
    i64x2.extmul_high_i32x4_u
    f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max f32x4.pmin f32x4.pmax
    f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin f64x2.pmax";

/// Of one vector, to a vector or a number.
const UNARY: &str = "v128.not v128.any_true
    i8x16.abs i8x16.neg i8x16.popcnt i8x16.all_true i8x16.bitmask i16x8.abs i16x8.neg i16x8.all_true i16x8.bitmask
    i32x4.abs i32x4.neg i32x4.all_true i32x4.bitmask i64x2.abs i64x2.neg i64x2.all_true i64x2.bitmask
    i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u i32x4.extadd_pairwise_i16x8_s
    i32x4.extadd_pairwise_i16x8_u i16x8.extend_low_i8x16_s i16x8.extend_high_i8x16_s i16x8.extend_low_i8x16_u
    i16x8.extend_high_i8x16_u i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s i32x4.extend_low_i16x8_u
    i32x4.extend_high_i16x8_u i64x2.extend_low_i32x4_s i64x2.extend_high_i32x4_s i64x2.extend_low_i32x4_u
    i64x2.extend_high_i32x4_u
    f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest f32x4.abs f32x4.neg f32x4.sqrt f64x2.ceil f64x2.floor
    f64x2.trunc f64x2.nearest f64x2.abs f64x2.neg f64x2.sqrt i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u
    i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero f32x4.convert_i32x4_s f32x4.convert_i32x4_u
    f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u f32x4.demote_f64x2_zero f64x2.promote_low_f32x4
    i8x16.extract_lane_s_1 i8x16.extract_lane_u_1 i16x8.extract_lane_s_1 i16x8.extract_lane_u_1 i32x4.extract_lane_1
    i64x2.extract_lane_1 f32x4.extract_lane_1 f64x2.extract_lane_1";

/// Of a vector and an `i32`.
const SHIFTS: &str =
    "i8x16.shl i8x16.shr_s i8x16.shr_u i16x8.shl i16x8.shr_s i16x8.shr_u i32x4.shl i32x4.shr_s
    i32x4.shr_u i64x2.shl i64x2.shr_s i64x2.shr_u";

/// Instructions with their lanes; a lane follows a `_` in the lists.
fn instructions(list: &str) -> impl Iterator<Item = String> {
    list.split_whitespace().map(|name| {
        let words: Vec<&str> = name.split('_').collect();
        let names = words.iter().take_while(|word| word.parse::<u8>().is_err()).count();
        let lanes = words[names..].iter().map(|lane| format!(" {lane}"));
        words[..names].join("_") + &lanes.collect::<String>()
    })
}

#[test]
fn each_vector_instruction_costs_as_the_table_says() {
    let price = |name: &str| {
        VECTOR_COSTS.iter().find(|(_, names)| names.contains(&name)).map_or(1, |(price, _)| *price)
    };
    let mut counted = 0;
    let mut special = 0;
    let mut assert_all = |list: &str, operands: &[&str]| {
        for name in instructions(list) {
            assert_costs(price(&name), operands, &name, 1);
            counted += 1;
            special += usize::from(price(&name) != 1);
        }
    };
    assert_all(BINARY, &[V128, V128]);
    assert_all(UNARY, &[V128]);
    assert_all(SHIFTS, &[V128, I32]);
    assert_all("v128.bitselect", &[V128, V128, V128]);
    for (shape, value) in
        [("i8x16", I32), ("i16x8", I32), ("i32x4", I32), ("i64x2", I64), ("f32x4", F32), ("f64x2", F64)]
    {
        assert_all(&format!("{shape}.splat"), &[value]);
        assert_all(&format!("{shape}.replace_lane_1"), &[V128, value]);
    }
    assert_costs(1, &[], V128, 1);
    // With that and the 22 accesses above, all of the proposal.
    assert_eq!(counted + 1 + 22, 236);
    assert_eq!(special, VECTOR_COSTS.iter().map(|(_, names)| names.len()).sum::<usize>());
}

/// Weight, and codes of one instruction that weighs so.
const WEIGHTS: &[(u64, &[&str])] = &[
    (
        50,
        &[
            "block end",
            "loop end",
            "i32.const 1 if end",
            "br 0",
            "i32.const 1 br_if 0",
            "i32.const 1 br_table 0 0",
            "call 1",
            "i32.const 0 call_indirect",
            "i32.const 0 memory.grow drop",
        ],
    ),
    (14, &["i32.const 0 table.get 0 drop"]),
    (8, &["ref.func 0 drop"]),
    (6, &["ref.null func ref.is_null drop"]),
    (
        5,
        &[
            "f32.const 1 i32.trunc_f32_s drop",
            "f64.const 1 i64.trunc_f64_u drop",
            "i32.const 1 f32.convert_i32_s drop",
            "i64.const 1 f64.convert_i64_u drop",
            "f64.const 1 f32.demote_f64 drop",
            "i32.const 1 i64.extend_i32_s drop",
            "i32.const 1 i64.extend_i32_u drop",
        ],
    ),
    (
        4,
        &[
            "f32.const 1 f32.neg drop",
            "f64.const 1 f64.abs drop",
            "i32.const 0 i32.const 0 i32.const 0 memory.copy",
        ],
    ),
    (
        3,
        &[
            "i32.const 0 i32.load drop",
            "i32.const 0 i64.load32_u drop",
            "i32.const 0 f64.load drop",
            "i32.const 1 i32.const 1 i32.div_s drop",
            "i64.const 1 i64.const 1 i64.rem_u drop",
            "f32.const 1 i32.trunc_sat_f32_s drop",
            "f64.const 1 f64.const 1 f64.copysign drop",
            "f64.const 1 f64.const 1 f64.eq drop",
            "i32.const 0 i32.const 0 i32.const 0 memory.fill",
        ],
    ),
    (
        2,
        &[
            "i32.const 0 i32.const 0 i32.store",
            "i32.const 0 i64.const 0 i64.store8",
            "i32.const 0 i32.const 0 i32.lt_u drop",
            "f32.const 0 f32.const 0 f32.eq drop",
            "i64.const 0 i64.eqz drop",
            "f64.const 0 f64.const 0 f64.ne drop",
            "global.get 0 drop",
            "i32.const 1 i32.popcnt drop",
            "i32.const 1 i32.const 1 i32.const 1 select drop",
            "memory.size drop",
            "f32.const 1 f32.ceil drop",
            "f64.const 1 f64.floor drop",
            "f32.const 1 f32.sqrt drop",
            "f64.const 1 f64.trunc drop",
            "f32.const 1 i32.reinterpret_f32 drop",
            "i64.const 1 i32.wrap_i64 drop",
            "i32.const 1 i32.extend8_s drop",
            "i64.const 1 i64.extend32_s drop",
            "f32.const 1 f64.promote_f32 drop",
        ],
    ),
    (
        1,
        &[
            "nop",
            "local.get 0 drop",
            "i32.const 1 i32.const 1 i32.add drop",
            "i64.const 1 i64.const 1 i64.mul drop",
            "i32.const 1 global.set 0",
            "i32.const 1 i32.clz drop",
            "f32.const 1 f32.const 1 f32.add drop",
            "f64.const 1 f64.const 1 f64.div drop",
            "f64.const 1 f64.const 1 f64.min drop",
            "f32.const 1 f32.nearest drop",
            "data.drop 0",
            "ref.null func drop",
        ],
    ),
];

#[test]
fn each_instruction_weighs_as_the_table_says() {
    for (weight, codes) in WEIGHTS {
        for code in *codes {
            let text = format!(
                "(module (memory 1) (table 1 funcref) (global (mut i32) (i32.const 0)) (elem declare func 0)
                   (data \"\") (func) (func (local i32) {code}))"
            );
            let wasm = wat(&text);
            let body = Parser::new(0)
                .parse_all(&wasm)
                .filter_map(|payload| match payload {
                    Ok(Payload::CodeSectionEntry(body)) => Some(body),
                    _ => None,
                })
                .nth(1)
                .expect("the second function");
            let mut operators = body.get_operators_reader().expect("a valid body");
            let weights: Vec<u64> = std::iter::from_fn(|| {
                (!operators.eof()).then(|| cost::complexity(&operators.read().expect("a valid body")))
            })
            .collect();
            // Constants, `drop` and `end` weigh 1; so does all but one instruction of each code.
            let others = weights.len() as u64 - 1;
            assert_eq!(weights.iter().sum::<u64>(), weight + others, "{code}: {weights:?}");
        }
    }
}
