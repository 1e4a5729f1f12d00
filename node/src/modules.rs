//! Modules as they were uploaded, by their hash: canisters are made of them, and what a module does can't be seen again
//! without it.
//!
//! A directory with a file for each, written when a module is installed first and never removed: the input log has the
//! same bytes. The install waits for the disk, as its round does for the input log; a module that can't be kept is
//! installed all the same.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use execution::{BackendError, Compiler, InvalidModule, Module, ModuleHash};

/// Longest module that is read again, bytes: as long as any that is installed.
const MODULE_BYTES_MAX: u64 = 100 << 20;

/// A directory of modules. Nodes may share one.
#[derive(Debug)]
pub(crate) struct Modules {
    directory: PathBuf,
}

impl Modules {
    /// Those in `directory`, which is made with the first. What a killed process left of another is removed.
    pub(crate) fn new(directory: PathBuf) -> Self {
        remove_leftovers(&directory);
        Self { directory }
    }

    fn path(&self, hash: ModuleHash) -> PathBuf {
        self.directory.join(format!("{}.wasm", hex::encode(hash.0)))
    }

    /// Keeps a module, if it isn't there.
    fn keep(&self, hash: ModuleHash, wasm: &[u8]) -> io::Result<()> {
        let path = self.path(hash);
        if std::fs::metadata(&path).is_ok_and(|there| there.len() == wasm.len() as u64) {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(wasm)?;
        // Or a power failure leaves a file of its length that is empty.
        file.as_file().sync_data()?;
        file.persist(&path)?;
        Ok(())
    }

    /// The module with this hash.
    ///
    /// # Errors
    /// It isn't there, can't be read, or is another.
    pub(crate) fn read(&self, hash: ModuleHash) -> io::Result<Vec<u8>> {
        let path = self.path(hash);
        let named = |error: io::Error| io::Error::other(format!("{}: {error}", path.display()));
        let mut wasm = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MODULE_BYTES_MAX).read_to_end(&mut wasm))
            .map_err(named)?;
        if ModuleHash::of(&wasm) != hash {
            return Err(named(io::Error::other("it is not the module of that name")));
        }
        Ok(wasm)
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Removes files that a writer left half-written which is no more: only one process writes below a state directory.
pub(crate) fn remove_leftovers(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            // The next start tries again.
            let _stays = std::fs::remove_file(entry.path());
        }
    }
}

/// How `tempfile` begins the names of files.
const TEMPORARY: &str = ".tmp";

/// Keeps every module that another compiler has found good.
pub(crate) struct KeepingCompiler {
    pub(crate) modules: Arc<Modules>,
    pub(crate) compiler: Arc<dyn Compiler>,
}

impl Compiler for KeepingCompiler {
    fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        let compiled = self.compiler.compile(wasm)?;
        if let Ok(module) = &compiled
            && let Err(error) = self.modules.keep(module.hash, wasm)
        {
            let directory = self.modules.directory().display();
            tracing::warn!(
                "a module could not be kept in {directory}, and differences of it can't be seen again: {error}"
            );
        }
        Ok(compiled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_was_kept_is_read_again_and_one_that_was_damaged_is_told_and_kept_anew() {
        let directory = tempfile::tempdir().unwrap();
        let modules = Modules::new(directory.path().join("modules"));
        let hash = ModuleHash::of(b"wasm");
        assert!(modules.read(hash).unwrap_err().to_string().contains("No such file"));
        modules.keep(hash, b"wasm").unwrap();
        assert_eq!(modules.read(hash).unwrap(), b"wasm");
        std::fs::write(modules.path(hash), b"wasn").unwrap();
        assert!(modules.read(hash).unwrap_err().to_string().contains("not the module of that name"));
        std::fs::write(modules.path(hash), b"was").unwrap();
        modules.keep(hash, b"wasm").unwrap();
        assert_eq!(modules.read(hash).unwrap(), b"wasm");
    }

    #[test]
    fn what_a_killed_process_left_half_written_is_removed_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let (_, left) = tempfile::NamedTempFile::new_in(directory.path()).unwrap().keep().unwrap();
        std::fs::write(directory.path().join("other"), "").unwrap();
        let _modules = Modules::new(directory.path().to_owned());
        assert!(!left.exists() && directory.path().join("other").exists());
    }
}
