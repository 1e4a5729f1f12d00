//! Which leaves there are and how they are encoded (`canister-execution.md` section 6).

use std::sync::Arc;

use ciborium::Value;

use crate::certification::cbor;
use crate::certification::tree::{Labels, Tree};
use crate::state::{CanisterState, IngressStatus};
use crate::{ModuleHash, Nanoseconds, Principal};

/// A number: unsigned LEB128.
pub(super) fn number(mut number: u64) -> Tree {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return Tree::Leaf(Arc::from(bytes));
        }
        bytes.push(low | 0x80);
    }
}

fn blob(bytes: impl AsRef<[u8]>) -> Tree {
    Tree::Leaf(Arc::from(bytes.as_ref()))
}

/// What `/canister/<id>` is made of.
///
/// `certified_data` is there when code is (disagreement 9: as the implementation has it), and so are
/// `last_install_timestamp`, `metadata` and `module_hash`.
#[derive(PartialEq)]
struct Public<'a> {
    created: Nanoseconds,
    controllers: &'a [Principal],
    code: Option<PublicCode<'a>>,
}

#[derive(PartialEq)]
struct PublicCode<'a> {
    certified_data: &'a [u8],
    installed: Nanoseconds,
    /// The metadata follow from it.
    module: ModuleHash,
}

impl<'a> Public<'a> {
    fn of(canister: &'a CanisterState) -> Self {
        Self {
            created: canister.created,
            controllers: &canister.settings.controllers,
            code: canister.code.as_ref().map(|code| PublicCode {
                certified_data: &canister.certified_data,
                installed: code.installed,
                module: code.module.hash,
            }),
        }
    }
}

/// Whether two states of a canister have the same public state.
pub(crate) fn is_same(one: &CanisterState, other: &CanisterState) -> bool {
    Public::of(one) == Public::of(other)
}

/// `/canister/<id>`; of what it `was` the metadata are kept, with their hashes, where the module is the same.
pub(super) fn canister(canister: &CanisterState, was: Option<&Tree>) -> Tree {
    let Public { created, controllers, code } = Public::of(canister);
    let controllers = controllers.iter().map(|id| Value::Bytes(id.as_slice().to_vec())).collect();
    let mut leaves = vec![
        ("canister_creation_timestamp", number(created)),
        ("controllers", blob(cbor(&Value::Array(controllers)))),
    ];
    if let Some(PublicCode { certified_data, installed, module }) = code {
        let was = was.filter(|was| was.get(b"module_hash").and_then(Tree::value) == Some(&module.0[..]));
        let kept = was.and_then(|was| was.get(b"metadata")).cloned();
        leaves.push(("certified_data", blob(certified_data)));
        leaves.push(("last_install_timestamp", number(installed)));
        leaves.push(("metadata", kept.unwrap_or_else(|| metadata(canister))));
        leaves.push(("module_hash", blob(module.0)));
    }
    Tree::Labels(Labels::of(leaves))
}

/// `/canister/<id>/metadata`: the content of each `icp:` custom section by its name without the prefix.
fn metadata(canister: &CanisterState) -> Tree {
    let sections = canister.module().into_iter().flat_map(|module| {
        let names = module.interface.custom_sections.keys();
        names.map(|name| (name, Tree::Section(Arc::clone(module), name.clone())))
    });
    Tree::Labels(Labels::of(sections))
}

/// `/request_status/<id>`.
pub(super) fn request(status: &IngressStatus) -> Tree {
    let text = |text: &str| blob(text);
    let leaves = match status {
        IngressStatus::Unknown => vec![("status", text("unknown"))],
        IngressStatus::Received => vec![("status", text("received"))],
        IngressStatus::Processing => vec![("status", text("processing"))],
        IngressStatus::Done => vec![("status", text("done"))],
        IngressStatus::Replied(data) => {
            vec![("status", text("replied")), ("reply", Tree::Leaf(Arc::clone(data)))]
        }
        IngressStatus::Rejected(error) => vec![
            ("status", text("rejected")),
            ("reject_code", number(error.code.reject_code().into())),
            ("reject_message", text(&error.description)),
            ("error_code", text(&error.code.to_string())),
        ],
    };
    Tree::Labels(Labels::of(leaves))
}
