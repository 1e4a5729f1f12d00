//! A canister's queue in batches, against a round trip for each message.

use sandbox_host::SandboxOptions;

use super::{Bench, CORE};
use crate::canister::Canister;
use crate::modules::{self, Heap, WASM_PAGE_BYTES};
use crate::peer::{Peer, Role};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, interleaved};

/// Messages in the queue (P1b of issue 6).
pub(super) const QUEUE: usize = 16;
/// What a message of a batch may add, against one with a round trip of its own (likewise).
const AGAINST_ALONE: Target = Target::AtMost(0.3);
const REQUEST_BYTES: usize = 512;
const REPLY_BYTES: usize = 256;

/// Empty updates of a queue: what the sandbox adds to each, in one batch and one by one.
pub(super) fn batches(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::executor(CORE)?;
    let text = modules::memory(Heap::Bits32, WASM_PAGE_BYTES, 0);
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let canister = |index| Canister::from_text(&*bench.compiler, &text, index);
    let (mut here, mut alone, mut batch) = (canister(1)?, canister(2)?, canister(3)?);
    let peer = Peer::start(Role::Echo(REPLY_BYTES))?;
    let (request, mut answer) = (vec![0u8; REQUEST_BYTES], vec![0u8; REPLY_BYTES]);
    let samples = interleaved(
        200,
        20,
        &mut [
            &mut || peer.round_trip(&request, &mut answer),
            &mut || (0..QUEUE).try_for_each(|_| here.update(&bench.in_process, "empty")),
            &mut || (0..QUEUE).try_for_each(|_| alone.update(&sandboxed, "empty")),
            &mut || match batch.batch(&sandboxed, "empty", QUEUE)? {
                ahead if ahead == QUEUE - 1 => Ok(()),
                ahead => Err(format!("{ahead} messages of {QUEUE} were run ahead")),
            },
        ],
    )?;
    let bare = samples[0].median();
    let [here, alone, batch] = [1, 2, 3].map(|index| samples[index].median() / QUEUE as f64);
    let show = |nanoseconds| Unit::Time.show(nanoseconds);
    Ok(vec![Finding::new(
        "batches",
        &Compared { limit: alone - here, measured: batch - here, unit: Unit::Time },
        AGAINST_ALONE,
        samples.iter().all(Samples::steady),
        format!(
            "empty updates, {QUEUE} in a queue, backend only, what the sandbox adds to each: in one batch against one by \
             one; each takes {} in-process, {} alone, {} in the batch; that is {:.2}x of a bare round trip, and the first \
             answer is there after {}",
            show(here),
            show(alone),
            show(batch),
            (batch - here) / bare,
            show(batch * QUEUE as f64)
        ),
    )])
}
