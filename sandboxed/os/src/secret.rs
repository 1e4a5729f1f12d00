//! Memory for keys: out of the kernel's own map (memfd_secret(2)), or at least never swapped, dumped or inherited.

use std::fmt;
use std::io;
use std::ptr::NonNull;

use rustix::io::Errno;

/// Bytes that lie on pages of their own, which nobody but this process reads: with memfd_secret not even the kernel,
/// nor root through `/proc/PID/mem`. Zeroed when dropped.
pub struct Secret {
    page: NonNull<u8>,
    length: usize,
    from_kernel: bool,
}

/// How well a [`Secret`] is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In secret memory of the kernel's.
    Secret,
    /// Locked, left out of core files, not inherited by children: Linux before 5.14, or with it switched off.
    Locked,
}

/// Most bytes of a secret: a page.
pub const SECRET_BYTES_MAX: usize = 4096;

// SAFETY: the memory belongs to the value and moves with it; shared references only read.
unsafe impl Send for Secret {}
// SAFETY: as above.
unsafe impl Sync for Secret {}

impl Secret {
    /// Moves `bytes` into secret memory and zeroes them where they were.
    ///
    /// # Errors
    /// More than a page; or the kernel's, when it gives neither secret nor locked memory.
    pub fn take(bytes: &mut [u8]) -> io::Result<Self> {
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (page, from_kernel) = match secret_page() {
            Ok(page) => (page, true),
            Err(_) => (locked_page()?, false),
        };
        let secret = Self { page, length: bytes.len(), from_kernel };
        // SAFETY: the page is mapped, writable, ours alone and larger than `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), secret.page.as_ptr(), bytes.len()) };
        wipe(bytes);
        Ok(secret)
    }

    /// The bytes. Copies of them are the caller's to wipe.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        // SAFETY: mapped for the value's life, written before, and never again while it is shared.
        unsafe { std::slice::from_raw_parts(self.page.as_ptr(), self.length) }
    }

    /// How well it is kept on this machine.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        if self.from_kernel { Keeping::Secret } else { Keeping::Locked }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // SAFETY: the page is mapped and writable, and unmapped once, here.
        unsafe {
            wipe(std::slice::from_raw_parts_mut(self.page.as_ptr(), self.length));
            libc::munmap(self.page.as_ptr().cast(), SECRET_BYTES_MAX);
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("keeping", &self.keeping()).finish_non_exhaustive()
    }
}

/// Zeroes bytes that nobody reads any more.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Or the compiler leaves it out.
    std::hint::black_box(bytes);
}

fn mapped(flags: libc::c_int, file: libc::c_int) -> io::Result<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at a place of the kernel's choice.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), SECRET_BYTES_MAX, access, flags, file, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(page.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn secret_page() -> io::Result<NonNull<u8>> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    // FD_CLOEXEC is the flag that memfd_secret(2) takes.
    // SAFETY: the call gives a new descriptor or an error.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let file = i32::try_from(file).ok().filter(|file| *file >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the descriptor is new, and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    // SAFETY: a descriptor of ours.
    if unsafe { libc::ftruncate(file.as_raw_fd(), SECRET_BYTES_MAX as libc::off_t) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let page = mapped(libc::MAP_SHARED, file.as_raw_fd())?;
    not_inherited(page)?;
    Ok(page)
}

fn locked_page() -> io::Result<NonNull<u8>> {
    let page = mapped(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    // SAFETY: a mapping of ours.
    let locked = unsafe { libc::mlock(page.as_ptr().cast(), SECRET_BYTES_MAX) } == 0;
    if !locked {
        return Err(io::Error::last_os_error());
    }
    not_inherited(page)?;
    Ok(page)
}

/// Keeps a page out of core files and of children.
fn not_inherited(page: NonNull<u8>) -> io::Result<()> {
    for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
        // SAFETY: a mapping of ours; neither changes what this process sees.
        if unsafe { libc::madvise(page.as_ptr().cast(), SECRET_BYTES_MAX, advice) } == -1 {
            let error = io::Error::last_os_error();
            // Secret memory has both by its nature, and refuses to be told so.
            if error.raw_os_error() != Some(Errno::INVAL.raw_os_error()) {
                return Err(error);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use super::*;

    fn read_as_root(address: *const u8) -> io::Result<[u8; 16]> {
        let mut memory = std::fs::File::open("/proc/self/mem")?;
        memory.seek(SeekFrom::Start(address.addr() as u64))?;
        let mut bytes = [0; 16];
        memory.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn a_secret_is_moved_and_can_be_used() {
        let mut bytes = *b"sixteen bytes!!!";
        let secret = Secret::take(&mut bytes).unwrap();
        assert_eq!(secret.expose(), b"sixteen bytes!!!");
        assert_eq!(bytes, [0; 16], "wiped where it was");
        assert!(!format!("{secret:?}").contains("115"), "nor printed: {secret:?}");
        assert!(Secret::take(&mut [0; SECRET_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn nobody_reads_secret_memory_through_proc() {
        let mut bytes = *b"sixteen bytes!!!";
        let plain = bytes;
        assert_eq!(read_as_root(plain.as_ptr()).unwrap(), plain, "the control: ordinary memory is read");
        let secret = Secret::take(&mut bytes).unwrap();
        match secret.keeping() {
            Keeping::Secret => assert!(read_as_root(secret.expose().as_ptr()).is_err()),
            Keeping::Locked => println!("this kernel has no memfd_secret: locked memory is what there is"),
        }
    }
}
