//! A read-only view of a whole arena file, in the node or in a worker.

use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::{MemoryError, PAGE_BYTES, Slot};

/// A read-only mapping of an arena. In a worker it is made before the RUN lock and never changes.
#[derive(Debug)]
pub struct Window {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is read-only and lives as long as the value.
unsafe impl Send for Window {}
// SAFETY: as for `Send`.
unsafe impl Sync for Window {}

impl Window {
    /// Maps `bytes` bytes of the arena `file` read-only. `bytes` must be the arena's size.
    ///
    /// # Errors
    /// [`MemoryError::Os`] when the kernel refuses the mapping.
    pub fn map(file: impl AsFd, bytes: usize) -> Result<Self, MemoryError> {
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
        Ok(Self { base, bytes })
    }

    /// Copies page `slot` to `to`; `None`, and nothing copied, if the slot lies outside the window.
    ///
    /// The slot must hold a finished version that the caller knows to be kept alive for the call:
    /// the node keeps the snapshot of an execution until the execution is over.
    #[must_use]
    pub fn read(&self, slot: Slot, to: &mut [u8; PAGE_BYTES]) -> Option<()> {
        let at = (slot as usize).checked_mul(PAGE_BYTES)?;
        if at.checked_add(PAGE_BYTES)? > self.bytes {
            return None;
        }
        // SAFETY: in bounds by the check above; `to` is our own memory, so the ranges don't overlap.
        // A finished slot isn't written while it is held (see the method's contract); were it written,
        // the copy would hold a mix of two versions of the same canister's page and nothing else.
        unsafe { std::ptr::copy_nonoverlapping(self.base.as_ptr().add(at), to.as_mut_ptr(), PAGE_BYTES) };
        Some(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; reads borrow `self`, so none is under way.
        unsafe {
            let _ = rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes);
        }
    }
}
