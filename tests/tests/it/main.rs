//! Integration tests: one binary, a module by subject.

mod canisters;
mod certificate;
mod conformance;
mod containment;
mod crash;
mod drun;
mod layering;
mod memory_model;
mod processes;
mod random;
mod refusals;
