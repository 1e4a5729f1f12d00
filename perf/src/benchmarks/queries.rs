//! Queries of a canister, while updates commit to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use execution::{EXECUTOR_STACK_BYTES, Principal, QueryView};

use super::ledgers::{Ledger, Ledgers, TRANSFERS, ask};
use super::{Bench, CORE, Mode, OTHER};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, time};

/// How long queries are asked at a time, and how often.
const PHASE: Duration = Duration::from_millis(300);
const PHASES: u32 = 5;

/// The committed state of the last round.
type Committed = Mutex<Arc<QueryView>>;

/// Queries of a ledger on a core, while transfers commit to it from another, against the same with none.
pub(super) fn queries(bench: &Bench) -> Result<Vec<Finding>, String> {
    let ledger = Ledger::rust()?;
    let mut findings = Vec::new();
    for mode in Mode::ALL {
        let mut ledgers = Ledgers::install(bench, mode, &ledger, 1)?;
        let (mut quiet, mut busy) = (Vec::new(), Vec::new());
        for _ in 0..PHASES {
            quiet.extend(phase(&mut ledgers, Updates::None)?);
            busy.extend(phase(&mut ledgers, Updates::Transfers)?);
        }
        ledgers.check()?;
        findings.extend(compare(mode, quiet, busy, ledgers.transfers));
    }
    Ok(findings)
}

/// Throughput and p99 with updates, against those without.
fn compare(mode: Mode, quiet: Vec<f64>, busy: Vec<f64>, transfers: u64) -> [Finding; 2] {
    let seconds = (PHASE * PHASES).as_secs_f64();
    let rates = [&quiet, &busy].map(|latencies| latencies.len() as f64 / seconds);
    let [quiet, busy]: [Samples; 2] = [quiet, busy].map(|latencies| latencies.into_iter().collect());
    let finding = |what: &str, describe: &str, [limit, measured]: [f64; 2], unit| {
        Finding::new(
            format!("queries-{what}-{}", mode.name()),
            &Compared { limit, measured, unit },
            Target::None,
            true,
            format!(
                "{describe} of queries of a Rust ledger, one at a time, {}, while {:.0} transfers a second commit to \
                 it on another core, against the same without",
                mode.name(),
                transfers as f64 / seconds
            ),
        )
    };
    [
        finding("rate", "throughput", rates, Unit::Rate),
        finding("p99", "p99", [&quiet, &busy].map(|samples| samples.quantile(0.99)), Unit::Time),
    ]
}

/// What commits meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Updates {
    None,
    Transfers,
}

/// Latencies of queries for a while.
fn phase(ledgers: &mut Ledgers<'_>, updates: Updates) -> Result<Vec<f64>, String> {
    let _pinned = Pinned::this_thread(CORE)?;
    let canister = ledgers.canisters[0];
    let committed = Mutex::new(Arc::new(ledgers.rounds.queries()));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = thread::Builder::new()
            .stack_size(EXECUTOR_STACK_BYTES)
            .spawn_scoped(scope, || ask_until(&stop, &committed, canister))
            .map_err(|error| format!("a thread: {error}"))?;
        let updated = update(ledgers, updates, &committed);
        stop.store(true, Ordering::Relaxed);
        let latencies = asking.join().map_err(|_| "the asking thread panicked")?;
        updated.and(latencies)
    })
}

/// Has updates commit for the time of a phase.
fn update(ledgers: &mut Ledgers<'_>, updates: Updates, committed: &Committed) -> Result<(), String> {
    let start = Instant::now();
    match updates {
        Updates::None => thread::sleep(PHASE),
        Updates::Transfers => {
            while start.elapsed() < PHASE {
                ledgers.transfer(TRANSFERS)?;
                *committed.lock().expect("no holder panics") = Arc::new(ledgers.rounds.queries());
            }
        }
    }
    Ok(())
}

fn ask_until(stop: &AtomicBool, committed: &Committed, canister: Principal) -> Result<Vec<f64>, String> {
    let _pinned = Pinned::this_thread(OTHER)?;
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let view = Arc::clone(&committed.lock().expect("no holder panics"));
        latencies.push(time(|| ask(&view, canister, "total_supply").map(drop))?);
    }
    Ok(latencies)
}
