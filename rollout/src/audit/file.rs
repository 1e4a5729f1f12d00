//! The log that a node writes.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::chain::{Chain, walk};
use super::{Broken, Entry, LINE_BYTES_MAX, LineHash, VerifyError};

/// Permission to write for others than the owner.
const OTHERS_WRITE: u32 = 0o022;

/// Why the log can't be read or appended to. Whoever tells it names the file.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The kernel refused.
    #[error("could not {what} the audit log: {error}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        error: io::Error,
    },
    /// It is a symbolic link, a directory, a pipe, a device.
    #[error("the audit log is no regular file")]
    NoFile,
    /// Others than its owner may write it.
    #[error("others than its owner may write the audit log (mode {mode:03o}); take that away: chmod go-w")]
    Writable {
        /// Its permissions.
        mode: u32,
    },
    /// Its chain is broken; nothing is appended to it and nothing of it is changed.
    #[error(
        "the chain of the audit log is broken: {0}. Keep the file as evidence; a new log starts once it is moved while \
         the node is stopped"
    )]
    Broken(#[from] Broken),
    /// There is no line of an audit log where one has to be.
    #[error("there is no line of an audit log at byte {offset}: `bulkhead audit verify` tells what is wrong")]
    Illegible {
        /// The place.
        offset: u64,
    },
    /// The entry would make it larger than it may become.
    #[error(
        "the audit log is full: it has {bytes} bytes, and {bytes_max} are allowed. Keep the file; a new log starts \
         once it is moved while the node is stopped"
    )]
    Full {
        /// Its length.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The process may not make files as long.
    #[error(
        "the audit log would have {bytes} bytes, and the process may make files of {limit} (RLIMIT_FSIZE)"
    )]
    FileLimit {
        /// The length that it would have.
        bytes: u64,
        /// The process's limit.
        limit: u64,
    },
    /// It is not as this process left it.
    #[error("another program writes the audit log: it has {found} bytes, and this node left it with {left}")]
    Changed {
        /// Its length.
        found: u64,
        /// The length that this process left.
        left: u64,
    },
    /// Its path leads to another file, or to none.
    #[error("the audit log was moved or removed while the node runs; put it back, or start the node again")]
    Moved,
}

impl AuditError {
    pub(super) fn os(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Os { what, error }
    }
}

impl From<VerifyError> for AuditError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Read(error) => Self::Os { what: "read", error },
            VerifyError::Broken(broken) => Self::Broken(broken),
        }
    }
}

/// The log, open to be appended to. One at a time: whoever opens it has locked its directory.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    last: Chain,
    /// Length of the lines that are whole and on the disk.
    bytes: u64,
    bytes_max: u64,
    /// Whether something may stand behind them that a failed write left.
    leftover: bool,
}

/// What [`Audit::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// How many entries there are.
    pub entries: u64,
    /// Bytes of a last line without its end, which a killed process left and which were cut off.
    pub torn: Option<usize>,
}

/// An entry that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number, from one.
    pub seq: u64,
    /// Its line's hash.
    pub hash: LineHash,
}

impl Audit {
    /// Opens the log at `path`, or makes it for this user alone (its directory has to be there), and checks its whole
    /// chain. It grows up to `bytes_max`, usually [`AUDIT_BYTES_MAX`](super::AUDIT_BYTES_MAX).
    ///
    /// # Errors
    /// The kernel refuses; it is no regular file, or others may write it; its chain is broken: then it is left as it is.
    pub fn open(path: &Path, bytes_max: u64) -> Result<(Self, Opened), AuditError> {
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = open(path, flags, Mode::RUSR | Mode::WUSR)?;
        let metadata = file.metadata().map_err(AuditError::os("open"))?;
        if metadata.mode() & OTHERS_WRITE != 0 {
            return Err(AuditError::Writable { mode: metadata.mode() & 0o777 });
        }
        let walked = walk(BufReader::new(&file), |_| ())?;
        if walked.torn > 0 {
            file.set_len(walked.bytes).map_err(AuditError::os("cut a torn line off"))?;
        }
        // A process that was killed may have left the last whole line to the kernel alone.
        file.sync_data().map_err(AuditError::os("sync"))?;
        if walked.bytes == 0 {
            // Its name has to last as long as what will be in it.
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = File::open(directory.unwrap_or(Path::new(".")));
            directory.and_then(|directory| directory.sync_all()).map_err(AuditError::os("make"))?;
        }
        let opened = Opened { entries: walked.chain.seq, torn: Some(walked.torn).filter(|&bytes| bytes > 0) };
        let audit = Self {
            path: path.to_owned(),
            file,
            last: walked.chain,
            bytes: walked.bytes,
            bytes_max,
            leftover: false,
        };
        Ok((audit, opened))
    }

    /// The number of the last entry; zero: there is none.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.last.seq
    }

    /// The hash of the last entry; [`LineHash::START`]: there is none.
    #[must_use]
    pub fn hash(&self) -> LineHash {
        self.last.hash
    }

    /// The log's length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends an entry, which is on the disk when this returns.
    ///
    /// # Errors
    /// It is not in the log then, and the next call tries anew. The log would become too large; the kernel refuses, e.g.
    /// because the disk is full; somebody else changed the file or put another in its place.
    pub fn append(&mut self, entry: Entry) -> Result<Written, AuditError> {
        self.check_place()?;
        let (mut line, hash) = self.last.next(entry);
        line.push('\n');
        debug_assert!(line.len() <= LINE_BYTES_MAX, "its texts are bounded");
        let bytes = self.bytes + line.len() as u64;
        if bytes > self.bytes_max {
            return Err(AuditError::Full { bytes: self.bytes, bytes_max: self.bytes_max });
        }
        // Past it, the kernel ends a process with SIGXFSZ.
        if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|limit| bytes > *limit) {
            return Err(AuditError::FileLimit { bytes, limit });
        }
        let written = self.file.write_all_at(line.as_bytes(), self.bytes);
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            self.leftover = true;
            // Tried again before the next entry, which is refused while it fails.
            let _ = self.cut_leftover();
            return Err(AuditError::Os { what: "write", error });
        }
        self.bytes = bytes;
        self.last = Chain { seq: self.last.seq + 1, hash };
        Ok(Written { seq: self.last.seq, hash })
    }

    /// That the file is the one that readers find, and ends where this process left it.
    fn check_place(&mut self) -> Result<(), AuditError> {
        let look = AuditError::os("look at");
        let own = self.file.metadata().map_err(look)?;
        let there = match std::fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AuditError::Moved),
            there => there.map_err(AuditError::os("look at"))?,
        };
        if (own.dev(), own.ino()) != (there.dev(), there.ino()) {
            return Err(AuditError::Moved);
        }
        if self.leftover {
            return self.cut_leftover().map_err(AuditError::os("cut a failed write off"));
        }
        match own.len() {
            found if found != self.bytes => Err(AuditError::Changed { found, left: self.bytes }),
            _ => Ok(()),
        }
    }

    fn cut_leftover(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.leftover = false;
        Ok(())
    }
}

/// Opens a regular file that `path` itself names.
pub(super) fn open(path: &Path, flags: OFlags, mode: Mode) -> Result<File, AuditError> {
    // A pipe would make us wait.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, mode) {
        Ok(file) => File::from(file),
        // A symbolic link, a directory, a socket.
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(AuditError::NoFile),
        Err(errno) => return Err(AuditError::Os { what: "open", error: errno.into() }),
    };
    let metadata = file.metadata().map_err(AuditError::os("open"))?;
    if metadata.is_file() { Ok(file) } else { Err(AuditError::NoFile) }
}
