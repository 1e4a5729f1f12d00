//! What the arena, its segments and its budget promise.

use std::sync::Arc;

use execution_memory::{Arena, Budget, Memory, MemoryError, PAGE_BYTES, PageUpdate, Window, map_privately};
use rustix::mm::{MapFlags, ProtFlags};

const MIB: u64 = 1 << 20;
/// Pages of the first segment.
const FIRST_PAGES: usize = (256 << 20) / PAGE_BYTES;

fn filled(arena: &Arc<Arena>, count: usize, byte: u8) -> Memory {
    let mut staged = arena.stage(count).unwrap();
    for range in staged.ranges_mut() {
        range.fill(byte);
    }
    Memory::zeroed(1 << 16).with(1 << 16, (0..).zip(staged.finish()))
}

#[test]
fn an_arena_grows_by_segments_and_its_pages_are_found_in_all_of_them() {
    let arena = Arena::new(300 * MIB).unwrap();
    assert_eq!(arena.segments(), 1);
    let memory = filled(&arena, FIRST_PAGES + 10, 7);
    assert_eq!(arena.segments(), 2);
    let files: Vec<_> = arena.files().collect();
    let windows = [Window::of(&arena), Window::map(&files, arena.bytes_max()).unwrap()];
    for page in [0, FIRST_PAGES as u64 - 1, FIRST_PAGES as u64, FIRST_PAGES as u64 + 9] {
        let version = memory.page(page).unwrap();
        assert_eq!(version.bytes(), &[7; PAGE_BYTES]);
        for window in &windows {
            let mut read = [0; PAGE_BYTES];
            window.read(version.slot(), &mut read).unwrap();
            assert_eq!(read, [7; PAGE_BYTES]);
        }
    }
    // The second segment ends where the arena does.
    let last = (300 * MIB) as u32 / PAGE_BYTES as u32 - 1;
    let mut read = [1; PAGE_BYTES];
    for window in &windows {
        assert!(window.read(last, &mut read).is_some());
        assert!(window.read(last + 1, &mut read).is_none(), "outside");
        assert!(window.read(u32::MAX, &mut read).is_none(), "outside");
    }
}

#[test]
fn a_window_made_before_a_segment_doesnt_show_it() {
    let arena = Arena::new(300 * MIB).unwrap();
    let files: Vec<_> = arena.files().collect();
    let window = Window::map(&files, arena.bytes_max()).unwrap();
    let memory = filled(&arena, FIRST_PAGES + 1, 1);
    let slot = memory.page(FIRST_PAGES as u64).unwrap().slot();
    assert!(window.read(slot, &mut [0; PAGE_BYTES]).is_none());
}

#[test]
fn pages_written_in_order_are_one_update_and_recycled_slots_are_taken_in_order() {
    let arena = Arena::new(MIB).unwrap();
    let first = filled(&arena, 100, 1);
    let update = PageUpdate { page: 0, count: 100, slot: Some(0), known: false };
    assert_eq!(first.updates(), [update]);
    drop(first);
    assert_eq!(arena.bytes_used(), 0);
    assert_eq!(filled(&arena, 100, 2).updates(), [update], "the same slots again");
}

#[test]
fn an_arena_that_is_full_takes_nothing_and_says_which_limit() {
    let arena = Arena::new(10 * PAGE_BYTES as u64).unwrap();
    let held = filled(&arena, 8, 1);
    let refused = arena.stage(3).unwrap_err();
    assert!(matches!(refused, MemoryError::ArenaFull { needed: 3, free: 2 }), "{refused}");
    assert_eq!(refused.limit(), Some("arena_bytes"));
    assert_eq!(arena.bytes_used(), 8 * PAGE_BYTES);
    drop(held);
    assert_eq!(arena.stage(10).unwrap().len(), 10);
}

#[test]
fn arenas_that_share_a_budget_hold_no_more_than_it_together() {
    let budget = Budget::new(MIB);
    let [one, other] = [MIB, MIB].map(|bytes| Arena::within(bytes, &budget).unwrap());
    let held = filled(&one, 200, 1);
    let refused = other.stage(100).unwrap_err();
    assert_eq!(refused.limit(), Some("memory_bytes"), "{refused}");
    // What is left can still be had, to the last page.
    let left = (MIB - budget.bytes_used()) as usize / PAGE_BYTES;
    assert_eq!(other.stage(left).unwrap().len(), left);
    assert_eq!(budget.bytes_used(), MIB);
    // Free slots stay with their arena until that is gone.
    drop(held);
    assert!(other.stage(left + 1).is_err());
    drop(one);
    assert!(other.stage(left + 1).is_ok());
    drop(other);
    assert_eq!(budget.bytes_used(), 0);
}

#[test]
fn staged_ranges_cover_exactly_the_staged_pages() {
    let arena = Arena::new(MIB).unwrap();
    let [a, b, c] = [1, 2, 3].map(|byte| arena.store(&[byte; PAGE_BYTES]).unwrap());
    drop((a, c));
    // Slots 0 and 2 are free, and those from 3 on.
    let mut staged = arena.stage(4).unwrap();
    let ranges: Vec<usize> = staged.ranges_mut().iter().map(|range| range.len() / PAGE_BYTES).collect();
    assert_eq!(ranges, [1, 3]);
    for (index, range) in staged.ranges_mut().into_iter().enumerate() {
        range.fill(index as u8 + 10);
    }
    let bytes: Vec<u8> = staged.finish().iter().map(|version| version.bytes()[4095]).collect();
    assert_eq!(bytes, [10, 11, 11, 11]);
    assert_eq!(b.bytes(), &[2; PAGE_BYTES]);
}

/// Anonymous private memory, given back when dropped.
struct Anonymous(&'static mut [u8]);

impl Anonymous {
    fn new(bytes: usize) -> Self {
        // SAFETY: a fresh mapping, owned by the value alone, unmapped when that is dropped.
        unsafe {
            let base = rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
            .unwrap();
            Self(std::slice::from_raw_parts_mut(base.cast(), bytes))
        }
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, borrowed by nobody now.
        unsafe { rustix::mm::munmap(self.0.as_mut_ptr().cast(), self.0.len()).unwrap() }
    }
}

#[test]
fn a_private_copy_reads_the_arena_and_writes_beside_it() {
    let arena = Arena::new(300 * MIB).unwrap();
    let memory = filled(&arena, FIRST_PAGES + 1, 5);
    let files: Vec<_> = arena.files().collect();
    let heap = Anonymous::new(2 * PAGE_BYTES);
    let slot = memory.page(FIRST_PAGES as u64 - 1).unwrap().slot();
    // SAFETY: the mapping is ours alone, and `memory` outlives it.
    let done = unsafe { map_privately(&files, arena.bytes_max(), slot, heap.0) }.unwrap();
    assert_eq!(done, PAGE_BYTES, "a segment ends here");
    assert_eq!((heap.0[0], heap.0[PAGE_BYTES]), (5, 0));
    heap.0[0] = 6;
    assert_eq!((heap.0[0], heap.0[1]), (6, 5));
    assert_eq!(memory.page(FIRST_PAGES as u64 - 1).unwrap().bytes(), &[5; PAGE_BYTES]);
    // SAFETY: as above; nothing is mapped.
    let nowhere = unsafe { map_privately(&files[..1], arena.bytes_max(), FIRST_PAGES as u32, heap.0) };
    assert!(matches!(nowhere, Err(MemoryError::Outside(_))));
}

#[test]
fn size_costs_nothing_only_pages_do() {
    let arena = Arena::new(1 << 40).unwrap();
    let pages_500_gib = (500 << 30) / 65_536;
    let last = pages_500_gib * 16 - 1;
    let memory = Memory::zeroed(0).with(pages_500_gib, [(last, arena.store(&[9; PAGE_BYTES]).unwrap())]);
    let mut bytes = [1; 2];
    memory.read(last * PAGE_BYTES as u64 - 1, &mut bytes);
    assert_eq!(bytes, [0, 9]);
    assert_eq!((memory.pages_stored(), arena.bytes_used()), (1, PAGE_BYTES));
    assert!(arena.bytes_held() <= 32 * PAGE_BYTES, "{} bytes are held", arena.bytes_held());
}
