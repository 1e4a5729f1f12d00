//! What stands in a bundle's head. These types are the format: a change of any is another [`super::VERSION`].

use std::borrow::Cow;

use execution::{Ending, Outcome};
use rollout::Comparison;
use sandbox_protocol::{Bytes, GLOBALS_MAX, Global, Invocation, List, globals};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::observation::Effects;

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

/// What a run gave, in little: equal where two runs did the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gave {
    /// Instructions used.
    pub instructions: u64,
    /// SHA-256 of everything else.
    pub sha256: [u8; 32],
}

impl Gave {
    /// Of an outcome.
    ///
    /// # Panics
    /// Never: all of it can be encoded.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let Outcome { ending, instructions, heap_pages_dirty, stable_pages_dirty, logs, effects } = outcome;
        let trap = match ending {
            Ending::Returned => None,
            Ending::Trapped(trap) => Some((trap.code.0, trap.text.as_str())),
        };
        let lines: Vec<Bytes<'_>> = logs.iter().map(|line| Bytes(&line.text)).collect();
        // What effects in a log don't say.
        let (rejected, accepted) = effects.as_ref().map_or((None, false), |effects| {
            let rejected = match &effects.answer {
                Some(execution::Answer::Reject(text)) => Some(text.as_str()),
                Some(execution::Answer::Reply(_)) | None => None,
            };
            (rejected, effects.accepted)
        });
        let effects = effects.as_ref().map(Effects::of);
        let all = (trap, heap_pages_dirty, stable_pages_dirty, lines, effects, rejected, accepted);
        let all = postcard::to_stdvec(&all).expect("numbers, texts and lists");
        Self { instructions: *instructions, sha256: Sha256::digest(all).into() }
    }
}
