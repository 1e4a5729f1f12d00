//! Compiled modules on disk: what a compiler made once is mapped after the node's next start, and not made again.
//!
//! Behind the modules in memory (`in_process::compile::ModuleCompiler`) and in front of the compiler. Only the node reads
//! and writes here; a worker gets code out of here as it gets any, in a sealed memory file, and a compiler nothing.
//! Whatever is wrong with the directory or a file in it costs a compilation and no more; that is said in the log and in
//! [`CodeCacheStatus`]. See docs/decisions/0007-code-cache.md.

mod directory;
pub mod entry;
mod fingerprint;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use execution::memory::Blob;
use execution::{BackendError, Compiler, InvalidModule, Module, ModuleHash};

use directory::{Directory, Miss, Size, Unusable};
use entry::{BadEntry, Key};
pub use fingerprint::Fingerprint;

/// Where modules are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeCacheOptions {
    /// A directory of the node's own, made if it isn't there: it belongs to the node's user, and nobody else has rights
    /// in it.
    pub directory: PathBuf,
    /// All files together, bytes. Two nodes with one directory can pass it by what both are just writing.
    pub bytes_max: u64,
    /// Modules.
    pub modules_max: usize,
}

impl CodeCacheOptions {
    /// What is built in, in `directory`.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, bytes_max: 4 << 30, modules_max: 10_000 }
    }
}

/// What came of it since the node's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeCacheStatus {
    /// Modules that were found.
    pub loaded: u64,
    /// Modules that weren't, and had to be compiled.
    pub missed: u64,
    /// Modules that were put in.
    pub stored: u64,
    /// Files that were not what they should have been, and were removed. Each counts as missed as well.
    pub bad: u64,
    /// Files that went to make room.
    pub evicted: u64,
    /// Why nothing can be read or put in now, if so. It is tried again at each module that is compiled.
    pub failure: Option<String>,
}

/// A directory of compiled modules. Threads, and nodes, may share one.
#[derive(Debug)]
pub struct CodeCache {
    options: CodeCacheOptions,
    fingerprint: Fingerprint,
    status: Mutex<CodeCacheStatus>,
    /// Held from making room to taking it.
    room: Mutex<()>,
}

impl CodeCache {
    /// The modules in a directory that have this fingerprint. If it can't be used, that is in the log and the status
    /// from now on.
    #[must_use]
    pub fn open(options: CodeCacheOptions, fingerprint: Fingerprint) -> Self {
        let (status, room) = (Mutex::default(), Mutex::default());
        let cache = Self { options, fingerprint, status, room };
        let tidied = cache.directory().and_then(|directory| cache.make_room(&directory, Size::default()));
        if let Err(unusable) = tidied {
            cache.failed(&unusable);
        }
        cache
    }

    /// What came of it so far.
    #[must_use]
    pub fn status(&self) -> CodeCacheStatus {
        lock(&self.status).clone()
    }

    /// The module with this hash and of so many bytes, if it is here.
    ///
    /// # Errors
    /// There is no memory file for its code.
    pub fn load(&self, hash: ModuleHash, wasm_bytes: u64) -> Result<Option<Module>, BackendError> {
        let key = self.key(hash);
        let name = directory::name(&key);
        let read = || {
            let content = self.directory()?.read(&name)?;
            let (interface, native) = entry::decode(key, &content)?;
            Ok(Module { hash, wasm_bytes, interface, code: Blob::new(native)? })
        };
        let miss = match read() {
            Ok(module) => {
                lock(&self.status).loaded += 1;
                return Ok(Some(module));
            }
            Err(miss) => miss,
        };
        match miss {
            Miss::Absent => {}
            Miss::Bad(bad) => self.remove(&name, bad),
            Miss::Unusable(unusable) => self.failed(&unusable),
            Miss::Memory(error) => return Err(error.into()),
        }
        lock(&self.status).missed += 1;
        Ok(None)
    }

    /// Puts a module in, or says in the log and the status why not.
    pub fn store(&self, module: &Module) {
        if let Err(unusable) = self.write(module) {
            return self.failed(&unusable);
        }
        let mut status = lock(&self.status);
        status.stored += 1;
        if status.failure.take().is_some() {
            tracing::info!("the code cache in {:?} works again", self.options.directory);
        }
    }

    fn write(&self, module: &Module) -> Result<(), Unusable> {
        let content =
            entry::encode(self.fingerprint, module).map_err(Unusable::os("code can't be read back"))?;
        let size = Size { bytes: content.len() as u64, files: 1 };
        let directory = self.directory()?;
        let incoming = {
            let _room = lock(&self.room);
            self.make_room(&directory, size)?;
            directory.begin(size.bytes)?
        };
        incoming.publish(&content, &directory::name(&self.key(module.hash)))
    }

    fn directory(&self) -> Result<Directory, Unusable> {
        Directory::open(&self.options.directory)
    }

    fn make_room(&self, directory: &Directory, new: Size) -> Result<(), Unusable> {
        let CodeCacheOptions { directory: _, bytes_max, modules_max } = self.options;
        let all = Size { bytes: bytes_max, files: modules_max };
        let evicted = directory.make_room(new, all, &self.fingerprint.to_string())?;
        lock(&self.status).evicted += evicted;
        Ok(())
    }

    /// Removes a file that isn't what it should be.
    fn remove(&self, name: &str, bad: BadEntry) {
        lock(&self.status).bad += 1;
        let file = self.options.directory.join(name);
        match self.directory().and_then(|directory| directory.remove(name)) {
            Ok(()) => tracing::warn!(
                "{file:?} is no compiled module: {bad}; it is removed, and the module compiled"
            ),
            Err(stays) => {
                tracing::warn!("{file:?} is no compiled module: {bad}; the module is compiled, but {stays}");
            }
        }
    }

    /// Says once why nothing can be read or put in.
    fn failed(&self, unusable: &Unusable) {
        let text = unusable.to_string();
        let mut status = lock(&self.status);
        if status.failure.as_ref() != Some(&text) {
            let directory = &self.options.directory;
            tracing::warn!("modules are compiled without the code cache in {directory:?}: {text}");
            status.failure = Some(text);
        }
    }

    fn key(&self, module: ModuleHash) -> Key {
        Key { fingerprint: self.fingerprint, module }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks hold is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks into a code cache before it has a module compiled, and puts in what was. A refusal isn't kept: to find it again
/// takes a validation, which is cheap.
pub struct CachingCompiler {
    cache: Arc<CodeCache>,
    compiler: Box<dyn Compiler>,
}

impl CachingCompiler {
    /// Keeps in `cache` what `compiler` makes; the cache's fingerprint has to be of that compiler.
    #[must_use]
    pub fn new(cache: Arc<CodeCache>, compiler: Box<dyn Compiler>) -> Self {
        Self { cache, compiler }
    }
}

impl Compiler for CachingCompiler {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        let hash = ModuleHash::of(wasm);
        if let Some(module) = self.cache.load(hash, wasm.len() as u64)? {
            return Ok(Ok(Arc::new(module)));
        }
        let compiled = self.compiler.compile(wasm)?;
        // The code of another module is somebody's violation, and no code of this one's.
        if let Some(module) = compiled.as_ref().ok().filter(|module| module.hash == hash) {
            self.cache.store(module);
        }
        Ok(compiled)
    }
}
