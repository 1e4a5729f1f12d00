//! One sealed memory file per canister, handed out by page slots.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::{MemoryError, PAGE_BYTES};

/// Index of a page slot inside an arena: its byte offset divided by [`PAGE_BYTES`].
pub type Slot = u32;

/// A memory file that holds page versions of one canister, and of no other, ever.
///
/// Sealed against shrinking (no SIGBUS for a reader), growing and every writer but the one mapping
/// made here before the seal (`F_SEAL_FUTURE_WRITE`), see memfd_create(2) and fcntl(2).
pub struct Arena {
    file: OwnedFd,
    base: NonNull<u8>,
    slots_max: Slot,
    free: Mutex<FreeSlots>,
}

struct FreeSlots {
    /// Slots given back; used before `next` so that pages stay warm.
    recycled: Vec<Slot>,
    /// First slot never handed out.
    next: Slot,
}

// SAFETY: `base` points to a mapping that lives as long as the arena. Bytes of a slot are written only
// through a `StagedPages`, which owns the slot exclusively, and read only through a `PageVersion`,
// which exists only after staging has ended.
unsafe impl Send for Arena {}
// SAFETY: as for `Send`; the free list is behind a mutex.
unsafe impl Sync for Arena {}

impl Arena {
    /// Makes an arena for at most `bytes_max` bytes of page versions (rounded down to pages).
    /// The file is sparse: it costs what has been written, not its size.
    ///
    /// # Errors
    /// [`MemoryError::Os`] when the kernel refuses the file, the mapping or the seals.
    pub fn new(bytes_max: u64) -> Result<Arc<Self>, MemoryError> {
        let slots_max = Slot::try_from(bytes_max / PAGE_BYTES as u64).unwrap_or(Slot::MAX);
        let bytes = u64::from(slots_max) * PAGE_BYTES as u64;
        let file = rustix::fs::memfd_create(
            "bulkhead-arena",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL,
        )
        .map_err(MemoryError::os("arena memfd_create"))?;
        rustix::fs::ftruncate(&file, bytes).map_err(MemoryError::os("arena ftruncate"))?;
        // SAFETY: a fresh shared mapping of our own file at an address of the kernel's choosing.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                slots_max as usize * PAGE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &file,
                0,
            )
        }
        .map_err(MemoryError::os("arena mmap"))?;
        let base = NonNull::new(base.cast()).expect("mmap never returns null without MAP_FIXED");
        let arena =
            Self { file, base, slots_max, free: Mutex::new(FreeSlots { recycled: Vec::new(), next: 0 }) };
        // After the mapping: FUTURE_WRITE keeps ours and refuses every later one.
        rustix::fs::fcntl_add_seals(
            &arena.file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )
        .map_err(MemoryError::os("arena seals"))?;
        Ok(Arc::new(arena))
    }

    /// The sealed file, to be mapped read-only by a worker.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Size of the file and of every [`crate::Window`] on it, in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.slots_max as usize * PAGE_BYTES
    }

    /// Bytes in slots that hold a page version or are staged now.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        let free = self.lock();
        (free.next as usize - free.recycled.len()) * PAGE_BYTES
    }

    /// Takes `count` free slots to be filled. They go back when the result is dropped unfinished.
    ///
    /// # Errors
    /// [`MemoryError::ArenaFull`] with nothing taken.
    pub fn stage(self: &Arc<Self>, count: usize) -> Result<StagedPages, MemoryError> {
        let mut free = self.lock();
        let available = free.recycled.len() + (self.slots_max - free.next) as usize;
        if count > available {
            return Err(MemoryError::ArenaFull { needed: count, free: available });
        }
        let recycled = free.recycled.len().min(count);
        let at = free.recycled.len() - recycled;
        let mut slots = free.recycled.split_off(at);
        let fresh = Slot::try_from(count - recycled).expect("count is at most slots_max, a Slot");
        slots.extend(free.next..free.next + fresh);
        free.next += fresh;
        drop(free);
        Ok(StagedPages { arena: Arc::clone(self), slots })
    }

    /// Copies one page into a free slot.
    ///
    /// # Errors
    /// [`MemoryError::ArenaFull`].
    pub fn store(self: &Arc<Self>, bytes: &[u8; PAGE_BYTES]) -> Result<PageVersion, MemoryError> {
        let mut staged = self.stage(1)?;
        staged.page_mut(0).copy_from_slice(bytes);
        Ok(staged.finish().pop().expect("one page was staged"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FreeSlots> {
        // The list is consistent between any two statements, so a panicking holder leaves it usable.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pointer(&self, slot: Slot) -> *mut u8 {
        assert!(slot < self.slots_max, "slots come from this arena's own list");
        // SAFETY: in bounds by the assertion; the mapping is `slots_max` pages long.
        unsafe { self.base.as_ptr().add(slot as usize * PAGE_BYTES) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing borrows from it, since every borrower holds an Arc.
        unsafe {
            let _ = rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes_max());
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("bytes_max", &self.bytes_max())
            .field("bytes_used", &self.bytes_used())
            .finish()
    }
}

/// Slots that are being filled: exclusively owned, unseen by any reader until [`StagedPages::finish`].
#[derive(Debug)]
pub struct StagedPages {
    arena: Arc<Arena>,
    slots: Vec<Slot>,
}

impl StagedPages {
    /// Number of pages staged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no page is staged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The bytes of the `index`-th staged page, to be written.
    ///
    /// # Panics
    /// If `index` is not below [`StagedPages::len`].
    pub fn page_mut(&mut self, index: usize) -> &mut [u8; PAGE_BYTES] {
        let pointer = self.arena.pointer(self.slots[index]);
        // SAFETY: a staged slot belongs to this value alone, and `&mut self` makes the borrow unique.
        unsafe { &mut *pointer.cast() }
    }

    /// All staged pages at once, in order, for scattered reads such as process_vm_readv(2).
    pub fn pages_mut(&mut self) -> Vec<&mut [u8; PAGE_BYTES]> {
        self.slots
            .iter()
            .map(|&slot| {
                // SAFETY: slots are distinct and owned by this value alone; the borrow of `self` is unique.
                unsafe { &mut *self.arena.pointer(slot).cast() }
            })
            .collect()
    }

    /// Ends writing: from now on the pages never change.
    #[must_use]
    pub fn finish(mut self) -> Vec<PageVersion> {
        std::mem::take(&mut self.slots)
            .into_iter()
            .map(|slot| PageVersion(Arc::new(Held { arena: Arc::clone(&self.arena), slot })))
            .collect()
    }
}

impl Drop for StagedPages {
    fn drop(&mut self) {
        if !self.slots.is_empty() {
            self.arena.lock().recycled.append(&mut self.slots);
        }
    }
}

/// One immutable version of one page. Cheap to clone; the slot is recycled with the last clone.
#[derive(Clone)]
pub struct PageVersion(Arc<Held>);

struct Held {
    arena: Arc<Arena>,
    slot: Slot,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.arena.lock().recycled.push(self.slot);
    }
}

impl PageVersion {
    /// Where the version lies in its arena.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.0.slot
    }

    /// The content.
    #[must_use]
    pub fn bytes(&self) -> &[u8; PAGE_BYTES] {
        // SAFETY: staging has ended, so nobody writes this slot while `self` holds it; the mapping
        // lives as long as the arena, which `self` holds too.
        unsafe { &*self.0.arena.pointer(self.0.slot).cast_const().cast() }
    }

    /// Whether both are the same version (not merely equal bytes).
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Versions are equal when they are the same version; content is not compared.
impl PartialEq for PageVersion {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
    }
}

impl Eq for PageVersion {}

impl fmt::Debug for PageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageVersion(slot {})", self.0.slot)
    }
}
