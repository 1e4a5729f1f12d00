//! What things cost (section 2.7).

use execution::Cycles;

use crate::trap::Stop;

use super::{Arguments, Guest};

/// The key isn't known to this subnet: it has none.
const UNKNOWN_KEY: u64 = 2;
/// The curve or algorithm doesn't exist.
const UNKNOWN_CURVE: u64 = 1;

pub(super) fn call(
    guest: &mut Guest<'_>,
    &[name_size, payload_size, dst, ..]: &Arguments,
) -> Result<u64, Stop> {
    let limits = &guest.run().invocation.limits;
    let bytes = name_size.saturating_add(payload_size);
    let price = limits
        .call_fee(bytes)
        .saturating_add(limits.response_reservation())
        .saturating_add(limits.execution_price(guest.data().shape.memory64, limits.update_instructions));
    guest.write_u128(dst, price)
}

pub(super) fn create_canister(guest: &mut Guest<'_>, &[dst, ..]: &Arguments) -> Result<u64, Stop> {
    let limits = &guest.run().invocation.limits;
    guest.write_u128(dst, limits.scaled(limits.prices.create))
}

pub(super) fn http_request(
    guest: &mut Guest<'_>,
    &[request_size, response_max, dst, ..]: &Arguments,
) -> Result<u64, Stop> {
    let limits = &guest.run().invocation.limits;
    let nodes = Cycles::from(limits.nodes);
    let price = if limits.system_subnet {
        0
    } else {
        let bytes = 400 * Cycles::from(request_size) + 800 * Cycles::from(response_max);
        (3_000_000 + 60_000 * nodes + bytes) * nodes
    };
    guest.write_u128(dst, price)
}

/// Not in the specification; its Candid parameter record is not settled. Refused rather than guessed.
pub(super) fn http_request_v2(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    guest.heap(src, size)?;
    Err(Stop::contract("ic0.cost_http_request_v2 is not enabled on this subnet"))
}

/// `curves`: how many there are, numbered from 0.
fn key(guest: &Guest<'_>, src: u64, size: u64, curve: u64, curves: u64) -> Result<u64, Stop> {
    guest.heap(src, size)?;
    Ok(if curve < curves { UNKNOWN_KEY } else { UNKNOWN_CURVE })
}

pub(super) fn sign_with_ecdsa(
    guest: &mut Guest<'_>,
    &[src, size, curve, ..]: &Arguments,
) -> Result<u64, Stop> {
    key(guest, src, size, curve, 1)
}

pub(super) fn sign_with_schnorr(
    guest: &mut Guest<'_>,
    &[src, size, curve, ..]: &Arguments,
) -> Result<u64, Stop> {
    key(guest, src, size, curve, 2)
}

pub(super) fn vetkd_derive_key(
    guest: &mut Guest<'_>,
    &[src, size, curve, ..]: &Arguments,
) -> Result<u64, Stop> {
    key(guest, src, size, curve, 1)
}
