//! Stable memory (section 2.6).

use execution::memory::{PAGE_BYTES, WASM_PAGE_BYTES};
use wasmtime::AsContextMut;

use crate::stable::{self, Page};
use crate::trap::Stop;

use super::{Arguments, Guest};

/// Charge for a stable page's first write in a message.
const DIRTY_PAGE_INSTRUCTIONS: u64 = 1_000;
/// Pages that the 32-bit functions can address.
const PAGES_32_BIT: u64 = 65_536;
const PAGE: u64 = PAGE_BYTES as u64;
/// -1 as the guest sees it.
const FAILED: u64 = u64::MAX;

pub(super) fn size64(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.data().stable.wasm_pages)
}

pub(super) fn size32(guest: &mut Guest<'_>, arguments: &Arguments) -> Result<u64, Stop> {
    require_32_bit(guest)?;
    size64(guest, arguments)
}

fn require_32_bit(guest: &Guest<'_>) -> Result<(), Stop> {
    if guest.data().stable.wasm_pages > PAGES_32_BIT {
        return Err(Stop::trapped("32 bit stable memory api used on a memory larger than 4GB"));
    }
    Ok(())
}

pub(super) fn grow64(guest: &mut Guest<'_>, &[pages, ..]: &Arguments) -> Result<u64, Stop> {
    let pages_max = guest.data().shape.stable_pages_max;
    grow(guest, pages, pages_max)
}

pub(super) fn grow32(guest: &mut Guest<'_>, &[pages, ..]: &Arguments) -> Result<u64, Stop> {
    require_32_bit(guest)?;
    let pages_max = guest.data().shape.stable_pages_max.min(PAGES_32_BIT);
    grow(guest, pages, pages_max)
}

fn grow(guest: &mut Guest<'_>, pages: u64, pages_max: u64) -> Result<u64, Stop> {
    let before = guest.data().stable.wasm_pages;
    let Some(after) = before.checked_add(pages).filter(|&after| after <= pages_max) else {
        return Ok(FAILED);
    };
    let bytes = pages * WASM_PAGE_BYTES;
    if bytes > guest.run().subnet_memory_free() {
        return Ok(FAILED);
    }
    if pages > 0 {
        if let Some(missing) = guest.run().cycles_missing_to_grow(bytes) {
            return Err(Stop::memory_cycles(bytes, missing));
        }
        guest.run_mut().grown_bytes += bytes;
        guest.store.data_mut().stable.wasm_pages = after;
    }
    Ok(before)
}

pub(super) fn read64(guest: &mut Guest<'_>, &[dst, offset, size, ..]: &Arguments) -> Result<u64, Stop> {
    if size > 0 {
        require_stable(guest, offset, size)?;
        require_heap(guest, dst, size)?;
        read(guest, dst, offset, size)?;
    }
    Ok(0)
}

pub(super) fn read32(guest: &mut Guest<'_>, arguments: &Arguments) -> Result<u64, Stop> {
    require_32_bit(guest)?;
    read64(guest, arguments)
}

pub(super) fn write64(guest: &mut Guest<'_>, &[offset, src, size, ..]: &Arguments) -> Result<u64, Stop> {
    if size > 0 {
        require_stable(guest, offset, size)?;
        require_heap(guest, src, size)?;
        write(guest, offset, src, size)?;
    }
    Ok(0)
}

pub(super) fn write32(guest: &mut Guest<'_>, arguments: &Arguments) -> Result<u64, Stop> {
    require_32_bit(guest)?;
    let &[offset, _, size, ..] = arguments;
    require_stable(guest, offset, size)?;
    write64(guest, arguments)
}

fn require_stable(guest: &Guest<'_>, offset: u64, size: u64) -> Result<(), Stop> {
    let bytes = guest.data().stable.wasm_pages * WASM_PAGE_BYTES;
    match offset.checked_add(size) {
        Some(end) if end <= bytes => Ok(()),
        _ => Err(Stop::trapped("stable memory out of bounds")),
    }
}

fn require_heap(guest: &Guest<'_>, start: u64, size: u64) -> Result<(), Stop> {
    let bytes = guest.memory()?.data_size(&guest.store) as u64;
    match start.checked_add(size) {
        Some(end) if end <= bytes => Ok(()),
        _ => Err(Stop::trapped("heap out of bounds")),
    }
}

/// Pages that a message may read, and may write.
fn pages_max(guest: &Guest<'_>) -> u64 {
    guest.run().invocation.limits.stable_access_pages[guest.run().context.access_class()]
}

fn read(guest: &mut Guest<'_>, dst: u64, offset: u64, size: u64) -> Result<(), Stop> {
    let memory = guest.memory()?;
    let pages_max = pages_max(guest);
    guest.store.data_mut().stable.access(offset, size, pages_max)?;
    let mut content: Page = [0; PAGE_BYTES];
    for part in parts(offset, size) {
        stable::read_page(&mut guest.store, part.page, &mut content)?;
        let to = address(dst + part.done);
        memory.data_mut(guest.store.as_context_mut())[to..to + part.count]
            .copy_from_slice(&content[part.within..part.within + part.count]);
    }
    guest.mark(dst, size);
    Ok(())
}

fn write(guest: &mut Guest<'_>, offset: u64, src: u64, size: u64) -> Result<(), Stop> {
    let memory = guest.memory()?;
    let pages_max = pages_max(guest);
    if size / PAGE > pages_max {
        return Err(Stop::access_limit("modified", pages_max));
    }
    let new = guest.data().stable.unwritten(offset, size);
    if guest.data().stable.written_count() + new > pages_max {
        return Err(Stop::access_limit("modified", pages_max));
    }
    guest.charge(new.saturating_mul(DIRTY_PAGE_INSTRUCTIONS))?;
    guest.store.data_mut().stable.access(offset, size, pages_max)?;
    let mut content: Page = [0; PAGE_BYTES];
    for part in parts(offset, size) {
        let from = address(src + part.done);
        let bytes = &mut content[..part.count];
        bytes.copy_from_slice(&memory.data(&guest.store)[from..from + part.count]);
        stable::write_page(&mut guest.store, part.page, part.within, bytes)?;
    }
    Ok(())
}

fn address(at: u64) -> usize {
    usize::try_from(at).expect("inside the heap, checked before")
}

/// One page's part of a range.
struct Part {
    page: u64,
    within: usize,
    count: usize,
    /// Bytes of the range before this part.
    done: u64,
}

fn parts(offset: u64, size: u64) -> impl Iterator<Item = Part> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == size {
            return None;
        }
        let at = offset + done;
        let count = (PAGE - at % PAGE).min(size - done);
        let part = Part { page: at / PAGE, within: address(at % PAGE), count: address(count), done };
        done += count;
        Some(part)
    })
}
