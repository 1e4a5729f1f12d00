//! Memory on the wire: which slots pages come from, and where pages that were written lie.

use execution::GlobalValue;
use execution::memory::PageUpdate;
use serde::{Deserialize, Serialize};

use crate::{GLOBALS_MAX, List, Malformed};

/// Most runs of pages in one list, and most written pages of 4 KiB: 16 GiB, above every replicated limit on
/// what a message writes.
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
    /// Heap pages that differ from what the worker was last brought to, and all that it wrote since; ascending.
    pub heap: List<PageRun, PAGES_MAX>,
    /// The same for stable memory.
    pub stable: List<PageRun, PAGES_MAX>,
}

/// A [`PageUpdate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the domain type")]
pub struct PageRun {
    pub page: u64,
    pub count: u32,
    pub slot: Option<u32>,
    pub known: bool,
}

impl From<PageUpdate> for PageRun {
    fn from(PageUpdate { page, count, slot, known }: PageUpdate) -> Self {
        Self { page, count, slot, known }
    }
}

/// Updates for the wire.
#[must_use]
pub fn page_runs(updates: Vec<PageUpdate>) -> List<PageRun, PAGES_MAX> {
    updates.into_iter().map(PageRun::from).collect()
}

/// The updates of runs.
///
/// # Errors
/// When an index or a slot passes the largest number.
pub fn page_updates(runs: &[PageRun]) -> Result<Vec<PageUpdate>, Malformed> {
    let update = |&PageRun { page, count, slot, known }: &PageRun| {
        let last_slot = slot.map_or(Some(0), |slot| slot.checked_add(count));
        let update = PageUpdate { page, count, slot, known };
        match update.end().and(last_slot) {
            Some(_) => Ok(update),
            None => Err(Malformed("page runs out of range")),
        }
    };
    runs.iter().map(update).collect()
}

/// Consecutive pages that a run wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageSpan {
    /// Index of the first 4 KiB page.
    pub page: u64,
    /// Number of pages.
    pub count: u32,
}

/// Joins written pages into spans, in the order given.
pub fn page_spans(pages: impl IntoIterator<Item = u64>) -> List<PageSpan, PAGES_MAX> {
    let mut spans: Vec<PageSpan> = Vec::new();
    for page in pages {
        match spans.last_mut() {
            Some(last) if last.count < u32::MAX && last.page.checked_add(last.count.into()) == Some(page) => {
                last.count += 1;
            }
            _ => spans.push(PageSpan { page, count: 1 }),
        }
    }
    List(spans)
}

/// The pages of heap spans as a worker claims them: ascending, below page index `end`, at most `count_max`.
/// Nothing is allocated for a claim that is too large.
///
/// # Errors
/// What no correct worker claims.
pub fn heap_pages(spans: &[PageSpan], end: u64, count_max: u64) -> Result<Vec<u64>, Malformed> {
    let pages = bounded(spans, end, count_max)?;
    match pages.is_sorted_by(|a, b| a < b) {
        true => Ok(pages),
        false => Err(Malformed("written heap pages out of order")),
    }
}

/// The pages of stable memory's spans, in the order of their first writes: as for the heap, but in any order.
///
/// # Errors
/// What no correct worker claims.
pub fn stable_pages(spans: &[PageSpan], end: u64, count_max: u64) -> Result<Vec<u64>, Malformed> {
    let pages = bounded(spans, end, count_max)?;
    let mut sorted = pages.clone();
    sorted.sort_unstable();
    match sorted.is_sorted_by(|a, b| a < b) {
        true => Ok(pages),
        false => Err(Malformed("a stable page written twice")),
    }
}

fn bounded(spans: &[PageSpan], end: u64, count_max: u64) -> Result<Vec<u64>, Malformed> {
    let mut total = 0_u64;
    for span in spans {
        let count = u64::from(span.count);
        if count == 0 {
            return Err(Malformed("a span of no pages"));
        }
        if span.page.checked_add(count).is_none_or(|after| after > end) {
            return Err(Malformed("written pages outside of the memory"));
        }
        total = total.saturating_add(count);
        if total > count_max.min(PAGES_MAX as u64) {
            return Err(Malformed("more written pages than were counted"));
        }
    }
    Ok(spans.iter().flat_map(|span| span.page..span.page + u64::from(span.count)).collect())
}
