//! What backends without write barriers and warm mappings do to the kernel in each message, with nothing else: for
//! several threads of one process, and for several processes of one thread.

use crate::kernel::{Mapping, MemoryFile};
use crate::parallel::{self, Work};

/// Pages of a mapping.
const PAGES: usize = 256;
/// Pages that a message writes, and reads.
const TOUCHED: usize = 32;
/// Pages of another file that are mapped in between.
const FRAGMENTS: usize = 16;
/// Distance of touched pages and of fragments.
const STRIDE: usize = PAGES / TOUCHED;

/// What is done in each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Arithmetic alone: the control.
    Compute,
    /// A fresh mapping with fragments of another file, 32 pages read and 32 written, unmapped.
    Map,
    /// Each written page is made writable before it is written, and all are read-only again in the end: what a handler
    /// of write faults does, without the faults.
    Protect,
    /// Each written page is copied at its first write, and given up in the end.
    Copy,
}

impl Workload {
    const ALL: [Self; 4] = [Self::Compute, Self::Map, Self::Protect, Self::Copy];

    /// Its number, for [`Workload::numbered`].
    pub(crate) fn number(self) -> usize {
        self as usize
    }

    /// The workload with `number`.
    pub(crate) fn numbered(number: usize) -> Option<Self> {
        Self::ALL.get(number).copied()
    }

    /// A worker's own copy of it.
    fn work(self) -> Result<Work<'static>, String> {
        if self == Self::Compute {
            return Ok(Box::new(parallel::compute));
        }
        let (file, other) = (MemoryFile::filled(PAGES)?, MemoryFile::filled(PAGES)?);
        if self == Self::Map {
            return Ok(Box::new(move || map(&file, &other)));
        }
        let mut mapping = Mapping::private(&file)?;
        if self == Self::Copy {
            return Ok(Box::new(move || copy(&mut mapping)));
        }
        // All are copied before, so that protection is all there is.
        written().for_each(|page| mapping.write(page, 1));
        mapping.set_writable(false, 0, PAGES)?;
        Ok(Box::new(move || protect(&mut mapping)))
    }

    /// Messages a second of a worker on each of `cores`, all in this process.
    pub(crate) fn rate(self, cores: &[usize]) -> Result<f64, String> {
        let mut workers: Vec<_> = cores.iter().map(|_| self.work()).collect::<Result<_, _>>()?;
        parallel::rate(cores, &mut workers)
    }
}

fn written() -> impl Iterator<Item = usize> {
    (0..TOUCHED).map(|index| index * STRIDE)
}

fn map(file: &MemoryFile, other: &MemoryFile) -> Result<(), String> {
    let mut mapping = Mapping::private(file)?;
    for fragment in 0..FRAGMENTS {
        mapping.replace(fragment * (PAGES / FRAGMENTS) + 2, other, fragment)?;
    }
    for page in written() {
        std::hint::black_box(mapping.page(page + 1)[0]);
        mapping.write(page, 1);
    }
    Ok(())
}

fn protect(mapping: &mut Mapping) -> Result<(), String> {
    for page in written() {
        mapping.set_writable(true, page, 1)?;
        mapping.write(page, 1);
    }
    mapping.set_writable(false, 0, PAGES)
}

fn copy(mapping: &mut Mapping) -> Result<(), String> {
    written().for_each(|page| mapping.write(page, 1));
    written().try_for_each(|page| mapping.forget(page, 1))
}
