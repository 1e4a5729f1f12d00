//! Counting instructions: the product's instrumentation against the engine's own fuel, and against not counting.

use candid::CandidType;
use wasmtime::Engine;

use super::{Bench, CORE};
use crate::modules;
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::runner::Runner;
use crate::sample::{Variant, interleaved};

const ROUNDS: usize = 101;
/// What it may cost against fuel, everywhere (B11 of performance.md section 9).
const AGAINST_FUEL: Target = Target::AtMost(1.1);
/// What it may cost against nothing where code does nothing but call (likewise).
const CALLS_AGAINST_NONE: Target = Target::AtMost(1.45);
/// How far two copies of one variant may be apart.
const CONTROL: f64 = 0.05;
/// A Rust canister of about 340 KB.
const RUST: &[u8] = include_bytes!("../../../tests/canisters/rust/compute.wasm");

/// A function to be run under each kind of metering.
struct Kernel {
    id: &'static str,
    what: &'static str,
    wasm: Vec<u8>,
    function: &'static str,
    arg: Vec<u8>,
}

impl Kernel {
    fn of_text(
        id: &'static str,
        what: &'static str,
        text: &str,
        function: &'static str,
    ) -> Result<Self, String> {
        let wasm = wat::parse_str(text).map_err(|error| error.to_string())?;
        Ok(Self { id, what, wasm, function, arg: Vec::new() })
    }

    /// A query of the Rust canister, whose argument is `number`.
    fn of_rust(
        id: &'static str,
        what: &'static str,
        function: &'static str,
        number: impl CandidType,
    ) -> Result<Self, String> {
        let arg = candid::encode_one(number).map_err(|error| error.to_string())?;
        Ok(Self { id, what, wasm: RUST.into(), function, arg })
    }

    fn all() -> Result<[Self; 5], String> {
        let update = "canister_update kernel";
        Ok([
            Self::of_text("compute", "xorshift", &modules::compute(1 << 19), "canister_update compute")?,
            Self::of_text("calls", "a function that calls itself", &modules::calls(), update)?,
            Self::of_text("loads", "a tight loop of loads", &modules::loads(), update)?,
            Self::of_rust("sha256", "a Rust canister that hashes", "canister_query sha256", 200_u64)?,
            Self::of_rust("sort", "a Rust canister that sorts", "canister_query sort_median", 10_000_u32)?,
        ])
    }
}

/// Three kernels and two methods of a real canister.
pub(super) fn metering(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::this_thread(CORE)?;
    let mut config = bench.engine.raw().config().clone();
    config.consume_fuel(true);
    let fuel = Engine::new(&config).map_err(|error| format!("{error:#}"))?;
    let mut findings = Vec::new();
    for kernel in Kernel::all()? {
        findings.extend(
            measure(bench.engine.raw(), &fuel, &kernel).map_err(|error| format!("{}: {error}", kernel.id))?,
        );
    }
    Ok(findings)
}

fn measure(plain: &Engine, fuel: &Engine, kernel: &Kernel) -> Result<Vec<Finding>, String> {
    let Kernel { id, what, wasm, function, arg } = kernel;
    let mut runners = [
        Runner::new(plain, wasm, function, arg)?,
        Runner::new(fuel, wasm, function, arg)?,
        Runner::product(plain, wasm, function, arg)?,
        // Controls: the first two again.
        Runner::new(plain, wasm, function, arg)?,
        Runner::new(fuel, wasm, function, arg)?,
    ];
    let mut variants: Vec<_> = runners.iter_mut().map(|runner| || runner.run()).collect();
    let mut variants: Vec<Variant<'_>> = variants.iter_mut().map(|variant| variant as Variant<'_>).collect();
    let samples = interleaved(ROUNDS, 1, &mut variants)?;
    let [none, fuel, ours, none_again, fuel_again] = [0, 1, 2, 3, 4].map(|index| samples[index].median());
    let alike = |one: f64, other: f64| (one / other - 1.0).abs() < CONTROL;
    let time = Unit::Time;
    let mut findings = vec![Finding::new(
        format!("metering-{id}"),
        &Compared { limit: fuel, measured: ours, unit: time },
        AGAINST_FUEL,
        alike(fuel, fuel_again),
        format!(
            "{what}: instructions counted by the product (which also notes what is written), against the engine's \
             fuel; without counting {}, so {:.2}x and {:.2}x",
            time.show(none),
            ours / none,
            fuel / none
        ),
    )];
    if *id == "calls" {
        findings.push(Finding::new(
            "metering-calls-none",
            &Compared { limit: none, measured: ours, unit: time },
            CALLS_AGAINST_NONE,
            alike(none, none_again),
            format!("{what}: instructions counted by the product, against not counting"),
        ));
    }
    Ok(findings)
}
