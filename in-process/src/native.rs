//! All unsafe code of this crate: loading native code, mapping heaps, the instruction counter's word, linking untyped
//! functions, processor flags.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use execution::memory::{MemoryError, PAGE_BYTES, PageUpdate, map_privately};
use wasmtime::{AsContextMut, Caller, Engine, FuncType, Linker, Memory, Module, Store, ValRaw, ValType};

use crate::api::{self, ApiFunction, P};
use crate::bookkeeping;
use crate::instance::Data;
use crate::slices;
use crate::system_api::{self, Arguments, Guest};
use crate::trap::Stop;

/// Width of heap addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heap {
    /// 32-bit, also for modules without a heap.
    Bits32,
    /// 64-bit.
    Bits64,
}

/// Maps native code from an open file.
pub(crate) fn load(engine: &Engine, file: File) -> Result<Module, wasmtime::Error> {
    // SAFETY: the file is sealed against every change and was made by this crate's compiler for the same
    // profile (the caller's contract, design decision 3); wasmtime checks version and settings.
    unsafe { Module::deserialize_open_file(engine, file) }
}

/// Turns on processor features of the profile.
#[cfg(feature = "compile")]
pub(crate) fn enable_target_flags(config: &mut wasmtime::Config, flags: &[&str]) {
    for flag in flags {
        // SAFETY: the flags only choose instructions; `Engine::new` refuses machines without them, and
        // loading code checks again.
        unsafe {
            config.cranelift_flag_enable(flag);
        }
    }
}

/// Puts pages of an arena, given by its segments, in the place of heap pages, copy-on-write. `run` lies
/// inside the heap, and its slots are kept alive as [`crate::Instance::new`] asks.
pub(crate) fn map_heap(
    store: &mut Store<Data>,
    heap: Memory,
    files: &[BorrowedFd<'_>],
    bytes_max: u64,
    run: PageUpdate,
) -> Result<(), MemoryError> {
    let bytes = |pages: usize| pages * PAGE_BYTES;
    let start = bytes(usize::try_from(run.page).expect("inside the heap"));
    let mut rest = &mut heap.data_mut(store)[start..start + bytes(run.count as usize)];
    let mut next = run.slot;
    while let (Some(slot), false) = (next, rest.is_empty()) {
        // SAFETY: heap pages lie in a private anonymous mapping that wasmtime made for this memory alone
        // (no copy-on-write image, see the engine's profile) and unmaps as a whole; the store is borrowed
        // uniquely. The slots are alive by this function's contract.
        let done = unsafe { map_privately(files, bytes_max, slot, rest)? };
        next = slot.checked_add(u32::try_from(done / PAGE_BYTES).expect("at most the run's count"));
        rest = &mut rest[done..];
    }
    Ok(())
}

/// The instruction counter of an instance.
#[derive(Clone, Copy)]
pub(crate) struct Counter(NonNull<i64>);

// SAFETY: it is used by whoever has the data of the store that owns the counter, so it goes where the store goes.
unsafe impl Send for Counter {}
// SAFETY: as above; reading takes the data shared, writing takes it uniquely.
unsafe impl Sync for Counter {}

impl Counter {
    /// The counter in an instance's bookkeeping memory, which has [`bookkeeping::bytes`] bytes at least.
    pub(crate) fn new(store: &Store<Data>, bookkeeping: Memory) -> Self {
        let offset = usize::try_from(bookkeeping::COUNTER_OFFSET).expect("a few bytes");
        let counter: *mut i64 = bookkeeping.data_ptr(store).wrapping_add(offset).cast();
        assert!(counter.is_aligned(), "memories begin at a page, and the counter at a word");
        Self(NonNull::new(counter).expect("a memory of some bytes"))
    }

    /// Instructions left. `_data` is that of the store that the counter lives in.
    pub(crate) fn get(self, _data: &Data) -> i64 {
        // SAFETY: memories don't move (see the engine's profile) and end with their store, which owns the data. Code
        // doesn't run while its data is borrowed, and nobody keeps the memory's bytes borrowed meanwhile.
        unsafe { self.0.read() }
    }

    /// Sets the instructions left. `_data` as for [`Counter::get`].
    pub(crate) fn set(self, _data: &mut Data, instructions: i64) {
        // SAFETY: as for `get`.
        unsafe { self.0.write(instructions) }
    }
}

/// A linker with the System API and the instrumentation's import.
pub(crate) fn linker(engine: &Engine, heap: Heap) -> Result<Linker<Data>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    linker.func_wrap_async("__", "out_of_instructions", |caller: Caller<'_, Data>, (): ()| {
        Box::new(slices::exhausted(caller))
    })?;
    for (function, entry) in api::FUNCTIONS.iter().zip(&system_api::ENTRIES) {
        if !(function.legacy32 && heap == Heap::Bits64) {
            (entry.define)(&mut linker, heap)?;
        }
    }
    Ok(linker)
}

/// Defines function `INDEX` of the System API. Compiled once for each, so that a call finds its own code, and of its
/// parameters, price and contexts only what it needs.
pub(crate) fn define<const INDEX: usize, H>(
    linker: &mut Linker<Data>,
    heap: Heap,
    handler: H,
) -> Result<(), wasmtime::Error>
where
    H: Fn(&mut Guest<'_>, &Arguments) -> Result<u64, Stop> + Send + Sync + 'static,
{
    let ApiFunction { name, params, result, .. } = const { api::FUNCTIONS[INDEX] };
    let ty = FuncType::new(
        linker.engine(),
        params.iter().map(|&parameter| value_type(parameter, heap)),
        result.map(|result| value_type(result, heap)),
    );
    let wide = move |parameter: P| value_type(parameter, heap).is_i64();
    // SAFETY: the closure reads each parameter, and writes the result, in the width that `ty` states
    // for it: both come from `value_type`. Wasmtime passes at least max(parameters, results) values.
    unsafe {
        linker.func_new_unchecked("ic0", name, ty, move |mut caller, values| {
            let ApiFunction { name, params, result, .. } = const { api::FUNCTIONS[INDEX] };
            let argument = |at: usize| {
                let (&parameter, value) = params.get(at).zip(values.get(at))?;
                let value = value.assume_init();
                Some(if wide(parameter) { value.get_u64() } else { u64::from(value.get_u32()) })
            };
            let arguments: Arguments = std::array::from_fn(|at| argument(at).unwrap_or(0));
            let mut guest = Guest::new(caller.as_context_mut(), name);
            guest.admit(&system_api::ENTRIES[INDEX], &arguments)?;
            let answer = handler(&mut guest, &arguments)?;
            if let Some(kind) = result {
                #[expect(clippy::cast_possible_truncation, reason = "i32 results carry 32 bits")]
                values[0].write(if wide(kind) { ValRaw::u64(answer) } else { ValRaw::u32(answer as u32) });
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn value_type(parameter: P, heap: Heap) -> ValType {
    match (parameter, heap) {
        (P::I32, _) | (P::I, Heap::Bits32) => ValType::I32,
        (P::I64, _) | (P::I, Heap::Bits64) => ValType::I64,
    }
}
