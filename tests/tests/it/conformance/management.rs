//! Arguments of the management canister.

use candid::{CandidType, Encode, Nat};
use execution::Principal;
use serde::Serialize;
use serde_bytes::Bytes;

#[derive(Clone, Copy, CandidType, Serialize)]
pub(crate) enum Persistence {
    #[serde(rename = "keep")]
    Keep,
    #[serde(rename = "replace")]
    Replace,
}

#[derive(Clone, Copy, Default, CandidType, Serialize)]
pub(crate) struct Upgrade {
    pub(crate) skip_pre_upgrade: Option<bool>,
    pub(crate) wasm_memory_persistence: Option<Persistence>,
}

#[derive(Clone, Copy, CandidType, Serialize)]
#[expect(clippy::enum_variant_names, reason = "the interface's own words")]
pub(crate) enum Install {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<Upgrade>),
}

#[derive(CandidType, Serialize)]
struct InstallCode<'a> {
    mode: Install,
    canister_id: Principal,
    wasm_module: &'a Bytes,
    arg: &'a Bytes,
    sender_canister_version: Option<u64>,
}

/// The argument of `install_code`.
pub(crate) fn install(mode: Install, canister_id: Principal, module: &[u8], arg: &[u8]) -> Vec<u8> {
    let [wasm_module, arg] = [Bytes::new(module), Bytes::new(arg)];
    Encode!(&InstallCode { mode, canister_id, wasm_module, arg, sender_canister_version: None })
        .expect("an argument encodes")
}

#[derive(CandidType, Serialize)]
struct CanisterId {
    canister_id: Principal,
    num_requested_changes: Option<u64>,
}

/// The argument of the methods that take a canister alone.
pub(super) fn canister(canister_id: Principal) -> Vec<u8> {
    Encode!(&CanisterId { canister_id, num_requested_changes: Some(20) }).expect("an argument encodes")
}

#[derive(Clone, CandidType, Serialize)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Settings to change.
#[derive(Clone, Default, CandidType, Serialize)]
pub(crate) struct Settings {
    pub(crate) controllers: Option<Vec<Principal>>,
    pub(crate) compute_allocation: Option<Nat>,
    pub(crate) memory_allocation: Option<Nat>,
    pub(crate) freezing_threshold: Option<Nat>,
    pub(crate) wasm_memory_limit: Option<Nat>,
    pub(crate) wasm_memory_threshold: Option<Nat>,
    pub(crate) environment_variables: Option<Vec<Variable>>,
    pub(crate) minimum_incoming_canister_call_cycles: Option<Nat>,
}

#[derive(CandidType, Serialize)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
    sender_canister_version: Option<u64>,
}

/// The argument of `update_settings`.
pub(crate) fn settings(canister_id: Principal, settings: Settings, version: Option<u64>) -> Vec<u8> {
    Encode!(&UpdateSettings { canister_id, settings, sender_canister_version: version })
        .expect("an argument encodes")
}
