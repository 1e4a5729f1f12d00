//! Who signs the root of the certified state.

use std::fmt;

use ic_verify_bls_signature::PrivateKey;
use sha2::{Digest, Sha256};

/// What comes before the 96 bytes of a BLS12-381 public key in its DER form: the algorithm and the curve, as the
/// Interface Specification has them.
const DER_PREFIX: [u8; 37] = [
    0x30, 0x81, 0x82, 0x30, 0x1d, 0x06, 0x0d, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03,
    0x01, 0x02, 0x01, 0x06, 0x0c, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x02, 0x01,
    0x03, 0x61, 0x00,
];

/// Signs for a subnet. In a network that is a threshold scheme of its nodes; here it is whatever a host puts in.
///
/// Equal messages must get equal signatures: canisters see them.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public key in DER; becomes the subnet's root key.
    fn root_key(&self) -> Vec<u8>;

    /// The signature of `message`.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

/// Signs with a BLS12-381 key that it holds: 48 bytes in G1, which agents verify.
#[derive(Clone, Debug)]
pub struct BlsSigner(PrivateKey);

/// Not a BLS12-381 private key: 32 bytes, big endian, not 0, less than the order of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a BLS12-381 private key: 32 bytes, big endian, not 0, less than the order of the group")]
pub struct InvalidKey;

impl BlsSigner {
    /// A signer with a private key.
    ///
    /// # Errors
    /// The bytes are no key. Zero is none: its signatures verify for every message.
    pub fn new(key: &[u8]) -> Result<Self, InvalidKey> {
        if key.iter().all(|byte| *byte == 0) {
            return Err(InvalidKey);
        }
        PrivateKey::deserialize(key).map(Self).map_err(|_| InvalidKey)
    }

    /// A signer with a key that everybody knows: for development and tests.
    #[must_use]
    pub fn test_key() -> Self {
        Self::new(&Self::test_key_bytes()).expect("a number below the order is a key")
    }

    /// The bytes of that key.
    #[must_use]
    pub fn test_key_bytes() -> [u8; 32] {
        let mut key: [u8; 32] = Sha256::digest(b"bulkhead test root key").into();
        // Below the order of the group, which begins with 0x73.
        key[0] &= 0x3f;
        key
    }
}

impl Signer for BlsSigner {
    fn root_key(&self) -> Vec<u8> {
        [&DER_PREFIX[..], &self.0.public_key().serialize()].concat()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).serialize().to_vec()
    }
}
