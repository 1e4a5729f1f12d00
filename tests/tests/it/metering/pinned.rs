//! Counts of real modules. They depend on the module and the instrumentation alone: a count that moves is a
//! change of what canisters pay, and needs a reason.

use std::sync::Arc;

use candid::{Nat, Principal};
use execution::Limits;

use super::rig::{self, Call};
use crate::drun;

/// A module, its calls, and the counts.
struct Pinned {
    module: &'static str,
    /// Argument of `canister_init`, in Candid.
    arg: Vec<u8>,
    calls: Vec<Call>,
    /// Charged for compiling at install.
    compile: u64,
    /// Of the start function and `canister_init`, then of each call. (The C counter has a heartbeat: 1,007.)
    runs: &'static [u64],
}

fn arg(args: impl candid::utils::ArgumentEncoder) -> Vec<u8> {
    candid::encode_args(args).expect("the arguments encode")
}

fn nat(value: u64) -> Nat {
    Nat::from(value)
}

fn counter() -> Vec<Call> {
    vec![
        Call::update("add", (nat(40),)),
        Call::update("inc", ()),
        Call::update("inc", ()),
        Call::update("sub", (nat(42),)),
        Call::query("get", ()),
        Call::query("incInQuery", ()),
    ]
}

fn ledger() -> Vec<Call> {
    let alice = Principal::from_slice(&[7; 10]);
    vec![
        Call::update("mint", (alice, nat(1_000))),
        Call::update("transfer", (alice, nat(300), 77_u64)),
        Call::query("audit", ()),
        Call::query("totalSupply", ()),
    ]
}

fn pinned() -> Vec<Pinned> {
    let alice = Principal::from_slice(&[7; 10]);
    let shell = || arg(("Shell", nat(1_000_000)));
    vec![
        Pinned {
            module: "c/counter.wasm",
            arg: arg(()),
            calls: vec![
                Call::update("add", (40_u64,)),
                Call::update("inc", ()),
                Call::update("trap_after_inc", ()),
                Call::update("call_inc", ()),
                Call::query("get", ()),
                Call::query("loop_cost", ()),
            ],
            compile: 7_206_000,
            runs: &[
                1_787, 1_007, 4_310, 1_007, 3_793, 1_007, 1_673, 1_007, 9_893, 3_793, 3_803, 2_789, 923_209,
            ],
        },
        Pinned {
            module: "c/stress.wasm",
            arg: arg(()),
            calls: vec![
                Call::update("dirty", (64_u64,)),
                Call::update("stable_grow", (10_u64,)),
                Call::update("stable_dirty", (100_u64,)),
                Call::query("float_sum", (1_000_u64,)),
                Call::query("loop", (1_000_u64,)),
            ],
            compile: 10_374_000,
            runs: &[1_039_172, 3_410, 108_317, 32_871, 5_588],
        },
        Pinned {
            module: "rust/kv.wasm",
            arg: arg((Some("first"),)),
            calls: vec![
                Call::update("put", ("k", vec![1_u8, 2, 3])),
                Call::update("put", ("k", vec![4_u8])),
                Call::update("fill", (300_u64,)),
                Call::update("panic_after_write", ("lost",)),
                Call::update("remove", ("k00000001",)),
                Call::query("get", ("k",)),
                Call::query("keys_from", ("k0000000", 3_u32)),
            ],
            compile: 1_166_586_000,
            runs: &[156_516, 96_225, 78_109, 31_812_191, 123_143, 289_232, 122_226, 143_396],
        },
        Pinned {
            module: "rust/ledger.wasm",
            arg: arg((1_000_000_u128,)),
            calls: vec![
                Call::update("transfer", (alice, 300_u128)),
                Call::update("transfer_or_trap", (alice, 5_000_000_u128)),
                Call::query("balance_of", (alice,)),
                Call::query("audit", ()),
            ],
            compile: 1_132_956_000,
            runs: &[167_876, 134_918, 68_230, 47_707, 29_325],
        },
        Pinned {
            module: "rust/compute.wasm",
            arg: arg(()),
            calls: vec![
                Call::update("stable_grow", (2_u64,)),
                Call::update("stable_fill", (65_000_u64, 10_000_u64)),
                Call::query("sha256", (2_u64,)),
                Call::query("matrix_sum", (12_u32,)),
                Call::query("sort_median", (1_001_u32,)),
                Call::query("fib", (20_u32,)),
                Call::query("float_bits", ()),
            ],
            compile: 1_071_150_000,
            runs: &[36_592, 582_890, 107_241, 186_875, 490_930, 405_185, 38_384],
        },
        Pinned {
            module: "motoko/Counter-classic.wasm",
            arg: arg(()),
            calls: counter(),
            compile: 637_236_000,
            runs: &[2_382, 9_469, 7_685, 7_261, 7_261, 7_665, 6_646, 6_712],
        },
        Pinned {
            module: "motoko/Counter-eop.wasm",
            arg: arg(()),
            calls: counter(),
            compile: 831_390_000,
            runs: &[161_279, 31_689, 26_064, 25_458, 25_458, 26_044, 24_613, 24_756],
        },
        Pinned {
            module: "motoko/Ledger-classic.wasm",
            arg: shell(),
            calls: ledger(),
            compile: 969_528_000,
            runs: &[2_382, 56_759, 55_877, 62_984, 7_556, 6_812],
        },
        Pinned {
            module: "motoko/Ledger-eop.wasm",
            arg: shell(),
            calls: ledger(),
            compile: 1_092_084_000,
            runs: &[205_269, 106_106, 99_832, 112_009, 26_205, 24_787],
        },
        Pinned {
            module: "motoko/Ledger-generational.wasm",
            arg: shell(),
            calls: ledger(),
            compile: 975_264_000,
            runs: &[11_914, 62_546, 61_115, 68_066, 7_683, 6_876],
        },
    ]
}

#[test]
fn the_counts_of_real_modules_are_as_they_were_in_both_modes_warm_and_fresh() {
    let pinned: Vec<(Pinned, Vec<u8>)> = pinned()
        .into_iter()
        .map(|pinned| {
            let wasm = std::fs::read(drun::module(pinned.module)).expect("a module of this repository");
            (pinned, wasm)
        })
        .collect();
    rig::in_all_ways(|way, first| {
        (first..)
            .zip(&pinned)
            .filter_map(|(number, (pinned, wasm))| {
                let runs = rig::run(way, number, wasm, &pinned.arg, &pinned.calls);
                let Pinned { module, runs: wanted, .. } = pinned;
                (runs != *wanted).then(|| format!("{module}: {runs:?}, not {wanted:?}"))
            })
            .collect()
    });
}

#[test]
fn the_price_of_compiling_real_modules_is_as_it_was() {
    let limits = Arc::new(Limits::application());
    let wrong: Vec<String> = pinned()
        .iter()
        .filter_map(|Pinned { module, compile, .. }| {
            let wasm = std::fs::read(drun::module(module)).expect("a module of this repository");
            let instrumented = in_process::compile::instrument(&limits, &wasm).expect("a valid module");
            let instructions = instrumented.interface.compile_instructions;
            (instructions != *compile).then(|| format!("{module}: {instructions}, not {compile}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
