//! Memory on the wire: which slots pages come from, and where pages that were written lie.

use execution::GlobalValue;
use serde::{Deserialize, Serialize};

use crate::{GLOBALS_MAX, List, Malformed};

/// Most pages of 4 KiB that one list may name: 16 GiB, above every replicated limit on written or stored pages.
pub const PAGES_MAX: usize = 4 << 20;

/// The value of a mutable global.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Global {
    /// i32
    I32(i32),
    /// i64
    I64(i64),
    /// f32 bits
    F32(u32),
    /// f64 bits
    F64(u64),
    /// v128
    V128(u128),
}

impl From<GlobalValue> for Global {
    fn from(value: GlobalValue) -> Self {
        match value {
            GlobalValue::I32(value) => Self::I32(value),
            GlobalValue::I64(value) => Self::I64(value),
            GlobalValue::F32(bits) => Self::F32(bits),
            GlobalValue::F64(bits) => Self::F64(bits),
            GlobalValue::V128(value) => Self::V128(value),
        }
    }
}

impl From<Global> for GlobalValue {
    fn from(value: Global) -> Self {
        match value {
            Global::I32(value) => Self::I32(value),
            Global::I64(value) => Self::I64(value),
            Global::F32(bits) => Self::F32(bits),
            Global::F64(bits) => Self::F64(bits),
            Global::V128(value) => Self::V128(value),
        }
    }
}

/// Globals for the wire.
#[must_use]
pub fn globals(values: &[GlobalValue]) -> List<Global, GLOBALS_MAX> {
    values.iter().map(|&value| Global::from(value)).collect()
}

/// What makes a worker's memory equal to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Heap size in 64 KiB pages.
    pub heap_pages: u64,
    /// Stable memory size in 64 KiB pages.
    pub stable_pages: u64,
    /// All mutable globals, in index order.
    pub globals: List<Global, GLOBALS_MAX>,
    /// Heap pages that differ from what the worker was last brought to, and all that it wrote since.
    pub heap: List<PageRun, PAGES_MAX>,
    /// The same for stable memory.
    pub stable: List<PageRun, PAGES_MAX>,
}

/// Consecutive pages in consecutive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRun {
    /// Index of the first 4 KiB page.
    pub page: u64,
    /// Number of pages.
    pub count: u32,
    /// Slot of the first; `None`: all are zero.
    pub slot: Option<u32>,
    /// Whether the worker wrote these contents itself, in its last run.
    pub known: bool,
}

/// One page of a [`PageRun`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageState {
    /// Index of the 4 KiB page.
    pub page: u64,
    /// Its slot; `None`: all zero.
    pub slot: Option<u32>,
    /// Whether the worker has this content, because it wrote it.
    pub known: bool,
}

/// Joins pages, given by ascending index, into runs.
pub fn page_runs(pages: impl IntoIterator<Item = PageState>) -> List<PageRun, PAGES_MAX> {
    let mut runs: Vec<PageRun> = Vec::new();
    for PageState { page, slot, known } in pages {
        if let Some(last) = runs.last_mut()
            && last.known == known
            && last.page.checked_add(last.count.into()) == Some(page)
            && slot == last.slot.and_then(|first| first.checked_add(last.count))
            && slot.is_some() == last.slot.is_some()
            && last.count < u32::MAX
        {
            last.count += 1;
            continue;
        }
        runs.push(PageRun { page, count: 1, slot, known });
    }
    List(runs)
}

/// The pages of runs, in their order.
///
/// # Errors
/// When there are more than [`PAGES_MAX`], or an index or slot passes the largest number.
pub fn pages(runs: &[PageRun]) -> Result<Vec<PageState>, Malformed> {
    let mut total = 0_usize;
    for run in runs {
        total = total.saturating_add(run.count as usize);
        let last_page = run.page.checked_add(run.count.into());
        let last_slot = run.slot.map_or(Some(0), |slot| slot.checked_add(run.count));
        if total > PAGES_MAX || last_page.is_none() || last_slot.is_none() {
            return Err(Malformed("page runs out of range"));
        }
    }
    Ok(runs
        .iter()
        .flat_map(|run| {
            (0..run.count).map(|at| PageState {
                page: run.page + u64::from(at),
                slot: run.slot.map(|slot| slot + at),
                known: run.known,
            })
        })
        .collect())
}

/// Consecutive pages that a run wrote, at consecutive addresses of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirtyRun {
    /// Index of the first 4 KiB page.
    pub page: u64,
    /// Number of pages.
    pub count: u32,
    /// Address of the first, in the worker.
    pub address: u64,
}

/// Joins written pages (index, address), given by ascending index, into runs.
pub fn dirty_runs(pages: impl IntoIterator<Item = (u64, u64)>) -> List<DirtyRun, PAGES_MAX> {
    const PAGE: u64 = execution::memory::PAGE_BYTES as u64;
    let mut runs: Vec<DirtyRun> = Vec::new();
    for (page, address) in pages {
        if let Some(last) = runs.last_mut()
            && last.count < u32::MAX
            && last.page.checked_add(last.count.into()) == Some(page)
            && last.address.checked_add(PAGE * u64::from(last.count)) == Some(address)
        {
            last.count += 1;
            continue;
        }
        runs.push(DirtyRun { page, count: 1, address });
    }
    List(runs)
}

/// Written pages as a worker claims them, checked for form: ascending, unique, below an end, not too many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirtyPages {
    /// Page indices, ascending.
    pub pages: Vec<u64>,
    /// The address of each in the worker. Nothing is known of these but that they don't wrap.
    pub addresses: Vec<u64>,
}

impl DirtyPages {
    /// Takes a claim of at most `count_max` pages, all below page index `end`. Nothing is allocated for a claim
    /// that is too large.
    ///
    /// # Errors
    /// What no correct worker claims.
    pub fn checked(runs: &[DirtyRun], end: u64, count_max: u64) -> Result<Self, Malformed> {
        const PAGE: u64 = execution::memory::PAGE_BYTES as u64;
        let mut next = 0_u64;
        let mut total = 0_u64;
        for run in runs {
            let count = u64::from(run.count);
            if run.page < next || count == 0 {
                return Err(Malformed("written pages out of order"));
            }
            next = run.page.checked_add(count).ok_or(Malformed("written pages out of range"))?;
            if next > end {
                return Err(Malformed("written pages outside of the memory"));
            }
            total = total.saturating_add(count);
            if total > count_max.min(PAGES_MAX as u64) {
                return Err(Malformed("more written pages than were counted"));
            }
            let bytes = count.saturating_mul(PAGE);
            run.address.checked_add(bytes).ok_or(Malformed("addresses of written pages out of range"))?;
        }
        let each = || {
            runs.iter().flat_map(|run| {
                (0..u64::from(run.count)).map(move |at| (run.page + at, run.address + at * PAGE))
            })
        };
        Ok(Self {
            pages: each().map(|page| page.0).collect(),
            addresses: each().map(|page| page.1).collect(),
        })
    }
}
