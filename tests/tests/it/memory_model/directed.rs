//! What random messages may miss, by name. The scratch page of every program is page 0, so it is always
//! among the pages written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use bulkhead_node::node::on_executor_stack;
use execution::memory::{PAGE_BYTES, WASM_PAGE_BYTES};
use execution::{BackendError, EntryPoint, GlobalValue, Module, Outcome};
use in_process::Engine;
use sandbox_host::Role;

use super::canister::{self, HEAP_PAGES_MIN, Kind, Op};
use super::subject::{Subject, assert_trapped, pages, reply};
use super::{Way, ways};
use crate::processes::{self, Activity, wait_until};

const PLAIN: Kind = Kind { memory64: false, drops: false, heap_pages_max: 16 };
const PAGE: u64 = PAGE_BYTES as u64;
/// Where the heap ends at the start.
const END: u64 = HEAP_PAGES_MIN * WASM_PAGE_BYTES;

/// An `i64.store`.
const fn store(at: u64, value: u64) -> Op {
    Op::Store { store: 6, offset: 0, at, value }
}

/// Runs a test in both modes, where guest code fits on the stack.
fn in_both_modes(kind: Kind, test: impl Fn(&mut Subject<'_>) + Sync) {
    let engine = Engine::new().expect("the engine starts");
    let module = kind.compile(&engine);
    for way in [ways::in_process(&engine), ways::sandboxed()] {
        println!("{}:", way.name);
        on_executor_stack(|| test(&mut Subject::new(&way, &module)));
    }
}

#[test]
fn growth_that_a_trap_undid_gives_the_old_size_back_and_zeroed_pages() {
    in_both_modes(PLAIN, |subject| {
        let trapped = subject.update(&[
            Op::Grow { pages: 2 },
            store(END + 5 * PAGE, u64::MAX),
            Op::StableGrow { pages: 3 },
            Op::StableWrite { to: 2 * PAGE, from: END + 5 * PAGE, bytes: 8 },
            Op::Unreachable,
        ]);
        assert_trapped(&trapped, "unreachable");
        assert_eq!((trapped.heap_pages_dirty, trapped.stable_pages_dirty), (2, 1));
        assert_eq!(subject.whole_of_updates(), subject.recorded());

        let grown = subject.update(&[Op::Grow { pages: 1 }, Op::Look { at: END, bytes: WASM_PAGE_BYTES }]);
        assert_eq!(subject.result(), GlobalValue::I64(HEAP_PAGES_MIN.cast_signed()));
        assert_eq!(subject.canister.snapshot.heap.wasm_pages(), HEAP_PAGES_MIN + 1);
        assert!(reply(&grown).iter().all(|&byte| byte == 0), "what the trapped message wrote is gone");

        let read = subject.update(&[
            Op::StableGrow { pages: 1 },
            Op::StableRead { to: PAGE, from: 2 * PAGE, bytes: PAGE },
            Op::Look { at: PAGE, bytes: PAGE },
        ]);
        assert_eq!(subject.result(), GlobalValue::I64(0));
        assert_eq!(subject.canister.snapshot.stable.wasm_pages(), 1);
        assert_eq!(reply(&read), [0; PAGE_BYTES]);
    });
}

#[test]
fn a_query_that_writes_and_grows_leaves_no_trace_for_the_next_query() {
    in_both_modes(PLAIN, |subject| {
        subject.update(&[store(2 * PAGE, 1), Op::StableGrow { pages: 1 }]);
        let before = subject.whole();
        let worker = subject.worker(Role::Query);
        let wrote = subject.ask(&[
            Op::Globals { value: 99 },
            Op::Fill { at: 2 * PAGE, byte: 0xaa, bytes: 2 * PAGE },
            Op::StableWrite { to: PAGE - 2, from: 2 * PAGE, bytes: 4 },
            Op::StableRead { to: 9 * PAGE, from: PAGE - 4, bytes: 8 },
            Op::Look { at: 9 * PAGE, bytes: 8 },
        ]);
        assert_eq!(wrote, [0, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0], "it sees what it wrote itself");
        assert_eq!(subject.whole(), before);
        assert_eq!(subject.worker(Role::Query), worker, "the same worker has answered all three");

        let grow = [
            Op::Grow { pages: 1 },
            Op::Look { at: END, bytes: 8 },
            store(END, u64::MAX),
            Op::Spill { at: 3 * PAGE },
            Op::Look { at: 3 * PAGE, bytes: 12 },
            Op::StableGrow { pages: 1 },
        ];
        // New bytes are zero, the size before is 2, and the `i32` global is what it was at the start.
        let expected = [[0; 8].as_slice(), &2_u64.to_le_bytes(), &1_u32.to_le_bytes()].concat();
        for _ in 0..3 {
            assert_eq!(subject.ask(&grow), expected);
        }
        assert_eq!(subject.whole(), before);
    });
}

#[test]
fn a_page_written_with_the_bytes_that_it_had_counts_as_written() {
    in_both_modes(PLAIN, |subject| {
        let write = [
            Op::StableGrow { pages: 0 },
            store(2 * PAGE, 7),
            // Zeros, where nothing has ever been written.
            Op::Fill { at: 6 * PAGE - 1, byte: 0, bytes: 2 },
            Op::StableWrite { to: 3 * PAGE, from: 8 * PAGE, bytes: 1 },
        ];
        subject.update(&[Op::StableGrow { pages: 1 }]);
        let first = subject.update(&write);
        let bytes = subject.recorded();
        let second = subject.update(&write);
        assert_eq!(subject.recorded(), bytes, "nothing has changed");
        for outcome in [&first, &second] {
            let delta = &outcome.effects.as_ref().expect("it returned").memory;
            assert_eq!(pages(&delta.heap), [0, 2, 5, 6]);
            assert_eq!(pages(&delta.stable), [3]);
            assert_eq!((outcome.heap_pages_dirty, outcome.stable_pages_dirty), (4, 1));
        }
        assert_eq!(first.instructions, second.instructions);
    });
}

#[test]
fn a_run_that_was_given_up_is_forgotten_by_the_instance_that_ran_it() {
    in_both_modes(PLAIN, |subject| {
        subject.update(&[store(2 * PAGE, 1), Op::StableGrow { pages: 1 }, Op::Globals { value: 5 }]);
        let before = subject.recorded();
        let worker = subject.worker(Role::Update);
        let write = [
            Op::Globals { value: 6 },
            store(2 * PAGE, 2),
            store(3 * PAGE, 3),
            Op::StableWrite { to: 0, from: 2 * PAGE, bytes: 8 },
        ];
        assert_eq!(subject.give_up(&write).heap_pages_dirty, 3);
        assert_eq!(subject.whole_of_updates(), before);
        // Given up once more, and at once followed by a message that writes beside it.
        subject.give_up(&write);
        let outcome = subject.update(&[
            store(2 * PAGE + 8, 4),
            Op::Spill { at: 16 * PAGE },
            Op::StableWrite { to: 8, from: 2 * PAGE + 8, bytes: 8 },
        ]);
        assert_eq!(subject.worker(Role::Update), worker, "one worker has run them all");
        let delta = &outcome.effects.as_ref().expect("it returned").memory;
        assert_eq!((pages(&delta.heap), pages(&delta.stable)), (vec![0, 2, 16], vec![0]));
        let written = |index: usize, at: usize| delta.heap[index].1.bytes()[at..at + 16].to_vec();
        assert_eq!(written(1, 0), [1_u64.to_le_bytes(), 4_u64.to_le_bytes()].concat());
        assert_eq!(written(2, 8)[..4], 5_u32.to_le_bytes());
        assert_eq!(delta.stable[0].1.bytes()[..16], [0_u64.to_le_bytes(), 4_u64.to_le_bytes()].concat());

        // Growth, too.
        subject.give_up(&[Op::Grow { pages: 3 }, store(END, 9), Op::StableGrow { pages: 1 }]);
        subject.update(&[Op::Grow { pages: 1 }]);
        assert_eq!(subject.result(), GlobalValue::I64(HEAP_PAGES_MIN.cast_signed()));
        assert_eq!(subject.whole_of_updates(), subject.recorded());
    });
}

#[test]
fn a_dropped_segment_is_there_again_for_the_next_message() {
    in_both_modes(Kind { drops: true, ..PLAIN }, |subject| {
        let init = Op::Init { to: PAGE, from: 100, bytes: 4 };
        for _ in 0..2 {
            let outcome = subject.update(&[init, Op::Drop, Op::Look { at: PAGE, bytes: 4 }]);
            assert_eq!(reply(&outcome), canister::passive()[100..104]);
            assert_trapped(&subject.update(&[Op::Drop, init]), "heap out of bounds");
            assert_eq!(subject.ask(&[init, Op::Drop, Op::Look { at: PAGE, bytes: 1 }]).len(), 1);
        }
    });
}

#[test]
fn a_composite_querys_callback_sees_what_its_first_step_left_and_nobody_else_does() {
    in_both_modes(PLAIN, |subject| {
        subject.update(&[Op::StableGrow { pages: 1 }]);
        let before = subject.whole();
        let step = canister::encode(&[
            Op::Grow { pages: 1 },
            store(END + PAGE, 0x0102_0304),
            Op::StableWrite { to: PAGE, from: END + PAGE, bytes: 4 },
        ]);
        let first = subject.run(EntryPoint::CompositeQuery { method: "step".into(), arg: step }, None);
        let overlay = canister::after(&subject.canister.snapshot, &first);
        let look = [
            Op::StableRead { to: 5 * PAGE, from: PAGE, bytes: 4 },
            Op::Look { at: 5 * PAGE, bytes: 4 },
            Op::Look { at: END + PAGE, bytes: 4 },
            Op::Spill { at: PAGE },
            Op::Look { at: PAGE, bytes: 8 },
        ];
        let callback = canister::reply(canister::encode(&look), true);
        let second = subject.run(callback.clone(), Some(&overlay));
        let expected = [[4, 3, 2, 1, 4, 3, 2, 1].as_slice(), &HEAP_PAGES_MIN.to_le_bytes()].concat();
        assert_eq!(reply(&second), expected);
        assert_eq!(subject.whole(), before);
        assert_trapped(&subject.run(callback, None), "exceeds the slice size");
    });
}

#[test]
fn an_old_snapshot_keeps_its_versions_until_it_is_dropped_and_then_their_slots_are_used_again() {
    in_both_modes(PLAIN, |subject| {
        const FILLED: u64 = 10;
        /// The filled pages and the scratch page.
        const WRITTEN: usize = (FILLED as usize + 1) * PAGE_BYTES;
        let fill = |byte| [Op::Fill { at: 2 * PAGE, byte, bytes: FILLED * PAGE }];
        let look = [Op::Look { at: 2 * PAGE, bytes: FILLED * PAGE }];
        subject.update(&fill(1));
        let used = subject.bytes_used();
        let old = subject.canister.clone();
        subject.update(&fill(2));
        subject.update(&fill(3));
        assert!(subject.bytes_used() >= used + WRITTEN, "old and new versions are there");
        let newest = std::mem::replace(&mut subject.canister, old);
        assert!(subject.ask(&look).iter().all(|&byte| byte == 1), "the old snapshot is what it was");
        subject.canister = newest;
        assert!(subject.ask(&look).iter().all(|&byte| byte == 3));

        // Both instances go to the newest state: nobody needs the old versions any more.
        subject.whole_of_updates();
        assert_eq!(subject.bytes_used(), subject.bytes_live());
        for byte in 4..40 {
            subject.update(&fill(byte));
            // What is live, what the instance for updates came from, and the query instance's state.
            assert!(subject.bytes_used() <= subject.bytes_live() + 2 * WRITTEN, "slots are used again");
        }
        assert!(subject.whole() == subject.recorded() && subject.whole_of_updates() == subject.recorded());
        assert_eq!(subject.bytes_used(), subject.bytes_live());
    });
}

/// An update that has written and then runs on until its instructions are used up.
fn writes_and_runs_on(subject: &mut Subject<'_>, instructions_max: u64) -> execution::Invocation {
    let ops = [store(2 * PAGE, u64::MAX), Op::Spin];
    let entry = EntryPoint::Update { method: "run".into(), arg: canister::encode(&ops) };
    let invocation = subject.invocation(entry);
    execution::Invocation { instructions_max, slice: instructions_max, ..invocation }
}

/// A canister with a page that says 1.
fn subject_with_one<'a>(way: &'a Way, module: &Arc<Module>) -> Subject<'a> {
    let mut subject = Subject::new(way, module);
    subject.update(&[store(2 * PAGE, 1)]);
    subject
}

#[test]
fn a_query_is_answered_while_an_update_runs_and_a_kill_leaves_nothing_of_the_update() {
    let engine = Engine::new().expect("the engine starts");
    let (way, module) = (ways::sandboxed(), PLAIN.compile(&engine));
    let mut subject = subject_with_one(&way, &module);
    let before = subject.recorded();
    // Some ten seconds, unless it is killed.
    let long = writes_and_runs_on(&mut subject, 40_000_000_000);
    let ended = AtomicBool::new(false);
    let snapshot = subject.canister.snapshot.clone();
    std::thread::scope(|scope| {
        let update = scope.spawn(|| {
            let result = way.backend.execute(&snapshot, &long);
            ended.store(true, Ordering::SeqCst);
            result
        });
        let worker = subject.worker(Role::Update).expect("it has run a message before").cast_unsigned();
        let mut activity = Activity::of_process(worker);
        wait_until("the update runs", || activity.is_seen().then_some(()));
        for _ in 0..3 {
            assert_eq!(subject.whole(), before, "nothing of the update is to be seen");
        }
        assert!(!ended.load(Ordering::SeqCst), "the update was to be still running");
        assert_eq!(subject.worker(Role::Update), Some(worker.cast_signed()));
        assert_ne!(subject.worker(Role::Query), Some(worker.cast_signed()));
        assert!(processes::kill(worker), "it was running");
        let died = update.join().expect("the thread lives on").map(drop);
        assert!(matches!(died, Err(BackendError::WorkerDied { .. })), "{died:?}");
    });
    drop(snapshot);
    assert_eq!(subject.whole_of_updates(), before);
    subject.update(&[store(2 * PAGE + 8, 2)]);
    assert!(subject.whole() == subject.recorded() && subject.whole_of_updates() == subject.recorded());
    assert_eq!(subject.bytes_used(), subject.bytes_live(), "no page of it stayed in the arena");
}

#[test]
fn a_query_is_answered_while_an_update_runs_in_process() {
    let engine = Engine::new().expect("the engine starts");
    let (way, module) = (ways::in_process(&engine), PLAIN.compile(&engine));
    on_executor_stack(|| {
        let mut subject = subject_with_one(&way, &module);
        let before = subject.recorded();
        // A busy machine may not get to the query in time: then the update has to run for longer.
        let overlapped = [1, 8, 40].into_iter().any(|billions| {
            let long = writes_and_runs_on(&mut subject, billions * 1_000_000_000);
            let (outcome, overlapped) = query_meanwhile(&mut subject, &long, &before);
            assert_trapped(&outcome, "exceeded the limit of");
            assert_eq!(outcome.heap_pages_dirty, 2);
            overlapped
        });
        assert!(overlapped, "no query was answered while an update ran");
        assert_eq!(subject.whole_of_updates(), before);
    });
}

/// Runs an update on another thread and a query on this one; whether the query was the first to end, begun
/// when the update was seen to run.
fn query_meanwhile(
    subject: &mut Subject<'_>,
    long: &execution::Invocation,
    before: &[u8],
) -> (Outcome, bool) {
    let ended = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let (way, snapshot) = (subject.way, subject.canister.snapshot.clone());
    std::thread::scope(|scope| {
        let update = scope.spawn(|| {
            on_executor_stack(|| {
                sender.send(rustix::thread::gettid()).expect("the test waits for it");
                let outcome = canister::run(&*way.backend, &snapshot, long, None);
                ended.store(true, Ordering::SeqCst);
                outcome.expect("the engine works")
            })
        });
        let mut activity = Activity::of_thread(receiver.recv().expect("the thread has started"));
        wait_until("the update runs", || (activity.is_seen() || ended.load(Ordering::SeqCst)).then_some(()));
        assert_eq!(subject.whole(), before, "nothing of the update is to be seen");
        let overlapped = !ended.load(Ordering::SeqCst);
        (update.join().expect("the update doesn't panic"), overlapped)
    })
}
