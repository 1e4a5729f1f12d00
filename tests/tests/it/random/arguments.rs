//! Arguments of the management canister.

use candid::{CandidType, Encode, Nat, Principal};
use serde::Serialize;
use serde_bytes::Bytes;

/// Methods that generated canisters call.
pub(super) const FOR_CANISTERS: [&str; 9] = [
    "raw_rand",
    "raw_rand",
    "canister_status",
    "canister_info",
    "deposit_cycles",
    "start_canister",
    "stop_canister",
    "create_canister",
    "sign_with_ecdsa",
];

/// Whether the argument of one of them names a canister.
pub(super) fn names_canister(method: &str) -> bool {
    ["canister_status", "canister_info", "deposit_cycles", "start_canister", "stop_canister"]
        .contains(&method)
}

#[derive(CandidType, Serialize)]
struct CanisterId {
    canister_id: Principal,
}

/// Of the methods that take a canister alone. Its last bytes are those of the id.
pub(super) fn of_canister(canister_id: Principal) -> Vec<u8> {
    Encode!(&CanisterId { canister_id }).expect("an argument encodes")
}

#[derive(Clone, Copy, CandidType, Serialize)]
pub(super) enum Persistence {
    #[serde(rename = "keep")]
    Keep,
    #[serde(rename = "replace")]
    Replace,
}

#[derive(Clone, Copy, CandidType, Serialize)]
pub(super) struct Upgrade {
    pub(super) skip_pre_upgrade: Option<bool>,
    pub(super) wasm_memory_persistence: Option<Persistence>,
}

#[derive(Clone, Copy, CandidType, Serialize)]
pub(super) enum Mode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<Upgrade>),
}

#[derive(CandidType, Serialize)]
struct InstallCode<'a> {
    mode: Mode,
    canister_id: Principal,
    wasm_module: &'a Bytes,
    arg: &'a Bytes,
}

/// Of `install_code`.
pub(super) fn install(mode: Mode, canister_id: Principal, module: &[u8], arg: &[u8]) -> Vec<u8> {
    let [wasm_module, arg] = [module, arg].map(Bytes::new);
    Encode!(&InstallCode { mode, canister_id, wasm_module, arg }).expect("an argument encodes")
}

#[derive(CandidType, Serialize)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

/// Settings to change.
#[derive(Default, CandidType, Serialize)]
pub(super) struct Settings {
    pub(super) freezing_threshold: Option<Nat>,
    pub(super) memory_allocation: Option<Nat>,
    pub(super) compute_allocation: Option<Nat>,
    pub(super) wasm_memory_limit: Option<Nat>,
    pub(super) wasm_memory_threshold: Option<Nat>,
    pub(super) environment_variables: Option<Vec<Variable>>,
    pub(super) minimum_incoming_canister_call_cycles: Option<Nat>,
}

#[derive(CandidType, Serialize)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

/// Of `update_settings`.
pub(super) fn settings(canister_id: Principal, settings: Settings) -> Vec<u8> {
    Encode!(&UpdateSettings { canister_id, settings }).expect("an argument encodes")
}

#[derive(CandidType, Serialize)]
struct TopUp {
    canister_id: Principal,
    amount: Nat,
}

/// Of `provisional_top_up_canister`.
pub(super) fn top_up(canister_id: Principal, amount: u64) -> Vec<u8> {
    Encode!(&TopUp { canister_id, amount: amount.into() }).expect("an argument encodes")
}

#[derive(CandidType, Serialize)]
struct Create {
    amount: Option<Nat>,
}

/// Of `provisional_create_canister_with_cycles`.
pub(super) fn create(amount: u64) -> Vec<u8> {
    Encode!(&Create { amount: Some(amount.into()) }).expect("an argument encodes")
}
