//! A directory on disk: files that are there whole or not at all, whenever the machine stops.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Names in a directory that are looked at; a node leaves far fewer in any.
const NAMES_MAX: usize = 10_000;
/// What a file is called while it is written. One writer at a time: the next one takes the place of what a dead
/// one left.
const INCOMING: &str = "+new";

/// An open directory.
pub(crate) struct Directory(OwnedFd);

/// What is in a directory under one name.
pub(crate) struct Listed {
    /// Never that of a file that is being written.
    pub(crate) name: String,
    /// When it was written, seconds and nanoseconds.
    pub(crate) written: (i64, u64),
}

impl Directory {
    /// Opens it. Its path is an operator's, and may be a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens it, or makes it, with those above it, for this user alone.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        if path.try_exists()? {
            return Self::open(path);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let made = Self::open(path)?;
        let above =
            fs::openat(&made.0, "..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        fs::fsync(above)?;
        Ok(made)
    }

    /// Opens a directory in it.
    pub(crate) fn inner(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Opens a directory in it, or makes it for this user alone.
    pub(crate) fn make_inner(&self, name: &str) -> io::Result<Self> {
        match fs::mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) => fs::fsync(&self.0)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.inner(name)
    }

    /// Whether there is anything under this name.
    pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The content of a file. Of one that is longer than `bytes_max`, so much and one byte more.
    pub(crate) fn read(&self, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
        // A pipe would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(&self.0, name, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::LOOP => io::Error::other("it is a symbolic link"),
            errno => errno.into(),
        })?;
        if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        let mut content = Vec::new();
        File::from(file).take(bytes_max as u64 + 1).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Gives a file this content. After a crash, and after an error, it is there with the old content or with
    /// the new.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.remove_incoming()?;
        let written = self.write_incoming(content);
        if let Err(error) = written.and_then(|()| Ok(fs::renameat(&self.0, INCOMING, &self.0, name)?)) {
            // A full disk has room again. Where it can't be removed, the next one tries.
            let _stays = self.remove_incoming();
            return Err(error);
        }
        Ok(fs::fsync(&self.0)?)
    }

    fn write_incoming(&self, content: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.0, INCOMING, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(content)?;
        file.sync_all()
    }

    /// Removes what a writer left that died.
    pub(crate) fn remove_incoming(&self) -> io::Result<()> {
        self.remove(INCOMING)
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// All names in it, in no order. Bytes that aren't UTF-8 are shown as such.
    pub(crate) fn list(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if [".", "..", INCOMING].contains(&name.as_str()) {
                continue;
            }
            if listed.len() == NAMES_MAX {
                return Err(io::Error::other(format!("more than {NAMES_MAX} names are in it")));
            }
            // It may have gone meanwhile; a name that can't be shown exactly has no time.
            let written = fs::statat(&self.0, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
                .map_or((0, 0), |stat| (stat.st_mtime, stat.st_mtime_nsec));
            listed.push(Listed { name, written });
        }
        Ok(listed)
    }
}
