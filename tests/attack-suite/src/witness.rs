//! What attacks are aimed at, and what shows from outside whether they hit.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hostile::{Order, words};
use rustix::fs::MemfdFlags;
use tempfile::TempDir;

use crate::stage::{Hostile, Said, Setting, Stage};

/// 32 bytes that nobody else has.
///
/// # Panics
/// If the kernel has no random numbers.
#[must_use]
pub fn secret() -> [u8; 32] {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).expect("random numbers");
    bytes
}

/// Bytes of a path, with the zero that ends it.
#[must_use]
pub fn c_path(path: &std::path::Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_encoded_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// A file of the node's, in a directory of its own, that nobody else may read.
#[derive(Debug)]
pub struct SecretFile {
    place: TempDir,
    /// Its content.
    pub secret: [u8; 32],
}

impl SecretFile {
    /// Makes one.
    ///
    /// # Panics
    /// If there is no room for temporary files.
    #[must_use]
    pub fn new() -> Self {
        let file = Self { place: tempfile::tempdir().expect("room for temporary files"), secret: secret() };
        fs::write(file.path(), file.secret).expect("room for temporary files");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).expect("it is ours");
        file
    }

    /// Whether a worker has read it.
    #[must_use]
    pub fn was_read(&self, said: &Said) -> bool {
        read(said, &self.secret)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.path().join("secret")
    }
}

impl Default for SecretFile {
    fn default() -> Self {
        Self::new()
    }
}

/// A process that is attacked: it stands for the node, or is another canister's worker. It holds a secret.
#[derive(Debug)]
pub struct Victim {
    /// The process.
    pub worker: Hostile,
    /// What it holds.
    pub secret: [u8; 32],
    /// Where it holds it.
    pub address: u64,
}

impl Victim {
    /// A process of the node's user, without any layer: the node.
    ///
    /// # Panics
    /// If it doesn't start.
    #[must_use]
    pub fn node(stage: &Stage) -> Self {
        Self::of(stage, Setting::OPEN)
    }

    /// The worker of another canister.
    ///
    /// # Panics
    /// If it doesn't start.
    #[must_use]
    pub fn sibling(stage: &Stage) -> Self {
        Self::of(stage, Setting::RUN)
    }

    /// A worker started as `setting` says.
    ///
    /// # Panics
    /// If it doesn't start.
    #[must_use]
    pub fn of(stage: &Stage, setting: Setting) -> Self {
        let mut worker = stage.worker(setting).expect("a victim starts");
        let secret = secret();
        let mut numbers = words(&secret);
        let numbers = std::array::from_fn(|_| numbers.next().unwrap_or(0));
        let Said::Done { results, .. } = worker.ask(&Order::routine("hold", numbers), &[]) else {
            panic!("a victim takes its secret")
        };
        Self { worker, secret, address: results[0] }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.worker.pid() as u64
    }

    /// Whether a worker has read what it holds.
    #[must_use]
    pub fn was_read(&self, said: &Said) -> bool {
        read(said, &self.secret)
    }

    /// The same of a worker that says what it read as numbers.
    #[must_use]
    pub fn was_copied(&self, said: &Said) -> bool {
        matches!(said, Said::Done { results, .. } if words(&self.secret).eq(results.iter().copied()))
    }

    /// Whether it is dead, or what it holds is no longer its secret.
    pub fn harmed(&mut self) -> bool {
        match self.worker.ask(&Order::routine("held", [0; 4]), &[]) {
            Said::Done { results, .. } => !words(&self.secret).eq(results),
            _ => true,
        }
    }
}

/// A memory file with `bytes` in it, which nothing seals.
///
/// # Panics
/// If the kernel has none to give.
#[must_use]
pub fn memory_file(bytes: &[u8]) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("attacked", flags).expect("memory files");
    let mut file = fs::File::from(file);
    file.write_all(bytes).expect("memory for a page");
    file.into()
}

/// A line of a process's `/proc/PID/status`.
#[must_use]
pub fn status(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or("").trim().to_owned()
}

/// Children of a process, dead ones that nobody waited for too.
#[must_use]
pub fn children(pid: i32) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().count()
}

/// A namespace of a process.
#[must_use]
pub fn namespace(pid: i32, name: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()
}

/// Whether what a worker read begins with `bytes`.
#[must_use]
pub fn read(said: &Said, bytes: &[u8]) -> bool {
    matches!(said, Said::Done { buffer, .. } if buffer.starts_with(bytes))
}

/// The first number that a worker found.
#[must_use]
pub fn found(said: &Said) -> Option<u64> {
    match said {
        Said::Done { results, .. } => results.first().copied(),
        _ => None,
    }
}

/// Whether the kernel took the call and answered, be it with an error.
#[must_use]
pub fn answered(said: &Said) -> bool {
    matches!(said, Said::Done { .. } | Said::Refused(_))
}
