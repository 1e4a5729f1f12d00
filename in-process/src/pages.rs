//! Tables over 4 KiB pages that cost what they hold: a heap or stable memory may be large and touched little.

use std::collections::BTreeMap;

use execution::memory::{PageUpdate, Slot};

/// Pages in a chunk, the unit in which tables grow: 1 MiB.
const CHUNK_PAGES: u64 = 256;
/// Entry of a page whose slot is as it was at the start.
const AS_AT_START: u32 = 0;
/// Entry of a page that is all zero.
const ZERO: u32 = 1;
/// Entry of the page in slot 0.
const SLOT: u32 = 2;

/// A number for each page; 0 where none was set.
#[derive(Debug, Default)]
pub(crate) struct PageMap(BTreeMap<u64, Box<[u32; CHUNK_PAGES as usize]>>);

impl PageMap {
    pub(crate) fn get(&self, page: u64) -> u32 {
        self.0.get(&(page / CHUNK_PAGES)).map_or(0, |chunk| chunk[within(page)])
    }

    /// The number of `page`, to be set.
    pub(crate) fn entry(&mut self, page: u64) -> &mut u32 {
        let chunk = self.0.entry(page / CHUNK_PAGES);
        &mut chunk.or_insert_with(|| Box::new([0; CHUNK_PAGES as usize]))[within(page)]
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

fn within(page: u64) -> usize {
    (page % CHUNK_PAGES) as usize
}

/// Where the pages of record of a memory lie: as at the start, and what changed since.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    /// By ascending page.
    start: Vec<PageUpdate>,
    changed: PageMap,
}

impl PageTable {
    /// A table of `start`, which must be ascending and disjoint; absent pages are zero.
    pub(crate) fn new(start: &[PageUpdate]) -> Self {
        Self { start: start.to_vec(), changed: PageMap::default() }
    }

    /// The slot of `page`; `None`: all zero.
    pub(crate) fn get(&self, page: u64) -> Option<Slot> {
        match self.changed.get(page) {
            AS_AT_START => self.at_start(page),
            entry => entry.checked_sub(SLOT),
        }
    }

    pub(crate) fn set(&mut self, page: u64, slot: Option<Slot>) {
        // An arena has far fewer slots than numbers (`execution_memory`: 2^28).
        *self.changed.entry(page) = slot.map_or(ZERO, |slot| slot.saturating_add(SLOT));
    }

    fn at_start(&self, page: u64) -> Option<Slot> {
        let after = self.start.partition_point(|run| run.page <= page);
        let run = self.start[..after].last()?;
        let within = u32::try_from(page - run.page).ok().filter(|within| *within < run.count)?;
        run.slot?.checked_add(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_where_it_was_at_the_start_until_it_is_set() {
        let run = |page, count, slot| PageUpdate { page, count, slot: Some(slot), known: false };
        let mut table = PageTable::new(&[run(2, 3, 10), run(9, 1, 0)]);
        let slots =
            |table: &PageTable| -> Vec<Option<Slot>> { (0..11).map(|page| table.get(page)).collect() };
        let none = None;
        assert_eq!(
            slots(&table),
            [none, none, Some(10), Some(11), Some(12), none, none, none, none, Some(0), none]
        );
        table.set(3, None);
        table.set(5, Some(0));
        assert_eq!(
            slots(&table),
            [none, none, Some(10), none, Some(12), Some(0), none, none, none, Some(0), none]
        );
    }

    #[test]
    fn a_map_costs_the_chunks_that_it_touches() {
        let mut map = PageMap::default();
        *map.entry(1 << 40) += 7;
        assert_eq!((map.get(1 << 40), map.get((1 << 40) + 1), map.0.len()), (7, 0, 1));
        map.clear();
        assert_eq!((map.get(1 << 40), map.0.len()), (0, 0));
    }
}
