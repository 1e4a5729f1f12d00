//! Threads that do without their time-stamp counter, as executors do where that pays. Who hears of faults first depends on
//! each test being a process of its own.

use execution::Backend;
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{Launchers, SandboxOptions, Sandboxed};
use sandbox_os::tsc;

use crate::canister::{compile, of_module, update};
use crate::images::{images, launchers};
use crate::real_worker::{COUNTER, content, execute, on_large_stack};

/// Ends that the engine learns of by a fault, by a signal of another kind and by none.
const METHODS: [&str; 6] = ["outside", "divide", "unreachable", "recurse", "inc_then_trap", "inc"];

/// All ends, with the counter and without it, in both modes.
fn each_end_is_the_same() {
    let canister = of_module(compile(COUNTER), 64 << 20);
    let backends: [Box<dyn Backend>; 2] = [
        Box::new(InProcess::new(Engine::new().unwrap(), &InProcessOptions::default())),
        Box::new(Sandboxed::start(launchers(), SandboxOptions::default()).unwrap()),
    ];
    for method in METHODS {
        let outcomes = [false, true].map(|without| {
            backends.each_ref().map(|backend| {
                if without {
                    tsc::shut();
                } else {
                    tsc::open();
                }
                assert_eq!(tsc::is_shut(), without, "{method}");
                content(&execute(&**backend, &canister, &update(1, method)))
            })
        });
        let [[here, there], without] = outcomes;
        assert!(here == there, "{method}: the modes differ");
        assert!(without == [here, there], "{method}: the counter makes a difference");
    }
}

#[test]
fn messages_end_the_same_without_the_counter_if_the_engine_heard_of_faults_first() {
    on_large_stack(each_end_is_the_same);
}

#[test]
fn messages_end_the_same_without_the_counter_if_the_engine_heard_of_faults_last() {
    tsc::shut();
    tsc::open();
    on_large_stack(each_end_is_the_same);
}

#[test]
fn who_reads_the_counter_itself_gets_it_back_whoever_hears_of_faults_first() {
    let reads = || {
        tsc::shut();
        // SAFETY: every processor that PR_SET_TSC is for has the instruction.
        let read = unsafe { std::arch::x86_64::_rdtsc() };
        assert!(read > 0 && !tsc::is_shut());
    };
    // Before the engine's handler is there, and behind it.
    reads();
    let _engine = Engine::new().unwrap();
    reads();
}

#[test]
fn launchers_that_a_thread_without_the_counter_starts_have_it() {
    let images = images();
    tsc::shut();
    let launchers = Launchers::start(images).unwrap();
    assert!(tsc::is_shut());
    let sandboxed = Sandboxed::start(launchers, SandboxOptions::default()).unwrap();
    sandboxed.probe().unwrap();
}
