//! Tests of the rollout crate, by subject.

mod histograms;
mod policy_errors;
mod reload;
mod resolution;
mod schema;
mod selector;
