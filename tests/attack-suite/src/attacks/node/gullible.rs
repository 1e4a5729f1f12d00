//! The controls' node: it says what a node says, and believes what it is told. No bound on lengths, no binding, no
//! phase, no claim looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};

use execution::{EntryPoint, Freezing, Invocation, Limits, Principal, RunStatus, SystemView};
use sandbox_os::Socket;
use sandbox_protocol::{
    Answer, Binding, Execute, Global, HEADER_BYTES, List, Load, Sync, ToNode, ToWorker, encode, packets,
};

use super::world::{HEAP_PAGES, Lie, Plan, SHORT_PATIENCE, Step, Worker};

/// Bytes set aside for the last frame, also while a conversation hangs.
static RESERVED: AtomicUsize = AtomicUsize::new(0);

/// What such a node has come to believe after two messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Believed {
    pub(super) instructions: u64,
    pub(super) heap_pages: u64,
    /// Cycles, of 1,000 at the start.
    pub(super) balance: u128,
    pub(super) answers: Vec<Vec<u8>>,
    pub(super) accepted: bool,
    pub(super) timer: bool,
    pub(super) paused: bool,
    /// Bytes of logs, answers and certified data that it keeps.
    pub(super) kept: usize,
    /// Bytes that it set aside for a frame.
    pub(super) reserved: usize,
    /// Descriptors that came with answers.
    pub(super) files: usize,
    /// It came to its end by a panic.
    pub(super) panicked: bool,
    /// It never came to its end.
    pub(super) hangs: bool,
}

/// Talks to a worker that lies at a step.
pub(super) fn believes(step: Step, lie: Lie, arg_bytes: usize) -> Believed {
    let plan = Arc::new(Plan::default());
    plan.set(Some((step, lie)));
    let Ok((node, worker)) = Socket::pair() else { return Believed::default() };
    Worker::start(worker, plan);
    let (done, came) = channel();
    std::thread::spawn(move || {
        let mut believed = Believed { balance: 1_000, heap_pages: HEAP_PAGES, ..Believed::default() };
        let ended = catch_unwind(AssertUnwindSafe(|| talk(&node, &mut believed, arg_bytes)));
        believed.panicked = ended.is_err();
        let _nobody_waits = done.send(believed);
        // The worker may still be telling something.
        drop(node);
    });
    // Longer than a node with deadlines takes for the same conversation.
    match came.recv_timeout(2 * SHORT_PATIENCE) {
        Ok(believed) => believed,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Believed { hangs: true, reserved: RESERVED.load(Ordering::SeqCst), ..Believed::default() }
        }
    }
}

fn talk(node: &Socket, believed: &mut Believed, arg_bytes: usize) {
    let mut ask = |execution: u64, request: &ToWorker<'_>| {
        let mut frame = Vec::new();
        encode(Binding { worker: 0, execution, nonce: 1 }, request, &mut frame).expect("it fits");
        // Waits for room for as long as it takes.
        packets(&frame).for_each(|packet| node.send_blocking(packet).expect("a worker never dies"));
        take(node, believed)
    };
    ask(0, &ToWorker::Begin);
    let start = || Sync {
        heap_pages: HEAP_PAGES,
        stable_pages: 0,
        globals: List(vec![Global::I32(0)]),
        heap: List(vec![]),
        stable: List(vec![]),
    };
    let load = Load {
        memory64: false,
        has_memory: true,
        heap_pages_max: 4,
        stable_pages_max: 1,
        drops_data: false,
        globals: List(vec![Global::I32(0)]),
        arena_bytes: 0,
        start: start(),
    };
    ask(0, &ToWorker::Load(Box::new(load)));
    ask(0, &ToWorker::Lock);
    for execution in [1, 2] {
        let invocation = invocation(execution, arg_bytes);
        let invocation = sandbox_protocol::Invocation::new(&invocation, None);
        ask(
            execution,
            &ToWorker::Execute(Box::new(Execute { sync: start(), invocation, expected: List::default() })),
        );
    }
}

/// The next message, whatever it is: a length, as many bytes, and what they mean.
fn take(node: &Socket, believed: &mut Believed) {
    let mut packet = vec![0; sandbox_os::PACKET_BYTES_MAX];
    let mut frame = Vec::new();
    loop {
        let (bytes, files) = node.receive_with_files(&mut packet).expect("a worker never dies");
        believed.files += files.len();
        if frame.is_empty() {
            let length = u32::from_le_bytes([packet[4], packet[5], packet[6], packet[7]]) as usize;
            frame = Vec::with_capacity(length);
            RESERVED.store(frame.capacity(), Ordering::SeqCst);
        }
        frame.extend_from_slice(&packet[..bytes]);
        let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
        if frame.len() >= length {
            break;
        }
    }
    let message: ToNode<'_> =
        sandbox_protocol::decode(&frame[HEADER_BYTES..]).expect("a worker speaks the protocol");
    match message {
        ToNode::Finished(claim) => {
            believed.instructions = claim.instructions;
            believed.heap_pages = claim.heap_pages;
            believed.kept += claim.logs.0.iter().map(|line| line.0.len()).sum::<usize>();
            let mut pages = vec![false; usize::try_from(HEAP_PAGES * 16).expect("few")];
            for span in &claim.heap.0 {
                let first = usize::try_from(span.page).expect("a page");
                assert!(!pages[first], "a page twice");
                pages[first] = true;
            }
            if let Some(effects) = claim.effects {
                believed.balance = believed.balance.wrapping_add(effects.cycles_accepted);
                believed.balance = believed.balance.wrapping_sub(effects.cycles_burned);
                believed.accepted |= effects.accepted;
                believed.timer |= effects.global_timer.is_some();
                believed.kept += effects.certified_data.map_or(0, |data| data.0.len());
                if let Some(Answer::Reply(data)) = effects.answer {
                    believed.kept += data.0.len();
                    believed.answers.push(data.0.to_vec());
                }
            }
        }
        ToNode::Paused { .. } => believed.paused = true,
        _ => {}
    }
}

fn invocation(id: u64, arg_bytes: usize) -> Invocation {
    let principal = Principal::from_slice(&[1; 10]);
    Invocation {
        id,
        entry: EntryPoint::Update { method: "set".into(), arg: vec![0; arg_bytes].into() },
        caller: Principal::anonymous(),
        instructions_max: 1_000,
        slice: 1_000,
        system: SystemView {
            canister: principal,
            subnet: principal,
            time: 0,
            version: 0,
            status: RunStatus::Running,
            controllers: Vec::new(),
            balance: 1_000,
            freezing: Freezing::default(),
            cycles_available: 0,
            cycles_refunded: 0,
            deadline: 0,
            global_timer: 0,
            answered: false,
            answer_needed: true,
            call_context_instructions: 0,
            data_certificate: None,
            environment_variables: Vec::new(),
            root_key: Arc::from([0; 8]),
            wasm_memory_limit: 0,
            subnet_memory_available: 1 << 40,
            callbacks_free: 1,
            queue_taken: Vec::new(),
            log_capacity: 0,
            log_bytes_free: 0,
        },
        limits: Arc::new(Limits::application()),
    }
}
