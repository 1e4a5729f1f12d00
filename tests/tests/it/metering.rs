//! Instruction counts of whole canisters (`canister-execution.md` section 3): from the table by hand, and pinned
//! for real modules; in-process and sandboxed, warm and fresh.

mod by_hand;
mod pinned;
mod rig;
