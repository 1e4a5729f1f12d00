//! System API calls: what one costs, and that none of them leaves the process that runs the canister.

use sandbox_host::{SandboxOptions, Sandboxed};

use super::{Bench, CORE};
use crate::canister::Canister;
use crate::modules::{self, SYSTEM_CALLS};
use crate::placement::Pinned;
use crate::process;
use crate::report::{Compared, Finding, Target, Unit};
use crate::runner::Runner;
use crate::sample::{Samples, interleaved};

const ROUNDS: usize = 200;
const OPERATIONS: u32 = 10;
/// What a call may cost against a bare host function (B12 of performance.md section 9).
const AGAINST_BARE: Target = Target::AtMost(1.5);
/// Switches of a worker for each message: one, and those that the kernel makes by itself now and then.
const ONE_ROUND_TRIP: Target = Target::AtMost(1.5);

/// 1000 System API calls in a message, less the same loop without them, against a bare host function that may refuse, as
/// each function of the System API does in some context: wasmtime wraps such a one so that it can end the guest.
pub(super) fn api_calls(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::executor(CORE)?;
    let module = |time| wat::parse_str(modules::system_calls(time)).map_err(|error| error.to_string());
    let (wasm, refusable) = (module("ic0")?, module(modules::REFUSABLE)?);
    let options = SandboxOptions { pool: 0, ..SandboxOptions::default() };
    let sandboxed = Bench::sandboxed(options)?;
    let canister = |index| Canister::new(&*bench.compiler, &wasm, index);
    let [mut here_calls, mut here_turns] = [canister(1)?, canister(2)?];
    let [mut there_calls, mut there_turns] = [canister(3)?, canister(4)?];
    let bare = |wasm, name| Runner::new(bench.engine.raw(), wasm, name, &[]);
    let [calls, turns] = ["canister_update calls", "canister_update turns"];
    let (mut bare_calls, mut bare_turns) = (bare(&refusable, calls)?, bare(&refusable, turns)?);
    let (mut plain_calls, mut plain_turns) = (bare(&wasm, calls)?, bare(&wasm, turns)?);
    let samples = interleaved(
        ROUNDS,
        OPERATIONS,
        &mut [
            &mut || bare_calls.run(),
            &mut || bare_turns.run(),
            &mut || here_calls.update(&bench.in_process, "calls"),
            &mut || here_turns.update(&bench.in_process, "turns"),
            &mut || there_calls.update(&sandboxed, "calls"),
            &mut || there_turns.update(&sandboxed, "turns"),
            &mut || plain_calls.run(),
            &mut || plain_turns.run(),
        ],
    )?;
    let each = |at: usize| (samples[at].median() - samples[at + 1].median()) / f64::from(SYSTEM_CALLS);
    let (bare, in_process, outside, plain) = (each(0), each(2), each(4), each(6));
    let finding = |mode: &str, measured: f64, more: String| {
        Finding::new(
            format!("api-calls-{mode}"),
            &Compared { limit: bare, measured, unit: Unit::Time },
            AGAINST_BARE,
            samples.iter().all(Samples::steady),
            format!(
                "one of {SYSTEM_CALLS} System API calls (time) in a message, less the loop around it, {mode}, against \
                 a bare host function that may refuse; {:.2}x of one that can't ({}){more}",
                measured / plain,
                Unit::Time.show(plain)
            ),
        )
    };
    let added = |calls: usize| Unit::Time.show(samples[4 + calls].median() - samples[2 + calls].median());
    let more = format!("; the sandbox adds {} to a message with them, {} to one without", added(0), added(1));
    Ok(vec![
        finding("in-process", in_process, String::new()),
        finding("sandboxed", outside, more),
        round_trips(&sandboxed, &mut there_calls)?,
    ])
}

/// How often a worker leaves its core for each message with 1000 System API calls. It shares the core with whoever
/// asks, so each round trip takes one switch at least: fewer than two mean that there was no more than one.
fn round_trips(sandboxed: &Sandboxed, canister: &mut Canister) -> Result<Finding, String> {
    const MESSAGES: u32 = 1_000;
    let switches = || process::total(&sandboxed.pids(), process::switches);
    let before = switches()?;
    (0..MESSAGES).try_for_each(|_| canister.update(sandboxed, "calls"))?;
    let measured = (switches()? - before) / f64::from(MESSAGES);
    Ok(Finding::new(
        "api-calls-round-trips",
        &Compared { limit: 1.0, measured, unit: Unit::Count },
        ONE_ROUND_TRIP,
        true,
        format!(
            "times that a worker leaves its core for each message with {SYSTEM_CALLS} System API calls, against one \
             round trip"
        ),
    ))
}
