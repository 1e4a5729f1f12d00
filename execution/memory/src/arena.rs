//! The sealed memory files of one canister, handed out by page slots.

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::segment::{SEGMENTS_MAX, bytes, segment_of, slots_in, slots_of};
use crate::{Budget, MemoryError, PAGE_BYTES};

/// Index of a page slot inside an arena.
pub type Slot = u32;

/// Most slots that are taken fresh at once, and that are faulted in ahead beside them: 4 MiB each, about two
/// milliseconds during which others wait.
const FRESH_AT_ONCE: Slot = 1024;
/// Fewest slots that are faulted in ahead of need: 64 KiB.
const AHEAD_MIN: Slot = 16;

/// Memory files that hold page versions of one canister, and of no other, ever.
///
/// Each file (a segment) is sealed against shrinking (no SIGBUS for a reader), growing and every writer
/// but the one mapping made here before the seal (`F_SEAL_FUTURE_WRITE`), see memfd_create(2) and
/// fcntl(2). The seal forbids holes too: a slot's memory stays with its arena and is used again there.
pub struct Arena {
    /// Those in use come first.
    segments: [OnceLock<Segment>; SEGMENTS_MAX],
    slots_max: Slot,
    budget: Arc<Budget>,
    free: Mutex<FreeSlots>,
}

#[derive(Default)]
struct FreeSlots {
    /// Slots given back; used before `next`, their memory is there already.
    recycled: Vec<Slot>,
    /// First slot never handed out.
    next: Slot,
    /// First slot whose memory is not there yet.
    populated: Slot,
}

/// One file and the node's mapping of it.
struct Segment {
    file: OwnedFd,
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `base` points to a mapping that lives as long as the segment. Bytes of a slot are written only
// through a `StagedPages`, which owns the slot exclusively, and read only through a `PageVersion`,
// which exists only after staging has ended.
unsafe impl Send for Segment {}
// SAFETY: as for `Send`.
unsafe impl Sync for Segment {}

impl Segment {
    fn new(bytes: usize) -> Result<Self, MemoryError> {
        let file = rustix::fs::memfd_create(
            "bulkhead-arena",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL,
        )
        .map_err(MemoryError::os("arena memfd_create"))?;
        rustix::fs::ftruncate(&file, bytes as u64).map_err(MemoryError::os("arena ftruncate"))?;
        // SAFETY: a fresh shared mapping of our own file at an address of the kernel's choosing.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &file,
                0,
            )
        }
        .map_err(MemoryError::os("arena mmap"))?;
        let base = NonNull::new(base.cast()).expect("mmap never returns null without MAP_FIXED");
        let segment = Self { file, base, bytes };
        // After the mapping: FUTURE_WRITE keeps ours and refuses every later one.
        rustix::fs::fcntl_add_seals(
            &segment.file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )
        .map_err(MemoryError::os("arena seals"))?;
        Ok(segment)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing borrows from it, since every borrower holds the arena.
        unsafe {
            let _ = rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes);
        }
    }
}

impl Arena {
    /// Makes an arena for at most `bytes_max` bytes of page versions (rounded down to pages; at most
    /// 1 TiB). It costs what has been written, and address space up to sixteen times that.
    ///
    /// # Errors
    /// [`MemoryError::Os`] when the kernel refuses the file, the mapping or the seals.
    pub fn new(bytes_max: u64) -> Result<Arc<Self>, MemoryError> {
        Self::within(bytes_max, &Budget::unbounded())
    }

    /// The same, with what it holds counted in a `budget` shared with others.
    ///
    /// # Errors
    /// As for [`Arena::new`].
    pub fn within(bytes_max: u64, budget: &Arc<Budget>) -> Result<Arc<Self>, MemoryError> {
        let slots_max = slots_in(bytes_max);
        let arena = Self {
            segments: Default::default(),
            slots_max,
            budget: Arc::clone(budget),
            free: Mutex::default(),
        };
        arena.make_segments(slots_max.min(1))?;
        Ok(Arc::new(arena))
    }

    /// The sealed files, to be mapped by a reader. There may be more of them later, up to
    /// [`SEGMENTS_MAX`]; none of them ever changes.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.segments.iter().map_while(|segment| Some(segment.get()?.file.as_fd()))
    }

    /// Number of [`Arena::files`] now.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.files().count()
    }

    /// Bytes of page versions that fit.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        bytes(self.slots_max) as u64
    }

    /// Bytes in slots that hold a page version or are staged now.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        let free = self.lock();
        bytes(free.next) - free.recycled.len() * PAGE_BYTES
    }

    /// Bytes of memory that the arena holds, free slots included.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        bytes(self.lock().populated)
    }

    /// Takes `count` free slots to be filled, ascending. They go back when the result is dropped
    /// unfinished.
    ///
    /// # Errors
    /// With nothing taken: [`MemoryError::ArenaFull`], [`MemoryError::BudgetMet`], or
    /// [`MemoryError::Os`] when the kernel refuses a further segment or its memory.
    pub fn stage(self: &Arc<Self>, count: usize) -> Result<StagedPages, MemoryError> {
        // What has been taken goes back if anything fails.
        let mut staged = StagedPages { arena: Arc::clone(self), slots: Vec::new() };
        while staged.len() < count {
            let missing = count - staged.len();
            let mut free = self.lock();
            let available = free.recycled.len() + (self.slots_max - free.next) as usize;
            if missing > available {
                return Err(MemoryError::ArenaFull { needed: missing, free: available });
            }
            if free.recycled.is_empty() {
                let fresh = Slot::try_from(missing).unwrap_or(Slot::MAX).min(FRESH_AT_ONCE);
                let end = free.next + fresh;
                self.reserve(&mut free, end)?;
                staged.slots.extend(free.next..end);
                free.next = end;
            } else {
                let at = free.recycled.len().saturating_sub(missing);
                staged.slots.append(&mut free.recycled.split_off(at));
                // Pages of a commit come by ascending index: neighbours in neighbouring slots are mapped
                // and copied together.
                staged.slots.sort_unstable();
            }
        }
        Ok(staged)
    }

    /// Copies one page into a free slot.
    ///
    /// # Errors
    /// As for [`Arena::stage`].
    pub fn store(self: &Arc<Self>, bytes: &[u8; PAGE_BYTES]) -> Result<PageVersion, MemoryError> {
        let mut staged = self.stage(1)?;
        staged.page_mut(0).copy_from_slice(bytes);
        Ok(staged.finish().pop().expect("one page was staged"))
    }

    /// Faults in the memory of slots up to `end`, and somewhat farther.
    fn reserve(&self, free: &mut FreeSlots, end: Slot) -> Result<(), MemoryError> {
        let start = free.populated;
        if end <= start {
            return Ok(());
        }
        self.make_segments(end)?;
        let segment_end = slots_of(segment_of(end - 1), self.slots_max).end;
        let ahead = end.saturating_add((start / 4).clamp(AHEAD_MIN, FRESH_AT_ONCE)).min(segment_end);
        let size = |end| bytes(end - start) as u64;
        let populated = match self.budget.take(size(ahead)) {
            Ok(()) => ahead,
            Err(_) => self.budget.take(size(end)).map(|()| end)?,
        };
        self.populate(start..populated).inspect_err(|_| self.budget.give_back(size(populated)))?;
        free.populated = populated;
        Ok(())
    }

    /// Makes the segments up to slot `end`.
    fn make_segments(&self, end: Slot) -> Result<(), MemoryError> {
        let Some(last) = end.checked_sub(1) else { return Ok(()) };
        for (index, segment) in self.segments.iter().enumerate().take(segment_of(last) + 1) {
            if segment.get().is_none() {
                let slots = slots_of(index, self.slots_max);
                let made = segment.set(Segment::new(bytes(slots.end - slots.start))?);
                assert!(made.is_ok(), "segments are made under the lock, or before anybody has the arena");
            }
        }
        Ok(())
    }

    /// Faults in the memory of `slots`, all at once: half the price of one fault for each (measured in
    /// `perf/`), and a lack of memory shows here, as an error.
    fn populate(&self, slots: Range<Slot>) -> Result<(), MemoryError> {
        let mut start = slots.start;
        while start < slots.end {
            let end = slots_of(segment_of(start), self.slots_max).end.min(slots.end);
            // SAFETY: the range lies in one segment of ours; populating changes no content.
            let populated = unsafe {
                rustix::mm::madvise(
                    self.pointer(start).cast(),
                    bytes(end - start),
                    Advice::LinuxPopulateWrite,
                )
            };
            match populated {
                // Before Linux 5.14: pages come when they are written.
                Ok(()) | Err(Errno::INVAL) => {}
                // What a lack of memory is called here: the fault failed (madvise(2)).
                Err(Errno::FAULT) => return Err(MemoryError::os("arena memory")(Errno::NOMEM)),
                Err(errno) => return Err(MemoryError::os("arena memory")(errno)),
            }
            start = end;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FreeSlots> {
        // The list is consistent between any two statements, so a panicking holder leaves it usable.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pointer(&self, slot: Slot) -> *mut u8 {
        self.pointer_checked(slot).expect("slots come from this arena's own list")
    }

    /// Where `slot` lies; `None` if there is no such slot yet.
    pub(crate) fn pointer_checked(&self, slot: Slot) -> Option<*mut u8> {
        let index = segment_of(slot);
        let segment = self.segments.get(index)?.get()?;
        let within = bytes(slot - slots_of(index, self.slots_max).start.min(slot));
        // SAFETY: in bounds by the check.
        (within < segment.bytes).then(|| unsafe { segment.base.as_ptr().add(within) })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes_held() as u64);
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("bytes_max", &self.bytes_max())
            .field("bytes_used", &self.bytes_used())
            .finish_non_exhaustive()
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

    /// All staged pages in order, neighbouring slots as one range, for process_vm_readv(2).
    pub fn ranges_mut(&mut self) -> Vec<&mut [u8]> {
        let neighbours =
            |a: &Slot, b: &Slot| a.checked_add(1) == Some(*b) && segment_of(*a) == segment_of(*b);
        self.slots
            .chunk_by(neighbours)
            .map(|run| {
                // SAFETY: slots are distinct and owned by this value alone, those of a run lie next to each
                // other in one segment, and the borrow of `self` is unique.
                unsafe { std::slice::from_raw_parts_mut(self.arena.pointer(run[0]), run.len() * PAGE_BYTES) }
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
