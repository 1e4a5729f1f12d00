//! Noise: what a canister whose worker misbehaves does to another that has half of a core's time to itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use execution::Backend;
use rustix::process::{Pid, Signal};
use sandbox_host::source::WorkerSource;
use sandbox_host::{SandboxOptions, Sandboxed};

use super::{Bench, CORE, OTHER};
use crate::canister::Canister;
use crate::hostile::{Deed, Hostile};
use crate::modules;
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, Variant, interleaved};

/// How long the sibling is measured at a time, and how often.
const PHASE: Duration = Duration::from_millis(400);
const ROUNDS: u64 = 6;
/// Time between two rounds of the node, in which a failed message isn't tried again.
const ROUND: Duration = Duration::from_millis(10);
/// What one message of the sibling takes, about.
const MESSAGE_NANOSECONDS: f64 = 150_000.0;

/// A quiet p99 of more times the median than this was not a quiet one: the control failed.
const CALM: f64 = 4.0;

/// Who else there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Nobody,
    /// A canister that never ends.
    Hangs,
    /// A worker that answers with packets without end.
    Floods,
    /// A worker that dies at each message.
    Dies,
}

/// p50 and p99 of the sibling, while another canister misbehaves on its core or on the other, against quiet.
pub(super) fn noise(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::executor(CORE)?;
    let sandboxed = Arc::new(Bench::sandboxed(SandboxOptions::default())?);
    let mut trial = Canister::from_text(&*bench.compiler, &modules::compute(10_000), 1)?;
    let trials: &mut [Variant<'_>] = &mut [&mut || trial.update(&*sandboxed, "compute")];
    let each = interleaved(200, 1, trials)?[0].median() / 10_000.0;
    let text = modules::compute((MESSAGE_NANOSECONDS / each) as u64);
    let mut sibling = Canister::from_text(&*bench.compiler, &text, 2)?;
    let warm: &mut [Variant<'_>] = &mut [&mut || sibling.update(&*sandboxed, "compute")];
    let period = Duration::from_nanos((interleaved(200, 1, warm)?[0].median() * 2.0) as u64);

    let variants: Vec<(Other, usize)> = [Other::Hangs, Other::Floods, Other::Dies]
        .into_iter()
        .flat_map(|other| [(other, CORE), (other, OTHER)])
        .collect();
    let mut quiet = Vec::new();
    let mut noisy = vec![Vec::new(); variants.len()];
    for round in 0..ROUNDS {
        for (at, &(other, core)) in variants.iter().enumerate() {
            quiet.extend(phase(bench, &sandboxed, &mut sibling, period, (Other::Nobody, core), 0)?);
            let index = 1_000 + round * 100 + at as u64;
            noisy[at].extend(phase(bench, &sandboxed, &mut sibling, period, (other, core), index)?);
        }
    }
    let quiet: Samples = quiet.into_iter().collect();
    // Where others than ours keep the machine busy, nothing can be said.
    let calm = quiet.quantile(0.99) < CALM * quiet.median();
    let findings = variants.iter().zip(noisy).map(|(&(other, core), latencies)| {
        let samples: Samples = latencies.into_iter().collect();
        let (name, what) = match other {
            Other::Nobody => ("nobody", "nobody is there"),
            Other::Hangs => ("hangs", "another canister's worker spins"),
            Other::Floods => ("floods", "another canister's worker sends packets without end"),
            Other::Dies => ("dies", "another canister's worker dies at each message"),
        };
        let place = if core == CORE { "same" } else { "other" };
        Finding::new(
            format!("noise-{name}-{place}"),
            &Compared { limit: quiet.quantile(0.99), measured: samples.quantile(0.99), unit: Unit::Time },
            Target::AtMost(2.0),
            calm,
            format!(
                "p99 of a canister at half load while {what} on the {place} core, against quiet; p50 {} against {}",
                Unit::Time.show(samples.median()),
                Unit::Time.show(quiet.median())
            ),
        )
    });
    Ok(findings.collect())
}

/// Latencies of the sibling's messages for a while, from when each was due, with someone else there.
fn phase(
    bench: &Bench,
    sandboxed: &Arc<Sandboxed>,
    sibling: &mut Canister,
    period: Duration,
    (other, core): (Other, usize),
    index: u64,
) -> Result<Vec<f64>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    let noise = match other {
        Other::Nobody => None,
        Other::Hangs => Some(hang(bench, sandboxed, core, index)?),
        Other::Floods => Some(fail(bench, Deed::Flood, core, index, &stop)?),
        Other::Dies => Some(fail(bench, Deed::Die, core, index, &stop)?),
    };
    let mut latencies = Vec::new();
    let start = Instant::now();
    let mut due = start;
    while start.elapsed() < PHASE {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sibling.update(&**sandboxed, "compute")?;
        latencies.push(due.elapsed().as_nanos() as f64);
        due += period;
    }
    stop.store(true, Ordering::Relaxed);
    if let Some(noise) = noise {
        if other == Other::Hangs {
            let workers = sandboxed.status().workers;
            let hangs = |worker: &&sandbox_host::LiveWorker| {
                worker.canister.is_some_and(|(canister, _)| canister == Canister::id(index))
            };
            let pid = workers.iter().find(hangs).and_then(|worker| Pid::from_raw(worker.pid));
            let pid = pid.ok_or("the worker that hangs is gone")?;
            rustix::process::kill_process(pid, Signal::KILL).map_err(|error| error.to_string())?;
        }
        noise.join().map_err(|_| "the noise panicked")?;
    }
    Ok(latencies)
}

/// Has a canister spin on `core`; returns when it has been running for a while.
fn hang(
    bench: &Bench,
    sandboxed: &Arc<Sandboxed>,
    core: usize,
    index: u64,
) -> Result<thread::JoinHandle<()>, String> {
    const BEFORE: Duration = Duration::from_millis(30);
    let mut spinner = Canister::from_text(&*bench.compiler, &modules::compute(1 << 40), index)?;
    let sandboxed = Arc::clone(sandboxed);
    let (begins, began) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _pinned = Pinned::executor(core);
        let _ = begins.send(());
        let _killed = spinner.update(&*sandboxed, "compute");
    });
    began.recv().map_err(|error| error.to_string())?;
    thread::sleep(BEFORE);
    Ok(thread)
}

/// Has a canister's message fail on `core` in each round, as often as it is tried, until `stop`.
fn fail(
    bench: &Bench,
    deed: Deed,
    core: usize,
    index: u64,
    stop: &Arc<AtomicBool>,
) -> Result<thread::JoinHandle<()>, String> {
    const TRIES: usize = 3;
    let mut canister = Canister::from_text(&*bench.compiler, &modules::compute(1), index)?;
    let source: Box<dyn WorkerSource> = Box::new(Hostile(deed));
    let options = SandboxOptions { pool: 0, ..SandboxOptions::default() };
    let sandboxed = Sandboxed::with_source(source, options).map_err(|error| error.to_string())?;
    let stop = Arc::clone(stop);
    Ok(thread::spawn(move || {
        let _pinned = Pinned::executor(core);
        let backend: &dyn Backend = &sandboxed;
        while !stop.load(Ordering::Relaxed) {
            let _answered = (0..TRIES).any(|_| canister.update(backend, "compute").is_ok());
            thread::sleep(ROUND);
        }
    }))
}
