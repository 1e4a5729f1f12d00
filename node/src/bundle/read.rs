//! Reading a bundle, and running it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use execution::memory::{Arena, Memory, PAGE_BYTES, PageVersion, WASM_PAGE_BYTES};
use execution::{
    Backend, BackendError, GlobalValue, Invocation, Limits, Module, Outcome, Principal, Snapshot,
};
use flate2::bufread::GzDecoder;
use rollout::{run_again, shown};
use sandbox_protocol::List;

use super::wire::{Extent, Gave, Head, Memories};
use super::{BundleError, HEAD_BYTES_MAX, MAGIC, PAGES_MAX, VERSION};
use crate::observation::escaped;

/// Slices of one message; a subnet gives up a message long before.
const SLICES_MAX: u64 = 100_000;
const PAGES_PER_WASM_PAGE: u64 = WASM_PAGE_BYTES / PAGE_BYTES as u64;

/// A difference as it was recorded, and what it ran on.
#[derive(Debug)]
pub struct Bundle {
    /// Version of the program that wrote it.
    pub program: String,
    /// The node that found it.
    pub node: String,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// What both runs said, made again: `DivergenceClass::as_str`.
    pub class: String,
    /// The canister.
    pub canister: Principal,
    /// Its module as it was uploaded.
    pub wasm: Vec<u8>,
    /// What ran.
    pub invocation: Invocation,
    /// In what they differed: the field, what was committed, what the candidate gave.
    pub differences: Vec<[String; 3]>,
    /// What was committed.
    pub control: Gave,
    /// What the candidate gave.
    pub candidate: Gave,
    query: bool,
    arena: Arc<Arena>,
    memory: Moment,
    overlay: Option<Moment>,
}

/// Memory of the canister.
#[derive(Clone, Debug)]
struct Moment {
    globals: Arc<[GlobalValue]>,
    heap: Memory,
    stable: Memory,
}

/// Refuses what no subnet of this program gives a message: it would run for as long as it likes.
fn within_bounds(invocation: &Invocation) -> Result<(), BundleError> {
    let limits = &invocation.limits;
    let ours = [Limits::application(), Limits::system()];
    let most = |of: fn(&Limits) -> u64| ours.iter().map(of).max().unwrap_or_default();
    let instructions = most(|limits| {
        let Limits { update_instructions, query_instructions, inspect_instructions, .. } = *limits;
        update_instructions.max(query_instructions).max(inspect_instructions).max(limits.install_instructions)
    });
    let slices = invocation.instructions_max.checked_div(invocation.slice);
    for (name, is_within) in [
        ("instructions", invocation.instructions_max <= instructions),
        ("slices", slices.is_some_and(|slices| slices <= SLICES_MAX)),
        ("stable_bytes", limits.stable_bytes <= most(|limits| limits.stable_bytes)),
        ("heap32_bytes", limits.heap32_bytes <= most(|limits| limits.heap32_bytes)),
        ("heap64_bytes", limits.heap64_bytes <= most(|limits| limits.heap64_bytes)),
    ] {
        if !is_within {
            return Err(BundleError::Unfit(format!(
                "its message has more {name} than this program gives any"
            )));
        }
    }
    Ok(())
}

pub(super) fn damaged(what: impl Into<String>) -> BundleError {
    BundleError::Damaged(what.into())
}

/// The head of a bundle, not decoded yet, and what follows it. The head is taken off `bytes_left`, and refused where
/// that is less.
pub(super) fn unpacked_head<R: Read>(
    from: R,
    bytes_left: &mut usize,
) -> Result<(Vec<u8>, GzDecoder<BufReader<R>>), BundleError> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    let mut prefix = [0; 12];
    let (magic, version) = match from.read_exact(&mut prefix) {
        Ok(()) => prefix.split_at(MAGIC.len()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(BundleError::Foreign),
        Err(error) => return Err(error.into()),
    };
    if magic != MAGIC {
        return Err(BundleError::Foreign);
    }
    let version = u32::from_le_bytes(version.try_into().expect("4 bytes"));
    if version != VERSION {
        return Err(BundleError::Version(version));
    }
    let mut packed = GzDecoder::new(from);
    let mut length = [0; 4];
    packed.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEAD_BYTES_MAX {
        return Err(damaged(format!("its head has {length} bytes")));
    }
    *bytes_left = bytes_left.checked_sub(length).ok_or_else(|| {
        BundleError::Unfit(format!("its head has {length} bytes, and no more than {bytes_left} are read"))
    })?;
    let mut head = Vec::new();
    // As much as there is, not as much as is claimed.
    (&mut packed).take(length as u64).read_to_end(&mut head)?;
    if head.len() < length {
        return Err(damaged("it ends in its head"));
    }
    Ok((head, packed))
}

pub(super) fn decoded(head: &[u8]) -> Result<Head<'_>, BundleError> {
    let (decoded, rest) =
        postcard::take_from_bytes(head).map_err(|error| damaged(format!("its head: {error}")))?;
    if rest.is_empty() { Ok(decoded) } else { Err(damaged("there is more in its head than belongs there")) }
}

impl Bundle {
    /// Reads the bundle at `path`.
    ///
    /// # Errors
    /// It can't be read, or is none.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        Self::read(File::open(path)?)
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// It can't be read, or is none.
    pub fn read(from: impl Read) -> Result<Self, BundleError> {
        let mut bytes_left = HEAD_BYTES_MAX;
        let (head, mut packed) = unpacked_head(from, &mut bytes_left)?;
        let bundle = Self::of(decoded(&head)?, &mut packed)?;
        // The end of the stream, where its checksum is.
        match packed.read(&mut [0])? {
            0 if packed.into_inner().read(&mut [0])? == 0 => Ok(bundle),
            _ => Err(damaged("there is more behind its pages")),
        }
    }

    fn of(head: Head<'_>, pages: &mut impl Read) -> Result<Self, BundleError> {
        let Head {
            program,
            node,
            time_ms,
            class,
            canister,
            wasm,
            mut invocation,
            query,
            memory,
            overlay,
            differences,
            control,
            candidate,
        } = head;
        let malformed = |error: sandbox_protocol::Malformed| damaged(error.to_string());
        let limits = invocation.limits.take().ok_or_else(|| damaged("its message has no limits"))?;
        let invocation = invocation.with_limits(Arc::new((*limits).into())).map_err(malformed)?;
        within_bounds(&invocation)?;
        let canister = Principal::try_from_slice(canister.0).map_err(|error| damaged(error.to_string()))?;
        let extents = [Some(&memory), overlay.as_ref()];
        let counts = extents.iter().flatten().flat_map(|memory| [memory.heap.pages, memory.stable.pages]);
        if counts.map(u64::from).sum::<u64>() > PAGES_MAX as u64 {
            return Err(damaged("it claims more pages than a bundle has"));
        }
        let arena = Arena::new((2 * PAGES_MAX * PAGE_BYTES) as u64)
            .map_err(|error| BundleError::Unfit(error.to_string()))?;
        let memory = Moment::read(&memory, None, &arena, pages)?;
        let overlay =
            overlay.map(|overlay| Moment::read(&overlay, Some(&memory), &arena, pages)).transpose()?;
        let text = |text: &str| escaped(text);
        let List(differences) = differences;
        Ok(Self {
            program: text(&program),
            node: text(&node),
            time_ms,
            class: text(&class),
            canister,
            wasm: wasm.0.to_vec(),
            invocation,
            differences: differences
                .iter()
                .map(|one| [&one.field, &one.control, &one.candidate].map(|part| escaped(part)))
                .collect(),
            control,
            candidate,
            query,
            arena,
            memory,
            overlay,
        })
    }

    /// Whether `module`, compiled from its bytes, can run it.
    ///
    /// # Errors
    /// Why not.
    pub fn fits(&self, module: &Module) -> Result<(), BundleError> {
        let interface = &module.interface;
        let stable_max = self.invocation.limits.stable_bytes / WASM_PAGE_BYTES;
        for Moment { globals, heap, stable } in
            [Some(&self.memory), self.overlay.as_ref()].into_iter().flatten()
        {
            let same = globals.len() == interface.globals.len()
                && globals.iter().zip(&interface.globals).all(|(here, there)| here.same_type(*there));
            if !same {
                let [here, there] = [globals.to_vec(), interface.globals.clone()].map(|all| shown(&all, 80));
                return Err(damaged(format!("its globals are {here}, its module has {there}")));
            }
            let sizes = interface.heap_pages_min..=interface.heap_pages_max;
            if !sizes.contains(&heap.wasm_pages()) {
                return Err(damaged(format!(
                    "its heap has {} pages, which its module doesn't allow",
                    heap.wasm_pages()
                )));
            }
            if stable.wasm_pages() > stable_max {
                return Err(damaged(format!("its stable memory has {} pages", stable.wasm_pages())));
            }
        }
        Ok(())
    }

    /// What it runs on, with `module` for its code.
    #[must_use]
    pub fn snapshot(&self, module: &Arc<Module>) -> Snapshot {
        self.at(&self.memory, module)
    }

    fn at(&self, moment: &Moment, module: &Arc<Module>) -> Snapshot {
        let Moment { globals, heap, stable } = moment.clone();
        let (canister, module, arena) = (self.canister, Arc::clone(module), Arc::clone(&self.arena));
        Snapshot { canister, module, arena, heap, stable, globals }
    }

    /// Runs it on `backend`.
    ///
    /// # Errors
    /// What failed around the guest.
    pub fn run(&self, backend: &dyn Backend, module: &Arc<Module>) -> Result<Outcome, BackendError> {
        let overlay = self.overlay.as_ref().map(|overlay| self.at(overlay, module));
        let query = self.query.then_some(overlay.as_ref());
        run_again(backend, &self.snapshot(module), &self.invocation, query)
    }
}

impl Moment {
    fn read(
        wire: &Memories,
        under: Option<&Self>,
        arena: &Arc<Arena>,
        from: &mut impl Read,
    ) -> Result<Self, BundleError> {
        let heap = memory(wire.heap, under.map(|under| &under.heap), arena, from)?;
        let stable = memory(wire.stable, under.map(|under| &under.stable), arena, from)?;
        Ok(Self { globals: wire.globals.0.iter().copied().map(GlobalValue::from).collect(), heap, stable })
    }
}

fn memory(
    extent: Extent,
    under: Option<&Memory>,
    arena: &Arc<Arena>,
    from: &mut impl Read,
) -> Result<Memory, BundleError> {
    let Extent { wasm_pages, pages } = extent;
    let end = wasm_pages.checked_mul(PAGES_PER_WASM_PAGE).ok_or_else(|| damaged("a memory without end"))?;
    let mut read: Vec<(u64, PageVersion)> = Vec::new();
    for _ in 0..pages {
        let (mut index, mut bytes) = ([0; 8], [0; PAGE_BYTES]);
        from.read_exact(&mut index)?;
        from.read_exact(&mut bytes)?;
        let index = u64::from_le_bytes(index);
        if index >= end || read.last().is_some_and(|(last, _)| *last >= index) {
            return Err(damaged(format!("page {index} of a memory with {end} is out of place")));
        }
        let version = arena.store(&bytes).map_err(|error| BundleError::Unfit(error.to_string()))?;
        read.push((index, version));
    }
    let zeroed = Memory::zeroed(wasm_pages);
    Ok(under.unwrap_or(&zeroed).with(wasm_pages, read))
}
