//! The state root: one hash over every replicated field and nothing physical (design decision 14).
//!
//! Every struct is destructured without `..`, so that a new field does not compile until it is hashed
//! or named as physical. What is large is hashed incrementally: only pages, canisters and ingress
//! records that changed since the last root are hashed again. The cache is physical.

mod feed;
mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use feed::{Feed, Hasher};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
pub use memory::MemoryRoot;

use crate::Principal;
use crate::state::{
    CanisterSnapshot, CanisterState, IngressHistory, IngressRecord, MessageId, Shared, SubnetState,
};

/// A SHA-256 hash.
pub type Root = [u8; 32];

/// The state root, from scratch.
#[must_use]
pub fn state_root(state: &SubnetState) -> Root {
    StateRoot::default().root(state)
}

/// A canister's part of the state root, from scratch.
#[must_use]
pub fn canister_root(canister: &CanisterState) -> Root {
    CanisterRoot::default().root(canister)
}

/// Computes state roots one after another, each at the cost of what changed since the one before.
#[derive(Debug, Default)]
pub struct StateRoot {
    canisters: MapRoot<Principal, CanisterState>,
    memories: BTreeMap<Principal, CanisterRoot>,
    ingress: MapRoot<MessageId, IngressRecord>,
}

impl StateRoot {
    /// The root of `state`.
    pub fn root(&mut self, state: &SubnetState) -> Root {
        let SubnetState {
            time,
            round,
            seed,
            draws,
            canisters_made,
            charged,
            canisters,
            ingress,
            management,
            pending,
            memory_bytes,
            compute_percent,
            callbacks_shared,
            message_bytes,
        } = state;
        // What the records come to is no more than they are.
        let IngressHistory {
            records,
            answered,
            receivers: _,
            waiting_bytes: _,
            answer_bytes: _,
            forgotten: _,
        } = ingress;
        let memories = &mut self.memories;
        let canisters = self.canisters.root(canisters, |id, canister| match canister {
            Some(canister) => memories.entry(*id).or_default().root(canister),
            None => {
                memories.remove(id);
                [0; 32]
            }
        });
        let records = self.ingress.root(records, |_, record| {
            record.map_or([0; 32], |record| {
                let mut hash = Hasher::new("ingress");
                record.feed(&mut hash);
                hash.finish()
            })
        });
        let mut hash = Hasher::new("state");
        for number in
            [time, round, draws, canisters_made, charged, memory_bytes, compute_percent, message_bytes]
        {
            number.feed(&mut hash);
        }
        seed.feed(&mut hash);
        canisters.feed(&mut hash);
        records.feed(&mut hash);
        // The order of the answers follows from the times in the records; its ends are enough.
        (answered.len() as u64).feed(&mut hash);
        answered.front().feed(&mut hash);
        answered.back().feed(&mut hash);
        management.feed(&mut hash);
        pending.feed(&mut hash);
        callbacks_shared.feed(&mut hash);
        hash.finish()
    }
}

/// One canister's root, with the hashes of its memories and snapshots kept.
#[derive(Debug, Default)]
struct CanisterRoot {
    heap: MemoryRoot,
    stable: MemoryRoot,
    snapshots: SnapshotRoots,
}

/// Roots of snapshots by their numbers, with the snapshots that they are of.
type SnapshotRoots = BTreeMap<u64, (Arc<CanisterSnapshot>, Root)>;

impl CanisterRoot {
    fn root(&mut self, canister: &CanisterState) -> Root {
        let mut hash = Hasher::new("canister");
        feed::canister(canister, &mut hash, self);
        hash.finish()
    }
}

/// Hashes a map by buckets; only buckets with a changed entry are hashed again.
#[derive(Debug)]
struct MapRoot<K: Ord, V> {
    seen: OrdMap<K, Shared<V>>,
    leaves: BTreeMap<u64, BTreeMap<K, Root>>,
    buckets: BTreeMap<u64, Root>,
}

impl<K: Ord + Clone, V> Default for MapRoot<K, V> {
    fn default() -> Self {
        Self { seen: OrdMap::new(), leaves: BTreeMap::new(), buckets: BTreeMap::new() }
    }
}

impl<K: Ord + Copy + Feed, V> MapRoot<K, V> {
    /// The root of `map`; `leaf` hashes an entry that changed, and hears of one that is gone.
    fn root(&mut self, map: &OrdMap<K, Shared<V>>, mut leaf: impl FnMut(&K, Option<&V>) -> Root) -> Root {
        let seen = std::mem::replace(&mut self.seen, map.clone());
        let mut touched = std::collections::BTreeSet::new();
        for item in seen.diff(map) {
            let (key, value) = match item {
                DiffItem::Add(key, value) => (*key, Some(value)),
                DiffItem::Update { new: (key, value), .. } => (*key, Some(value)),
                DiffItem::Remove(key, _) => (*key, None),
            };
            let bucket = bucket(&key);
            touched.insert(bucket);
            let leaves = self.leaves.entry(bucket).or_default();
            let root = leaf(&key, value.map(|value| &**value));
            if value.is_some() {
                leaves.insert(key, root);
            } else {
                leaves.remove(&key);
            }
        }
        for bucket in touched {
            let leaves = self.leaves.get(&bucket).filter(|leaves| !leaves.is_empty());
            let Some(leaves) = leaves else {
                self.leaves.remove(&bucket);
                self.buckets.remove(&bucket);
                continue;
            };
            let mut hash = Hasher::new("bucket");
            for (key, root) in leaves {
                key.feed(&mut hash);
                root.feed(&mut hash);
            }
            self.buckets.insert(bucket, hash.finish());
        }
        let mut hash = Hasher::new("map");
        for (bucket, root) in &self.buckets {
            bucket.feed(&mut hash);
            root.feed(&mut hash);
        }
        hash.finish()
    }
}

/// Which bucket a key is in: by its hash, so that sequential canister ids spread.
fn bucket<K: Feed>(key: &K) -> u64 {
    let mut hash = Hasher::new("key");
    key.feed(&mut hash);
    u64::from(hash.finish()[0])
}
