//! What fails around the guest: nothing is committed, the message runs again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use execution::{
    BackendError, Compiler, IngressStatus, InvalidModule, Module, SchedulerOptions, Subnet, state_root,
};

use crate::scripted::{Bench, Op, killed};

#[test]
fn a_worker_that_dies_twice_costs_nothing_but_a_retry() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    *bench.script.failing.lock().unwrap() = Some((2, a, killed));
    let before = bench.state(a).version;
    assert_eq!(bench.run(a, [Op::Heap(1, 1), Op::Reply(b"ok".to_vec())]).unwrap(), b"ok");
    assert_eq!((bench.state(a).version, bench.heap(a, 1)), (before + 1, 1));
}

#[test]
fn a_backend_that_keeps_failing_changes_no_canister_and_ends_in_quarantine() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    *bench.script.failing.lock().unwrap() = Some((9, a, killed));
    let program = bench.program([Op::Reply(b"ok".to_vec())]);
    let id = bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    let root = execution::root::canister_root(bench.state(a));
    for rounds in 1..=3 {
        let report = bench.round();
        assert_eq!(report.failures.len(), 1);
        assert_eq!((report.failures[0].canister, report.failures[0].rounds), (a, rounds));
        assert_eq!(execution::root::canister_root(bench.state(a)), root);
    }
    assert!(bench.subnet.is_quarantined(&a));
    let refused = bench.submit(a, "run", b"").unwrap_err();
    assert!(refused.description.contains("unavailable on this node, retry"), "{refused}");
    assert!(bench.run(b, [Op::Reply(vec![])]).is_ok());
    assert_eq!(bench.subnet.status(&id), IngressStatus::Received);
    bench.subnet.release(&a);
    bench.round();
    assert_eq!(bench.subnet.status(&id), IngressStatus::Replied(Arc::from(*b"ok")));
}

#[test]
fn a_message_waits_for_a_resource_of_the_node_however_long_that_takes() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let full = || BackendError::Exhausted { limit: "arena_bytes", detail: "full".into() };
    // Two tries in each of six rounds, more than end in quarantine otherwise.
    *bench.script.failing.lock().unwrap() = Some((12, a, full));
    let program = bench.program([Op::Reply(b"ok".to_vec())]);
    let id = bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    let mut failed = Vec::new();
    for round in 0..40 {
        for failure in bench.round().failures {
            assert_eq!(failure.error, "out of arena_bytes: full");
            failed.push(round);
        }
        assert!(!bench.subnet.is_quarantined(&a));
    }
    assert_eq!(failed, [0, 1, 3, 7, 15, 31], "ever less often");
    assert_eq!(bench.subnet.status(&id), IngressStatus::Received);
    for _ in 40..64 {
        bench.round();
    }
    assert_eq!(bench.subnet.status(&id), IngressStatus::Replied(Arc::from(*b"ok")));
}

#[test]
fn a_message_whose_worker_met_its_deadline_is_tried_again_in_the_next_round_and_not_before() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    *bench.script.failing.lock().unwrap() = Some((1, a, || BackendError::Deadline { milliseconds: 9 }));
    let program = bench.program([Op::Reply(b"ok".to_vec())]);
    let id = bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    let report = bench.round();
    assert_eq!((report.failures.len(), report.failures[0].rounds), (1, 1));
    assert_eq!(bench.subnet.status(&id), IngressStatus::Received);
    assert!(bench.round().failures.is_empty());
    assert_eq!(bench.subnet.status(&id), IngressStatus::Replied(Arc::from(*b"ok")));
}

fn back_off() -> BackendError {
    BackendError::BackOff { failures: 4, milliseconds: 9, last: "signal 9".into() }
}

#[test]
fn a_round_that_tried_nothing_because_of_back_off_does_not_count_towards_quarantine() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    // One try in each round: it would be refused again.
    *bench.script.failing.lock().unwrap() = Some((10, a, back_off));
    let program = bench.program([Op::Reply(b"ok".to_vec())]);
    let id = bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    for _ in 0..10 {
        let report = bench.round();
        assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
        assert_eq!(report.failures[0].rounds, 0);
        assert!(!bench.subnet.is_quarantined(&a));
    }
    bench.round();
    assert_eq!(bench.subnet.status(&id), IngressStatus::Replied(Arc::from(*b"ok")));
}

#[test]
fn a_round_whose_second_try_was_refused_counts_for_what_ended_the_first() {
    fn killed_then_refused() -> BackendError {
        static TRIES: AtomicU32 = AtomicU32::new(0);
        if TRIES.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { killed() } else { back_off() }
    }
    let mut bench = Bench::new();
    let a = bench.canister("");
    *bench.script.failing.lock().unwrap() = Some((6, a, killed_then_refused));
    let program = bench.program([Op::Reply(b"ok".to_vec())]);
    bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    for rounds in 1..=3 {
        let report = bench.round();
        assert_eq!(report.failures[0].rounds, rounds);
        assert_eq!(report.failures[0].error, "the sandbox worker died: signal 9");
    }
    assert!(bench.subnet.is_quarantined(&a));
}

#[test]
fn what_the_node_is_short_of_is_asked_back_before_the_next_try_and_nothing_else_is() {
    let full = || BackendError::Exhausted { limit: "workers_max", detail: "full".into() };
    let shorts = ["out of workers_max: full".to_owned()];
    for (fail, asked) in [(full as crate::scripted::Fail, &shorts[..]), (killed, &[])] {
        let mut bench = Bench::new();
        let a = bench.canister("");
        *bench.script.failing.lock().unwrap() = Some((1, a, fail));
        assert_eq!(bench.run(a, [Op::Reply(b"ok".to_vec())]).unwrap(), b"ok");
        assert_eq!(*bench.script.relieved.lock().unwrap(), asked);
    }
}

#[test]
fn a_lie_is_a_violation_and_not_a_trap() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let program = bench.program([Op::Lie(|outcome| outcome.instructions = u64::MAX)]);
    let id = bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    let report = bench.round();
    assert!(report.failures[0].violation, "{:?}", report.failures);
    assert!(report.executed.is_empty());
    assert_eq!(bench.subnet.status(&id), IngressStatus::Received);
}

/// Fails at modules that begin with `init bomb` until it is mended; counts what it is asked for.
struct Compilers {
    script: Arc<crate::scripted::Scripted>,
    mended: AtomicBool,
    asked: AtomicUsize,
}

impl Compiler for Compilers {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if wasm.starts_with(b"init bomb") && !self.mended.load(Ordering::SeqCst) {
            return Err(BackendError::Deadline { milliseconds: 60_000 });
        }
        self.script.compile(wasm)
    }
}

#[test]
fn an_install_that_cant_be_compiled_is_set_aside_with_nothing_committed_and_nobody_waits_for_it() {
    let bench = Bench::new();
    let compiler = Arc::new(Compilers {
        script: Arc::clone(&bench.script),
        mended: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
    });
    let mut subnet = Subnet::new(
        execution::SubnetConfig::application(),
        Arc::clone(&bench.script) as Arc<dyn execution::Backend>,
        Arc::clone(&compiler) as Arc<dyn Compiler>,
        SchedulerOptions::default(),
    );
    let canister = |subnet: &mut Subnet| {
        subnet.create_canister(crate::scripted::ANONYMOUS, None, crate::scripted::BALANCE).unwrap()
    };
    let [empty, full] = [canister(&mut subnet), canister(&mut subnet)];
    let mut installs = 0;
    let mut install = |subnet: &mut Subnet, id, mode, module| {
        installs += 1;
        let arg = crate::scripted::install_arg(id, mode, module, crate::scripted::NOTHING);
        let message = execution::Ingress {
            sender: crate::scripted::ANONYMOUS,
            receiver: execution::Principal::management_canister(),
            method: "install_code".into(),
            arg: Arc::from(arg),
            nonce: vec![installs],
        };
        subnet.submit(message).unwrap()
    };
    let good = install(&mut subnet, full, crate::scripted::Mode::Install, "init");
    subnet.round(1, [0; 32]);
    assert!(matches!(subnet.status(&good), IngressStatus::Replied(_)));

    for (id, mode, newer) in [
        (empty, crate::scripted::Mode::Install, "init"),
        (full, crate::scripted::Mode::Reinstall, "init newer"),
    ] {
        compiler.mended.store(false, Ordering::SeqCst);
        let bomb = install(&mut subnet, id, mode, "init bomb");
        // It has paid for its message by now.
        let before = execution::root::canister_root(subnet.state().canister(&id).unwrap());
        compiler.asked.store(0, Ordering::SeqCst);
        for rounds in 1..=3 {
            let report = subnet.round(1, [0; 32]);
            assert_eq!((report.failures[0].canister, report.failures[0].rounds), (id, rounds));
            assert_eq!(report.failures[0].error, "the sandbox worker gave no answer within 60000 ms");
        }
        assert_eq!(
            compiler.asked.load(Ordering::SeqCst),
            3,
            "one try in each of three rounds: it met a deadline"
        );
        let report = subnet.round(1, [0; 32]);
        assert!(report.failures.is_empty() && !report.more, "it is set aside: {:?}", report.failures);
        assert_eq!(compiler.asked.load(Ordering::SeqCst), 3, "and not tried again");
        assert_eq!(execution::root::canister_root(subnet.state().canister(&id).unwrap()), before);
        assert_eq!(subnet.status(&bomb), IngressStatus::Received, "but kept");

        // The same sender's next call isn't held up, and new code ends the quarantine; what was set aside stays so.
        let good = install(&mut subnet, id, mode, newer);
        let report = subnet.round(1, [0; 32]);
        assert!(matches!(subnet.status(&good), IngressStatus::Replied(_)), "{:?}", report.failures);
        assert!(!subnet.is_quarantined(&id));
        assert_eq!(compiler.asked.load(Ordering::SeqCst), 4);

        compiler.mended.store(true, Ordering::SeqCst);
        subnet.round(1, [0; 32]);
        assert_eq!(subnet.status(&bomb), IngressStatus::Received, "until an operator says so");
        // By then newer code is there, which an old install is not to take away.
        let code = subnet.state().canister(&id).unwrap().code.clone().unwrap().module.hash;
        subnet.release(&id);
        subnet.round(1, [0; 32]);
        let IngressStatus::Rejected(why) = subnet.status(&bomb) else { panic!("overtaken by newer code") };
        assert!(why.to_string().contains("before newer code was installed"), "{why}");
        assert_eq!(subnet.state().canister(&id).unwrap().code.clone().unwrap().module.hash, code);
    }

    // Without newer code, what was set aside is done when an operator says so.
    compiler.mended.store(false, Ordering::SeqCst);
    let bomb = install(&mut subnet, full, crate::scripted::Mode::Reinstall, "init bomb");
    for _ in 1..=4 {
        subnet.round(1, [0; 32]);
    }
    assert!(!subnet.is_quarantined(&full), "it is well with the code that it has");
    compiler.mended.store(true, Ordering::SeqCst);
    subnet.release(&full);
    subnet.round(1, [0; 32]);
    assert!(matches!(subnet.status(&bomb), IngressStatus::Replied(_)));
}

#[test]
fn roots_do_not_depend_on_the_number_of_threads_or_on_failures() {
    let roots: Vec<_> = [(1, 0), (2, 0), (4, 0), (2, 2)]
        .into_iter()
        .map(|(threads, deaths)| {
            let mut bench = Bench::with(execution::SubnetConfig::application(), threads);
            let ids: Vec<_> = (0..6).map(|_| bench.canister("")).collect();
            let echo = bench.program([Op::Heap(2, 2), Op::Print("echo"), Op::Reply(b"e".to_vec())]);
            let back = bench.program([Op::Heap(3, 3), Op::ReplyResponse]);
            *bench.script.failing.lock().unwrap() = Some((deaths, ids[1], killed));
            let messages: Vec<_> = (0..60)
                .map(|n| {
                    let calls =
                        (0..n % 4).map(|c| Op::Call(crate::scripted::call(ids[(n + c) % 6], echo, back)));
                    let program =
                        bench.program(calls.chain([Op::Heap(n as u64 % 16, n as u8), Op::Print("x")]));
                    bench.submit(ids[n % 6], "run", &program.to_be_bytes()).unwrap()
                })
                .collect();
            let report = bench.round();
            let order: Vec<_> =
                report.executed.iter().map(|e| (e.canister, e.kind, e.ended.clone())).collect();
            assert!(messages.iter().all(|id| bench.subnet.status(id).is_terminal()));
            assert_eq!(bench.subnet.state_root(), state_root(bench.subnet.state()));
            (bench.subnet.state_root(), order)
        })
        .collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_subnet_goes_on_from_a_state_as_if_it_had_never_stopped() {
    let mut bench = Bench::new();
    let beat = bench.program([Op::Heap(1, 1)]);
    let again = bench.program([Op::Timer(1), Op::Heap(2, 2)]);
    let a = bench.canister(&format!("heartbeat={beat} timer={again}"));
    let b = bench.canister("");
    let echo = bench.program([Op::Reply(vec![1])]);
    let back = bench.program([Op::ReplyResponse]);
    let mut best_effort = crate::scripted::call(b, echo, back);
    best_effort.timeout = Some(3);
    let program = bench.program([Op::Timer(1), Op::Call(best_effort)]);
    *bench.script.failing.lock().unwrap() = Some((3, b, killed));
    bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    bench.round();
    assert!(!bench.state(b).inputs.is_empty());
    let mut resumed = Subnet::with_state(
        bench.subnet.config().clone(),
        bench.subnet.state().clone(),
        Arc::clone(&bench.script) as Arc<dyn execution::Backend>,
        Arc::clone(&bench.script) as Arc<dyn execution::Compiler>,
        SchedulerOptions { threads: 3, ..SchedulerOptions::default() },
    );
    for _ in 0..6 {
        let report = bench.round();
        let other = resumed.round(bench.time, [7; 32]);
        assert_eq!(other.executed.len(), report.executed.len());
        assert_eq!(resumed.state_root(), bench.subnet.state_root());
    }
    assert!(bench.state(a).calls.contexts.is_empty());
}
