//! Where slots lie: an arena is a row of segments, each a memory file of its own.
//!
//! A canister that holds little costs little address space (256 MiB), and one that holds much has few
//! files. Segments end at 256 MiB, 4 GiB, 64 GiB and 1 TiB: a worker maps what there is when it is loaded,
//! so it has to be replaced three times at most while its canister grows.

use std::ops::Range;

use crate::{PAGE_BYTES, Slot};

/// Files of one arena.
pub const SEGMENTS_MAX: usize = 4;
/// Log2 of the slots of the first segment.
const FIRST_BITS: u32 = 16;
/// Log2 of how much farther each segment reaches than the one before.
const STEP_BITS: u32 = 4;
/// Slots of the largest arena: 1 TiB.
const SLOTS_MAX: Slot = 1 << (FIRST_BITS + STEP_BITS * (SEGMENTS_MAX as u32 - 1));

/// The segment of `slot`.
pub(crate) fn segment_of(slot: Slot) -> usize {
    match slot.checked_ilog2() {
        Some(log2) if log2 >= FIRST_BITS => ((log2 - FIRST_BITS) / STEP_BITS + 1) as usize,
        _ => 0,
    }
}

/// Slots of segment `index` in an arena of `slots_max` slots; empty where the arena ends before.
pub(crate) fn slots_of(index: usize, slots_max: Slot) -> Range<Slot> {
    // A slot may be anything, and so may the segment computed from it.
    let end = |index: usize| 1_u32.checked_shl(FIRST_BITS + STEP_BITS * index as u32).unwrap_or(Slot::MAX);
    let start = if index == 0 { 0 } else { end(index - 1) };
    start.min(slots_max)..end(index).min(slots_max)
}

/// Slots of an arena of `bytes_max` bytes.
pub(crate) fn slots_in(bytes_max: u64) -> Slot {
    Slot::try_from(bytes_max / PAGE_BYTES as u64).unwrap_or(SLOTS_MAX).min(SLOTS_MAX)
}

/// Bytes of `slots` slots.
pub(crate) fn bytes(slots: Slot) -> usize {
    slots as usize * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_follow_one_another_without_a_gap() {
        let mut next = 0;
        for index in 0..SEGMENTS_MAX {
            let slots = slots_of(index, SLOTS_MAX);
            assert_eq!(slots.start, next);
            assert_eq!([segment_of(slots.start), segment_of(slots.end - 1)], [index; 2]);
            next = slots.end;
        }
        assert_eq!(next, SLOTS_MAX);
    }

    #[test]
    fn a_small_arena_ends_inside_its_last_segment() {
        assert_eq!(slots_of(0, 3), 0..3);
        assert!(slots_of(1, 3).is_empty());
        assert!(slots_of(segment_of(Slot::MAX), SLOTS_MAX).is_empty());
        assert_eq!(slots_of(1, (1 << 16) + 1), 1 << 16..(1 << 16) + 1);
    }
}
