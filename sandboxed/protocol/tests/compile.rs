//! What a compiler says arrives as it was said; what else may arrive is refused or within bounds.

use execution::GlobalValue;
use execution::module::{CustomSection, DataSegment, Interface, MethodKind, SystemExports};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use sandbox_protocol::{
    Assembly, Binding, Claimed, Compiled, FromCompiler, HEADER_BYTES, ToCompiler, decode, encode,
};

const BINDING: Binding = Binding { worker: 1, execution: 0, nonce: 3 };
const NATIVE: &[u8] = b"native code";

/// An interface in which every field has something to say.
fn interface() -> Interface {
    let section = |public, content: &[u8]| CustomSection { public, content: content.to_vec() };
    Interface {
        memory64: true,
        has_memory: true,
        heap_pages_min: 2,
        heap_pages_max: 300,
        methods: [
            ("", MethodKind::Update),
            ("get", MethodKind::Query),
            ("get all", MethodKind::CompositeQuery),
            ("größe", MethodKind::Query),
        ]
        .map(|(name, kind)| (name.to_owned(), kind))
        .into(),
        exports: SystemExports {
            start: true,
            init: false,
            pre_upgrade: true,
            post_upgrade: false,
            inspect_message: true,
            heartbeat: false,
            global_timer: true,
            low_wasm_memory: false,
        },
        reads_certificate: true,
        custom_sections: [("candid", section(true, b"service : {}")), ("other", section(false, b""))]
            .map(|(name, section)| (name.to_owned(), section))
            .into(),
        globals: vec![
            GlobalValue::I32(-1),
            GlobalValue::I64(i64::MIN),
            GlobalValue::F32(0x7fc0_0000),
            GlobalValue::F64(1),
            GlobalValue::V128(u128::MAX),
        ],
        data: vec![
            DataSegment { offset: 0, bytes: vec![] },
            DataSegment { offset: 7, bytes: b"data".to_vec() },
            DataSegment { offset: 5, bytes: b"more data".to_vec() },
        ],
        compile_instructions: 6_000 * 77,
        drops_data: true,
    }
}

fn frame() -> Vec<u8> {
    let interface = interface();
    let mut frame = Vec::new();
    let compiled = FromCompiler::Compiled(Box::new(Compiled::new(&interface, NATIVE.len())));
    encode(BINDING, &compiled, &mut frame).unwrap();
    frame
}

/// Does with a body what the node does; whether it is within bounds.
fn claimed(body: &[u8]) -> Option<Claimed> {
    match decode(body) {
        Ok(FromCompiler::Compiled(compiled)) => Claimed::try_from(*compiled).ok(),
        Ok(_) | Err(_) => None,
    }
}

#[test]
fn an_interface_comes_back_as_it_was_with_the_bytes_of_its_data() {
    let claimed = claimed(&frame()[HEADER_BYTES..]).unwrap();
    let output = [NATIVE, b"data", b"more data"].concat();
    assert_eq!(claimed.output_bytes(), output.len() as u64);
    assert_eq!(claimed.clone().with(&output), Ok((interface(), NATIVE)));
    for other in [&output[..output.len() - 1], &[], &[&output[..], b"x"].concat()] {
        assert!(claimed.clone().with(other).is_err());
    }
}

#[test]
fn every_truncation_and_every_flipped_byte_is_survived() {
    let frame = frame();
    for end in HEADER_BYTES..frame.len() {
        assert_eq!(claimed(&frame[HEADER_BYTES..end]), None, "cut at {end}");
    }
    for at in 0..frame.len() {
        for flip in 1..=255 {
            let mut changed = frame.clone();
            changed[at] ^= flip;
            let mut assembly = Assembly::default();
            if assembly.push(&changed).is_ok_and(|complete| complete.is_some())
                && let Some(claimed) = claimed(assembly.body())
            {
                // Whatever it says now, an output of another length than it says is refused.
                let long = usize::try_from(claimed.output_bytes()).unwrap() + 1;
                assert!(claimed.with(&vec![0; long]).is_err());
            }
        }
    }
}

#[test]
fn a_hundred_thousand_random_bodies_are_refused_or_decoded() {
    let mut random = StdRng::seed_from_u64(6);
    let mut bytes = [0; 256];
    let mut decoded = 0;
    for _ in 0..100_000 {
        let length = random.random_range(1..bytes.len());
        random.fill_bytes(&mut bytes[..length]);
        bytes[0] %= 6;
        let _within_bounds = claimed(&bytes[..length]);
        decoded += usize::from(decode::<FromCompiler<'_>>(&bytes[..length]).is_ok());
        decoded += usize::from(decode::<ToCompiler<'_>>(&bytes[..length]).is_ok());
    }
    assert!(decoded > 0, "some short messages come up by chance");
}
