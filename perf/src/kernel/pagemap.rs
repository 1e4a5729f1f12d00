//! Dirty pages from the page tables: PAGEMAP_SCAN, alone and with asynchronous write protection by
//! userfaultfd(2).

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::mm::UserfaultfdFlags;

use super::{Mapping, PAGE_BYTES, checked};

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Copied by a write to a private mapping: no longer of the file.
    Copied,
    /// Written since write protection, which they are under again afterwards.
    Written,
}

/// Ranges that one scan can return.
const RANGES_MAX: usize = 1 << 14;
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610_u32 as libc::Ioctl;
const PM_SCAN_WP_MATCHING: u64 = 1;
const PM_SCAN_CHECK_WPASYNC: u64 = 2;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// This process's page tables, to be scanned.
pub(crate) struct PageMap {
    file: File,
    regions: Vec<Region>,
}

impl PageMap {
    /// Opens them.
    pub(crate) fn open() -> Result<Self, String> {
        let file = File::open("/proc/self/pagemap").map_err(|error| format!("pagemap: {error}"))?;
        Ok(Self { file, regions: vec![Region::default(); RANGES_MAX] })
    }

    /// The matching pages of `mapping`, ascending.
    pub(crate) fn scan(&mut self, mapping: &Mapping, pages: Pages) -> Result<Vec<u32>, String> {
        let base = mapping.address() as u64;
        let end = base + mapping.bytes() as u64;
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start: base,
            end,
            vec: self.regions.as_mut_ptr() as u64,
            vec_len: RANGES_MAX as u64,
            ..ScanArgument::default()
        };
        match pages {
            Pages::Copied => {
                argument.category_inverted = PAGE_IS_FILE;
                argument.category_mask = PAGE_IS_FILE;
                argument.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
            }
            Pages::Written => {
                argument.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
                argument.category_mask = PAGE_IS_WRITTEN;
            }
        }
        let mut found = Vec::new();
        loop {
            // SAFETY: `argument` and the regions it points to are valid and as long as it says.
            let result = unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN, &raw mut argument) };
            let count = checked("PAGEMAP_SCAN", result)? as usize;
            for region in &self.regions[..count] {
                found.extend((region.start..region.end).step_by(PAGE_BYTES).map(|at| page(at, base)));
            }
            // `walk_end` is stale after more than 512 regions: the number returned says whether this is all.
            if count < RANGES_MAX {
                return Ok(found);
            }
            argument.start = self.regions[count - 1].end;
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "mappings here have fewer than 2^32 pages")]
fn page(address: u64, base: u64) -> u32 {
    ((address - base) / PAGE_BYTES as u64) as u32
}

const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
const UFFDIO_WRITEPROTECT: libc::Ioctl = 0xc018_aa06_u32 as libc::Ioctl;
const UFFD_API: u64 = 0xaa;
/// UFFD_FEATURE_PAGEFAULT_FLAG_WP, _WP_HUGETLBFS_SHMEM, _WP_UNPOPULATED, _WP_ASYNC.
const FEATURES: u64 = 1 | 1 << 12 | 1 << 13 | 1 << 15;
const REGISTER_MODE_WP: u64 = 1 << 1;
const WRITEPROTECT_MODE_WP: u64 = 1;

/// Write protection that the kernel lifts by itself and that [`PageMap::scan`] asks about. Ends when dropped.
pub(crate) struct WriteProtection {
    _file: OwnedFd,
}

impl WriteProtection {
    /// Protects all of `mapping`.
    pub(crate) fn start(mapping: &Mapping) -> Result<Self, String> {
        // SAFETY: asynchronous protection never leaves a fault waiting for an answer.
        let file = unsafe { rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC) }
            .map_err(|error| format!("userfaultfd: {error}"))?;
        let (start, length) = (mapping.address() as u64, mapping.bytes() as u64);
        let mut api = [UFFD_API, FEATURES, 0];
        let mut register = [start, length, REGISTER_MODE_WP, 0];
        let mut protect = [start, length, WRITEPROTECT_MODE_WP];
        // SAFETY: the arrays are laid out as `struct uffdio_api`, `uffdio_register` and
        // `uffdio_writeprotect` of linux/userfaultfd.h: 64-bit fields only.
        unsafe {
            let fd = file.as_raw_fd();
            checked("UFFDIO_API", libc::ioctl(fd, UFFDIO_API, api.as_mut_ptr()))?;
            checked("UFFDIO_REGISTER", libc::ioctl(fd, UFFDIO_REGISTER, register.as_mut_ptr()))?;
            checked("UFFDIO_WRITEPROTECT", libc::ioctl(fd, UFFDIO_WRITEPROTECT, protect.as_mut_ptr()))?;
        }
        Ok(Self { _file: file })
    }
}
