//! One run of one entry point.

use std::fmt;

use execution::memory::PageVersion;
use execution::outcome::{LogLine, MemoryDelta};
use execution::{Executed, GlobalValue, OutgoingCall, Principal};
use serde::{Deserialize, Serialize};

use super::{Excerpt, Field, Refusal, Space, escaped};

/// Written pages of one memory that are told one by one, and calls likewise. The state root covers the others.
const LISTED_MAX: usize = 1_024;

/// A run that was committed, or in a query dropped as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The canister.
    pub canister: Principal,
    /// `EntryPoint::kind`.
    pub kind: String,
    /// Method name, where there is one.
    pub method: Option<String>,
    /// How it ended.
    pub ended: Ended,
    /// Instructions used.
    pub instructions: u64,
    /// Heap pages written.
    pub heap_pages_dirty: u64,
    /// Stable pages written.
    pub stable_pages_dirty: u64,
    /// What it printed, a line each.
    pub logs: Excerpt,
    /// What it did besides; `None` where it was undone.
    pub effects: Option<Effects>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// It replied.
    Reply,
    /// It rejected.
    Reject(Excerpt),
    /// It returned without an answer.
    NoAnswer,
    /// It was undone.
    Trap(Refusal),
}

/// What a run that returned did, as far as it can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects {
    /// The reply given.
    pub reply: Option<Excerpt>,
    /// How many calls it made.
    pub calls_count: u64,
    /// The first of them.
    pub calls: Vec<Call>,
    /// `certified_data_set`.
    pub certified_data: Option<Excerpt>,
    /// `global_timer_set`.
    pub global_timer: Option<u64>,
    /// Cycles accepted.
    pub cycles_accepted: u128,
    /// Cycles burnt.
    pub cycles_burned: u128,
    /// Values of the mutable globals.
    pub globals: Excerpt,
    /// New size of heap and stable memory, 64 KiB pages; `None`: unchanged.
    pub sizes: [Option<u64>; 2],
    /// The first pages written, of heap and of stable memory.
    pub pages: [Vec<Page>; 2],
}

/// A page as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Index of the 4 KiB page.
    pub page: u64,
    /// CRC-32 of its content: finds a difference, and doesn't prove equality; the state root does.
    pub crc32: u32,
}

/// A call to another canister.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The callee.
    pub callee: Principal,
    /// Method name.
    pub method: Excerpt,
    /// Argument.
    pub arg: Excerpt,
    /// Cycles attached.
    pub cycles: u128,
    /// Seconds until its deadline.
    pub timeout_seconds: Option<u32>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", escaped(&self.kind))?;
        if let Some(method) = &self.method {
            write!(f, " `{}`", escaped(method))?;
        }
        write!(f, " of canister {}", self.canister)
    }
}

impl Run {
    /// Of what a round reports and a backend gave.
    #[must_use]
    pub fn of(executed: &Executed, effects: Option<Effects>) -> Self {
        Self {
            canister: executed.canister,
            kind: executed.kind.to_owned(),
            method: executed.method.clone(),
            ended: (&executed.ended).into(),
            instructions: executed.instructions,
            heap_pages_dirty: executed.heap_pages_dirty,
            stable_pages_dirty: executed.stable_pages_dirty,
            logs: Excerpt::of(&lines(&executed.logs)),
            effects,
        }
    }

    /// The first field in which they differ.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<Field> {
        // Destructured so that a new field can't be forgotten.
        let Self {
            canister,
            kind,
            method,
            ended,
            instructions,
            heap_pages_dirty,
            stable_pages_dirty,
            logs,
            effects,
        } = self;
        if (canister, kind, method) != (&other.canister, &other.kind, &other.method) {
            let shown = [self, other].map(ToString::to_string);
            return Some(Field::of("what ran", shown));
        }
        Field::unless_equal("ending", ended, &other.ended)
            .or_else(|| match (effects, &other.effects) {
                (Some(left), Some(right)) => left.difference(right),
                (left, right) => Field::unless_equal("effects", &left.is_some(), &right.is_some()),
            })
            .or_else(|| Field::unless_equal("instructions", instructions, &other.instructions))
            .or_else(|| Field::unless_equal("heap pages written", heap_pages_dirty, &other.heap_pages_dirty))
            .or_else(|| {
                Field::unless_equal("stable pages written", stable_pages_dirty, &other.stable_pages_dirty)
            })
            .or_else(|| Field::unless_equal("logs", logs, &other.logs))
    }
}

impl From<&execution::Ended> for Ended {
    fn from(ended: &execution::Ended) -> Self {
        match ended {
            execution::Ended::Reply => Self::Reply,
            execution::Ended::Reject(reason) => Self::Reject(Excerpt::of(reason.as_bytes())),
            execution::Ended::NoAnswer => Self::NoAnswer,
            execution::Ended::Trap(error) => Self::Trap(error.into()),
        }
    }
}

fn lines(logs: &[LogLine]) -> Vec<u8> {
    logs.iter().flat_map(|line| line.text.iter().copied().chain([b'\n'])).collect()
}

impl Effects {
    /// Of what a backend gave.
    #[must_use]
    pub fn of(effects: &execution::Effects) -> Self {
        let execution::Effects {
            memory,
            globals,
            answer,
            calls,
            certified_data,
            global_timer,
            cycles_accepted,
            cycles_burned,
            // The admission of the message says it.
            accepted: _,
        } = effects;
        let MemoryDelta { heap_pages, stable_pages, heap, stable } = memory;
        let reply = match answer {
            Some(execution::Answer::Reply(data)) => Some(Excerpt::of(data)),
            Some(execution::Answer::Reject(_)) | None => None,
        };
        Self {
            reply,
            calls_count: calls.len() as u64,
            calls: calls.iter().take(LISTED_MAX).map(Call::from).collect(),
            certified_data: certified_data.as_deref().map(Excerpt::of),
            global_timer: *global_timer,
            cycles_accepted: *cycles_accepted,
            cycles_burned: *cycles_burned,
            globals: Excerpt::of(&globals.iter().flat_map(|value| bytes(*value)).collect::<Vec<_>>()),
            sizes: [*heap_pages, *stable_pages],
            pages: [listed(heap), listed(stable)],
        }
    }

    fn difference(&self, other: &Self) -> Option<Field> {
        let Self {
            reply,
            calls_count,
            calls,
            certified_data,
            global_timer,
            cycles_accepted,
            cycles_burned,
            globals,
            sizes,
            pages,
        } = self;
        let call = || {
            let at = calls.iter().zip(&other.calls).position(|(left, right)| left != right)?;
            Some(Field::new(format!("outgoing call {}", at + 1), &calls[at], &other.calls[at]))
        };
        let memory = |at: usize, space: Space| {
            Field::unless_equal(format!("{} size", space.as_str()), &sizes[at], &other.sizes[at])
                .or_else(|| page(space, &pages[at], &other.pages[at]))
        };
        Field::unless_equal("reply", reply, &other.reply)
            .or_else(call)
            .or_else(|| Field::unless_equal("number of outgoing calls", calls_count, &other.calls_count))
            .or_else(|| Field::unless_equal("cycles accepted", cycles_accepted, &other.cycles_accepted))
            .or_else(|| Field::unless_equal("cycles burnt", cycles_burned, &other.cycles_burned))
            .or_else(|| Field::unless_equal("certified data", certified_data, &other.certified_data))
            .or_else(|| Field::unless_equal("global timer", global_timer, &other.global_timer))
            .or_else(|| memory(0, Space::Heap))
            .or_else(|| memory(1, Space::Stable))
            .or_else(|| Field::unless_equal("globals", globals, &other.globals))
    }
}

/// The first page that both wrote, and not with the same bytes. One that a single side wrote may have the bytes
/// that it had: the state root tells.
fn page(space: Space, left: &[Page], right: &[Page]) -> Option<Field> {
    let mut right = right.iter().peekable();
    for left in left {
        while right.next_if(|other| other.page < left.page).is_some() {}
        if let Some(right) = right.next_if(|other| other.page == left.page)
            && left.crc32 != right.crc32
        {
            let shown = |page: &Page| format!("content with CRC-32 {:08x}", page.crc32);
            return Some(Field {
                page: Some((space, left.page)),
                ..Field::of(format!("{} page {}", space.as_str(), left.page), [shown(left), shown(right)])
            });
        }
    }
    None
}

fn listed(pages: &[(u64, PageVersion)]) -> Vec<Page> {
    let listed = pages.iter().take(LISTED_MAX);
    listed.map(|(page, version)| Page { page: *page, crc32: crc32fast::hash(version.bytes()) }).collect()
}

fn bytes(value: GlobalValue) -> Vec<u8> {
    match value {
        GlobalValue::I32(value) => value.to_le_bytes().to_vec(),
        GlobalValue::I64(value) => value.to_le_bytes().to_vec(),
        GlobalValue::F32(bits) => bits.to_le_bytes().to_vec(),
        GlobalValue::F64(bits) => bits.to_le_bytes().to_vec(),
        GlobalValue::V128(bits) => bits.to_le_bytes().to_vec(),
    }
}

impl From<&OutgoingCall> for Call {
    fn from(call: &OutgoingCall) -> Self {
        // Callbacks are table indices: a difference in them shows in what runs later.
        let OutgoingCall {
            callee,
            method,
            arg,
            cycles,
            on_reply: _,
            on_reject: _,
            on_cleanup: _,
            timeout_seconds,
        } = call;
        Self {
            callee: *callee,
            method: Excerpt::of(method.as_bytes()),
            arg: Excerpt::of(arg),
            cycles: *cycles,
            timeout_seconds: *timeout_seconds,
        }
    }
}
