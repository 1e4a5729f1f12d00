//! Cold starts of a real module of more than 6 MB.

use std::cell::Cell;
use std::sync::Arc;

use execution::{Backend, Compiler, EntryPoint};
use in_process::{InProcess, InProcessOptions};
use sandbox_host::{SandboxOptions, Sandboxed};

use super::launch::{Least, wait_for_one_ahead};
use super::starts::nothing_ahead;
use super::{Bench, CORE};
use crate::canister::Canister;
use crate::fresh::Fresh;
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, Timed, interleaved_timed, time};
use crate::template;

const STARTS: usize = 21;
/// A start from nothing, against the bare one (B7 of performance.md section 9).
const FROM_NOTHING: Target = Target::AtMost(1.3);
/// A start on a worker that waits ahead, against the bare one (likewise).
const FROM_POOL: Target = Target::AtMost(0.5);

/// From nothing and from the pool, against the least that such a start consists of.
pub(super) fn against_bare(bench: &Bench) -> Result<Vec<Finding>, String> {
    let wasm = match template::module() {
        Ok(wasm) => wasm,
        Err(why) => return Ok(vec![Finding::absent("start-6mb", why)]),
    };
    let least = Least::new()?;
    let starts = Starts::new(bench, &wasm)?;
    let fresh = Fresh::new(&starts.module, &[], None)?;
    // Now, and not before: the next worker is launched ahead by a thread that may run anywhere.
    let _pinned = Pinned::executor(CORE)?;
    let variants: &mut [Timed<'_>] =
        &mut [&mut || least.launch(), &mut || fresh.run(), &mut || starts.cold(), &mut || starts.pooled()];
    let samples = interleaved_timed(STARTS, variants)?;
    let limit = samples[0].median() + samples[1].median();
    let held = samples[0].steady() && samples[1].steady();
    let finding = |name: &str, whence: &str, target, measured: &Samples| {
        Finding::new(
            format!("start-6mb-{name}"),
            &Compared { limit, measured: measured.median(), unit: Unit::Time },
            target,
            held,
            format!(
                "first reply of a {}, started from {whence}, against a bare program: a launch of one of 165 bytes \
                 behind the same lockdown ({}), and in a fresh process an engine made, the code mapped and \
                 instantiated ({}); no message",
                starts.describe(),
                Unit::Time.show(samples[0].median()),
                Unit::Time.show(samples[1].median())
            ),
        )
    };
    Ok(vec![
        finding("nothing", "nothing", FROM_NOTHING, &samples[2]),
        finding("pool", "the pool", FROM_POOL, &samples[3]),
    ])
}

/// From nothing and from the pool, against the same in-process (P4 of issue 6: no target, figures to read).
pub(super) fn first_reply(bench: &Bench) -> Result<Vec<Finding>, String> {
    let wasm = match template::module() {
        Ok(wasm) => wasm,
        Err(why) => return Ok(vec![Finding::absent("first-reply-6mb", why)]),
    };
    let starts = Starts::new(bench, &wasm)?;
    let _pinned = Pinned::executor(CORE)?;
    let variants: &mut [Timed<'_>] =
        &mut [&mut || starts.inside(), &mut || starts.cold(), &mut || starts.pooled()];
    let samples = interleaved_timed(STARTS, variants)?;
    let finding = |name: &str, whence: &str, measured: &Samples| {
        Finding::new(
            format!("first-reply-6mb-{name}"),
            &Compared { limit: samples[0].median(), measured: measured.median(), unit: Unit::Time },
            Target::None,
            true,
            format!(
                "first reply of a {}, started from {whence}, against no instance to the same reply in-process; \
                 fastest {}, slowest {} of {STARTS}",
                starts.describe(),
                Unit::Time.show(measured.quantile(0.0)),
                Unit::Time.show(measured.quantile(1.0))
            ),
        )
    };
    Ok(vec![finding("nothing", "nothing", &samples[1]), finding("pool", "the pool", &samples[2])])
}

/// Ways to start the module, each time for a canister of its own.
struct Starts<'a> {
    bench: &'a Bench,
    wasm: &'a [u8],
    module: Arc<execution::Module>,
    none_ahead: Sandboxed,
    one_ahead: Sandboxed,
    canisters: Cell<u64>,
}

impl<'a> Starts<'a> {
    fn new(bench: &'a Bench, wasm: &'a [u8]) -> Result<Self, String> {
        let module = bench.compiler.compile(wasm).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let one_ahead = Bench::sandboxed(SandboxOptions { pool: 1, ..SandboxOptions::default() })?;
        let none_ahead = Bench::sandboxed(nothing_ahead())?;
        Ok(Self { bench, wasm, module, none_ahead, one_ahead, canisters: Cell::new(0) })
    }

    fn describe(&self) -> String {
        format!(
            "module of {:.1} MB ({:.1} MB of native code, compiled before; Azle's template, query {})",
            self.wasm.len() as f64 / 1e6,
            self.module.code.len() as f64 / 1e6,
            template::METHOD
        )
    }

    fn cold(&self) -> Result<f64, String> {
        self.first_reply(&self.none_ahead)
    }

    fn pooled(&self) -> Result<f64, String> {
        wait_for_one_ahead(&self.one_ahead)?;
        let time = self.first_reply(&self.one_ahead)?;
        // The next launch is not to lie beside what is measured next.
        wait_for_one_ahead(&self.one_ahead)?;
        Ok(time)
    }

    fn inside(&self) -> Result<f64, String> {
        self.first_reply(&InProcess::new(self.bench.engine.clone(), &InProcessOptions::default()))
    }

    /// Nanoseconds of a new canister's first message.
    fn first_reply(&self, backend: &dyn Backend) -> Result<f64, String> {
        self.canisters.set(self.canisters.get() + 1);
        let mut canister = Canister::new(&*self.bench.compiler, self.wasm, self.canisters.get())?;
        let (method, arg) = (template::METHOD.into(), Arc::from(*b"DIDL\0\0"));
        time(|| canister.run(backend, EntryPoint::ReplicatedQuery { method, arg }).map(drop))
    }
}
