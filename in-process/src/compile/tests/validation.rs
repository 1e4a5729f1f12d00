//! What a module may be: checks V01 to V35 of the reference (section 7).

use std::fmt::Write;
use std::io::Write as _;

use execution::module::MethodKind;
use execution::{InvalidModule, Limits};
use flate2::Compression;
use flate2::write::GzEncoder;
use wasm_encoder::{CodeSection, CustomSection, Function, FunctionSection, Instruction, Module, TypeSection};

use super::{instrument, instrumented, refusal, refusal_of, wat};

fn valid(text: &str) {
    instrumented(text);
}

fn assert_refused(text: &str, reason: &str) {
    let refusal = refusal(text);
    assert!(refusal.contains(reason), "{refusal:?} doesn't name {reason:?}");
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector");
    encoder.finish().expect("a vector")
}

#[test]
fn v01_v02_the_container_is_raw_or_gzip() {
    valid("(module)");
    assert!(refusal_of(b"").contains("unsupported canister module format"));
    assert!(refusal_of(b"\x7fELF\x02\x01\x01\0").contains("unsupported canister module format"));
    assert!(refusal_of(b"\0asm\x02\0\0\0").contains("version"));
}

#[test]
fn v03_v27_gzip_is_expanded_up_to_its_declared_size() {
    let module = wat("(module (func (export \"canister_init\")))");
    let compressed = gzip(&module);
    let same = |wasm: &[u8]| instrument(&Limits::application(), wasm).expect("valid").wasm;
    assert_eq!(same(&compressed), same(&module));

    for wrong in [module.len() - 1, module.len() + 1, 0] {
        let mut altered = compressed.clone();
        let footer = altered.len() - 4;
        altered[footer..].copy_from_slice(&u32::try_from(wrong).expect("small").to_le_bytes());
        assert!(refusal_of(&altered).contains("gzip"));
    }
    let bomb = gzip(&vec![0; (100 << 20) + 1]);
    assert!(refusal_of(&bomb).contains("the limit is 104857600"));
    assert!(refusal_of(&compressed[..15]).contains("too few"));
    assert!(refusal_of(&compressed[..compressed.len() - 9]).contains("gzip"));
}

#[test]
fn v04_v06_imports_are_functions_of_ic0_with_exact_types() {
    valid(r#"(module (import "ic0" "time" (func (result i64))))"#);
    assert_refused(r#"(module (import "env" "time" (func (result i64))))"#, "'env'");
    assert_refused(r#"(module (import "__" "out_of_instructions" (func)))"#, "'__'");
    assert_refused(
        r#"(module (import "ic0" "no_such_function" (func)))"#,
        "'ic0.no_such_function' is unknown",
    );
    assert_refused(r#"(module (import "ic0" "time" (func (result i32))))"#, "'ic0.time' has the wrong type");
    assert_refused(r#"(module (import "ic0" "time" (func (param i32) (result i64))))"#, "wrong type");
    assert_refused(r#"(module (import "env" "memory" (memory 1)))"#, "memory");
    assert_refused(r#"(module (import "env" "table" (table 1 funcref)))"#, "table");
}

#[test]
fn v07_v09_pointers_are_as_wide_as_the_heap() {
    for legacy in [
        r#"(import "ic0" "stable_size" (func (result i32)))"#,
        r#"(import "ic0" "msg_cycles_accept" (func (param i64) (result i64)))"#,
    ] {
        valid(&format!("(module {legacy} (memory 1))"));
        assert_refused(&format!("(module {legacy} (memory i64 1))"), "unknown");
    }
    let size = |result: &str, memory: &str| {
        format!("(module (import \"ic0\" \"msg_arg_data_size\" (func (result {result}))) {memory})")
    };
    valid(&size("i64", "(memory i64 1)"));
    assert_refused(&size("i32", "(memory i64 1)"), "wrong type");
    valid(&size("i32", ""));
    valid(&size("i32", "(memory 1)"));
    assert_refused(&size("i64", ""), "wrong type");
}

#[test]
fn v10_v11_one_memory_and_no_imported_global() {
    assert_refused("(module (memory 1) (memory 1))", "multiple memories");
    assert_refused(r#"(module (import "ic0" "g" (global i32)))"#, "global");
}

#[test]
fn v12_v14_entry_points_have_names_and_types() {
    for name in ["canister_init", "canister_heartbeat", "canister_update x", "canister_composite_query "] {
        valid(&format!("(module (func (export \"{name}\")))"));
        assert_refused(
            &format!("(module (func (export \"{name}\") (param i32)))"),
            "must have type () -> ()",
        );
        assert_refused(
            &format!("(module (func (export \"{name}\") (result i32) i32.const 0))"),
            "must have type",
        );
    }
    for [first, second] in [["update", "query"], ["query", "composite_query"], ["update", "composite_query"]]
    {
        let text = format!(
            "(module (func (export \"canister_{first} a\")) (func (export \"canister_{second} a\")))"
        );
        assert_refused(&text, "method 'a' is exported more than once");
    }
    assert_refused(r#"(module (func (export "canister_foo")))"#, "'canister_foo'");
    assert_refused(r#"(module (func (export "canister_update")))"#, "'canister_update'");
    assert_refused(r#"(module (func (export "canister_start")))"#, "reserved");
    assert_refused(r#"(module (memory (export "stable_memory") 1))"#, "reserved");
    valid(r#"(module (func (export "foo")) (global (export "canister_foo") i32 (i32.const 0)))"#);
    valid(r#"(module (import "ic0" "msg_reply" (func $r)) (export "canister_update r" (func $r)))"#);
}

#[test]
fn v15_v16_method_names_may_be_empty_or_hold_spaces() {
    let module = instrumented(
        r#"(module (func (export "canister_update ")) (func (export "canister_query a b  c")))"#,
    );
    let methods: Vec<_> = module.interface.methods.into_iter().collect();
    assert_eq!(methods, [(String::new(), MethodKind::Update), ("a b  c".into(), MethodKind::Query)]);
}

fn methods(count: usize, name_bytes: usize) -> String {
    let mut text = String::from("(module");
    for number in 0..count {
        let _ = write!(text, "(func (export \"canister_query {number:0name_bytes$}\"))");
    }
    text + ")"
}

#[test]
fn v17_v18_methods_and_their_names_are_bounded() {
    valid(&methods(1_000, 20));
    assert_refused(&methods(1_001, 4), "more than 1000 methods");
    assert_refused(&methods(800, 26), "more than 20000 bytes");
    valid(&methods(1, 20_000));
    assert_refused(&methods(1, 20_001), "more than 20000 bytes");
}

#[test]
fn v19_v20_functions_and_globals_are_bounded() {
    let many = |item: &str, count: usize| format!("(module {})", item.repeat(count));
    valid(&many("(func)", 50_000));
    assert_refused(&many("(func)", 50_001), "50001 functions, the limit is 50000");
    valid(&many("(global i32 (i32.const 0))", 1_000));
    assert_refused(&many("(global i32 (i32.const 0))", 1_001), "1001 globals, the limit is 1000");
    assert_refused("(module (global funcref (ref.null func)))", "reference type");
}

fn with_custom_sections(sections: &[(&str, usize)]) -> Vec<u8> {
    let mut module = Module::new();
    for (name, bytes) in sections {
        module.section(&CustomSection { name: (*name).into(), data: vec![1; *bytes].into() });
    }
    module.finish()
}

fn custom_sections(sections: &[(&str, usize)]) -> Result<usize, InvalidModule> {
    let module = instrument(&Limits::application(), &with_custom_sections(sections))?;
    Ok(module.interface.custom_sections.len())
}

#[test]
fn v21_v24_icp_sections_are_unique_and_bounded() {
    assert_eq!(custom_sections(&[("icp:public ", 0), ("icp:private a b", 9), ("foo", 5)]), Ok(2));
    assert_eq!(custom_sections(&[("name", 3), ("producers", 1 << 21)]), Ok(0));
    let refused = |sections: &[(&str, usize)]| custom_sections(sections).expect_err("refused").0;
    assert!(refused(&[("icp:public x", 0), ("icp:private x", 0)]).contains("more than once"));
    assert!(refused(&[("icp:foo x", 0)]).contains("'icp:foo x'"));
    assert!(refused(&[("icp:public", 0)]).contains("'icp:public'"));
    let names: Vec<_> = (0..17).map(|number| format!("icp:public {number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    assert_eq!(custom_sections(&many[..16]), Ok(16));
    assert!(refused(&many).contains("more than 16"));
    assert_eq!(custom_sections(&[("icp:public x", (1 << 20) - 1)]), Ok(1));
    assert!(refused(&[("icp:public x", 1 << 20)]).contains("exceed 1048576 bytes"));
}

#[test]
fn names_of_functions_are_bounded() {
    let name = |bytes: usize| {
        let mut names = wasm_encoder::NameSection::new();
        let mut functions = wasm_encoder::NameMap::new();
        functions.append(0, &"f".repeat(bytes));
        names.functions(&functions);
        let mut module = Module::new();
        module.section(&names);
        module.finish()
    };
    instrument(&Limits::application(), &name(1 << 20)).expect("at the limit");
    assert!(refusal_of(&name((1 << 20) + 1)).contains("custom section 'name'"));
}

/// A module with one function of the given instructions, `end` not counted.
fn function(count: usize, instruction: &Instruction<'_>) -> Vec<u8> {
    let mut body = Function::new([]);
    (0..count).for_each(|_| {
        body.instruction(instruction);
    });
    body.instruction(&Instruction::End);
    functions(&[body])
}

pub(super) fn functions(bodies: &[Function]) -> Vec<u8> {
    let (mut types, mut functions, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([], []);
    for body in bodies {
        functions.function(0);
        code.function(body);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    module.finish()
}

#[test]
fn v25_one_function_is_bounded_in_instructions_and_complexity() {
    instrument(&Limits::application(), &function(999_999, &Instruction::Nop)).expect("at the limit");
    let refused = refusal_of(&function(1_000_000, &Instruction::Nop));
    assert!(refused.contains("function 0 has 1000001 instructions, the limit is 1000000"), "{refused}");
    // 50 each; `end` weighs 1.
    instrument(&Limits::application(), &function(19_999, &Instruction::Call(0))).expect("below the limit");
    let refused = refusal_of(&function(20_000, &Instruction::Call(0)));
    assert!(refused.contains("complexity 1000001, the limit is 1000000"), "{refused}");
}

#[test]
fn v26_the_code_section_is_bounded_before_it_is_validated() {
    let section = |bytes: usize| {
        let body = |bytes: usize| {
            let mut body = Function::new([]);
            body.raw(std::iter::repeat_n(0x01, bytes)).instruction(&Instruction::End);
            body
        };
        // A count byte; for each of the twelve bodies a size of 3 bytes, the locals and `end`.
        let rest = bytes - 1 - 11 * (3 + 2 + 900_000) - (3 + 2);
        let mut bodies = vec![body(900_000); 11];
        bodies.push(body(rest));
        functions(&bodies)
    };
    instrument(&Limits::application(), &section(10_485_760)).expect("at the limit");
    let refused = refusal_of(&section(10_485_761));
    assert_eq!(refused, "code section: 10485761 bytes, the limit is 10485760");
}

#[test]
fn v28_tables_are_never_changed() {
    let module = |body: &str| {
        format!("(module (table 3 funcref) (memory 1) (data $d \"x\") (elem $e func $f) (func $f {body}))")
    };
    for (name, body) in [
        ("table.set", "i32.const 0 ref.null func table.set 0"),
        ("table.grow", "ref.null func i32.const 1 table.grow 0 drop"),
        ("table.fill", "i32.const 0 ref.null func i32.const 1 table.fill 0"),
        ("table.copy", "i32.const 0 i32.const 0 i32.const 1 table.copy"),
        ("table.init", "i32.const 0 i32.const 0 i32.const 1 table.init $e"),
    ] {
        assert_refused(&module(body), name);
    }
    for body in [
        "i32.const 0 table.get 0 drop table.size 0 drop elem.drop $e",
        "i32.const 0 i32.const 0 i32.const 1 memory.copy",
        "i32.const 0 i32.const 0 i32.const 1 memory.fill",
        "i32.const 0 i32.const 0 i32.const 1 memory.init $d data.drop $d",
    ] {
        valid(&module(body));
    }
}

#[test]
fn v29_v31_only_the_named_proposals_are_accepted() {
    valid("(module (func v128.const i64x2 1 2 i8x16.popcnt drop))");
    for text in [
        "(module (func v128.const i64x2 1 2 v128.const i64x2 1 2 i8x16.relaxed_swizzle drop))",
        "(module (memory 1 1 shared))",
        "(module (memory 1) (func i32.const 0 i32.atomic.load drop))",
        "(module (tag))",
        "(module (func (try_table)))",
        "(module (type (struct (field i32))))",
        "(module (type $f (func)) (func (param (ref null $f)) local.get 0 call_ref $f))",
        "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
        "(module (func (param i64 i64) local.get 0 local.get 1 i64.mul_wide_u drop drop))",
        "(module (memory 1 (pagesize 1)))",
        "(module (func (param externref)))",
        "(component)",
    ] {
        assert_refused(text, "validation");
    }
}

#[test]
fn v32_newer_standard_features_are_accepted() {
    valid(
        r#"(module (table 1 funcref) (elem declare func $f)
             (func $f (param i32) (result i32 i32)
               local.get 0
               block (param i32) (result i32 i32) i32.extend8_s i32.const 1 end)
             (func (result i32 i32) f32.const 1 i32.trunc_sat_f32_s return_call $f)
             (func ref.func $f ref.is_null drop ref.null func ref.is_null drop))"#,
    );
}

#[test]
fn v33_v34_active_data_has_a_constant_offset_and_fits_the_initial_memory() {
    valid(r#"(module (memory 1) (data (i32.const 65534) "ab"))"#);
    assert_refused(r#"(module (memory 1) (data (i32.const 65535) "ab"))"#, "exceeds the initial memory");
    assert_refused(r#"(module (memory 1 2) (data (i32.const 65536) "a"))"#, "exceeds the initial memory");
    assert_refused(r#"(module (memory i64 1) (data (i64.const -1) "ab"))"#, "exceeds the initial memory");
    assert_refused(r#"(module (memory 1) (data (i32.const -1) "ab"))"#, "exceeds the initial memory");
    refusal(r#"(module (import "ic0" "g" (global i32)) (memory 1) (data (global.get 0) "a"))"#);
}

#[test]
fn v35_the_maximum_of_a_64_bit_memory_is_bounded() {
    let pages = |text: &str| instrumented(text).interface.heap_pages_max;
    assert_eq!(pages("(module (memory i64 1 98304))"), 98_304);
    assert_eq!(pages("(module (memory i64 1))"), 98_304);
    assert_eq!(pages("(module (memory i64 1 7))"), 7);
    assert_eq!(pages("(module (memory 1))"), 65_536);
    assert_eq!(pages("(module (memory 1 65536))"), 65_536);
    assert_refused("(module (memory i64 1 98305))", "98305 pages, the limit is 98304");
    assert_refused("(module (memory i64 98305))", "98305 pages, the limit is 98304");
}

#[test]
fn tables_are_bounded_and_filled_within_their_size() {
    valid("(module (table 1000000 funcref))");
    assert_refused("(module (table 1000001 funcref))", "1000001 elements, the limit is 1000000");
    assert_refused("(module (table 1 funcref) (table 1 funcref))", "2 tables, the limit is 1");
    valid("(module (table 2 funcref) (elem (i32.const 1) $f) (func $f))");
    assert_refused("(module (table 2 funcref) (elem (i32.const 2) $f) (func $f))", "exceeds the table");
}

#[test]
fn a_function_that_instrumentation_makes_too_large_is_the_modules_fault() {
    let stores = "(i64.store offset=100000 (i32.const 0) (local.get 0))".repeat(200_000);
    let text = format!("(module (memory 1) (func (param i64) {stores}))");
    assert_refused(&text, "code section: function 0 has ");
    assert_refused(&text, "bytes after instrumentation, the limit is 7654321");

    let locals = |count: usize| {
        let locals = "i32 ".repeat(count);
        format!("(module (memory 1) (func (local {locals}) i32.const 1 i32.const 1 i32.store))")
    };
    valid(&locals(49_996));
    assert_refused(
        &locals(49_997),
        "code section: function 0 has 50001 locals after instrumentation, the limit is 50000",
    );
}

#[test]
fn a_module_says_whether_it_can_see_a_certificate() {
    let reads = |name: &str, ty: &str| {
        let text = format!("(module (import \"ic0\" \"{name}\" (func {ty})) (memory 1))");
        instrumented(&text).interface.reads_certificate
    };
    assert!(reads("data_certificate_present", "(result i32)"));
    assert!(reads("data_certificate_size", "(result i32)"));
    assert!(reads("data_certificate_copy", "(param i32 i32 i32)"));
    assert!(!reads("certified_data_set", "(param i32 i32)"));
    assert!(!instrumented("(module)").interface.reads_certificate);
}
