//! What a backend gets to run on: one canister's code and memory at one moment.

use std::sync::Arc;

use execution_memory::{Arena, Memory};

use crate::{Module, Principal};

/// The value of a mutable global; floats by their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobalValue {
    /// i32
    I32(i32),
    /// i64
    I64(i64),
    /// f32 bits
    F32(u32),
    /// f64 bits
    F64(u64),
    /// v128
    V128(u128),
}

impl GlobalValue {
    /// Whether both have the same type.
    #[must_use]
    pub fn same_type(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// A canister's code and memory at one moment. Clone is O(1); it keeps its page versions alive.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The canister.
    pub canister: Principal,
    /// Its code.
    pub module: Arc<Module>,
    /// Where its page versions live.
    pub arena: Arc<Arena>,
    /// Wasm heap.
    pub heap: Memory,
    /// Stable memory.
    pub stable: Memory,
    /// Mutable globals in index order.
    pub globals: Arc<[crate::GlobalValue]>,
}
