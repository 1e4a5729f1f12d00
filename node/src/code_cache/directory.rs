//! The directory on disk: who may write there, and one file at a time in it.
//!
//! Everything goes through the opened directory, so that what was checked is what is used. It is opened anew for each
//! use: a directory that is replaced, repaired or gone is noticed at the next.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use execution::memory::MemoryError;
use rustix::fs::{
    self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT,
};
use rustix::io::Errno;
use rustix::process::{Resource, geteuid, getrlimit};

use super::entry::{self, BadEntry, Key};

/// Files of the node's that are looked at.
const FILES_MAX: usize = 100_000;
/// How often a file is begun.
const ATTEMPTS_MAX: usize = 8;
/// How the name of a file ends that is kept, and of one that is still being written.
const KEPT: &str = ".code";
const INCOMING: &str = ".code.new";
/// Rights of anybody but the owner.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

/// Why the directory can't be used now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{what}: {source}")]
    Os { what: &'static str, source: io::Error },
    #[error("the directory belongs to user {owner}, and not to the node's, {own}")]
    Owner { owner: u32, own: u32 },
    #[error("others than its owner have rights in the directory (mode {mode:04o}, it has to be 0700)")]
    Mode { mode: u32 },
    #[error("more than {FILES_MAX} files of compiled code are in the directory")]
    Files,
    #[error("a module of {bytes} bytes doesn't fit into {limit} bytes ({name})")]
    TooLarge { bytes: u64, limit: u64, name: &'static str },
    #[error("every new file was taken for one that a dead writer left")]
    Taken,
    #[error("no room can be made: what is in the directory can't be removed")]
    NoRoom,
}

impl Unusable {
    pub(super) fn os<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Os { what, source: error.into() }
    }
}

/// Why a file gives no module.
#[derive(Debug, thiserror::Error)]
pub(super) enum Miss {
    #[error("there is none")]
    Absent,
    #[error(transparent)]
    Bad(#[from] BadEntry),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// There was no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// An open directory that is the node's own.
pub(super) struct Directory(OwnedFd);

/// What is in a directory under one name.
struct Listed {
    name: String,
    bytes: u64,
    /// When it was written or last read, seconds and nanoseconds.
    used: (i64, u64),
}

impl Directory {
    /// Opens it, or makes it if there is none; its parent has to be there.
    pub(super) fn open(path: &Path) -> Result<Self, Unusable> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match fs::open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                fs::mkdir(path, Mode::RWXU).map_err(Unusable::os("the directory can't be made"))?;
                fs::open(path, flags, Mode::empty())
            }
            opened => opened,
        };
        let directory = opened.map_err(Unusable::os("the directory can't be opened"))?;
        let Stat { st_uid: owner, st_mode: mode, .. } =
            fs::fstat(&directory).map_err(Unusable::os("fstat"))?;
        let own = geteuid().as_raw();
        if owner != own {
            return Err(Unusable::Owner { owner, own });
        }
        if mode & OTHERS != 0 {
            return Err(Unusable::Mode { mode: mode & 0o7777 });
        }
        Ok(Self(directory))
    }

    /// The content of a file, which is marked as used.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Miss> {
        // A pipe would make others wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(&self.0, name, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => Miss::Absent,
            // A symbolic link, a socket.
            Errno::LOOP | Errno::NXIO => BadEntry::Kind.into(),
            errno => Unusable::os("a file can't be opened")(errno).into(),
        })?;
        let bytes = admitted(&fs::fstat(&file).map_err(Unusable::os("fstat"))?)?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let kept = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        // Only the order in which files go depends on it.
        let _not_permitted = fs::futimens(&file, &Timestamps { last_access: kept, last_modification: now });
        // No more than it had; whether that is all, and right, its checksum tells.
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        let read = File::from(file).take(bytes).read_to_end(&mut content);
        read.map_err(Unusable::os("a file can't be read"))?;
        Ok(content)
    }

    /// Removes a file, or an empty directory.
    pub(super) fn remove(&self, name: &str) -> Result<(), Unusable> {
        let removed = match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR),
            removed => removed,
        };
        removed.map_err(Unusable::os("a file can't be removed"))
    }

    /// Begins a file of so many bytes, which count from now on.
    pub(super) fn begin(&self, bytes: u64) -> Result<Incoming<'_>, Unusable> {
        // Past it, the kernel ends a process with SIGXFSZ.
        if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|limit| bytes > *limit) {
            return Err(Unusable::TooLarge { bytes, limit, name: "RLIMIT_FSIZE" });
        }
        for _ in 0..ATTEMPTS_MAX {
            let incoming = self.create()?;
            if incoming.is_held()? {
                incoming.file.set_len(bytes).map_err(Unusable::os("a file can't be written"))?;
                return Ok(incoming);
            }
        }
        Err(Unusable::Taken)
    }

    fn create(&self) -> Result<Incoming<'_>, Unusable> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // Another node's process may have the same id in a namespace of its own; then its file stays what it is.
        let name = format!("{}-{}{INCOMING}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.0, &name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(Unusable::os("no file can be made"))?);
        Ok(Incoming { directory: self, name, file })
    }

    /// Makes room for `new` within `room`. What writers left behind that died goes first, then of the files whose names
    /// don't begin with `current`, then of the others, those that were used longest ago. Says how many of these went.
    pub(super) fn make_room(&self, new: Size, room: Size, current: &str) -> Result<u64, Unusable> {
        if new.bytes > room.bytes {
            return Err(Unusable::TooLarge { bytes: new.bytes, limit: room.bytes, name: "code_cache.size" });
        }
        let mut listed = self.files()?;
        listed.sort_unstable_by_key(|file| (file.name.starts_with(current), file.used));
        let mut files = listed.len().saturating_add(new.files);
        let mut bytes = listed.iter().fold(new.bytes, |sum, file| sum.saturating_add(file.bytes));
        let mut removed = 0;
        for file in listed {
            if files <= room.files && bytes <= room.bytes {
                break;
            }
            // What is being written counts, and can't go.
            if is_kept(&file.name) && self.remove(&file.name).is_ok() {
                (files, bytes, removed) = (files - 1, bytes - file.bytes, removed + 1);
            }
        }
        if files <= room.files && bytes <= room.bytes { Ok(removed) } else { Err(Unusable::NoRoom) }
    }

    /// The node's files, by their names, but for those of writers that died, which are removed. Others are left alone.
    fn files(&self) -> Result<Vec<Listed>, Unusable> {
        let unreadable = Unusable::os::<Errno>;
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.0).map_err(unreadable("the directory can't be read"))? {
            let entry = entry.map_err(unreadable("the directory can't be read"))?;
            let name = entry.file_name().to_str().unwrap_or_default();
            let is_incoming = name.ends_with(INCOMING);
            if !(is_incoming || is_kept(name)) || (is_incoming && self.remove_if_left(name)) {
                continue;
            }
            // It may have gone meanwhile.
            let Ok(stat) = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if files.len() == FILES_MAX {
                return Err(Unusable::Files);
            }
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            files.push(Listed { name: name.to_owned(), bytes, used: (stat.st_mtime, stat.st_mtime_nsec) });
        }
        Ok(files)
    }

    /// Removes the file of a writer, if that is dead.
    fn remove_if_left(&self, name: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = fs::openat(&self.0, name, flags, Mode::empty()) else { return false };
        fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && self.remove(name).is_ok()
    }
}

/// What files take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// All of them together, bytes.
    pub(super) bytes: u64,
    /// Their number.
    pub(super) files: usize,
}

/// A file that is being written. Nobody reads it before it is complete; dropping it removes it.
pub(super) struct Incoming<'a> {
    directory: &'a Directory,
    name: String,
    file: File,
}

impl Incoming<'_> {
    /// Takes its lock, which ends with the writer. False: somebody took it for left over before that.
    fn is_held(&self) -> Result<bool, Unusable> {
        match fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(false),
            locked => {
                locked.map_err(Unusable::os("a file can't be locked"))?;
                Ok(fs::fstat(&self.file).map_err(Unusable::os("fstat"))?.st_nlink > 0)
            }
        }
    }

    /// Writes it to the disk and gives it its name, in the place of what was there.
    pub(super) fn publish(mut self, content: &[u8], name: &str) -> Result<(), Unusable> {
        let written = self.file.write_all(content).and_then(|()| self.file.sync_data());
        written.map_err(Unusable::os("a file can't be written"))?;
        fs::renameat(&self.directory.0, &self.name, &self.directory.0, name)
            .map_err(Unusable::os("a file can't be renamed"))?;
        self.name.clear();
        Ok(())
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // Where it can't be removed now, it is when its writer is dead.
            let _stays = self.directory.remove(&self.name);
        }
    }
}

/// The name of the file of a key, those with one fingerprint together.
pub(super) fn name(key: &Key) -> String {
    format!("{}-{:?}{KEPT}", key.fingerprint, key.module)
}

/// Whether [`name`] gives such names.
fn is_kept(name: &str) -> bool {
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = name.strip_suffix(KEPT).and_then(|key| key.split_once('-'));
    parts.is_some_and(|(fingerprint, module)| is_hash(fingerprint) && is_hash(module))
}

/// Its length, if it is a file that only the node's user can have written.
fn admitted(stat: &Stat) -> Result<u64, BadEntry> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(BadEntry::Kind);
    }
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & OTHERS_WRITE != 0 {
        return Err(BadEntry::Rights);
    }
    u64::try_from(stat.st_size).ok().filter(|bytes| *bytes <= entry::BYTES_MAX).ok_or(BadEntry::Length)
}
