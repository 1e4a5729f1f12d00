//! The bundles that are there when a node starts: what was found before, by their heads.
//!
//! The directory is the node's own, and what is in it is read as a stranger's all the same. So many files are looked at,
//! and of all their heads so many bytes are unpacked. What can't be read is left out and named.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use execution::{EntryPoint, Principal};
use rollout::{Divergence, DivergenceClass};
use rustix::fs::OFlags;

use super::read::{damaged, decoded, unpacked_head};
use super::wire::Head;
use super::{BundleError, HEAD_BYTES_MAX, SUFFIX};
use crate::observation::escaped;

/// Bundles that are looked at: some more than nodes that share a directory leave in it.
const LOOKED_AT_MAX: usize = 256;
/// Names that are looked through for them.
const NAMES_MAX: usize = 10_000;
/// All their heads together, bytes: modules, most of it. A start waits for this, about two seconds at the most.
const HEADS_BYTES_MAX: usize = 512 << 20;
/// Bytes of a file that are read before its head has to be whole. What is packed well is shorter than what it holds.
const PACKED_BYTES_MAX: u64 = HEAD_BYTES_MAX as u64 + (64 << 10);
/// Longest text that is kept of a head, characters: as long as a node writes them.
const TEXT_CHARS_MAX: usize = 256;
/// 31 December 9999: later than any clock says.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// What differences of the same kind have in common; of each kind there is one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) class: DivergenceClass,
    pub(crate) canister: Principal,
    pub(crate) kind: &'static str,
    pub(crate) method: Option<String>,
    pub(crate) field: String,
}

impl Kind {
    pub(crate) fn of(divergence: &Divergence) -> Self {
        let Divergence { canister, invocation: _, kind, method, difference, class } = divergence;
        Self {
            class: *class,
            canister: *canister,
            kind,
            method: method.as_deref().map(text),
            field: difference.field.as_str().to_owned(),
        }
    }
}

/// A difference of some kind, as its bundle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// The node that found it.
    pub(crate) node: String,
    /// When, milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// `Invocation::id`.
    pub(crate) invocation: u64,
    /// The value in-process.
    pub(crate) control: String,
    /// The value in the sandbox.
    pub(crate) candidate: String,
    /// Where it is kept.
    pub(crate) bundle: String,
}

/// What was found before.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// The first difference of each kind.
    pub(crate) kinds: BTreeMap<Kind, Earlier>,
    /// What could not be read, each with why.
    pub(crate) unread: Vec<String>,
}

impl Before {
    /// What is in `directory`. A start goes on whatever is there, or not.
    pub(crate) fn look(directory: &Path) -> Self {
        let mut before = Self::default();
        let paths = match paths(directory) {
            Ok(paths) => paths,
            // It is made with the first difference.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                before.leave_out(directory, &error);
                Vec::new()
            }
        };
        let mut bytes_left = HEADS_BYTES_MAX;
        for path in paths.iter().take(LOOKED_AT_MAX) {
            let found = if is_ours(path) { read(path, &mut bytes_left) } else { Err(BundleError::Foreign) };
            match found {
                Ok(found) => found.into_iter().for_each(|(kind, earlier)| before.add(kind, earlier)),
                Err(error) => before.leave_out(path, &error),
            }
        }
        if let Some(more) = paths.len().checked_sub(LOOKED_AT_MAX).filter(|more| *more > 0) {
            let why = format!("{more} more files are in it, beyond {LOOKED_AT_MAX}");
            before.leave_out(directory, &why);
        }
        before
    }

    fn add(&mut self, kind: Kind, earlier: Earlier) {
        match self.kinds.entry(kind) {
            Entry::Vacant(vacant) => _ = vacant.insert(earlier),
            // Of another module of the same canister.
            Entry::Occupied(mut first) if earlier.time_ms < first.get().time_ms => _ = first.insert(earlier),
            Entry::Occupied(_) => {}
        }
    }

    fn leave_out(&mut self, path: &Path, why: &dyn std::fmt::Display) {
        let said = format!("{}: {why}", escaped(&path.display().to_string()));
        tracing::warn!("what was found before this start is not all listed: {said}");
        self.unread.push(said);
    }
}

/// Whether a node may have named it so: paths are shown to be copied into a command line.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// The bundles in a directory, in the order of their names.
fn paths(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)?.take(NAMES_MAX) {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The differences that a bundle was made of, by its head, which is taken off `bytes_left`.
pub(super) fn read(path: &Path, bytes_left: &mut usize) -> Result<Vec<(Kind, Earlier)>, BundleError> {
    // A pipe would be waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(BundleError::Foreign);
    }
    let (head, _pages) = unpacked_head(file.take(PACKED_BYTES_MAX), bytes_left)?;
    let Head { node, time_ms, class, canister, invocation, differences, .. } = decoded(&head)?;
    let class = DivergenceClass::ALL.into_iter().find(|known| known.as_str() == class);
    let class = class.ok_or_else(|| damaged("there is no such class of differences"))?;
    let canister = Principal::try_from_slice(canister.0).map_err(|error| damaged(error.to_string()))?;
    if time_ms > TIME_MS_MAX {
        return Err(damaged("no clock says its time"));
    }
    if differences.0.is_empty() {
        return Err(damaged("it has no difference"));
    }
    let (id, entry) = (invocation.id, EntryPoint::from(invocation.entry));
    let kinds = differences.0.iter().map(|different| {
        let kind = Kind {
            class,
            canister,
            kind: entry.kind(),
            method: entry.method().map(text),
            field: text(&different.field),
        };
        let earlier = Earlier {
            node: text(&node),
            time_ms,
            invocation: id,
            control: text(&different.control),
            candidate: text(&different.candidate),
            bundle: path.display().to_string(),
        };
        (kind, earlier)
    });
    Ok(kinds.collect())
}

fn text(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
