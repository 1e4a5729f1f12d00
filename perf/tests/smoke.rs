//! The benchmarks run: two of them, with their peers. What they measure says nothing here, where other tests run beside
//! them.

use std::process::Command;

/// Runs one benchmark; its rows, without their head.
fn rows(id: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_perf")).args(["--only", id]).output().expect("perf starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter(|line| !line.starts_with("id ")).map(str::to_owned).collect()
}

#[test]
fn an_empty_update_is_measured_against_a_bare_round_trip() {
    let rows = rows("empty-update");
    assert!(rows.iter().any(|row| row.starts_with("empty-update ") && row.contains(" B1 ")), "{rows:?}");
    assert!(rows.iter().any(|row| row.starts_with("confined-round-trip ")), "{rows:?}");
}

#[test]
fn a_queue_is_measured_in_batches_against_one_by_one() {
    let rows = rows("batches");
    assert!(rows.iter().any(|row| row.starts_with("batches ") && row.contains(" P1b ")), "{rows:?}");
}
