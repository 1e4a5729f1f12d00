//! What the owner of an instance (the backend here, a sandbox worker there) may rely on.

use std::sync::Arc;

use execution::memory::{PAGE_BYTES, PageUpdate, PageVersion, Window};
use execution::{Ending, GlobalValue};
use in_process::{Base, Code, Engine, EngineError, Instance, Ran, Shape, Step, Update};

use crate::canister::{Canister, import, invocation, update};

const MODULE: &str = "(memory 1) (global $g (mut i32) (i32.const 4))
    (func (export \"canister_update write\")
      (global.set $g (i32.const 5))
      (drop (call $stable64_grow (i64.const 1)))
      (i32.store8 (i32.const 9000) (i32.const 7))
      (call $stable64_write (i64.const 5000) (i64.const 9000) (i64.const 1)))
    (func (export \"canister_update nothing\"))
    (func (export \"canister_update increment\")
      (global.set $g (i32.add (global.get $g) (i32.const 1)))
      (i32.store8 (i32.const 9000) (i32.add (i32.load8_u (i32.const 9000)) (i32.const 1))))
    (func (export \"canister_update increment_trap\")
      (global.set $g (i32.const 50))
      (i32.store8 (i32.const 9000) (i32.const 50))
      (i32.store8 (i32.const 20000) (i32.const 50))
      unreachable)
    (func (export \"canister_update increment_stable\")
      (call $stable64_read (i64.const 9000) (i64.const 5000) (i64.const 1))
      (i32.store8 (i32.const 9000) (i32.add (i32.load8_u (i32.const 9000)) (i32.const 1)))
      (call $stable64_write (i64.const 20000) (i64.const 9000) (i64.const 1))
      (call $stable64_write (i64.const 5000) (i64.const 9000) (i64.const 1)))
    (func (export \"canister_update stable_trap\")
      (i32.store8 (i32.const 9000) (i32.const 50))
      (call $stable64_write (i64.const 5000) (i64.const 9000) (i64.const 1))
      (call $stable64_write (i64.const 30000) (i64.const 9000) (i64.const 1))
      unreachable)
    (func (export \"canister_update grow_trap\") (drop (memory.grow (i32.const 1))) unreachable)";

fn canister() -> Canister {
    let imports =
        ["stable64_grow", "stable64_read", "stable64_write"].map(|name| import(name, "i32")).concat();
    Canister::new(&format!("(module {imports} {MODULE})"))
}

/// An instance of the canister at `start`.
fn started(canister: &Canister, start: &Update) -> Result<Instance, EngineError> {
    let snapshot = &canister.snapshot;
    let code = snapshot.module.code.file().try_clone_to_owned().unwrap();
    let code = Code::load(&Engine::new().unwrap(), code).unwrap();
    let base = Base {
        window: Window::of(&snapshot.arena),
        files: snapshot.arena.files().collect(),
        bytes_max: snapshot.arena.bytes_max(),
        mappings_max: 10,
    };
    Instance::new(&code, Shape::new(&snapshot.module.interface, 100), base, start)
}

fn instance(canister: &Canister) -> Instance {
    started(canister, &start()).unwrap()
}

fn start() -> Update {
    Update { heap_pages: 1, globals: Arc::from([GlobalValue::I32(4)]), ..Update::default() }
}

fn write(canister: &Canister, instance: Instance) -> (Instance, Ran) {
    run(canister, instance, "write").unwrap()
}

fn run(canister: &Canister, instance: Instance, method: &str) -> Result<(Instance, Ran), EngineError> {
    let invocation = invocation(canister, update(method, &[]), 1_000_000_000);
    match instance.run(invocation)? {
        Step::Finished(instance, ran) => Ok((instance, ran)),
        Step::Paused(_) => panic!("a message of one slice has no pause"),
    }
}

#[test]
fn a_run_leaves_its_pages_to_be_pulled() {
    let canister = canister();
    let (instance, ran) = write(&canister, instance(&canister));
    assert_eq!(
        (ran.heap_dirty, ran.stable_dirty, ran.heap_pages, ran.stable_pages),
        (vec![2], vec![1], 1, 1)
    );
    assert_eq!(ran.effects.unwrap().globals[..], [GlobalValue::I32(5)]);
    let mut page = [0; PAGE_BYTES];
    instance.copy_heap_page(2, &mut page);
    assert_eq!(page[9000 - 2 * PAGE_BYTES], 7);
    instance.copy_stable_page(0, &mut page);
    assert_eq!(page[5000 - PAGE_BYTES], 7);
    assert!(!instance.heap_start().is_null() && !instance.stable_start().is_null());
}

#[test]
fn it_does_not_run_again_before_it_is_brought_up_to_date() {
    let canister = canister();
    let (instance, _) = write(&canister, instance(&canister));
    assert!(matches!(run(&canister, instance, "nothing"), Err(EngineError::Run(_))));
}

#[test]
fn each_written_page_must_be_named_before_it_runs_again() {
    let canister = canister();
    let (mut instance, _) = write(&canister, instance(&canister));
    let forgotten = Update { stable_pages: 1, ..start() };
    let refused = instance.sync(&forgotten).unwrap_err();
    assert!(refused.to_string().contains("heap page 2 was written and isn't named"), "{refused}");
    assert!(instance.sync(&forgotten).is_err(), "it is of no use any more");
}

/// Byte 9000 of the heap, in a page that [`Instance::carry_on`] gave.
fn byte_9000(page: &[u8; PAGE_BYTES]) -> u8 {
    page[9000 - 2 * PAGE_BYTES]
}

#[test]
fn runs_that_carry_on_see_what_the_one_before_wrote_and_a_trap_undoes_its_own_alone() {
    let canister = canister();
    let mut instance = instance(&canister);
    for n in 1..=3 {
        let ran;
        (instance, ran) = run(&canister, instance, "increment").unwrap();
        assert_eq!(
            (&ran.heap_dirty, &ran.effects.unwrap().globals[..]),
            (&vec![2], &[GlobalValue::I32(4 + n)][..])
        );
        let pages = instance.carry_on().unwrap();
        assert_eq!(pages.iter().map(|page| i32::from(byte_9000(page))).collect::<Vec<_>>(), [n]);
    }
    let (instance, ran) = run(&canister, instance, "increment_trap").unwrap();
    assert_eq!((ran.heap_pages_dirty, ran.reusable), (2, true));
    // What the third left, in no slot anywhere; and the arena's page beside it.
    let (mut instance, ran) = run(&canister, instance, "increment").unwrap();
    assert_eq!(&ran.effects.unwrap().globals[..], [GlobalValue::I32(8)]);
    assert_eq!(byte_9000(&instance.carry_on().unwrap()[0]), 4);
    let mut page = [1; PAGE_BYTES];
    instance.copy_heap_page(4, &mut page);
    assert_eq!(page, [0; PAGE_BYTES]);
}

#[test]
fn stable_memory_is_carried_on_like_the_heap() {
    let canister = canister();
    let one_page = Update { stable_pages: 1, ..start() };
    let mut instance = started(&canister, &one_page).unwrap();
    for n in 1..=3 {
        let ran;
        (instance, ran) = run(&canister, instance, "increment_stable").unwrap();
        // In the order of their first writes.
        assert_eq!((ran.heap_dirty, ran.stable_dirty), (vec![2], vec![4, 1]));
        let pages = instance.carry_on().unwrap();
        let bytes = [(0, 9000 - 2 * PAGE_BYTES), (1, 20_000 - 4 * PAGE_BYTES), (2, 5000 - PAGE_BYTES)];
        assert_eq!(bytes.map(|(page, at)| pages[page][at]), [n; 3]);
        assert_eq!(pages.len(), 3);
    }
    let (instance, ran) = run(&canister, instance, "stable_trap").unwrap();
    assert_eq!((ran.stable_pages_dirty, ran.reusable), (2, true));
    let (mut instance, _) = run(&canister, instance, "increment_stable").unwrap();
    assert_eq!(byte_9000(&instance.carry_on().unwrap()[0]), 4, "what the third left, and not the trap");
    let heap = vec![PageUpdate::one(2, None, false)];
    let named = |stable: &[u64]| Update {
        heap: heap.clone(),
        stable: stable.iter().map(|page| PageUpdate::one(*page, None, false)).collect(),
        ..one_page.clone()
    };
    instance.sync(&named(&[1, 4])).unwrap();
    let (mut instance, _) = run(&canister, instance, "increment_stable").unwrap();
    assert_eq!(byte_9000(&instance.carry_on().unwrap()[0]), 1, "it was taken back before");
    let refused = instance.sync(&named(&[1])).unwrap_err();
    assert!(refused.to_string().contains("stable memory page 4 was written and isn't named"), "{refused}");
}

#[test]
fn each_page_that_was_carried_on_must_be_named_in_the_next_update() {
    let canister = canister();
    let carried = || {
        let (mut instance, _) = run(&canister, instance(&canister), "increment").unwrap();
        instance.carry_on().unwrap();
        run(&canister, instance, "nothing").unwrap().0
    };
    let refused = carried().sync(&start()).unwrap_err();
    assert!(refused.to_string().contains("heap page 2 was written and isn't named"), "{refused}");
    let mut instance = carried();
    instance.sync(&Update { heap: vec![PageUpdate::one(2, None, false)], ..start() }).unwrap();
    let (mut instance, _) = run(&canister, instance, "increment").unwrap();
    assert_eq!(byte_9000(&instance.carry_on().unwrap()[0]), 1, "it was taken back before");
}

#[test]
fn a_run_that_can_not_be_followed_is_not_carried_on() {
    let canister = canister();
    let (mut instance, _) = run(&canister, self::instance(&canister), "grow_trap").unwrap();
    assert!(instance.carry_on().is_none());
}

#[test]
fn a_page_that_was_not_committed_is_taken_back() {
    let canister = canister();
    let (mut instance, _) = write(&canister, instance(&canister));
    let zero = |page| PageUpdate::one(page, None, false);
    // The size stays: a memory can't shrink.
    let undone = Update { stable_pages: 1, heap: vec![zero(2)], stable: vec![zero(1)], ..start() };
    instance.sync(&undone).unwrap();
    let mut page = [1; PAGE_BYTES];
    instance.copy_heap_page(2, &mut page);
    assert_eq!(page, [0; PAGE_BYTES]);
    assert_eq!(run(&canister, instance, "nothing").unwrap().1.heap_pages_dirty, 0);
}

#[test]
fn growth_that_is_undone_ends_the_instance() {
    let canister = canister();
    let (mut instance, ran) = run(&canister, instance(&canister), "grow_trap").unwrap();
    assert!(matches!(ran.ending, Ending::Trapped(_)));
    assert_eq!((ran.reusable, ran.heap_pages), (false, 1));
    assert!(instance.sync(&start()).is_err(), "it can't shrink");
}

#[test]
fn updates_that_do_not_fit_are_refused() {
    let canister = canister();
    let page = |page, slot| PageUpdate::one(page, slot, false);
    for (wrong, words) in [
        (Update { heap_pages: 0, ..start() }, "can't shrink"),
        (Update { heap_pages: 70_000, ..start() }, "heap from 1 to 70000"),
        (Update { stable_pages: 101, ..start() }, "stable memory from 0 to 101"),
        (Update { globals: Arc::default(), ..start() }, "0 globals for 1"),
        (Update { globals: Arc::from([GlobalValue::I64(4)]), ..start() }, "global"),
        (Update { heap: vec![page(16, None)], ..start() }, "heap page 16 is outside"),
        (Update { heap: vec![page(u64::MAX, None)], ..start() }, "is outside"),
        (Update { heap: vec![page(0, Some(u32::MAX))], ..start() }, "is outside"),
        (Update { stable: vec![page(0, None)], ..start() }, "stable memory page 0 is outside"),
    ] {
        let refused = instance(&canister).sync(&wrong).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn a_start_that_does_not_fit_is_refused() {
    let canister = canister();
    let page = |page, slot| PageUpdate::one(page, slot, false);
    let run = |page, count, slot| PageUpdate { page, count, slot: Some(slot), known: false };
    for (wrong, words) in [
        (Update { heap_pages: 70_000, ..start() }, "heap from 1 to 70000"),
        (Update { stable_pages: 101, ..start() }, "stable memory from 0 to 101"),
        (Update { heap: vec![run(8, 9, 0)], ..start() }, "heap page 8 is outside"),
        (Update { heap: vec![run(0, 9, u32::MAX - 20)], ..start() }, "is outside"),
        (Update { heap: vec![page(0, Some(u32::MAX))], ..start() }, "is outside"),
        (
            Update { heap: vec![page(3, None), page(2, None)], ..start() },
            "heap page 2 is outside or out of order",
        ),
    ] {
        let refused = started(&canister, &wrong).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn a_heap_of_long_and_short_runs_reads_as_it_is_and_writing_it_changes_no_version() {
    let mut canister = canister();
    let arena = Arc::clone(&canister.snapshot.arena);
    let versions = |count: u8, first: u8| -> Vec<PageVersion> {
        let mut staged = arena.stage(count.into()).unwrap();
        for index in 0..count {
            staged.page_mut(index.into()).fill(first + index);
        }
        staged.finish()
    };
    // Pages 0 to 8 in one run, long enough to be mapped; 12 and 14 alone.
    let (long, short) = (versions(9, 1), versions(2, 100));
    let pages = (0..).zip(long.clone()).chain([12, 14].into_iter().zip(short.clone()));
    canister.snapshot.heap = canister.snapshot.heap.with(1, pages);
    let at_start = Update { heap: canister.snapshot.heap.updates(), ..start() };
    assert_eq!(at_start.heap.iter().map(|run| run.count).collect::<Vec<_>>(), [9, 1, 1]);
    let instance = started(&canister, &at_start).unwrap();
    let first_bytes = |instance: &Instance| -> Vec<u8> {
        let mut page = [0; PAGE_BYTES];
        let mut first = |index| {
            instance.copy_heap_page(index, &mut page);
            page[0]
        };
        (0..16).map(&mut first).collect()
    };
    assert_eq!(first_bytes(&instance), [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 100, 0, 101, 0]);
    let (instance, ran) = write(&canister, instance);
    assert_eq!(ran.heap_dirty, [2]);
    let mut page = [0; PAGE_BYTES];
    instance.copy_heap_page(2, &mut page);
    assert_eq!((page[0], page[9000 - 2 * PAGE_BYTES]), (3, 7));
    assert_eq!(long[2].bytes(), &[3; PAGE_BYTES]);
}

#[test]
fn code_of_another_kind_is_refused() {
    let file = execution::memory::Blob::new(b"not code").unwrap();
    let file = file.file().try_clone_to_owned().unwrap();
    assert!(matches!(Code::load(&Engine::new().unwrap(), file), Err(EngineError::Code(_))));
}

/// Twelve pages of `A`s; methods that count as writing page 3 and leave it as it is.
const SELF: &str = r#"(module (memory 1) (data (i32.const 0) "A")
    (func (export "canister_update store") (i32.store (i32.const 12288) (i32.load (i32.const 12288))))
    (func (export "canister_update copy")
      (memory.copy (i32.const 12288) (i32.const 12288) (i32.const 4096))))"#;

#[test]
fn a_page_that_code_wrote_with_what_was_there_keeps_it_when_its_old_slot_is_used_again() {
    for method in ["store", "copy"] {
        let mut canister = Canister::new(SELF);
        let arena = Arc::clone(&canister.snapshot.arena);
        let mut staged = arena.stage(12).unwrap();
        staged.ranges_mut().into_iter().for_each(|range| range.fill(b'A'));
        canister.snapshot.heap = canister.snapshot.heap.with(1, (0..).zip(staged.finish()));
        let at_start = Update { heap_pages: 1, heap: canister.snapshot.heap.updates(), ..Update::default() };
        let (mut instance, ran) = run(&canister, started(&canister, &at_start).unwrap(), method).unwrap();
        assert_eq!(ran.heap_dirty, [3], "{method}");
        // Committed as the owner does it: copied, synced, and then the old version is let go.
        let mut page = [0; PAGE_BYTES];
        instance.copy_heap_page(3, &mut page);
        let version = arena.store(&page).unwrap();
        let known = PageUpdate::one(3, Some(version.slot()), true);
        instance.sync(&Update { heap_pages: 1, heap: vec![known], ..Update::default() }).unwrap();
        let old = canister.snapshot.heap.page(3).unwrap().slot();
        canister.snapshot.heap = canister.snapshot.heap.with(1, [(3, version)]);
        let reused = arena.store(&[b'B'; PAGE_BYTES]).unwrap();
        assert_eq!(reused.slot(), old, "the slot is used again");
        instance.copy_heap_page(3, &mut page);
        assert_eq!(page, [b'A'; PAGE_BYTES], "{method}");
    }
}
