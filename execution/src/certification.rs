//! Certified state (`canister-execution.md` section 6): the public part of the state as a hash tree, its root
//! signed, and certificates that show parts of it.
//!
//! A certificate shows the state after the last round that ended, never what happened since. Nothing here is
//! replicated: tree, root and signature follow from the state, so equal states have equal certificates.

mod public_state;
mod read_state;
mod signer;
mod tree;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use ic_certification::HashTree;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
pub use read_state::{LABELS_MAX, PATHS_MAX, ReadStateError};
pub use signer::{BlsSigner, InvalidKey, Signer};
use tree::{Labels, Selection, Tree};

use crate::root::Root;
use crate::state::{IngressRecord, MessageId, Shared, SubnetState};
use crate::{Nanoseconds, Principal};

/// Longest data certificate in bytes. One is some 1 KiB; the longest possible has a pruned sibling for each
/// of the at most 9 bits of each of the at most 29 bytes of a canister's id.
pub const DATA_CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// The domain of what is signed, with its length before it.
const STATE_ROOT_DOMAIN: &[u8] = b"\x0dic-state-root";
/// The CBOR tag 55799, which says that CBOR follows.
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];

/// What the hash of a certified tree is signed over: the root behind its domain.
#[must_use]
pub fn signed_message(root: &Root) -> Vec<u8> {
    [STATE_ROOT_DOMAIN, root].concat()
}

/// A part of the certified state, with the signature of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// What is shown; everything else is pruned to its hash.
    pub tree: HashTree,
    /// Signature over [`signed_message`] of the tree's root.
    pub signature: Vec<u8>,
}

impl Certificate {
    /// The encoding that agents and canisters read: tagged CBOR of `{tree, signature}`.
    #[must_use]
    pub fn to_cbor(self) -> Vec<u8> {
        let Self { tree, signature } = self;
        cbor(&ic_certification::Certificate { tree, signature, delegation: None })
    }
}

/// Tagged CBOR of a value.
fn cbor(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = SELF_DESCRIBED.to_vec();
    ciborium::into_writer(value, &mut bytes).expect("a Vec takes what is written, and the types are CBOR's");
    bytes
}

/// The public part of the state after one round. Hashed and signed when the first certificate is asked for;
/// what rounds in between left unchanged is not hashed again.
pub struct CertifiedState {
    time: Nanoseconds,
    canisters: Labels,
    requests: Labels,
    /// What `requests` was made of.
    records: OrdMap<MessageId, Shared<IngressRecord>>,
    tree: Tree,
    signer: Arc<dyn Signer>,
    signature: OnceLock<Vec<u8>>,
}

impl fmt::Debug for CertifiedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertifiedState").field("time", &self.time).finish_non_exhaustive()
    }
}

impl CertifiedState {
    /// The public part of `state`, from scratch.
    #[must_use]
    pub fn new(state: &SubnetState, signer: Arc<dyn Signer>) -> Self {
        let all = state.canisters.keys().copied().collect();
        let nothing = OrdMap::new();
        Self::from(&Labels::default(), &all, &Labels::default(), &nothing, state, signer)
    }

    /// The public part of `state`, in which no canisters but `changed` differ from the state that this one is of.
    #[must_use]
    pub fn next(&self, state: &SubnetState, changed: &BTreeSet<Principal>) -> Self {
        let signer = Arc::clone(&self.signer);
        Self::from(&self.canisters, changed, &self.requests, &self.records, state, signer)
    }

    fn from(
        canisters: &Labels,
        changed: &BTreeSet<Principal>,
        requests: &Labels,
        records: &OrdMap<MessageId, Shared<IngressRecord>>,
        state: &SubnetState,
        signer: Arc<dyn Signer>,
    ) -> Self {
        let mut canisters = canisters.clone();
        for id in changed {
            let label = id.as_slice();
            canisters = match state.canister(id) {
                None => canisters.without(label),
                Some(canister) => match public_state::canister(canister, canisters.get(label)) {
                    Some(tree) => canisters.with(label, tree),
                    None => continue,
                },
            };
        }
        let mut requests = requests.clone();
        for item in records.diff(&state.ingress.records) {
            requests = match item {
                DiffItem::Add(id, record) | DiffItem::Update { new: (id, record), .. } => {
                    requests.with(&id.0, public_state::request(&record.status))
                }
                DiffItem::Remove(id, _) => requests.without(&id.0),
            };
        }
        let tree = Labels::of([
            ("canister", Tree::Labels(canisters.clone())),
            ("request_status", Tree::Labels(requests.clone())),
            ("time", public_state::number(state.time)),
        ]);
        Self {
            time: state.time,
            canisters,
            requests,
            records: state.ingress.records.clone(),
            tree: Tree::Labels(tree),
            signer,
            signature: OnceLock::new(),
        }
    }

    /// Time of the round.
    #[must_use]
    pub fn time(&self) -> Nanoseconds {
        self.time
    }

    /// Hash of the whole tree.
    #[must_use]
    pub fn root(&self) -> Root {
        self.tree.hash()
    }

    /// What a query of `canister` gets: the time and its certified data.
    #[must_use]
    pub fn data_certificate(&self, canister: &Principal) -> Certificate {
        let data: [&[u8]; 3] = [b"canister", canister.as_slice(), b"certified_data"];
        let time: [&[u8]; 1] = [b"time"];
        self.certificate(&Selection::of([&data[..], &time[..]]))
    }

    fn certificate(&self, shown: &Selection<'_>) -> Certificate {
        let signature = self.signature.get_or_init(|| self.signer.sign(&signed_message(&self.root())));
        Certificate { tree: self.tree.witness(shown), signature: signature.clone() }
    }
}
