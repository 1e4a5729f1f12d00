//! Copying written pages out of a worker.

use sandbox_os::pull::{self, Span};

use super::{Bench, CORE};
use crate::canister::Staging;
use crate::kernel::PAGE_BYTES;
use crate::peer::{Peer, Role, Task};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Timed, interleaved_timed, time};

const PAGES: usize = 100;
/// Distance of pulled pages in the process: no two adjoin.
const STRIDE: usize = 3;

/// Pull of 100 scattered pages into recycled slots, against a copy of warm pages.
pub(super) fn pull(_: &Bench) -> Result<Vec<Finding>, String> {
    // A worker runs on the core of the thread that calls it.
    let _pinned = Pinned::executor(CORE)?;
    let peer = Peer::start(Role::Memory(PAGES * STRIDE))?;
    peer.pin(CORE)?;
    let base = peer.run(Task::Write)?;
    let span = |page| Span { address: base + (page * STRIDE * PAGE_BYTES) as u64, bytes: PAGE_BYTES };
    let from: Vec<Span> = (0..PAGES).map(span).collect();
    let source = vec![[1_u8; PAGE_BYTES]; PAGES * STRIDE];
    let staging = Staging::new()?;
    let variants: &mut [Timed<'_>] = &mut [
        &mut || {
            peer.run(Task::Write)?;
            time(|| {
                staging.fill(PAGES, |into| {
                    let into = into.into_iter().flat_map(|range| range.chunks_exact_mut(PAGE_BYTES));
                    for (to, page) in into.zip(source.iter().step_by(STRIDE)) {
                        to.copy_from_slice(page);
                    }
                    Ok(())
                })
            })
        },
        &mut || {
            peer.run(Task::Write)?;
            time(|| {
                staging.fill(PAGES, |into| {
                    pull::copy(peer.pid(), &from, into).map_err(|error| error.to_string())
                })
            })
        },
    ];
    let samples = interleaved_timed(400, variants)?;
    let [copy, pull] = [0, 1].map(|index| samples[index].median() / PAGES as f64);
    Ok(vec![Finding::new(
        "pull",
        &Compared { limit: copy, measured: pull, unit: Unit::Time },
        Target::AtMost(3.0),
        samples[0].steady(),
        format!("pull of {PAGES} scattered pages that a process just wrote, each page, against a warm copy"),
    )])
}
