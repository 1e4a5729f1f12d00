//! Memory: looking through it, filling it, and making code of it.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use super::system_call;

const PAGE: usize = 4096;
const RW: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const RX: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
const PRIVATE: u64 = libc::MAP_PRIVATE as u64;
const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const NO_FILE: u64 = u64::MAX;

/// `mov eax, value; ret`.
const fn code(value: u8) -> [u8; 6] {
    [0xB8, value, 0, 0, 0, 0xC3]
}

/// Code that was there before RUN, as a canister's would be; it gives 1.
static CODE: AtomicU64 = AtomicU64::new(0);
/// A page that can be read and written.
static DATA: AtomicU64 = AtomicU64::new(0);

/// A page that is a canister's memory.
pub(super) fn prepare() {
    DATA.store(page(), Ordering::Relaxed);
}

/// A page that is its code.
pub(super) fn map_code() {
    let at = page();
    write(at, &code(1));
    let _ = system_call(libc::SYS_mprotect as u64, [at, PAGE as u64, RX, 0, 0, 0]);
    CODE.store(at, Ordering::Relaxed);
}

fn page() -> u64 {
    map(RW, ANONYMOUS, NO_FILE).unwrap_or(0)
}

fn map(protection: u64, flags: u64, file: u64) -> Result<u64, i32> {
    system_call(libc::SYS_mmap as u64, [0, PAGE as u64, protection, flags, file, 0])
}

fn write(at: u64, bytes: &[u8]) {
    // SAFETY: a page that was mapped for this, writable; if it isn't, the process dies here.
    unsafe { std::slice::from_raw_parts_mut(with_exposed(at), bytes.len()).copy_from_slice(bytes) };
}

fn with_exposed(at: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(at as usize)
}

/// Runs what lies there.
fn execute(at: u64) -> u64 {
    // SAFETY: `code` was written there; if it can't be executed, the process dies here.
    let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(with_exposed(at)) };
    black_box(function)().into()
}

/// Writes code into data and makes it executable.
pub(super) fn written_becomes_code(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let at = DATA.load(Ordering::Relaxed);
    write(at, &code(42));
    system_call(libc::SYS_mprotect as u64, [at, PAGE as u64, RX, 0, 0, 0])?;
    Ok(vec![execute(at)])
}

/// A fresh page that is writable and executable at once.
pub(super) fn writable_code(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let at = map(RW | RX, ANONYMOUS, NO_FILE)?;
    write(at, &code(42));
    Ok(vec![execute(at)])
}

/// Code in a memory file of its own, mapped to be executed.
pub(super) fn file_becomes_code(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let name = c"code".as_ptr().expose_provenance() as u64;
    let file = system_call(libc::SYS_memfd_create as u64, [name, 0, 0, 0, 0, 0])?;
    let bytes = code(42);
    let from = bytes.as_ptr().expose_provenance() as u64;
    system_call(libc::SYS_write as u64, [file, from, bytes.len() as u64, 0, 0, 0])?;
    Ok(vec![execute(map(RX, PRIVATE, file)?)])
}

/// Other code in the place of code: a new page over it.
pub(super) fn code_is_replaced(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let at = CODE.load(Ordering::Relaxed);
    let before = execute(at);
    let flags = ANONYMOUS | libc::MAP_FIXED as u64;
    system_call(libc::SYS_mmap as u64, [at, PAGE as u64, RW, flags, NO_FILE, 0])?;
    write(at, &code(42));
    system_call(libc::SYS_mprotect as u64, [at, PAGE as u64, RX, 0, 0, 0])?;
    Ok(vec![execute(at), before])
}

/// Code taken away from where the node saw it.
pub(super) fn code_is_moved(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let (at, page) = (CODE.load(Ordering::Relaxed), PAGE as u64);
    let before = execute(at);
    let to = system_call(libc::SYS_mremap as u64, [at, page, page, libc::MREMAP_MAYMOVE as u64 | 4, 0, 0])?;
    Ok(vec![execute(to) + u64::from(to != at) * 41, before])
}

/// Looks for 32 bytes in the ranges that `text` names after the bytes' two halves (either half alone is noise, so that
/// this search doesn't find itself). Where they were found.
pub(super) fn look_for(_: [u64; 4], text: &[u8]) -> Result<Vec<u64>, i32> {
    const SECRET: usize = 32;
    let (halves, ranges) = text.split_at(2 * SECRET);
    let (noise, masked) = halves.split_at(SECRET);
    let first = black_box(noise[0] ^ masked[0]);
    let mut bounds = hostile::words(ranges);
    while let (Some(from), Some(to)) = (bounds.next(), bounds.next()) {
        for at in from..to.saturating_sub(SECRET as u64 - 1) {
            // SAFETY: the suite names ranges that are mapped and readable; if one isn't, the process dies here.
            let here = |offset: usize| unsafe { with_exposed(at).add(offset).read_volatile() };
            if here(0) == first && (1..SECRET).all(|offset| here(offset) == noise[offset] ^ masked[offset]) {
                return Ok(vec![at]);
            }
        }
    }
    Err(0)
}

/// Takes `bytes` of memory in a `way` (0: pages, 1: a memory file, 2: page tables) and touches all of it. How much it
/// got.
pub(super) fn fill([bytes, way, ..]: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    const STEP: u64 = 16 << 20;
    const APART: u64 = 2 << 20;
    let mut file = NO_FILE;
    let mut flags = ANONYMOUS | libc::MAP_NORESERVE as u64;
    if way == 1 {
        let name = c"fill".as_ptr().expose_provenance() as u64;
        file = system_call(libc::SYS_memfd_create as u64, [name, 0, 0, 0, 0, 0])?;
        system_call(libc::SYS_ftruncate as u64, [file, bytes, 0, 0, 0, 0])?;
        flags = libc::MAP_SHARED as u64;
    }
    // One page table, of one page, for each 2 MiB of which one page is read.
    let (step, apart, protection) = match way {
        2 => (STEP * 512, APART, libc::PROT_READ as u64),
        _ => (STEP, PAGE as u64, RW),
    };
    let mut got = 0;
    while got < bytes {
        let offset = if way == 1 { got } else { 0 };
        let at = system_call(libc::SYS_mmap as u64, [0, step, protection, flags, file, offset])?;
        for page in (at..at + step).step_by(apart as usize) {
            // SAFETY: inside the mapping just made.
            unsafe {
                match way {
                    2 => drop(black_box(with_exposed(page).read_volatile())),
                    _ => with_exposed(page).write_volatile(1),
                }
            }
        }
        got += STEP;
    }
    Ok(vec![got])
}

/// Dies of an address that isn't there.
pub(super) fn fault(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let nowhere = black_box(8);
    // SAFETY: none: the process dies here, which is the purpose.
    unsafe { with_exposed(nowhere).write_volatile(1) };
    Ok(Vec::new())
}
