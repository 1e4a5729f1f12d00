//! Whatever a compiler says or leaves unsaid, the node gets a module that is in bounds, a refusal that could be shown, or
//! a `BackendError`; and the compiler is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use execution::module::{DataSegment, Interface, MethodKind};
use execution::{BackendError, Compiler, InvalidModule, Limits, Module, ModuleHash};
use sandbox_host::{CompilerOptions, SandboxedCompiler};
use sandbox_os::SocketError;
use sandbox_os::verify::Phase;
use sandbox_protocol::{
    Binding, Bytes, Compiled, FromCompiler, Global, List, MODULE_BYTES_PER_PART, NATIVE_BYTES_MAX,
    OUTPUT_BYTES_PER_REPLY, ToCompiler,
};

use crate::peer::{Peer, Peers, shared};

const PATIENCE: Duration = Duration::from_secs(10);
const WASM: &[u8] = b"a module that nobody here can read";
const NATIVE: &[u8] = b"native code";

/// What the honest compiler of these tests says of [`WASM`].
fn interface() -> Interface {
    let methods = [("get", MethodKind::Query), ("set", MethodKind::Update)];
    Interface {
        has_memory: true,
        heap_pages_min: 1,
        heap_pages_max: 4,
        methods: methods.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect(),
        data: vec![
            DataSegment { offset: 8, bytes: b"first".to_vec() },
            DataSegment { offset: 65_530, bytes: b"second".to_vec() },
        ],
        compile_instructions: 6_000,
        ..Interface::default()
    }
}

fn output() -> Vec<u8> {
    [NATIVE, b"first", b"second"].concat()
}

/// Takes the module, as an honest compiler does, and receives `Compile`.
fn until_compile(peer: &mut Peer) -> Result<Binding, SocketError> {
    loop {
        let binding = peer.receive()?;
        let answer = match peer.compiler_request() {
            ToCompiler::Begin => FromCompiler::Ready,
            ToCompiler::Part(_) => FromCompiler::Taken,
            ToCompiler::Compile(_) => return Ok(binding),
            ToCompiler::Output => panic!("the module isn't compiled yet"),
        };
        peer.reply(binding, &answer)?;
    }
}

fn try_compile(
    peers: Peers,
    compile_patience: Duration,
) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
    let killed = Arc::clone(&peers.killed);
    let options = CompilerOptions { step_patience: compile_patience, compile_patience };
    let compiler = SandboxedCompiler::new(Arc::new(peers), Arc::new(Limits::system()), options);
    let compiled = compiler.compile(WASM);
    assert_eq!(compiler.launches(), 1);
    assert_eq!(killed.load(Ordering::SeqCst), 1, "the compiler is gone");
    compiled
}

/// The violation that a compiler commits by its answer to `Compile`.
fn violation(
    answer: impl Fn(&mut Peer, Binding) -> Result<(), SocketError> + Send + Sync + 'static,
) -> String {
    let peers = Peers::new(move |peer| {
        let binding = until_compile(peer)?;
        answer(peer, binding)?;
        peer.receive().map(drop)
    });
    match try_compile(peers, PATIENCE) {
        Err(BackendError::Violation(violation)) => violation.to_string(),
        other => panic!("a violation was due, not {other:?}"),
    }
}

/// The violation of a compiler that says `change` of the module, and gives the output in the way it is asked for.
fn claim(change: impl Fn(&mut Compiled<'_>) + Send + Sync + 'static) -> String {
    violation(move |peer, binding| {
        let interface = interface();
        let mut compiled = Compiled::new(&interface, NATIVE.len());
        change(&mut compiled);
        peer.reply(binding, &FromCompiler::Compiled(Box::new(compiled)))?;
        let binding = peer.receive()?;
        peer.reply(binding, &FromCompiler::Output(Bytes(&output())))
    })
}

#[test]
fn a_correct_answer_is_a_module_under_the_hash_of_the_bytes_that_were_sent() {
    let peers = Peers::new(|peer| {
        let binding = until_compile(peer)?;
        let interface = interface();
        peer.reply(binding, &FromCompiler::Compiled(Box::new(Compiled::new(&interface, NATIVE.len()))))?;
        let binding = peer.receive()?;
        peer.reply(binding, &FromCompiler::Output(Bytes(&output())))?;
        peer.receive().map(drop)
    });
    let module = try_compile(peers, PATIENCE).unwrap().unwrap();
    assert_eq!(module.hash, ModuleHash::of(WASM));
    assert_eq!(module.wasm_bytes, WASM.len() as u64);
    assert_eq!(module.interface, interface());
    assert_eq!(module.code.len(), NATIVE.len());
}

#[test]
fn a_module_of_several_parts_and_an_output_of_several_replies_arrive_whole() {
    let received = shared(Vec::new());
    let seen = Arc::clone(&received);
    let native: Arc<[u8]> = (0..OUTPUT_BYTES_PER_REPLY + 5).map(|at| at as u8).collect();
    let made = Arc::clone(&native);
    let peers = Peers::new(move |peer| {
        let binding = loop {
            let binding = peer.receive()?;
            match peer.compiler_request() {
                ToCompiler::Begin => peer.reply(binding, &FromCompiler::Ready)?,
                ToCompiler::Part(part) => {
                    seen.lock().unwrap().extend_from_slice(part.0);
                    peer.reply(binding, &FromCompiler::Taken)?;
                }
                ToCompiler::Compile(_) => break binding,
                ToCompiler::Output => panic!("the module isn't compiled yet"),
            }
        };
        let interface = Interface::default();
        peer.reply(binding, &FromCompiler::Compiled(Box::new(Compiled::new(&interface, made.len()))))?;
        for part in made.chunks(OUTPUT_BYTES_PER_REPLY) {
            let binding = peer.receive()?;
            peer.reply(binding, &FromCompiler::Output(Bytes(part)))?;
        }
        peer.receive().map(drop)
    });
    let wasm: Vec<u8> = (0..2 * MODULE_BYTES_PER_PART + 7).map(|at| (at / 3) as u8).collect();
    let options = CompilerOptions { step_patience: PATIENCE, compile_patience: PATIENCE };
    let compiler = SandboxedCompiler::new(Arc::new(peers), Arc::new(Limits::system()), options);
    let module = compiler.compile(&wasm).unwrap().unwrap();
    assert_eq!(*received.lock().unwrap(), wasm);
    assert_eq!(module.code.len(), native.len());
}

#[test]
fn a_compiler_that_dies_at_any_step_is_reported_with_how_it_ended() {
    for steps in 0..4 {
        let error = try_compile(Peers::new(answers(steps, false)), PATIENCE).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the sandbox worker died: compiling: exit code 12: the engine could not be started, or failed",
            "{steps} answers"
        );
    }
}

#[test]
fn a_silent_compiler_meets_its_deadline_at_any_step() {
    for steps in 0..4 {
        let error = try_compile(Peers::new(answers(steps, true)), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, BackendError::Deadline { milliseconds: 50 }), "{error}");
    }
}

/// Answers so many requests, and then none: it ends, or waits to be ended.
fn answers(steps: usize, waits: bool) -> impl Fn(&mut Peer) -> Result<(), SocketError> + Send + Sync {
    move |peer| {
        let interface = interface();
        let compiled = FromCompiler::Compiled(Box::new(Compiled::new(&interface, NATIVE.len())));
        let all = [FromCompiler::Ready, FromCompiler::Taken, compiled];
        for answer in all.iter().take(steps) {
            let binding = peer.receive()?;
            peer.reply(binding, answer)?;
        }
        peer.receive().map(drop)?;
        if waits { peer.receive().map(drop) } else { Ok(()) }
    }
}

#[test]
fn a_module_that_met_a_deadline_is_not_tried_again_at_once_and_others_are() {
    let peers = Peers::new(answers(2, true));
    let patience = Duration::from_millis(50);
    let options = CompilerOptions { step_patience: patience, compile_patience: patience };
    let compiler = SandboxedCompiler::new(Arc::new(peers), Arc::new(Limits::system()), options);
    assert!(matches!(compiler.compile(WASM), Err(BackendError::Deadline { .. })));
    let again = compiler.compile(WASM).unwrap_err().to_string();
    assert!(again.contains("gave no answer within 50 ms); the next is made in "), "{again}");
    assert_eq!(compiler.launches(), 1, "no compiler was asked");
    assert!(matches!(compiler.compile(b"another"), Err(BackendError::Deadline { .. })));
    assert_eq!(compiler.launches(), 2);
}

#[test]
fn a_compiler_that_isnt_confined_gets_no_module() {
    let seen = shared(0);
    let counted = Arc::clone(&seen);
    let mut peers = Peers::new(move |peer| {
        let binding = peer.receive()?;
        *counted.lock().unwrap() += 1;
        peer.reply(binding, &FromCompiler::Ready)?;
        peer.receive()?;
        *counted.lock().unwrap() += 1;
        Ok(())
    });
    peers.missing = Some(Phase::Load);
    let error = try_compile(peers, PATIENCE).unwrap_err();
    assert!(error.to_string().contains("not confined: seccomp"), "{error}");
    assert_eq!(*seen.lock().unwrap(), 1);
}

#[test]
fn an_answer_for_another_request_or_of_another_kind_is_a_violation() {
    let forgeries: [fn(Binding) -> Binding; 3] = [
        |binding| Binding { nonce: binding.nonce ^ 1, ..binding },
        |binding| Binding { execution: binding.execution + 1, ..binding },
        |binding| Binding { worker: binding.worker + 1, ..binding },
    ];
    for forge in forgeries {
        let text = violation(move |peer, binding| peer.reply(forge(binding), &FromCompiler::Refused("no")));
        assert_eq!(text, "a reply to another request");
    }
    for (answer, found) in [
        (FromCompiler::Ready, "ready"),
        (FromCompiler::Taken, "taken"),
        (FromCompiler::Output(Bytes(b"x")), "output"),
    ] {
        let text = violation(move |peer, binding| peer.reply(binding, &answer));
        assert_eq!(text, format!("answered `{found}` where `compiled` was due"));
    }
    let text = violation(|peer, binding| peer.reply(binding, &Bytes(&[255; 100])));
    assert_eq!(text, "bytes that are no message");
}

#[test]
fn sizes_that_no_module_comes_to_are_violations_before_anything_is_taken() {
    let native = "no native code, or more than there may be";
    for bytes in [0, NATIVE_BYTES_MAX + 1, u64::MAX] {
        assert_eq!(claim(move |compiled| compiled.native_bytes = bytes), native);
    }
    for data in [vec![(0, 100 << 20), (0, 1)], vec![(0, u64::MAX), (0, u64::MAX)]] {
        let text = claim(move |compiled| compiled.interface.data = List(data.clone()));
        assert_eq!(text, "more bytes of data than a module has");
    }
}

#[test]
fn more_items_than_a_module_may_have_are_no_message() {
    let many: [fn(&mut Compiled<'_>); 4] = [
        |compiled| compiled.interface.globals = List(vec![Global::I32(0); 1_001]),
        |compiled| compiled.interface.data = List(vec![(0, 0); 100_001]),
        |compiled| compiled.interface.methods = List(vec![("", sandbox_protocol::MethodKind::Query); 1_001]),
        |compiled| compiled.interface.custom_sections = List(vec![("", true, Bytes(b"")); 17]),
    ];
    for many in many {
        assert_eq!(claim(many), "bytes that are no message");
    }
}

#[test]
fn names_and_sections_that_no_module_has_are_violations() {
    let order = "names of methods or sections out of order";
    let query = sandbox_protocol::MethodKind::Query;
    for names in [["b", "a"], ["a", "a"]] {
        let text = claim(move |c| c.interface.methods = names.iter().map(|name| (*name, query)).collect());
        assert_eq!(text, order);
        let text = claim(move |c| {
            c.interface.custom_sections = names.iter().map(|name| (*name, true, Bytes(b""))).collect();
        });
        assert_eq!(text, order);
    }
    let long: &'static str = "n".repeat(20_001).leak();
    let text = claim(move |c| c.interface.methods = List(vec![(long, query)]));
    assert_eq!(text, "more bytes of method names than a module may have");
    let long: &'static [u8] = vec![0; (1 << 20) + 1].leak();
    let text = claim(move |c| c.interface.custom_sections = List(vec![("s", true, Bytes(long))]));
    assert_eq!(text, "more bytes of sections than a module may have");
}

#[test]
fn a_memory_that_no_module_has_is_a_violation() {
    type Change = fn(&mut Compiled<'_>);
    let memory: [(Change, &str); 6] = [
        (
            |c| (c.interface.memory64, c.interface.has_memory) = (true, false),
            "a 64-bit heap without a memory",
        ),
        (|c| c.interface.has_memory = false, "a heap without a memory"),
        (|c| c.interface.heap_pages_min = 5, "heap of 5 to 4 pages, 65536 allowed"),
        (|c| c.interface.heap_pages_max = 65_537, "heap of 1 to 65537 pages, 65536 allowed"),
        (|c| c.interface.heap_pages_max = u64::MAX, "heap of 1 to 18446744073709551615 pages, 65536 allowed"),
        (|c| c.interface.data.0[1].0 = 65_531, "data segment at 65531 outside of 65536 bytes"),
    ];
    for (change, text) in memory {
        assert_eq!(claim(change), text);
    }
    assert_eq!(
        claim(|c| c.interface.data.0[1].0 = u64::MAX),
        "data segment at 18446744073709551615 outside of 65536 bytes"
    );
}

#[test]
fn an_output_of_another_length_than_was_said_is_a_violation() {
    for bytes in [0, NATIVE.len() + 10, NATIVE.len() + 12] {
        let text = violation(move |peer, binding| {
            let interface = interface();
            let compiled = Compiled::new(&interface, NATIVE.len());
            peer.reply(binding, &FromCompiler::Compiled(Box::new(compiled)))?;
            let binding = peer.receive()?;
            peer.reply(binding, &FromCompiler::Output(Bytes(&vec![0; bytes])))
        });
        assert_eq!(text, "a part of the output of another length", "{bytes}");
    }
}

#[test]
fn a_refusal_is_short_and_can_be_shown_or_it_is_a_violation() {
    let refusal = |text: &'static str| {
        try_compile(
            Peers::new(move |peer| {
                let binding = until_compile(peer)?;
                peer.reply(binding, &FromCompiler::Refused(text))?;
                peer.receive().map(drop)
            }),
            PATIENCE,
        )
    };
    assert_eq!(refusal("section 3: bad").unwrap().unwrap_err(), InvalidModule("section 3: bad".into()));
    let long: &'static str = "x".repeat(InvalidModule::BYTES_MAX + 1).leak();
    for text in ["", "\x1b[2J", "two\nlines", long] {
        assert_eq!(refusal(text).unwrap_err().to_string(), "violation: a refusal that no compiler gives");
    }
}

#[test]
fn a_compilers_own_report_of_failure_refuses_no_module_and_reaches_no_log_unescaped() {
    let peers = Peers::new(|peer| {
        let binding = until_compile(peer)?;
        peer.reply(binding, &FromCompiler::Failed("\x1b[2Jone\nline"))?;
        peer.receive().map(drop)
    });
    assert_eq!(try_compile(peers, PATIENCE).unwrap_err().to_string(), "engine failure:  [2Jone line");
}
