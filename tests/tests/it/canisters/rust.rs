//! Rust canisters alone: key-value store, ledger, compute, timers.

use candid::{CandidType, Principal};
use serde::Deserialize;

use crate::certificate::data_from_drun;
use crate::drun::{FIRST, Script, id};

#[test]
fn a_store_in_stable_memory_survives_traps_and_upgrades() {
    const MODULE: &str = "rust/kv.wasm";
    let mut script = Script::new();
    script.install(FIRST, MODULE, (Some("first"),));
    let new = script.update(FIRST, "put", ("k", vec![1_u8, 2, 3]));
    let old = script.update(FIRST, "put", ("k", vec![4_u8]));
    let panicked = script.update(FIRST, "panic_after_write", ("lost",));
    let lost = script.query(FIRST, "get", ("lost",));
    let filled = script.update(FIRST, "fill", (300_u64,));
    let removed = script.update(FIRST, "remove", ("k00000001",));
    let refused = script.update(FIRST, "grow_heap", (1_u64,));
    let keys = script.query(FIRST, "keys_from", ("k0000000", 3_u32));
    let pages = script.query(FIRST, "stable_pages", ());
    let whoami = script.query(FIRST, "whoami", ());
    script.upgrade(FIRST, MODULE, (None::<String>,));
    let name = script.query(FIRST, "name", ());
    script.upgrade(FIRST, MODULE, (Some("renamed"),));
    let renamed = script.query(FIRST, "name", ());
    let value = script.query(FIRST, "get", ("k",));
    let len = script.query(FIRST, "len", ());
    let writes = script.query(FIRST, "writes", ());
    script.reinstall(FIRST, MODULE, (None::<String>,));
    let empty = script.query(FIRST, "len", ());

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<Option<Vec<u8>>>(new), None);
    assert_eq!(run.value::<Option<Vec<u8>>>(old), Some(vec![1, 2, 3]));
    run.assert_error(panicked, "IC0503", "intended panic");
    assert_eq!(run.value::<Option<Vec<u8>>>(lost), None);
    assert_eq!(run.value::<u64>(filled), 301);
    assert_eq!(run.value::<Option<Vec<u8>>>(removed), Some(vec![1; 32]));
    run.assert_error(refused, "IC0406", "");
    assert_eq!(run.value::<Vec<String>>(keys), ["k00000000", "k00000002", "k00000003"]);
    assert!(run.value::<u64>(pages) > 0);
    assert_eq!(run.value::<Principal>(whoami), Principal::anonymous());
    assert_eq!(run.value::<String>(name), "first");
    assert_eq!(run.value::<String>(renamed), "renamed");
    assert_eq!(run.value::<Option<Vec<u8>>>(value), Some(vec![4]));
    // 301 keys, less one, and the "ballast" that each pre_upgrade writes.
    assert_eq!(run.value::<u64>(len), 301);
    assert_eq!(run.value::<u64>(writes), 304);
    assert_eq!(run.value::<u64>(empty), 0);
    assert_eq!(run.prints[0], "kv: init first");
    let upgrade = ["kv: pre_upgrade", "kv: post_upgrade after 303 writes"];
    assert!(run.prints.windows(2).any(|lines| lines == upgrade), "{:?}", run.prints);
}

#[derive(Debug, PartialEq, CandidType, Deserialize)]
enum TransferError {
    InsufficientFunds { balance: u128 },
    ZeroAmount,
}

#[derive(Debug, PartialEq, CandidType, Deserialize)]
enum Receipt {
    Ok(u64),
    Err(TransferError),
}

#[test]
fn a_ledger_in_stable_memory_keeps_its_books() {
    const MODULE: &str = "rust/ledger.wasm";
    let (minter, alice) = (Principal::anonymous(), id(7));
    let mut script = Script::new();
    script.install(FIRST, MODULE, (1_000_000_u128,));
    let sent = script.update(FIRST, "transfer", (alice, 300_u128));
    let too_much = script.update(FIRST, "transfer", (alice, 1_000_000_u128));
    let nothing = script.update(FIRST, "transfer", (alice, 0_u128));
    let trapped = script.update(FIRST, "transfer_or_trap", (alice, 5_000_000_u128));
    let moved = script.update(FIRST, "transfer_or_trap", (alice, 700_u128));
    let minted = script.update(FIRST, "mint", (alice, 1_u128 << 100));
    script.upgrade(FIRST, MODULE, (5_u128,));
    let figures = [
        (script.query(FIRST, "balance_of", (minter,)), 999_000),
        (script.query(FIRST, "balance_of", (alice,)), 1000 + (1 << 100)),
        (script.query(FIRST, "total_supply", ()), 1_000_000 + (1 << 100)),
        (script.query(FIRST, "audit", ()), 1_000_000 + (1 << 100)),
    ];
    let transfers = script.query(FIRST, "transfers", ());

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<Receipt>(sent), Receipt::Ok(1));
    let balance = 999_700;
    assert_eq!(run.value::<Receipt>(too_much), Receipt::Err(TransferError::InsufficientFunds { balance }));
    assert_eq!(run.value::<Receipt>(nothing), Receipt::Err(TransferError::ZeroAmount));
    run.assert_error(trapped, "IC0503", "insufficient funds");
    assert_eq!(run.value::<u64>(moved), 1);
    assert_eq!(run.value::<u128>(minted), 1_000_000 + (1 << 100));
    for (step, expected) in figures {
        assert_eq!(run.value::<u128>(step), expected, "{step:?}");
    }
    assert_eq!(run.value::<u64>(transfers), 1);
}

#[test]
fn a_rust_canister_computes_and_uses_stable_memory() {
    const MODULE: &str = "rust/compute.wasm";
    let mut script = Script::new();
    script.install(FIRST, MODULE, ());
    let hash = script.query(FIRST, "sha256", (2_u64,));
    let sum = script.query(FIRST, "matrix_sum", (12_u32,));
    let median = script.query(FIRST, "sort_median", (1001_u32,));
    let fib = script.query(FIRST, "fib", (20_u32,));
    let floats = script.query(FIRST, "float_bits", ());
    let depth = script.query(FIRST, "depth", (1000_u64,));
    let counted = script.query(FIRST, "instructions_of", (100_u64,));
    let before = script.update(FIRST, "stable_grow", (2_u64,));
    let filled = script.update(FIRST, "stable_fill", (65_000_u64, 10_000_u64));
    let read = script.query(FIRST, "stable_read", (65_250_u64, 3_u64));
    let past_end = script.update(FIRST, "stable_fill", (131_070_u64, 3_u64));
    let by_zero = script.query(FIRST, "divide", (1_u64, 0_u64));
    script.update(FIRST, "certify", (vec![1_u8; 32],));
    let certificate = script.query(FIRST, "certificate", ());
    let too_long = script.update(FIRST, "certify", (vec![1_u8; 33],));
    let surroundings = script.query(FIRST, "surroundings", ());

    let run = script.run_in_all_modes();
    // SHA-256 of SHA-256 of 32 zero bytes.
    assert_eq!(run.value::<String>(hash), "2b32db6c2c0a6235fb1397e8225ea85e0f0e6e8c7b126d0016ccbde0e667151e");
    assert!((run.value::<f64>(sum) - matrix_sum(12)).abs() < f64::EPSILON);
    assert_eq!(run.value::<u64>(median), sorted_median(1001));
    assert_eq!(run.value::<u64>(fib), 6765);
    let floats: String = run.value(floats);
    let floats: Vec<&str> = floats.split(' ').collect();
    assert_eq!(floats[2..], ["7ff0000000000000", floats[3], "3ff6a09e667f3bcd", "0005555555555555"]);
    for nan in [floats[0], floats[3]] {
        let bits = u64::from_str_radix(nan, 16).expect("hexadecimal");
        assert!(f64::from_bits(bits).is_nan(), "{nan}");
    }
    assert_eq!(run.value::<u64>(depth), 1000);
    let counted: u64 = run.value(counted);
    assert!((100_000..10_000_000).contains(&counted), "{counted} instructions for 100 hashes");
    assert_eq!(run.value::<u64>(before), 0);
    let expected: u64 = (0..10_000).map(|i| i % 251).sum();
    assert_eq!(run.value::<u64>(filled), expected);
    assert_eq!(run.value::<Vec<u8>>(read), [250, 0, 1]);
    run.assert_error(past_end, "IC0502", "stable memory out of bounds");
    run.assert_error(by_zero, "IC0503", "divide by zero");
    assert_eq!(data_from_drun(run.value(certificate), id(FIRST)), [1; 32]);
    run.assert_error(too_long, "IC0504", "32");
    let (time, version, controller, replicated) = run.values::<(u64, u64, bool, bool)>(surroundings);
    assert!(time >= 1_620_328_630_000_000_000);
    assert!(version > 0);
    assert!(controller, "the anonymous principal controls the first canister");
    assert!(!replicated, "a query is not replicated");
}

fn matrix_sum(size: usize) -> f64 {
    let a: Vec<f64> =
        (0..size * size).map(|i| f64::from(u32::try_from(i % 7).expect("small")) + 0.5).collect();
    let mut product = vec![0.0; size * size];
    for i in 0..size {
        for k in 0..size {
            for j in 0..size {
                product[i * size + j] += a[i * size + k] * a[k * size + j];
            }
        }
    }
    product.iter().sum()
}

fn sorted_median(count: usize) -> u64 {
    let mut seed = 88_172_645_463_325_252_u64;
    let mut values: Vec<u64> = (0..count)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        })
        .collect();
    values.sort_unstable();
    values[count / 2]
}

#[test]
fn timers_of_the_rust_cdk_fire_and_are_set_again_after_an_upgrade() {
    const MODULE: &str = "rust/timers.wasm";
    let mut script = Script::new();
    script.install(FIRST, MODULE, ());
    nops(&mut script, 6);
    let ticks = script.query(FIRST, "ticks", ());
    script.update(FIRST, "once", (100_u64, 500_u64));
    let cancelled = script.update(FIRST, "cancel_all", ());
    script.update(FIRST, "once", (2_u64, 7_u64));
    script.update(FIRST, "once_panicking", (2_u64,));
    nops(&mut script, 6);
    let shots = script.query(FIRST, "shots", ());
    let later = script.query(FIRST, "ticks", ());
    script.upgrade(FIRST, MODULE, ());
    let restarted = script.query(FIRST, "ticks", ());
    nops(&mut script, 6);
    let after = script.query(FIRST, "ticks", ());

    let run = script.run_in_all_modes();
    let ticked: u64 = run.value(ticks);
    assert!(ticked >= 3, "a tick a second: {ticked} in six rounds or more");
    assert_eq!(run.value::<u64>(cancelled), 1);
    assert_eq!(run.value::<u64>(shots), 7);
    assert!(run.value::<u64>(later) > ticked, "a panicking timer doesn't stop the others");
    assert!(run.value::<u64>(restarted) < ticked);
    assert!(run.value::<u64>(after) >= 3);
    assert_eq!(run.prints.iter().filter(|line| *line == "shot 7").count(), 1);
}

fn nops(script: &mut Script, count: usize) {
    for _ in 0..count {
        script.update(FIRST, "nop", ());
    }
}
