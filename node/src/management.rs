//! Candid arguments of the management canister, as a client writes them.

use candid::{CandidType, Encode};
use execution::Principal;
use serde::Serialize;

use crate::drun::InstallMode;

/// Whether an upgrade keeps the Wasm heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Serialize)]
enum WasmMemoryPersistence {
    #[serde(rename = "keep")]
    Keep,
}

#[derive(Debug, CandidType, Serialize)]
struct UpgradeFlags {
    skip_pre_upgrade: Option<bool>,
    wasm_memory_persistence: Option<WasmMemoryPersistence>,
}

#[derive(Debug, CandidType, Serialize)]
enum InstallCodeMode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<UpgradeFlags>),
}

#[derive(Debug, CandidType, Serialize)]
struct InstallCode<'a> {
    mode: InstallCodeMode,
    canister_id: Principal,
    wasm_module: &'a serde_bytes::Bytes,
    arg: &'a serde_bytes::Bytes,
}

/// The argument of `install_code`.
///
/// `keep_heap` matters to upgrades alone: the module has the `enhanced-orthogonal-persistence` section.
#[must_use]
pub fn install_code(
    mode: InstallMode,
    canister: Principal,
    module: &[u8],
    arg: &[u8],
    keep_heap: bool,
) -> Vec<u8> {
    let mode = match mode {
        InstallMode::Install => InstallCodeMode::Install,
        InstallMode::Reinstall => InstallCodeMode::Reinstall,
        InstallMode::Upgrade => InstallCodeMode::Upgrade(Some(UpgradeFlags {
            skip_pre_upgrade: Some(false),
            wasm_memory_persistence: keep_heap.then_some(WasmMemoryPersistence::Keep),
        })),
    };
    let argument = InstallCode {
        mode,
        canister_id: canister,
        wasm_module: serde_bytes::Bytes::new(module),
        arg: serde_bytes::Bytes::new(arg),
    };
    Encode!(&argument).expect("a record of blobs encodes")
}

#[derive(Debug, CandidType, Serialize)]
struct ProvisionalCreate {
    amount: Option<candid::Nat>,
}

/// The argument of `provisional_create_canister_with_cycles`: the default settings and balance.
#[must_use]
pub fn provisional_create() -> Vec<u8> {
    Encode!(&ProvisionalCreate { amount: None }).expect("a record of an option encodes")
}

#[derive(Debug, CandidType, Serialize, serde::Deserialize)]
struct CanisterId {
    canister_id: Principal,
}

/// The reply that names a new canister.
#[must_use]
pub fn canister_id_record(canister: Principal) -> Vec<u8> {
    Encode!(&CanisterId { canister_id: canister }).expect("a record of a principal encodes")
}

/// The canister that a reply of `create_canister` names.
#[must_use]
pub fn created_canister(reply: &[u8]) -> Option<Principal> {
    candid::decode_one::<CanisterId>(reply).ok().map(|record| record.canister_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_canister_is_named_as_drun_does() {
        let first = Principal::from_text("rwlgt-iiaaa-aaaaa-aaaaa-cai").unwrap();
        assert_eq!(
            hex::encode(canister_id_record(first)),
            "4449444c016c01b3c4b1f204680100010a00000000000000000101"
        );
        assert_eq!(created_canister(&canister_id_record(first)), Some(first));
        assert_eq!(created_canister(b"DIDL"), None);
    }

    #[test]
    fn an_install_argument_reads_back() {
        #[derive(Debug, CandidType, serde::Deserialize)]
        enum Mode {
            #[serde(rename = "install")]
            Install,
            #[serde(rename = "upgrade")]
            Upgrade(Option<Flags>),
        }
        #[derive(Debug, CandidType, serde::Deserialize)]
        struct Flags {
            wasm_memory_persistence: Option<Persistence>,
        }
        #[derive(Debug, CandidType, serde::Deserialize, PartialEq)]
        enum Persistence {
            #[serde(rename = "keep")]
            Keep,
        }
        #[derive(Debug, CandidType, serde::Deserialize)]
        struct Argument {
            mode: Mode,
            wasm_module: serde_bytes::ByteBuf,
        }
        let canister = Principal::anonymous();
        let bytes = install_code(InstallMode::Upgrade, canister, b"\0asm", b"", true);
        let read: Argument = candid::decode_one(&bytes).unwrap();
        let Mode::Upgrade(Some(flags)) = read.mode else { panic!("not an upgrade: {:?}", read.mode) };
        assert_eq!(flags.wasm_memory_persistence, Some(Persistence::Keep));
        assert_eq!(read.wasm_module.as_slice(), b"\0asm");
        let bytes = install_code(InstallMode::Install, canister, b"\0asm", b"", true);
        assert!(matches!(candid::decode_one::<Argument>(&bytes).unwrap().mode, Mode::Install));
    }
}
