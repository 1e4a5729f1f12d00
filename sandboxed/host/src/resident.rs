//! A worker with a canister in it, and what it holds.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use execution::check::check;
use execution::memory::{
    Arena, Memory, PAGE_BYTES, PageUpdate, PageVersion, SEGMENTS_MAX, StagedPages, WASM_PAGE_BYTES,
};
use execution::{
    BackendError, EntryPoint, GlobalValue, Invocation, Limits, MemoryDelta, Module, Outcome, Principal,
    Snapshot,
};
use sandbox_os::PACKET_FILES_MAX;
use sandbox_os::pull::{PullError, Span};
use sandbox_protocol::{
    BATCH_INSTRUCTIONS_MAX, BATCH_MAX, Execute, List, Load, Loaded, PAGES_MAX, PAGES_PER_REPLY, PageRun,
    Pages, Sync, ToNode, ToWorker, globals, page_runs,
};

use crate::claims::{Answered, Bounds, Claims, answered};
use crate::fault::{Kind, Result, violation};
use crate::pace::{Pace, Patience, Work};
use crate::status::Role;
use crate::worker::{Worker, unexpected};

const _: () = assert!(PACKET_FILES_MAX > SEGMENTS_MAX, "code and all segments go in one packet");

/// A worker past its RUN lock, and a mirror of its memory. The mirror keeps the page versions whose slots the
/// worker knows, so that none is recycled under it.
#[derive(Debug)]
pub(crate) struct Resident {
    worker: Worker,
    module: Arc<Module>,
    arena: Arc<Arena>,
    /// Segments of the arena that it has mapped.
    segments: usize,
    /// Where its memory is.
    loaded: Loaded,
    /// Bytes of heap, and of written stable pages, that were looked at there.
    verified: [u64; 2],
    /// Limits that it was sent last.
    limits: Option<Arc<Limits>>,
    stable_pages_max: u64,
    /// What it was last brought to.
    heap: Held,
    stable: Held,
    /// Mutable globals as its last run left them.
    globals: Arc<[GlobalValue]>,
}

#[derive(Debug, Default)]
struct Held {
    memory: Memory,
    /// Size now, in 64 KiB pages.
    wasm_pages: u64,
    /// Pages that its runs wrote and kept since, and where they were copied to, `None` if they weren't; ascending.
    written: Vec<(u64, Option<PageVersion>)>,
}

/// A run that a worker has begun.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) target: Snapshot,
    pub(crate) bounds: Bounds,
    pub(crate) pace: Pace,
    pub(crate) patience: Patience,
}

/// What came of a request to run, as far as the worker tells.
pub(crate) struct Executed {
    pub(crate) answer: Answered,
    pub(crate) run: Run,
    /// Of messages that were run behind it.
    pub(crate) behind: VecDeque<(Answered, Bounds)>,
    pub(crate) resident: Resident,
}

/// Bytes that messages behind the first may add to a request, arguments above all: a frame has room for far more.
const EXPECTED_BYTES_MAX: usize = 256 << 10;
/// Bytes of a callee and the number of its slots that are taken.
const QUEUE_TAKEN_BYTES: usize = 48;

/// As many of the messages behind the first as one request takes.
fn fitting(expected: &[Invocation]) -> &[Invocation] {
    let payload = |entry: &EntryPoint| match entry {
        EntryPoint::Update { method, arg } | EntryPoint::ReplicatedQuery { method, arg } => {
            method.len().saturating_add(arg.len())
        }
        EntryPoint::Reply { data, .. } => data.len(),
        EntryPoint::Reject { message, .. } => message.len(),
        _ => 0,
    };
    let bytes = |invocation: &Invocation| {
        let queues = invocation.system.queue_taken.len().saturating_mul(QUEUE_TAKEN_BYTES);
        payload(&invocation.entry).saturating_add(queues)
    };
    let mut left = EXPECTED_BYTES_MAX;
    let fit = expected.iter().take(BATCH_MAX - 1).take_while(|invocation| {
        let after = left.checked_sub(bytes(invocation));
        left = after.unwrap_or(0);
        after.is_some()
    });
    let count = fit.count();
    &expected[..count]
}

/// How a run stands.
pub(crate) enum Step {
    Finished(Outcome, Option<Resident>),
    Paused(Resident, Run),
}

/// Memory that a worker may take at most, bytes: never less than its canister may use. Beside heap and written stable
/// pages there are the C heap (512 MiB), stacks, code, and page tables, which take up to an eighth where one page of
/// each 32 KiB is used.
fn memory_bytes_max([heap, stable]: [u64; 2]) -> u64 {
    let pages = heap.saturating_add(stable);
    pages.saturating_add(pages / 8).saturating_add(1 << 30)
}

impl Step {
    /// Comes to the judgement that `commit` will come to, now that the worker can still be ended for it:
    /// the message is run again, and must not meet the same worker.
    pub(crate) fn judged(self, target: &Snapshot, invocation: &Invocation) -> Result<Self> {
        Ok(match self {
            Self::Finished(outcome, resident) => {
                Self::Finished(check(invocation, target, outcome)?.into_outcome(), resident)
            }
            paused @ Self::Paused(..) => paused,
        })
    }
}

impl Resident {
    /// Loads a canister into a fresh worker.
    pub(crate) fn load(
        worker: Worker,
        role: Role,
        target: &Snapshot,
        limits: &Limits,
        patience: Duration,
    ) -> Result<Self> {
        let interface = &target.module.interface;
        let stable_pages_max = limits.stable_bytes / WASM_PAGE_BYTES;
        let load = Load {
            memory64: interface.memory64,
            has_memory: interface.has_memory,
            heap_pages_max: interface.heap_pages_max,
            stable_pages_max,
            drops_data: interface.drops_data,
            globals: globals(&interface.globals),
            arena_bytes: target.arena.bytes_max(),
            start: sync(target, target.heap.updates(), target.stable.updates())?,
        };
        let segments: Vec<_> = target.arena.files().collect();
        let files: Vec<_> =
            std::iter::once(target.module.code.file()).chain(segments.iter().copied()).collect();
        let heap_bytes = if interface.has_memory { interface.heap_pages_max * WASM_PAGE_BYTES } else { 0 };
        let stable_pages = limits.stable_access_pages.into_iter().max().unwrap_or(0);
        let verified = [heap_bytes, stable_pages.saturating_mul(PAGE_BYTES as u64)];
        let most = memory_bytes_max(verified);
        worker.process().limit_memory(most).map_err(|error| {
            BackendError::Spawn(format!("a control group with {most} bytes of memory: {error}"))
        })?;
        let (loaded, worker) = worker.load(load, &files, verified, patience)?;
        worker.registered().serves(target.canister, role);
        Ok(Self {
            worker,
            module: Arc::clone(&target.module),
            arena: Arc::clone(&target.arena),
            segments: segments.len(),
            loaded,
            verified,
            limits: None,
            stable_pages_max,
            heap: Held::at(&target.heap),
            stable: Held::at(&target.stable),
            globals: Arc::clone(&target.globals),
        })
    }

    /// Whether it can be brought to `target`: new code, another arena, a segment that it hasn't mapped and a
    /// smaller memory take a new worker.
    pub(crate) fn can_follow(&self, target: &Snapshot, limits: &Limits) -> bool {
        Arc::ptr_eq(&self.arena, &target.arena)
            && self.segments == target.arena.segments()
            && (Arc::ptr_eq(&self.module, &target.module) || self.module.hash == target.module.hash)
            && self.heap.wasm_pages <= target.heap.wasm_pages()
            && self.stable.wasm_pages <= target.stable.wasm_pages()
            && self.stable_pages_max == limits.stable_bytes / WASM_PAGE_BYTES
    }

    /// Whether it is at `target` without being brought there.
    pub(crate) fn is_at(&self, target: &Snapshot, limits: &Limits) -> bool {
        self.can_follow(target, limits)
            && self.heap.is(&target.heap)
            && self.stable.is(&target.stable)
            && self.globals == target.globals
    }

    /// Brings the worker to `target` and runs; perhaps also what is `expected` behind that.
    pub(crate) fn execute(
        mut self,
        target: &Snapshot,
        invocation: &Invocation,
        expected: &[Invocation],
        pace: Pace,
    ) -> Result<Executed> {
        let expected = fitting(expected);
        let sync = sync(target, self.heap.changes(&target.heap), self.stable.changes(&target.stable))?;
        let synced = pages_of(&sync);
        let known = self
            .limits
            .as_ref()
            .is_some_and(|limits| Arc::ptr_eq(limits, &invocation.limits) || **limits == *invocation.limits);
        let limits = (!known).then_some(&*invocation.limits);
        let request = ToWorker::Execute(Box::new(Execute {
            sync,
            invocation: sandbox_protocol::Invocation::new(invocation, limits),
            expected: expected.iter().map(|next| sandbox_protocol::Invocation::new(next, None)).collect(),
        }));
        let first = Bounds::new(target, invocation);
        let others = expected.iter().map(|next| Bounds::new(target, next));
        let bounds: Vec<Bounds> = std::iter::once(first).chain(others).collect();
        // Those that the last message is run behind take no more instructions than a batch may; that one has its slice.
        let pages = bounds.iter().map(|bounds| bounds.work(synced).pages).max().unwrap_or(0);
        let instructions = if expected.is_empty() { 0 } else { BATCH_INSTRUCTIONS_MAX };
        let patience = pace.run(first.work(synced).and(Work { instructions, pages, bytes: 0 }));
        self.worker.place_here();
        let read = |reply: ToNode<'_>| answered(reply, &bounds);
        let ((answer, behind), worker) = self.worker.call(invocation.id, &request, &[], patience, read)?;
        let resident = Self {
            worker,
            limits: Some(Arc::clone(&invocation.limits)),
            heap: Held::at(&target.heap),
            stable: Held::at(&target.stable),
            globals: Arc::clone(&target.globals),
            ..self
        };
        let behind: VecDeque<_> = behind.into_iter().zip(bounds.into_iter().skip(1)).collect();
        let claimed = behind.iter().fold(first.claimed(&answer, synced), |work, (answer, bounds)| {
            work.and(bounds.claimed(answer, 0))
        });
        resident.in_time(claimed, pace)?;
        let run = Run { id: invocation.id, target: target.clone(), bounds: first, pace, patience };
        Ok(Executed { answer, run, behind, resident })
    }

    /// Asks for none of the pages that the last run wrote; says how long that took. A worker between two runs answers it
    /// with nothing.
    pub(crate) fn round_trip(mut self, id: u64, patience: Duration) -> Result<(Duration, Self)> {
        self.worker.place_here();
        let request = ToWorker::Pages(Pages { stable: false, first: 0, count: 0 });
        let read = |reply: ToNode<'_>| match reply {
            ToNode::Pages(bytes) if bytes.0.is_empty() => Ok(()),
            ToNode::Pages(_) => Err(violation(Kind::Claim, "pages where none were asked for")),
            other => Err(unexpected(&other, "pages")),
        };
        let start = Instant::now();
        let ((), worker) = self.worker.call(id, &request, &[], Patience::step(patience), read)?;
        Ok((start.elapsed(), Self { worker, ..self }))
    }

    /// The worker without what it ran of `behind`; `None` if it can't go back.
    pub(crate) fn without(mut self, behind: impl IntoIterator<Item = Answered>) -> Option<Self> {
        for answer in behind {
            let Answered::Finished(claims) = answer else { return None };
            let Claims { heap, mut stable, heap_pages, stable_pages, reusable, .. } = *claims;
            stable.sort_unstable();
            if !reusable {
                return None;
            }
            self.heap.wrote(heap_pages, heap.into_iter().map(|page| (page, None)));
            self.stable.wrote(stable_pages, stable.into_iter().map(|page| (page, None)));
        }
        Some(self)
    }

    /// Goes on with a paused run.
    pub(crate) fn resume(mut self, run: Run, slice: u64) -> Result<(Answered, Self, Run)> {
        let run = Run { bounds: run.bounds.resumed(slice), ..run };
        self.worker.place_here();
        let read = |reply: ToNode<'_>| answered(reply, std::slice::from_ref(&run.bounds));
        let request = ToWorker::Resume { slice };
        let ((answer, _none), worker) = self.worker.call(run.id, &request, &[], run.patience, read)?;
        let resident = Self { worker, ..self };
        resident.in_time(run.bounds.claimed(&answer, 0), run.pace)?;
        Ok((answer, resident, run))
    }

    /// Holds what an answer claims against the processor time that it took, if it took long.
    fn in_time(&self, claimed: Work, pace: Pace) -> Result<()> {
        let taken = self.worker.overtime();
        if taken.is_zero() {
            return Ok(());
        }
        let work = Work { bytes: self.worker.bytes(), ..claimed };
        let explained = pace.explained(work);
        if taken <= explained {
            return Ok(());
        }
        let text = format!(
            "{} ms of processor time for {} instructions, which explain {} ms",
            taken.as_millis(),
            work.instructions,
            explained.as_millis()
        );
        Err(violation(Kind::Time, text))
    }

    /// Takes an answer: copies the pages that the run wrote, and makes the outcome.
    pub(crate) fn take(mut self, answer: Answered, run: Run) -> Result<Step> {
        let claims = match answer {
            Answered::Paused(used) => {
                let bounds = run.bounds.paused(used);
                return Ok(Step::Paused(self, Run { bounds, ..run }));
            }
            Answered::Finished(claims) => *claims,
        };
        let (heap, stable) = if claims.heap.is_empty() && claims.stable.is_empty() {
            (Vec::new(), Vec::new())
        } else {
            let staged;
            (staged, self) = self.copy(&claims, &run)?;
            let mut versions = staged.finish().into_iter();
            let heap = claims.heap.iter().copied().zip(versions.by_ref()).collect();
            let mut stable: Vec<_> = claims.stable.iter().copied().zip(versions).collect();
            stable.sort_unstable_by_key(|(page, _)| *page);
            (heap, stable)
        };
        let mut outcome = claims.outcome;
        if let Some(effects) = &mut outcome.effects {
            let sizes = [claims.heap_pages, claims.stable_pages];
            effects.memory = MemoryDelta::of(&run.target, sizes, heap.clone(), stable.clone());
            if run.bounds.keeps {
                self.globals = Arc::clone(&effects.globals);
            }
        }
        let copied = |(page, version)| (page, Some(version));
        self.heap.wrote(claims.heap_pages, heap.into_iter().map(copied));
        self.stable.wrote(claims.stable_pages, stable.into_iter().map(copied));
        Ok(Step::Finished(outcome, claims.reusable.then_some(self)))
    }

    /// Copies the claimed pages into free slots of the arena: heap first, then stable memory. The slots go back
    /// if anything fails.
    fn copy(mut self, claims: &Claims, run: &Run) -> Result<(StagedPages, Self)> {
        let (heap, stable) = (claims.heap.len(), claims.stable.len());
        let mut staged = self.arena.stage(heap.saturating_add(stable))?;
        if let Some(pages) = &claims.pages {
            for (place, page) in pages.iter().enumerate() {
                *staged.page_mut(place) = *page;
            }
            return Ok((staged, self));
        }
        let bytes = |pages: u64| pages.saturating_mul(PAGE_BYTES as u64);
        let heap_end = claims.heap.last().map_or(0, |page| bytes(page.saturating_add(1)));
        if heap_end > self.verified[0] || bytes(stable as u64) > self.verified[1] {
            return Err(violation(Kind::Claim, "written pages beyond the memory that was seen"));
        }
        let mut from: Vec<Span> = claims
            .heap
            .chunk_by(|a, b| a.checked_add(1) == Some(*b))
            .map(|run| Span {
                // Inside the range that was verified, so below its end.
                address: self.loaded.heap + run[0] * PAGE_BYTES as u64,
                bytes: run.len() * PAGE_BYTES,
            })
            .collect();
        from.push(Span { address: self.loaded.stable, bytes: stable * PAGE_BYTES });
        match self.worker.process().pull(&from, staged.ranges_mut()) {
            Ok(()) => {}
            Err(PullError::Refused) => {
                self = self.ask_for(false, 0..heap, &mut staged, run)?;
                self = self.ask_for(true, heap..heap + stable, &mut staged, run)?;
            }
            Err(error @ PullError::Unmapped) => return Err(violation(Kind::Claim, error.to_string())),
            Err(PullError::Gone) => return Err(self.worker.died()),
            Err(error @ PullError::Os(_)) => return Err(BackendError::Engine(error.to_string()).into()),
        }
        Ok((staged, self))
    }

    /// Where the node has no right to read the worker's memory: asks for the pages through the socket, to be put
    /// into the staged pages of `places`.
    fn ask_for(
        mut self,
        stable: bool,
        places: Range<usize>,
        staged: &mut StagedPages,
        run: &Run,
    ) -> Result<Self> {
        let mut first = 0_u32;
        let mut next = places.start;
        while next < places.end {
            let end = places.end.min(next + PAGES_PER_REPLY as usize);
            let count = u32::try_from(end - next).unwrap_or(PAGES_PER_REPLY);
            let request = ToWorker::Pages(Pages { stable, first, count });
            let read = |reply: ToNode<'_>| match reply {
                ToNode::Pages(bytes) => {
                    let (pages, rest) = bytes.0.as_chunks::<PAGE_BYTES>();
                    if pages.len() != end - next || !rest.is_empty() {
                        return Err(violation(Kind::Claim, "another number of pages than were asked for"));
                    }
                    for (place, page) in (next..end).zip(pages) {
                        staged.page_mut(place).copy_from_slice(page);
                    }
                    Ok(())
                }
                other => Err(unexpected(&other, "pages")),
            };
            let ((), worker) = self.worker.call(run.id, &request, &[], run.patience, read)?;
            self = Self { worker, ..self };
            first = first.saturating_add(count);
            next = end;
        }
        Ok(self)
    }
}

/// What brings a worker to `target`, for the wire.
fn sync(target: &Snapshot, heap: Vec<PageUpdate>, stable: Vec<PageUpdate>) -> Result<Sync> {
    Ok(Sync {
        heap_pages: target.heap.wasm_pages(),
        stable_pages: target.stable.wasm_pages(),
        globals: globals(&target.globals),
        heap: sendable(heap)?,
        stable: sendable(stable)?,
    })
}

/// Pages that a worker has to bring up to date.
fn pages_of(sync: &Sync) -> u64 {
    let runs = sync.heap.0.iter().chain(&sync.stable.0).filter(|run| !run.known);
    runs.fold(0, |pages, run| pages.saturating_add(run.count.into()))
}

/// Runs for the wire, unless the memory is too scattered for that: more than 4 million runs of pages.
fn sendable(updates: Vec<PageUpdate>) -> Result<List<PageRun, PAGES_MAX>> {
    if updates.len() > PAGES_MAX {
        let detail = format!("a memory in {} runs of pages, at most {PAGES_MAX} can be sent", updates.len());
        return Err(BackendError::Engine(detail).into());
    }
    Ok(page_runs(updates))
}

impl Held {
    fn at(memory: &Memory) -> Self {
        Self { memory: memory.clone(), wasm_pages: memory.wasm_pages(), written: Vec::new() }
    }

    /// Takes in what a run left, pages ascending.
    fn wrote(&mut self, wasm_pages: u64, written: impl Iterator<Item = (u64, Option<PageVersion>)>) {
        self.wasm_pages = wasm_pages;
        if self.written.is_empty() {
            self.written = written.collect();
        } else {
            let mut all: BTreeMap<_, _> = std::mem::take(&mut self.written).into_iter().collect();
            all.extend(written);
            self.written = all.into_iter().collect();
        }
    }

    /// Whether the worker has it as `now` is.
    fn is(&self, now: &Memory) -> bool {
        self.wasm_pages == now.wasm_pages() && self.changes(now).iter().all(|update| update.known)
    }

    /// What brings the worker to `now`: pages that differ from what it was brought to, and all that it wrote
    /// since. Those whose committed version is the copy of what it wrote, it has already.
    fn changes(&self, now: &Memory) -> Vec<PageUpdate> {
        let wrote = |page: u64| {
            let at = self.written.binary_search_by_key(&page, |written| written.0).ok()?;
            self.written.get(at)?.1.as_ref()
        };
        let state = |page: u64, version: Option<&PageVersion>| {
            let known = version.zip(wrote(page)).is_some_and(|(version, written)| version.same(written));
            PageUpdate::one(page, version.map(PageVersion::slot), known)
        };
        let changes = now.changes_since(&self.memory);
        let mut pages: Vec<PageUpdate> =
            changes.iter().map(|change| state(change.page, change.version.as_ref())).collect();
        let changed = pages.len();
        for (page, _) in &self.written {
            // Given up, or written again with what was there: the worker must forget what it wrote.
            if changes.binary_search_by_key(page, |change| change.page).is_err() {
                pages.push(state(*page, now.page(*page)));
            }
        }
        if pages.len() > changed {
            pages.sort_unstable_by_key(|state| state.page);
        }
        PageUpdate::join(pages)
    }
}

/// Which canister and role a worker is for.
pub(crate) type Key = (Principal, Role);
