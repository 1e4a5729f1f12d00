//! What decides, besides a module's bytes, what it is compiled to.

use std::fmt;
use std::hash::{Hash, Hasher};

use execution::Limits;
use sha2::{Digest, Sha256};

use super::entry::MAGIC;

/// Everything but the module that decides what a compiler makes of it, and whether this node can load that. Computed
/// from the things themselves, so that no version has to be kept by hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of the layout of an entry; of the engine as the node has it: its version, target, processor features and settings,
    /// which is what wasmtime's `precompile_compatibility_hash` covers; of the limits that a compiler is sent; and of the
    /// compiler itself, `program`: a change of validation, instrumentation, costs or code generation changes its bytes.
    #[must_use]
    pub fn of(engine: impl Hash, limits: &Limits, program: &[u8]) -> Self {
        let limits = postcard::to_stdvec(&sandbox_protocol::Limits::from(limits));
        let limits = limits.expect("numbers can be written to memory");
        let mut hasher = Sha256Hasher(Sha256::new_with_prefix(MAGIC));
        engine.hash(&mut hasher);
        // Both with their lengths in front.
        limits.hash(&mut hasher);
        program.hash(&mut hasher);
        Self(hasher.0.finalize().into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes what [`Hash`] says of a value. Unlike std's hashers the same in every process, and without collisions.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_limits_and_compiler_each_decide_and_nothing_else_does() {
        let engine = in_process::Engine::new().unwrap();
        let same = in_process::Engine::new().unwrap();
        let engine = engine.raw().precompile_compatibility_hash();
        let limits = Limits::application();
        let here = Fingerprint::of(&engine, &limits, b"compiler");
        let again = same.raw().precompile_compatibility_hash();
        assert_eq!(here, Fingerprint::of(again, &limits.clone(), b"compiler"));
        assert_ne!(here, Fingerprint::of("another engine", &limits, b"compiler"));
        assert_ne!(here, Fingerprint::of(&engine, &limits, b"Compiler"));
        let other = Limits { heap32_bytes: limits.heap32_bytes - 1, ..limits };
        assert_ne!(here, Fingerprint::of(&engine, &other, b"compiler"));
    }
}
