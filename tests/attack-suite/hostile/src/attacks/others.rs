//! Other processes' memory. A worker can also be the one that is attacked: then it holds a secret.

use std::sync::atomic::{AtomicU64, Ordering};

use super::system_call;

/// Words of a secret.
const WORDS: usize = 4;
static SECRET: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

fn address() -> u64 {
    (&raw const SECRET).expose_provenance() as u64
}

/// Takes a secret of four words. Where it lies.
pub(super) fn hold(secret: [u64; WORDS], _: &[u8]) -> Result<Vec<u64>, i32> {
    for (word, value) in SECRET.iter().zip(secret) {
        word.store(value, Ordering::Relaxed);
    }
    Ok(vec![address()])
}

/// What lies there now.
pub(super) fn held(_: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    Ok(SECRET.iter().map(|word| word.load(Ordering::Relaxed)).collect())
}

/// Four words at an address of another process.
pub(super) fn read_another([pid, address, ..]: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let mut words = vec![0_u64; WORDS];
    moved(libc::SYS_process_vm_readv, pid, words.as_mut_ptr().expose_provenance() as u64, address)?;
    Ok(words)
}

/// Zeros over four words at an address of another process.
pub(super) fn write_another([pid, address, ..]: [u64; 4], _: &[u8]) -> Result<Vec<u64>, i32> {
    let words = [0_u64; WORDS];
    moved(libc::SYS_process_vm_writev, pid, words.as_ptr().expose_provenance() as u64, address)?;
    Ok(Vec::new())
}

fn moved(call: libc::c_long, pid: u64, here: u64, there: u64) -> Result<(), i32> {
    let range = |at: u64| [at, size_of::<[u64; WORDS]>() as u64];
    let (here, there) = (range(here), range(there));
    let at = |range: &[u64; 2]| range.as_ptr().expose_provenance() as u64;
    system_call(call as u64, [pid, at(&here), 1, at(&there), 1, 0]).map(|_| ())
}
