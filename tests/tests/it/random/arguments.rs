//! Arguments of the management canister that the conformance checks don't have.

use candid::{CandidType, Encode, Nat, Principal};
use serde::Serialize;

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
