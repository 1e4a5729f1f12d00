//! Warm messages: what the sandbox adds to one, and what the size of the heap does to it.

use sandbox_host::SandboxOptions;

use super::{Bench, CORE, GIB};
use crate::canister::Canister;
use crate::hops::Hops;
use crate::mailbox::Mailbox;
use crate::modules::{self, Heap, WASM_PAGE_BYTES};
use crate::peer::{Peer, Role};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, Variant, interleaved};

/// Bytes of an empty update's request and reply on the wire, rounded up; the bare round trip carries as many.
const REQUEST_BYTES: usize = 512;
const REPLY_BYTES: usize = 256;
/// What the sandbox may add, against a bare round trip (B1 of performance.md section 9). The peer has no filter, which
/// would cost its two calls 13 ns.
const AGAINST_BARE: Target = Target::AtMost(1.3);
/// What it may add, against the usual design (B2, likewise).
const AGAINST_USUAL: Target = Target::AtMost(0.25);
/// A bare same-core round trip slower than this was not one: the control failed.
const BARE_NANOSECONDS_MAX: f64 = 20_000.0;
/// Pages that a small message writes.
const DIRTY_PAGES: u64 = 100;

/// Empty updates of both modes, and round trips of peers.
struct EmptyUpdates {
    peers: Vec<Samples>,
    in_process: f64,
    sandboxed: f64,
}

impl EmptyUpdates {
    /// Warm ones, on one core with `peers`.
    fn beside<const N: usize>(bench: &Bench, peers: [Variant<'_>; N]) -> Result<Self, String> {
        let text = modules::memory(Heap::Bits32, WASM_PAGE_BYTES, 0);
        let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
        let mut here = Canister::from_text(&*bench.compiler, &text, 1)?;
        let mut there = Canister::from_text(&*bench.compiler, &text, 2)?;
        let mut inside = || here.update(&bench.in_process, "empty");
        let mut outside = || there.update(&sandboxed, "empty");
        let mut peers = peers.map(|peer| move || peer());
        let peers = peers.iter_mut().map(|peer| peer as Variant<'_>);
        let mut variants: Vec<_> = peers.chain([&mut inside as Variant<'_>, &mut outside]).collect();
        let mut samples = interleaved(200, 200, &mut variants)?;
        let products = samples.split_off(N);
        Ok(Self { peers: samples, in_process: products[0].median(), sandboxed: products[1].median() })
    }

    /// What the sandbox adds, against the first peer.
    fn compared(&self) -> Compared {
        let limit = self.peers[0].median();
        Compared { limit, measured: self.sandboxed - self.in_process, unit: Unit::Time }
    }

    fn describe(&self) -> String {
        let show = |nanoseconds| Unit::Time.show(nanoseconds);
        format!(
            "empty update, warm, backend only: sandboxed {} minus in-process {}",
            show(self.sandboxed),
            show(self.in_process)
        )
    }
}

/// An empty update: what the sandbox adds, against a bare round trip.
pub(super) fn empty_update(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::executor(CORE)?;
    let peer = Peer::start(Role::Echo(REPLY_BYTES))?;
    let (request, mut answer) = (vec![0u8; REQUEST_BYTES], vec![0u8; REPLY_BYTES]);
    let mailbox = Mailbox::start()?;
    let confined = Peer::start(Role::ConfinedEcho(REPLY_BYTES))?;
    let (mut confined_answer, mut alike_answer) = (answer.clone(), answer.clone());
    let mut packets = || peer.round_trip(&request, &mut answer);
    let mut turns = || mailbox.round_trip();
    let mut confined_packets = || confined.round_trip(&request, &mut confined_answer);
    let mut alike_packets = || confined.round_trip_without_counter(&request, &mut alike_answer);
    let peers: [Variant<'_>; 4] = [&mut packets, &mut turns, &mut confined_packets, &mut alike_packets];
    let updates = EmptyUpdates::beside(bench, peers)?;
    let (bare, futex) = (&updates.peers[0], updates.peers[1].median());
    let confinement =
        Compared { limit: bare.median(), measured: updates.peers[2].median(), unit: Unit::Time };
    let empty_update = Finding::new(
        "empty-update",
        &updates.compared(),
        AGAINST_BARE,
        bare.steady() && bare.median() < BARE_NANOSECONDS_MAX,
        format!(
            "{}, against a bare same-core seqpacket round trip; {:.2}x of one by futex ({})",
            updates.describe(),
            updates.compared().measured / futex,
            Unit::Time.show(futex)
        ),
    );
    let confined = Finding::new(
        "confined-round-trip",
        &confinement,
        Target::None,
        bare.steady(),
        format!(
            "a bare round trip to a peer without clock and speculation, as a worker is, against one to a peer with \
             both; {} from a thread that does without the clock where that pays, as executors do",
            Unit::Time.show(updates.peers[3].median())
        ),
    );
    Ok(vec![empty_update, confined])
}

/// The same, against how sandboxed calls are usually made.
pub(super) fn usual_design(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::executor(CORE)?;
    let mut hops = Hops::start()?;
    let updates = EmptyUpdates::beside(bench, [&mut || hops.round_trip()])?;
    let [request, reply] = Hops::bytes()?;
    Ok(vec![Finding::new(
        "usual-design",
        &updates.compared(),
        AGAINST_USUAL,
        updates.peers[0].steady(),
        format!(
            "{}, against a call of the usual design with a warm process: six hops over threads, {request} and {reply} \
             bytes encoded, stream socket, all on one core, where it is fastest",
            updates.describe()
        ),
    )])
}

/// Warm small messages to a canister that has touched 1 GiB, against one with a small heap.
pub(super) fn heap_size(bench: &Bench) -> Result<Vec<Finding>, String> {
    let _pinned = Pinned::executor(CORE)?;
    let sandboxed = Bench::sandboxed(SandboxOptions::default())?;
    let mut findings = Vec::new();
    for (name, method) in [("empty", "empty"), ("100-pages", "pages")] {
        let small_bytes = if method == "empty" { WASM_PAGE_BYTES } else { 4096 * DIRTY_PAGES };
        let small_bytes = small_bytes.next_multiple_of(WASM_PAGE_BYTES);
        let canister = |bytes, index| {
            Canister::from_text(&*bench.compiler, &modules::memory(Heap::Bits32, bytes, DIRTY_PAGES), index)
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
