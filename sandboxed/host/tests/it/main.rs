//! The trusted side against peers that lie, and against the real worker.

mod back_off;
mod canister;
mod ends;
mod hostile_compiler;
mod hostile_peer;
mod images;
mod leases;
mod limits;
mod mirror;
mod model;
mod pages;
mod peer;
mod real_worker;
mod refusals;
mod round_trip;
mod time;
mod tsc;
