//! Immutable bytes in a sealed memory file: compiled code on its way to a worker.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::MemoryError;

/// Bytes in a memory file that nobody can change, shrink or grow any more.
#[derive(Debug)]
pub struct Blob {
    file: OwnedFd,
    bytes: usize,
}

impl Blob {
    /// Copies `bytes` into a sealed memory file.
    ///
    /// # Errors
    /// [`MemoryError::Os`] when the kernel refuses the file, the write or the seals.
    pub fn new(bytes: &[u8]) -> Result<Self, MemoryError> {
        // No MFD_NOEXEC_SEAL: compiled code is mapped executable from here.
        let file = rustix::fs::memfd_create("bulkhead-code", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(MemoryError::os("blob memfd_create"))?;
        let mut file = std::fs::File::from(file);
        file.write_all(bytes).map_err(|source| MemoryError::Os { what: "blob write", source })?;
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
        )
        .map_err(MemoryError::os("blob seals"))?;
        Ok(Self { file: file.into(), bytes: bytes.len() })
    }

    /// The sealed file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the blob is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}
