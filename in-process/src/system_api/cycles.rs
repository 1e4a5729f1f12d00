//! Cycles (section 2.4).

use execution::Cycles;

use crate::trap::Stop;

use super::{Arguments, Guest};

fn in_64_bits(amount: Cycles) -> Result<u64, Stop> {
    u64::try_from(amount).map_err(|_| Stop::trapped("cycles amount exceeds 64-bit representation"))
}

/// An amount passed as two halves.
pub(super) fn amount(high: u64, low: u64) -> Cycles {
    Cycles::from(high) << 64 | Cycles::from(low)
}

pub(super) fn balance(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    in_64_bits(guest.run().cycles.balance)
}

pub(super) fn balance128(guest: &mut Guest<'_>, &[dst, ..]: &Arguments) -> Result<u64, Stop> {
    guest.write_u128(dst, guest.run().cycles.balance)
}

pub(super) fn liquid128(guest: &mut Guest<'_>, &[dst, ..]: &Arguments) -> Result<u64, Stop> {
    guest.write_u128(dst, guest.run().liquid())
}

pub(super) fn available(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    in_64_bits(guest.run().cycles.available)
}

pub(super) fn available128(guest: &mut Guest<'_>, &[dst, ..]: &Arguments) -> Result<u64, Stop> {
    guest.write_u128(dst, guest.run().cycles.available)
}

pub(super) fn refunded(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    in_64_bits(guest.run().invocation.system.cycles_refunded)
}

pub(super) fn refunded128(guest: &mut Guest<'_>, &[dst, ..]: &Arguments) -> Result<u64, Stop> {
    guest.write_u128(dst, guest.run().invocation.system.cycles_refunded)
}

fn take(guest: &mut Guest<'_>, wanted: Cycles) -> Cycles {
    let cycles = &mut guest.run_mut().cycles;
    let taken = wanted.min(cycles.available);
    cycles.available -= taken;
    cycles.accepted = cycles.accepted.saturating_add(taken);
    cycles.balance = cycles.balance.saturating_add(taken);
    taken
}

pub(super) fn accept(guest: &mut Guest<'_>, &[wanted, ..]: &Arguments) -> Result<u64, Stop> {
    let taken = take(guest, Cycles::from(wanted));
    Ok(u64::try_from(taken).expect("at most what was wanted, a u64"))
}

pub(super) fn accept128(guest: &mut Guest<'_>, &[high, low, dst, ..]: &Arguments) -> Result<u64, Stop> {
    let taken = take(guest, amount(high, low));
    guest.write_u128(dst, taken)
}

pub(super) fn burn128(guest: &mut Guest<'_>, &[high, low, dst, ..]: &Arguments) -> Result<u64, Stop> {
    let burnt = amount(high, low).min(guest.run().liquid());
    let cycles = &mut guest.run_mut().cycles;
    cycles.balance -= burnt;
    cycles.burned = cycles.burned.saturating_add(burnt);
    guest.write_u128(dst, burnt)
}

/// Only the cycles minting canister may mint, and it lives on no subnet of this product.
pub(super) fn mint128(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Err(Stop::contract(format_args!(
        "ic0.mint_cycles128 cannot be executed on non Cycles Minting Canister: {}",
        guest.run().invocation.system.canister
    )))
}
