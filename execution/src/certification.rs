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
pub(crate) use public_state::is_same;
pub use read_state::{LABELS_MAX, PATHS_MAX, ReadStateError};
pub use signer::{BlsSigner, InvalidKey, Signer};
use tree::{Labels, Selection, Tree};

use crate::root::Root;
use crate::state::{IngressRecord, MessageId, SubnetState};
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
#[derive(Clone)]
pub struct CertifiedState {
    time: Nanoseconds,
    canisters: Labels,
    requests: Labels,
    signer: Arc<dyn Signer>,
    /// The whole, once it was asked for.
    tree: OnceLock<Tree>,
    signature: OnceLock<Vec<u8>>,
}

/// What may differ from the certified state.
#[derive(Debug, Default)]
pub(crate) struct Uncertified {
    pub(crate) canisters: BTreeSet<Principal>,
    pub(crate) requests: BTreeSet<MessageId>,
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
        let mut certified = Self {
            time: 0,
            canisters: Labels::default(),
            requests: Labels::default(),
            signer,
            tree: OnceLock::new(),
            signature: OnceLock::new(),
        };
        let all = Uncertified {
            canisters: state.canisters.keys().copied().collect(),
            requests: state.ingress.records.keys().copied().collect(),
        };
        certified.advance(state, &all);
        certified
    }

    /// Becomes the public part of `state`, which differs from what this is of in nothing but `changed`.
    ///
    /// That is told, and not found: to compare the records with those of the round before took a copy of these, so
    /// that the first change to each leaf of their tree copied it, with a count of 64 records up and later down.
    pub(crate) fn advance(&mut self, state: &SubnetState, changed: &Uncertified) {
        let Self { time, canisters, requests, signer: _, tree, signature } = self;
        // First: it shares the nodes, and what is shared is copied before it is changed.
        *tree = OnceLock::new();
        *signature = OnceLock::new();
        *time = state.time;
        for id in &changed.canisters {
            let label = id.as_slice();
            match state.canister(id) {
                None => canisters.remove(label),
                Some(canister) => {
                    let tree = public_state::canister(canister, canisters.get(label));
                    canisters.insert(label, tree);
                }
            }
        }
        for id in &changed.requests {
            match state.ingress.records.get(id) {
                None => requests.remove(&id.0),
                Some(record) => requests.insert(&id.0, Tree::Request(record.clone())),
            }
        }
    }

    fn tree(&self) -> &Tree {
        self.tree.get_or_init(|| {
            Tree::Labels(Labels::of([
                ("canister", Tree::Labels(self.canisters.clone())),
                ("request_status", Tree::Labels(self.requests.clone())),
                ("time", public_state::number(self.time)),
            ]))
        })
    }

    /// The record of a request that is shown.
    fn request(&self, id: &MessageId) -> Option<&IngressRecord> {
        match self.requests.get(&id.0)? {
            Tree::Request(record) => Some(record),
            Tree::Leaf(_) | Tree::Section(..) | Tree::Labels(_) => None,
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
        self.tree().hash()
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
        Certificate { tree: self.tree().witness(shown), signature: signature.clone() }
    }
}
