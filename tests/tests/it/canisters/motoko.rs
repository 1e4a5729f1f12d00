//! Motoko canisters alone: counter, ledger, compute, timers, certified data; 32 bit with the heap rebuilt on
//! upgrade, and 64 bit with the heap kept.

use candid::{CandidType, Int, Nat, Principal};
use serde::Deserialize;

use crate::certificate::data_from_drun;
use crate::drun::{FIRST, Script, Step, id};

fn nat(value: u64) -> Nat {
    Nat::from(value)
}

fn counter(persistence: &str) {
    let module = format!("motoko/Counter-{persistence}.wasm");
    let mut script = Script::new();
    script.install(FIRST, &module, ());
    let added = script.update(FIRST, "add", (nat(40),));
    let incremented = script.update(FIRST, "inc", ());
    let in_query = script.query(FIRST, "incInQuery", ());
    let underflow = script.update(FIRST, "sub", (nat(42),));
    let failed = script.update(FIRST, "fail", ());
    let after_traps = script.query(FIRST, "get", ());
    script.update(FIRST, "sub", (nat(1),));
    script.update(FIRST, "print", ("value",));
    let calls = script.query(FIRST, "getCalls", ());
    script.upgrade(FIRST, &module, ());
    let kept = script.query(FIRST, "get", ());
    let calls_after = script.query(FIRST, "getCalls", ());
    script.update(FIRST, "set", (Nat::from(u128::MAX),));
    let big = script.update(FIRST, "inc", ());
    let next = format!("motoko/CounterV2-{persistence}.wasm");
    script.upgrade(FIRST, &next, ());
    let second = script.update(FIRST, "inc", ());
    let note = script.query(FIRST, "getNote", ());
    script.update(FIRST, "setNote", ("changed",));
    let changed = script.query(FIRST, "getNote", ());
    let gone = script.query(FIRST, "getCalls", ());
    script.reinstall(FIRST, &next, ());
    let fresh = script.update(FIRST, "add", (nat(5),));

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<Nat>(added), nat(40));
    assert_eq!(run.value::<Nat>(incremented), nat(41));
    assert_eq!(run.value::<Nat>(in_query), nat(42));
    run.assert_error(underflow, "IC0503", "Natural subtraction underflow");
    run.assert_error(failed, "IC0503", "assertion failed");
    assert_eq!(run.value::<Nat>(after_traps), nat(41));
    assert_eq!(run.value::<Nat>(calls), nat(3));
    assert_eq!(run.value::<Nat>(kept), nat(40));
    assert_eq!(run.value::<Nat>(calls_after), nat(1000));
    assert_eq!(run.value::<Nat>(big), Nat::from(u128::MAX) + nat(1));
    assert_eq!(run.value::<Nat>(second), Nat::from(u128::MAX) + nat(3));
    assert_eq!(run.value::<String>(note), "second version");
    assert_eq!(run.value::<String>(changed), "changed");
    run.assert_error(gone, "IC0536", "getCalls");
    assert_eq!(run.value::<Nat>(fresh), nat(5));
    assert_eq!(run.prints[0], "value 40");
    assert_eq!(run.prints[1], "counter: pre_upgrade at 40");
    assert_eq!(run.prints[2], "counter: post_upgrade at 40");
}

#[test]
fn a_32_bit_counter_keeps_its_value_over_traps_and_upgrades() {
    counter("classic");
}

#[test]
fn a_64_bit_counter_keeps_its_value_over_traps_and_upgrades() {
    counter("eop");
}

#[derive(Debug, PartialEq, CandidType, Deserialize)]
enum TransferError {
    #[serde(rename = "insufficientFunds")]
    InsufficientFunds { balance: Nat },
    #[serde(rename = "zeroAmount")]
    ZeroAmount,
}

#[derive(Debug, PartialEq, CandidType, Deserialize)]
enum Receipt {
    #[serde(rename = "ok")]
    Ok(Nat),
    #[serde(rename = "err")]
    Err(TransferError),
}

#[derive(Debug, PartialEq, CandidType, Deserialize)]
enum Kind {
    #[serde(rename = "mint")]
    Mint,
    #[serde(rename = "transfer")]
    Transfer,
    #[serde(rename = "burn")]
    Burn,
}

#[derive(Debug, CandidType, Deserialize)]
struct Entry {
    kind: Kind,
    from: Principal,
    to: Principal,
    amount: Nat,
    memo: u64,
    at: Int,
}

fn ledger(variant: &str) {
    let module = format!("motoko/Ledger-{variant}.wasm");
    let minter = Principal::anonymous();
    let alice = id(7);
    let mut script = Script::new();
    script.install(FIRST, &module, ("Shell", nat(1_000_000)));
    let sent = script.update(FIRST, "transfer", (alice, nat(300), 77_u64));
    let too_much = script.update(FIRST, "transfer", (alice, nat(1_000_000), 0_u64));
    let nothing = script.update(FIRST, "transfer", (alice, nat(0), 0_u64));
    let refused = script.update(FIRST, "burn", (nat(2_000_000),));
    let trapped = script.update(FIRST, "transferOrTrap", (alice, nat(5_000_000)));
    let moved = script.update(FIRST, "transferOrTrap", (alice, nat(200)));
    let minted = script.update(FIRST, "mint", (alice, nat(1000)));
    let burnt = script.update(FIRST, "burn", (nat(500),));
    let name = script.query(FIRST, "name", ());
    let whoami = script.query(FIRST, "whoami", ());
    let history = script.query(FIRST, "history", (nat(1), nat(10)));
    let first_half = figures(&mut script, alice);
    script.upgrade(FIRST, &module, ("ignored", nat(5)));
    let upgrades = script.query(FIRST, "upgradeCount", ());
    let since_start = script.query(FIRST, "entriesSinceStart", ());
    let kept_name = script.query(FIRST, "name", ());
    let second_half = figures(&mut script, alice);
    let tip = script.query(FIRST, "tipHash", ());
    let certificate = script.query(FIRST, "certificate", ());
    let after = script.update(FIRST, "transfer", (alice, nat(1), 1_u64));

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<Receipt>(sent), Receipt::Ok(nat(2)));
    let balance = nat(999_700);
    assert_eq!(run.value::<Receipt>(too_much), Receipt::Err(TransferError::InsufficientFunds { balance }));
    assert_eq!(run.value::<Receipt>(nothing), Receipt::Err(TransferError::ZeroAmount));
    run.assert_error(refused, "IC0406", "insufficient funds: 999700 of 2000000");
    run.assert_error(trapped, "IC0503", "Natural subtraction underflow");
    assert_eq!(run.value::<Nat>(moved), nat(3));
    assert_eq!(run.value::<Nat>(minted), nat(4));
    assert_eq!(run.value::<Nat>(burnt), nat(5));
    assert_eq!(run.value::<Principal>(whoami), minter);
    let entries: Vec<Entry> = run.value(history);
    let kinds: Vec<&Kind> = entries.iter().map(|entry| &entry.kind).collect();
    assert_eq!(kinds, [&Kind::Transfer, &Kind::Transfer, &Kind::Mint, &Kind::Burn]);
    assert_eq!((entries[0].from, entries[0].to), (minter, alice));
    assert_eq!((&entries[0].amount, entries[0].memo), (&nat(300), 77));
    assert!(entries[0].at < entries[3].at, "time goes on from round to round");
    // Balance of the minter, of alice, supply, sum, holders, height: the same after an upgrade.
    let expected = [999_000, 1500, 1_000_500, 1_000_500, 2, 5].map(nat);
    assert_eq!(first_half.map(|step| run.value::<Nat>(step)), expected);
    assert_eq!(second_half.map(|step| run.value::<Nat>(step)), expected);
    assert_eq!(run.value::<Nat>(upgrades), nat(1));
    assert_eq!(run.value::<Nat>(since_start), nat(0));
    for step in [name, kept_name] {
        assert_eq!(run.value::<String>(step), "Shell");
    }
    let tip: Vec<u8> = run.value(tip);
    assert_eq!(tip[..16], 5_u128.to_le_bytes());
    assert_eq!(tip[16..], 1_000_500_u128.to_le_bytes());
    assert_eq!(data_from_drun(run.value(certificate), id(FIRST)), tip);
    assert_eq!(run.value::<Receipt>(after), Receipt::Ok(nat(6)));
}

fn figures(script: &mut Script, alice: Principal) -> [Step; 6] {
    [
        script.query(FIRST, "balanceOf", (Principal::anonymous(),)),
        script.query(FIRST, "balanceOf", (alice,)),
        script.query(FIRST, "totalSupply", ()),
        script.query(FIRST, "audit", ()),
        script.query(FIRST, "holders", ()),
        script.query(FIRST, "height", ()),
    ]
}

#[test]
fn a_32_bit_ledger_with_a_copying_collector_keeps_its_books() {
    ledger("classic");
}

#[test]
fn a_32_bit_ledger_with_a_generational_collector_keeps_its_books() {
    ledger("generational");
}

#[test]
fn a_64_bit_ledger_keeps_its_books() {
    ledger("eop");
}

fn compute(persistence: &str) {
    let module = format!("motoko/Compute-{persistence}.wasm");
    let mut script = Script::new();
    script.install(FIRST, &module, ());
    let numbers = [
        (script.query(FIRST, "fib", (nat(18),)), nat(2584)),
        (script.query(FIRST, "factorial", (nat(20),)), nat(2_432_902_008_176_640_000)),
        (script.query(FIRST, "primesBelow", (nat(10_000),)), nat(1229)),
        (script.query(FIRST, "textLength", (nat(1000),)), nat(2890)),
        (script.query(FIRST, "depth", (nat(1000),)), nat(1000)),
        (script.query(FIRST, "divide", (nat(1_000_000_007), nat(10))), nat(100_000_000)),
        (script.query(FIRST, "at", (nat(2),)), nat(13)),
        (script.update(FIRST, "churn", (nat(20), nat(2000))), nat(2000)),
        (script.update(FIRST, "grow", (nat(20_000),)), nat(1)),
        (script.update(FIRST, "grow", (nat(20_000),)), nat(2)),
    ];
    let median = script.query(FIRST, "sortMedian", (nat(1001),));
    let trace = script.query(FIRST, "matrixTrace", (nat(20),));
    let region = script.update(FIRST, "growRegion", (3_u64,));
    script.update(FIRST, "store", (70_000_u64, b"stable bytes".to_vec()));
    let stored = script.query(FIRST, "load", (69_999_u64, nat(13)));
    let counted = script.query(FIRST, "instructionsOf", (nat(10_000),));
    let too_deep = script.query(FIRST, "depth", (nat(10_000_000),));
    let by_zero = script.query(FIRST, "divide", (nat(1), nat(0)));
    let past_end = script.query(FIRST, "at", (nat(3),));
    let region_past_end = script.query(FIRST, "load", (3 * 65_536_u64, nat(1)));
    script.upgrade(FIRST, &module, ());
    let kept = script.update(FIRST, "grow", (nat(1),));
    let stored_after = script.query(FIRST, "load", (69_999_u64, nat(13)));
    script.update(FIRST, "release", ());
    let released = script.update(FIRST, "grow", (nat(1),));

    let run = script.run_in_all_modes();
    for (step, expected) in numbers {
        assert_eq!(run.value::<Nat>(step), expected, "{step:?}");
    }
    assert_eq!(run.value::<u32>(median), sorted_median(1001));
    assert!((run.value::<f64>(trace) - matrix_trace(20)).abs() < f64::EPSILON);
    assert_eq!(run.value::<u64>(region), 3 + 42);
    for step in [stored, stored_after] {
        assert_eq!(run.value::<Vec<u8>>(step), b"\0stable bytes");
    }
    let counted: u64 = run.value(counted);
    assert!((10_000..10_000_000).contains(&counted), "{counted} instructions for 10,000 turns");
    run.assert_error(too_deep, "IC0502", "stack overflow");
    run.assert_error(by_zero, "IC0502", "integer division by 0");
    run.assert_error(past_end, "IC0503", "index out of bounds");
    run.assert_error(region_past_end, "IC0503", "out of bounds");
    assert_eq!(run.value::<Nat>(kept), nat(3));
    assert_eq!(run.value::<Nat>(released), nat(1));
}

/// The canister's own numbers, computed here.
fn sorted_median(count: usize) -> u32 {
    let mut seed = 2_463_534_242_u32;
    let mut values: Vec<u32> = (0..count)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed
        })
        .collect();
    values.sort_unstable();
    values[count / 2]
}

fn matrix_trace(size: usize) -> f64 {
    let value = |i: usize| f64::from(u32::try_from(i % 7).expect("small")) + 0.5;
    let mut trace = 0.0;
    for i in 0..size {
        for k in 0..size {
            trace += value(i * size + k) * value(k * size + i);
        }
    }
    trace
}

#[test]
fn a_32_bit_canister_computes_allocates_and_uses_stable_memory() {
    compute("classic");
}

#[test]
fn a_64_bit_canister_computes_allocates_and_uses_stable_memory() {
    compute("eop");
}

fn timers(persistence: &str) {
    let mut script = Script::new();
    script.install(FIRST, &format!("motoko/Timers-{persistence}.wasm"), ());
    script.update(FIRST, "every", (nat(1),));
    nops(&mut script, 6);
    let ticks = script.query(FIRST, "getTicks", ());
    let beaten = script.query(FIRST, "hasBeaten", ());
    script.update(FIRST, "stop", ());
    nops(&mut script, 2);
    let stopped = script.query(FIRST, "getTicks", ());
    nops(&mut script, 3);
    let still = script.query(FIRST, "getTicks", ());
    script.update(FIRST, "once", (nat(20), nat(7)));
    script.update(FIRST, "onceTrapping", (nat(20),));
    let cancelled = script.update(FIRST, "once", (nat(21), nat(500)));
    // The fourth timer of this canister.
    script.update(FIRST, "cancel", (nat(4),));
    let early = script.query(FIRST, "getShots", ());
    nops(&mut script, 25);
    let shots = script.query(FIRST, "getShots", ());
    let at = script.query(FIRST, "lastShot", ());

    let run = script.run_in_all_modes();
    let ticked: Nat = run.value(ticks);
    assert!(ticked >= nat(3), "a tick a second: {ticked} in more than six rounds");
    assert!(run.value::<bool>(beaten));
    assert_eq!(run.value::<Nat>(stopped), run.value::<Nat>(still));
    assert_eq!(run.value::<Nat>(cancelled), nat(4));
    assert_eq!(run.value::<Nat>(early), nat(0));
    assert_eq!(run.value::<Nat>(shots), nat(7));
    assert!(run.value::<Int>(at) > 1_620_328_630_000_000_000_i64);
    assert_eq!(run.prints.iter().filter(|line| *line == "shot 7").count(), 1);
}

fn nops(script: &mut Script, count: usize) {
    for _ in 0..count {
        script.update(FIRST, "nop", ());
    }
}

#[test]
fn timers_and_heartbeats_of_a_32_bit_canister_fire() {
    timers("classic");
}

#[test]
fn timers_and_heartbeats_of_a_64_bit_canister_fire() {
    timers("eop");
}

#[derive(CandidType, Deserialize)]
struct CertifiedValue {
    data: Vec<u8>,
    certificate: Option<Vec<u8>>,
}

fn certified(persistence: &str) {
    let module = format!("motoko/Certified-{persistence}.wasm");
    let mut script = Script::new();
    script.install(FIRST, &module, ());
    let written = script.update(FIRST, "set", (vec![7_u8; 32],));
    let read = script.query(FIRST, "get", ());
    let too_long = script.update(FIRST, "set", (vec![8_u8; 33],));
    let in_query = script.query(FIRST, "setInQuery", (vec![9_u8; 32],));
    let in_update = script.update(FIRST, "certificateInUpdate", ());
    script.upgrade(FIRST, &module, ());
    let kept = script.query(FIRST, "get", ());

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<Nat>(written), nat(1));
    run.assert_error(too_long, "IC0504", "32");
    run.assert_error(in_query, "IC0504", "certified_data_set");
    assert_eq!(run.value::<Option<Vec<u8>>>(in_update), None);
    for step in [read, kept] {
        let value: CertifiedValue = run.value(step);
        assert_eq!(value.data, [7; 32]);
        assert_eq!(data_from_drun(value.certificate, id(FIRST)), [7; 32]);
    }
}

#[test]
fn a_32_bit_canister_certifies_data_in_updates_only() {
    certified("classic");
}

#[test]
fn a_64_bit_canister_certifies_data_in_updates_only() {
    certified("eop");
}
