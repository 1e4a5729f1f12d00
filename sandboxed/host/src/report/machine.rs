//! What of the machine matters for the sandbox, and what an operator can do about it.

use std::fs;

use sandbox_os::{machine, processor};

/// A fact of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub name: &'static str,
    /// How it is.
    pub value: String,
    /// What to do; empty where it is as it should be, or nothing can be done.
    pub advice: &'static str,
}

fn text(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The word in brackets: the choice that is in force.
fn chosen(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text, |(word, _)| word)
}

/// All of them.
pub(super) fn facts() -> Vec<Fact> {
    let unknown = || "unknown".to_owned();
    let fact =
        |name, value, wrong: bool, advice| Fact { name, value, advice: if wrong { advice } else { "" } };
    let kernel = text("/proc/sys/kernel/osrelease").unwrap_or_else(unknown);
    let merging = text("/sys/kernel/mm/ksm/run").unwrap_or_else(|| "none".into());
    let threads = text("/sys/devices/system/cpu/smt/control").unwrap_or_else(unknown);
    let core_scheduling = machine::core_scheduling();
    let pages = text("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_else(|| "none".into());
    let swaps = text("/proc/swaps").map_or(0, |swaps| swaps.lines().skip(1).count());
    let processors = text("/proc/cpuinfo").unwrap_or_default();
    let keys = processors.lines().any(|line| line.starts_with("flags") && line.contains(" ospke"));
    let groups = text("/proc/sys/kernel/sched_autogroup_enabled").as_deref() == Some("1");
    let vulnerable = vulnerable();
    let merges = merging == "1";
    let yes = |on| if on { "yes" } else { "no" }.to_owned();
    let place = match (groups, processor::may_renice()) {
        (true, true) => "by session and by nice value",
        (true, false) => "by session",
        (false, true) => "by nice value",
        (false, false) => "no",
    };
    vec![
        fact("kernel", kernel, false, ""),
        fact("long runs stand behind others", place.into(), place == "no", "give the node CAP_SYS_NICE"),
        fact(
            "same-page merging (KSM)",
            merging,
            merges,
            "echo 2 > /sys/kernel/mm/ksm/run: pages with equal contents are seen by timing",
        ),
        fact(
            "SMT",
            threads.clone(),
            threads == "on" && !core_scheduling,
            "turn it off (nosmt), or use a kernel with core scheduling",
        ),
        fact("core scheduling", yes(core_scheduling), false, ""),
        fact("transparent huge pages", chosen(&pages).to_owned(), false, ""),
        fact(
            "swap",
            if swaps == 0 { "off".into() } else { format!("{swaps} areas") },
            swaps > 0,
            "swapoff -a: memory of canisters is written to disks",
        ),
        fact("memory protection keys", yes(keys), false, ""),
        fact(
            "vulnerable by its own account",
            if vulnerable.is_empty() { "nothing".into() } else { vulnerable.join(", ") },
            !vulnerable.is_empty(),
            "current microcode, and no mitigations=off",
        ),
    ]
}

/// Names of the processor's faults that nothing is done against.
fn vulnerable() -> Vec<String> {
    let Ok(directory) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return Vec::new() };
    let mut names: Vec<String> = directory
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let state = fs::read_to_string(entry.path()).ok()?;
            state.contains("Vulnerable").then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_in_force_is_the_one_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("none"), "none");
    }

    #[test]
    fn every_fact_is_told_on_any_machine() {
        for Fact { name, value, .. } in facts() {
            assert!(!value.is_empty(), "{name}");
        }
    }
}
