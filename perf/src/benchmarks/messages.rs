//! Warm messages: what the sandbox adds to one, and what the size of the heap does to it.

use sandbox_host::SandboxOptions;

use super::{Bench, CORE, GIB};
use crate::canister::Canister;
use crate::modules::{self, Heap, WASM_PAGE_BYTES};
use crate::peer::{Peer, Role};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Variant, interleaved};

/// Bytes of an empty update's request and reply on the wire, rounded up; the bare round trip carries as many.
const REQUEST_BYTES: usize = 512;
const REPLY_BYTES: usize = 256;
/// A bare same-core round trip slower than this was not one: the control failed.
const BARE_NANOSECONDS_MAX: f64 = 20_000.0;
/// Pages that a small message writes.
const DIRTY_PAGES: u64 = 100;

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

/// Warm small messages to a canister that has touched 1 GiB, against one with a small heap.
pub(super) fn heap_size(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::this_thread(CORE)?;
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let mut findings = Vec::new();
    for (name, method) in [("empty", "empty"), ("100-pages", "pages")] {
        let small_bytes = if method == "empty" { WASM_PAGE_BYTES } else { 4096 * DIRTY_PAGES };
        let small_bytes = small_bytes.next_multiple_of(WASM_PAGE_BYTES);
        let canister = |bytes, index| {
            Canister::from_text(&bench.compiler, &modules::memory(Heap::Bits32, bytes, DIRTY_PAGES), index)
        };
        let mut small = [canister(small_bytes, 1)?, canister(small_bytes, 2)?];
        let mut large = [canister(GIB, 3)?, canister(GIB, 4)?];
        large[0].update(&bench.in_process, "store")?;
        large[1].update(&sandboxed, "store")?;
        let [small_here, small_there] = &mut small;
        let [large_here, large_there] = &mut large;
        let variants: &mut [Variant<'_>] = &mut [
            &mut || small_here.update(&bench.in_process, method),
            &mut || large_here.update(&bench.in_process, method),
            &mut || small_there.update(&sandboxed, method),
            &mut || large_there.update(&sandboxed, method),
        ];
        let samples = interleaved(100, 20, variants)?;
        for (backend, at) in [("in-process", 0), ("sandboxed", 2)] {
            let (small, large) = (&samples[at], &samples[at + 1]);
            findings.push(Finding::new(
                format!("heap-size-{name}-{backend}"),
                &Compared { limit: small.median(), measured: large.median(), unit: Unit::Time },
                Target::AtMost(1.1),
                small.steady(),
                format!(
                    "warm update ({}) of a canister that has written 1 GiB, against one with a heap of {} KB, \
                     {backend}",
                    if method == "empty" { "empty" } else { "writes to 100 pages" },
                    small_bytes / 1024
                ),
            ));
        }
    }
    Ok(findings)
}
