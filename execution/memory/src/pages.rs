//! A memory: its size and its pages.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::{Arena, MemoryError, PAGE_BYTES, PageVersion, Slot, WASM_PAGE_BYTES};

/// Heap or stable memory at one moment. Clone is O(1) and is the snapshot.
///
/// A page that is not in the map is all zero.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    wasm_pages: u64,
    pages: OrdMap<u64, PageVersion>,
}

/// What a page became on the way from one [`Memory`] to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Index of the 4 KiB page.
    pub page: u64,
    /// Its version now; `None`: all zero.
    pub version: Option<PageVersion>,
}

/// Where consecutive pages of a copy of a memory come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageUpdate {
    /// Index of the first 4 KiB page.
    pub page: u64,
    /// Number of pages, at least 1.
    pub count: u32,
    /// Slot of the first, the others follow; `None`: all are zero.
    pub slot: Option<Slot>,
    /// Whether the copy has these contents already, because they were taken from it, and only the slots are
    /// new.
    pub known: bool,
}

impl PageUpdate {
    /// One page.
    #[must_use]
    pub fn one(page: u64, slot: Option<Slot>, known: bool) -> Self {
        Self { page, count: 1, slot, known }
    }

    /// Joins updates, given by ascending page, where pages and slots follow on each other.
    pub fn join(updates: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut joined: Vec<Self> = Vec::new();
        for update in updates {
            if let Some(last) = joined.last_mut()
                && last.known == update.known
                && last.end() == Some(update.page)
                && last.slot.map(|slot| slot.checked_add(last.count)) == update.slot.map(Some)
                && let Some(count) = last.count.checked_add(update.count)
            {
                last.count = count;
            } else {
                joined.push(update);
            }
        }
        joined
    }

    /// The page after the last; `None` if there is no such number.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.page.checked_add(self.count.into())
    }

    /// Each page with its slot.
    pub fn pages(self) -> impl Iterator<Item = (u64, Option<Slot>)> {
        (0..self.count).map(move |at| (self.page + u64::from(at), self.slot.map(|slot| slot + at)))
    }
}

impl Memory {
    /// A zeroed memory of `wasm_pages` 64 KiB pages.
    #[must_use]
    pub fn zeroed(wasm_pages: u64) -> Self {
        Self { wasm_pages, pages: OrdMap::new() }
    }

    /// A memory of `wasm_pages` pages with `segments` (byte offset, bytes) written in order.
    ///
    /// # Errors
    /// As for [`Arena::stage`].
    ///
    /// # Panics
    /// If a segment does not fit into the size: the caller has validated the module.
    pub fn with_segments<'a>(
        arena: &Arc<Arena>,
        wasm_pages: u64,
        segments: impl IntoIterator<Item = (u64, &'a [u8])>,
    ) -> Result<Self, MemoryError> {
        let mut pages = std::collections::BTreeMap::<u64, Box<[u8; PAGE_BYTES]>>::new();
        for (offset, bytes) in segments {
            let end = offset.checked_add(bytes.len() as u64).expect("validated: the segment fits");
            assert!(end <= wasm_pages * WASM_PAGE_BYTES, "validated: the segment fits");
            let mut at = offset;
            let mut rest = bytes;
            while !rest.is_empty() {
                let within = (at % PAGE_BYTES as u64) as usize;
                let count = rest.len().min(PAGE_BYTES - within);
                let page = pages.entry(at / PAGE_BYTES as u64).or_insert_with(|| Box::new([0; PAGE_BYTES]));
                page[within..within + count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                at += count as u64;
            }
        }
        let mut staged = arena.stage(pages.len())?;
        for (index, bytes) in pages.values().enumerate() {
            staged.page_mut(index).copy_from_slice(&bytes[..]);
        }
        Ok(Self::zeroed(wasm_pages).with(wasm_pages, pages.into_keys().zip(staged.finish())))
    }

    /// Size in 64 KiB pages.
    #[must_use]
    pub fn wasm_pages(&self) -> u64 {
        self.wasm_pages
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.wasm_pages * WASM_PAGE_BYTES
    }

    /// The version of 4 KiB page `index`; `None`: all zero.
    #[must_use]
    pub fn page(&self, index: u64) -> Option<&PageVersion> {
        self.pages.get(&index)
    }

    /// All pages that are not implicitly zero, by index.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &PageVersion)> {
        self.pages.iter().map(|(&index, version)| (index, version))
    }

    /// What makes a copy of this memory out of zeros. Few for a memory that was written in order, whatever
    /// its size.
    #[must_use]
    pub fn updates(&self) -> Vec<PageUpdate> {
        PageUpdate::join(
            self.pages().map(|(page, version)| PageUpdate::one(page, Some(version.slot()), false)),
        )
    }

    /// Number of pages that are not implicitly zero.
    #[must_use]
    pub fn pages_stored(&self) -> usize {
        self.pages.len()
    }

    /// This memory grown to `wasm_pages` with `pages` replaced. The receiver is unchanged.
    #[must_use]
    pub fn with(&self, wasm_pages: u64, pages: impl IntoIterator<Item = (u64, PageVersion)>) -> Self {
        let mut changed = self.pages.clone();
        for (index, version) in pages {
            changed.insert(index, version);
        }
        Self { wasm_pages, pages: changed }
    }

    /// What has to be copied to make a copy of `older` equal to this memory, by page index.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Vec<Change> {
        if self.pages.ptr_eq(&older.pages) {
            return Vec::new();
        }
        older
            .pages
            .diff(&self.pages)
            .map(|item| match item {
                DiffItem::Add(&page, version) => Change { page, version: Some(version.clone()) },
                DiffItem::Update { new: (&page, version), .. } => {
                    Change { page, version: Some(version.clone()) }
                }
                DiffItem::Remove(&page, _) => Change { page, version: None },
            })
            .collect()
    }

    /// Copies `to.len()` bytes from byte `offset` on; bytes of absent pages are zero.
    ///
    /// # Panics
    /// If the range lies outside the memory.
    pub fn read(&self, offset: u64, to: &mut [u8]) {
        let end = offset.checked_add(to.len() as u64).expect("range is inside the memory");
        assert!(end <= self.bytes(), "range is inside the memory");
        let mut at = offset;
        let mut rest = to;
        while !rest.is_empty() {
            let within = (at % PAGE_BYTES as u64) as usize;
            let count = rest.len().min(PAGE_BYTES - within);
            let (now, later) = rest.split_at_mut(count);
            match self.page(at / PAGE_BYTES as u64) {
                Some(version) => now.copy_from_slice(&version.bytes()[within..within + count]),
                None => now.fill(0),
            }
            rest = later;
            at += count as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_does_not_see_later_versions() {
        let arena = Arena::new(1 << 20).unwrap();
        let before = Memory::zeroed(1).with(1, [(3, arena.store(&[1; PAGE_BYTES]).unwrap())]);
        let after = before.with(2, [(3, arena.store(&[2; PAGE_BYTES]).unwrap())]);
        let mut byte = [0];
        before.read(3 * PAGE_BYTES as u64, &mut byte);
        assert_eq!(byte, [1]);
        after.read(3 * PAGE_BYTES as u64, &mut byte);
        assert_eq!(byte, [2]);
        assert_eq!(after.changes_since(&before).len(), 1);
        assert_eq!(after.changes_since(&after), []);
    }

    #[test]
    fn a_slot_is_recycled_when_its_last_reader_is_gone_and_not_before() {
        let arena = Arena::new(PAGE_BYTES as u64).unwrap();
        let version = arena.store(&[7; PAGE_BYTES]).unwrap();
        let reader = Memory::zeroed(1).with(1, [(0, version.clone())]);
        drop(version);
        assert!(matches!(arena.stage(1), Err(MemoryError::ArenaFull { needed: 1, free: 0 })));
        drop(reader);
        assert_eq!(arena.stage(1).unwrap().len(), 1);
    }

    #[test]
    fn segments_are_written_in_order_and_across_pages() {
        let arena = Arena::new(1 << 20).unwrap();
        let memory =
            Memory::with_segments(&arena, 1, [(4090, &[1u8; 10][..]), (4094, &[2u8; 2][..])]).unwrap();
        let mut bytes = [9; 12];
        memory.read(4089, &mut bytes);
        assert_eq!(bytes, [0, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn no_new_writer_can_map_or_write_an_arena() {
        let arena = Arena::new(1 << 20).unwrap();
        // SAFETY: the mapping is refused; nothing is done with it.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                arena.files().next().unwrap(),
                0,
            )
        };
        assert_eq!(mapped.unwrap_err(), rustix::io::Errno::PERM);
        assert_eq!(
            rustix::io::pwrite(arena.files().next().unwrap(), &[1], 0).unwrap_err(),
            rustix::io::Errno::PERM
        );
        assert_eq!(
            rustix::fs::ftruncate(arena.files().next().unwrap(), 0).unwrap_err(),
            rustix::io::Errno::PERM
        );
    }
}
