//! The System API (`canister-execution.md` section 2): one table of costs, contexts and functions, one
//! path for all of them: charge, then check the context, then run.

mod calls;
mod cost;
mod cycles;
mod data;
mod guest;
mod stable;
mod status;
mod table;

pub(crate) use guest::Guest;
pub use table::available;

use crate::trap::Stop;
use table::{Cost, ENTRIES};

/// Parameters, each in 64 bits without sign; at most 8.
pub(crate) type Arguments = [u64; 8];

/// Runs the `index`-th function of [`crate::api::FUNCTIONS`].
pub(crate) fn call(guest: &mut Guest<'_>, index: usize, arguments: &Arguments) -> Result<u64, Stop> {
    let entry = &ENTRIES[index];
    let price = price(guest, &entry.cost, arguments);
    guest.charge(price)?;
    let context = guest.run().context;
    if !entry.contexts.contains(context) {
        return Err(Stop::contract(format_args!(
            "\"ic0_{}\" cannot be executed in {} mode",
            entry.name,
            context.name()
        )));
    }
    (entry.handler)(guest, arguments)
}

fn price(guest: &Guest<'_>, cost: &Cost, arguments: &Arguments) -> u64 {
    match *cost {
        Cost::Fixed(instructions) => instructions,
        Cost::Bytes { fixed, each, size } => fixed.saturating_add(arguments[size].saturating_mul(each)),
        Cost::TwoSizes { fixed, sizes: [first, second] } => {
            fixed.saturating_add(arguments[first]).saturating_add(arguments[second])
        }
        Cost::Print => 100_u64.saturating_add(printing(guest, arguments[1])),
        Cost::Trap => 500_u64.saturating_add(arguments[1]).saturating_add(printing(guest, arguments[1])),
    }
}

/// 2 for each byte that fits the log, 50 for each byte that fits what is free of it.
fn printing(guest: &Guest<'_>, size: u64) -> u64 {
    let capacity = guest.run().invocation.system.log_capacity as u64;
    let free = guest.run().logs.free() as u64;
    2 * size.min(capacity) + 50 * size.min(free)
}
