//! The conformance suite: checks of `canister-execution.md` section 7 as data, each run in-process (warm and
//! fresh), sandboxed and in shadow, and compared: answer or code and text, state root, instructions, written
//! pages, logs, outgoing calls (in the root), cycles and version (in the root).

mod answering;
mod calls;
mod check;
mod cycles;
mod lifecycle;
pub(crate) mod management;
mod management_calls;
mod memory;
mod metering;
mod prelude;
mod queries;
mod runner;
mod tasks;
mod validation;

#[test]
fn answering_and_undoing() {
    runner::run(1, answering::checks);
}

#[test]
fn calls_between_canisters() {
    runner::run(2, calls::checks);
}

#[test]
fn cycles_go_where_they_should() {
    runner::run(3, cycles::checks);
}

#[test]
fn heap_globals_and_stable_memory() {
    runner::run(4, memory::checks);
}

#[test]
fn timers_heartbeats_and_the_low_memory_hook() {
    runner::run(5, tasks::checks);
}

#[test]
fn queries_and_admission() {
    runner::run(6, queries::checks);
}

#[test]
fn lifecycle_and_certified_data() {
    runner::run(7, lifecycle::checks);
}

#[test]
fn management_and_what_lies_outside() {
    runner::run(8, management_calls::checks);
}

#[test]
fn every_instruction_costs_what_the_table_says() {
    runner::run(9, metering::checks);
}

#[test]
fn modules_are_accepted_or_refused() {
    runner::run(10, validation::checks);
}
