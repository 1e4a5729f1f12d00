//! Memory files and mappings of them.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::PAGE_BYTES;

/// A memory file.
pub(crate) struct MemoryFile {
    file: OwnedFd,
    pages: usize,
}

impl MemoryFile {
    /// A sparse file of `pages` pages.
    pub(crate) fn sparse(pages: usize) -> Result<Self, String> {
        let file = rustix::fs::memfd_create("bulkhead-perf", MemfdFlags::CLOEXEC)
            .map_err(|error| format!("memfd_create: {error}"))?;
        rustix::fs::ftruncate(&file, (pages * PAGE_BYTES) as u64)
            .map_err(|error| format!("ftruncate: {error}"))?;
        Ok(Self { file, pages })
    }

    /// The parent process's file with descriptor `number`, of `pages` pages.
    pub(crate) fn of_parent(number: usize, pages: usize) -> Result<Self, String> {
        let parent = rustix::process::getppid().ok_or("no parent")?;
        let path = format!("/proc/{}/fd/{number}", parent.as_raw_pid());
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(|error| format!("{path}: {error}"))?;
        Ok(Self { file: file.into(), pages })
    }

    /// Its descriptor, by which a child may open it.
    pub(crate) fn number(&self) -> usize {
        self.file.as_raw_fd().unsigned_abs() as usize
    }

    /// A file of `pages` pages, each with some content.
    pub(crate) fn filled(pages: usize) -> Result<Self, String> {
        let file = Self::sparse(pages)?;
        let mut mapping = Mapping::shared(&file)?;
        for page in 0..pages {
            mapping.write(page, page as u64 | 1);
        }
        Ok(file)
    }
}

/// A mapping of a memory file that can be read and written.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    pages: usize,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Writes go to copies of this mapping's own.
    pub(crate) fn private(file: &MemoryFile) -> Result<Self, String> {
        Self::new(file, MapFlags::PRIVATE | MapFlags::NORESERVE)
    }

    /// Writes go to the file.
    pub(crate) fn shared(file: &MemoryFile) -> Result<Self, String> {
        Self::new(file, MapFlags::SHARED)
    }

    fn new(file: &MemoryFile, flags: MapFlags) -> Result<Self, String> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let bytes = file.pages * PAGE_BYTES;
        // SAFETY: a fresh mapping at an address of the kernel's choosing.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, access, flags, &file.file, 0) }
            .map_err(|error| format!("mmap: {error}"))?;
        let base = NonNull::new(base.cast()).expect("mmap never returns null without MAP_FIXED");
        Ok(Self { base, pages: file.pages })
    }

    /// Maps a page of `file` in the place of one of this private mapping's.
    pub(crate) fn replace(&mut self, page: usize, file: &MemoryFile, with: usize) -> Result<(), String> {
        assert!(page < self.pages && with < file.pages, "a page of this mapping, and one of the file");
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        let offset = (with * PAGE_BYTES) as u64;
        // SAFETY: a page of our own mapping gives way; `&mut self`, so that nobody holds a reference into it. The whole
        // range is unmapped when this is dropped, whatever lies in it.
        let mapped = unsafe {
            let at = self.base.as_ptr().add(page * PAGE_BYTES);
            rustix::mm::mmap(at.cast(), PAGE_BYTES, access, flags, &file.file, offset)
        };
        mapped.map(drop).map_err(|error| format!("mmap of a page: {error}"))
    }

    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// Bytes in all.
    pub(crate) fn bytes(&self) -> usize {
        self.pages * PAGE_BYTES
    }

    /// Writes eight bytes of a page.
    pub(crate) fn write(&mut self, page: usize, value: u64) {
        // SAFETY: in bounds by the assertion in `pointer`, aligned; volatile, so that each write happens.
        unsafe { self.pointer(page).cast::<u64>().write_volatile(value) }
    }

    /// The whole content as words.
    pub(crate) fn words(&self) -> &[u64] {
        // SAFETY: the mapping is aligned, readable and as long as this; writers borrow `self` mutably.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.bytes() / 8) }
    }

    /// The whole content as words, to be written.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `words`, and writable; `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().cast(), self.bytes() / 8) }
    }

    /// A page's bytes.
    pub(crate) fn page(&self, page: usize) -> &[u8; PAGE_BYTES] {
        // SAFETY: in bounds by the assertion in `pointer`; writers borrow `self` mutably.
        unsafe { &*self.pointer(page).cast() }
    }

    /// The whole content, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable, writable and as long as this; `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes()) }
    }

    /// Gives up a private mapping's copies of `count` pages from `first` on.
    pub(crate) fn forget(&mut self, first: usize, count: usize) -> Result<(), String> {
        self.advise("MADV_DONTNEED", Advice::LinuxDontNeed, first, count)
    }

    /// Makes `count` pages from `first` on resident for reading, without copying them.
    pub(crate) fn populate(&mut self, first: usize, count: usize) -> Result<(), String> {
        self.advise("MADV_POPULATE_READ", Advice::LinuxPopulateRead, first, count)
    }

    fn advise(&mut self, what: &str, advice: Advice, first: usize, count: usize) -> Result<(), String> {
        assert!(first + count <= self.pages, "pages of this mapping");
        // SAFETY: a range of our own mapping; `&mut self`, so that nobody holds a reference into it.
        unsafe {
            let start = self.base.as_ptr().add(first * PAGE_BYTES);
            rustix::mm::madvise(start.cast(), count * PAGE_BYTES, advice)
        }
        .map_err(|error| format!("{what}: {error}"))
    }

    /// Allows or forbids writing to `count` pages from `first` on. Whoever writes where it is forbidden meets SIGSEGV.
    pub(crate) fn set_writable(&self, writable: bool, first: usize, count: usize) -> Result<(), String> {
        assert!(first + count <= self.pages, "pages of this mapping");
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a range of our own mapping; a write to it meanwhile faults: the caller's handler answers, or the
        // process ends.
        let result = unsafe {
            let start = self.base.as_ptr().add(first * PAGE_BYTES);
            libc::mprotect(start.cast(), count * PAGE_BYTES, access)
        };
        super::checked("mprotect", result).map(drop)
    }

    fn pointer(&self, page: usize) -> *mut u8 {
        assert!(page < self.pages, "a page of this mapping");
        // SAFETY: in bounds by the assertion.
        unsafe { self.base.as_ptr().add(page * PAGE_BYTES) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; every reference into it borrows `self`.
        unsafe {
            let _ = rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes());
        }
    }
}
