//! The directory that a node writes bundles into.

use std::fs::DirBuilder;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use execution::Snapshot;
use execution::memory::{Memory, PAGE_BYTES, PageVersion};
use flate2::Compression;
use flate2::write::GzEncoder;
use rollout::Reproducer;
use sandbox_protocol::{Bytes, Invocation};
use sha2::{Digest, Sha256};

use super::wire::{Different, Gave, Head, Memories};
use super::{HEAD_BYTES_MAX, MAGIC, PAGES_MAX, SUFFIX, VERSION, earlier};
use crate::modules::{Modules, remove_leftovers};

/// Bundles in one directory.
const BUNDLES_MAX: usize = 200;
/// All of them together, bytes. The last one may pass it.
const BYTES_MAX: u64 = 2 << 30;

/// A directory of bundles: one for each way in which the modes differed, the first. Nodes may share one.
#[derive(Debug)]
pub(crate) struct Bundles {
    directory: PathBuf,
    node: String,
    modules: Arc<Modules>,
    /// So that this node counts what is there before it writes.
    writing: Mutex<()>,
}

impl Bundles {
    /// Those in `directory`, which is made with the first. What a killed process left of another is removed.
    pub(crate) fn new(directory: PathBuf, node: &str, modules: Arc<Modules>) -> Self {
        remove_leftovers(&directory);
        Self { directory, node: node.to_owned(), modules, writing: Mutex::new(()) }
    }

    /// Keeps what is needed to see a difference again, unless one like it is kept already. Gives its path.
    ///
    /// # Errors
    /// Why it can't be kept, for people.
    pub(crate) fn keep(&self, reproducer: &Reproducer<'_>) -> Result<String, String> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.join(format!("{}{SUFFIX}", name(reproducer)));
        let mut bytes_left = HEAD_BYTES_MAX;
        // One that can't be read any more is made anew: nothing is seen again from it.
        if path.exists() && earlier::read(&path, &mut bytes_left).is_ok() {
            return Ok(path.display().to_string());
        }
        let pages = Pages::of(reproducer)?;
        self.make_room()?;
        let hash = reproducer.snapshot.module.hash;
        let wasm = self.modules.read(hash).map_err(|error| format!("its module: {error}"))?;
        self.write(&path, reproducer, &pages, &wasm)
            .map_err(|error| format!("could not write {}: {error}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn make_room(&self) -> Result<(), String> {
        let directory = self.directory.display();
        let counted = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            let mut found = (0, 0);
            for entry in std::fs::read_dir(&self.directory)? {
                found = (found.0 + 1, found.1 + entry?.metadata()?.len());
            }
            io::Result::Ok(found)
        };
        let (count, bytes) =
            counted().map_err(|error| format!("could not look into {directory}: {error}"))?;
        if count >= BUNDLES_MAX || bytes >= BYTES_MAX {
            return Err(format!(
                "{directory} is full: it has {count} files with {bytes} bytes, of {BUNDLES_MAX} and {BYTES_MAX}"
            ));
        }
        Ok(())
    }

    fn write(
        &self,
        path: &Path,
        reproducer: &Reproducer<'_>,
        pages: &Pages<'_>,
        wasm: &[u8],
    ) -> io::Result<()> {
        let Reproducer { snapshot, invocation, query, control, candidate, differences, class } = *reproducer;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let head = Head {
            program: env!("CARGO_PKG_VERSION").into(),
            node: self.node.as_str().into(),
            time_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            class: class.as_str().into(),
            canister: Bytes(snapshot.canister.as_slice()),
            wasm: Bytes(wasm),
            invocation: Invocation::new(invocation, Some(&invocation.limits)),
            query: query.is_some(),
            memory: Memories::of(snapshot, pages.counts(0)),
            overlay: query.flatten().map(|overlay| Memories::of(overlay, pages.counts(2))),
            differences: differences.iter().map(Different::from).collect(),
            control: Gave::of(control),
            candidate: Gave::of(candidate),
        };
        let head = postcard::to_stdvec(&head).map_err(io::Error::other)?;
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other(format!("its module and message have {} bytes", head.len())));
        }
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        let mut out = BufWriter::new(&mut file);
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        let mut packed = GzEncoder::new(out, Compression::fast());
        packed.write_all(&length.to_le_bytes())?;
        packed.write_all(&head)?;
        for (index, bytes) in pages.0.iter().flatten() {
            packed.write_all(&index.to_le_bytes())?;
            packed.write_all(&bytes[..])?;
        }
        packed.finish()?.flush()?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

/// What two differences that are the same have in common: module, entry point, fields and class.
fn name(reproducer: &Reproducer<'_>) -> String {
    let Reproducer { snapshot, invocation, differences, class, .. } = *reproducer;
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(&snapshot.module.hash.0);
    part(snapshot.canister.as_slice());
    part(invocation.entry.kind().as_bytes());
    part(invocation.entry.method().unwrap_or_default().as_bytes());
    part(class.as_str().as_bytes());
    differences.iter().for_each(|difference| part(difference.field.as_str().as_bytes()));
    hex::encode(&hasher.finalize()[..8])
}

type Page<'a> = (u64, &'a [u8; PAGE_BYTES]);

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The pages of heap and stable memory, then of the overlay's.
struct Pages<'a>([Vec<Page<'a>>; 4]);

impl<'a> Pages<'a> {
    fn of(reproducer: &Reproducer<'a>) -> Result<Self, String> {
        let Reproducer { snapshot, query, .. } = *reproducer;
        let overlay = query.flatten();
        let memories = |snapshot: &'a Snapshot| [&snapshot.heap, &snapshot.stable];
        let stored: usize = [Some(snapshot), overlay]
            .into_iter()
            .flatten()
            .flat_map(memories)
            .map(Memory::pages_stored)
            .sum();
        if stored > 2 * PAGES_MAX {
            return Err(too_many(stored));
        }
        let whole = |memory: &'a Memory| {
            memory.pages().map(|(index, version)| (index, version.bytes())).collect::<Vec<_>>()
        };
        let [heap, stable] = memories(snapshot).map(whole);
        let [over_heap, over_stable] = match overlay {
            None => [Vec::new(), Vec::new()],
            Some(overlay) => {
                let [heap, stable] = memories(overlay);
                [changed(heap, &snapshot.heap), changed(stable, &snapshot.stable)]
            }
        };
        let pages = Self([heap, stable, over_heap, over_stable]);
        let count = pages.0.iter().map(Vec::len).sum();
        if count > PAGES_MAX { Err(too_many(count)) } else { Ok(pages) }
    }

    /// How many there are of the two memories from `first` on.
    fn counts(&self, first: usize) -> [usize; 2] {
        [self.0[first].len(), self.0[first + 1].len()]
    }
}

/// What makes `memory` out of `under`.
fn changed<'a>(memory: &'a Memory, under: &Memory) -> Vec<Page<'a>> {
    let page = |index: u64| memory.page(index).map_or(&ZEROS, PageVersion::bytes);
    memory.changes_since(under).iter().map(|change| (change.page, page(change.page))).collect()
}

fn too_many(count: usize) -> String {
    format!("its canister has {count} pages of 4 KiB in use; a bundle holds {PAGES_MAX}")
}
