//! Instrumentation keeps what a module means.

use execution::GlobalValue;
use wasmtime::{Engine, Module};

use super::{Run, instrumented, wat};

/// Runs `canister_update x` of the module as it is and instrumented; both must leave the same heap.
fn same_heap(text: &str) -> Vec<u8> {
    let engine = Engine::default();
    let module = Module::new(&engine, wat(text)).expect("a valid module");
    let mut store = wasmtime::Store::new(&engine, ());
    let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("an instance");
    let function = instance.get_typed_func::<(), ()>(&mut store, "canister_update x").expect("a method");
    function.call(&mut store, ()).expect("it returns");
    let expected = instance.get_memory(&mut store, "memory").expect("the heap").data(&store).to_vec();

    let mut run = Run::new(text);
    run.call("x").expect("it returns");
    let heap = run.memory("memory");
    let actual = heap.data(&run.store).to_vec();
    assert!(actual == expected, "the instrumented module leaves another heap");
    actual
}

#[test]
fn all_stores_and_bulk_operations_write_what_they_should() {
    for pointer in ["i32", "i64"] {
        let heap = same_heap(&format!(
            r#"(module
                 (memory (export "memory") {pointer} 1)
                 (data ({pointer}.const 40000) "active")
                 (data $d "0123456789")
                 (func (export "canister_update x") (local $p {pointer}) (local $v i64)
                   (local.set $p ({pointer}.const 64)) (local.set $v (i64.const 0x1122334455667788))
                   (i64.store (local.get $p) (local.get $v))
                   (i64.store8 offset=8 (local.get $p) (local.get $v))
                   (i64.store16 offset=9 (local.get $p) (local.get $v))
                   (i64.store32 offset=11 (local.get $p) (local.get $v))
                   (i32.store offset=4090 (local.get $p) (i32.const -2))
                   (i32.store8 offset=4099 (local.get $p) (i32.const -2))
                   (i32.store16 offset=4097 (local.get $p) (i32.const 515))
                   (f32.store offset=200 (local.get $p) (f32.const 1.5))
                   (f64.store offset=204 (local.get $p) (f64.const -2.5))
                   (v128.store offset=300 (local.get $p) (v128.const i64x2 1 2))
                   (v128.store8_lane offset=330 3 (local.get $p) (v128.const i32x4 0x01020304 5 6 7))
                   (v128.store64_lane offset=340 1 (local.get $p) (v128.const i64x2 1 2))
                   (memory.fill ({pointer}.const 8000) (i32.const 7) ({pointer}.const 5000))
                   (memory.copy ({pointer}.const 8100) ({pointer}.const 64) ({pointer}.const 300))
                   (memory.init $d ({pointer}.const 20000) (i32.const 3) (i32.const 5))
                   (data.drop $d)))"#
        ));
        assert_eq!(&heap[20_000..20_005], b"34567");
        assert_eq!(&heap[40_000..40_006], b"active");
    }
}

#[test]
fn functions_keep_their_identity_across_the_added_import() {
    let heap = same_heap(
        r#"(module
             (type $t (func (param i32) (result i32)))
             (memory (export "memory") 1)
             (table $t 4 4 funcref)
             (elem (i32.const 1) func $double $square)
             (elem (table $t) (i32.const 3) funcref (ref.func $double))
             (func $double (type $t) local.get 0 i32.const 2 i32.mul)
             (func $square (type $t) local.get 0 local.get 0 i32.mul)
             (func $tail (type $t) (return_call $square (local.get 0)))
             (func (export "canister_update x")
               (i32.store (i32.const 0) (call $tail (i32.const 9)))
               (i32.store (i32.const 4) (call_indirect (type $t) (i32.const 9) (i32.const 1)))
               (i32.store (i32.const 8) (call_indirect (type $t) (i32.const 9) (i32.const 2)))
               (i32.store (i32.const 12) (call_indirect (type $t) (i32.const 9) (i32.const 3)))
               (i32.store (i32.const 16) (ref.is_null (table.get 0 (i32.const 0))))
               (i32.store (i32.const 20) (ref.is_null (ref.func $square)))))"#,
    );
    let word = |index: usize| i32::from_le_bytes(heap[index * 4..][..4].try_into().expect("four bytes"));
    assert_eq!([word(0), word(1), word(2), word(3), word(4), word(5)], [81, 18, 81, 18, 1, 0]);
}

#[test]
fn blocks_with_parameters_and_results_keep_their_operands() {
    let heap = same_heap(
        r#"(module
             (memory (export "memory") 1)
             (func $pair (param i32 i64) (result i64 i32) local.get 1 local.get 0)
             (func (export "canister_update x") (local $n i32)
               i32.const 0
               i32.const 100
               i32.const 5
               loop (param i32 i32) (result i32)
                 local.tee $n
                 i32.add
                 local.get $n
                 i32.const 1
                 i32.sub
                 local.get $n
                 i32.const 1
                 i32.gt_s
                 if (param i32 i32) (result i32)
                   br 1
                 else
                   drop
                 end
               end
               i32.store
               i32.const 8
               i32.const 3 i64.const 4 call $pair
               i64.extend_i32_u
               i64.add
               i64.store
               i32.const 0
               br 0
               unreachable
               i64.store8))"#,
    );
    assert_eq!(i32::from_le_bytes(heap[0..4].try_into().expect("four bytes")), 115);
    assert_eq!(heap[8], 7);
}

#[test]
fn a_64_bit_table_is_kept() {
    let mut run = Run::new(
        r#"(module
             (type $t (func))
             (memory i64 1)
             (table i64 2 funcref)
             (elem (i64.const 1) $set)
             (func $set (i64.store (i64.const 8) (i64.const 5)))
             (func (export "canister_update x") (call_indirect (type $t) (i64.const 1))))"#,
    );
    run.call("x").expect("it returns");
    assert_eq!(run.word(8), 5);
}

#[test]
fn nan_results_are_canonical() {
    let mut run = Run::new(
        r#"(module (memory 1) (func (export "canister_update x") (local $n f64)
             (local.set $n (f64.reinterpret_i64 (i64.const 0x7ff4000000000123)))
             (f64.store (i32.const 0) (f64.add (local.get $n) (f64.const 1)))
             (v128.store (i32.const 16) (f64x2.mul (f64x2.splat (local.get $n)) (f64x2.splat (f64.const 2))))))"#,
    );
    run.call("x").expect("it returns");
    assert_eq!([run.word(0), run.word(16), run.word(24)], [0x7ff8_0000_0000_0000; 3]);
}

#[test]
fn only_the_conventional_exports_are_left() {
    let module = instrumented(
        r#"(module
             (import "ic0" "msg_reply" (func $reply))
             (memory (export "mem") 1) (table (export "tab") 1 funcref)
             (global (export "a") i32 (i32.const 1)) (global $b (mut i64) (i64.const 2)) (global $c (mut f32) (f32.const 1))
             (func $start) (start $start)
             (func (export "canister_init")) (func (export "other"))
             (export "canister_update r" (func $reply))
             (export "canister_query global" (func $start)))"#,
    );
    let compiled = Module::new(crate::Engine::new().expect("an engine").raw(), &module.wasm).expect("valid");
    let mut names: Vec<_> = compiled.exports().map(|export| export.name()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "canister bookkeeping",
            "canister_init",
            "canister_query global",
            "canister_start",
            "canister_update r",
            "global 0",
            "global 1",
            "memory",
            "table"
        ]
    );
    assert_eq!(module.interface.globals, [GlobalValue::I64(2), GlobalValue::F32(1.0f32.to_bits())]);
    assert!(module.interface.exports.start && module.interface.exports.init);
}

#[test]
fn active_segments_go_to_the_interface_and_leave_empty_ones() {
    let text = r#"(module
        (memory (export "memory") 1)
        (data (i32.const 3) "abc") (data $p "passive") (data $a (i32.const 4) "x")
        (func (export "canister_update x")
          (memory.init $p (i32.const 100) (i32.const 0) (i32.const 7))
          (memory.init $a (i32.const 0) (i32.const 0) (i32.const 0)))
        (func (export "canister_update y") (memory.init $a (i32.const 0) (i32.const 0) (i32.const 1))))"#;
    let data: Vec<_> = instrumented(text)
        .interface
        .data
        .into_iter()
        .map(|segment| (segment.offset, segment.bytes))
        .collect();
    assert_eq!(data, [(3, b"abc".to_vec()), (4, b"x".to_vec())]);
    assert_eq!(&same_heap(text)[3..6], b"axc");
    assert_eq!(&same_heap(text)[100..107], b"passive");
    Run::new(text).call("y").expect_err("an active segment is as if dropped after instantiation");
}

#[test]
fn data_drop_is_reported() {
    let module = |body: &str| format!("(module (memory 1) (data $d \"x\") (func {body}))");
    assert!(instrumented(&module("data.drop $d")).interface.drops_data);
    assert!(!instrumented(&module("nop")).interface.drops_data);
}
