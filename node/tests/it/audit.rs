//! `bulkhead audit`: what an operator sees of the log, and what an auditor finds out.

use std::fs;

use rollout::audit::{AUDIT_BYTES_MAX, Audit, Entry, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Ran, bulkhead, folder_with, run, run_in};

const TAIL: [&str; 4] = ["audit", "tail", "--file", "audit.jsonl"];
const VERIFY: [&str; 4] = ["audit", "verify", "--file", "audit.jsonl"];
/// The same as the file, by the directory that it is in.
const STATE: [&str; 4] = ["audit", "verify", "--state", "."];

/// A log of four entries, and its lines.
fn log() -> (TempDir, Vec<String>) {
    let folder = folder_with(&[]);
    let path = folder.path().join("audit.jsonl");
    let mut audit = Audit::open(&path, AUDIT_BYTES_MAX).unwrap().0;
    let entry = |actor: &str, source, action: &str| {
        Entry::new("2026-11-27T12:00:00.125Z".parse().unwrap(), actor, source, action)
    };
    for entry in [
        Entry {
            subject: Some("r1".to_owned()),
            from: Some("planned".to_owned()),
            to: Some("waiting".to_owned()),
            reason: Some("INC-482 \"go\"".to_owned()),
            ..entry("uid 0", Source::Cli, "start")
        },
        Entry {
            generation: Some(7),
            details: vec!["default.mode: shadow -> sandboxed".to_owned()],
            ..entry("file", Source::File, "reload")
        },
        Entry {
            reason: Some(format!("\u{1b}[31mred\r\u{202e}{}", "x".repeat(400))),
            ..entry("uid 1000", Source::Cli, "pause")
        },
        Entry { to: Some("in-process".to_owned()), ..entry("node", Source::KillSwitch, "kill-engaged") },
    ] {
        audit.append(entry).unwrap();
    }
    let text = fs::read_to_string(path).unwrap();
    (folder, text.split_inclusive('\n').map(str::to_owned).collect())
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn tail_shows_who_did_what_and_why() {
    let (folder, lines) = log();
    let ran = run_in(folder.path(), &TAIL);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let shown = [
        "     #  time                      actor         action            subject       from -> to, reason",
        "     1  2026-11-27T12:00:00.125Z  uid 0         start             r1            planned -> waiting, INC-482 \"go\"",
        "     2  2026-11-27T12:00:00.125Z  file          reload            -             -",
        "        generation 7",
        "        default.mode: shadow -> sandboxed",
        &format!(
            "     3  2026-11-27T12:00:00.125Z  uid 1000      pause             -             {}{}",
            "\\u{1b}[31mred\\r\\u{202e}",
            "x".repeat(400)
        ),
        "     4  2026-11-27T12:00:00.125Z  node          kill-engaged      -             - -> in-process",
    ];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), shown);
    let last = run_in(folder.path(), &["audit", "tail", "--state", ".", "-n", "1"]);
    assert_eq!(last.stdout.lines().collect::<Vec<_>>(), [shown[0], shown[6]]);
    let none = run_in(folder.path(), &[&TAIL[..], &["-n", "0"]].concat());
    assert_eq!((none.code, none.stdout.lines().count()), (Some(0), 1));
    let as_they_are = run_in(folder.path(), &[&TAIL[..], &["-n", "2", "--json"]].concat());
    assert_eq!(as_they_are.stdout, lines[2..].concat());
}

#[test]
fn tail_shows_what_comes_before_a_broken_line_and_fails() {
    let (folder, lines) = log();
    let broken = lines.concat().replace("\"pause\"", "\"PAUSE\"");
    fs::write(folder.path().join("audit.jsonl"), broken).unwrap();
    let ran = run_in(folder.path(), &[&TAIL[..], &["--json"]].concat());
    assert_eq!((ran.code, ran.stdout), (Some(1), lines[..2].concat()));
    assert!(
        ran.stderr.contains("audit.jsonl: the chain of the audit log is broken: line 3: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn verify_says_what_a_whole_log_comes_to() {
    let (folder, lines) = log();
    let last = &lines[3][lines[3].len() - 67..lines[3].len() - 3];
    let ran = run_in(folder.path(), &VERIFY);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let said = [
        "audit.jsonl: whole, 4 entries".to_owned(),
        format!("last hash {last}"),
        "That lines were cut off the end can't be seen without a hash that was noted before: --expect-hash HEX"
            .to_owned(),
    ];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), said);
    let value = json(&run_in(folder.path(), &[&VERIFY[..], &["--json"]].concat()));
    let expected = json!({
        "file": "audit.jsonl", "ok": true, "entries": 4, "last_hash": last, "expected_entry": null,
    });
    assert_eq!(value, expected);
    let ran = run_in(folder.path(), &[&STATE[..], &["--expect-hash", &last.to_uppercase()]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("the expected hash is that of entry 4"), "{}", ran.stdout);
}

#[test]
fn verify_names_the_line_and_what_is_wrong_with_it() {
    let (folder, lines) = log();
    let second = &lines[1][lines[1].len() - 67..lines[1].len() - 3];
    let changed = lines.concat().replace("waiting", "blocked");
    for (log, line, kind, message) in [
        (changed, 1, "changed", "it was changed"),
        ([&lines[..1], &lines[2..]].concat().concat(), 2, "missing", "entry 2 is missing"),
        (lines[1..].concat(), 1, "missing", "entry 1 is missing"),
        ([&lines[1], &lines[0], &lines[2]].map(String::as_str).concat(), 1, "reordered", "stands in line 2"),
        ([&lines[0], &lines[0]].map(String::as_str).concat(), 2, "repeated", "entry 1 a second time"),
        (lines.concat() + "half", 5, "cut-short", "the file ends in the middle of it"),
        (lines[..1].concat(), 2, "end-missing", "lines were cut off the end"),
        (String::new(), 1, "end-missing", "lines were cut off the end"),
    ] {
        fs::write(folder.path().join("audit.jsonl"), log).unwrap();
        let expecting = [&VERIFY[..], &["--expect-hash", second]].concat();
        let ran = run_in(folder.path(), &expecting);
        let start = format!("audit.jsonl:{line}: broken ({kind}): ");
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
        assert!(ran.stdout.starts_with(&start) && ran.stdout.contains(message), "{}", ran.stdout);
        let ran = run_in(folder.path(), &[&expecting[..], &["--json"]].concat());
        let value = json(&ran);
        assert_eq!((ran.code, &value["ok"], &value["line"]), (Some(1), &false.into(), &line.into()));
        assert_eq!((&value["file"], &value["kind"]), (&"audit.jsonl".into(), &kind.into()));
    }
    fs::write(folder.path().join("audit.jsonl"), lines[..1].concat()).unwrap();
    assert_eq!(run_in(folder.path(), &VERIFY).code, Some(0), "without a hash, nothing shows it");
}

#[test]
fn a_log_that_is_none_is_told() {
    let (folder, _lines) = log();
    std::os::unix::fs::symlink("audit.jsonl", folder.path().join("link")).unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    for (file, said) in
        [("no", "no: could not open"), (".", "is no regular file"), ("link", "is no regular file")]
    {
        for command in ["tail", "verify"] {
            let ran = run_in(folder.path(), &["audit", command, "--file", file]);
            assert_eq!(ran.code, Some(1), "{command} {file}: {}", ran.stdout);
            assert!(ran.stderr.contains(said), "{}", ran.stderr);
        }
    }
    let ran = run_in(folder.path(), &["audit", "verify", "--file", "empty"]);
    assert!(ran.code == Some(0) && ran.stdout.starts_with("empty: whole, 0 entries\n"), "{}", ran.stdout);
    let ran = run_in(folder.path(), &["audit", "tail", "--file", "empty", "--json"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
}

#[test]
fn one_log_is_asked_for_and_a_hash_is_one() {
    for arguments in [
        &["audit"][..],
        &["audit", "tail"],
        &["audit", "verify", "--state", ".", "--file", "audit.jsonl"],
        &["audit", "verify", "--file", "audit.jsonl", "--expect-hash", "5df6"],
        &["audit", "tail", "--file", "audit.jsonl", "-n", "-1"],
    ] {
        assert_eq!(run(bulkhead().args(arguments)).code, Some(2), "{arguments:?}");
    }
    for command in ["tail", "verify"] {
        let ran = run(bulkhead().args(["audit", command, "--help"]));
        assert!(ran.stdout.contains("Examples:") && ran.stdout.contains("Exit codes:"), "{}", ran.stdout);
    }
}
