//! What happens once: starting a worker, giving it a canister, compiling.

use std::cell::RefCell;

use execution::{Compiler, EntryPoint};
use sandbox_host::SandboxOptions;

use super::{Bench, GIB, MIB, MOTOKO};
use crate::canister::Canister;
use crate::modules::{self, Heap};
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, Timed, interleaved_timed, time};

/// No worker ahead: each start is a whole one.
pub(super) fn nothing_ahead() -> SandboxOptions {
    SandboxOptions { pool: 0, ..SandboxOptions::default() }
}

/// From no worker to the first reply.
pub(super) fn cold_start(bench: &Bench) -> Result<Vec<Finding>, String> {
    const STARTS: u64 = 21;
    let sandboxed = Bench::sandboxed(nothing_ahead())?;
    let start = |index| {
        let mut canister = Canister::new(&*bench.compiler, MOTOKO, index)?;
        time(|| canister.run(&sandboxed, EntryPoint::Start).map(drop))
    };
    let durations: Samples = (0..STARTS).map(start).collect::<Result<_, _>>()?;
    Ok(vec![Finding::new(
        "cold-start",
        &Compared { limit: 10e6, measured: durations.median(), unit: Unit::Time },
        Target::AtMost(1.0),
        true,
        format!(
            "no worker to the first reply of a {} KB module, compiled before, nothing pre-launched; \
             fastest {}, slowest {} of {STARTS}",
            MOTOKO.len() / 1000,
            Unit::Time.show(durations.quantile(0.0)),
            Unit::Time.show(durations.quantile(1.0))
        ),
    )])
}

/// The same for a canister that has stored pages, by their size.
pub(super) fn attach(bench: &Bench) -> Result<Vec<Finding>, String> {
    const STARTS: usize = 5;
    let sizes = [("1MB", MIB), ("64MB", 64 * MIB), ("1GB", GIB)];
    let mut canisters = Vec::new();
    for (index, (_, bytes)) in sizes.into_iter().enumerate() {
        let text = modules::memory(Heap::Bits64, bytes, 0);
        let mut canister = Canister::from_text(&*bench.compiler, &text, index as u64)?;
        canister.update(&bench.in_process, "store")?;
        canisters.push(canister);
    }
    let first =
        RefCell::new(Canister::from_text(&*bench.compiler, &modules::memory(Heap::Bits64, MIB, 0), 9)?);
    let mut variants: Vec<_> = canisters
        .iter_mut()
        .map(|canister| {
            || {
                let sandboxed = Bench::sandboxed(nothing_ahead())?;
                // The launcher has started when another worker has.
                first.borrow_mut().update(&sandboxed, "empty")?;
                time(|| canister.update(&sandboxed, "empty"))
            }
        })
        .collect();
    let mut variants: Vec<Timed<'_>> = variants.iter_mut().map(|variant| variant as Timed<'_>).collect();
    let samples = interleaved_timed(STARTS, &mut variants)?;
    let limit = samples[0].median();
    let findings = sizes.iter().zip(&samples).map(|((size, _), samples)| {
        Finding::new(
            format!("attach-{size}"),
            &Compared { limit, measured: samples.median(), unit: Unit::Time },
            Target::None,
            true,
            format!("no worker to the reply of an empty update, {size} of pages stored, against 1 MB"),
        )
    });
    Ok(findings.collect())
}

/// Compiling what was compiled before.
pub(super) fn compile_cache(_: &Bench) -> Result<Vec<Finding>, String> {
    let fresh = Bench::new()?;
    let compile = || {
        time(|| {
            let _module =
                fresh.compiler.compile(MOTOKO).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            Ok(())
        })
    };
    Ok(vec![Finding::new(
        "compile-cache",
        &Compared { limit: compile()?, measured: compile()?, unit: Unit::Time },
        Target::AtMost(0.05),
        true,
        format!("a {} KB module compiled for the second time, against the first", MOTOKO.len() / 1000),
    )])
}
