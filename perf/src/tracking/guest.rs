//! Loops in an engine with the product's settings.

use wasmtime::{Engine, Func, Global, Memory, Val};

use super::barrier::{Barrier, Layout, SUMMARY_BITS};
use super::loops::Variant;
use crate::modules::Heap;
use crate::runner::Runner;

/// The loop of `variant` as the product's instrumentation makes it.
pub(super) fn product(engine: &Engine, variant: Variant) -> Result<Runner, String> {
    let wasm = wat::parse_str(variant.canister()).map_err(|error| error.to_string())?;
    Runner::product(engine, &wasm, "canister_update run", &[])
        .map_err(|error| format!("{variant:?}: {error}"))
}

/// A loop with one of the candidates for a barrier.
pub(super) struct Guest {
    runner: Runner,
    store: Func,
    dirty: Memory,
    listed: Global,
    variant: Variant,
    layout: Layout,
}

impl Guest {
    /// Compiles and instantiates `variant`.
    pub(super) fn new(engine: &Engine, variant: Variant) -> Result<Self, String> {
        let wasm = wat::parse_str(variant.module()).map_err(|error| error.to_string())?;
        let mut runner =
            Runner::new(engine, &wasm, "run", &[]).map_err(|error| format!("{variant:?}: {error}"))?;
        let (store, instance) = runner.parts();
        let store_at = instance.get_func(&mut *store, "store").ok_or("no store")?;
        let dirty = instance.get_memory(&mut *store, "dirty").ok_or("no dirty")?;
        let listed = instance.get_global(&mut *store, "listed").ok_or("no listed")?;
        Ok(Self { runner, store: store_at, dirty, listed, variant, layout: Layout::new(variant.bytes) })
    }

    /// Runs the loop once.
    pub(super) fn run(&mut self) -> Result<(), String> {
        self.runner.run()
    }

    /// Stores eight bytes at `address`.
    pub(super) fn store_at(&mut self, address: u64) -> Result<(), String> {
        let address = match self.variant.heap {
            Heap::Bits32 => Val::I32((address as u32).cast_signed()),
            Heap::Bits64 => Val::I64(address.cast_signed()),
        };
        let (store, _) = self.runner.parts();
        self.store.call(store, &[address], &mut []).map_err(|error| format!("{error:#}"))
    }

    /// Pages written since the last call, ascending. Nothing is marked afterwards.
    pub(super) fn harvest(&mut self) -> Vec<u32> {
        let (store, _) = self.runner.parts();
        let listed = self.listed.get(&mut *store).i32().expect("an i32 global").cast_unsigned() as usize;
        let memory = self.dirty.data_mut(&mut *store);
        match self.variant.barrier {
            Barrier::None => Vec::new(),
            Barrier::Bytes => scan(&mut memory[..self.layout.pages]),
            Barrier::Summary | Barrier::SummaryOnce => {
                let (pages, rest) = memory.split_at_mut(self.layout.summary);
                scan_summary(pages, &mut rest[..self.layout.pages >> SUMMARY_BITS])
            }
            Barrier::List => {
                let (map, list) = memory.split_at_mut(self.layout.list);
                let dirty = walk(map, &list[..4 * listed]);
                self.listed.set(store, Val::I32(0)).expect("an i32 global");
                dirty
            }
        }
    }
}

/// Indices of the set bytes of `map`, which is clear afterwards; its length is a multiple of 8.
pub(super) fn scan(map: &mut [u8]) -> Vec<u32> {
    let mut set = Vec::new();
    scan_into(map, 0, &mut set);
    set
}

fn scan_into(map: &mut [u8], first: usize, set: &mut Vec<u32>) {
    for (index, eight) in map.chunks_exact_mut(8).enumerate() {
        if u64::from_ne_bytes((&*eight).try_into().expect("eight bytes")) != 0 {
            for (within, byte) in eight.iter_mut().enumerate() {
                if std::mem::take(byte) != 0 {
                    set.push((first + index * 8 + within) as u32);
                }
            }
        }
    }
}

fn scan_summary(map: &mut [u8], summary: &mut [u8]) -> Vec<u32> {
    let mut set = Vec::new();
    for (index, eight) in summary.chunks_exact_mut(8).enumerate() {
        if u64::from_ne_bytes((&*eight).try_into().expect("eight bytes")) == 0 {
            continue;
        }
        for (within, byte) in eight.iter_mut().enumerate() {
            if std::mem::take(byte) != 0 {
                let first = (index * 8 + within) << SUMMARY_BITS;
                scan_into(&mut map[first..first + (1 << SUMMARY_BITS)], first, &mut set);
            }
        }
    }
    set
}

fn walk(map: &mut [u8], list: &[u8]) -> Vec<u32> {
    let (pages, _) = list.as_chunks::<4>();
    let mut dirty: Vec<u32> = pages.iter().map(|page| u32::from_le_bytes(*page)).collect();
    dirty.sort_unstable();
    for &page in &dirty {
        map[page as usize] = 0;
    }
    dirty
}

#[cfg(test)]
mod tests {
    use super::super::loops::{Counter, Loop};
    use super::*;

    #[test]
    fn every_barrier_finds_the_first_and_the_last_page_of_a_store() {
        let engine = in_process::Engine::new().unwrap();
        let (body, counter) = (Loop::OnePage, Counter::Absent);
        for heap in Heap::ALL {
            for barrier in &Barrier::ALL[1..] {
                let variant = Variant { body, counter, barrier: *barrier, heap, bytes: 16 << 20 };
                let mut guest = Guest::new(engine.raw(), variant).unwrap();
                for address in [200 * 4096 - 4, 3 * 4096, 3 * 4096 + 8, 0] {
                    guest.store_at(address).unwrap();
                }
                assert_eq!(guest.harvest(), [0, 3, 199, 200], "{variant:?}");
                assert_eq!(guest.harvest(), [0; 0], "{variant:?}");
            }
        }
    }
}
