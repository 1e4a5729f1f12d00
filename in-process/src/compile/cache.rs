//! Compiled modules kept in memory by hash, whoever compiles them.
//!
//! The hash is all of the key: a node has one engine profile and one set of limits for its life, and nothing here
//! outlives it. Only the node writes here, and what it writes under a hash came of compiling the bytes that have it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use execution::{BackendError, Compiler, InvalidModule, Limits, Module, ModuleHash, Violation};

use super::container::{self, MODULE_BYTES_MAX};
use super::{CompileError, compile_module};

/// Modules kept.
pub(super) const ENTRIES_MAX: usize = 256;
/// Bytes of native code and data kept.
const BYTES_MAX: usize = 512 << 20;

/// Keeps what another compiler makes, refusals included, up to a bound. Concurrent requests for one module compile
/// it once; a compilation that failed around the module leaves nothing, and the next request tries again.
pub struct ModuleCompiler {
    compiler: Box<dyn Compiler>,
    cache: Mutex<Cache>,
    /// Signalled when a compilation ends, well or not.
    ended: Condvar,
}

type Compiled = Result<Arc<Module>, InvalidModule>;

#[derive(Default)]
struct Cache {
    slots: HashMap<ModuleHash, Slot>,
    bytes: usize,
    /// Counts uses; the slot with the lowest is the one to drop.
    clock: u64,
}

enum Slot {
    Compiling,
    Ready { compiled: Compiled, bytes: usize, used: u64 },
}

impl std::fmt::Debug for ModuleCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleCompiler").finish_non_exhaustive()
    }
}

impl ModuleCompiler {
    /// Compiles in this process.
    #[must_use]
    pub fn new(engine: crate::Engine, limits: Arc<Limits>) -> Self {
        Self::keeping(Box::new(InProcessCompiler { engine, limits }))
    }

    /// Keeps what `compiler` makes.
    #[must_use]
    pub fn keeping(compiler: Box<dyn Compiler>) -> Self {
        Self { compiler, cache: Mutex::default(), ended: Condvar::new() }
    }

    // A panic elsewhere leaves the map whole: each change to it is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the module, or takes the duty to compile it; waits while another thread has that duty.
    fn find_or_claim(&self, hash: ModuleHash) -> Option<Compiled> {
        let mut cache = self.lock();
        loop {
            cache.clock += 1;
            let now = cache.clock;
            match cache.slots.get_mut(&hash) {
                Some(Slot::Ready { compiled, used, .. }) => {
                    *used = now;
                    return Some(compiled.clone());
                }
                Some(Slot::Compiling) => {
                    cache = self.ended.wait(cache).unwrap_or_else(PoisonError::into_inner);
                }
                None => {
                    cache.slots.insert(hash, Slot::Compiling);
                    return None;
                }
            }
        }
    }
}

impl Compiler for ModuleCompiler {
    fn compile(&self, wasm: &[u8]) -> Result<Compiled, BackendError> {
        // No compiler has to be given more than a module may be. A gzip file may be as long as what is in it.
        if wasm.len() > MODULE_BYTES_MAX {
            return Ok(Err(container::too_large(wasm.len())));
        }
        let hash = ModuleHash::of(wasm);
        if let Some(compiled) = self.find_or_claim(hash) {
            return Ok(compiled);
        }
        let mut claim = Claim { compiler: self, hash, result: None };
        let compiled = self.compiler.compile(wasm)?;
        if compiled.as_ref().is_ok_and(|module| module.hash != hash) {
            return Err(Violation("the code of another module".into()).into());
        }
        claim.result = Some(compiled.clone());
        Ok(compiled)
    }
}

/// Compiles in this process, and keeps nothing.
struct InProcessCompiler {
    engine: crate::Engine,
    limits: Arc<Limits>,
}

impl Compiler for InProcessCompiler {
    fn compile(&self, wasm: &[u8]) -> Result<Compiled, BackendError> {
        match compile_module(&self.engine, &self.limits, wasm) {
            Ok(parts) => Ok(Ok(Arc::new(Module::new(wasm, parts.interface, &parts.native)?))),
            Err(CompileError::Invalid(refused)) => Ok(Err(refused)),
            Err(CompileError::Engine(text)) => Err(BackendError::Engine(text)),
        }
    }
}

/// The duty to compile one module. Dropping it publishes the result, or lets others try.
struct Claim<'a> {
    compiler: &'a ModuleCompiler,
    hash: ModuleHash,
    result: Option<Compiled>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut cache = self.compiler.lock();
        cache.slots.remove(&self.hash);
        if let Some(compiled) = self.result.take() {
            cache.insert(self.hash, compiled);
        }
        self.compiler.ended.notify_all();
    }
}

impl Cache {
    fn insert(&mut self, hash: ModuleHash, compiled: Compiled) {
        let bytes = match &compiled {
            Ok(module) => module.code.len() + interface_bytes(module),
            Err(InvalidModule(text)) => text.len(),
        };
        self.bytes += bytes;
        self.slots.insert(hash, Slot::Ready { compiled, bytes, used: self.clock });
        while self.slots.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            if !self.drop_oldest(hash) {
                break;
            }
        }
    }

    /// Drops the module used longest ago, except `keep`; false when there is none.
    fn drop_oldest(&mut self, keep: ModuleHash) -> bool {
        let ready = self.slots.iter().filter_map(|(hash, slot)| match slot {
            Slot::Ready { used, bytes, .. } if *hash != keep => Some((*used, *hash, *bytes)),
            Slot::Ready { .. } | Slot::Compiling => None,
        });
        let Some((_, hash, bytes)) = ready.min() else { return false };
        self.slots.remove(&hash);
        self.bytes -= bytes;
        true
    }
}

fn interface_bytes(module: &Module) -> usize {
    let data: usize = module.interface.data.iter().map(|segment| segment.bytes.len()).sum();
    let custom: usize = module.interface.custom_sections.values().map(|section| section.content.len()).sum();
    data + custom
}
