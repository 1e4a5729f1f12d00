//! Whether two outcomes of the same execution are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::SystemTime;

use execution::memory::{Memory, PAGE_BYTES, PageVersion, WASM_PAGE_BYTES};
use execution::{Ending, Invocation, Outcome, Principal, Snapshot};

/// Longest value shown in a difference, characters.
const VALUE_CHARS_MAX: usize = 200;
const PAGES_PER_WASM_PAGE: u64 = WASM_PAGE_BYTES / PAGE_BYTES as u64;

/// A part of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Returned or trapped, with which code and text.
    Ending,
    /// Reply or reject.
    Answer,
    /// Instructions used.
    Instructions,
    /// Number of heap pages written.
    HeapPagesDirty,
    /// Number of stable pages written.
    StablePagesDirty,
    /// Log lines.
    Logs,
    /// Heap size.
    HeapSize,
    /// Heap content.
    Heap,
    /// Stable memory size.
    StableSize,
    /// Stable memory content.
    Stable,
    /// Mutable globals.
    Globals,
    /// Outgoing calls.
    Calls,
    /// Certified data.
    CertifiedData,
    /// Global timer.
    GlobalTimer,
    /// Cycles accepted or burnt.
    Cycles,
    /// Whether an ingress message was accepted.
    Accepted,
}

impl Field {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ending => "ending",
            Self::Answer => "answer",
            Self::Instructions => "instructions",
            Self::HeapPagesDirty => "heap_pages_dirty",
            Self::StablePagesDirty => "stable_pages_dirty",
            Self::Logs => "logs",
            Self::HeapSize => "heap_size",
            Self::Heap => "heap",
            Self::StableSize => "stable_size",
            Self::Stable => "stable",
            Self::Globals => "globals",
            Self::Calls => "calls",
            Self::CertifiedData => "certified_data",
            Self::GlobalTimer => "global_timer",
            Self::Cycles => "cycles",
            Self::Accepted => "accepted",
        }
    }
}

/// A difference in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Which.
    pub field: Field,
    /// The in-process value, shortened.
    pub control: String,
    /// The sandboxed value, shortened.
    pub candidate: String,
}

/// What both runs, made again on the same snapshot, say of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DivergenceClass {
    /// The control gave the same again, and the candidate differed again.
    Confirmed,
    /// The control gave the same again, and so did the candidate this time. Counts as confirmed: a mode that is wrong
    /// now and then is wrong.
    FlakyCandidate,
    /// The control differed from itself: the platform's fault, whatever the candidate did.
    NondeterministicControl,
    /// One of them could not be run again.
    Unconfirmed,
}

impl DivergenceClass {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Confirmed, Self::FlakyCandidate, Self::NondeterministicControl, Self::Unconfirmed];

    /// The word in reports and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::FlakyCandidate => "flaky-candidate",
            Self::NondeterministicControl => "nondeterministic-control",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

impl fmt::Display for DivergenceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A difference between the two runs of one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The canister.
    pub canister: Principal,
    /// `Invocation::id`.
    pub invocation: u64,
    /// `EntryPoint::kind`.
    pub kind: &'static str,
    /// `EntryPoint::method`.
    pub method: Option<String>,
    /// What differs.
    pub difference: Comparison,
    /// What both runs say, made again.
    pub class: DivergenceClass,
}

impl Divergence {
    pub(super) fn new(
        snapshot: &Snapshot,
        invocation: &Invocation,
        difference: Comparison,
        class: DivergenceClass,
    ) -> Self {
        Self {
            canister: snapshot.canister,
            invocation: invocation.id,
            kind: invocation.entry.kind(),
            method: invocation.entry.method().map(str::to_owned),
            difference,
            class,
        }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { field, control, candidate } = &self.difference;
        write!(f, "canister {}, message {} ({}", self.canister, self.invocation, self.kind)?;
        if let Some(method) = &self.method {
            write!(f, " {method}")?;
        }
        let (field, class) = (field.as_str(), self.class);
        write!(f, "): {field} differs: in-process {control}, sandboxed {candidate} ({class})")
    }
}

/// The same difference, however often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DivergenceRecord {
    /// As first seen.
    pub first: Divergence,
    /// When it was first seen.
    pub first_time: SystemTime,
    /// `Invocation::id` of the last one.
    pub last_invocation: u64,
    /// When it was last seen.
    pub last_time: SystemTime,
    /// How often.
    pub count: u64,
    /// What [`crate::Observer::on_new_divergence`] said of its reproducer when it was first seen.
    pub bundle: Option<Result<String, String>>,
}

/// Every field in which `candidate` differs from `control`, both run on `snapshot`.
///
/// Memory is compared by content: a page that one side wrote with the bytes it had is no difference.
#[must_use]
pub fn compare(snapshot: &Snapshot, control: &Outcome, candidate: &Outcome) -> Vec<Comparison> {
    let mut found = Differences(Vec::new());
    // Destructured so that a new field can't be forgotten.
    let Outcome { ending, instructions, heap_pages_dirty, stable_pages_dirty, logs, effects } = control;
    found.unless_equal(Field::Ending, &Shown(ending), &Shown(&candidate.ending));
    found.unless_equal(Field::Instructions, instructions, &candidate.instructions);
    found.unless_equal(Field::HeapPagesDirty, heap_pages_dirty, &candidate.heap_pages_dirty);
    found.unless_equal(Field::StablePagesDirty, stable_pages_dirty, &candidate.stable_pages_dirty);
    if *logs != candidate.logs {
        let text = |lines: &[execution::outcome::LogLine]| -> Vec<String> {
            lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
        };
        found.add(Field::Logs, &text(logs), &text(&candidate.logs));
    }
    match (effects, &candidate.effects) {
        (Some(control), Some(candidate)) => found.effects(snapshot, control, candidate),
        (None, None) => {}
        // One returned and the other did not: the ending says so unless a backend is wrong about itself.
        (Some(_), None) if *ending == candidate.ending => found.add(Field::Ending, &"effects", &"no effects"),
        (None, Some(_)) if *ending == candidate.ending => found.add(Field::Ending, &"no effects", &"effects"),
        (Some(_), None) | (None, Some(_)) => {}
    }
    found.0
}

/// An ending, shown as a person would say it.
#[derive(PartialEq)]
struct Shown<'a>(&'a Ending);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ending::Returned => f.write_str("returned"),
            Ending::Trapped(trap) => write!(f, "trapped {:?} {:?}", trap.code, trap.text),
        }
    }
}

struct Differences(Vec<Comparison>);

impl Differences {
    fn add(&mut self, field: Field, control: &dyn fmt::Debug, candidate: &dyn fmt::Debug) {
        let [control, candidate] = [control, candidate].map(|value| shown(value, VALUE_CHARS_MAX));
        self.0.push(Comparison { field, control, candidate });
    }

    fn unless_equal<T: PartialEq + fmt::Debug>(&mut self, field: Field, control: &T, candidate: &T) {
        if control != candidate {
            self.add(field, control, candidate);
        }
    }

    fn effects(&mut self, snapshot: &Snapshot, control: &execution::Effects, candidate: &execution::Effects) {
        let execution::Effects {
            memory,
            globals,
            answer,
            calls,
            certified_data,
            global_timer,
            cycles_accepted,
            cycles_burned,
            accepted,
        } = control;
        let execution::outcome::MemoryDelta { heap_pages, stable_pages, heap, stable } = memory;
        let other = &candidate.memory;
        self.memory(
            [Field::HeapSize, Field::Heap],
            &snapshot.heap,
            (*heap_pages, heap),
            (other.heap_pages, &other.heap),
        );
        self.memory(
            [Field::StableSize, Field::Stable],
            &snapshot.stable,
            (*stable_pages, stable),
            (other.stable_pages, &other.stable),
        );
        self.unless_equal(Field::Globals, globals, &candidate.globals);
        self.unless_equal(Field::Answer, answer, &candidate.answer);
        self.unless_equal(Field::Calls, calls, &candidate.calls);
        self.unless_equal(Field::CertifiedData, certified_data, &candidate.certified_data);
        self.unless_equal(Field::GlobalTimer, global_timer, &candidate.global_timer);
        let cycles = (candidate.cycles_accepted, candidate.cycles_burned);
        self.unless_equal(Field::Cycles, &(*cycles_accepted, *cycles_burned), &cycles);
        self.unless_equal(Field::Accepted, accepted, &candidate.accepted);
    }

    /// Sizes in 64 KiB pages, and the first page whose bytes differ.
    fn memory(
        &mut self,
        [size, content]: [Field; 2],
        before: &Memory,
        control: Delta<'_>,
        candidate: Delta<'_>,
    ) {
        let sizes = [control, candidate].map(|(pages, _)| pages.unwrap_or(before.wasm_pages()));
        self.unless_equal(size, &sizes[0], &sizes[1]);
        // Not checked yet, so not known to be in order: by index here.
        let [control, candidate] = [control.1, candidate.1]
            .map(|delta| delta.iter().map(|(page, version)| (*page, version)).collect::<BTreeMap<_, _>>());
        let pages: BTreeSet<u64> = control.keys().chain(candidate.keys()).copied().collect();
        for page in pages {
            let [control, candidate] = [&control, &candidate].map(|written| bytes(before, written, page));
            if let Some(at) = first_difference(control, candidate) {
                let value = |bytes: &[u8; PAGE_BYTES]| format!("page {page} byte {at} = {:#04x}", bytes[at]);
                self.0.push(Comparison {
                    field: content,
                    control: value(control),
                    candidate: value(candidate),
                });
                return;
            }
        }
    }
}

/// New size and written pages by ascending index.
type Delta<'a> = (Option<u64>, &'a [(u64, PageVersion)]);

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The content of a page after a run.
fn bytes<'a>(
    before: &'a Memory,
    written: &BTreeMap<u64, &'a PageVersion>,
    page: u64,
) -> &'a [u8; PAGE_BYTES] {
    let kept = || (page / PAGES_PER_WASM_PAGE < before.wasm_pages()).then(|| before.page(page)).flatten();
    written.get(&page).copied().or_else(kept).map_or(&ZEROS, PageVersion::bytes)
}

fn first_difference(left: &[u8; PAGE_BYTES], right: &[u8; PAGE_BYTES]) -> Option<usize> {
    if left == right { None } else { left.iter().zip(right).position(|(left, right)| left != right) }
}

/// A value's `Debug` form, cut off after `chars_max` characters.
#[must_use]
pub fn shown(value: &dyn fmt::Debug, chars_max: usize) -> String {
    struct Bounded(String, usize);
    impl fmt::Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = self.1.saturating_sub(self.0.chars().count());
            self.0.extend(text.chars().take(room));
            // An error stops the formatting: a value may be megabytes long.
            if text.chars().nth(room).is_some() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut text = Bounded(String::new(), chars_max);
    if fmt::write(&mut text, format_args!("{value:?}")).is_err() {
        text.0.push_str("...");
    }
    text.0
}
