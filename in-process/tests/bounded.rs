//! How much memory a hostile upload makes the validator and the pass take: a bound for each, of what is allocated at
//! most at one time. A binary of its own, because it counts all of the process's allocations.

use std::io::Write as _;

use execution::Limits;
use flate2::{Compression, write::GzEncoder};
use in_process::compile::instrument;
use peak_alloc::PeakAlloc;
use wasm_encoder::{
    BlockType, CodeSection, Function, FunctionSection, Instruction, MemArg, MemorySection, MemoryType,
    Module, TypeSection, ValType,
};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
const HEADER: &[u8] = b"\0asm\x01\0\0\0";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes it")
}

/// The same with another size at its end.
fn lying(mut gzip: Vec<u8>, size: u32) -> Vec<u8> {
    let end = gzip.len() - 4;
    gzip[end..].copy_from_slice(&size.to_le_bytes());
    gzip
}

fn functions(count: usize, body: impl Fn(&mut Function)) -> Vec<u8> {
    let (mut types, mut functions, mut memories, mut code) =
        (TypeSection::new(), FunctionSection::new(), MemorySection::new(), CodeSection::new());
    types.ty().function([], []);
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    for _ in 0..count {
        let mut function = Function::new([(1, ValType::I32)]);
        body(&mut function);
        function.instruction(&Instruction::End);
        functions.function(0);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&code);
    module.finish()
}

fn repeated(count: usize, code: &'static [Instruction<'static>]) -> impl Fn(&mut Function) {
    move |function| {
        for instruction in (0..count).flat_map(|_| code) {
            function.instruction(instruction);
        }
    }
}

#[test]
fn a_hostile_upload_makes_us_allocate_a_bounded_amount() {
    use Instruction as I;
    const AT: MemArg = MemArg { offset: 0, align: 0, memory_index: 0 };
    let declares = |section: u8| [HEADER, &[section, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    let uploads: Vec<(&str, usize, Vec<u8>)> = vec![
        ("a small gzip that claims 100 MiB", MIB, lying(gzip(b"\0asm"), 100 << 20)),
        ("100 MiB of zeros that claim to be ten bytes", MIB, lying(gzip(&vec![0; 100 * MIB]), 10)),
        ("100 MiB and a byte", MIB, gzip(&vec![0; 100 * MIB + 1])),
        // What is unpacked grows by doubling: at the end there are two copies.
        ("100 MiB of zeros", 256 * MIB, gzip(&vec![0; 100 * MIB])),
        (
            "33 million empty custom sections",
            256 * MIB,
            gzip(&[HEADER, &b"\0\x01\0".repeat((100 * MIB - 8) / 3)].concat()),
        ),
        (
            "12 million custom sections called 'name'",
            256 * MIB,
            gzip(&[HEADER, &b"\0\x05\x04name".repeat((100 * MIB - 8) / 7)].concat()),
        ),
        ("four Gi types", MIB, declares(1)),
        ("four Gi imports", MIB, declares(2)),
        ("four Gi functions", MIB, declares(3)),
        ("four Gi tables", MIB, declares(4)),
        ("four Gi globals", MIB, declares(6)),
        ("four Gi exports", MIB, declares(7)),
        ("four Gi element segments", MIB, declares(9)),
        ("four Gi bodies", MIB, declares(10)),
        ("four Gi data segments", MIB, declares(11)),
        ("50,001 functions", 64 * MIB, functions(50_001, |_| {})),
        (
            "100,000 nested blocks",
            64 * MIB,
            functions(1, |function| {
                repeated(100_000, &[I::Block(BlockType::Empty)])(function);
                repeated(100_000, &[I::End])(function);
            }),
        ),
        // The most that code grows by: stores, of which each brings the barrier.
        (
            "10 MiB of stores",
            160 * MIB,
            functions(15, repeated(95_000, &[I::I32Const(0), I::I32Const(0), I::I32Store8(AT)])),
        ),
        // Each branch ends a block, which brings a charge.
        ("5 MiB of branches", 160 * MIB, functions(130, repeated(19_000, &[I::Br(0)]))),
    ];
    let limits = Limits::application();
    let mut wrong = Vec::new();
    for (what, most, upload) in &uploads {
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        let result = instrument(&limits, upload);
        let peak = ALLOCATED.peak_usage() - before;
        println!(
            "{what}: {:.1} MiB for {} bytes, accepted: {}",
            peak as f64 / MIB as f64,
            upload.len(),
            result.is_ok()
        );
        if peak > *most {
            wrong.push(format!("{what}: {peak} bytes, the bound is {most}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
