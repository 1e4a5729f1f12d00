//! The conformance suite: checks of `canister-execution.md` section 7 as data, each run in-process (warm and
//! fresh), sandboxed and in shadow, and compared: answer or code and text, state root, instructions, written
//! pages, logs, outgoing calls (in the root), cycles and version (in the root).

mod answering;
mod calls;
mod certified;
mod check;
mod chunks;
mod cycles;
mod lifecycle;
mod logs;
pub(crate) mod management;
mod management_calls;
mod matrix;
mod memory;
mod metering;
mod prelude;
mod queries;
mod runner;
mod settings;
mod slices;
mod snapshots;
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

#[test]
fn certified_state_and_certificates() {
    runner::run(15, certified::checks);
}

#[test]
fn long_messages_run_in_slices() {
    runner::run(16, slices::checks);
}

#[test]
fn chunks_make_modules() {
    runner::run(11, chunks::checks);
}

#[test]
fn snapshots_bring_canisters_back() {
    runner::run(12, snapshots::checks);
}

#[test]
fn logs_are_fetched_by_those_who_may() {
    runner::run(13, logs::checks);
}

#[test]
fn settings_have_bounds_and_allocations_a_price() {
    runner::run(14, settings::checks);
}

#[test]
fn every_line_of_the_matrix_has_a_check() {
    let areas = [
        answering::checks,
        calls::checks,
        cycles::checks,
        memory::checks,
        tasks::checks,
        queries::checks,
        lifecycle::checks,
        management_calls::checks,
        metering::checks,
        validation::checks,
        certified::checks,
        chunks::checks,
        snapshots::checks,
        logs::checks,
        settings::checks,
        slices::checks,
    ];
    let checks: Vec<_> = areas.iter().flat_map(|checks| checks()).collect();
    println!("{} checks", checks.len());
    assert_eq!(matrix::unchecked(&checks), [""; 0]);
}
