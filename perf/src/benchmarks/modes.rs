//! The honest comparison of the modes: warm sandboxed against warm in-process, where neither maps anything.

use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use sandbox_host::SandboxOptions;

use super::batches::QUEUE;
use super::{Bench, CORE};
use crate::canister::Canister;
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::runner::Runner;
use crate::sample::{Samples, Timed, Variant, interleaved, interleaved_timed, time};
use crate::{kernel, modules};

/// Time that a sample takes, about.
const SAMPLE_NANOSECONDS: f64 = 1e6;
/// Samples of each variant.
const ROUNDS: usize = 400;
/// How far two in-process canisters that do the same may be apart: as much as the strictest target allows.
const CONTROL: f64 = 0.01;

/// Messages that only compute for about a millisecond (B5 of performance.md section 9).
pub(super) fn compute(bench: &Bench) -> Result<Vec<Finding>, String> {
    Ok(vec![throughput(bench, "compute", 1e6, 1, 0.99, "")?, confined(bench)?, cold()?])
}

/// What of that is the machine's: what lies in the caches while a message computes may be others' afterwards, above all
/// where guests share a core. A message's way through node, kernel and worker is some thousand lines.
fn cold() -> Result<Finding, String> {
    const LINES: usize = 1024;
    /// Words of a cache line.
    const LINE: usize = 64 / size_of::<u32>();
    let _pinned = Pinned::this_thread(CORE)?;
    // Each line names another one, in an order that no prefetcher knows (Sattolo's, of one cycle).
    let (mut order, mut random) = ((0..LINES).collect::<Vec<_>>(), 1_u64);
    for last in (1..LINES).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(last, (random >> 33) as usize % last);
    }
    let mut lines = vec![0_u32; LINES * LINE];
    for (line, next) in order.iter().enumerate() {
        lines[line * LINE] = (next * LINE) as u32;
    }
    let follow = |idle: Duration| {
        let start = Instant::now();
        while start.elapsed() < idle {}
        let time = time(|| {
            black_box((0..LINES).fold(0, |at, _| lines[at as usize]));
            Ok(())
        });
        Ok(time? / LINES as f64)
    };
    let variants: &mut [Timed<'_>] = &mut [
        &mut || follow(Duration::from_millis(1)),
        &mut || follow(Duration::from_millis(10)),
        &mut || follow(Duration::ZERO),
    ];
    let samples = interleaved_timed(ROUNDS / 4, variants)?;
    let [short, long, warm] = [0, 1, 2].map(|index| samples[index].median());
    Ok(Finding::new(
        "compute-cold",
        &Compared { limit: warm, measured: short, unit: Unit::Time },
        Target::None,
        true,
        format!(
            "a cache line among {LINES}, one after the other in random order, after a millisecond of computing, against \
             once more at once; {} after ten",
            Unit::Time.show(long)
        ),
    ))
}

/// What of that is left to the sandbox: the same code in threads of this process, with and without what a worker does
/// without.
fn confined(bench: &Bench) -> Result<Finding, String> {
    /// Runs that are asked for at once: two switches beside ten milliseconds.
    const RUNS: u32 = 10;
    let _pinned = Pinned::this_thread(CORE)?;
    let text = modules::compute(turns(bench, 1e6)?);
    let wasm = wat::parse_str(&text).map_err(|error| error.to_string())?;
    let samples = thread::scope(|scope| {
        let computing = |confined: bool| {
            let (ask, asked) = sync_channel(0);
            let (tell, told) = sync_channel(0);
            let wasm = &wasm;
            scope.spawn(move || {
                let runner = Runner::product(bench.engine.raw(), wasm, "canister_update compute", &[]);
                if confined {
                    kernel::shut_off_clock_and_speculation();
                }
                match runner {
                    Ok(mut runner) => {
                        while let Ok(()) = asked.recv() {
                            if tell.send((0..RUNS).try_for_each(|_| runner.run())).is_err() {
                                break;
                            }
                        }
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
            move || {
                let gone = "a computing thread is gone";
                ask.send(()).map_err(|_| gone)?;
                told.recv().map_err(|_| gone)?
            }
        };
        let [mut free, mut confined, mut again] = [false, true, false].map(computing);
        interleaved(ROUNDS / RUNS as usize, 1, &mut [&mut free, &mut confined, &mut again])
    })?;
    let [free, confined, again] = [0, 1, 2].map(|index| samples[index].median() / f64::from(RUNS));
    Ok(Finding::new(
        "compute-confined",
        &Compared { limit: 1e9 / free, measured: 1e9 / confined, unit: Unit::Rate },
        Target::None,
        (again / free - 1.0).abs() < CONTROL,
        "the same code in a thread without clock and speculation past stores and indirect branches, as a worker is, \
         against one with them"
            .into(),
    ))
}

/// Short messages and long ones, one at a time, and short ones in batches (P2 of issue 6, with its targets and aims).
pub(super) fn modes(bench: &Bench) -> Result<Vec<Finding>, String> {
    Ok(vec![
        throughput(bench, "modes-30us", 30e3, 1, 0.88, "; the aim is 0.9")?,
        throughput(bench, "modes-30us-batches", 30e3, QUEUE, 0.97, ", 16 in a queue; the aim is 1.0")?,
        throughput(bench, "modes-1ms", 1e6, 1, 0.99, "; the aim is 1.0")?,
    ])
}

/// Messages a second of about `nanoseconds` each, `queue` at a time: the sandbox against in-process.
fn throughput(
    bench: &Bench,
    id: &str,
    nanoseconds: f64,
    queue: usize,
    target: f64,
    aim: &str,
) -> Result<Finding, String> {
    let _pinned = Pinned::executor(CORE)?;
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let text = modules::compute(turns(bench, nanoseconds)?);
    let canister = |index| Canister::from_text(&*bench.compiler, &text, index);
    let (mut here, mut control, mut there) = (canister(2)?, canister(3)?, canister(4)?);
    let samples = interleaved(
        ROUNDS,
        (SAMPLE_NANOSECONDS / nanoseconds / queue as f64).ceil() as u32,
        &mut [
            &mut || here.batch(&bench.in_process, "compute", queue).map(drop),
            &mut || there.batch(&sandboxed, "compute", queue).map(drop),
            &mut || control.batch(&bench.in_process, "compute", queue).map(drop),
        ],
    )?;
    let steady = samples.iter().all(Samples::steady);
    let [here, there, control] = [0, 1, 2].map(|index| samples[index].median() / queue as f64);
    Ok(Finding::new(
        id,
        &Compared { limit: 1e9 / here, measured: 1e9 / there, unit: Unit::Rate },
        Target::AtLeast(target),
        steady && (control / here - 1.0).abs() < CONTROL,
        format!(
            "messages that only compute, about {} each: sandboxed against in-process{aim}",
            Unit::Time.show(nanoseconds)
        ),
    ))
}

/// Turns of [`modules::compute`] that take about `nanoseconds`.
fn turns(bench: &Bench, nanoseconds: f64) -> Result<u64, String> {
    const TRIAL_TURNS: u64 = 1_000_000;
    let mut trial = Canister::from_text(&*bench.compiler, &modules::compute(TRIAL_TURNS), 1)?;
    let trials: &mut [Variant<'_>] = &mut [&mut || trial.update(&bench.in_process, "compute")];
    let fastest = interleaved(10, 1, trials)?[0].quantile(0.0);
    Ok((TRIAL_TURNS as f64 * nanoseconds / fastest) as u64)
}
