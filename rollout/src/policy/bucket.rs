//! Which canisters and which nodes come first: `sip13-ppm-v1`.
//!
//! The bucket of a canister is `(h * 1,000,000) >> 64`, where `h` is SipHash-1-3 under the key (0, 0) of the salt's
//! length as eight bytes, lowest first, the salt, and the canister id's bytes. Integers alone, so that every
//! implementation gives the same; a higher threshold only adds canisters. Another formula is another name.

use std::fmt;
use std::hash::Hasher;

use execution::Principal;
use siphasher::sip::SipHasher13;

/// All of them.
pub(crate) const PPM: u32 = 1_000_000;

/// The buckets of one salt.
#[derive(Clone, Copy)]
pub(crate) struct Buckets {
    /// Has taken the salt in.
    salted: SipHasher13,
    salt_hash: u64,
}

impl Buckets {
    pub(super) fn new(salt: &str) -> Self {
        let mut salted = SipHasher13::new();
        salted.write(&(salt.len() as u64).to_le_bytes());
        salted.write(salt.as_bytes());
        Self { salted, salt_hash: salted.finish() }
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.salted;
        hasher.write(bytes);
        hasher.finish()
    }

    /// From 0 to 999,999.
    pub(crate) fn of(&self, canister: &Principal) -> u32 {
        ((u128::from(self.hash(canister.as_slice())) * u128::from(PPM)) >> 64) as u32
    }

    /// Whether `node` is among the first `count` of `nodes`.
    pub(super) fn is_among_first(&self, count: usize, node: &str, nodes: &[String]) -> bool {
        let rank = |node: &str| (self.hash(node.as_bytes()), node.to_owned());
        let own = rank(node);
        nodes.iter().any(|other| other == node)
            && nodes.iter().filter(|other| rank(other) < own).count() < count
    }
}

impl PartialEq for Buckets {
    fn eq(&self, other: &Self) -> bool {
        self.salt_hash == other.salt_hash
    }
}

impl Eq for Buckets {}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buckets({:016x})", self.salt_hash)
    }
}
