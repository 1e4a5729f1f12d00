//! Whatever a worker says or leaves unsaid, the node gets a `BackendError`, the worker is gone, and nothing
//! stays staged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use execution::memory::{Blob, Memory};
use execution::module::Interface;
use execution::{Backend, BackendError, Execution, Invocation, Limits, Module, ModuleHash, Snapshot};
use sandbox_os::SocketError;
use sandbox_os::verify::Phase;
use sandbox_protocol::{
    Binding, Bytes, End, FRAME_BYTES_MAX, Finished, HEADER_BYTES, List, Loaded, PACKET_BYTES, PageSpan,
    ToNode, VERSION, encode,
};

use crate::canister::{of_module, update};
use crate::peer::{INSTRUCTIONS, LOADED, Peer, Peers, finished, greetings, snapshot};

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a message against peers, and checks what must hold after every failure.
pub(crate) fn failure(peers: Peers, patience: Duration) -> BackendError {
    let snapshot = snapshot();
    let killed = peers.killed.clone();
    let sandbox = peers.sandbox(patience);
    let error = sandbox.execute(&snapshot, &update(9, "m")).unwrap_err();
    assert_eq!(snapshot.arena.bytes_used(), 0, "nothing stays staged");
    assert_eq!(sandbox.status().workers, [], "the worker is gone");
    assert_eq!(killed.load(Ordering::SeqCst), 1, "and has been killed");
    let violations = u64::from(matches!(error, BackendError::Violation(_)));
    assert_eq!(sandbox.status().violations, violations, "violations are counted");
    error
}

/// The violation that a peer commits by its answer to `Execute`.
pub(crate) fn violation(
    answer: impl Fn(&mut Peer, Binding) -> Result<(), SocketError> + Send + Sync + 'static,
) -> String {
    let peers = Peers::new(move |peer| {
        let binding = peer.until_execute()?;
        answer(peer, binding)?;
        // Wait for the node to hang up: what it says must come from the answer, not from the end.
        peer.receive().map(drop)
    });
    match failure(peers, PATIENCE) {
        BackendError::Violation(violation) => violation.to_string(),
        other => panic!("a violation was due, not: {other}"),
    }
}

pub(crate) fn claims(change: impl Fn(&mut Finished<'static>) + Send + Sync + 'static) -> String {
    violation(move |peer, binding| {
        let mut claim = finished();
        change(&mut claim);
        peer.reply(binding, &ToNode::Finished(Box::new(claim)))
    })
}

#[test]
fn a_correct_answer_is_an_outcome() {
    let peers = Peers::new(|peer| {
        let binding = peer.until_execute()?;
        peer.reply(binding, &ToNode::Finished(Box::new(finished())))?;
        peer.receive().map(drop)
    });
    let sandbox = peers.sandbox(PATIENCE);
    let execution = sandbox.execute(&snapshot(), &update(9, "m")).unwrap();
    assert!(matches!(execution, Execution::Finished(outcome) if outcome.instructions == INSTRUCTIONS));
    assert_eq!(sandbox.pids(), [1]);
}

#[test]
fn a_frame_over_the_limit_is_a_violation() {
    let text = violation(|peer, _| {
        let mut packet = vec![0; PACKET_BYTES];
        packet[..4].copy_from_slice(&VERSION.to_le_bytes());
        packet[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        peer.raw(&packet)
    });
    assert_eq!(text, format!("frame of {} bytes, the limit is {FRAME_BYTES_MAX}", u32::MAX));
}

#[test]
fn a_packet_over_the_limit_is_a_violation() {
    let text = violation(|peer, _| peer.raw(&vec![0; PACKET_BYTES + 1]));
    assert_eq!(text, "a packet was longer than 65536 bytes");
}

#[test]
fn a_truncated_frame_is_a_violation() {
    let text = violation(|peer, binding| {
        let mut frame = Vec::new();
        encode(binding, &ToNode::Finished(Box::new(finished())), &mut frame).unwrap();
        peer.raw(&frame[..frame.len() - 1])
    });
    assert!(text.starts_with("packet of "), "{text}");
    assert!(violation(|peer, _| peer.raw(&[0; HEADER_BYTES - 1])).contains("where a frame starts"));
}

#[test]
fn bytes_that_are_no_message_are_a_violation() {
    let text = violation(|peer, binding| {
        let mut frame = Vec::new();
        encode(binding, &Bytes(&[255; 100]), &mut frame).unwrap();
        peer.raw(&frame)
    });
    assert_eq!(text, "bytes that are no message");
}

#[test]
fn an_answer_for_another_request_is_a_violation() {
    let forgeries: [fn(Binding) -> Binding; 3] = [
        |binding| Binding { nonce: binding.nonce ^ 1, ..binding },
        |binding| Binding { execution: binding.execution + 1, ..binding },
        |binding| Binding { worker: binding.worker + 1, ..binding },
    ];
    for forge in forgeries {
        let text = violation(move |peer, binding| {
            peer.reply(forge(binding), &ToNode::Finished(Box::new(finished())))
        });
        assert_eq!(text, "a reply to another request");
    }
}

#[test]
fn an_answer_before_it_was_asked_is_a_violation() {
    let peers = Peers::new(|peer| {
        let forged = Binding { worker: 0, execution: 0, nonce: 0 };
        peer.reply(forged, &ToNode::Ready)?;
        peer.receive().map(drop)?;
        peer.receive().map(drop)
    });
    assert!(matches!(failure(peers, PATIENCE), BackendError::Violation(_)));
}

#[test]
fn a_second_answer_is_a_violation_at_the_next_message() {
    let peers = Peers::new(|peer| {
        let binding = peer.until_execute()?;
        peer.reply(binding, &ToNode::Finished(Box::new(finished())))?;
        peer.reply(binding, &ToNode::Finished(Box::new(finished())))?;
        peer.receive().map(drop)?;
        peer.receive().map(drop)
    });
    let (snapshot, killed) = (snapshot(), peers.killed.clone());
    let sandbox = peers.sandbox(PATIENCE);
    sandbox.execute(&snapshot, &update(9, "m")).unwrap();
    let error = sandbox.execute(&snapshot, &update(10, "m")).unwrap_err();
    assert_eq!(error.to_string(), "violation: a reply to another request");
    assert_eq!(killed.load(Ordering::SeqCst), 1);
}

#[test]
fn an_answer_of_another_kind_is_a_violation() {
    let text = violation(|peer, binding| peer.reply(binding, &ToNode::Locked));
    assert_eq!(text, "answered `locked` where `finished` was due");
    let text = violation(|peer, binding| peer.reply(binding, &ToNode::Pages(Bytes(&[0; 4096]))));
    assert_eq!(text, "answered `pages` where `finished` was due");
    let text = violation(|peer, binding| peer.reply(binding, &ToNode::Paused { instructions: 1 }));
    assert_eq!(text, "paused where no slice ends");
}

#[test]
fn a_pause_that_is_not_where_the_slice_ends_is_a_violation() {
    // Slices of 10 and messages of at most 1,000 instructions.
    let run = |pauses: &'static [u64], end: u64| {
        let peers = Peers::new(move |peer| {
            let mut binding = peer.until_execute()?;
            for &instructions in pauses {
                peer.reply(binding, &ToNode::Paused { instructions })?;
                binding = peer.receive()?;
            }
            peer.reply(binding, &ToNode::Finished(Box::new(Finished { instructions: end, ..finished() })))?;
            peer.receive().map(drop)
        });
        let sandbox = peers.sandbox(PATIENCE);
        let invocation = Invocation { slice: 10, instructions_max: 1_000, ..update(9, "m") };
        let mut execution = sandbox.execute(&snapshot(), &invocation);
        loop {
            match execution {
                Ok(Execution::Paused(run)) => execution = run.resume(10),
                Ok(Execution::Finished(_)) => return "finished".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    };
    assert_eq!(run(&[11, 29, 31], 1_000), "finished");
    for early_or_late in [&[10][..], &[3], &[20], &[u64::MAX], &[11, 20], &[11, 11], &[19, 30]] {
        assert_eq!(run(early_or_late, 1_000), "violation: paused where no slice ends", "{early_or_late:?}");
    }
    assert_eq!(run(&[11, 29], 28), "violation: fewer instructions than when it paused");
}

#[test]
fn page_claims_that_no_correct_worker_makes_are_violations() {
    let span = |page, count| PageSpan { page, count };
    let heap = |counted: u64, spans: Vec<PageSpan>| {
        claims(move |claim| {
            claim.heap_pages_dirty = counted;
            claim.heap = List(spans.clone());
        })
    };
    assert_eq!(heap(2, vec![span(3, 1), span(2, 1)]), "written heap pages out of order");
    assert_eq!(heap(2, vec![span(3, 1), span(3, 1)]), "written heap pages out of order");
    assert_eq!(heap(1, vec![span(16, 1)]), "written pages outside of the memory");
    assert_eq!(heap(1, vec![span(u64::MAX, 1)]), "written pages outside of the memory");
    assert_eq!(heap(1, vec![span(0, 0)]), "a span of no pages");
    assert_eq!(heap(1, vec![span(0, 2)]), "more written pages than were counted");
    assert_eq!(heap(u64::MAX, vec![span(0, u32::MAX)]), "written pages outside of the memory");
    assert_eq!(heap(1, vec![span(0, 1)]), "the worker named an address that isn't mapped");
    let stable = |pages: u64, spans: Vec<PageSpan>| {
        claims(move |claim| {
            claim.stable_pages = pages;
            claim.stable_pages_dirty = 2;
            claim.stable = List(spans.clone());
        })
    };
    assert_eq!(stable(0, vec![span(0, 1)]), "written pages outside of the memory");
    assert_eq!(stable(1, vec![span(7, 1), span(7, 1)]), "a stable page written twice");
}

#[test]
fn memory_that_cant_be_a_canisters_is_a_violation_before_any_message() {
    let far = Loaded { heap: u64::MAX - 4096, ..LOADED };
    let one = Loaded { stable: LOADED.heap + 4096, ..LOADED };
    for (loaded, text) in
        [(far, "memory at the end of all addresses"), (one, "heap and stable memory in the same place")]
    {
        let peers = Peers::new(move |peer| {
            for reply in [ToNode::Ready, ToNode::Loaded(loaded)] {
                let binding = peer.receive()?;
                peer.reply(binding, &reply)?;
            }
            peer.receive().map(drop)?;
            panic!("the node sent a further request")
        });
        assert_eq!(failure(peers, PATIENCE).to_string(), format!("violation: {text}"));
    }
}

/// A heap that the module doesn't declare: nothing was looked at, and the address is the last page there is.
pub(crate) fn beyond_what_was_seen() -> String {
    let interface = Interface { globals: vec![execution::GlobalValue::I32(0)], ..Interface::default() };
    let code = Blob::new(b"code").unwrap();
    let module = Module { hash: ModuleHash([1; 32]), wasm_bytes: 4, interface, code };
    let snapshot = Snapshot { heap: Memory::zeroed(1), ..of_module(Arc::new(module), 1 << 20) };
    let peers = Peers::new(|peer| {
        let binding = peer.receive()?;
        peer.reply(binding, &ToNode::Ready)?;
        let binding = peer.receive()?;
        peer.reply(binding, &ToNode::Loaded(Loaded { heap: u64::MAX - 4095, ..LOADED }))?;
        let binding = peer.receive()?;
        peer.reply(binding, &ToNode::Locked)?;
        let binding = peer.receive()?;
        let mut claim = finished();
        claim.heap_pages_dirty = 1;
        claim.heap = List(vec![PageSpan { page: 1, count: 1 }]);
        peer.reply(binding, &ToNode::Finished(Box::new(claim)))?;
        peer.receive().map(drop)
    });
    let error = peers.sandbox(PATIENCE).execute(&snapshot, &update(9, "m")).unwrap_err();
    assert_eq!(snapshot.arena.bytes_used(), 0, "nothing stays staged");
    error.to_string()
}

#[test]
fn pages_beyond_the_memory_that_was_looked_at_are_a_violation_and_no_overflow() {
    assert_eq!(beyond_what_was_seen(), "violation: written pages beyond the memory that was seen");
}

#[test]
fn sizes_that_the_run_cant_have_come_to_are_violations() {
    for (heap, stable) in [(0, 0), (5, 0), (u64::MAX, 0), (1, u64::MAX)] {
        let text = claims(move |claim| (claim.heap_pages, claim.stable_pages) = (heap, stable));
        assert_eq!(text, "a memory size that the run can't have come to", "{heap} {stable}");
    }
}

#[test]
fn instructions_below_what_the_written_pages_cost_are_a_violation() {
    let text = claims(|claim| (claim.instructions, claim.heap_pages_dirty) = (2_999, 3));
    assert_eq!(text, "fewer instructions than its written pages cost");
    // Counted also for a run that was undone, and whose pages are of no interest.
    let text = claims(|claim| {
        claim.end = End::Trapped { code: 502, text: "trap" };
        claim.effects = None;
        (claim.instructions, claim.heap_pages_dirty) = (0, 1);
    });
    assert_eq!(text, "fewer instructions than its written pages cost");
}

#[test]
fn effects_of_a_trap_are_a_violation() {
    let text = claims(|claim| claim.end = End::Trapped { code: 502, text: "trap" });
    assert_eq!(text, "effects go with a return, and with nothing else");
    assert_eq!(claims(|claim| claim.effects = None), "effects go with a return, and with nothing else");
}

#[test]
fn a_worker_that_dies_at_any_step_is_reported_with_how_it_ended() {
    for steps in 0..4 {
        let peers = Peers::new(move |peer| {
            for reply in greetings().into_iter().take(steps) {
                let binding = peer.receive()?;
                peer.reply(binding, &reply)?;
            }
            // Receives the next request and ends without an answer.
            peer.receive().map(drop)
        });
        let error = failure(peers, PATIENCE);
        assert_eq!(
            error.to_string(),
            "the sandbox worker died: exit code 12: the engine could not be started, or failed",
            "after {steps} answers"
        );
    }
}

#[test]
fn a_worker_that_dies_inside_a_frame_is_reported_as_dead() {
    let peers = Peers::new(|peer| {
        let binding = peer.until_execute()?;
        let mut frame = Vec::new();
        encode(binding, &Bytes(&[0; 2 * PACKET_BYTES]), &mut frame).unwrap();
        peer.raw(&frame[..PACKET_BYTES])
    });
    assert!(matches!(failure(peers, PATIENCE), BackendError::WorkerDied { .. }));
}

#[test]
fn a_worker_that_floods_its_socket_is_a_violation_at_the_next_message_and_costs_the_node_nothing_before() {
    let peers = Peers::new(|peer| {
        let binding = peer.until_execute()?;
        peer.reply(binding, &ToNode::Finished(Box::new(finished())))?;
        // Until the kernel takes no more.
        while peer.socket.send(&[0; PACKET_BYTES], Duration::ZERO).is_ok() {}
        peer.receive().map(drop)?;
        peer.receive().map(drop)
    });
    let (snapshot, killed) = (snapshot(), peers.killed.clone());
    let sandbox = peers.sandbox(PATIENCE);
    sandbox.execute(&snapshot, &update(9, "m")).unwrap();
    assert_eq!(killed.load(Ordering::SeqCst), 0);
    let error = sandbox.execute(&snapshot, &update(10, "m")).unwrap_err();
    assert!(matches!(error, BackendError::Violation(_)), "{error}");
    assert_eq!(killed.load(Ordering::SeqCst), 1);
    assert_eq!(sandbox.status().violations_by_kind.protocol, 1);
}

#[test]
fn a_silent_worker_meets_its_deadline_at_any_step() {
    for steps in 0..4 {
        let peers = Peers::new(move |peer| {
            for reply in greetings().into_iter().take(steps) {
                let binding = peer.receive()?;
                peer.reply(binding, &reply)?;
            }
            peer.receive().map(drop)?;
            peer.receive().map(drop)
        });
        let error = failure(peers, Duration::from_millis(50));
        assert!(matches!(error, BackendError::Deadline { milliseconds: 50 }), "{error}");
    }
}

#[test]
fn a_worker_that_isnt_confined_gets_no_code_and_no_message() {
    for (phase, requests) in [(Phase::Load, 1), (Phase::Run, 3)] {
        let seen = crate::peer::shared(0);
        let counted = seen.clone();
        let mut peers = Peers::new(move |peer| {
            for reply in greetings() {
                let binding = peer.receive()?;
                *counted.lock().unwrap() += 1;
                peer.reply(binding, &reply)?;
            }
            peer.receive()?;
            *counted.lock().unwrap() += 1;
            Ok(())
        });
        peers.missing = Some(phase);
        let error = failure(peers, PATIENCE);
        assert!(error.to_string().contains("not confined: seccomp"), "{error}");
        assert_eq!(*seen.lock().unwrap(), requests);
    }
}

#[test]
fn a_workers_own_words_reach_no_log_unescaped() {
    let peers = Peers::new(|peer| {
        let binding = peer.until_execute()?;
        peer.reply(binding, &ToNode::Failed("\x1b[2Jone\nline"))?;
        peer.receive().map(drop)
    });
    assert_eq!(failure(peers, PATIENCE).to_string(), "engine failure:  [2Jone line");
}

#[test]
fn a_worker_whose_effects_break_a_rule_is_ended_and_serves_no_further_message() {
    // Right in form; only the commit's check sees that no cycles came with the call.
    let text = claims(|claim| claim.effects.as_mut().unwrap().cycles_accepted = 1);
    assert_eq!(text, "1 cycles accepted of 0");
}

#[test]
fn stable_pages_beyond_what_a_message_may_touch_are_refused_before_one_is_copied() {
    let may = Limits::system().stable_access_pages[0];
    let text = claims(move |claim| {
        claim.stable_pages = may;
        claim.stable_pages_dirty = may + 1;
        claim.stable = List(vec![PageSpan { page: 0, count: may as u32 + 1 }]);
    });
    assert_eq!(text, "more written pages than were counted");
}
