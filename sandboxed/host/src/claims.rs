//! What a worker claims of a run, checked for form and bounds before a number of it is used.
//!
//! `execution::check` decides later whether the effects are ones that this canister could have had. Here it is
//! made sure that sizes, counts and page lists can be worked with.

use std::collections::VecDeque;

use execution::check::{returns_memory, stable_pages_accessible};
use execution::memory::{PAGE_BYTES, WASM_PAGE_BYTES};
use execution::outcome::LogLine;
use execution::{Effects, Ending, Instructions, Invocation, Outcome, Snapshot};
use sandbox_protocol::{
    BATCH_PAGES_MAX, Carried, Finished, Last, Malformed, ToNode, heap_pages, stable_pages,
};

use crate::fault::{Kind, Result, violation};
use crate::pace::Work;
use crate::worker::unexpected;

/// What a written page costs of instructions at least (`canister-execution.md` section 3.3): one of the heap of a
/// 32-bit and of a 64-bit memory, and one of stable memory.
const PAGE_INSTRUCTIONS: [u64; 2] = [1_000, 4_000];
const STABLE_PAGE_INSTRUCTIONS: u64 = 1_000;
const PAGES_PER_WASM_PAGE: u64 = WASM_PAGE_BYTES / PAGE_BYTES as u64;

/// What a run may claim at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Whether pages are wanted.
    pub(crate) keeps: bool,
    /// Instructions of the whole run.
    pub(crate) instructions_max: Instructions,
    /// Instructions of a slice: none takes as many beyond its end.
    slice: Instructions,
    /// Instructions above which it pauses next.
    due: Instructions,
    /// Instructions that it had used when it paused last.
    used: Instructions,
    /// Sizes before the run, and the largest after it, in 64 KiB pages.
    heap: (u64, u64),
    stable: (u64, u64),
    /// Stable pages of 4 KiB that the run may touch.
    stable_accessible: u64,
    /// Instructions that a written heap page costs.
    page_instructions: u64,
}

impl Bounds {
    /// For a run of `invocation` on `target`.
    pub(crate) fn new(target: &Snapshot, invocation: &Invocation) -> Self {
        let limits = &invocation.limits;
        let interface = &target.module.interface;
        let heap_bytes = if interface.memory64 { limits.heap64_bytes } else { limits.heap32_bytes };
        let heap_max = interface.heap_pages_max.min(heap_bytes / WASM_PAGE_BYTES);
        let (heap, stable) = (target.heap.wasm_pages(), target.stable.wasm_pages());
        Self {
            keeps: returns_memory(&invocation.entry),
            instructions_max: invocation.instructions_max,
            slice: invocation.slice,
            due: invocation.slice,
            used: 0,
            heap: (heap, heap_max.max(heap)),
            stable: (stable, (limits.stable_bytes / WASM_PAGE_BYTES).max(stable)),
            stable_accessible: stable_pages_accessible(&invocation.entry, limits),
            page_instructions: PAGE_INSTRUCTIONS[usize::from(interface.memory64)],
        }
    }

    /// What a slice may do at most, in which `synced` pages are brought up to date.
    pub(crate) fn work(&self, synced: u64) -> Work {
        // A slice may begin with what the one before took too much, which is less than another.
        let instructions = self.slice.saturating_mul(2).min(self.instructions_max);
        Work { instructions, pages: self.pages(self.heap.1, self.stable.1, synced), bytes: 0 }
    }

    /// What `answer` says was done in its slice; `self` are the bounds that were in force in it. `synced` pages were
    /// brought up to date.
    pub(crate) fn claimed(&self, answer: &Answered, synced: u64) -> Work {
        let (total, heap, stable) = match answer {
            Answered::Finished(claims) => {
                (claims.outcome.instructions, claims.heap_pages, claims.stable_pages)
            }
            // How far its memory has grown isn't said.
            Answered::Paused(total) => (*total, self.heap.1, self.stable.1),
        };
        let instructions = total.saturating_sub(self.used);
        Work { instructions, pages: self.pages(heap, stable, synced), bytes: 0 }
    }

    /// Pages of memories of so many 64 KiB pages that a run may touch.
    fn pages(&self, heap: u64, stable: u64, synced: u64) -> u64 {
        let pages = |wasm_pages: u64| wasm_pages.saturating_mul(PAGES_PER_WASM_PAGE);
        let stable = pages(stable).min(self.stable_accessible);
        pages(heap).saturating_add(stable).saturating_add(synced)
    }

    /// Instructions that a run has used at least which wrote so many pages.
    fn instructions_min(&self, heap_pages: u64, stable_pages: u64) -> Instructions {
        let heap = heap_pages.saturating_mul(self.page_instructions);
        let stable = stable_pages.saturating_mul(STABLE_PAGE_INSTRUCTIONS);
        // A run that came to its limit is charged that and no more.
        heap.saturating_add(stable).min(self.instructions_max)
    }

    /// For what follows a pause at `used` instructions.
    pub(crate) fn paused(self, used: Instructions) -> Self {
        Self { used, ..self }
    }

    /// For the next slice, of `slice` instructions.
    pub(crate) fn resumed(self, slice: Instructions) -> Self {
        Self { due: self.due.saturating_add(slice).max(self.used), ..self }
    }
}

/// An answer to a run.
#[derive(Debug)]
pub(crate) enum Answered {
    Finished(Box<Claims>),
    /// With the instructions used so far.
    Paused(Instructions),
}

impl Answered {
    /// Instructions that the run is said to have used.
    pub(crate) fn instructions(&self) -> Instructions {
        match self {
            Self::Finished(claims) => claims.outcome.instructions,
            Self::Paused(used) => *used,
        }
    }
}

/// A finished run, its pages not yet copied.
#[derive(Debug)]
pub(crate) struct Claims {
    /// The outcome, without memory.
    pub(crate) outcome: Outcome,
    /// Sizes after the run, in 64 KiB pages.
    pub(crate) heap_pages: u64,
    pub(crate) stable_pages: u64,
    /// Heap pages to copy, ascending.
    pub(crate) heap: Vec<u64>,
    /// Stable pages to copy, in the order in which they lie in the worker.
    pub(crate) stable: Vec<u64>,
    /// Whether the worker may run another message.
    pub(crate) reusable: bool,
    /// What is in the pages, heap first, if that came with the claim: the worker has gone on from there.
    pub(crate) pages: Option<Vec<[u8; PAGE_BYTES]>>,
}

/// Takes the reply to a request to run what `bounds` are for, in this order: what came of the first, and of those that
/// were run behind it.
pub(crate) fn answered(reply: ToNode<'_>, bounds: &[Bounds]) -> Result<(Answered, VecDeque<Answered>)> {
    let (carried, last) = match reply {
        ToNode::Finished(finished) => (Vec::new(), Last::Finished(*finished)),
        ToNode::Paused { instructions } => (Vec::new(), Last::Paused { instructions }),
        ToNode::Batch(batch) if !batch.carried.0.is_empty() => (batch.carried.0, batch.last),
        other => return Err(unexpected(&other, "finished")),
    };
    if carried.iter().map(|carried| carried.pages.0.len()).sum::<usize>() > BATCH_PAGES_MAX {
        return Err(violation(Kind::Claim, "more pages than a batch carries"));
    }
    let Some(last_bounds) = bounds.get(carried.len()) else {
        return Err(violation(Kind::Claim, "more runs than messages"));
    };
    let claims = carried.into_iter().zip(bounds);
    let claims = claims.map(|(carried, bounds)| finished(Claims::carried(carried, bounds)));
    let mut answers = claims.collect::<Result<VecDeque<_>>>()?;
    let last = match last {
        Last::Finished(last) => finished(Claims::checked(last, last_bounds, u64::MAX))?,
        Last::Paused { instructions } => paused(instructions, last_bounds)?,
    };
    Ok(match answers.pop_front() {
        None => (last, answers),
        Some(first) => {
            answers.push_back(last);
            (first, answers)
        }
    })
}

fn finished(claims: std::result::Result<Claims, Malformed>) -> Result<Answered> {
    match claims {
        Ok(claims) => Ok(Answered::Finished(Box::new(claims))),
        Err(Malformed(claim)) => Err(violation(Kind::Claim, claim)),
    }
}

fn paused(instructions: Instructions, bounds: &Bounds) -> Result<Answered> {
    // Where a run pauses follows from counts, so a worker can neither put it off nor pause for ever.
    let over = instructions.checked_sub(bounds.due).filter(|over| *over > 0);
    if over.is_none_or(|over| over >= bounds.slice) || instructions > bounds.instructions_max {
        return Err(violation(Kind::Claim, "paused where no slice ends"));
    }
    Ok(Answered::Paused(instructions))
}

impl Claims {
    /// Of a run that the worker went on from.
    fn carried(carried: Carried<'_>, bounds: &Bounds) -> std::result::Result<Self, Malformed> {
        let Carried { finished, pages } = carried;
        let claims = Self::checked(finished, bounds, pages.0.len() as u64)?;
        // The bounds of those behind it are for memories of this size.
        let sizes = (claims.heap_pages, claims.stable_pages) == (bounds.heap.0, bounds.stable.0);
        let foreseen = claims.outcome.effects.as_ref().is_some_and(Effects::are_foreseen);
        if !(claims.reusable && sizes && foreseen && claims.outcome.logs.is_empty()) {
            return Err(Malformed("went on from a run that nothing can follow"));
        }
        if claims.heap.len() + claims.stable.len() != pages.0.len() {
            return Err(Malformed("went on from other pages than it sent"));
        }
        let pages =
            pages.0.iter().map(|page| page.0.try_into().map_err(|_| Malformed("a page of another size")));
        Ok(Self { pages: Some(pages.collect::<std::result::Result<_, _>>()?), ..claims })
    }

    /// Of a run that names at most `pages_max` pages of each memory.
    fn checked(
        finished: Finished<'_>,
        bounds: &Bounds,
        pages_max: u64,
    ) -> std::result::Result<Self, Malformed> {
        let ending = Ending::from(finished.end);
        let effects = finished.effects.map(Effects::try_from).transpose()?;
        if (ending == Ending::Returned) != effects.is_some() {
            return Err(Malformed("effects go with a return, and with nothing else"));
        }
        if finished.instructions < bounds.used {
            return Err(Malformed("fewer instructions than when it paused"));
        }
        let keeps = bounds.keeps && effects.is_some();
        let within = |size: u64, (before, max): (u64, u64)| {
            if keeps { (before..=max).contains(&size) } else { size == before }
        };
        if !within(finished.heap_pages, bounds.heap) || !within(finished.stable_pages, bounds.stable) {
            return Err(Malformed("a memory size that the run can't have come to"));
        }
        let named = !finished.heap.0.is_empty() || !finished.stable.0.is_empty();
        if named && !keeps {
            return Err(Malformed("written pages of a run that keeps none"));
        }
        let end = |wasm_pages: u64| wasm_pages.saturating_mul(PAGES_PER_WASM_PAGE);
        let claims = Self {
            heap: heap_pages(
                &finished.heap.0,
                end(finished.heap_pages),
                finished.heap_pages_dirty.min(pages_max),
            )?,
            stable: stable_pages(
                &finished.stable.0,
                end(finished.stable_pages),
                finished.stable_pages_dirty.min(bounds.stable_accessible).min(pages_max),
            )?,
            heap_pages: finished.heap_pages,
            stable_pages: finished.stable_pages,
            reusable: finished.reusable,
            pages: None,
            outcome: Outcome {
                ending,
                instructions: finished.instructions,
                heap_pages_dirty: finished.heap_pages_dirty,
                stable_pages_dirty: finished.stable_pages_dirty,
                logs: finished.logs.0.iter().map(|line| LogLine { text: line.0.to_vec() }).collect(),
                effects,
            },
        };
        let cost = bounds.instructions_min(finished.heap_pages_dirty, finished.stable_pages_dirty);
        if finished.instructions < cost {
            return Err(Malformed("fewer instructions than its written pages cost"));
        }
        Ok(claims)
    }
}
