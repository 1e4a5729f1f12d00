//! The map of written heap pages, as instrumented code keeps it in a memory of its own: a byte for each
//! 4 KiB page of the heap's maximum (1: written), then the number of pages written, then their indices in
//! the order of their first writes, 32 bits each, little endian.
//!
//! The list makes reading the map cost what was written, not what the heap could hold; the bytes make the
//! barrier two loads and a branch that is not taken (measured in `docs/decisions/0004`).

use execution::memory::{PAGE_BYTES, WASM_PAGE_BYTES};

/// 4 KiB pages in a WebAssembly page.
const PAGES_PER_WASM_PAGE: u64 = WASM_PAGE_BYTES / PAGE_BYTES as u64;
/// Bytes of the number, and of each index.
const WORD: usize = 4;

/// Where the number of written pages lies, for a heap of at most `heap_pages_max` 64 KiB pages; the list
/// follows it.
pub(crate) fn count_offset(heap_pages_max: u64) -> u64 {
    heap_pages_max * PAGES_PER_WASM_PAGE
}

/// Where the list lies.
pub(crate) fn list_offset(heap_pages_max: u64) -> u64 {
    count_offset(heap_pages_max) + WORD as u64
}

/// Bytes of the whole map.
pub(crate) fn bytes(heap_pages_max: u64) -> u64 {
    list_offset(heap_pages_max) + heap_pages_max * PAGES_PER_WASM_PAGE * WORD as u64
}

/// The map, in the memory where code keeps it.
pub(crate) struct DirtyMap<'a> {
    marks: &'a mut [u8],
    count: &'a mut [u8; WORD],
    list: &'a mut [[u8; WORD]],
}

impl<'a> DirtyMap<'a> {
    /// The map in `memory`, which has [`bytes`] bytes at least.
    pub(crate) fn new(memory: &'a mut [u8], heap_pages_max: u64) -> Self {
        let pages = usize::try_from(count_offset(heap_pages_max)).expect("fits the address space");
        let (marks, rest) = memory.split_at_mut(pages);
        let (count, list) = rest.split_first_chunk_mut().expect("checked when the instance was made");
        Self { marks, count, list: &mut list.as_chunks_mut().0[..pages] }
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

    /// The pages written since the last call, ascending; the map is clear afterwards.
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
