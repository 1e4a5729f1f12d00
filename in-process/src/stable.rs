//! Stable memory of a running instance: pages of record behind the window, written pages in an overlay.
//!
//! It is not mapped as one range. A read goes to the window through the page table, or to what an earlier message of a
//! batch left; the first write to a page in a message copies it into the overlay, a private memory that only ever holds
//! this message's written pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use execution::memory::{PAGE_BYTES, WASM_PAGE_BYTES, Window};
use wasmtime::{AsContextMut, Memory, MemoryTypeBuilder, Store, StoreContextMut};

use crate::engine::{EngineError, MEMORY_RESERVATION_BYTES};
use crate::instance::Data;
use crate::pages::PageTable;
use crate::trap::Stop;

/// The overlay grows by this many 64 KiB pages at a time: one mprotect(2) for 1 MiB.
const OVERLAY_STEP: u64 = 16;
/// An overlay that has grown beyond this is given back with its instance (it never shrinks).
const OVERLAY_KEPT_BYTES: u64 = 64 << 20;
const PAGE: u64 = PAGE_BYTES as u64;

/// A page's content.
pub(crate) type Page = [u8; PAGE_BYTES];

/// Stable memory and its bookkeeping.
pub(crate) struct Stable {
    /// Where pages of record are read.
    pub(crate) window: Window,
    /// Size in 64 KiB pages.
    pub(crate) wasm_pages: u64,
    /// Pages of record.
    pub(crate) table: PageTable,
    /// Those that are in no slot yet: as runs left them that [`crate::Instance::carry_on`] went on from.
    pub(crate) carried: BTreeMap<u64, Arc<Page>>,
    /// Pages read or written in this message; those written with their place in the overlay.
    accessed: BTreeMap<u64, Option<u32>>,
    /// Pages written in the order of their places.
    order: Vec<u64>,
    overlay: Option<Memory>,
}

impl Stable {
    pub(crate) fn new(window: Window) -> Self {
        Self {
            window,
            wasm_pages: 0,
            table: PageTable::default(),
            carried: BTreeMap::new(),
            accessed: BTreeMap::new(),
            order: Vec::new(),
            overlay: None,
        }
    }

    /// Reserves the overlay in the instance's store.
    pub(crate) fn reserve(store: &mut Store<Data>) -> Result<(), EngineError> {
        let failed = |error: wasmtime::Error| EngineError::instance(error.context("stable overlay"));
        let ty = MemoryTypeBuilder::new()
            .memory64(true)
            .min(0)
            .max(Some(MEMORY_RESERVATION_BYTES / WASM_PAGE_BYTES))
            .build()
            .map_err(failed)?;
        let memory = Memory::new(&mut *store, ty).map_err(failed)?;
        store.data_mut().stable.overlay = Some(memory);
        Ok(())
    }

    /// Pages written in this message, in the order of their places in the overlay.
    pub(crate) fn order(&self) -> &[u64] {
        &self.order
    }

    pub(crate) fn overlay(&self) -> Memory {
        self.overlay.expect("reserved when the instance was made")
    }

    /// Forgets this message's pages; the page table stands.
    pub(crate) fn forget(&mut self) {
        self.accessed.clear();
        self.order.clear();
    }

    /// Reads a page of record.
    pub(crate) fn record(&self, page: u64, to: &mut Page) -> Result<(), Stop> {
        if let Some(carried) = self.carried.get(&page) {
            *to = **carried;
            return Ok(());
        }
        match self.table.get(page) {
            Some(slot) => self
                .window
                .read(slot, to)
                .ok_or_else(|| Stop::Host(format!("stable page {page}: slot {slot} is outside the window"))),
            None => {
                to.fill(0);
                Ok(())
            }
        }
    }

    /// Where in the overlay a page lies, if it was written in this message.
    fn place(&self, page: u64) -> Option<u64> {
        self.accessed.get(&page).copied().flatten().map(u64::from)
    }

    /// Pages of `offset..offset+size` not written yet in this message.
    pub(crate) fn unwritten(&self, offset: u64, size: u64) -> u64 {
        let (first, last) = (offset / PAGE, (offset + size - 1) / PAGE);
        let written = self.accessed.range(first..=last).filter(|(_, place)| place.is_some()).count();
        last - first + 1 - written as u64
    }

    /// Number of pages written in this message.
    pub(crate) fn written_count(&self) -> u64 {
        self.order.len() as u64
    }

    /// Counts pages as accessed, at most `pages_max` in a message.
    pub(crate) fn access(&mut self, offset: u64, size: u64, pages_max: u64) -> Result<(), Stop> {
        let (first, last) = (offset / PAGE, (offset + size - 1) / PAGE);
        if last - first + 1 > pages_max {
            return Err(Stop::access_limit("accessed", pages_max));
        }
        for page in first..=last {
            self.accessed.entry(page).or_insert(None);
        }
        if self.accessed.len() as u64 > pages_max {
            return Err(Stop::access_limit("accessed", pages_max));
        }
        Ok(())
    }
}

/// Whether the overlay has become too large to keep.
pub(crate) fn overlay_is_large(store: &mut StoreContextMut<'_, Data>) -> bool {
    let overlay = store.data().stable.overlay();
    overlay.data_size(&*store) as u64 > OVERLAY_KEPT_BYTES
}

/// Reads a page as this message sees it.
pub(crate) fn read_page(store: &mut StoreContextMut<'_, Data>, page: u64, to: &mut Page) -> Result<(), Stop> {
    let stable = &store.data().stable;
    match stable.place(page) {
        Some(place) => {
            let overlay = stable.overlay();
            to.copy_from_slice(overlay_page(overlay.data(&*store), place));
            Ok(())
        }
        None => stable.record(page, to),
    }
}

/// Writes `bytes` into a page from byte `within` on, copying it into the overlay first if it is not there.
pub(crate) fn write_page(
    store: &mut StoreContextMut<'_, Data>,
    page: u64,
    within: usize,
    bytes: &[u8],
) -> Result<(), Stop> {
    let overlay = store.data().stable.overlay();
    let place = match store.data().stable.place(page) {
        Some(place) => place,
        None => {
            let place = store.data().stable.written_count();
            ensure(store, overlay, (place + 1) * PAGE)?;
            let (memory, data) = overlay.data_and_store_mut(store.as_context_mut());
            let target: &mut Page = overlay_page_mut(memory, place);
            if bytes.len() < PAGE_BYTES {
                data.stable.record(page, target)?;
            }
            data.stable.order.push(page);
            let entry = u32::try_from(place).expect("an overlay has at most 2^21 pages");
            data.stable.accessed.insert(page, Some(entry));
            place
        }
    };
    let target = overlay_page_mut(overlay.data_mut(store.as_context_mut()), place);
    target[within..within + bytes.len()].copy_from_slice(bytes);
    Ok(())
}

fn ensure(store: &mut StoreContextMut<'_, Data>, overlay: Memory, bytes: u64) -> Result<(), Stop> {
    if overlay.data_size(&*store) as u64 >= bytes {
        return Ok(());
    }
    store.data_mut().host_growth = true;
    let grown = overlay.grow(store.as_context_mut(), OVERLAY_STEP);
    store.data_mut().host_growth = false;
    grown.map(drop).map_err(|error| Stop::Host(format!("stable overlay: {error:#}")))
}

/// A page of the overlay.
pub(crate) fn overlay_page(overlay: &[u8], place: u64) -> &Page {
    let at = usize::try_from(place * PAGE).expect("inside the overlay");
    overlay[at..at + PAGE_BYTES].try_into().expect("one page")
}

fn overlay_page_mut(overlay: &mut [u8], place: u64) -> &mut Page {
    let at = usize::try_from(place * PAGE).expect("inside the overlay");
    (&mut overlay[at..at + PAGE_BYTES]).try_into().expect("one page")
}
