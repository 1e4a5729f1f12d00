//! What node and worker say to each other, and node and compiler: two enums each, frames, limits, and the wire types
//! they are made of.
//!
//! The node sends [`ToWorker`], the worker answers each with one [`ToNode`]; in the same way a compiler answers each
//! [`ToCompiler`] with one [`FromCompiler`]. Nobody else speaks and nothing is sent unasked. A message travels in a frame: a header with its length and its [`Binding`], then its postcard
//! bytes, cut into packets. Every length and count is bounded before anything is allocated for it, nothing
//! recurses, and no byte sequence makes a decoder panic: what arrives from a worker is an attacker's.
//!
//! Domain types are not serializable. The wire types here borrow from them on the way down (`From`), and are
//! turned into them, checked, on the way up (`TryFrom`).

#![forbid(unsafe_code)]

mod compile;
mod frame;
mod invocation;
mod limits;
mod list;
mod memory;
mod message;
mod outcome;

pub use compile::{
    COMPILER_MEMORY_BYTES_MAX, Claimed, Compiled, FromCompiler, Interface, MODULE_BYTES_PER_PART, MethodKind,
    NATIVE_BYTES_MAX, OUTPUT_BYTES_PER_REPLY, SystemExports, ToCompiler,
};
pub use frame::{
    Assembly, Binding, FRAME_BYTES_KEPT, FRAME_BYTES_MAX, FrameError, HEADER_BYTES, PACKET_BYTES, decode,
    encode, packets,
};
pub use invocation::{Entry, Invocation, System};
pub use limits::{Limits, Prices};
pub use list::{Bytes, List};
pub use memory::{
    Global, PAGES_MAX, PageRun, PageSpan, Sync, globals, heap_pages, page_runs, page_spans, page_updates,
    stable_pages,
};
pub use message::{
    Attempt, BATCH_INSTRUCTIONS_MAX, BATCH_MAX, BATCH_PAGES_MAX, Batch, Carried, Execute, Finished,
    GLOBALS_MAX, Last, Load, Loaded, PAGES_PER_REPLY, Pages, ToNode, ToWorker,
};
pub use outcome::{Answer, Call, Effects, End};

/// Version of the protocol; stands in every frame. Node and worker come out of one file, so another version is
/// a violation and not something to negotiate.
pub const VERSION: u32 = 5;

/// A message that decodes but says something that no correct peer says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
