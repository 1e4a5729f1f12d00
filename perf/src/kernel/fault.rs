//! Dirty pages by write faults: the mapping is read-only, and the handler of SIGSEGV opens what is written.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Mapping, PAGE_BYTES, checked};

/// What the handler knows: one mapping, written by one thread.
static BASE: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static WINDOW_PAGES: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static OPENED: [AtomicUsize; OPENED_MAX] = [const { AtomicUsize::new(0) }; OPENED_MAX];
/// Windows that can be opened between two harvests.
const OPENED_MAX: usize = 1 << 15;

/// A handler of SIGSEGV for one mapping; the former one is back when this is dropped.
pub(crate) struct WriteFaults {
    former: libc::sigaction,
    window_pages: usize,
}

impl WriteFaults {
    /// Starts with all of `mapping` read-only. Each fault opens a window of `window_pages` pages.
    pub(crate) fn watch(mapping: &Mapping, window_pages: usize) -> Result<Self, String> {
        // SAFETY: all-zero is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: as above.
        let mut former: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both point to valid values; the handler is async-signal-safe.
        checked("sigaction", unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut former) })?;
        mapping.set_writable(false, 0, mapping.pages())?;
        Ok(Self { former, window_pages })
    }

    /// Must come before writes to `mapping`: the handler knows one mapping at a time.
    pub(crate) fn expect(&self, mapping: &Mapping) {
        BASE.store(mapping.address(), Ordering::Relaxed);
        BYTES.store(mapping.bytes(), Ordering::Relaxed);
        WINDOW_PAGES.store(self.window_pages, Ordering::Relaxed);
        COUNT.store(0, Ordering::Relaxed);
    }

    /// The first pages of the windows written since [`WriteFaults::expect`], ascending; read-only again.
    pub(crate) fn harvest(&self, mapping: &Mapping) -> Result<Vec<u32>, String> {
        let count = COUNT.swap(0, Ordering::Relaxed);
        let opened = OPENED.get(..count).ok_or("more windows were opened than the handler can note")?;
        let mut opened: Vec<u32> = opened.iter().map(|page| page.load(Ordering::Relaxed) as u32).collect();
        opened.sort_unstable();
        let window = self.window_pages;
        for run in opened.chunk_by(|a, b| *b as usize == *a as usize + window) {
            mapping.set_writable(false, run[0] as usize, run.len() * window)?;
        }
        Ok(opened)
    }
}

impl Drop for WriteFaults {
    fn drop(&mut self) {
        // SAFETY: `former` came from sigaction(2).
        unsafe {
            libc::sigaction(libc::SIGSEGV, &raw const self.former, std::ptr::null_mut());
        }
    }
}

extern "C" fn handle(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler.
    let address = unsafe { (*info).si_addr() } as usize;
    let base = BASE.load(Ordering::Relaxed);
    let within = address.wrapping_sub(base);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    if within >= BYTES.load(Ordering::Relaxed) || count >= OPENED_MAX {
        // Not ours: the default action ends the process at the instruction that faults again.
        // SAFETY: async-signal-safe.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        }
        return;
    }
    let window = WINDOW_PAGES.load(Ordering::Relaxed);
    let first = within / PAGE_BYTES / window * window;
    OPENED[count].store(first, Ordering::Relaxed);
    // SAFETY: pages of the watched mapping, whose length is a multiple of the window; async-signal-safe.
    unsafe {
        let start = (base + first * PAGE_BYTES) as *mut libc::c_void;
        libc::mprotect(start, window * PAGE_BYTES, libc::PROT_READ | libc::PROT_WRITE);
    }
}
