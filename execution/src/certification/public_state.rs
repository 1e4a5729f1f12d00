//! Which leaves there are and how they are encoded (`canister-execution.md` section 6).

use std::sync::Arc;

use ciborium::Value;

use crate::certification::cbor;
use crate::certification::tree::{Labels, Tree};
use crate::state::{CanisterState, Code, IngressStatus};

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

/// `/canister/<id>`, where it differs from what it `was`.
///
/// `certified_data` is there when code is (disagreement 9: as the implementation has it), and so are
/// `last_install_timestamp`, `metadata` and `module_hash`.
pub(super) fn canister(canister: &CanisterState, was: Option<&Tree>) -> Option<Tree> {
    let controllers = canister.settings.controllers.iter();
    let controllers = controllers.map(|id| Value::Bytes(id.as_slice().to_vec())).collect();
    let mut leaves = vec![
        ("canister_creation_timestamp", number(canister.created)),
        ("controllers", blob(cbor(&Value::Array(controllers)))),
    ];
    if let Some(code) = &canister.code {
        leaves.push(("certified_data", blob(&canister.certified_data)));
        leaves.push(("last_install_timestamp", number(code.installed)));
        leaves.push(("module_hash", blob(code.module.hash.0)));
    }
    let is_as_it_was = |label: &str| {
        let new = leaves.iter().find(|(name, _)| *name == label).and_then(|(_, tree)| tree.value());
        new == was.and_then(|was| was.get(label.as_bytes())).and_then(Tree::value)
    };
    let same_module = is_as_it_was("module_hash");
    if was.is_some() && same_module && leaves.iter().all(|(label, _)| is_as_it_was(label)) {
        return None;
    }
    if let Some(code) = &canister.code {
        let kept = was.filter(|_| same_module).and_then(|was| was.get(b"metadata")).cloned();
        leaves.push(("metadata", kept.unwrap_or_else(|| metadata(code))));
    }
    Some(Tree::Labels(Labels::of(leaves)))
}

/// `/canister/<id>/metadata`: the content of each `icp:` custom section by its name without the prefix.
fn metadata(code: &Code) -> Tree {
    let names = code.module.interface.custom_sections.keys();
    let sections = names.map(|name| (name, Tree::Section(Arc::clone(&code.module), name.clone())));
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
