//! What stands in a bundle's head. These types are the format: a change of any is another [`super::VERSION`].

use std::borrow::Cow;

use execution::{Ending, Outcome};
use rollout::Comparison;
use sandbox_protocol::{Bytes, GLOBALS_MAX, Global, Invocation, List, globals};
use serde::{Deserialize, Serialize};

use crate::observation::{Effects, Excerpt, Refusal};

/// Fields in which two runs may differ; there are fewer.
const DIFFERENCES_MAX: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head<'a> {
    /// Version of the program that wrote it.
    pub(super) program: Cow<'a, str>,
    /// The node.
    pub(super) node: Cow<'a, str>,
    /// When, milliseconds since 1970.
    pub(super) time_ms: u64,
    /// `DivergenceClass::as_str`.
    pub(super) class: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) canister: Bytes<'a>,
    /// The module as it was uploaded.
    #[serde(borrow)]
    pub(super) wasm: Bytes<'a>,
    /// With its limits.
    #[serde(borrow)]
    pub(super) invocation: Invocation<'a>,
    /// Whether it ran as a query.
    pub(super) query: bool,
    pub(super) memory: Memories,
    /// Of a composite query, what its earlier steps left.
    pub(super) overlay: Option<Memories>,
    #[serde(borrow)]
    pub(super) differences: List<Different<'a>, DIFFERENCES_MAX>,
    pub(super) control: Gave,
    pub(super) candidate: Gave,
}

/// Memory of a canister at one moment; its pages follow the head.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Memories {
    pub(super) globals: List<Global, GLOBALS_MAX>,
    pub(super) heap: Extent,
    pub(super) stable: Extent,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Extent {
    /// Size in 64 KiB pages.
    pub(super) wasm_pages: u64,
    /// Pages of 4 KiB that follow. In an overlay, those that differ from the memory under it.
    pub(super) pages: u32,
}

impl Memories {
    pub(super) fn of(snapshot: &execution::Snapshot, [heap, stable]: [usize; 2]) -> Self {
        let extent = |memory: &execution::memory::Memory, pages: usize| Extent {
            wasm_pages: memory.wasm_pages(),
            pages: u32::try_from(pages).unwrap_or(u32::MAX),
        };
        Self {
            globals: globals(&snapshot.globals),
            heap: extent(&snapshot.heap, heap),
            stable: extent(&snapshot.stable, stable),
        }
    }
}

/// A [`Comparison`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Different<'a> {
    pub(super) field: Cow<'a, str>,
    pub(super) control: Cow<'a, str>,
    pub(super) candidate: Cow<'a, str>,
}

impl<'a> From<&'a Comparison> for Different<'a> {
    fn from(comparison: &'a Comparison) -> Self {
        Self {
            field: comparison.field.as_str().into(),
            control: comparison.control.as_str().into(),
            candidate: comparison.candidate.as_str().into(),
        }
    }
}

/// What a run gave, small, whatever it was: equal where two runs did the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gave {
    /// The trap; `None`: it returned.
    trap: Option<Refusal>,
    instructions: u64,
    pages_dirty: [u64; 2],
    logs: Vec<Excerpt>,
    effects: Option<Effects>,
    /// Whether it rejected, or let an ingress message in: what effects in a log don't say.
    rejected: Option<Excerpt>,
    accepted: bool,
}

impl Gave {
    /// Lines of a canister's log that are told one by one.
    const LINES_MAX: usize = 256;

    /// Of an outcome.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let Outcome { ending, instructions, heap_pages_dirty, stable_pages_dirty, logs, effects } = outcome;
        let trap = match ending {
            Ending::Returned => None,
            Ending::Trapped(trap) => {
                Some(Refusal { code: trap.code.0, text: Excerpt::of(trap.text.as_bytes()) })
            }
        };
        let rejected = effects.as_ref().and_then(|effects| match &effects.answer {
            Some(execution::Answer::Reject(text)) => Some(Excerpt::of(text.as_bytes())),
            Some(execution::Answer::Reply(_)) | None => None,
        });
        Self {
            trap,
            instructions: *instructions,
            pages_dirty: [*heap_pages_dirty, *stable_pages_dirty],
            logs: logs.iter().take(Self::LINES_MAX).map(|line| Excerpt::of(&line.text)).collect(),
            effects: effects.as_ref().map(Effects::of),
            rejected,
            accepted: effects.as_ref().is_some_and(|effects| effects.accepted),
        }
    }
}
