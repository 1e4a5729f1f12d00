//! Tables over 4 KiB pages that cost what they hold: a memory may be large and touched little, here and there.

use std::collections::BTreeMap;

use execution::memory::{PageUpdate, Slot};

/// Changed pages that a table may hold; a new one starts from runs again.
const CHANGED_MAX: usize = 1 << 20;

/// Where the pages of record of a memory lie: as at the start, and what changed since.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    /// By ascending page.
    start: Vec<PageUpdate>,
    /// `None`: all zero.
    changed: BTreeMap<u64, Option<Slot>>,
}

impl PageTable {
    /// A table of `start`, which must be ascending and disjoint; absent pages are zero.
    pub(crate) fn new(start: &[PageUpdate]) -> Self {
        Self { start: start.to_vec(), changed: BTreeMap::new() }
    }

    /// The slot of `page`; `None`: all zero.
    pub(crate) fn get(&self, page: u64) -> Option<Slot> {
        self.changed.get(&page).copied().unwrap_or_else(|| self.at_start(page))
    }

    /// Sets the slot of `page`; whether it is the page's first change since the start.
    pub(crate) fn set(&mut self, page: u64, slot: Option<Slot>) -> bool {
        self.changed.insert(page, slot).is_none()
    }

    /// Whether so many pages have changed that the table should be made anew.
    pub(crate) fn is_large(&self) -> bool {
        self.changed.len() > CHANGED_MAX
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
        assert!(table.set(3, None));
        assert!(table.set(5, Some(0)));
        assert!(!table.set(5, Some(0)), "the second change");
        assert_eq!(
            slots(&table),
            [none, none, Some(10), none, Some(12), Some(0), none, none, none, Some(0), none]
        );
    }
}
