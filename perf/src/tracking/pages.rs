//! Ways to tell which pages of a private mapping were written, by the kernel or by the code that writes.

use std::collections::BTreeSet;

use crate::kernel::{Mapping, MemoryFile, PAGE_BYTES, PageMap, Pages, WriteFaults, WriteProtection};
use crate::modules::XORSHIFT_SEED;
use crate::sample::{Samples, time};

/// How pages are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Not at all: the copy-on-write fault alone.
    Untracked,
    /// The code sets a byte for each page; the harvest scans them.
    Bytes,
    /// The code appends a page to a list when its byte was clear.
    List,
    /// A write faults and opens a window of so many pages: those are taken for written.
    Faults(usize),
    /// Asynchronous write protection and a scan of the page tables.
    WriteProtection,
    /// A scan for copied pages, which are given up after each message.
    Scan,
}

impl Method {
    /// All of them; the limit first.
    pub(super) const ALL: [Self; 7] = [
        Self::Untracked,
        Self::Bytes,
        Self::List,
        Self::Faults(1),
        Self::Faults(16),
        Self::WriteProtection,
        Self::Scan,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Untracked => "copy-on-write alone",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::Faults(1) => "SIGSEGV",
            Self::Faults(_) => "SIGSEGV, 16-page window",
            Self::WriteProtection => "userfaultfd",
            Self::Scan => "PAGEMAP_SCAN",
        }
    }
}

enum Tracker {
    None,
    Bytes(Vec<u8>),
    List { written: Vec<bool>, list: Vec<u32> },
    Faults(WriteFaults, usize),
    WriteProtection(PageMap, #[expect(dead_code, reason = "protects while it lives")] WriteProtection),
    Scan(PageMap),
}

/// A warm mapping and what watches it.
struct Watched {
    // Before the mapping: it ends watching when it is dropped.
    tracker: Tracker,
    mapping: Mapping,
}

impl Watched {
    fn new(file: &MemoryFile, method: Method) -> Result<Self, String> {
        let mut mapping = Mapping::private(file)?;
        let pages = mapping.pages();
        mapping.populate(0, pages)?;
        let tracker = match method {
            Method::Untracked => Tracker::None,
            Method::Bytes => Tracker::Bytes(vec![0; pages]),
            Method::List => Tracker::List { written: vec![false; pages], list: Vec::new() },
            Method::Faults(window) => Tracker::Faults(WriteFaults::watch(&mapping, window)?, window),
            Method::WriteProtection => {
                Tracker::WriteProtection(PageMap::open()?, WriteProtection::start(&mapping)?)
            }
            Method::Scan => Tracker::Scan(PageMap::open()?),
        };
        Ok(Self { tracker, mapping })
    }

    /// Writes to each of `pages` once and finds out which they were, ascending. Ready for the next message.
    fn message(&mut self, pages: &[usize]) -> Result<Vec<u32>, String> {
        let mapping = &mut self.mapping;
        match &mut self.tracker {
            Tracker::None => {
                write_all(mapping, pages, |_| {});
                Ok(Vec::new())
            }
            Tracker::Bytes(map) => {
                write_all(mapping, pages, |page| map[page] = 1);
                Ok(super::guest::scan(map))
            }
            Tracker::List { written, list } => {
                write_all(mapping, pages, |page| {
                    if !written[page] {
                        written[page] = true;
                        list.push(page as u32);
                    }
                });
                list.sort_unstable();
                for &page in &*list {
                    written[page as usize] = false;
                }
                Ok(std::mem::take(list))
            }
            Tracker::Faults(faults, window) => {
                faults.expect(mapping);
                write_all(mapping, pages, |_| {});
                let windows = faults.harvest(mapping)?;
                Ok(windows.into_iter().flat_map(|first| first..first + *window as u32).collect())
            }
            Tracker::WriteProtection(map, _) => {
                write_all(mapping, pages, |_| {});
                map.scan(mapping, Pages::Written)
            }
            Tracker::Scan(map) => {
                write_all(mapping, pages, |_| {});
                let found = map.scan(mapping, Pages::Copied)?;
                for run in runs(&found) {
                    mapping.forget(run[0] as usize, run.len())?;
                }
                Ok(found)
            }
        }
    }

    /// Makes `pages` (ascending) as if they had never been written.
    fn reset(&mut self, pages: &[u32]) -> Result<(), String> {
        for run in runs(pages) {
            self.mapping.forget(run[0] as usize, run.len())?;
            self.mapping.populate(run[0] as usize, run.len())?;
        }
        if let Tracker::WriteProtection(map, _) = &mut self.tracker {
            // Giving up a page lifted its protection.
            map.scan(&self.mapping, Pages::Written)?;
        }
        Ok(())
    }
}

fn write_all(mapping: &mut Mapping, pages: &[usize], mut mark: impl FnMut(usize)) {
    for &page in pages {
        mapping.write(page, page as u64);
        mark(page);
    }
}

fn runs(pages: &[u32]) -> impl Iterator<Item = &[u32]> {
    pages.chunk_by(|a, b| *b == *a + 1)
}

/// Which pages a message writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Random,
    Dense,
}

impl Order {
    /// `count` pages of `of`, each once.
    pub(super) fn pages(self, count: usize, of: usize) -> Vec<usize> {
        match self {
            Self::Dense => (of / 4..).take(count).collect(),
            Self::Random => {
                let mut seen = BTreeSet::new();
                let mut random = XORSHIFT_SEED;
                std::iter::from_fn(|| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    Some((random % of as u64) as usize)
                })
                .filter(|page| seen.insert(*page))
                .take(count)
                .collect()
            }
        }
    }
}

/// Nanoseconds per page.
pub(super) struct PageCosts {
    /// First write of a page, by method.
    pub(super) first: Vec<Samples>,
    /// Second message that writes the same pages, by method.
    pub(super) again: Vec<Samples>,
    /// Copying a page to warm memory.
    pub(super) copy: Samples,
}

/// One mapping for each method.
pub(super) struct Field {
    watched: Vec<Watched>,
    copies: Vec<[u8; PAGE_BYTES]>,
    pages: usize,
}

impl Field {
    /// Mappings of `pages` pages, all resident.
    pub(super) fn new(pages: usize) -> Result<Self, String> {
        let file = MemoryFile::filled(pages)?;
        let watched = Method::ALL.iter().map(|method| Watched::new(&file, *method));
        let watched = watched.collect::<Result<_, _>>()?;
        Ok(Self { watched, copies: Vec::new(), pages })
    }

    /// Measures messages that write `count` pages.
    pub(super) fn measure(&mut self, count: usize, order: Order, rounds: usize) -> Result<PageCosts, String> {
        let pages = order.pages(count, self.pages);
        let mut ascending: Vec<u32> = pages.iter().map(|page| *page as u32).collect();
        ascending.sort_unstable();
        self.copies.resize(count, [1; PAGE_BYTES]);
        let mut first = vec![Vec::new(); Method::ALL.len()];
        let mut again = first.clone();
        let mut copy = Vec::new();
        for _ in 0..rounds {
            for (index, watched) in self.watched.iter_mut().enumerate() {
                let mut message = || {
                    let mut found = Vec::new();
                    let nanoseconds = time(|| {
                        found = watched.message(&pages)?;
                        Ok(())
                    })?;
                    agree(Method::ALL[index], &found, &ascending)?;
                    Ok::<_, String>(nanoseconds / count as f64)
                };
                first[index].push(message()?);
                again[index].push(message()?);
                watched.reset(&ascending)?;
            }
            let nanoseconds = time(|| {
                for (to, page) in self.copies.iter_mut().zip(&pages) {
                    to.copy_from_slice(self.watched[0].mapping.page(*page));
                }
                Ok(())
            })?;
            copy.push(nanoseconds / count as f64);
        }
        let samples = |all: Vec<Vec<f64>>| all.into_iter().map(Samples::from_iter).collect();
        Ok(PageCosts { first: samples(first), again: samples(again), copy: copy.into_iter().collect() })
    }
}

/// Whether a method found what was written, or at least that.
fn agree(method: Method, found: &[u32], written: &[u32]) -> Result<(), String> {
    let right = match method {
        Method::Untracked => true,
        Method::Faults(window) if window > 1 => found.len() >= written.len(),
        _ => found == written,
    };
    if right { Ok(()) } else { Err(format!("{}: {} pages of {}", method.name(), found.len(), written.len())) }
}
