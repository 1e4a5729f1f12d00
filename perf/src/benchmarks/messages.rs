//! Warm messages: what the sandbox adds to one.

use sandbox_host::SandboxOptions;

use super::Bench;
use crate::canister::Canister;
use crate::modules::{self, Heap, WASM_PAGE_BYTES};
use crate::peer::{Peer, Role};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{interleaved, time};

/// Bytes of an empty update's request and reply on the wire, rounded up; the bare round trip carries as many.
const REQUEST_BYTES: usize = 512;
const REPLY_BYTES: usize = 256;
/// A bare same-core round trip slower than this was not one: the control failed.
const BARE_NANOSECONDS_MAX: f64 = 20_000.0;
const CORE: usize = 0;

/// An empty update: what the sandbox adds, against a bare round trip.
pub(super) fn empty_update(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::this_thread(CORE)?;
    let text = modules::memory(Heap::Bits32, WASM_PAGE_BYTES, 0);
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let mut here = Canister::from_text(&bench.compiler, &text, 1)?;
    let mut there = Canister::from_text(&bench.compiler, &text, 2)?;
    let peer = Peer::start(Role::Echo(REPLY_BYTES))?;
    peer.pin(CORE)?;
    let (request, mut answer) = (vec![0u8; REQUEST_BYTES], vec![0u8; REPLY_BYTES]);
    let samples = interleaved(
        200,
        200,
        &mut [
            &mut || peer.round_trip(&request, &mut answer),
            &mut || here.update(&bench.in_process, "empty"),
            &mut || there.update(&sandboxed, "empty"),
        ],
    )?;
    let [bare, inside, outside] = [samples[0].median(), samples[1].median(), samples[2].median()];
    Ok(vec![Finding::new(
        "empty-update",
        &Compared { limit: bare, measured: outside - inside, unit: Unit::Time },
        Target::AtMost(3.0),
        samples[0].steady() && bare < BARE_NANOSECONDS_MAX,
        format!(
            "empty update, warm, backend only: sandboxed {} minus in-process {}, against a bare same-core \
             seqpacket round trip",
            Unit::Time.show(outside),
            Unit::Time.show(inside)
        ),
    )])
}

/// A message that only computes, for about a millisecond: throughput of the sandbox against in-process.
pub(super) fn compute(bench: &Bench) -> Result<Vec<Finding>, String> {
    const MESSAGE_NANOSECONDS: f64 = 1e6;
    const TRIAL_TURNS: u64 = 1_000_000;
    let _pinned = Pinned::this_thread(CORE)?;
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let mut trial = Canister::from_text(&bench.compiler, &modules::compute(TRIAL_TURNS), 1)?;
    trial.update(&bench.in_process, "compute")?;
    let nanoseconds = time(|| trial.update(&bench.in_process, "compute"))?;
    let text = modules::compute((TRIAL_TURNS as f64 * MESSAGE_NANOSECONDS / nanoseconds) as u64);
    let canister = |index| Canister::from_text(&bench.compiler, &text, index);
    let (mut here, mut control, mut there) = (canister(2)?, canister(3)?, canister(4)?);
    let samples = interleaved(
        400,
        1,
        &mut [
            &mut || here.update(&bench.in_process, "compute"),
            &mut || there.update(&sandboxed, "compute"),
            &mut || control.update(&bench.in_process, "compute"),
        ],
    )?;
    let [here, there, control] = [0, 1, 2].map(|index| samples[index].median());
    Ok(vec![Finding::new(
        "compute",
        &Compared { limit: 1e9 / here, measured: 1e9 / there, unit: Unit::Rate },
        Target::AtLeast(0.99),
        (control / here - 1.0).abs() < 0.01,
        "messages that only compute, about 1 ms each: sandboxed against in-process".into(),
    )])
}
