//! `bulkhead compare` and `bulkhead verdict`, on logs that the recorder wrote.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rollout::{Arm, Hlog, Recorder};
use serde_json::Value;

use crate::program::{Ran, folder_with, run_in};

/// An interval log of so many minutes: in each, messages of both arms; the candidate takes `percent` of the
/// control.
fn log(minutes: u64, messages: u64, percent: u64) -> Vec<u8> {
    let recorder = Recorder::new();
    let mut log = None;
    for minute in 0..minutes {
        for message in 0..messages {
            // Some noise of each minute and message.
            let control = 1_000_000 + message * 1_000 + minute * 7 % 5 * 2_000;
            let candidate = (1_000_000 + message * 1_000 + minute * 3 % 7 * 2_000) * percent / 100;
            recorder.record(Arm::InProcess, "update", Duration::from_nanos(control));
            recorder.record(Arm::Sandboxed, "update", Duration::from_nanos(candidate));
        }
        let mut interval = recorder.rotate();
        interval.start = UNIX_EPOCH + Duration::from_secs(1_700_000_040 + minute * 60);
        interval.duration = Duration::from_secs(60);
        let log = log.get_or_insert_with(|| Hlog::begin(Vec::new(), &interval).unwrap());
        log.write(&interval).unwrap();
    }
    log.map(Hlog::finish).unwrap_or_default()
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr))
}

fn compare(folder: &Path, more: &[&str]) -> Ran {
    run_in(folder, &[&["compare", "a.hlog"], more].concat())
}

#[test]
fn a_candidate_is_judged_by_each_limit_and_the_exit_code_says_how() {
    // The last is within what the blocks can tell of its limit: the histograms' medians are 1.204 apart.
    for (percent, limit, code, verdict) in
        [(105, "p50=1.20", 0, "PASS"), (140, "p50=1.20", 1, "FAIL"), (120, "p50=1.204", 5, "INCONCLUSIVE")]
    {
        let folder = folder_with(&[("a.hlog", &log(12, 50, percent))]);
        let ran = compare(folder.path(), &["--limit", limit, "--json"]);
        assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
        let value = json_of(&ran);
        assert_eq!(value["verdict"], verdict);
        let guard = &value["guards"][0];
        assert_eq!((&guard["guard"], &guard["blocks"]), (&"update p50".into(), &12.into()));
        assert_eq!(guard["samples"]["candidate"], 600);
        let ratio = guard["ratio"].as_f64().unwrap();
        assert!((ratio * 100.0 - percent as f64).abs() < 2.0, "{ratio}");
    }
}

#[test]
fn what_is_missing_is_said_and_nothing_is_decided_without_it() {
    let folder = folder_with(&[("a.hlog", &log(12, 50, 300))]);
    let ran = compare(folder.path(), &["--limit", "p99=1.50"]);
    assert_eq!(ran.code, Some(5), "{}", ran.stdout);
    assert!(ran.stdout.contains("needs 0 more blocks, 9400 + 9400 more messages"), "{}", ran.stdout);
    let ran = compare(folder.path(), &["--kind", "query"]);
    assert_eq!(ran.code, Some(5), "{}", ran.stdout);
    assert!(ran.stdout.contains("no data of control, candidate or both"), "{}", ran.stdout);
}

#[test]
fn a_record_recomputes_and_one_that_was_touched_does_not() {
    let folder = folder_with(&[("a.hlog", &log(12, 50, 140))]);
    let options =
        ["--limit", "p50=1.20", "--traps", "0/1000,40/1000", "--divergences", "0/10", "--record", "v.json"];
    assert_eq!(compare(folder.path(), &options).code, Some(1));
    let recompute = |file: &str| run_in(folder.path(), &["verdict", "--recompute", file]);
    let ran = recompute("v.json");
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.ends_with("EQUAL: 3 of 3 recomputed as recorded\n"), "{}", ran.stdout);

    let record = std::fs::read_to_string(folder.path().join("v.json")).unwrap();
    assert!(record.contains("\"FAIL\""));
    std::fs::write(folder.path().join("forged.json"), record.replace("\"FAIL\"", "\"PASS\"")).unwrap();
    let ran = recompute("forged.json");
    assert_eq!(ran.code, Some(1));
    let said = "update p50: verdict recorded as PASS, recomputed as FAIL\n";
    assert!(ran.stdout.contains(said) && ran.stdout.contains("DIFFERENT: 1 of 3"), "{}", ran.stdout);

    std::fs::write(folder.path().join("cut.json"), &record[..record.len() / 2]).unwrap();
    let ran = recompute("cut.json");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("cut.json: it is no verdict record"), "{}", ran.stderr);
    // A record is never written over.
    let ran = compare(folder.path(), &options);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("could not write v.json"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(folder.path().join("v.json")).unwrap(), record);
}

#[test]
fn equal_arms_are_comparable_and_different_canisters_are_not() {
    let folder = folder_with(&[("a.hlog", &log(24, 50, 140))]);
    let ran = compare(folder.path(), &["--design", "aa", "--limit", "p50=1.20", "--json"]);
    assert_eq!((ran.code, &json_of(&ran)["verdict"]), (Some(0), &"PASS".into()), "{}", ran.stdout);
    let ran = compare(folder.path(), &["--design", "percent", "--limit", "p50=1.20"]);
    assert_eq!(ran.code, Some(5), "{}", ran.stdout);
    assert!(ran.stdout.contains("the arms hold different canisters"), "{}", ran.stdout);
}

#[test]
fn a_bad_log_is_refused_with_file_line_and_reason() {
    let good = String::from_utf8(log(1, 1, 100)).unwrap();
    let negative = good.replace(",60.0", ",-60.0");
    assert_ne!(negative, good);
    for (content, what) in [
        (Vec::new(), "it is no HdrHistogram interval log"),
        (b"\x00\x01\x02".to_vec(), "it is no HdrHistogram interval log"),
        (negative.into_bytes(), "neither an interval"),
        (good.as_bytes()[..good.len() - 1].to_vec(), "it ends in the middle of the line"),
    ] {
        let folder = folder_with(&[("a.hlog", &content)]);
        let ran = compare(folder.path(), &[]);
        assert_eq!(ran.code, Some(1), "{}", ran.stdout);
        assert!(ran.stderr.starts_with("error: a.hlog: ") && ran.stderr.contains(what), "{}", ran.stderr);
    }
    let folder = folder_with(&[]);
    let ran = compare(folder.path(), &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("a.hlog: could not open it"), "{}", ran.stderr);
}

#[test]
fn what_can_not_be_compared_is_wrong_usage() {
    let folder = folder_with(&[("a.hlog", &log(1, 1, 100))]);
    for options in [
        &["a.hlog"][..],
        &["--candidate", "in-process"],
        &["--limit", "p50"],
        &["--limit", "p50=0.5"],
        &["--limit", "p50=NaN"],
        &["--limit", "p100=1.5"],
        &["--block", "0s"],
        &["--block", "60"],
        &["--block", "99999999999999999999h"],
        &["--design", "switchback", "--block", "5s"],
        &["--look", "3/2"],
        &["--look", "0/2"],
        &["--traps", "5/4,1/2"],
        &["--divergences", "2/1"],
        &["--kind", "updat"],
    ] {
        let ran = compare(folder.path(), options);
        assert_eq!(ran.code, Some(2), "{options:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    }
    assert_eq!(run_in(folder.path(), &["verdict"]).code, Some(2));
}
