//! Canisters on several cores at once.

use std::ops::RangeInclusive;

use execution::Backend;
use sandbox_host::SandboxOptions;

use super::Bench;
use crate::canister::Canister;
use crate::modules::{self, Heap, WASM_PAGE_BYTES};
use crate::parallel::{Work, compute, rate};
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::Samples;

const DIRTY_PAGES: u64 = 16;
const ROUNDS: usize = 9;
/// What the control may gain, as a share of the cores: beyond, others used the machine meanwhile.
const CONTROL_SHARE: RangeInclusive<f64> = 0.85..=1.1;

/// How much faster all cores are than one: canisters that write pages, sandboxed, against pure computing.
pub(super) fn scaling(bench: &Bench) -> Result<Vec<Finding>, String> {
    let cores = sandbox_os::place::cores();
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let text = modules::memory(Heap::Bits32, WASM_PAGE_BYTES, DIRTY_PAGES);
    let canisters = |first: u64| -> Result<Vec<Canister>, String> {
        (first..).take(cores.len()).map(|index| Canister::from_text(&*bench.compiler, &text, index)).collect()
    };
    let (mut outside, mut inside) = (canisters(0)?, canisters(1_000)?);
    let [mut computing, mut sandbox, mut here] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let mut control: Vec<Work<'_>> = cores.iter().map(|_| Box::new(compute) as Work<'_>).collect();
        computing.push(speed_up(&cores, &mut control)?);
        sandbox.push(speed_up(&cores, &mut messages(&sandboxed, &mut outside))?);
        here.push(speed_up(&cores, &mut messages(&bench.in_process, &mut inside))?);
    }
    let [computing, sandbox, here] =
        [computing, sandbox, here].map(|samples| samples.into_iter().collect::<Samples>().median());
    Ok(vec![Finding::new(
        "scaling",
        &Compared { limit: computing, measured: sandbox, unit: Unit::Factor },
        Target::AtLeast(0.9),
        CONTROL_SHARE.contains(&(computing / cores.len() as f64)),
        format!(
            "speed-up from 1 to {} cores: one canister a core, 16 pages written in each message, sandboxed, \
             against pure computing; in-process {here:.2}x",
            cores.len()
        ),
    )])
}

fn messages<'a>(backend: &'a dyn Backend, canisters: &'a mut [Canister]) -> Vec<Work<'a>> {
    canisters
        .iter_mut()
        .map(|canister| Box::new(move || canister.update(backend, "pages")) as Work<'a>)
        .collect()
}

/// Operations a second of all workers, one a core, against the first alone.
fn speed_up(cores: &[usize], workers: &mut [Work<'_>]) -> Result<f64, String> {
    let alone = rate(cores, &mut workers[..1])?;
    Ok(rate(cores, workers)? / alone)
}
