//! `bulkhead record` and `bulkhead replay` as their users meet them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::program::{Ran, bulkhead, folder_with, run_in};
use crate::recorded::module;

const ID: &str = "rwlgt-iiaaa-aaaaa-aaaaa-cai";
const MODES: [&str; 3] = ["in-process", "sandboxed", "shadow"];

fn script() -> String {
    format!(
        "install {ID} canister.wasm \"\"\ningress {ID} inc \"\"\ningress {ID} never \"\"\n\
         ingress {ID} keep \"\"\nquery {ID} get \"\"\ningress {ID} fail \"\"\ningress {ID} no \"\"\n\
         ingress {ID} inc_by_call \"\"\ningress aaaaa-aa nosuch \"\"\nquery {ID} nosuch \"\"\ncreate\n"
    )
}

fn folder() -> tempfile::TempDir {
    folder_with(&[("test.drun", script().as_bytes()), ("canister.wasm", &module())])
}

fn replay(folder: &Path, arguments: &[&str]) -> Ran {
    run_in(folder, &[&["replay", "a.log"], arguments].concat())
}

#[test]
fn a_recorded_script_prints_as_ever_and_replays_equal_in_every_pair_of_modes() {
    let folder = folder();
    let plain = run_in(folder.path(), &["drun", "test.drun"]);
    for recorded_in in ["in-process", "sandboxed"] {
        let ran = run_in(folder.path(), &["record", "a.log", "--mode", recorded_in, "test.drun"]);
        assert_eq!((ran.code, &ran.stdout), (Some(0), &plain.stdout), "{}", ran.stderr);
        assert!(ran.stderr.contains("recorded in a.log: "), "{}", ran.stderr);
        for mode in MODES {
            let ran = replay(folder.path(), &["--mode", mode]);
            assert_eq!(ran.code, Some(0), "{recorded_in}, {mode}: {}{}", ran.stdout, ran.stderr);
            assert!(ran.stdout.ends_with("\nEQUAL\n"), "{}", ran.stdout);
            for line in ["9 messages", "2 queries", "9 messages (2 refused at admission)"] {
                assert!(ran.stdout.contains(line), "{line} is missing in: {}", ran.stdout);
            }
        }
    }
    for mode in MODES {
        for against in MODES {
            let ran = replay(folder.path(), &["--mode", mode, "--against", against, "--json"]);
            assert_eq!(ran.code, Some(0), "{mode}, {against}: {}{}", ran.stdout, ran.stderr);
            let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(value["verdict"], "equal");
            assert_eq!(value["sides"][0]["state_root"], value["sides"][1]["state_root"]);
            let update =
                value["executions_ns"].as_array().unwrap().iter().find(|row| row["kind"] == "update");
            for name in value["compared"].as_array().unwrap() {
                let count = &update.unwrap()[name.as_str().unwrap()]["count"];
                assert!(count.as_u64().unwrap() >= 5, "{mode}, {against}: {value:#}");
            }
        }
    }
}

#[test]
fn the_option_of_drun_records_the_same_log() {
    let folder = folder();
    let ran = run_in(folder.path(), &["drun", "--record", "b.log", "test.drun"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran = run_in(folder.path(), &["record", "a.log", "test.drun"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let [a, b] = ["a.log", "b.log"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    assert_eq!(a, b);
}

#[test]
fn a_demo_that_switched_and_lost_workers_replays_equal_in_every_pair_of_modes() {
    let folder = folder_with(&[]);
    let ran = run_in(folder.path(), &["record", "a.log", "--quick"]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("recorded in                a.log: "), "{}", ran.stdout);
    for [mode, against] in [["in-process", "sandboxed"], ["sandboxed", "shadow"], ["shadow", "in-process"]] {
        let ran = replay(folder.path(), &["--mode", mode, "--against", against]);
        assert_eq!(ran.code, Some(0), "{mode}, {against}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.ends_with("\nEQUAL\n"), "{}", ran.stdout);
    }
}

#[test]
fn a_difference_is_named_and_exits_with_1() {
    let folder = folder();
    let ran = run_in(folder.path(), &["record", "a.log", "test.drun"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let log = std::fs::read(folder.path().join("a.log")).unwrap();
    let edited = crate::recorded::edited(&log, |_, entry| {
        use bulkhead_node::log::Entry;
        use bulkhead_node::observation::Observation;
        if let Entry::Observed(Observation::Run(run)) = entry
            && run.method.as_deref() == Some("keep")
        {
            run.instructions = 1;
        }
        true
    });
    std::fs::write(folder.path().join("a.log"), edited).unwrap();
    let ran = replay(folder.path(), &["--mode", "in-process"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    for part in [
        &format!("DIFFERENT in round 3: run 3, update `keep` of canister {ID}\n"),
        "  recorded            1\n",
    ] {
        assert!(ran.stdout.contains(part), "{part} is missing in: {}", ran.stdout);
    }
    let ran = replay(folder.path(), &["--mode", "in-process", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &value["verdict"]), (Some(1), &"different".into()));
    let difference = &value["difference"];
    assert_eq!((&difference["canister"], &difference["method"]), (&ID.into(), &"keep".into()));
    assert_eq!(
        (&difference["field"], &difference["values"][0]["value"]),
        (&"instructions".into(), &"1".into())
    );
    // What the log says of results counts for nothing between two modes.
    let ran = replay(folder.path(), &["--mode", "in-process", "--against", "sandboxed"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_log_that_can_not_be_used_exits_with_3_and_names_offset_and_reason() {
    let folder = folder();
    let ran = run_in(folder.path(), &["record", "good.log", "test.drun"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let good = std::fs::read(folder.path().join("good.log")).unwrap();
    let mut newer = good.clone();
    newer[8] = 9;
    let mut damaged = good.clone();
    damaged[400] ^= 1;
    for (bytes, said) in [
        (&b""[..], "offset 0: this is no log of bulkhead: the file is empty"),
        (script().as_bytes(), "offset 0: this is no log of bulkhead: its first 8 bytes are others"),
        (&newer, "offset 8: the log has format 9, and this program reads format 1; a newer program wrote it"),
        (&damaged, "offset 12: damaged record: the checksum of its content is wrong"),
        (&good[..100], "offset 12: the log ends early, in the middle of a record"),
    ] {
        std::fs::write(folder.path().join("a.log"), bytes).unwrap();
        let ran = replay(folder.path(), &["--against", "sandboxed"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{}", ran.stderr);
        assert!(
            ran.stderr.starts_with("undecided: a.log: offset ") && ran.stderr.contains(said),
            "{}",
            ran.stderr
        );
    }
    let ran = run_in(folder.path(), &["replay", "nosuch.log"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stderr.starts_with("undecided: nosuch.log: could not open the log: "), "{}", ran.stderr);
    // Cut after its last round: everything is compared, and yet it isn't whole.
    std::fs::write(folder.path().join("a.log"), &good[..good.len() - 1]).unwrap();
    let ran = replay(folder.path(), &[]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stdout.contains("replayed up to its last whole round, round "), "{}", ran.stdout);
    assert!(ran.stdout.contains("\nEQUAL up to round "), "{}", ran.stdout);
}

#[test]
fn a_recording_that_is_killed_replays_up_to_its_last_whole_round() {
    let folder = folder_with(&[]);
    let mut recording = bulkhead()
        .args(["record", "a.log", "--quick"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(recording.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with(" of 3000 answered")), "the demo ended before");
    recording.kill().unwrap();
    recording.wait().unwrap();
    let ran = replay(folder.path(), &["--mode", "sandboxed"]);
    assert_eq!(ran.code, Some(3), "{}{}", ran.stdout, ran.stderr);
    for part in
        ["the log ends early, ", "replayed up to its last whole round, round ", "\nEQUAL up to round "]
    {
        assert!(ran.stdout.contains(part), "{part} is missing in: {}", ran.stdout);
    }
    let whole = ran.stdout.split("last whole round, round ").nth(1).unwrap();
    let rounds: u64 = whole.split_whitespace().next().unwrap().parse().unwrap();
    assert!(rounds > 100, "{rounds} rounds of 300 answered messages");
}

#[test]
fn a_recording_that_can_not_be_written_is_a_failure_with_its_file_and_cause() {
    let folder = folder();
    for (log, cause) in [("no/such/folder/a.log", "No such file"), ("/dev/full", "No space left on device")] {
        let ran = run_in(folder.path(), &["record", log, "test.drun"]);
        assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.starts_with("error: could not record"), "{}", ran.stderr);
        assert!(ran.stderr.contains(cause), "{}", ran.stderr);
    }
}

#[test]
fn a_script_in_the_place_of_the_log_is_not_written_over_and_a_log_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let ran = run_in(folder.path(), &["record", "test.drun"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stderr.contains("could not record to test.drun: the file is there and is no log"),
        "{}",
        ran.stderr
    );
    assert_eq!(std::fs::read_to_string(folder.path().join("test.drun")).unwrap(), script());
    std::fs::write(folder.path().join("a.log"), "").unwrap();
    for log in ["a.log", "b.log", "b.log"] {
        let ran = run_in(folder.path(), &["record", log, "test.drun"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    let [a, b] = ["a.log", "b.log"].map(|log| folder.path().join(log));
    assert_eq!(std::fs::metadata(&b).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(a).unwrap().len(), std::fs::read(b).unwrap().len());
}

#[test]
fn an_outcome_that_can_not_be_written_is_undecided() {
    let folder = folder();
    let ran = run_in(folder.path(), &["record", "a.log", "test.drun"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let replayed =
        bulkhead().args(["replay", "a.log"]).current_dir(folder.path()).stdout(full).output().unwrap();
    let said = String::from_utf8(replayed.stderr).unwrap();
    assert_eq!(replayed.status.code(), Some(3), "{said}");
    assert!(said.starts_with("undecided: a.log: could not write to standard output: "), "{said}");
}

#[test]
fn text_of_a_log_reaches_the_terminal_escaped_and_short() {
    use bulkhead_node::log::Entry;
    let folder = folder();
    let ran = run_in(folder.path(), &["record", "a.log", "test.drun"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let log = std::fs::read(folder.path().join("a.log")).unwrap();
    let hostile = format!("\u{1b}[2J{}", "x".repeat(10_000));
    let edited = crate::recorded::edited(&log, |_, entry| {
        match entry {
            Entry::Head(head) => head.program.clone_from(&hostile),
            Entry::Submit { message, .. } if message.method == "never" => {
                message.method = hostile.clone().into();
            }
            _ => {}
        }
        true
    });
    std::fs::write(folder.path().join("a.log"), edited).unwrap();
    let ran = replay(folder.path(), &[]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains(r": message 3, `\u{1b}[2Jxxx"), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}') && ran.stdout.len() < 4_000, "{}", ran.stdout);
}
