//! The plain model: a vector of bytes for the heap, another for stable memory, four globals.
//!
//! It knows nothing of pages of record, arenas, instances or workers: what a message did is a vector that
//! differs, and the set of pages that a write touched, whether or not a byte came out different.

use std::collections::BTreeSet;
use std::sync::Arc;

use execution::GlobalValue;
use execution::memory::{Memory, PAGE_BYTES, WASM_PAGE_BYTES};
use execution::root::MemoryRoot;

use super::canister::{self, ACTIVE, ACTIVE_AT, HEAP_PAGES_MIN, Kind, OFFSETS, Op, RECORD_BYTES, STORES};

/// A canister's state of record.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) kind: Kind,
    pub(super) heap: Vec<u8>,
    pub(super) stable: Vec<u8>,
    /// Largest stable memory, bytes.
    pub(super) stable_max: u64,
    /// Answer of the last `memory.grow` or `stable64_grow`.
    result: u64,
    number: u32,
    float: u64,
    vector: u128,
}

/// What a message has to come to.
#[derive(Clone)]
pub(super) struct Expected {
    /// The reply; or words of the trap.
    pub(super) end: Result<Vec<u8>, &'static str>,
    /// Heap pages of 4 KiB written.
    pub(super) heap: BTreeSet<u64>,
    /// Stable pages of 4 KiB written.
    pub(super) stable: BTreeSet<u64>,
    /// The state that it leaves, were it kept: after a trap, the state before.
    pub(super) after: Model,
}

const OUTSIDE_HEAP: &str = "heap out of bounds";
const OUTSIDE_STABLE: &str = "stable memory out of bounds";
/// A range of the heap handed to a function that isn't one of stable memory.
const OUTSIDE_SLICE: &str = "exceeds the slice size";

/// A message on its way.
struct Run {
    model: Model,
    heap: BTreeSet<u64>,
    stable: BTreeSet<u64>,
    /// Bytes of the passive segment that are left: all, or none once it was dropped.
    passive: Vec<u8>,
    reply: Vec<u8>,
}

impl Model {
    /// A canister whose code has just been installed.
    pub(super) fn new(kind: Kind, stable_max: u64) -> Self {
        let mut heap = vec![0; (HEAP_PAGES_MIN * WASM_PAGE_BYTES) as usize];
        heap[ACTIVE_AT..ACTIVE_AT + ACTIVE.len()].copy_from_slice(ACTIVE);
        Self {
            kind,
            heap,
            stable: Vec::new(),
            stable_max,
            result: 0,
            number: 1,
            float: 0.5_f64.to_bits(),
            vector: 2 | 3 << 64,
        }
    }

    /// Mutable globals in index order.
    pub(super) fn globals(&self) -> [GlobalValue; 4] {
        [
            GlobalValue::I64(self.result.cast_signed()),
            GlobalValue::I32(self.number.cast_signed()),
            GlobalValue::F64(self.float),
            GlobalValue::V128(self.vector),
        ]
    }

    /// The method `run` and its like.
    pub(super) fn run(&self, ops: &[Op], scratch: u64) -> Expected {
        let mut run = Run::new(self);
        let end = run.program(ops, scratch);
        run.expected(self, end)
    }

    /// The method `whole`.
    pub(super) fn whole(&self) -> Expected {
        let mut run = Run::new(self);
        run.reply = [self.heap.as_slice(), &self.stable].concat();
        let end = if self.stable.is_empty() { Ok(()) } else { run.write(0, &[0; PAGE_BYTES]) };
        run.expected(self, end)
    }

    /// The hashes of heap and stable memory, from scratch: of memories that hold these bytes and have no past.
    pub(super) fn roots(&self) -> [[u8; 32]; 2] {
        [&self.heap, &self.stable].map(|bytes| {
            // One page more: an arena has room for something.
            let arena = canister::arena((bytes.len() + PAGE_BYTES) as u64);
            let pages = bytes.len() as u64 / WASM_PAGE_BYTES;
            let memory = Memory::with_segments(&arena, pages, [(0, bytes.as_slice())]).expect("it has room");
            MemoryRoot::default().root(&memory)
        })
    }
}

impl Run {
    fn new(model: &Model) -> Self {
        let (heap, stable) = (BTreeSet::new(), BTreeSet::new());
        Self { model: model.clone(), heap, stable, passive: canister::passive(), reply: Vec::new() }
    }

    fn expected(self, before: &Model, end: Result<(), &'static str>) -> Expected {
        let after = if end.is_ok() { self.model } else { before.clone() };
        Expected { end: end.map(|()| self.reply), heap: self.heap, stable: self.stable, after }
    }

    fn program(&mut self, ops: &[Op], scratch: u64) -> Result<(), &'static str> {
        let program: Arc<[u8]> = canister::encode(ops);
        for (op, record) in ops.iter().zip(program.chunks_exact(RECORD_BYTES)) {
            self.range(self.pointer(scratch), RECORD_BYTES as u64).ok_or(OUTSIDE_SLICE)?;
            self.write(self.pointer(scratch), record)?;
            match *op {
                Op::Unreachable => return Err("unreachable"),
                Op::Spin => return Err("exceeded the limit of"),
                op => self.op(op, &program)?,
            }
        }
        Ok(())
    }

    fn op(&mut self, op: Op, program: &[u8]) -> Result<(), &'static str> {
        match op {
            Op::Store { store, offset, at, value } => {
                let bytes = [value.to_le_bytes(), value.to_le_bytes()].concat();
                self.store(at, OFFSETS[offset], &bytes[..STORES[store].3])
            }
            Op::Fill { at, byte, bytes } => self.write(self.pointer(at), &vec![byte; bytes as usize]),
            Op::Copy { to, from, bytes } => {
                let from = self.range(self.pointer(from), bytes).ok_or(OUTSIDE_HEAP)?;
                let copied = self.model.heap[from].to_vec();
                self.write(self.pointer(to), &copied)
            }
            Op::Init { to, from, bytes } => {
                let segment = self.passive.get(from as usize..(from + bytes) as usize).ok_or(OUTSIDE_HEAP)?;
                let copied = segment.to_vec();
                self.write(self.pointer(to), &copied)
            }
            Op::Drop => {
                if self.model.kind.drops {
                    self.passive.clear();
                }
                Ok(())
            }
            Op::Grow { pages } => {
                let max = self.model.kind.heap_pages_max * WASM_PAGE_BYTES;
                self.model.result = grow(&mut self.model.heap, pages, max);
                Ok(())
            }
            Op::StableGrow { pages } => {
                self.model.result = grow(&mut self.model.stable, pages, self.model.stable_max);
                Ok(())
            }
            Op::StableWrite { to, from, bytes } => self.stable_write(to, from, bytes),
            Op::StableRead { to, from, bytes } => self.stable_read(to, from, bytes),
            Op::Arg { to, from, bytes } => {
                let [to, from] = [to, from].map(|address| self.pointer(address));
                self.range(to, bytes).ok_or(OUTSIDE_SLICE)?;
                let from = range(program, from, bytes).ok_or(OUTSIDE_SLICE)?;
                self.write(to, &program[from])
            }
            Op::Globals { value } => {
                self.model.number = value as u32;
                self.model.float = value;
                self.model.vector = u128::from(value) | u128::from(value) << 64;
                Ok(())
            }
            Op::Spill { at } => {
                self.store(at, 0, &self.model.result.to_le_bytes())?;
                self.store(at, 8, &self.model.number.to_le_bytes())?;
                self.store(at, 16, &self.model.float.to_le_bytes())?;
                self.store(at, 24, &self.model.vector.to_le_bytes())
            }
            Op::Look { at, bytes } => {
                let range = self.range(self.pointer(at), bytes).ok_or(OUTSIDE_SLICE)?;
                self.reply.extend_from_slice(&self.model.heap[range]);
                Ok(())
            }
            Op::Unreachable | Op::Spin => unreachable!("these end a program"),
        }
    }

    /// An address as the canister's instructions take it.
    fn pointer(&self, address: u64) -> u64 {
        if self.model.kind.memory64 { address } else { address & u64::from(u32::MAX) }
    }

    fn range(&self, at: u64, bytes: u64) -> Option<std::ops::Range<usize>> {
        range(&self.model.heap, at, bytes)
    }

    fn store(&mut self, at: u64, offset: u64, bytes: &[u8]) -> Result<(), &'static str> {
        self.write(self.pointer(at).checked_add(offset).ok_or(OUTSIDE_HEAP)?, bytes)
    }

    /// Writes to the heap, all or nothing.
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), &'static str> {
        let range = self.range(at, bytes.len() as u64).ok_or(OUTSIDE_HEAP)?;
        self.model.heap[range].copy_from_slice(bytes);
        self.heap.extend(pages(at, bytes.len() as u64));
        Ok(())
    }

    fn stable_write(&mut self, to: u64, from: u64, bytes: u64) -> Result<(), &'static str> {
        if bytes == 0 {
            return Ok(());
        }
        let stable = range(&self.model.stable, to, bytes).ok_or(OUTSIDE_STABLE)?;
        let heap = self.range(from, bytes).ok_or(OUTSIDE_HEAP)?;
        self.model.stable[stable].copy_from_slice(&self.model.heap[heap]);
        self.stable.extend(pages(to, bytes));
        Ok(())
    }

    fn stable_read(&mut self, to: u64, from: u64, bytes: u64) -> Result<(), &'static str> {
        if bytes == 0 {
            return Ok(());
        }
        let stable = range(&self.model.stable, from, bytes).ok_or(OUTSIDE_STABLE)?;
        let copied = self.model.stable[stable].to_vec();
        self.write(to, &copied)
    }
}

/// Bytes `at..at+bytes`, if they are all inside.
fn range(memory: &[u8], at: u64, bytes: u64) -> Option<std::ops::Range<usize>> {
    let end = at.checked_add(bytes).filter(|&end| end <= memory.len() as u64)?;
    Some(at as usize..end as usize)
}

/// Pages of 4 KiB that hold bytes `at..at+bytes`.
fn pages(at: u64, bytes: u64) -> std::ops::Range<u64> {
    let page = PAGE_BYTES as u64;
    if bytes == 0 { 0..0 } else { at / page..(at + bytes - 1) / page + 1 }
}

/// Grows a memory; its size before in 64 KiB pages, or -1.
fn grow(memory: &mut Vec<u8>, pages: u64, bytes_max: u64) -> u64 {
    let before = memory.len() as u64;
    let after = pages.checked_mul(WASM_PAGE_BYTES).and_then(|more| before.checked_add(more));
    match after.filter(|&after| after <= bytes_max) {
        Some(after) => {
            memory.resize(after as usize, 0);
            before / WASM_PAGE_BYTES
        }
        None => u64::MAX,
    }
}
