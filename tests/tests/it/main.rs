//! Integration tests: one binary, a module by subject.

mod canisters;
mod certificate;
mod compile;
mod conformance;
mod containment;
mod crash;
mod crash_points;
mod drun;
mod fuzz;
mod layering;
mod memory_model;
mod metering;
mod processes;
mod random;
mod refusals;
mod secrets;
