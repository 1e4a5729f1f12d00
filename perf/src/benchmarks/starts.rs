//! What happens once: starting a worker, giving it a canister, compiling.

use execution::{Compiler, EntryPoint};
use sandbox_host::SandboxOptions;

use super::{Bench, MOTOKO};
use crate::canister::Canister;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, time};

/// No worker ahead: each start is a whole one.
fn nothing_ahead() -> SandboxOptions {
    SandboxOptions { pool: 0, ..SandboxOptions::default() }
}

/// From no worker to the first reply.
pub(super) fn cold_start(bench: &Bench) -> Result<Vec<Finding>, String> {
    const STARTS: u64 = 21;
    let sandboxed = Bench::sandboxed(nothing_ahead())?;
    let start = |index| {
        let mut canister = Canister::new(&bench.compiler, MOTOKO, index)?;
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
