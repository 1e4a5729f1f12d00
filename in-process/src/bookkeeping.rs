//! The memory that instrumented code keeps beside the heap: the instructions left, and the map of written heap
//! pages.
//!
//! From its start, little endian: the instructions left (`i64`); the number of pages written (`u32`); a byte for
//! each 4 KiB page of the heap's maximum, and one page more (1: written); the indices of the pages written in the order
//! of their first writes (`u32` each), and room for one more, which is written before it is known whether it counts.
//!
//! The page more is for stores that are marked before they trap (`compile/stores.rs`).
//!
//! The list makes reading the map cost what was written, not what the heap could hold; the bytes make the
//! barrier a load or two and a branch that is not taken (measured in `docs/decisions/0004` and `0014`). The counter is here
//! and in no global because the System API reads and writes it (`docs/decisions/0009`).

use execution::memory::{PAGE_BYTES, WASM_PAGE_BYTES};

/// 4 KiB pages in a WebAssembly page.
const PAGES_PER_WASM_PAGE: u64 = WASM_PAGE_BYTES / PAGE_BYTES as u64;
/// Bytes of the number of pages, and of each index.
const WORD: usize = 4;
/// Where the instructions left lie.
pub(crate) const COUNTER_OFFSET: u64 = 0;
/// Where the number of written pages lies.
pub(crate) const COUNT_OFFSET: u64 = COUNTER_OFFSET + size_of::<i64>() as u64;
/// Where the bytes of the pages begin.
pub(crate) const MARKS_OFFSET: u64 = COUNT_OFFSET + WORD as u64;

/// Pages that may be marked, for a heap of at most `heap_pages_max` 64 KiB pages.
fn pages(heap_pages_max: u64) -> u64 {
    heap_pages_max * PAGES_PER_WASM_PAGE + 1
}

/// Where the list lies, for such a heap.
pub(crate) fn list_offset(heap_pages_max: u64) -> u64 {
    (MARKS_OFFSET + pages(heap_pages_max)).next_multiple_of(WORD as u64)
}

/// Bytes of the whole memory.
pub(crate) fn bytes(heap_pages_max: u64) -> u64 {
    list_offset(heap_pages_max) + (pages(heap_pages_max) + 1) * WORD as u64
}

/// The map of written heap pages.
pub(crate) struct DirtyMap<'a> {
    marks: &'a mut [u8],
    count: &'a mut [u8; WORD],
    list: &'a mut [[u8; WORD]],
}

impl<'a> DirtyMap<'a> {
    /// The map in `memory`, which has [`bytes`] bytes at least.
    pub(crate) fn new(memory: &'a mut [u8], heap_pages_max: u64) -> Self {
        let at = |offset: u64| usize::try_from(offset).expect("fits the address space");
        let (count, rest) =
            memory[at(COUNT_OFFSET)..].split_first_chunk_mut().expect("checked when the instance was made");
        let (marks, rest) = rest.split_at_mut(at(list_offset(heap_pages_max) - MARKS_OFFSET));
        Self { marks, count, list: &mut rest.as_chunks_mut().0[..at(pages(heap_pages_max))] }
    }

    /// Marks the pages of heap bytes `start..start + size`, which are inside the heap.
    pub(crate) fn mark(&mut self, start: u64, size: u64) {
        let Some(last) = size.checked_sub(1) else { return };
        let page = |at: u64| usize::try_from(at).expect("inside the heap") / PAGE_BYTES;
        for page in page(start)..=page(start + last) {
            if std::mem::replace(&mut self.marks[page], 1) == 0 {
                let count = self.count();
                self.list[count] = u32::try_from(page).expect("a heap has at most 2^21 pages").to_le_bytes();
                *self.count = u32::try_from(count + 1).expect("as for the page").to_le_bytes();
            }
        }
    }

    /// The pages marked since the last call, ascending; the map is clear afterwards. After a trap there may be one
    /// behind the heap's end, and others that were not written.
    pub(crate) fn take(&mut self) -> Vec<u64> {
        let count = self.count();
        let mut pages: Vec<u64> =
            self.list[..count].iter().map(|page| u64::from(u32::from_le_bytes(*page))).collect();
        for page in &pages {
            self.marks[usize::try_from(*page).expect("an index of this map")] = 0;
        }
        *self.count = [0; WORD];
        pages.sort_unstable();
        pages
    }

    fn count(&self) -> usize {
        u32::from_le_bytes(*self.count) as usize
    }
}
