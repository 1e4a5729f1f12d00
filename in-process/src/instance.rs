//! An instance of a canister's code that stays warm: brought up to date, run, brought up to date, ...

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use execution::check::returns_memory;
use execution::memory::{PAGE_BYTES, PageUpdate, WASM_PAGE_BYTES, Window};
use execution::module::Interface;
use execution::outcome::{Effects, Ending, LogLine};
use execution::{GlobalValue, Instructions, Invocation, Trap};
use wasmtime::{
    AsContext, AsContextMut, Func, Global, Instance as RawInstance, Memory, ResourceLimiter, Store, Table,
    Val,
};

use crate::bookkeeping::{self, DirtyMap};
use crate::engine::{Code, EngineError};
use crate::pages::PageTable;
use crate::run::Run;
use crate::slices;
use crate::stable::{self, Page, Stable};
use crate::trap::{self, Stop};
use crate::{entry, native};

/// Shorter runs of pages are copied into a new instance: a mapping costs about two microseconds and a
/// fault, a page copied half of one (`performance.md` section 3).
const RUN_PAGES_MIN: u32 = 8;
const PAGES_PER_WASM_PAGE: u64 = WASM_PAGE_BYTES / PAGE_BYTES as u64;

/// What the owner of an instance knows of its module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether the heap is 64-bit.
    pub memory64: bool,
    /// Whether there is a heap.
    pub has_memory: bool,
    /// Largest heap, 64 KiB pages.
    pub heap_pages_max: u64,
    /// Mutable globals in index order: their number and types (the values don't matter).
    pub globals: Vec<GlobalValue>,
    /// Largest stable memory, 64 KiB pages.
    pub stable_pages_max: u64,
    /// Whether code executes `data.drop`: such an instance serves one message only.
    pub drops_data: bool,
}

impl Shape {
    /// The shape of a module with this interface.
    #[must_use]
    pub fn new(interface: &Interface, stable_pages_max: u64) -> Self {
        Self {
            memory64: interface.memory64,
            has_memory: interface.has_memory,
            heap_pages_max: interface.heap_pages_max,
            globals: interface.globals.clone(),
            stable_pages_max,
            drops_data: interface.drops_data,
        }
    }
}

/// What an instance must become before the next run.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Heap size, 64 KiB pages.
    pub heap_pages: u64,
    /// Stable memory size, 64 KiB pages.
    pub stable_pages: u64,
    /// Mutable globals in index order.
    pub globals: Arc<[GlobalValue]>,
    /// Heap pages that differ from what the instance has, or lie in another slot now; ascending.
    pub heap: Vec<PageUpdate>,
    /// The same for stable memory.
    pub stable: Vec<PageUpdate>,
}

/// The arena that an instance's memory lies in.
#[derive(Debug)]
pub struct Base<'a> {
    /// Where pages are read from as long as the instance lives.
    pub window: Window,
    /// The arena's segments. The heap of the start is mapped copy-on-write from them; they may be closed
    /// afterwards.
    pub files: Vec<BorrowedFd<'a>>,
    /// The arena's [`execution::memory::Arena::bytes_max`].
    pub bytes_max: u64,
    /// Most mappings that the heap may consist of; runs of pages beyond are copied.
    pub mappings_max: usize,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// How it ended.
    pub ending: Ending,
    /// Instructions used, charges for dirty pages included, at most the run's limit.
    pub instructions: Instructions,
    /// Lines printed; if it trapped, the last one is the trap's record and starts with `[TRAP]: `.
    pub logs: Vec<LogLine>,
    /// Everything to commit but memory (an empty delta); `None` unless it returned.
    pub effects: Option<Effects>,
    /// Heap size now, 64 KiB pages.
    pub heap_pages: u64,
    /// Stable memory size now, 64 KiB pages.
    pub stable_pages: u64,
    /// Heap pages to pull, ascending; empty where nothing is kept.
    pub heap_dirty: Vec<u64>,
    /// Stable pages to pull, in the order of [`Instance::copy_stable_page`]; empty where nothing is kept.
    pub stable_dirty: Vec<u64>,
    /// Heap pages written, kept or not.
    pub heap_pages_dirty: u64,
    /// Stable pages written, kept or not.
    pub stable_pages_dirty: u64,
    /// Whether the instance can serve another run; if not, its owner drops it after pulling.
    pub reusable: bool,
}

impl Ran {
    /// Whether a message behind this one sees what it was expected to see by
    /// [`execution::Backend::execute_batch`]: nothing has changed for it but pages, globals, the version and what the
    /// instructions cost. `sizes`: of heap and stable memory before, 64 KiB pages.
    #[must_use]
    pub fn is_as_expected(&self, sizes: [u64; 2]) -> bool {
        self.effects.as_ref().is_some_and(Effects::are_foreseen)
            && self.logs.is_empty()
            && [self.heap_pages, self.stable_pages] == sizes
    }
}

/// A warm instance. It runs on a stack of its own.
///
/// After [`Instance::new`], [`Instance::run`] makes no system call but mprotect(2) (heap and overlay
/// growth), rt_sigreturn(2) (a trap by signal) and what the allocator needs for payloads, log lines,
/// calls and page tables.
pub struct Instance {
    pub(crate) store: Store<Data>,
    pub(crate) raw: RawInstance,
    state: State,
    /// Heap pages of record.
    heap: PageTable,
    /// Heap pages as runs left them that [`Instance::carry_on`] went on from: of record, and in no slot yet.
    carried: BTreeMap<u64, Arc<Page>>,
    globals: Arc<[GlobalValue]>,
}

enum State {
    /// Equal to what the last update, or the start, said, and to what was carried on since.
    Ready,
    /// Has run and keeps what it wrote until the next update names each page, or the next run goes on from it;
    /// both ascending.
    Written { heap: Vec<u64>, stable: Vec<u64> },
    /// Something failed, or its run can't be undone in place.
    Dead,
}

/// What the store holds for the System API.
pub(crate) struct Data {
    pub(crate) shape: Shape,
    pub(crate) stable: Stable,
    /// Whether the node grows a memory, not the guest.
    pub(crate) host_growth: bool,
    handles: Option<Handles>,
    run: Option<Box<Run>>,
}

/// Exports of the instrumented module.
#[derive(Clone)]
pub(crate) struct Handles {
    pub(crate) memory: Option<Memory>,
    pub(crate) bookkeeping: Memory,
    pub(crate) table: Option<Table>,
    counter: native::Counter,
    globals: Arc<[Global]>,
}

impl Data {
    pub(crate) fn handles(&self) -> &Handles {
        self.handles.as_ref().expect("set when the instance was made")
    }

    pub(crate) fn run(&self) -> &Run {
        self.run.as_ref().expect("guests call only while a message runs")
    }

    pub(crate) fn run_mut(&mut self) -> &mut Run {
        self.run.as_mut().expect("guests call only while a message runs")
    }

    /// Instructions left.
    pub(crate) fn counter(&self) -> i64 {
        self.handles().counter.get(self)
    }

    pub(crate) fn set_counter(&mut self, instructions: i64) {
        let counter = self.handles().counter;
        counter.set(self, instructions);
    }
}

impl Instance {
    /// Makes an instance with the memory of `start`, whose pages lie in `base`. Long runs of pages cost a
    /// mapping each, short ones a copy.
    ///
    /// The owner keeps the versions in the slots that it names here and in [`Instance::sync`] alive until an
    /// update replaces them: the instance reads them when it likes.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when the kernel refuses memory or a mapping;
    /// [`EngineError::Instance`] when code and shape don't fit together; [`EngineError::Sync`] when `start` is not
    /// of that shape.
    pub fn new(code: &Code, shape: Shape, base: Base<'_>, start: &Update) -> Result<Self, EngineError> {
        let failed = EngineError::instance;
        let Base { window, files, bytes_max, mappings_max } = base;
        let data = Data { shape, stable: Stable::new(window), host_growth: true, handles: None, run: None };
        let mut store = Store::new(code.engine.raw(), data);
        store.limiter(|data| data);
        let raw = whole(code.pre.instantiate_async(&mut store))?.map_err(failed)?;
        let handles = handles(&mut store, &raw)?;
        store.data_mut().handles = Some(handles);
        Stable::reserve(&mut store)?;
        // Entering once makes the instance's stack and the thread's signal stack, before a worker is locked.
        let nothing = Func::wrap(&mut store, || {});
        whole(nothing.call_async(&mut store, &[], &mut []))?.map_err(failed)?;
        store.data_mut().host_growth = false;
        let mut instance = Self {
            store,
            raw,
            state: State::Dead,
            heap: PageTable::default(),
            carried: BTreeMap::new(),
            globals: Arc::default(),
        };
        instance.grow_heap(start.heap_pages)?;
        instance.set_globals(&start.globals)?;
        instance.set_stable_size(start.stable_pages)?;
        require_ascending("heap", &start.heap, start.heap_pages)?;
        require_ascending("stable memory", &start.stable, start.stable_pages)?;
        instance.heap = PageTable::new(&start.heap);
        instance.store.data_mut().stable.table = PageTable::new(&start.stable);
        let (mapped, copied) = mapped_and_copied(&start.heap, mappings_max);
        for run in mapped {
            let heap = instance.store.data().handles().memory;
            let heap = heap.ok_or_else(|| EngineError::Sync("there is no heap".into()))?;
            native::map_heap(&mut instance.store, heap, &files, bytes_max, run)?;
        }
        for (page, _) in copied.into_iter().flat_map(PageUpdate::pages) {
            instance.load_heap_page(page).map_err(EngineError::Sync)?;
        }
        instance.state = State::Ready;
        Ok(instance)
    }

    /// Brings the instance up to date: sizes, globals, pages. Every page that was written and kept since the last
    /// update must be named. A memory can't shrink: that takes a new instance.
    ///
    /// # Errors
    /// [`EngineError::Sync`]: the instance is of no use any more.
    pub fn sync(&mut self, update: &Update) -> Result<(), EngineError> {
        match std::mem::replace(&mut self.state, State::Dead) {
            State::Ready => {}
            State::Written { heap, stable } => {
                require_named("heap", &heap, &update.heap)?;
                require_named("stable memory", &stable, &update.stable)?;
            }
            State::Dead => return Err(EngineError::Sync("it is of no use any more".into())),
        }
        let carried: Vec<u64> = std::mem::take(&mut self.carried).into_keys().collect();
        require_named("heap", &carried, &update.heap)?;
        let carried: Vec<u64> =
            std::mem::take(&mut self.store.data_mut().stable.carried).into_keys().collect();
        require_named("stable memory", &carried, &update.stable)?;
        self.grow_heap(update.heap_pages)?;
        self.set_globals(&update.globals)?;
        self.set_stable_size(update.stable_pages)?;
        require_ascending("heap", &update.heap, update.heap_pages)?;
        for run in &update.heap {
            for (page, slot) in run.pages() {
                let first = self.heap.set(page, slot);
                if !run.known {
                    self.load_heap_page(page).map_err(EngineError::Sync)?;
                } else if first {
                    self.own_heap_page(page);
                }
            }
        }
        require_ascending("stable memory", &update.stable, update.stable_pages)?;
        let stable = &mut self.store.data_mut().stable;
        for (page, slot) in update.stable.iter().flat_map(|run| run.pages()) {
            stable.table.set(page, slot);
        }
        stable.forget();
        self.state = State::Ready;
        Ok(())
    }

    /// Makes what the last run left the state that the next one starts from, without an update between. Gives the
    /// pages that it wrote as they are now: those of the heap in the order of [`Ran::heap_dirty`], then those of stable
    /// memory in the order of [`Ran::stable_dirty`].
    ///
    /// [`Instance::copy_stable_page`] has none of them any more. `None`, and nothing has changed, if the instance can't
    /// serve another run.
    pub fn carry_on(&mut self) -> Option<Vec<Arc<[u8; PAGE_BYTES]>>> {
        let (heap, stable) = match &mut self.state {
            State::Ready => (Vec::new(), Vec::new()),
            State::Written { heap, .. } => (std::mem::take(heap), self.store.data().stable.order().to_vec()),
            State::Dead => return None,
        };
        let mut pages: Vec<Arc<Page>> = heap.iter().map(|page| Arc::new(*self.heap_bytes(*page))).collect();
        self.carried.extend(heap.into_iter().zip(pages.iter().cloned()));
        let written: Vec<Arc<Page>> =
            (0..stable.len()).map(|index| Arc::new(*self.stable_bytes(index))).collect();
        pages.extend(written.iter().cloned());
        let memory = &mut self.store.data_mut().stable;
        memory.carried.extend(stable.into_iter().zip(written));
        memory.forget();
        self.state = State::Ready;
        Some(pages)
    }

    /// Runs one entry point until it ends or has used up its slice. What it wrote stays for the owner to pull if
    /// it returned and keeps memory; else the instance has undone it when this returns.
    ///
    /// # Errors
    /// [`EngineError::Run`] for failures around the guest, or if the instance was not brought up to date; it is gone
    /// then.
    pub fn run(self, invocation: Invocation) -> Result<Step, EngineError> {
        if !matches!(self.state, State::Ready) {
            return Err(EngineError::Run("the instance was not brought up to date".into()));
        }
        let run = Run::new(invocation);
        let shared = run.slices.shared();
        Paused { run: Box::pin(self.finish(run)), shared }.go_on()
    }

    async fn finish(mut self, run: Run) -> Ended {
        let ran = self.run_to_end(run).await?;
        Ok((self, ran))
    }

    async fn run_to_end(&mut self, run: Run) -> Result<Ran, EngineError> {
        self.state = State::Dead;
        let heap_before = self.heap_pages();
        let stable_before = self.store.data().stable.wasm_pages;
        self.store.data_mut().set_counter(run.slices.first());
        let entry = run.invocation.entry.clone();
        self.store.data_mut().run = Some(Box::new(run));
        let called = entry::call(self, &entry).await;
        let mut run = self.store.data_mut().run.take().expect("set above");
        // A stack can end between a bulk operation and the marks of its pages: then nobody knows what to undo.
        let overflowed = called.as_ref().is_err_and(trap::is_stack_overflow);
        let trap = called.err().map(trap::ending).transpose().map_err(EngineError::Run)?;

        let heap_dirty = self.take_dirty();
        let stable_dirty = self.store.data().stable.order().to_vec();
        let heap_pages_dirty = heap_dirty.len() as u64;
        let stable_pages_dirty = stable_dirty.len() as u64;
        let instructions = self.charged(&run, heap_pages_dirty);
        let kept = trap.is_none() && returns_memory(&entry);
        let shrink = !kept && self.heap_pages() > heap_before;
        if !kept {
            self.undo(&heap_dirty, stable_before)?;
        }
        let reusable = !shrink
            && !overflowed
            && !self.shape().drops_data
            && !self.heap.is_large()
            && !self.store.data().stable.table.is_large()
            && !stable::overlay_is_large(&mut self.store.as_context_mut());
        let logs = logs(&mut run, trap.as_ref());
        let effects = match &trap {
            Some(_) => None,
            None => {
                self.globals = if kept { self.read_globals() } else { Arc::clone(&self.globals) };
                Some(run.into_effects(Arc::clone(&self.globals)))
            }
        };
        if kept && reusable {
            let mut stable = stable_dirty.clone();
            stable.sort_unstable();
            self.state = State::Written { heap: heap_dirty.clone(), stable };
        } else if reusable {
            self.state = State::Ready;
        }
        Ok(Ran {
            ending: trap.map_or(Ending::Returned, |(trap, _)| Ending::Trapped(trap)),
            instructions,
            logs,
            effects,
            heap_pages: if shrink { heap_before } else { self.heap_pages() },
            stable_pages: self.store.data().stable.wasm_pages,
            heap_dirty: if kept { heap_dirty } else { Vec::new() },
            stable_dirty: if kept { stable_dirty } else { Vec::new() },
            heap_pages_dirty,
            stable_pages_dirty,
            reusable,
        })
    }

    /// Where the heap begins in this process, null if there is none; the same for the instance's life.
    #[must_use]
    pub fn heap_start(&self) -> *const u8 {
        let memory = self.store.data().handles().memory;
        memory.map_or(std::ptr::null(), |memory| memory.data(&self.store).as_ptr())
    }

    /// Where the pages of [`Ran::stable_dirty`] lie one after another; the same for the instance's life.
    #[must_use]
    pub fn stable_start(&self) -> *const u8 {
        self.store.data().stable.overlay().data(&self.store).as_ptr()
    }

    /// Copies heap page `page`.
    ///
    /// # Panics
    /// If the page is outside the heap.
    pub fn copy_heap_page(&self, page: u64, to: &mut [u8; PAGE_BYTES]) {
        to.copy_from_slice(self.heap_bytes(page));
    }

    /// Copies the `index`-th page of [`Ran::stable_dirty`].
    ///
    /// # Panics
    /// If no such page was written.
    pub fn copy_stable_page(&self, index: usize, to: &mut [u8; PAGE_BYTES]) {
        to.copy_from_slice(self.stable_bytes(index));
    }

    fn heap_bytes(&self, page: u64) -> &Page {
        let memory = self.store.data().handles().memory.expect("a page of a heap");
        let at = usize::try_from(page).expect("inside the heap") * PAGE_BYTES;
        memory.data(&self.store)[at..at + PAGE_BYTES].try_into().expect("one page")
    }

    fn heap_bytes_mut(&mut self, page: u64) -> &mut Page {
        let memory = self.store.data().handles().memory.expect("a page of a heap");
        let at = usize::try_from(page).expect("inside the heap") * PAGE_BYTES;
        (&mut memory.data_mut(&mut self.store)[at..at + PAGE_BYTES]).try_into().expect("one page")
    }

    fn stable_bytes(&self, index: usize) -> &Page {
        let stable = &self.store.data().stable;
        assert!(index < stable.order().len(), "a page of the last run");
        stable::overlay_page(stable.overlay().data(&self.store), index as u64)
    }

    /// What it was made to.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.store.data().shape
    }

    fn heap_pages(&self) -> u64 {
        self.store.data().handles().memory.map_or(0, |memory| memory.size(&self.store))
    }

    fn grow_heap(&mut self, pages: u64) -> Result<(), EngineError> {
        let now = self.heap_pages();
        let failed = |why: String| EngineError::Sync(format!("heap from {now} to {pages} pages: {why}"));
        let Some(delta) = pages.checked_sub(now) else { return Err(failed("it can't shrink".into())) };
        if delta == 0 {
            return Ok(());
        }
        let memory = self.store.data().handles().memory.ok_or_else(|| failed("there is no heap".into()))?;
        self.store.data_mut().host_growth = true;
        let grown = memory.grow(&mut self.store, delta);
        self.store.data_mut().host_growth = false;
        grown.map(drop).map_err(|error| failed(format!("{error:#}")))
    }

    fn set_stable_size(&mut self, pages: u64) -> Result<(), EngineError> {
        let pages_max = self.shape().stable_pages_max;
        let stable = &mut self.store.data_mut().stable;
        if pages < stable.wasm_pages || pages > pages_max {
            let now = stable.wasm_pages;
            return Err(EngineError::Sync(format!(
                "stable memory from {now} to {pages} of {pages_max} pages"
            )));
        }
        stable.wasm_pages = pages;
        Ok(())
    }

    /// Makes sure that a page is this instance's own, and not still the arena's. Code counts as having written
    /// a page that the processor has not: the compiler leaves out the store of a value to where it was just
    /// read, and memmove(3) from a place to itself does nothing.
    fn own_heap_page(&mut self, page: u64) {
        let Some(memory) = self.store.data().handles().memory else { return };
        let Ok(page) = usize::try_from(page) else { return };
        if let Some(byte) = memory.data_mut(&mut self.store).get_mut(page * PAGE_BYTES) {
            *byte = std::hint::black_box(*byte);
        }
    }

    /// Copies a heap page of record into place.
    fn load_heap_page(&mut self, page: u64) -> Result<(), String> {
        let memory = self.store.data().handles().memory.ok_or("there is no heap")?;
        let (heap, data) = memory.data_and_store_mut(&mut self.store);
        let at = usize::try_from(page).map_err(|_| "page outside the heap")? * PAGE_BYTES;
        let to: &mut Page = (&mut heap[at..at + PAGE_BYTES]).try_into().expect("one page");
        match self.heap.get(page) {
            Some(slot) => data.stable.window.read(slot, to).ok_or_else(|| format!("slot {slot} is outside")),
            None => {
                to.fill(0);
                Ok(())
            }
        }
    }

    fn set_globals(&mut self, values: &Arc<[GlobalValue]>) -> Result<(), EngineError> {
        let globals = Arc::clone(&self.store.data().handles().globals);
        if globals.len() != values.len() {
            let (have, got) = (globals.len(), values.len());
            return Err(EngineError::Sync(format!("{got} globals for {have}")));
        }
        for (global, &value) in globals.iter().zip(values.iter()) {
            let set = global.set(&mut self.store, to_val(value));
            set.map_err(|error| EngineError::Sync(format!("global: {error:#}")))?;
        }
        self.globals = Arc::clone(values);
        Ok(())
    }

    fn read_globals(&mut self) -> Arc<[GlobalValue]> {
        let globals = Arc::clone(&self.store.data().handles().globals);
        globals.iter().map(|global| from_val(&global.get(&mut self.store))).collect()
    }

    /// Instructions used, with the charge for written heap pages.
    fn charged(&self, run: &Run, heap_pages: u64) -> Instructions {
        let each = if self.shape().memory64 { 4_000 } else { 1_000 };
        let used = run.slices.used(self.store.data().counter());
        used.saturating_add(heap_pages.saturating_mul(each)).min(run.invocation.instructions_max)
    }

    /// Heap pages written since the last call, ascending; the map is clear afterwards.
    fn take_dirty(&mut self) -> Vec<u64> {
        let heap_pages_max = self.shape().heap_pages_max;
        let map = self.store.data().handles().bookkeeping;
        let mut pages = DirtyMap::new(map.data_mut(&mut self.store), heap_pages_max).take();
        let inside = self.heap_pages() * PAGES_PER_WASM_PAGE;
        pages.truncate(pages.partition_point(|page| *page < inside));
        pages
    }

    /// Brings pages, globals and stable memory back to what they were before the run.
    fn undo(&mut self, heap_dirty: &[u64], stable_pages: u64) -> Result<(), EngineError> {
        for &page in heap_dirty {
            match self.carried.get(&page).cloned() {
                Some(carried) => *self.heap_bytes_mut(page) = *carried,
                None => self.load_heap_page(page).map_err(EngineError::Run)?,
            }
        }
        let globals = Arc::clone(&self.globals);
        self.set_globals(&globals)?;
        let stable = &mut self.store.data_mut().stable;
        stable.wasm_pages = stable_pages;
        stable.forget();
        Ok(())
    }
}

/// How far a run is.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one and is moved, not stored")]
pub enum Step {
    /// It ended.
    Finished(Instance, Ran),
    /// It used up its slice.
    Paused(Paused),
}

/// A run between two slices, with its instance. Dropping it gives both up.
pub struct Paused {
    run: Pin<Box<dyn Future<Output = Ended> + Send>>,
    shared: Arc<slices::Shared>,
}

type Ended = Result<(Instance, Ran), EngineError>;

impl Paused {
    /// Instructions used so far.
    #[must_use]
    pub fn instructions(&self) -> Instructions {
        self.shared.used()
    }

    /// Goes on with `slice` more instructions, less those that the last slice took too many.
    ///
    /// # Errors
    /// As [`Instance::run`].
    pub fn resume(self, slice: Instructions) -> Result<Step, EngineError> {
        self.shared.grant(slice);
        self.go_on()
    }

    fn go_on(mut self) -> Result<Step, EngineError> {
        match slices::poll(self.run.as_mut()) {
            Poll::Ready(ended) => ended.map(|(instance, ran)| Step::Finished(instance, ran)),
            Poll::Pending => Ok(Step::Paused(self)),
        }
    }
}

impl std::fmt::Debug for Paused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paused").field("instructions", &self.instructions()).finish_non_exhaustive()
    }
}

/// What can't pause: no guest code runs.
fn whole<T>(future: impl Future<Output = T>) -> Result<T, EngineError> {
    match slices::poll(pin!(future)) {
        Poll::Ready(result) => Ok(result),
        Poll::Pending => Err(EngineError::Instance("something paused that has no slices".into())),
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("shape", self.shape()).finish_non_exhaustive()
    }
}

fn logs(run: &mut Run, trap: Option<&(Trap, String)>) -> Vec<LogLine> {
    if let Some((_, record)) = trap {
        run.logs.push(format!("[TRAP]: {record}").into_bytes());
    }
    run.logs.take()
}

/// The runs that are mapped, at most `count_max`, and those that are copied. A new heap is zero already.
fn mapped_and_copied(start: &[PageUpdate], count_max: usize) -> (Vec<PageUpdate>, Vec<PageUpdate>) {
    let mut runs: Vec<PageUpdate> = start.iter().copied().filter(|run| run.slot.is_some()).collect();
    runs.sort_unstable_by_key(|run| Reverse(run.count));
    let long = runs.partition_point(|run| run.count >= RUN_PAGES_MIN);
    let copied = runs.split_off(long.min(count_max));
    (runs, copied)
}

fn require_ascending(what: &str, updates: &[PageUpdate], wasm_pages: u64) -> Result<(), EngineError> {
    let mut next = 0;
    for update in updates {
        let end = update.end().filter(|end| *end <= wasm_pages.saturating_mul(PAGES_PER_WASM_PAGE));
        let Some(end) = end.filter(|_| update.page >= next) else {
            return Err(EngineError::Sync(format!("{what} page {} is outside or out of order", update.page)));
        };
        next = end;
    }
    Ok(())
}

/// Both lists are ascending.
fn require_named(what: &str, written: &[u64], updates: &[PageUpdate]) -> Result<(), EngineError> {
    let mut updates = updates.iter().peekable();
    for page in written {
        while updates.next_if(|update| update.end().is_some_and(|end| end <= *page)).is_some() {}
        if updates.peek().is_none_or(|update| update.page > *page) {
            return Err(EngineError::Sync(format!("{what} page {page} was written and isn't named")));
        }
    }
    Ok(())
}

fn handles(store: &mut Store<Data>, raw: &RawInstance) -> Result<Handles, EngineError> {
    let missing = |what: &str| EngineError::Instance(format!("the code has no {what}"));
    let memory = raw.get_memory(&mut *store, "memory");
    let shape = store.data().shape.clone();
    let bookkeeping = raw
        .get_memory(&mut *store, "canister bookkeeping")
        .filter(|memory| {
            memory.data_size(store.as_context()) as u64 >= bookkeeping::bytes(shape.heap_pages_max)
        })
        .ok_or_else(|| missing("bookkeeping memory of the stated shape"))?;
    if memory.is_some() != shape.has_memory {
        return Err(missing("heap of the stated shape"));
    }
    let globals = shape.globals.iter().enumerate().map(|(index, value)| {
        let global = raw.get_global(&mut *store, &format!("global {index}"))?;
        from_val(&global.get(&mut *store)).same_type(*value).then_some(global)
    });
    let globals =
        globals.collect::<Option<Vec<_>>>().ok_or_else(|| missing("globals of the stated shape"))?;
    let table = raw.get_table(&mut *store, "table");
    let counter = native::Counter::new(store, bookkeeping);
    Ok(Handles { memory, bookkeeping, table, counter, globals: globals.into() })
}

fn to_val(value: GlobalValue) -> Val {
    match value {
        GlobalValue::I32(value) => Val::I32(value),
        GlobalValue::I64(value) => Val::I64(value),
        GlobalValue::F32(bits) => Val::F32(bits),
        GlobalValue::F64(bits) => Val::F64(bits),
        GlobalValue::V128(bits) => Val::V128(bits.into()),
    }
}

fn from_val(value: &Val) -> GlobalValue {
    match *value {
        Val::I32(value) => GlobalValue::I32(value),
        Val::I64(value) => GlobalValue::I64(value),
        Val::F32(bits) => GlobalValue::F32(bits),
        Val::F64(bits) => GlobalValue::F64(bits),
        Val::V128(bits) => GlobalValue::V128(bits.into()),
        // Reference-typed globals are refused by validation.
        _ => GlobalValue::I32(0),
    }
}

/// Growth of a memory, by the guest (`memory.grow` of the heap) or by the node.
impl ResourceLimiter for Data {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, wasmtime::Error> {
        let fits = maximum.is_none_or(|maximum| desired <= maximum);
        if self.host_growth || !fits {
            return Ok(fits);
        }
        let (bytes, desired) = ((desired - current) as u64, desired as u64);
        let run = self.run_mut();
        let limit = run.invocation.system.wasm_memory_limit;
        if limit != 0 && desired > limit && run.context.enforces_memory_limit() {
            return Err(Stop::wasm_memory_limit(desired, limit).into());
        }
        if bytes > run.subnet_memory_free() {
            return Err(Stop::subnet_memory().into());
        }
        if let Some(missing) = run.cycles_missing_to_grow(bytes) {
            return Err(Stop::memory_cycles(bytes, missing).into());
        }
        run.grown_bytes += bytes;
        Ok(true)
    }

    /// The kernel has no memory: nothing that a guest may see.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> Result<(), wasmtime::Error> {
        Err(Stop::Host(format!("growing a memory: {error:#}")).into())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, wasmtime::Error> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }
}
