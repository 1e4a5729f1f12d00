//! The mutation test of what the node checks of a worker's words before `execution::check` sees them: for each
//! refusal, a worker that meets it and no other. A check that goes missing makes the scene fail that names it; a
//! check without a scene makes [`every_refusal_in_the_source_has_a_scene`] fail.

use std::time::Duration;

use execution::{Backend, EntryPoint, Execution, Invocation, Limits, Snapshot};
use sandbox_os::verify::Phase;
use sandbox_protocol::{
    Answer, Batch, Bytes, Call, Carried, End, Finished, HEADER_BYTES, Last, List, Loaded, PACKET_BYTES,
    PageSpan, ToNode, VERSION, encode,
};

use crate::canister::{invocation, update};
use crate::hostile_peer::{beyond_what_was_seen, claims, failure, violation};
use crate::peer::{LOADED, Peers, finished, snapshot};
use crate::round_trip::page_unasked;

const PATIENCE: Duration = Duration::from_secs(10);

/// Where refusals stand.
const SOURCES: [&str; 7] = [
    include_str!("../../src/claims.rs"),
    include_str!("../../src/resident.rs"),
    include_str!("../../src/worker.rs"),
    include_str!("../../src/sandboxed.rs"),
    include_str!("../../../protocol/src/memory.rs"),
    include_str!("../../../protocol/src/outcome.rs"),
    include_str!("../../../protocol/src/frame.rs"),
];
/// What the worker says of the node's words, by the same types.
const OF_THE_WORKER: [&str; 1] = ["page runs out of range"];

/// What the node says, and the scene in which it says that.
type Scene = (&'static str, fn() -> String);

fn span(page: u64, count: u32) -> PageSpan {
    PageSpan { page, count }
}

fn heap(counted: u64, spans: &'static [PageSpan]) -> String {
    claims(move |claim| {
        claim.heap_pages_dirty = counted;
        claim.heap = List(spans.to_vec());
    })
}

/// A run that pauses at 11 instructions, and what is said of its end.
fn after_a_pause(end: Finished<'static>) -> String {
    let peers = Peers::new(move |peer| {
        let binding = peer.until_execute()?;
        peer.reply(binding, &ToNode::Paused { instructions: 11 })?;
        let binding = peer.receive()?;
        peer.reply(binding, &ToNode::Finished(Box::new(end.clone())))?;
        peer.receive().map(drop)
    });
    let sandbox = peers.sandbox(PATIENCE);
    let invocation = Invocation { slice: 10, ..update(9, "m") };
    let Ok(Execution::Paused(run)) = sandbox.execute(&snapshot(), &invocation) else {
        panic!("a pause was due")
    };
    run.resume(10).map(drop).map_or_else(|error| error.to_string(), |()| "nothing".into())
}

/// The first packet of an answer, raw.
fn packet(bytes: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> String {
    violation(move |peer, binding| {
        let mut frame = Vec::new();
        encode(binding, &ToNode::Finished(Box::new(finished())), &mut frame).unwrap();
        peer.raw(&bytes(frame))
    })
}

fn loaded(loaded: Loaded) -> String {
    let peers = Peers::new(move |peer| {
        for reply in [ToNode::Ready, ToNode::Loaded(loaded)] {
            let binding = peer.receive()?;
            peer.reply(binding, &reply)?;
        }
        peer.receive().map(drop)?;
        panic!("the node sent a further request")
    });
    failure(peers, PATIENCE).to_string()
}

/// A batch of two messages, of which the first wrote page 2, and what is said of it after `change`.
fn batch(change: impl Fn(&mut Batch<'static>) + Send + Sync + 'static) -> String {
    let peers = Peers::new(move |peer| {
        let binding = peer.until_execute()?;
        let written = Finished { heap_pages_dirty: 1, heap: List(vec![span(2, 1)]), ..finished() };
        let carried = Carried { finished: written, pages: List(vec![Bytes(&[2; 4096])]) };
        let mut batch = Batch { carried: List(vec![carried]), last: Last::Finished(finished()) };
        change(&mut batch);
        peer.reply(binding, &ToNode::Batch(Box::new(batch)))?;
        peer.receive().map(drop)
    });
    let sandbox = peers.sandbox(PATIENCE);
    let executed = sandbox.execute_batch(&snapshot(), &update(9, "m"), &[update(10, "m")]);
    executed.map(drop).map_or_else(|error| error.to_string(), |()| "nothing".into())
}

/// The same on a canister with stable memory, whose page 1 the first message wrote too.
fn stable_batch(change: impl Fn(&mut Carried<'static>) + Send + Sync + 'static) -> String {
    let peers = Peers::new(move |peer| {
        let binding = peer.until_execute()?;
        let last = Finished { stable_pages: 1, ..finished() };
        let written = Finished {
            heap_pages_dirty: 1,
            heap: List(vec![span(2, 1)]),
            stable_pages_dirty: 1,
            stable: List(vec![span(1, 1)]),
            ..last.clone()
        };
        let mut carried = Carried { finished: written, pages: List(vec![Bytes(&[2; 4096]); 2]) };
        change(&mut carried);
        let batch = Batch { carried: List(vec![carried]), last: Last::Finished(last) };
        peer.reply(binding, &ToNode::Batch(Box::new(batch)))?;
        peer.receive().map(drop)
    });
    let sandbox = peers.sandbox(PATIENCE);
    let state = Snapshot { stable: execution::memory::Memory::zeroed(1), ..snapshot() };
    let executed = sandbox.execute_batch(&state, &update(9, "m"), &[update(10, "m")]);
    executed.map(drop).map_or_else(|error| error.to_string(), |()| "nothing".into())
}

const SCENES: &[Scene] = &[
    ("nothing", || batch(|_| {})),
    ("more runs than messages", || batch(|batch| batch.carried.0.push(batch.carried.0[0].clone()))),
    ("more runs than messages", || {
        violation(|peer, binding| {
            let carried = List(vec![Carried { finished: finished(), pages: List::default() }]);
            let batch = Batch { carried, last: Last::Finished(finished()) };
            peer.reply(binding, &ToNode::Batch(Box::new(batch)))
        })
    }),
    ("went on from a run that nothing can follow", || {
        batch(|batch| batch.carried.0[0].finished.reusable = false)
    }),
    ("went on from a run that nothing can follow", || {
        batch(|batch| batch.carried.0[0].finished.heap_pages = 2)
    }),
    ("went on from a run that nothing can follow", || {
        batch(|batch| batch.carried.0[0].finished.stable_pages = 1)
    }),
    ("went on from a run that nothing can follow", || {
        batch(|batch| batch.carried.0[0].finished.logs = List(vec![Bytes(b"a line")]))
    }),
    ("went on from a run that nothing can follow", || {
        batch(|batch| {
            let Carried { finished, pages } = &mut batch.carried.0[0];
            (finished.end, finished.effects) = (End::Trapped { code: 502, text: "trap" }, None);
            (finished.heap, *pages) = (List::default(), List::default());
        })
    }),
    ("went on from a run that nothing can follow", || {
        batch(|batch| batch.carried.0[0].finished.effects.as_mut().unwrap().global_timer = Some(1))
    }),
    ("answered `batch` where `finished` was due", || batch(|batch| batch.carried = List::default())),
    ("went on from other pages than it sent", || {
        batch(|batch| batch.carried.0[0].pages.0.push(Bytes(&[2; 4096])))
    }),
    ("more written pages than were counted", || batch(|batch| batch.carried.0[0].pages = List::default())),
    ("more pages than a batch carries", || {
        batch(|batch| {
            let pages = List(vec![Bytes(&[2; 4096]); 64]);
            batch.carried.0.push(Carried { finished: finished(), pages });
        })
    }),
    ("nothing", || stable_batch(|_| {})),
    ("went on from other pages than it sent", || stable_batch(|carried| carried.pages.0.truncate(1))),
    ("a stable page written twice", || {
        stable_batch(|carried| {
            carried.finished.stable.0.push(span(1, 1));
            carried.finished.stable_pages_dirty = 2;
            carried.pages.0.push(Bytes(&[2; 4096]));
        })
    }),
    ("written pages outside of the memory", || {
        batch(|batch| {
            let Carried { finished, pages } = &mut batch.carried.0[0];
            (finished.stable_pages_dirty, finished.stable) = (1, List(vec![span(0, 1)]));
            pages.0.push(Bytes(&[2; 4096]));
        })
    }),
    ("a page of another size", || batch(|batch| batch.carried.0[0].pages = List(vec![Bytes(&[2; 4095])]))),
    ("paused where no slice ends", || batch(|batch| batch.last = Last::Paused { instructions: 1 })),
    ("paused where no slice ends", || {
        violation(|peer, binding| peer.reply(binding, &ToNode::Paused { instructions: 1 }))
    }),
    ("effects go with a return, and with nothing else", || claims(|claim| claim.effects = None)),
    ("effects go with a return, and with nothing else", || {
        claims(|claim| claim.end = End::Trapped { code: 502, text: "trap" })
    }),
    ("fewer instructions than when it paused", || after_a_pause(Finished { instructions: 10, ..finished() })),
    ("a memory size that the run can't have come to", || claims(|claim| claim.heap_pages = 0)),
    ("a memory size that the run can't have come to", || claims(|claim| claim.heap_pages = 5)),
    ("a memory size that the run can't have come to", || {
        claims(|claim| claim.stable_pages = Limits::system().stable_bytes / 65_536 + 1)
    }),
    // A trap gives back what it grew.
    ("a memory size that the run can't have come to", || {
        claims(|claim| {
            claim.end = End::Trapped { code: 502, text: "trap" };
            claim.effects = None;
            claim.heap_pages = 2;
        })
    }),
    ("written pages of a run that keeps none", || {
        claims(|claim| {
            claim.end = End::Trapped { code: 502, text: "trap" };
            claim.effects = None;
            claim.heap_pages_dirty = 1;
            claim.heap = List(vec![span(0, 1)]);
        })
    }),
    ("written pages of a run that keeps none", || {
        claims(|claim| {
            claim.end = End::Trapped { code: 502, text: "trap" };
            claim.effects = None;
            claim.stable_pages_dirty = 1;
            claim.stable = List(vec![span(0, 1)]);
        })
    }),
    ("written pages beyond the memory that was seen", beyond_what_was_seen),
    ("pages where none were asked for", page_unasked),
    ("another number of pages than were asked for", || {
        let mut peers = Peers::new(|peer| {
            let binding = peer.until_execute()?;
            let claim = Finished { heap_pages_dirty: 2, heap: List(vec![span(0, 2)]), ..finished() };
            peer.reply(binding, &ToNode::Finished(Box::new(claim)))?;
            let binding = peer.receive()?;
            peer.reply(binding, &ToNode::Pages(Bytes(&[0; 4096])))?;
            peer.receive().map(drop)
        });
        peers.readable = false;
        failure(peers, PATIENCE).to_string()
    }),
    ("another number of pages than were asked for", || {
        let mut peers = Peers::new(|peer| {
            let binding = peer.until_execute()?;
            let claim = Finished { heap_pages_dirty: 1, heap: List(vec![span(0, 1)]), ..finished() };
            peer.reply(binding, &ToNode::Finished(Box::new(claim)))?;
            let binding = peer.receive()?;
            peer.reply(binding, &ToNode::Pages(Bytes(&[0; 4097])))?;
            peer.receive().map(drop)
        });
        peers.readable = false;
        failure(peers, PATIENCE).to_string()
    }),
    ("paused a query", || {
        let peers = Peers::new(|peer| {
            let binding = peer.until_execute()?;
            peer.reply(binding, &ToNode::Paused { instructions: 11 })?;
            peer.receive().map(drop)
        });
        let entry = EntryPoint::Query { method: "q".into(), arg: [].into() };
        let query = Invocation { slice: 10, ..invocation(9, entry) };
        peers.sandbox(PATIENCE).query(&snapshot(), &query, None).unwrap_err().to_string()
    }),
    ("memory at the end of all addresses", || loaded(Loaded { heap: u64::MAX - 4096, ..LOADED })),
    ("memory at the end of all addresses", || loaded(Loaded { stable: u64::MAX - 4096, ..LOADED })),
    ("heap and stable memory in the same place", || loaded(Loaded { stable: LOADED.heap + 4096, ..LOADED })),
    ("heap and stable memory in the same place", || loaded(Loaded { heap: LOADED.stable + 4096, ..LOADED })),
    ("not confined: seccomp: found 0, expected 2", || {
        let mut peers = Peers::correct();
        peers.missing = Some(Phase::Run);
        failure(peers, PATIENCE).to_string()
    }),
    ("a reply to another request", || {
        violation(|peer, mut binding| {
            binding.nonce ^= 1 << 127;
            peer.reply(binding, &ToNode::Finished(Box::new(finished())))
        })
    }),
    ("a reply to another request", || {
        violation(|peer, mut binding| {
            binding.execution += 1;
            peer.reply(binding, &ToNode::Finished(Box::new(finished())))
        })
    }),
    ("a reply to another request", || {
        violation(|peer, mut binding| {
            binding.worker += 1;
            peer.reply(binding, &ToNode::Finished(Box::new(finished())))
        })
    }),
    ("answered `locked` where `finished` was due", || {
        violation(|peer, binding| peer.reply(binding, &ToNode::Locked))
    }),
    ("written heap pages out of order", || heap(2, &[PageSpan { page: 3, count: 1 }; 2])),
    ("a stable page written twice", || {
        claims(|claim| {
            (claim.stable_pages, claim.stable_pages_dirty) = (1, 2);
            claim.stable = List(vec![span(7, 1), span(7, 1)]);
        })
    }),
    ("a span of no pages", || heap(1, &[PageSpan { page: 0, count: 0 }])),
    ("written pages outside of the memory", || heap(1, &[PageSpan { page: 16, count: 1 }])),
    ("written pages outside of the memory", || heap(1, &[PageSpan { page: u64::MAX, count: 1 }])),
    ("more written pages than were counted", || heap(1, &[PageSpan { page: 0, count: 2 }])),
    // However many are counted: no more than a message may touch.
    ("more written pages than were counted", || {
        let may = Limits::system().stable_access_pages[0];
        claims(move |claim| {
            claim.stable_pages = may;
            claim.stable_pages_dirty = may + 1;
            claim.stable = List(vec![span(0, may as u32 + 1)]);
        })
    }),
    ("principal longer than 29 bytes", || {
        claims(|claim| {
            let call = Call {
                callee: Bytes(&[1; 30]),
                method: "m",
                arg: Bytes(&[]),
                cycles: 0,
                on_reply: (0, 0),
                on_reject: (0, 0),
                on_cleanup: None,
                timeout_seconds: None,
            };
            claim.effects.as_mut().unwrap().calls = List(vec![call]);
        })
    }),
    ("packet of 39 bytes where a frame starts", || packet(|frame| frame[..HEADER_BYTES - 1].to_vec())),
    ("packet of 40 bytes where a frame starts", || {
        packet(|mut frame| {
            frame[4..8].copy_from_slice(&39_u32.to_le_bytes());
            frame[..HEADER_BYTES].to_vec()
        })
    }),
    ("protocol version 4294967295, expected 5", || {
        assert_eq!(VERSION, 5, "the text is for this version");
        packet(|mut frame| {
            frame[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            frame
        })
    }),
    ("frame of 67108865 bytes, the limit is 67108864", || {
        packet(|mut frame| {
            frame[4..8].copy_from_slice(&((64 << 20) + 1_u32).to_le_bytes());
            frame.resize(PACKET_BYTES, 0);
            frame
        })
    }),
    ("packet of 40 bytes inside a frame, expected 41", || {
        packet(|mut frame| {
            frame[4..8].copy_from_slice(&41_u32.to_le_bytes());
            frame[..HEADER_BYTES].to_vec()
        })
    }),
    ("fewer instructions than its written pages cost", || {
        claims(|claim| {
            claim.instructions = 0;
            claim.heap_pages_dirty = 1;
            claim.heap = List(vec![span(0, 1)]);
        })
    }),
    ("bytes that are no message", || {
        violation(|peer, binding| {
            let mut frame = Vec::new();
            encode(binding, &Bytes(&[255; 100]), &mut frame).unwrap();
            peer.raw(&frame)
        })
    }),
    // A message, and a byte behind it.
    ("bytes that are no message", || {
        packet(|mut frame| {
            frame.push(0);
            let length = u32::try_from(frame.len()).unwrap();
            frame[4..8].copy_from_slice(&length.to_le_bytes());
            frame
        })
    }),
    ("a packet was longer than 65536 bytes", || packet(|_| vec![0; PACKET_BYTES + 1])),
    ("the worker named an address that isn't mapped", || heap(1, &[PageSpan { page: 0, count: 1 }])),
    // Right in form; the judgement of the commit, made while the worker can still be ended for it.
    ("1 cycles accepted of 0", || claims(|claim| claim.effects.as_mut().unwrap().cycles_accepted = 1)),
    ("answer of 2097153 bytes, 2097152 allowed", || {
        static LONG: [u8; (2 << 20) + 1] = [0; (2 << 20) + 1];
        claims(|claim| claim.effects.as_mut().unwrap().answer = Some(Answer::Reply(Bytes(&LONG))))
    }),
];

#[test]
fn each_lie_of_a_worker_is_met_by_its_own_refusal() {
    for (said, scene) in SCENES {
        let met = scene();
        assert_eq!(met.strip_prefix("violation: ").unwrap_or(&met), *said);
    }
}

const KINDS: [&str; 5] = ["Protocol", "Claim", "Time", "Confinement", "Death"];

/// The texts of all refusals in the sources, in the pieces between what is put in.
fn refusals() -> Vec<Vec<String>> {
    let mut refusals = Vec::new();
    for source in SOURCES {
        // A violation may be said with its kind, on a line of its own.
        let source =
            KINDS.iter().fold(source.split_whitespace().collect::<Vec<_>>().join(" "), |source, kind| {
                source
                    .replace(&format!("violation(Kind::{kind}, "), "violation(")
                    .replace(&format!("violation( Kind::{kind}, "), "violation(")
            });
        for site in ["violation(\"", "violation(format!(\"", "Malformed(\"", "#[error(\""] {
            for (at, _) in source.match_indices(site) {
                let text = source[at + site.len()..].split('"').next().expect("a whole literal");
                let pieces = text.split('{').enumerate().map(|(n, piece)| match n {
                    0 => piece.to_owned(),
                    _ => piece.split_once('}').expect("closed").1.to_owned(),
                });
                refusals.push(pieces.collect());
            }
        }
    }
    refusals
}

/// Whether `said` is `refusal` with something put in.
fn is(said: &str, refusal: &[String]) -> bool {
    let Some(mut rest) = said.strip_prefix(refusal[0].as_str()) else { return false };
    for piece in &refusal[1..] {
        let at = if piece.is_empty() { Some(rest.len()) } else { rest.find(piece.as_str()) };
        let Some(at) = at else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty()
}

#[test]
fn every_refusal_in_the_source_has_a_scene() {
    let refusals = refusals();
    assert!(refusals.len() >= 20, "{} refusals were found", refusals.len());
    for refusal in refusals {
        let of_the_worker = OF_THE_WORKER.iter().any(|text| is(text, &refusal));
        let met = SCENES.iter().any(|(said, _)| is(said, &refusal));
        assert!(met != of_the_worker, "no scene comes to {refusal:?}");
    }
}
