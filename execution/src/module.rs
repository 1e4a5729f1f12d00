//! A compiled module and what the node knows of it.

use std::collections::BTreeMap;
use std::fmt;

use execution_memory::Blob;
use sha2::{Digest, Sha256};

use crate::{BackendError, GlobalValue, Instructions};

/// SHA-256 of a module's bytes as uploaded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleHash(pub [u8; 32]);

impl ModuleHash {
    /// The hash of a module's bytes.
    #[must_use]
    pub fn of(wasm: &[u8]) -> Self {
        Self(Sha256::digest(wasm).into())
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// How an exported method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MethodKind {
    /// `canister_update`.
    Update,
    /// `canister_query`.
    Query,
    /// `canister_composite_query`.
    CompositeQuery,
}

/// Which of the fixed entry points a module exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemExports {
    /// The WebAssembly start function.
    pub start: bool,
    /// `canister_init`.
    pub init: bool,
    /// `canister_pre_upgrade`.
    pub pre_upgrade: bool,
    /// `canister_post_upgrade`.
    pub post_upgrade: bool,
    /// `canister_inspect_message`.
    pub inspect_message: bool,
    /// `canister_heartbeat`.
    pub heartbeat: bool,
    /// `canister_global_timer`.
    pub global_timer: bool,
    /// `canister_on_low_wasm_memory`.
    pub low_wasm_memory: bool,
}

/// An `icp:` custom section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomSection {
    /// `icp:public` (true) or `icp:private`.
    pub public: bool,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// An active data segment, applied once when the execution state is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSegment {
    /// Byte offset in the heap.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a module declares, found once by the compiler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Whether the heap is 64-bit. False when there is no memory.
    pub memory64: bool,
    /// Whether the module declares a memory at all.
    pub has_memory: bool,
    /// Initial heap size in 64 KiB pages.
    pub heap_pages_min: u64,
    /// Declared or filled-in maximum heap size in 64 KiB pages.
    pub heap_pages_max: u64,
    /// Exported methods by name.
    pub methods: BTreeMap<String, MethodKind>,
    /// Fixed entry points.
    pub exports: SystemExports,
    /// Whether it imports `data_certificate_*`: for others no certificate is made.
    pub reads_certificate: bool,
    /// `icp:` custom sections by name (without prefix).
    pub custom_sections: BTreeMap<String, CustomSection>,
    /// Initial values of the mutable globals, in index order.
    pub globals: Vec<GlobalValue>,
    /// Active data segments in order.
    pub data: Vec<DataSegment>,
    /// Charge for compiling it: 6,000 per instruction of the instrumented module.
    pub compile_instructions: Instructions,
    /// Whether code executes `data.drop`: such an instance serves one message only.
    pub drops_data: bool,
}

/// A module that backends can run. Made by a [`crate::Compiler`], shared by `Arc`.
#[derive(Debug)]
pub struct Module {
    /// SHA-256 of the bytes as uploaded.
    pub hash: ModuleHash,
    /// Size of the bytes as uploaded.
    pub wasm_bytes: u64,
    /// What it declares.
    pub interface: Interface,
    /// Native code for the one engine profile, in a sealed file.
    pub code: Blob,
}

impl Module {
    /// The module uploaded as `wasm`, from what a compiler made of it. What the bytes alone decide is found here and
    /// not asked of the compiler.
    ///
    /// # Errors
    /// When the kernel gives no memory file for `native`.
    pub fn new(wasm: &[u8], interface: Interface, native: &[u8]) -> Result<Self, BackendError> {
        let code = Blob::new(native)?;
        Ok(Self { hash: ModuleHash::of(wasm), wasm_bytes: wasm.len() as u64, interface, code })
    }
}
