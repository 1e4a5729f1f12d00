//! Tests of the rollout crate, by subject.

mod audit;
mod audit_file;
mod guards;
mod histograms;
mod logs;
mod machine;
mod messages;
mod policy_errors;
mod reload;
mod resolution;
mod rollouts;
mod schema;
mod selector;
mod simulation;
mod store;
mod switches;
mod verdict_record;
