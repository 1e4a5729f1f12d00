//! Candid in and out, with bounds on what decoding may cost.

use std::fmt;
use std::marker::PhantomData;

use candid::de::DecoderConfig;
use candid::types::{Serializer, Type};
use candid::{CandidType, Nat};
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{ErrorCode, UserError};

/// What decoding may cost for each byte of the argument.
const QUOTA_PER_BYTE: usize = 50;
/// What decoding may cost besides.
const QUOTA_BASE: usize = 1_000_000;
/// What skipping unknown fields may cost.
const SKIPPING_QUOTA: usize = 100_000;
/// Items of a list in an argument: more than any method takes.
const LIST_MAX: usize = 1_000;
/// Bits of a number that is told in an error: writing out one as long as an argument takes seconds.
const TOLD_BITS_MAX: u64 = 256;

/// A list of an argument. A longer one is refused where it passes the bound: an item may take many times the memory of
/// its bytes in the argument.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T: CandidType> CandidType for List<T> {
    fn _ty() -> Type {
        Vec::<T>::_ty()
    }

    fn idl_serialize<S: Serializer>(&self, serializer: S) -> Result<(), S::Error> {
        self.0.idl_serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {LIST_MAX} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == LIST_MAX {
                        return Err(A::Error::custom(format_args!("a list of more than {LIST_MAX} items")));
                    }
                    list.push(item);
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}

fn config(bytes: usize) -> DecoderConfig {
    let mut config = DecoderConfig::new();
    config.set_decoding_quota(bytes.saturating_mul(QUOTA_PER_BYTE).saturating_add(QUOTA_BASE));
    config.set_skipping_quota(SKIPPING_QUOTA.saturating_add(bytes));
    // An error would otherwise quote the whole argument.
    config.set_full_error_message(false);
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
    let mut text = format!("Error decoding candid of {method}: {error:#}");
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
        UserError::new(
            ErrorCode::INVALID_MANAGEMENT_PAYLOAD,
            format!("{what} of {} is too large", told(value)),
        )
    })
}

/// A number as an error tells it: one that is too long by its length.
pub(super) fn told(value: &Nat) -> String {
    let bits = value.0.bits();
    if bits > TOLD_BITS_MAX { format!("a number of {bits} bits") } else { value.to_string() }
}
