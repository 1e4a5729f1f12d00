//! A worker's words, each a lie that no correct worker tells, to a whole node. Every one is told to a node that
//! believes it, too: that is its control.

use std::os::fd::AsFd;

use sandbox_os::SocketError;
use sandbox_protocol::{
    Answer, Binding, Bytes, Call, HEADER_BYTES, List, PACKET_BYTES, PageSpan, ToNode, VERSION, encode,
};

use super::gullible::{Believed, believes};
use super::world::{HEAP_PAGES, Lie, Node, PATIENCE, SHORT_PATIENCE, Step, Worker};
use crate::attacks::Attack;
use crate::table::{Control, Phase};

type Told = Result<(), SocketError>;

/// One lie.
struct Way {
    name: &'static str,
    step: Step,
    lie: Lie,
    /// In what the node says of it.
    says: &'static str,
    /// How a node that believes shows it.
    believed: fn(&Believed) -> bool,
}

impl Way {
    const fn new(name: &'static str, lie: Lie, says: &'static str, believed: fn(&Believed) -> bool) -> Self {
        Self { name, step: Step::Message, lie, says, believed }
    }

    const fn at(mut self, step: Step) -> Self {
        self.step = step;
        self
    }
}

/// Bytes of the message's argument where it has to be long.
const LONG_ARG: usize = 1 << 20;

fn attack(id: &'static str, title: &'static str, stopped_by: &'static str, ways: Vec<Way>) -> Attack {
    Attack::once(id, title, move |_, rows| {
        let arg = if id == "A29" { LONG_ARG } else { 0 };
        let mut control = Ok(Control::Fired);
        let mut contained = Ok(());
        for way in &ways {
            let believed = quietly(|| believes(way.step, way.lie, arg));
            if control.is_ok() && !(way.believed)(&believed) {
                control = Err(format!(
                    "{}: a node that believes everything isn't taken in: {believed:?}",
                    way.name
                ));
            }
            let waits = way.says.contains("gave no answer");
            let node = Node::new(if waits { SHORT_PATIENCE } else { PATIENCE });
            let seen = node.and_then(|mut node| {
                let (files, memory) = (descriptors(), resident());
                node.contains(way.step, way.lie, way.says, &vec![0; arg])?;
                if descriptors() > files {
                    return Err(format!("{} descriptors, {files} before", descriptors()));
                }
                // What the node works with, and nothing for what was claimed.
                match resident().saturating_sub(memory) {
                    grown if grown > 64 << 20 => Err(format!("{grown} bytes more")),
                    _ => Ok(()),
                }
            });
            if contained.is_ok() {
                contained = seen.map_err(|why| format!("{}: {why}", way.name));
            }
        }
        rows.add(Phase::None, stopped_by, &control, contained);
    })
}

/// Without the report of a panic that is expected.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = work();
    std::panic::set_hook(hook);
    done
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn header(bytes: u32) -> Vec<u8> {
    let mut packet = vec![0; HEADER_BYTES];
    packet[..4].copy_from_slice(&VERSION.to_le_bytes());
    packet[4..8].copy_from_slice(&bytes.to_le_bytes());
    packet
}

fn frame(binding: Binding, message: &ToNode<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    // What these lies say is short.
    let _too_long = encode(binding, message, &mut frame);
    frame
}

fn span(page: u64, count: u32) -> PageSpan {
    PageSpan { page, count }
}

fn pages(worker: &mut Worker, binding: Binding, right: &ToNode<'_>, spans: &[PageSpan]) -> Told {
    worker.claim(binding, right, |claim| {
        claim.heap_pages_dirty = 16;
        claim.heap = List(spans.to_vec());
    })
}

fn dies(_: &mut Worker, _: Binding, _: &ToNode<'_>) -> Told {
    Err(SocketError::Closed)
}

fn silent(worker: &mut Worker, _: Binding, _: &ToNode<'_>) -> Told {
    worker.receive().map(drop)
}

fn twice(worker: &mut Worker, binding: Binding, right: &ToNode<'_>) -> Told {
    worker.reply(binding, right)?;
    worker.reply(binding, right)
}

#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn attacks() -> Vec<Attack> {
    vec![
        attack(
            "A25",
            "claims a frame of 4 GiB, and frames a byte short",
            "bounds before allocation",
            vec![
                Way::new(
                    "4 GiB",
                    |worker, _, _| worker.raw(&header(u32::MAX)),
                    "frame of 4294967295 bytes",
                    |believed| believed.reserved > 1 << 31,
                ),
                Way::new(
                    "shorter than a header",
                    |worker, _, _| worker.raw(&header(0)),
                    "where a frame starts",
                    |believed| believed.panicked,
                ),
                Way::new(
                    "a byte short",
                    |worker, binding, right| {
                        let frame = frame(binding, right);
                        worker.raw(&frame[..frame.len() - 1])
                    },
                    "inside a frame, expected",
                    |believed| believed.hangs || believed.panicked,
                ),
            ],
        ),
        attack(
            "A26",
            "sends bytes that are no message, and lists of 2^64 items",
            "decoder without panic",
            vec![
                Way::new(
                    "no message",
                    |worker, binding, _| worker.raw(&frame_of(binding, &[255; 100])),
                    "bytes that are no message",
                    |believed| believed.panicked,
                ),
                Way::new(
                    "a list without end",
                    |worker, binding, _| {
                        worker.raw(&frame_of(
                            binding,
                            &[3, 0, 5, 6, 7, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
                        ))
                    },
                    "bytes that are no message",
                    |believed| believed.panicked,
                ),
            ],
        ),
        attack(
            "A27",
            "sends a part of a frame, and nothing more",
            "deadline of the whole frame",
            vec![Way::new(
                "one packet of two",
                |worker, _, _| {
                    let mut packet = header(2 * PACKET_BYTES as u32);
                    packet.resize(PACKET_BYTES, 0);
                    worker.raw(&packet)?;
                    worker.receive().map(drop)
                },
                "gave no answer within 1000 ms",
                |believed| believed.hangs,
            )],
        ),
        attack(
            "A28",
            "floods the node with messages",
            "one reply to a request; the socket's bound",
            vec![Way::new(
                "a thousand answers",
                |worker, binding, right| {
                    for _ in 0..1_000 {
                        let binding = Binding { nonce: binding.nonce ^ 1, ..binding };
                        worker.reply(binding, right)?;
                    }
                    Ok(())
                },
                "a reply to another request",
                // The second message has the flood's answer, too.
                |believed| believed.answers.len() == 2 && believed.answers[0] == believed.answers[1],
            )],
        ),
        attack(
            "A29",
            "never reads its socket",
            "deadline of sending",
            vec![
                Way::new(
                    "a message of 1 MiB",
                    |worker, binding, right| {
                        worker.reply(binding, right)?;
                        worker.never_reads()
                    },
                    "gave no answer within 1000 ms",
                    |believed| believed.hangs,
                )
                .at(Step::Lock),
            ],
        ),
        attack(
            "A30",
            "sends descriptors, its own socket among them",
            "SO_PASSRIGHTS, no room for any",
            vec![Way::new(
                "four with an answer",
                |worker, binding, right| {
                    let frame = frame(binding, right);
                    let own = worker.socket.as_fd();
                    worker.socket.send_with_files(&frame, &[own, own, own, own])
                },
                "died",
                |believed| believed.files > 0,
            )],
        ),
        attack(
            "A31",
            "never answers",
            "deadline on the node's clock",
            vec![Way::new("silent", silent, "gave no answer within 1000 ms", |believed| believed.hangs)],
        ),
        Attack::once("A32", "answers twice", |_, rows| {
            let believed = quietly(|| believes(Step::Message, twice, 0));
            let control = match &believed.answers[..] {
                [first, second] if first == second => Ok(Control::Fired),
                _ => Err(format!("a node that believes everything isn't taken in: {believed:?}")),
            };
            let contained = Node::new(PATIENCE).and_then(|mut node| node.contains_a_second_answer(twice));
            rows.add(Phase::None, "nonce of a request", &control, contained);
        }),
        attack(
            "A33",
            "answers for another request, with another's number, with an old answer",
            "binding of a reply",
            vec![
                Way::new(
                    "another nonce",
                    |worker, binding, right| {
                        worker.reply(Binding { nonce: !binding.nonce, ..binding }, right)
                    },
                    "a reply to another request",
                    |believed| believed.answers.len() == 2,
                ),
                Way::new(
                    "another execution",
                    |worker, binding, right| {
                        worker.reply(Binding { execution: binding.execution + 1, ..binding }, right)
                    },
                    "a reply to another request",
                    |believed| believed.answers.len() == 2,
                ),
                Way::new(
                    "another worker",
                    |worker, binding, right| {
                        worker.reply(Binding { worker: binding.worker ^ 1, ..binding }, right)
                    },
                    "a reply to another request",
                    |believed| believed.answers.len() == 2,
                ),
                Way::new(
                    "an old answer",
                    |worker, binding, right| {
                        let old = Binding { nonce: 7, ..binding };
                        worker.reply(old, right)
                    },
                    "a reply to another request",
                    |believed| believed.answers.len() == 2,
                ),
            ],
        ),
        attack(
            "A34",
            "says that a run has paused which has not",
            "state machine of a run",
            vec![
                Way::new(
                    "paused at once",
                    |worker, binding, _| worker.reply(binding, &ToNode::Paused { instructions: 1 }),
                    "paused where no slice ends",
                    |believed| believed.paused,
                ),
                Way::new(
                    "paused beyond all instructions",
                    |worker, binding, _| worker.reply(binding, &ToNode::Paused { instructions: u64::MAX }),
                    "paused where no slice ends",
                    |believed| believed.paused,
                ),
                Way::new(
                    "ready again",
                    |worker, binding, _| worker.reply(binding, &ToNode::Ready),
                    "answered `ready` where `finished` was due",
                    |believed| believed.answers.is_empty() && !believed.panicked,
                ),
            ],
        ),
        attack(
            "A35",
            "has effects that its entry point can't have",
            "effects by entry point",
            vec![Way::new(
                "accept_message in an update",
                |worker, binding, right| {
                    worker.claim(binding, right, |claim| {
                        if let Some(effects) = &mut claim.effects {
                            effects.accepted = true;
                        }
                    })
                },
                "accept_message in update",
                |believed| believed.accepted,
            )],
        ),
        attack(
            "A36",
            "claims written pages out of range, twice, out of order, too many",
            "checked page lists",
            vec![
                Way::new(
                    "outside",
                    |worker, binding, right| pages(worker, binding, right, &[span(1 << 40, 1)]),
                    "written pages outside of the memory",
                    |believed| believed.panicked,
                ),
                Way::new(
                    "the last index there is",
                    |worker, binding, right| pages(worker, binding, right, &[span(u64::MAX, 1)]),
                    "written pages outside of the memory",
                    |believed| believed.panicked,
                ),
                Way::new(
                    "twice",
                    |worker, binding, right| pages(worker, binding, right, &[span(3, 1), span(3, 1)]),
                    "written heap pages out of order",
                    |believed| believed.panicked,
                ),
            ],
        ),
        attack(
            "A37",
            "claims a smaller memory, or a larger one than it may have",
            "sizes that the node knows",
            vec![
                Way::new(
                    "none",
                    |worker, binding, right| worker.claim(binding, right, |claim| claim.heap_pages = 0),
                    "a memory size that the run can't have come to",
                    |believed| believed.heap_pages < HEAP_PAGES,
                ),
                Way::new(
                    "all there is",
                    |worker, binding, right| {
                        worker.claim(binding, right, |claim| claim.heap_pages = u64::MAX)
                    },
                    "a memory size that the run can't have come to",
                    |believed| believed.heap_pages == u64::MAX,
                ),
            ],
        ),
        attack(
            "A38",
            "lies about the instructions that it used",
            "instruction limit",
            vec![Way::new(
                "2^64 - 1",
                |worker, binding, right| worker.claim(binding, right, |claim| claim.instructions = u64::MAX),
                "instructions used of",
                |believed| believed.instructions == u64::MAX,
            )],
        ),
        attack(
            "A39",
            "spends cycles that it doesn't have, and wraps its balance",
            "checked arithmetic",
            vec![
                Way::new(
                    "burns all there are",
                    |worker, binding, right| {
                        worker.claim(binding, right, |claim| {
                            if let Some(effects) = &mut claim.effects {
                                effects.cycles_burned = u128::MAX;
                            }
                        })
                    },
                    "more cycles spent than the",
                    |believed| believed.balance > 1_000,
                ),
                Way::new(
                    "accepts what nobody sent",
                    |worker, binding, right| {
                        worker.claim(binding, right, |claim| {
                            if let Some(effects) = &mut claim.effects {
                                effects.cycles_accepted = 1 << 100;
                            }
                        })
                    },
                    "cycles accepted of 0",
                    |believed| believed.balance > 1_000,
                ),
            ],
        ),
        attack(
            "A40",
            "calls in the name of nobody, answers for another",
            "names from the node's own tables",
            vec![
                Way::new(
                    "a principal that none is",
                    |worker, binding, right| {
                        worker.claim(binding, right, |claim| {
                            let call = Call {
                                callee: Bytes(&[1; 30]),
                                method: "set",
                                arg: Bytes(&[]),
                                cycles: 0,
                                on_reply: (u64::MAX, 0),
                                on_reject: (u64::MAX, 0),
                                on_cleanup: None,
                                timeout_seconds: None,
                            };
                            if let Some(effects) = &mut claim.effects {
                                effects.calls = List(vec![call]);
                            }
                        })
                    },
                    "principal longer than 29 bytes",
                    |believed| believed.answers.len() == 2,
                ),
                Way::new(
                    "an answer to what another was asked",
                    |worker, binding, right| {
                        let other = Binding {
                            worker: binding.worker + 1,
                            execution: binding.execution + 1,
                            nonce: 1,
                        };
                        worker.reply(other, right)
                    },
                    "a reply to another request",
                    |believed| believed.answers.len() == 2,
                ),
            ],
        ),
        attack(
            "A41",
            "dies at every step",
            "an end is a failed run; state untouched",
            vec![
                Way::new("in a message", dies, "the sandbox worker died", |believed| believed.panicked),
                Way::new(
                    "inside a frame",
                    |worker, _, _| {
                        let mut packet = header(2 * PACKET_BYTES as u32);
                        packet.resize(PACKET_BYTES, 0);
                        worker.raw(&packet)?;
                        Err(SocketError::Closed)
                    },
                    "the sandbox worker died",
                    |believed| believed.panicked,
                ),
            ],
        ),
        Attack::once("A42", "ends with exit code 0 in the middle of a call", |_, rows| {
            let status = std::process::Command::new("/bin/true").status();
            let control = match status.map(|status| status.success()) {
                Ok(true) => Ok(Control::Fired),
                other => Err(format!("who goes by exit codes takes this for a failure: {other:?}")),
            };
            let says = "the sandbox worker died: exit code 0";
            let contained =
                Node::new(PATIENCE).and_then(|mut node| node.contains(Step::Message, dies, says, &[]));
            rows.add(Phase::None, "protocol state, not exit codes", &control, contained);
        }),
        attack(
            "A43",
            "floods the node with output",
            "bounds of each field",
            vec![
                Way::new(
                    "3 MiB of log",
                    |worker, binding, right| {
                        static LINE: [u8; 32 * 1024] = [b'x'; 32 * 1024];
                        worker.claim(binding, right, |claim| claim.logs = List(vec![Bytes(&LINE); 96]))
                    },
                    "bytes of log",
                    |believed| believed.kept > 2 << 20,
                ),
                Way::new(
                    "an answer of 3 MiB",
                    |worker, binding, right| {
                        static LONG: [u8; 3 << 20] = [0; 3 << 20];
                        worker.claim(binding, right, |claim| {
                            if let Some(effects) = &mut claim.effects {
                                effects.answer = Some(Answer::Reply(Bytes(&LONG)));
                            }
                        })
                    },
                    "answer of 3145728 bytes",
                    |believed| believed.kept > 2 << 20,
                ),
                Way::new(
                    "4 KiB of certified data",
                    |worker, binding, right| {
                        worker.claim(binding, right, |claim| {
                            if let Some(effects) = &mut claim.effects {
                                effects.certified_data = Some(Bytes(&[0; 4096]));
                            }
                        })
                    },
                    "4096 bytes of certified data",
                    |believed| believed.kept >= 4096,
                ),
            ],
        ),
    ]
}

/// A frame with any bytes for its message.
fn frame_of(binding: Binding, body: &[u8]) -> Vec<u8> {
    let mut frame = frame(binding, &ToNode::Ready);
    frame.truncate(HEADER_BYTES);
    frame.extend_from_slice(body);
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame
}

/// A claim of a million pages of a heap that has sixteen, and what it costs the node.
pub(super) fn claims_four_gib() -> Result<(), String> {
    let claim: Lie = |worker, binding, right| {
        worker.claim(binding, right, |claim| {
            claim.heap_pages_dirty = 1 << 20;
            claim.heap = List(vec![span(0, 1 << 20)]);
        })
    };
    let mut node = Node::new(PATIENCE)?;
    let before = resident();
    node.contains(Step::Message, claim, "written pages outside of the memory", &[])?;
    match resident().saturating_sub(before) {
        grown if grown < 1 << 20 => Ok(()),
        grown => Err(format!("it cost {grown} bytes")),
    }
}
