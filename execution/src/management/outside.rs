//! Answers of a subnet that lacks a feature (`canister-execution.md` section 8). Attached cycles go back.

use candid::CandidType;
use serde::Deserialize;

use crate::management::candid_io::decode;
use crate::{ErrorCode, UserError};

/// Characters of a key's name that an error shows.
const KEY_NAME_CHARS_MAX: usize = 64;

#[derive(CandidType, Deserialize)]
enum EcdsaCurve {
    #[serde(rename = "secp256k1")]
    Secp256k1,
}

#[derive(CandidType, Deserialize)]
enum SchnorrAlgorithm {
    #[serde(rename = "bip340secp256k1")]
    Bip340Secp256k1,
    #[serde(rename = "ed25519")]
    Ed25519,
}

#[derive(CandidType, Deserialize)]
enum VetKdCurve {
    #[serde(rename = "bls12_381_g2")]
    Bls12381G2,
}

#[derive(CandidType, Deserialize)]
struct CurveKey<Curve> {
    curve: Curve,
    name: String,
}

#[derive(CandidType, Deserialize)]
struct AlgorithmKey {
    algorithm: SchnorrAlgorithm,
    name: String,
}

/// What all arguments of threshold methods have.
#[derive(CandidType, Deserialize)]
struct WithKey<Key> {
    key_id: Key,
}

fn is_threshold(method: &str) -> bool {
    matches!(
        method,
        "sign_with_ecdsa"
            | "ecdsa_public_key"
            | "sign_with_schnorr"
            | "schnorr_public_key"
            | "vetkd_derive_key"
            | "vetkd_public_key"
    )
}

fn is_disabled(method: &str) -> bool {
    method == "http_request" || method.starts_with("bitcoin_")
}

fn is_registry(method: &str) -> bool {
    ["setup_initial_dkg", "reshare_chain_key", "rename_canister"].contains(&method)
}

/// Whether a method exists, but not here.
pub(super) fn lacks(method: &str) -> bool {
    is_threshold(method) || is_disabled(method) || is_registry(method)
}

/// What such a method answers; `None`: there is no such method.
pub(super) fn error(method: &str, arg: &[u8]) -> Option<UserError> {
    if is_threshold(method) {
        return Some(key_of(method, arg).map_or_else(|error| error, |key| {
            let text = format!(
                "Unable to route management canister request {method}: Requested unknown or signing disabled threshold key: {key}, existing keys with signing enabled: []"
            );
            UserError::new(ErrorCode::CANISTER_REJECTED, text)
        }));
    }
    if is_disabled(method) {
        return Some(UserError::new(ErrorCode::CONTRACT_VIOLATION, "This API is not enabled on this subnet"));
    }
    is_registry(method).then(|| {
        UserError::new(ErrorCode::CANISTER_REJECTED, format!("{method} is not available on this subnet"))
    })
}

/// The key that a threshold method asks for, as errors name it.
fn key_of(method: &str, arg: &[u8]) -> Result<String, UserError> {
    let (scheme, name) = if method.contains("ecdsa") {
        let key = decode::<WithKey<CurveKey<EcdsaCurve>>>(method, arg)?.key_id;
        let EcdsaCurve::Secp256k1 = key.curve;
        ("ecdsa:Secp256k1", key.name)
    } else if method.contains("schnorr") {
        let key = decode::<WithKey<AlgorithmKey>>(method, arg)?.key_id;
        let scheme = match key.algorithm {
            SchnorrAlgorithm::Bip340Secp256k1 => "schnorr:Bip340Secp256k1",
            SchnorrAlgorithm::Ed25519 => "schnorr:Ed25519",
        };
        (scheme, key.name)
    } else {
        let key = decode::<WithKey<CurveKey<VetKdCurve>>>(method, arg)?.key_id;
        let VetKdCurve::Bls12381G2 = key.curve;
        ("vetkd:Bls12_381_G2", key.name)
    };
    let shown: String = name.chars().take(KEY_NAME_CHARS_MAX).collect();
    Ok(format!("{scheme}:{shown}"))
}
