//! What a refusal says, which of two reasons it gives, and what hostile modules come to.

use execution::Limits;
use wasm_encoder::{BlockType, Function, Instruction};
use wasmparser::WasmFeatures;

use super::super::validate::FEATURES;
use super::validation::{functions, gzip};
use super::{instrument, refusal, refusal_of, wat};

fn many(item: &str, count: usize) -> String {
    item.repeat(count)
}

/// Each rule of section 1, broken once: the section, what offends, and the limit where there is one.
#[test]
fn a_refusal_names_the_section_the_item_and_the_limit() {
    let exports = |count: usize, digits: usize| -> String {
        (0..count).map(|n| format!("(func (export \"canister_query {n:0digits$}\"))")).collect()
    };
    let sections: String = (0..17).map(|n| format!("(@custom \"icp:public s{n}\" \"\")")).collect();
    let cases: &[(String, &[&str])] = &[
        (r#"(import "env" "f" (func))"#.into(), &["import section", "'f'", "'env'", "'ic0'"]),
        (r#"(import "ic0" "nope" (func))"#.into(), &["import section", "'ic0.nope' is unknown"]),
        (r#"(import "ic0" "time" (func))"#.into(), &["import section", "'ic0.time'", "type"]),
        (r#"(import "env" "memory" (memory 1))"#.into(), &["import section", "'env' 'memory'", "memory"]),
        (r#"(import "env" "table" (table 1 funcref))"#.into(), &["import section", "'env' 'table'", "table"]),
        (r#"(import "ic0" "g" (global i32))"#.into(), &["import section", "'ic0' 'g'", "global"]),
        (r#"(func (export "canister_foo"))"#.into(), &["export section", "'canister_foo'"]),
        (
            r#"(func (export "canister_init") (param i32))"#.into(),
            &["export section", "'canister_init'", "() -> ()"],
        ),
        (
            r#"(func (export "canister_query a")) (func (export "canister_update a"))"#.into(),
            &["export section", "'a'", "more than once"],
        ),
        (r#"(memory (export "stable_memory") 1)"#.into(), &["export section", "'stable_memory'", "reserved"]),
        (exports(1_001, 1), &["export section", "'canister_query 1000'", "1000 methods"]),
        (exports(1_000, 21), &["export section", "method '", "20000 bytes"]),
        (
            r#"(memory 1) (data "p") (data (i32.const 65535) "ab")"#.into(),
            &["data section", "segment 1 of 2 bytes at offset 65535", "65536 bytes"],
        ),
        (many("(global i32 (i32.const 0))", 1_001), &["global section", "1001 globals", "1000"]),
        (
            "(global i32 (i32.const 0)) (global funcref (ref.null func))".into(),
            &["global section", "global 1", "reference type"],
        ),
        (many("(func)", 50_001), &["function section", "50001 functions", "50000"]),
        ("(memory i64 1 98305)".into(), &["memory section", "98305 pages", "98304"]),
        ("(memory i64 98305)".into(), &["memory section", "initial size of 98305 pages", "98304"]),
        ("(table 1 funcref) (table 1 funcref)".into(), &["table section", "2 tables", "1"]),
        ("(table 1000001 funcref)".into(), &["table section", "1000001 elements", "1000000"]),
        (
            "(table 1 funcref) (elem (i32.const 1) func 0) (func)".into(),
            &["element section", "segment 0 of 1 elements at offset 1", "1 elements"],
        ),
        (
            r#"(import "ic0" "msg_reply" (func)) (table 1 funcref) (func)
               (func (table.set 0 (i32.const 0) (ref.null func)))"#
                .into(),
            &["code section", "function 2", "table.set"],
        ),
        (
            format!("(func) (func {})", many("nop ", 1_000_000)),
            &["code section", "function 1", "1000001 instructions", "1000000"],
        ),
        (
            format!("(func) (func {})", many("call 0 ", 20_000)),
            &["code section", "function 1", "complexity 1000001", "1000000"],
        ),
        (r#"(@custom "icp:foo x" "")"#.into(), &["custom section", "'icp:foo x'"]),
        (
            r#"(@custom "icp:public x" "") (@custom "icp:private x" "")"#.into(),
            &["custom section", "'icp:private x'", "more than once"],
        ),
        (sections, &["custom section", "'icp:public s16'", "more than 16"]),
        (
            format!("(@custom \"icp:public x\" \"{}\")", many("y", 1 << 20)),
            &["custom section", "'icp:public x'", "1048576 bytes"],
        ),
        // The parser's own refusals: it gives the text, the place is found for it.
        ("(func) (func i32.add)".into(), &["validation", "code section: function 1", "type mismatch"]),
        ("(memory 1) (memory 1)".into(), &["validation", "memory section", "multiple memories"]),
        ("(memory 65537)".into(), &["validation", "memory section", "65536"]),
        ("(table 0 externref)".into(), &["validation", "table section", "gc types"]),
        ("(type (struct))".into(), &["validation", "type section", "gc"]),
        ("(tag)".into(), &["validation", "tag section", "exceptions"]),
        ("(global i32 (i64.const 0))".into(), &["validation", "global section", "type mismatch"]),
        (
            r#"(global $g i32 (i32.const 0)) (memory 1) (data (global.get $g) "x")"#.into(),
            &["validation", "data section", "global.get"],
        ),
        ("(elem (i32.const 0) func 0) (func)".into(), &["validation", "element section", "unknown table"]),
        (r#"(func (export "a") (export "a"))"#.into(), &["validation", "export section", "duplicate export"]),
        ("(start 0) (func (param i32))".into(), &["validation", "start section", "start function"]),
    ];
    for (text, parts) in cases {
        let refusal = refusal(&format!("(module {text})"));
        for part in *parts {
            assert!(refusal.contains(part), "{refusal:?} doesn't name {part:?}");
        }
        assert!(refusal.len() < 300, "{} bytes: {refusal}", refusal.len());
    }
}

#[test]
fn a_long_name_doesnt_hide_what_is_wrong() {
    let name = format!("é{}", many("n", 90_000));
    for (text, reason) in [
        (format!(r#"(import "{name}" "f" (func))"#), "only 'ic0' is known"),
        (format!(r#"(import "ic0" "{name}" (func))"#), "is unknown"),
        (format!(r#"(import "env" "{name}" (memory 1))"#), "only functions can be imported"),
        (format!(r#"(func (export "canister_{name}"))"#), "no known canister entry point"),
        (format!(r#"(func (export "canister_query {name}"))"#), "20000 bytes"),
        (format!(r#"(func (export "canister_update {name}") (param i32))"#), "20000 bytes"),
        (format!(r#"(@custom "icp:{name}" "")"#), "'icp:public <name>'"),
    ] {
        let refused = refusal(&format!("(module {text})"));
        assert!(refused.contains(reason) && refused.len() < 500, "{} bytes: {refused}", refused.len());
    }
}

/// Two rules broken at once: the one that comes first in section 1.1 is named.
#[test]
fn rules_are_checked_in_the_order_of_the_reference() {
    let [globals, functions, complex] = [
        many("(global i32 (i32.const 0))", 1_001),
        many("(func)", 50_001),
        r#"(table 1 funcref) (func (table.set 0 (i32.const 0) (ref.null func)))"#.to_owned(),
    ];
    let broken: &[(&str, &str)] = &[
        ("validation", "(func i32.add)"),
        ("import section", r#"(import "env" "f" (func))"#),
        ("export section", r#"(func (export "canister_foo"))"#),
        ("data section", r#"(memory 1) (data (i32.const 65536) "x")"#),
        ("global section", &globals),
        ("function section", &functions),
        ("memory section", "(memory i64 1 98305)"),
        ("code section", &complex),
        ("custom section", r#"(@custom "icp:foo x" "")"#),
    ];
    for (first, (place, text)) in broken.iter().enumerate() {
        let refused = refusal(&format!("(module {text})"));
        assert!(refused.starts_with(place), "{refused}");
        for (other, with) in &broken[first + 1..] {
            if [text, with].iter().all(|text| text.contains("(memory")) {
                continue;
            }
            // Imports come first in a text.
            let refused = refusal(&if with.contains("(import") {
                format!("(module {with} {text})")
            } else {
                format!("(module {text} {with})")
            });
            assert!(refused.starts_with(place), "{place} before {other}: {refused}");
        }
    }
}

#[test]
fn the_size_of_the_code_section_comes_before_everything() {
    let mut body = Function::new([]);
    body.raw(std::iter::repeat_n(0x01, 1_000_000))
        .instruction(&Instruction::I32Add)
        .instruction(&Instruction::End);
    let refused = refusal_of(&functions(&vec![body.clone(); 11]));
    assert!(refused.starts_with("code section: 110000"), "{refused}");
    let refused = refusal_of(&functions(&[body]));
    assert!(refused.starts_with("validation: code section: function 0: type mismatch"), "{refused}");
}

/// The features that are on, by the parser's names. What it learns besides stays off.
const ON: &[&str] = &[
    "MUTABLE_GLOBAL",
    "SATURATING_FLOAT_TO_INT",
    "SIGN_EXTENSION",
    "REFERENCE_TYPES",
    "MULTI_VALUE",
    "BULK_MEMORY",
    "SIMD",
    "TAIL_CALL",
    "FLOATS",
    "MEMORY64",
    "CALL_INDIRECT_OVERLONG",
    "BULK_MEMORY_OPT",
];

#[test]
fn each_feature_is_on_or_off_by_name() {
    for (name, feature) in WasmFeatures::all().iter_names() {
        assert_eq!(FEATURES.contains(feature), ON.contains(&name), "{name}");
    }
    // What belongs to a feature that is off, and what the refusal calls it.
    for (text, name) in [
        ("(memory 1 1 shared)", "threads"),
        ("(memory 1) (func i32.const 0 i32.atomic.load drop)", "threads"),
        ("(func (param v128) local.get 0 local.get 0 i8x16.relaxed_swizzle drop)", "relaxed SIMD"),
        ("(func (param v128) local.get 0 local.get 0 local.get 0 f32x4.relaxed_madd drop)", "relaxed SIMD"),
        ("(memory 1) (memory 1)", "multiple memories"),
        ("(tag)", "exceptions"),
        ("(func (try_table))", "exceptions"),
        ("(func (local exnref))", "exception"),
        ("(type (struct (field i32)))", "gc"),
        ("(type (array i8))", "gc"),
        ("(func (local anyref))", "gc"),
        ("(func (local externref))", "gc types"),
        ("(rec (type (func)) (type (func)))", "gc"),
        ("(type $f (func)) (func (local (ref null $f)))", "function references"),
        ("(type $f (func)) (func (param (ref null $f)) local.get 0 call_ref $f)", "function references"),
        ("(global i32 (i32.add (i32.const 1) (i32.const 2)))", "constant expression required"),
        ("(func (param i64 i64) local.get 0 local.get 1 i64.mul_wide_u drop drop)", "wide arithmetic"),
        ("(memory 1 (pagesize 1))", "custom page sizes"),
        ("(type $f (func)) (type (cont $f))", "stack switching"),
        ("(type (shared (func)))", "shared-everything-threads"),
    ] {
        let refused = refusal(&format!("(module {text})"));
        assert!(refused.starts_with("validation: "), "{text}: {refused}");
        assert!(refused.contains(name), "{refused:?} doesn't name {name:?}");
    }
    assert!(refusal("(component)").starts_with("validation: "));
}

#[test]
fn names_that_arent_utf8_are_refused_where_they_stand() {
    let module = |section: u8, content: &[u8]| {
        let size = u8::try_from(content.len()).expect("short");
        [b"\0asm\x01\0\0\0".as_slice(), &[1, 4, 1, 0x60, 0, 0], &[section, size], content].concat()
    };
    for (place, wasm) in [
        ("import section", module(2, b"\x01\x02\xff\xfe\x01f\x00\x00")),
        ("import section", module(2, b"\x01\x03ic0\x02\xc3\x28\x00\x00")),
        ("export section", module(7, b"\x01\x02\xff\xfe\x00\x00")),
        ("custom section", module(0, b"\x02\xff\xfe")),
    ] {
        let refused = refusal_of(&wasm);
        assert!(
            refused.starts_with(&format!("validation: {place}: ")) && refused.contains("UTF-8"),
            "{refused}"
        );
    }
}

#[test]
fn what_is_cut_off_or_declares_too_much_is_refused_where_it_is() {
    let module = wat(r#"(module (memory 1) (func (export "canister_update x")) (data (i32.const 0) "abc"))"#);
    for length in 8..module.len() {
        // A module may end after a section: then something else is missing, or nothing.
        if let Err(refused) = instrument(&Limits::application(), &module[..length]) {
            assert!(refused.0.starts_with("validation: "), "{refused}");
            assert!(refused.0.contains(" section: ") || refused.0.contains("module: "), "{refused}");
        }
    }
    // A section of 4 GiB, and vectors of 4 Gi entries in a few bytes.
    for (place, bytes) in [
        ("type section", b"\x01\xff\xff\xff\xff\x0f\x00".as_slice()),
        ("type section", b"\x01\x05\xff\xff\xff\xff\x0f"),
        ("import section", b"\x02\x05\xff\xff\xff\xff\x0f"),
        ("function section", b"\x03\x05\xff\xff\xff\xff\x0f"),
        ("table section", b"\x04\x05\xff\xff\xff\xff\x0f"),
        ("global section", b"\x06\x05\xff\xff\xff\xff\x0f"),
        ("export section", b"\x07\x05\xff\xff\xff\xff\x0f"),
        ("element section", b"\x09\x05\xff\xff\xff\xff\x0f"),
        ("code section", b"\x0a\x05\xff\xff\xff\xff\x0f"),
        ("data section", b"\x0b\x05\xff\xff\xff\xff\x0f"),
    ] {
        let refused = refusal_of(&[b"\0asm\x01\0\0\0".as_slice(), bytes].concat());
        assert!(refused.starts_with(&format!("validation: {place}")), "{refused}");
    }
}

#[test]
fn data_at_offsets_near_4_gib_is_refused_by_its_range() {
    for (text, range) in [
        (r#"(memory 1) (data (i32.const 0xffff_fff0) "0123456789abcdef")"#, "16 bytes at offset 4294967280"),
        (r#"(memory 1) (data (i32.const 0xffff_ffff) "ab")"#, "2 bytes at offset 4294967295"),
        (r#"(memory i64 1) (data (i64.const 0x1_0000_0000) "ab")"#, "2 bytes at offset 4294967296"),
        (r#"(memory i64 1) (data (i64.const -1) "ab")"#, "2 bytes at offset 18446744073709551615"),
    ] {
        let refused = refusal(&format!("(module {text})"));
        assert!(refused.contains(range) && refused.contains("initial memory of 65536 bytes"), "{refused}");
    }
    // The largest memory there is, filled to its last byte: the module is as small as its data.
    let text = r#"(module (memory 65536) (data (i32.const 0xffff_ffff) "a"))"#;
    let module = instrument(&Limits::application(), &wat(text)).expect("it fits");
    assert_eq!(module.interface.data[0].offset, 0xffff_ffff);
}

/// A function of `depth` nested blocks.
fn nested(depth: usize, opening: &[Instruction<'_>]) -> Vec<u8> {
    let mut body = Function::new([]);
    for instruction in (0..depth).flat_map(|_| opening) {
        body.instruction(instruction);
    }
    (0..=depth).for_each(|_| {
        body.instruction(&Instruction::End);
    });
    functions(&[body])
}

#[test]
fn deep_nesting_is_refused_by_its_complexity_or_compiles() {
    let openings: [&[Instruction<'_>]; 3] = [
        &[Instruction::Block(BlockType::Empty)],
        &[Instruction::Loop(BlockType::Empty)],
        &[Instruction::I32Const(1), Instruction::If(BlockType::Empty)],
    ];
    let engine = crate::Engine::new().expect("the engine profile");
    for opening in openings {
        let refused = refusal_of(&nested(100_000, opening));
        assert!(
            refused.contains("function 0 has complexity") && refused.contains("limit is 1000000"),
            "{refused}"
        );
        // 51 or 52 for each level.
        let deep = nested(19_000, opening);
        super::super::compile_module(&engine, &Limits::application(), &deep).expect("it compiles");
    }
}

#[test]
fn a_gzip_that_lies_or_goes_on_behind_its_end_is_refused() {
    let module = wat(r#"(module (func (export "canister_init")))"#);
    let packed = gzip(&module);
    instrument(&Limits::application(), &packed).expect("the control");
    let appended = |bytes: &[u8]| refusal_of(&[&packed, bytes].concat());
    // The size is read from the last four bytes, so whatever follows is taken for it.
    assert!(appended(b"\0\0\0\0").contains("declares 0 bytes"));
    assert!(appended(&packed[..9]).starts_with("gzip: "));
    assert!(appended(b"\xff\xff\xff\xff").contains("4294967295 bytes uncompressed, the limit is 104857600"));
    for (at, reason) in [(3, "gzip: "), (10, "gzip: "), (packed.len() - 8, "gzip: ")] {
        let mut altered = packed.clone();
        altered[at] ^= 0xff;
        let refused = refusal_of(&altered);
        assert!(refused.starts_with(reason), "byte {at}: {refused}");
    }
    // A bomb: 100 MiB and one byte of zeros that claim to be ten.
    let mut bomb = gzip(&vec![0; (100 << 20) + 1]);
    let footer = bomb.len() - 4;
    bomb[footer..].copy_from_slice(&10_u32.to_le_bytes());
    assert!(refusal_of(&bomb).contains("declares 10 bytes"));
    // Gzip in gzip is no module.
    assert!(refusal_of(&gzip(&packed)).starts_with("validation: "));
}
