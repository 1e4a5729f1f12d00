//! The node's key: it signs the certified state and lies in secret memory.

use std::io;
use std::sync::Arc;

use execution::Signer;
use execution::certification::{BlsSigner, InvalidKey};
use sandbox_os::secret::{Keeping, Secret, wipe};

/// Signs certificates with a BLS12-381 key that lies in secret memory. Only while it signs are there copies of the key,
/// on the stack of the thread that does.
#[derive(Debug)]
pub struct SecretSigner {
    key: Secret,
    root_key: Vec<u8>,
}

/// Why there is no signer.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no key.
    #[error(transparent)]
    Invalid(#[from] InvalidKey),
    /// There is no memory for it.
    #[error("no memory that can be kept secret for the node's key (limit: RLIMIT_MEMLOCK): {0}")]
    Memory(#[from] io::Error),
}

impl SecretSigner {
    /// Moves a private key (32 bytes, big endian) into secret memory; the bytes are zeroed where they were.
    ///
    /// # Errors
    /// [`KeyError`]; the bytes are zeroed then too.
    pub fn take(key: &mut [u8]) -> Result<Self, KeyError> {
        let root_key = BlsSigner::new(key).map(|signer| signer.root_key());
        let secret = Secret::take(key);
        wipe(key);
        Ok(Self { root_key: root_key?, key: secret? })
    }

    /// The development key, which everybody knows: its certificates prove nothing.
    ///
    /// # Errors
    /// [`KeyError::Memory`].
    pub fn development() -> Result<Arc<Self>, KeyError> {
        Self::take(&mut BlsSigner::test_key_bytes()).map(Arc::new)
    }

    /// How well the key is kept on this machine.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        self.key.keeping()
    }
}

impl Signer for SecretSigner {
    fn root_key(&self) -> Vec<u8> {
        self.root_key.clone()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        BlsSigner::new(self.key.expose()).expect("it was a key when it was taken").sign(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_secret_memory_signs_as_the_same_key_elsewhere() {
        let mut key = BlsSigner::test_key_bytes();
        let plain = BlsSigner::new(&key).unwrap();
        let secret = SecretSigner::take(&mut key).unwrap();
        assert_eq!(key, [0; 32], "wiped where it was");
        assert_eq!(secret.root_key(), plain.root_key());
        assert_eq!(secret.sign(b"root"), plain.sign(b"root"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for mut bytes in [vec![0; 32], vec![0xff; 32], vec![1; 31], Vec::new()] {
            assert!(matches!(SecretSigner::take(&mut bytes), Err(KeyError::Invalid(_))), "{bytes:?}");
        }
    }
}
