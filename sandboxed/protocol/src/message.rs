//! The two enums, and what their variants carry.

use serde::{Deserialize, Serialize};

use crate::{
    Bytes, Effects, End, Global, Invocation, List, PAGES_MAX, PageRun, PageSpan, Sync, outcome::LOG_LINES_MAX,
};

/// Most mutable globals of a module.
pub const GLOBALS_MAX: usize = 1_000_000;
/// Most pages that one [`ToNode::Pages`] carries: 4 MiB.
pub const PAGES_PER_REPLY: u32 = 1024;
/// Most messages of a batch. What is left of a round trip of 14 us is below 1 us a message then.
pub const BATCH_MAX: usize = 16;
/// Most pages that the messages of a batch but its last may write together: they travel in the reply, 256 KiB.
pub const BATCH_PAGES_MAX: usize = 64;
/// Instructions after which a batch ends, a few milliseconds: a round trip is nothing beside them, and a worker isn't
/// waited for much longer than for a single message. They bound the answers too, a byte of which costs 50.
pub const BATCH_INSTRUCTIONS_MAX: u64 = 10_000_000;

/// What the node asks. Each is answered by exactly one [`ToNode`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker<'a> {
    /// The first, once. Answered by [`ToNode::Ready`]; the node then verifies the LOAD lock from outside.
    Begin,
    /// The second, once: take code and memory. The code and the arena's segments come as descriptors, in this
    /// order, with the first packet. Answered by [`ToNode::Loaded`].
    Load(Box<Load>),
    /// Instead of [`ToWorker::Load`], and the last: try what the locks are there to prevent. A worker that lives says
    /// so by [`ToNode::Outlived`], and ends.
    Attempt(Attempt),
    /// The third, once: enter the RUN lock. Answered by [`ToNode::Locked`]; the node then verifies the RUN lock
    /// from outside, and only after that sends anything of a message.
    Lock,
    /// Bring memory up to date, then run. Answered by [`ToNode::Finished`] or [`ToNode::Paused`], or by
    /// [`ToNode::Batch`] if more than one was run.
    Execute(#[serde(borrow)] Box<Execute<'a>>),
    /// Go on with the paused run for `slice` more instructions. Answered as `Execute` is. A run that is given
    /// up takes no message: its worker is killed.
    Resume {
        /// Instructions of this slice.
        slice: u64,
    },
    /// Where the node may not read a worker's memory: send pages that the last run wrote. Answered by
    /// [`ToNode::Pages`].
    Pages(Pages),
}

/// What a worker is asked to attempt, for the report on what confines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attempt {
    /// To read the time-stamp counter.
    TimeStampCounter,
    /// To read the clock.
    Clock,
    /// To ask the processor who it is.
    Cpuid,
    /// To make a system call that LOAD doesn't list.
    OutsideLoad,
    /// To map memory that is writable and executable.
    WriteAndExecute,
    /// To make memory that was written executable, once the kernel was asked to refuse that.
    WriteThenExecute,
    /// To make a system call that LOAD lists and RUN doesn't, in RUN.
    OutsideRun,
    /// To make memory executable, in RUN.
    ExecuteInRun,
}

/// What a worker is for, and what it needs to make its instance before it may not map any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Whether the heap is 64-bit.
    pub memory64: bool,
    /// Whether the module has a memory.
    pub has_memory: bool,
    /// Largest heap, in 64 KiB pages.
    pub heap_pages_max: u64,
    /// Largest stable memory, in 64 KiB pages.
    pub stable_pages_max: u64,
    /// Whether code executes `data.drop`: such an instance serves one message only.
    pub drops_data: bool,
    /// Types and first values of the mutable globals.
    pub globals: List<Global, GLOBALS_MAX>,
    /// Largest size of the arena in bytes. The window is mapped over all segments that it has now, once.
    pub arena_bytes: u64,
    /// The memory to start from.
    pub start: Sync,
}

/// Where a worker keeps what it writes. The node looks whether these are private memory before it copies
/// anything from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Address of the heap; 0 if there is none.
    pub heap: u64,
    /// Address at which the stable pages that a run writes lie one after another, in the order of their first
    /// writes.
    pub stable: u64,
}

/// A run, and the state it starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execute<'a> {
    /// What changed in the canister's memory since the worker was last brought up to date.
    pub sync: Sync,
    /// What runs.
    #[serde(borrow)]
    pub invocation: Invocation<'a>,
    /// What may run behind it, as it is expected to be (`execution::Backend::execute_batch`); with the limits of the
    /// first.
    #[serde(borrow)]
    pub expected: List<Invocation<'a>, { BATCH_MAX - 1 }>,
}

/// A part of what the last run wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// Of stable memory; else of the heap.
    pub stable: bool,
    /// Place of the first in the list of written pages.
    pub first: u32,
    /// How many, at most [`PAGES_PER_REPLY`].
    pub count: u32,
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToNode<'a> {
    /// The LOAD lock is on.
    Ready,
    /// Code and memory are in place, and all descriptors but the socket are closed.
    Loaded(Loaded),
    /// The RUN lock is on.
    Locked,
    /// The run ended.
    Finished(#[serde(borrow)] Box<Finished<'a>>),
    /// The run used up its slice.
    Paused {
        /// Instructions used so far.
        instructions: u64,
    },
    /// Several runs, one behind the other.
    Batch(#[serde(borrow)] Box<Batch<'a>>),
    /// The attempt was outlived: it was done, or the kernel refused it.
    Outlived {
        /// Whether it was done.
        done: bool,
    },
    /// The pages that were asked for, one after the other.
    Pages(#[serde(borrow)] Bytes<'a>),
    /// The engine failed around the guest; the worker is of no use any more.
    Failed(&'a str),
}

/// How a run ended and what it did. Claims, all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished<'a> {
    /// How it ended.
    #[serde(borrow)]
    pub end: End<'a>,
    /// Instructions used.
    pub instructions: u64,
    /// Heap pages written, counted also when the run was undone.
    pub heap_pages_dirty: u64,
    /// Stable pages written, counted also when the run was undone.
    pub stable_pages_dirty: u64,
    /// Log lines.
    #[serde(borrow)]
    pub logs: List<Bytes<'a>, LOG_LINES_MAX>,
    /// What is to be committed besides memory.
    #[serde(borrow)]
    pub effects: Option<Effects<'a>>,
    /// Heap size after the run, in 64 KiB pages.
    pub heap_pages: u64,
    /// Stable memory size after the run, in 64 KiB pages.
    pub stable_pages: u64,
    /// Heap pages that are to be kept, ascending.
    pub heap: List<PageSpan, PAGES_MAX>,
    /// Stable pages that are to be kept, in the order of their first writes.
    pub stable: List<PageSpan, PAGES_MAX>,
    /// Whether the instance may run another message.
    pub reusable: bool,
}

/// Runs, each on what the one before it left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch<'a> {
    /// All but the last.
    #[serde(borrow)]
    pub carried: List<Carried<'a>, { BATCH_MAX - 1 }>,
    /// The last.
    #[serde(borrow)]
    pub last: Last<'a>,
}

/// A run that ended, and that the next one went on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carried<'a> {
    /// What it did.
    #[serde(borrow)]
    pub finished: Finished<'a>,
    /// The pages that it wrote, as it left them: those of the heap, then those of stable memory, each as `finished` names
    /// them. The next may have written them again.
    #[serde(borrow)]
    pub pages: List<Bytes<'a>, BATCH_PAGES_MAX>,
}

/// The last run of a batch: as [`ToNode::Finished`] and [`ToNode::Paused`] tell of a single one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are those of `ToNode`")]
#[expect(clippy::large_enum_variant, reason = "the large variant is the common one")]
pub enum Last<'a> {
    Finished(#[serde(borrow)] Finished<'a>),
    Paused { instructions: u64 },
}

// Runs of both kinds stay small in memory however many fit into a frame.
const _: () = assert!(size_of::<PageRun>() <= 32 && size_of::<PageSpan>() <= 16);
