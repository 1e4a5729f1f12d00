//! Accepted policies on disk: a start with a bad file goes on with the last good one, and numbers never go back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Checksum;
use super::load::{Loaded, load};
use crate::directory::Directory;

/// Generations kept, the newest.
pub const GENERATIONS_KEPT: usize = 16;
/// Names in the directory that are looked at; a node leaves far fewer there.
const NAMES_MAX: usize = 10_000;
/// Highest number that is believed: a node would need a million reloads a second for centuries.
const NUMBER_MAX: u64 = 1 << 62;

/// The directory: a file for each generation, `NUMBER-SHA256.toml`, with the policy's bytes.
#[derive(Clone, Debug)]
pub(super) struct Generations {
    directory: PathBuf,
}

/// One of its files, by name; nothing is known of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) number: u64,
    pub(super) checksum: Checksum,
    path: PathBuf,
}

impl Generations {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What is kept, newest first. Names that are not ours are left alone.
    pub(super) fn list(&self) -> io::Result<Vec<Kept>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut kept: Vec<Kept> =
            entries.take(NAMES_MAX).filter_map(|entry| named(&entry.ok()?.path())).collect();
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.number));
        Ok(kept)
    }

    /// Writes a generation, so that it is there whole or not at all after a crash, and forgets the oldest beyond
    /// [`GENERATIONS_KEPT`].
    pub(super) fn keep(&self, number: u64, checksum: Checksum, bytes: &[u8]) -> io::Result<()> {
        let directory = Directory::make(&self.directory)?;
        directory.replace(&format!("{number:010}-{checksum}.toml"), bytes)?;
        // The newest is the one in force, so it stays.
        for old in self.list()?.into_iter().skip(GENERATIONS_KEPT) {
            fs::remove_file(&old.path)?;
        }
        Ok(())
    }
}

impl Kept {
    /// Its policy, if its bytes are those that were kept and still are a valid policy.
    pub(super) fn load(&self) -> Result<Loaded, String> {
        let loaded = load(&self.path).map_err(|error| error.to_string())?;
        if loaded.checksum != self.checksum {
            return Err(format!("{} is damaged: its checksum is another", self.path.display()));
        }
        Ok(loaded)
    }
}

fn named(path: &Path) -> Option<Kept> {
    let (number, checksum) = path.file_name()?.to_str()?.strip_suffix(".toml")?.split_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| number.parse().ok())??;
    let checksum = Checksum::from_hex(checksum)?;
    (number <= NUMBER_MAX).then(|| Kept { number, checksum, path: path.to_owned() })
}
