//! The worker's program in a sealed memory file: exec needs no file system, and nobody can change it.

use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

/// Copies an executable into a sealed memory file.
///
/// # Errors
/// The kernel's, when the file, the write or the seals are refused.
pub fn sealed(program: &[u8]) -> std::io::Result<OwnedFd> {
    // MFD_EXEC says that executing it is meant (Linux 6.3; older kernels refuse the flag).
    let plain = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("bulkhead-worker", plain | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("bulkhead-worker", plain))?;
    let mut file = std::fs::File::from(file);
    file.write_all(program)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o555))?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

/// Another sealed memory file with the same content, on pages of its own.
pub(crate) fn copy(image: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let bytes = rustix::fs::fstat(image)?.st_size;
    let mut program = vec![0; usize::try_from(bytes).map_err(|_| Errno::FBIG)?];
    let mut read = 0;
    while read < program.len() {
        match rustix::io::pread(image, &mut program[read..], read as u64)? {
            0 => return Err(Errno::IO),
            count => read += count,
        }
    }
    sealed(&program).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
