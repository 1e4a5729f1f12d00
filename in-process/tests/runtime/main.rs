//! What canisters see of the runtime. Every message runs on a warm and on a fresh instance, and both
//! outcomes must be equal (`canister::Canister`).

mod answers;
mod backend;
mod callbacks;
mod canister;
mod contexts;
mod copying;
mod cycles;
mod instance;
mod memory;
mod metering;
mod slices;
mod stable;
