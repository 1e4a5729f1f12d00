//! Candid in and out, with bounds on what decoding may cost.

use candid::de::DecoderConfig;
use candid::{CandidType, Nat};
use serde::de::DeserializeOwned;

use crate::{ErrorCode, UserError};

/// What decoding may cost for each byte of the argument.
const QUOTA_PER_BYTE: usize = 50;
/// What decoding may cost besides.
const QUOTA_BASE: usize = 1_000_000;
/// What skipping unknown fields may cost.
const SKIPPING_QUOTA: usize = 100_000;

fn config(bytes: usize) -> DecoderConfig {
    let mut config = DecoderConfig::new();
    config.set_decoding_quota(bytes.saturating_mul(QUOTA_PER_BYTE).saturating_add(QUOTA_BASE));
    config.set_skipping_quota(SKIPPING_QUOTA.saturating_add(bytes));
    config
}

/// Decodes the argument of `method`.
pub(super) fn decode<T: CandidType + DeserializeOwned>(method: &str, arg: &[u8]) -> Result<T, UserError> {
    candid::utils::decode_one_with_config(arg, &config(arg.len()))
        .map_err(|error| undecodable(method, &error))
}

/// Decodes an argument that says nothing.
pub(super) fn decode_unit(method: &str, arg: &[u8]) -> Result<(), UserError> {
    candid::utils::decode_args_with_config::<()>(arg, &config(arg.len()))
        .map_err(|error| undecodable(method, &error))
}

/// Decodes an argument that may be left out.
pub(super) fn decode_or_default<T: CandidType + DeserializeOwned + Default>(
    method: &str,
    arg: &[u8],
) -> Result<T, UserError> {
    if arg.is_empty() || arg == crate::run::CANDID_EMPTY { Ok(T::default()) } else { decode(method, arg) }
}

fn undecodable(method: &str, error: &candid::Error) -> UserError {
    let mut text = format!("Error decoding candid of {method}: {error}");
    let mut end = text.len().min(1024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    UserError::new(ErrorCode::INVALID_MANAGEMENT_PAYLOAD, text)
}

/// Encodes a reply.
pub(super) fn encode<T: CandidType>(value: &T) -> Result<Vec<u8>, UserError> {
    candid::encode_one(value)
        .map_err(|error| UserError::new(ErrorCode::UNKNOWN_MANAGEMENT_MESSAGE, format!("reply: {error}")))
}

/// A number that must fit.
pub(super) fn number<T: TryFrom<u128>>(what: &str, value: &Nat) -> Result<T, UserError> {
    let number = u128::try_from(value.0.clone()).ok().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| {
        UserError::new(ErrorCode::INVALID_MANAGEMENT_PAYLOAD, format!("{what} of {value} is too large"))
    })
}
