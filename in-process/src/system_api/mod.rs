//! The System API (`canister-execution.md` section 2): one table of costs, contexts and functions, one
//! path for all of them: charge (unless the code that calls has paid), then check the context, then run.

mod calls;
mod cost;
mod cycles;
mod data;
mod guest;
mod stable;
mod status;
mod table;

pub(crate) use guest::Guest;
pub(crate) use table::ENTRIES;
pub use table::available;
#[cfg(feature = "compile")]
pub(crate) use table::fixed_price;

/// Parameters, each in 64 bits without sign; at most 8.
pub(crate) type Arguments = [u64; 8];
