//! What a System API function sees of the guest that called it: counter, heap and the running message.

use wasmtime::{AsContext, AsContextMut, Memory, StoreContextMut};

use crate::bookkeeping::DirtyMap;
use crate::context::Context;
use crate::instance::Data;
use crate::run::Run;
use crate::trap::Stop;

use super::Arguments;
use super::table::{Cost, Entry};

/// The calling guest.
pub(crate) struct Guest<'a> {
    pub(super) store: StoreContextMut<'a, Data>,
    /// The function being called, for error texts.
    pub(super) name: &'static str,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(store: StoreContextMut<'a, Data>, name: &'static str) -> Self {
        Self { store, name }
    }

    /// What comes before each function's own work: its charge, unless the code that called has paid it, then whether it
    /// may be used here.
    // Inlined by hand: it is most of what a short call costs, and its many callers keep the compiler from it.
    #[inline(always)]
    pub(crate) fn admit(&mut self, entry: &Entry, arguments: &Arguments) -> Result<(), Stop> {
        if !matches!(entry.cost, Cost::Fixed(_)) {
            self.charge(self.price(&entry.cost, arguments))?;
        }
        let context = self.run().context;
        if entry.contexts.contains(context) { Ok(()) } else { Err(self.wrong_context(context)) }
    }

    #[cold]
    fn wrong_context(&self, context: Context) -> Stop {
        let (name, context) = (self.name, context.name());
        Stop::contract(format_args!("\"ic0_{name}\" cannot be executed in {context} mode"))
    }

    #[inline(never)]
    fn price(&self, cost: &Cost, arguments: &Arguments) -> u64 {
        match *cost {
            Cost::Fixed(instructions) => instructions,
            Cost::Bytes { fixed, each, size } => fixed.saturating_add(arguments[size].saturating_mul(each)),
            Cost::TwoSizes { fixed, sizes: [first, second] } => {
                fixed.saturating_add(arguments[first]).saturating_add(arguments[second])
            }
            Cost::Print => 100_u64.saturating_add(self.printing(arguments[1])),
            Cost::Trap => 500_u64.saturating_add(arguments[1]).saturating_add(self.printing(arguments[1])),
        }
    }

    /// 2 for each byte that fits the log, 50 for each byte that fits what is free of it.
    fn printing(&self, size: u64) -> u64 {
        let capacity = self.run().invocation.system.log_capacity as u64;
        let free = self.run().logs.free() as u64;
        2 * size.min(capacity) + 50 * size.min(free)
    }

    pub(super) fn data(&self) -> &Data {
        self.store.data()
    }

    pub(super) fn run(&self) -> &Run {
        self.store.data().run()
    }

    pub(super) fn run_mut(&mut self) -> &mut Run {
        self.store.data_mut().run_mut()
    }

    /// Takes instructions from the counter; more than the message has stop the guest. More than the slice has let
    /// it finish the call: the code that called tests the counter next, or, where a table was between, at its own next
    /// test.
    #[inline]
    pub(super) fn charge(&mut self, instructions: u64) -> Result<(), Stop> {
        let price = i64::try_from(instructions).unwrap_or(i64::MAX);
        let data = self.store.data_mut();
        let left = data.counter().saturating_sub(price);
        data.set_counter(left);
        if left < 0 { self.run().slices.allow(left) } else { Ok(()) }
    }

    /// Instructions of this message so far.
    pub(super) fn instructions(&self) -> u64 {
        self.run().slices.used(self.data().counter())
    }

    pub(super) fn memory(&self) -> Result<Memory, Stop> {
        let name = self.name;
        self.data()
            .handles()
            .memory
            .ok_or_else(|| Stop::contract(format_args!("ic0.{name}: the module must define memory")))
    }

    /// Heap bytes `src..src+size`.
    pub(super) fn heap(&self, src: u64, size: u64) -> Result<&[u8], Stop> {
        let heap = self.memory()?.data(self.store.as_context());
        slice(self.name, "heap", heap, src, size)
    }

    /// Copies heap bytes `src..src+size`.
    pub(super) fn read(&self, src: u64, size: u64) -> Result<Vec<u8>, Stop> {
        self.heap(src, size).map(<[u8]>::to_vec)
    }

    /// Copies `size` bytes of a blob of the running message, from `offset` on, to heap address `dst`.
    pub(super) fn copy(
        &mut self,
        blob: impl FnOnce(&Run) -> &[u8],
        [dst, offset, size]: [u64; 3],
    ) -> Result<u64, Stop> {
        let memory = self.memory()?;
        let (heap, data) = memory.data_and_store_mut(self.store.as_context_mut());
        let to = range(self.name, "heap", heap.len(), dst, size)?;
        let from = slice(self.name, "payload", blob(data.run()), offset, size)?;
        heap[to].copy_from_slice(from);
        self.mark(dst, size);
        Ok(0)
    }

    /// Writes 16 bytes, little endian, to heap address `dst`.
    pub(super) fn write_u128(&mut self, dst: u64, value: u128) -> Result<u64, Stop> {
        let memory = self.memory()?;
        let heap = memory.data_mut(self.store.as_context_mut());
        let to = range(self.name, "heap", heap.len(), dst, 16)?;
        heap[to].copy_from_slice(&value.to_le_bytes());
        self.mark(dst, 16);
        Ok(0)
    }

    /// Marks heap pages that hold bytes `dst..dst+size`, which are inside the heap, as written.
    pub(super) fn mark(&mut self, dst: u64, size: u64) {
        let heap_pages_max = self.data().shape.heap_pages_max;
        let map = self.data().handles().bookkeeping;
        DirtyMap::new(map.data_mut(self.store.as_context_mut()), heap_pages_max).mark(dst, size);
    }
}

/// Bytes `start..start+size` of `bytes`.
pub(super) fn slice<'b>(
    function: &str,
    what: &str,
    bytes: &'b [u8],
    start: u64,
    size: u64,
) -> Result<&'b [u8], Stop> {
    range(function, what, bytes.len(), start, size).map(|range| &bytes[range])
}

fn range(
    function: &str,
    what: &str,
    length: usize,
    start: u64,
    size: u64,
) -> Result<std::ops::Range<usize>, Stop> {
    let range = start
        .checked_add(size)
        .filter(|&end| end <= length as u64)
        .and_then(|end| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
    range.ok_or_else(|| {
        Stop::contract(format_args!(
            "ic0.{function} {what}: src={start} + length={size} exceeds the slice size={length}"
        ))
    })
}
