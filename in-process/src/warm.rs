//! A warm instance and what it holds: the snapshot that its last run would make if it is committed.

use std::sync::Arc;

use execution::memory::{Memory, PageUpdate, PageVersion, Window};
use execution::{BackendError, Instructions, Invocation, MemoryDelta, Outcome, Snapshot};

use crate::engine::{Code, EngineError};
use crate::instance::{Base, Instance, Paused, Ran, Shape, Step, Update};

impl From<EngineError> for BackendError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Refused { limit, .. } => Self::Exhausted { limit, detail: error.to_string() },
            other => Self::Engine(other.to_string()),
        }
    }
}

/// Mappings of one heap. Each may have a gap beside it; with 512 instances and 20,000 arenas they are about
/// 40,000 of the 65,530 that the kernel lets a process have (vm.max_map_count).
const MAPPINGS_MAX: usize = 16;

/// An instance with the content of `snapshot`. The snapshot keeps its page versions, so the slots that
/// the instance knows hold them for as long as this lives.
pub(crate) struct Warm {
    // Before the snapshot, whose pages it maps.
    instance: Instance,
    snapshot: Snapshot,
}

impl Warm {
    /// A fresh instance with the content of `snapshot`.
    pub(crate) fn new(code: &Code, snapshot: &Snapshot, stable_pages_max: u64) -> Result<Self, BackendError> {
        let shape = Shape::new(&snapshot.module.interface, stable_pages_max);
        let arena = &snapshot.arena;
        let base = Base {
            window: Window::of(arena),
            files: arena.files().collect(),
            bytes_max: arena.bytes_max(),
            mappings_max: MAPPINGS_MAX,
        };
        let start = Update {
            heap_pages: snapshot.heap.wasm_pages(),
            stable_pages: snapshot.stable.wasm_pages(),
            globals: Arc::clone(&snapshot.globals),
            heap: snapshot.heap.updates(),
            stable: snapshot.stable.updates(),
        };
        let instance = Instance::new(code, shape, base, &start)?;
        Ok(Self { snapshot: snapshot.clone(), instance })
    }

    /// What its last run left, if that is committed.
    pub(crate) fn held(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Brings this instance to `snapshot`; `None` if only a fresh one will do.
    pub(crate) fn follow(mut self, snapshot: &Snapshot) -> Option<Self> {
        let held = &self.snapshot;
        let same = held.canister == snapshot.canister
            && held.module.hash == snapshot.module.hash
            && Arc::ptr_eq(&held.arena, &snapshot.arena)
            && held.heap.wasm_pages() <= snapshot.heap.wasm_pages()
            && held.stable.wasm_pages() <= snapshot.stable.wasm_pages();
        if !same {
            return None;
        }
        let update = update(snapshot, &held.heap, &held.stable);
        self.instance.sync(&update).ok()?;
        self.snapshot = snapshot.clone();
        Some(self)
    }

    /// Runs a message until it ends or has used up its slice.
    pub(crate) fn run(self, invocation: &Invocation) -> Result<Progress, BackendError> {
        let Self { instance, snapshot } = self;
        Progress::of(instance.run(invocation.clone())?, snapshot)
    }

    /// Makes the outcome of a run. Gives the instance back if it can serve another.
    fn end(mut self, mut ran: Ran) -> Result<(Outcome, Option<Self>), BackendError> {
        let (heap, stable) = self.stage(&ran)?;
        let written = |pages: &[(u64, PageVersion)]| -> Vec<PageUpdate> {
            let known =
                |(page, version): &(u64, PageVersion)| PageUpdate::one(*page, Some(version.slot()), true);
            PageUpdate::join(pages.iter().map(known))
        };
        if let Some(effects) = &mut ran.effects {
            let held = &self.snapshot;
            let globals = Arc::clone(&effects.globals);
            if ran.reusable {
                self.instance.sync(&Update {
                    heap_pages: ran.heap_pages,
                    stable_pages: ran.stable_pages,
                    globals: Arc::clone(&globals),
                    heap: written(&heap),
                    stable: written(&stable),
                })?;
            }
            let sizes = [ran.heap_pages, ran.stable_pages];
            effects.memory = MemoryDelta::of(held, sizes, heap.clone(), stable.clone());
            self.snapshot = Snapshot {
                heap: held.heap.with(ran.heap_pages, heap),
                stable: held.stable.with(ran.stable_pages, stable),
                globals,
                ..held.clone()
            };
        }
        let reusable = ran.reusable;
        let outcome = Outcome {
            ending: ran.ending,
            instructions: ran.instructions,
            heap_pages_dirty: ran.heap_pages_dirty,
            stable_pages_dirty: ran.stable_pages_dirty,
            logs: ran.logs,
            effects: ran.effects,
        };
        Ok((outcome, reusable.then_some(self)))
    }

    /// Copies the pages that a run wrote into the canister's arena.
    fn stage(&self, ran: &Ran) -> Result<(Pages, Pages), BackendError> {
        let heap = ran.heap_dirty.len();
        let mut staged = self.snapshot.arena.stage(heap + ran.stable_dirty.len())?;
        for (index, &page) in ran.heap_dirty.iter().enumerate() {
            self.instance.copy_heap_page(page, staged.page_mut(index));
        }
        for index in 0..ran.stable_dirty.len() {
            self.instance.copy_stable_page(index, staged.page_mut(heap + index));
        }
        let mut versions = staged.finish().into_iter();
        let heap = ran.heap_dirty.iter().copied().zip(versions.by_ref()).collect();
        let mut stable: Pages = ran.stable_dirty.iter().copied().zip(versions).collect();
        stable.sort_unstable_by_key(|(page, _)| *page);
        Ok((heap, stable))
    }
}

/// How far a message is.
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one and is moved, not stored")]
pub(crate) enum Progress {
    /// It ended, and the instance, if it can serve another.
    Finished(Outcome, Option<Warm>),
    /// It used up its slice.
    Paused(Halfway),
}

impl Progress {
    fn of(step: Step, snapshot: Snapshot) -> Result<Self, BackendError> {
        match step {
            Step::Finished(instance, ran) => {
                Warm { instance, snapshot }.end(ran).map(|(outcome, warm)| Self::Finished(outcome, warm))
            }
            Step::Paused(run) => Ok(Self::Paused(Halfway { run, snapshot })),
        }
    }
}

/// A message between two slices.
pub(crate) struct Halfway {
    // Before the snapshot, whose pages it maps.
    run: Paused,
    snapshot: Snapshot,
}

impl Halfway {
    pub(crate) fn resume(self, slice: Instructions) -> Result<Progress, BackendError> {
        Progress::of(self.run.resume(slice)?, self.snapshot)
    }
}

type Pages = Vec<(u64, PageVersion)>;

/// What takes an instance with `heap` and `stable` to `snapshot`.
fn update(snapshot: &Snapshot, heap: &Memory, stable: &Memory) -> Update {
    let changes =
        |now: &Memory, before: &Memory| {
            let changes = now.changes_since(before).into_iter();
            PageUpdate::join(changes.map(|change| {
                PageUpdate::one(change.page, change.version.map(|version| version.slot()), false)
            }))
        };
    Update {
        heap_pages: snapshot.heap.wasm_pages(),
        stable_pages: snapshot.stable.wasm_pages(),
        globals: Arc::clone(&snapshot.globals),
        heap: changes(&snapshot.heap, heap),
        stable: changes(&snapshot.stable, stable),
    }
}
