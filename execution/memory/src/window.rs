//! A read-only view of a canister's arena, in the node or in a worker.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};

use crate::segment::{bytes, segment_of, slots_in, slots_of};
use crate::{Arena, MemoryError, PAGE_BYTES, Slot};

/// Reads pages by their slots. In a worker it is made before the RUN lock and never changes.
#[derive(Debug)]
pub struct Window(Source);

#[derive(Debug)]
enum Source {
    /// In the node: the arena's own mapping.
    Arena(Arc<Arena>),
    /// In a worker: read-only mappings of the segments that there were.
    Mapped { segments: Vec<Mapping>, slots_max: Slot },
}

#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is read-only and lives as long as the value.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Window {
    /// A view of an arena of this process.
    #[must_use]
    pub fn of(arena: &Arc<Arena>) -> Self {
        Self(Source::Arena(Arc::clone(arena)))
    }

    /// Maps the segments `files` of an arena of `bytes_max` bytes read-only.
    ///
    /// # Errors
    /// [`MemoryError::Os`] when the kernel refuses a mapping.
    pub fn map(files: &[BorrowedFd<'_>], bytes_max: u64) -> Result<Self, MemoryError> {
        let slots_max = slots_in(bytes_max);
        let map = |(index, file): (usize, &BorrowedFd<'_>)| {
            let slots = slots_of(index, slots_max);
            let bytes = bytes(slots.end - slots.start);
            // SAFETY: a fresh shared read-only mapping at an address of the kernel's choosing.
            let base = unsafe {
                rustix::mm::mmap(
                    std::ptr::null_mut(),
                    bytes,
                    ProtFlags::READ,
                    MapFlags::SHARED | MapFlags::NORESERVE,
                    file,
                    0,
                )
            }
            .map_err(MemoryError::os("window mmap"))?;
            let base = NonNull::new(base.cast()).expect("mmap never returns null without MAP_FIXED");
            Ok(Mapping { base, bytes })
        };
        let segments = files.iter().enumerate().map(map).collect::<Result<_, _>>()?;
        Ok(Self(Source::Mapped { segments, slots_max }))
    }

    /// Copies page `slot` to `to`; `None`, and nothing copied, if the slot lies outside the window.
    ///
    /// The slot must hold a finished version that the caller knows to be kept alive for the call:
    /// the node keeps the snapshot of an execution until the execution is over.
    #[must_use]
    pub fn read(&self, slot: Slot, to: &mut [u8; PAGE_BYTES]) -> Option<()> {
        let from = self.pointer(slot)?;
        // SAFETY: `from` points to a page of a live mapping; `to` is our own memory, so the ranges don't
        // overlap. A finished slot isn't written while it is held (see the method's contract); were it
        // written, the copy would hold a mix of two versions of the same canister's page and nothing else.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), PAGE_BYTES) };
        Some(())
    }

    fn pointer(&self, slot: Slot) -> Option<*const u8> {
        match &self.0 {
            Source::Arena(arena) => arena.pointer_checked(slot).map(<*mut u8>::cast_const),
            Source::Mapped { segments, slots_max } => {
                let index = segment_of(slot);
                let segment = segments.get(index)?;
                let at = bytes(slot.checked_sub(slots_of(index, *slots_max).start)?);
                if at.checked_add(PAGE_BYTES)? > segment.bytes {
                    return None;
                }
                // SAFETY: in bounds by the check above.
                Some(unsafe { segment.base.as_ptr().add(at).cast_const() })
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; reads borrow the window, so none is under way.
        unsafe {
            let _ = rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes);
        }
    }
}

/// Puts the pages from `slot` on in the place of `memory`, copy-on-write: reading `memory` reads the
/// arena's pages, writing it makes private copies. Gives the number of bytes done: less than all where
/// the pages go on in another segment.
///
/// `files` are the segments of an arena of `bytes_max` bytes.
///
/// # Errors
/// [`MemoryError::Os`] when the kernel refuses the mapping, [`MemoryError::Outside`] when there is no
/// such slot. `memory` is unchanged then.
///
/// # Safety
/// `memory` must be whole pages of a private mapping of its owner's, which nothing else looks at and
/// which is unmapped as a whole. The slots must hold finished versions that are kept alive until each of
/// these pages has been written or `memory` is unmapped.
pub unsafe fn map_privately(
    files: &[BorrowedFd<'_>],
    bytes_max: u64,
    slot: Slot,
    memory: &mut [u8],
) -> Result<usize, MemoryError> {
    let index = segment_of(slot);
    let slots = slots_of(index, slots_in(bytes_max));
    let file = files.get(index).filter(|_| slots.contains(&slot)).ok_or(MemoryError::Outside(slot))?;
    let length = memory.len().min(bytes(slots.end - slot));
    let aligned = memory.as_ptr().addr().is_multiple_of(PAGE_BYTES) && length.is_multiple_of(PAGE_BYTES);
    assert!(aligned, "whole pages are mapped");
    // SAFETY: the range is the caller's alone and stays readable and writable memory of the same length
    // (the caller's contract); the file is sealed against shrinking.
    unsafe {
        rustix::mm::mmap(
            memory.as_mut_ptr().cast(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            file,
            bytes(slot - slots.start) as u64,
        )
    }
    .map_err(MemoryError::os("heap mmap"))?;
    Ok(length)
}
