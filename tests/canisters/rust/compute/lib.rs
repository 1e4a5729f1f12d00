//! Work for the engine: hashing, floats, sorting, recursion, stable memory, certified data.

use ic_cdk::{api, stable};
use sha2::{Digest, Sha256};
use std::hint::black_box;

/// SHA-256, `rounds` times over 32 zero bytes.
#[ic_cdk::query]
fn sha256(rounds: u64) -> String {
    let mut hash = [0_u8; 32];
    for _ in 0..rounds {
        hash = Sha256::digest(hash).into();
    }
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[ic_cdk::query]
fn matrix_sum(size: u32) -> f64 {
    let n = size as usize;
    let a: Vec<f64> = (0..n * n).map(|i| (i % 7) as f64 + 0.5).collect();
    let mut product = vec![0.0; n * n];
    for i in 0..n {
        for k in 0..n {
            for j in 0..n {
                product[i * n + j] += a[i * n + k] * a[k * n + j];
            }
        }
    }
    product.iter().sum()
}

#[ic_cdk::query]
fn sort_median(count: u32) -> u64 {
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
    values[values.len() / 2]
}

#[ic_cdk::query]
fn fib(n: u32) -> u64 {
    if n < 2 { u64::from(n) } else { fib(n - 1) + fib(n - 2) }
}

/// Float corner cases in one text: NaN must come out the same in every mode.
#[ic_cdk::query]
fn float_bits() -> String {
    let zero = black_box(0.0_f64);
    let values = [zero / zero, -(zero / zero), 1.0 / zero, (-1.0_f64).sqrt(), black_box(2.0_f64).sqrt(), f64::MIN_POSITIVE / 3.0];
    values.iter().map(|value| format!("{:016x}", value.to_bits())).collect::<Vec<_>>().join(" ")
}

#[ic_cdk::query]
fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

#[inline(never)]
fn descend(depth: u64) -> u64 {
    if black_box(depth) == 0 { 0 } else { descend(depth - 1) + 1 }
}

#[ic_cdk::query]
fn depth(n: u64) -> u64 {
    descend(n)
}

/// What `performance_counter` says `sha256` costs.
#[ic_cdk::query]
fn instructions_of(rounds: u64) -> u64 {
    let before = api::performance_counter(0);
    black_box(sha256(rounds));
    api::performance_counter(0) - before
}

#[ic_cdk::update]
fn stable_grow(pages: u64) -> u64 {
    stable::stable_grow(pages).expect("stable memory grows")
}

/// Writes a pattern over `length` bytes at `offset`; the sum of what is read back.
#[ic_cdk::update]
fn stable_fill(offset: u64, length: u64) -> u64 {
    let pattern: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    stable::stable_write(offset, &pattern);
    let mut back = vec![0; pattern.len()];
    stable::stable_read(offset, &mut back);
    back.iter().map(|byte| u64::from(*byte)).sum()
}

#[ic_cdk::query]
fn stable_read(offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    stable::stable_read(offset, &mut bytes);
    bytes
}

#[ic_cdk::update]
fn certify(data: Vec<u8>) {
    api::certified_data_set(&data);
}

#[ic_cdk::query]
fn certificate() -> Option<Vec<u8>> {
    api::data_certificate()
}

/// Time, version, controller and replication, as the System API says them.
#[ic_cdk::query]
fn surroundings() -> (u64, u64, bool, bool) {
    let caller = api::msg_caller();
    (api::time(), api::canister_version(), api::is_controller(&caller), api::in_replicated_execution())
}

#[ic_cdk::query]
fn divide(a: u64, b: u64) -> u64 {
    a / b
}

ic_cdk::export_candid!();
