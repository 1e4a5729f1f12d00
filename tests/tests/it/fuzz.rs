//! The fuzz targets in `tests/fuzz`, over their corpus and over inputs from fixed seeds.

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a crate of its own for the fuzzer")]
mod targets;

use std::fs;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use targets::instrumentation::Came;

/// The inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .expect("a corpus")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("an input"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs `target` on an input and names the input if a claim fails.
fn claim<T>(target: fn(&[u8]) -> T, name: &str, input: &[u8]) -> T {
    std::panic::catch_unwind(|| target(input)).unwrap_or_else(|_| {
        panic!("{name} ({} bytes): {}", input.len(), hex::encode(&input[..input.len().min(2_000)]))
    })
}

/// A few bytes changed, a piece taken out, doubled or cut off.
fn changed(input: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..16)).min(bytes.len());
        match random.random_range(0..5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            3 if at < bytes.len() => bytes[at] = random.random(),
            _ if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ => bytes.push(random.random()),
        }
    }
    bytes
}

#[test]
fn uploads_in_any_container_are_taken_or_refused_with_a_reason() {
    let inputs = corpus("container");
    assert!(inputs.len() >= 10, "{} inputs", inputs.len());
    let mut random = SmallRng::seed_from_u64(1);
    for (name, input) in &inputs {
        claim(targets::container::run, name, input);
        for n in 0..60 {
            claim(targets::container::run, &format!("{name}, change {n}"), &changed(input, &mut random));
        }
    }
}

#[test]
fn what_the_validator_accepts_can_be_instrumented_and_compiled() {
    let inputs = corpus("validator");
    assert!(inputs.len() >= 20, "{} inputs", inputs.len());
    let mut random = SmallRng::seed_from_u64(2);
    let (mut accepted, mut refused) = (0, 0);
    let mut count = |good: bool| if good { accepted += 1 } else { refused += 1 };
    for (name, input) in &inputs {
        count(claim(targets::validator::run, name, input));
        for n in 0..60 {
            count(claim(
                targets::validator::run,
                &format!("{name}, change {n}"),
                &changed(input, &mut random),
            ));
        }
    }
    assert!(
        accepted > 50 && refused > 500,
        "{accepted} accepted, {refused} refused: a claim of both is needed"
    );
}

#[test]
fn random_canisters_do_the_same_with_and_without_instrumentation() {
    let committed = corpus("instrumentation");
    let run = |(name, input): &(String, Vec<u8>)| claim(targets::instrumentation::run, name, input);
    let compared = committed.iter().map(run).filter(|came| matches!(came, Came::Compared(1..))).count();
    assert!(compared >= 10, "{compared} of {} committed inputs are compared", committed.len());
    let mut random = SmallRng::seed_from_u64(3);
    let (mut modules, mut refused, mut compared) = (0, 0, 0);
    for n in 0..400 {
        let mut input = vec![0; random.random_range(200..4_000)];
        random.fill_bytes(&mut input);
        match claim(targets::instrumentation::run, &format!("input {n}"), &input) {
            Came::Nothing => {}
            Came::Refused => refused += 1,
            Came::Compared(calls) => {
                modules += 1;
                compared += calls;
            }
        }
    }
    println!("{modules} modules compared in {compared} entry points, {refused} refused");
    assert!(modules >= 80 && compared >= 80, "{modules} modules, {compared} entry points, {refused} refused");
}

/// Messages as workers and the node send them, as inputs of both targets.
fn messages() -> Vec<(String, Vec<u8>)> {
    let mut inputs = corpus("worker");
    for (_, input) in &mut inputs {
        // The step.
        input.remove(0);
    }
    inputs
}

#[test]
fn frames_of_any_bytes_are_refused_or_decoded_and_say_the_same_again() {
    let inputs: Vec<_> = corpus("frames").into_iter().chain(messages()).collect();
    assert!(inputs.len() >= 20, "{} inputs", inputs.len());
    let mut random = SmallRng::seed_from_u64(4);
    let (mut decoded, mut refused) = (0, 0);
    let mut count = |came| match came {
        targets::frames::Came::Decoded => decoded += 1,
        targets::frames::Came::Refused => refused += 1,
    };
    for (name, input) in &inputs {
        count(claim(targets::frames::run, name, input));
        for n in 0..2_000 {
            count(claim(targets::frames::run, &format!("{name}, change {n}"), &changed(input, &mut random)));
        }
    }
    println!("{decoded} decoded, {refused} refused");
    assert!(decoded > 1_000 && refused > 10_000, "{decoded} decoded, {refused} refused");
}

#[test]
fn a_worker_that_answers_with_any_bytes_changes_nothing_that_it_may_not() {
    let inputs = corpus("worker");
    assert!(inputs.len() >= 15, "{} inputs", inputs.len());
    let mut random = SmallRng::seed_from_u64(5);
    let (mut committed, mut refused) = (0, 0);
    let mut count = |came| match came {
        targets::worker::Came::Committed => committed += 1,
        targets::worker::Came::Refused => refused += 1,
    };
    for (name, input) in &inputs {
        count(claim(targets::worker::run, name, input));
        for n in 0..30 {
            count(claim(targets::worker::run, &format!("{name}, change {n}"), &changed(input, &mut random)));
        }
    }
    println!("{committed} committed, {refused} refused");
    assert!(committed > 20 && refused > 200, "{committed} committed, {refused} refused");
}

#[test]
fn files_of_any_bytes_are_refused_or_decoded_and_say_the_same_again() {
    let inputs = corpus("code_cache");
    assert!(inputs.len() >= 8, "{} inputs", inputs.len());
    let mut random = SmallRng::seed_from_u64(6);
    let (mut decoded, mut refused) = (0, 0);
    let mut count = |came| match came {
        targets::code_cache::Came::Decoded => decoded += 1,
        targets::code_cache::Came::Refused => refused += 1,
    };
    for (name, input) in &inputs {
        count(claim(targets::code_cache::run, name, input));
        for n in 0..2_000 {
            let name = format!("{name}, change {n}");
            count(claim(targets::code_cache::run, &name, &changed(input, &mut random)));
        }
    }
    println!("{decoded} decoded, {refused} refused");
    assert!(decoded > 500 && refused > 10_000, "{decoded} decoded, {refused} refused");
}

#[test]
fn the_corpus_is_of_this_protocol() {
    let inputs = messages();
    let decoded = inputs
        .iter()
        .filter(|(_, body)| sandbox_protocol::decode::<sandbox_protocol::ToNode<'_>>(body).is_ok());
    assert!(decoded.count() * 2 > inputs.len(), "most of the corpus is of another version of the protocol");
}
