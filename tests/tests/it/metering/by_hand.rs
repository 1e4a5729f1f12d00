//! Twenty-two small modules, each with the count that the table of `canister-execution.md` section 3.2 gives,
//! added up by hand, a line for each block that is entered. `block`, `loop`, `else` and `end` cost nothing; a
//! heap page written costs 1,000 after the run (4,000 with a 64-bit heap).

use super::rig::{self, Call};

/// What it shows, the module's fields beside `canister_update m`, the body of that, and the sum.
type Case = (&'static str, &'static str, &'static str, u64);

const CASES: &[Case] = &[
    ("an empty function", "", "", 1 /* entry */),
    (
        "straight code",
        "",
        "(drop (i32.mul (i32.add (i32.const 2) (i32.const 3)) (i32.const 4)))",
        1 /* entry */ + 1 /* const */ + 1 /* const */ + 1 /* add */ + 1 /* const */ + 1 /* mul */ + 1, /* drop */
    ),
    (
        "an if that is taken",
        "",
        "(if (i32.const 1) (then (nop)) (else (nop) (nop)))",
        1 /* entry */ + 1 /* const */ + 2 /* if */
            + 1, /* then: nop */
    ),
    (
        "an if that is not taken",
        "",
        "(if (i32.const 0) (then (nop)) (else (nop) (nop)))",
        1 /* entry */ + 1 /* const */ + 2 /* if */
            + 1 /* else: nop */ + 1, /* nop */
    ),
    (
        "code after a branch that is taken",
        "",
        "(block $out (br_if $out (i32.const 1)) (nop) (nop) (nop)) (nop)",
        1 /* entry */ + 1 /* const */ + 2 /* br_if */
            + 1, /* after the end: nop */
    ),
    (
        "a loop of ten turns",
        "",
        "(local $i i32) (local.set $i (i32.const 10))
         (loop $turn (br_if $turn (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))",
        1 /* entry */ + 1 /* const */ + 1 /* set */
            + 10 * (1 /* get */ + 1 /* const */ + 1 /* sub */ + 1 /* tee */ + 2/* br_if */),
    ),
    (
        "a loop of four turns in one of three",
        "",
        "(local $i i32) (local $j i32) (local.set $i (i32.const 3))
         (loop $outer
           (local.set $j (i32.const 4))
           (loop $inner (br_if $inner (local.tee $j (i32.sub (local.get $j) (i32.const 1)))))
           (br_if $outer (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))",
        1 /* entry */ + 1 /* const */ + 1 /* set */
            + 3 * (1 /* const */ + 1/* set */)
            + 3 * 4 * (1 /* get */ + 1 /* const */ + 1 /* sub */ + 1 /* tee */ + 2/* br_if */)
            + 3 * (1 /* get */ + 1 /* const */ + 1 /* sub */ + 1 /* tee */ + 2/* br_if */),
    ),
    (
        "a case of three",
        "",
        "(block $c (block $b (block $a (br_table $a $b $c (i32.const 1))) (nop) (br $c)) (nop) (nop) (nop))",
        1 /* entry */ + 1 /* const */ + 2 /* br_table */
            + 1 /* after the end of $b: nop */ + 1 /* nop */ + 1, /* nop */
    ),
    (
        "two calls: they end no block",
        "(func $f (nop))",
        "(call $f) (nop) (call $f)",
        1 /* entry */ + 5 /* call */ + 1 /* nop */ + 5 /* call */
            + 2 * (1 /* entry of $f */ + 1/* nop */),
    ),
    (
        "the factorial of five",
        "(func $factorial (param i32) (result i32)
           (if (result i32) (i32.eqz (local.get 0))
             (then (i32.const 1))
             (else (i32.mul (local.get 0) (call $factorial (i32.sub (local.get 0) (i32.const 1)))))))",
        "(drop (call $factorial (i32.const 5)))",
        1 /* entry */ + 1 /* const */ + 5 /* call */ + 1 /* drop */
            + 6 * (1 /* entry of $factorial */ + 1 /* get */ + 1 /* eqz */ + 2/* if */)
            + 5 * (1 /* else: get */ + 1 /* get */ + 1 /* const */ + 1 /* sub */ + 5 /* call */ + 1/* mul */)
            + 1, /* then: const */
    ),
    (
        "a call through the table",
        "(type $none (func)) (table 1 funcref) (elem (i32.const 0) $f) (func $f)",
        "(call_indirect (type $none) (i32.const 0))",
        1 /* entry */ + 1 /* const */ + 10 /* call_indirect */
            + 1, /* entry of $f */
    ),
    (
        "tail calls",
        "(type $none (func)) (table 1 funcref) (elem (i32.const 0) $g)
         (func $f (return_call_indirect (type $none) (i32.const 0))) (func $g (nop))",
        "(return_call $f)",
        1 /* entry */ + 3 /* return_call */
            + 1 /* entry of $f */ + 1 /* const */ + 60 /* return_call_indirect */
            + 1 /* entry of $g */ + 1, /* nop */
    ),
    (
        "a store and a load",
        "(memory 1)",
        "(i32.store (i32.const 0) (i32.const 7)) (drop (i64.load (i32.const 8)))",
        1 /* entry */ + 1 /* const */ + 1 /* const */ + 1 /* store */ + 1 /* const */ + 1 /* load */ + 1 /* drop */
            + 1_000, /* page 0 */
    ),
    (
        "a store over two pages",
        "(memory 1)",
        "(i64.store (i32.const 4092) (i64.const 7))",
        1 /* entry */ + 1 /* const */ + 1 /* const */ + 1 /* store */
            + 2 * 1_000, /* pages 0 and 1 */
    ),
    (
        "memory.fill",
        "(memory 1)",
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 5000))",
        1 /* entry */ + 1 /* const */ + 1 /* const */ + 1 /* const */ + 100 /* fill */ + 5_000 /* its bytes */
            + 2 * 1_000, /* pages 0 and 1 */
    ),
    (
        "memory.copy, memory.init and data.drop",
        "(memory 1) (data $d \"abc\")",
        "(memory.copy (i32.const 0) (i32.const 4096) (i32.const 50))
         (memory.init $d (i32.const 8192) (i32.const 0) (i32.const 3)) (data.drop $d)",
        1 /* entry */ + 1 /* const */ + 1 /* const */ + 1 /* const */ + 100 /* copy */ + 50 /* its bytes */
            + 1 /* const */ + 1 /* const */ + 1 /* const */ + 100 /* init */ + 3 /* its bytes */
            + 300 /* data.drop */
            + 2 * 1_000, /* pages 0 and 2 */
    ),
    (
        "memory.grow and memory.size",
        "(memory 1)",
        "(drop (memory.grow (i32.const 1))) (drop (memory.size))",
        1 /* entry */ + 1 /* const */ + 300 /* grow */ + 1 /* drop */ + 20 /* size */ + 1, /* drop */
    ),
    (
        "floats",
        "",
        "(drop (f64.sqrt (f64.div (f64.const 1) (f64.add (f64.const 2) (f64.const 3)))))
         (drop (i32.trunc_f64_s (f64.max (f64.const 1) (f64.const 2))))
         (drop (f32.convert_i64_u (i64.const 3)))",
        1 /* entry */ + 1 /* const */ + 1 /* const */ + 1 /* const */ + 2 /* add */ + 5 /* div */ + 8 /* sqrt */
            + 1 /* drop */ + 1 /* const */ + 1 /* const */ + 18 /* max */ + 20 /* trunc */ + 1 /* drop */
            + 1 /* const */ + 16 /* convert */ + 1, /* drop */
    ),
    (
        "a global and a division",
        "(global $g (mut i32) (i32.const 100))",
        "(global.set $g (i32.div_u (global.get $g) (i32.const 3)))",
        1 /* entry */ + 2 /* global.get */ + 1 /* const */ + 10 /* div */ + 2, /* global.set */
    ),
    (
        "references",
        "(table 1 funcref) (elem declare func $f) (func $f)",
        "(drop (ref.is_null (table.get 0 (i32.const 0)))) (drop (ref.func $f)) (drop (table.size 0))",
        1 /* entry */ + 1 /* const */ + 5 /* table.get */ + 5 /* ref.is_null */ + 1 /* drop */
            + 130 /* ref.func */ + 1 /* drop */ + 100 /* table.size */ + 1, /* drop */
    ),
    (
        "vectors",
        "(memory 1)",
        "(drop (i32x4.mul (v128.load (i32.const 0)) (i32x4.shl (v128.const i64x2 1 2) (i32.const 1))))
         (drop (f64x2.sqrt (f64x2.div (v128.const i64x2 1 2) (v128.const i64x2 1 2))))",
        1 /* entry */ + 1 /* const */ + 1 /* load */ + 1 /* const */ + 1 /* const */ + 2 /* shl */ + 2 /* mul */
            + 1 /* drop */ + 1 /* const */ + 1 /* const */ + 12 /* div */ + 14 /* sqrt */ + 1, /* drop */
    ),
    (
        "a 64-bit heap",
        "(memory i64 1)",
        "(i64.store (i64.const 0) (i64.load (i64.const 8)))",
        1 /* entry */ + 1 /* const */ + 1 /* const */ + 2 /* load */ + 2 /* store */
            + 4_000, /* page 0 */
    ),
    (
        "a trap: its block and the page written before it are charged",
        "(memory 1)",
        "(i32.store (i32.const 0) (i32.const 7)) (unreachable) (nop)",
        1 /* entry */ + 1 /* const */ + 1 /* const */ + 1 /* store */ + 1 /* unreachable */
            + 1_000, /* page 0 */
    ),
    (
        "the System API",
        r#"(import "ic0" "time" (func $time (result i64)))
           (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
           (import "ic0" "msg_reply" (func $reply)) (memory 1)"#,
        "(drop (call $time)) (call $append (i32.const 0) (i32.const 10)) (call $reply)",
        1 /* entry */ + 5 /* call */ + 500 /* time */ + 1 /* drop */
            + 1 /* const */ + 1 /* const */ + 5 /* call */ + 500 /* append */ + 10 * 50 /* bytes that leave */
            + 5 /* call */ + 500, /* reply */
    ),
];

#[test]
fn the_count_of_a_module_is_the_sum_of_its_blocks_in_both_modes_warm_and_fresh() {
    let cases: Vec<_> = CASES
        .iter()
        .map(|(what, fields, body, sum)| {
            let text = format!("(module {fields} (func (export \"canister_update m\") {body}))");
            let module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{what}: {error}"));
            // Twice: the second message finds the instance warm, where there is a warm one.
            (*what, module, vec![Call::update("m", ()), Call::update("m", ())], vec![*sum; 2])
        })
        .collect();
    rig::in_all_ways(|way, first| {
        (first..)
            .zip(&cases)
            .filter_map(|(number, (what, module, calls, sums))| {
                let counts = rig::run(way, number, module, &[], calls);
                (counts != *sums).then(|| format!("{what}: {counts:?}, not {sums:?}"))
            })
            .collect()
    });
}
