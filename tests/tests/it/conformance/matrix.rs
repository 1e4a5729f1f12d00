//! That every line of the reference's matrix has its check.

use std::collections::BTreeSet;
use std::path::Path;

use super::check::Check;

/// Areas of section 7 and how many lines each has: 241.
const AREAS: [(&str, usize); 18] = [
    ("V", 35),
    ("A", 18),
    ("B", 10),
    ("R", 15),
    ("C", 30),
    ("Y", 16),
    ("S", 13),
    ("M", 10),
    ("T", 10),
    ("Q", 11),
    ("I", 10),
    ("L", 25),
    ("CD", 6),
    ("MT", 10),
    ("D", 5),
    ("P", 4),
    ("G", 10),
    ("O", 3),
];

/// Lines that a test elsewhere checks: the file, from the repository's root, and the test.
const ELSEWHERE: [(&str, &str, &str); 11] = [
    (
        "A01",
        "in-process/tests/runtime/contexts.rs",
        "each_function_works_in_its_contexts_and_traps_in_all_others",
    ),
    ("A13", "in-process/tests/runtime/contexts.rs", "in_replicated_execution_tells_the_modes_apart"),
    (
        "V26",
        "in-process/src/compile/tests/validation.rs",
        "v26_the_code_section_is_bounded_before_it_is_validated",
    ),
    ("I09", "execution/tests/it/certification.rs", "a_message_has_the_leaves_of_its_status_for_its_sender"),
    ("I10", "execution/tests/it/calls.rs", "the_same_message_twice_runs_once"),
    ("P01", "tests/tests/it/memory_model.rs", "random_messages_agree_with_a_vector_of_bytes_in_every_mode"),
    ("P03", "execution/tests/it/root.rs", "every_field_of_a_canister_moves_the_root"),
    (
        "P04",
        "tests/tests/it/crash.rs",
        "a_worker_killed_in_the_middle_of_a_message_costs_a_retry_and_nothing_else",
    ),
    ("S04", "tests/tests/it/conformance/lifecycle.rs", "checks"),
    ("L10", "tests/tests/it/conformance/lifecycle.rs", "checks"),
    ("MT05", "tests/tests/it/conformance/metering.rs", "checks"),
];

/// `R06` of `R06a`.
fn line_of(id: &str) -> String {
    id.trim_end_matches(|letter: char| letter.is_ascii_lowercase()).to_owned()
}

/// The lines that no check and no test elsewhere is for.
pub(super) fn unchecked(checks: &[Check]) -> Vec<String> {
    let mut covered: BTreeSet<String> =
        checks.iter().flat_map(|check| check.id.split_whitespace()).map(line_of).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (line, file, test) in ELSEWHERE {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{file} has no {test}");
        covered.insert(line.to_owned());
    }
    let lines = AREAS.iter().flat_map(|(area, count)| (1..=*count).map(move |n| format!("{area}{n:02}")));
    lines.filter(|line| !covered.contains(line)).collect()
}
