//! What a node says of differences that were found before it started.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use bulkhead_node::bundle::{Bundle, MAGIC, VERSION};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use super::{Serving, folder};
use crate::bundle::{found, one_instruction_off};
use crate::program::run_in;

/// Starts a node on the state directory of one whose sandbox was wrong.
fn started_again(state: &Path) -> (tempfile::TempDir, Serving) {
    let folder = folder("[default]\nmode = \"in-process\"\n");
    std::fs::rename(state, folder.path().join("state")).unwrap();
    let serving = Serving::start(folder.path(), &["--nodes", "2"]);
    (folder, serving)
}

fn rows(found: &Value) -> &Vec<Value> {
    found["divergences"].as_array().unwrap()
}

#[test]
fn differences_that_were_found_before_a_start_are_listed_and_in_no_count() {
    let before = found(one_instruction_off);
    let records = before.records.len();
    let (folder, serving) = started_again(before.directory.path());
    let status = serving.rounds(0);
    assert_eq!(status["divergences_found_before"].as_u64(), Some(records as u64), "{status}");
    assert!((0..2).all(|node| status["nodes"][node]["shadow"]["diverged"] == 0), "{status}");

    let found = serving.json("/v1/divergences");
    assert_eq!((&found["compared"], &found["not_shown"]), (&0.into(), &0.into()), "{found}");
    assert!(found["classes"].as_object().unwrap().values().all(|count| *count == 0), "{found}");
    assert_eq!(found["found_before"]["unread"], serde_json::json!([]), "{found}");
    assert_eq!(rows(&found).len(), records);
    let path = |row: &Value| folder.path().join(row["bundle"].as_str().unwrap());
    for row in rows(&found) {
        assert_eq!((&row["class"], &row["count"]), (&"confirmed".into(), &0.into()), "{row}");
        let bundle = Bundle::open(&path(row)).unwrap();
        assert_eq!(row["canister"], bundle.canister.to_text());
        let entry = &bundle.invocation.entry;
        assert_eq!((row["kind"].as_str(), row["method"].as_str()), (Some(entry.kind()), entry.method()));
        let said = ["field", "control", "candidate"].map(|key| row[key].as_str().unwrap().to_owned());
        assert!(bundle.differences.contains(&said), "{said:?} is not in {:?}", bundle.differences);
        let earlier = &row["found_before"];
        assert_eq!((&earlier["node"], &earlier["invocation"]), (&"-".into(), &bundle.invocation.id.into()));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of today")]
        let time = bundle.time_ms as f64 / 1e3;
        assert_eq!(earlier["time"].as_f64(), Some(time));
    }
    let (_, _, metrics) = serving.get("/metrics");
    let counts = metrics.lines().filter(|line| line.starts_with("bulkhead_divergences_total"));
    assert!(counts.clone().count() >= 8 && counts.clone().all(|line| line.ends_with(" 0")), "{metrics}");

    let admin = ["--admin", "state/admin.sock"];
    let told = |words: &[&str]| run_in(folder.path(), &[words, &admin].concat()).stdout;
    let listed = told(&["divergences", "list"]);
    assert!(listed.starts_with("nothing was compared"), "{listed}");
    let befores = listed.lines().filter(|line| line.contains(" confirmed ") && line.contains(" before "));
    assert_eq!(befores.count(), records, "{listed}");
    let said =
        format!("{records} found before this start, by what was kept: no count and no guard has them\n");
    assert!(listed.ends_with(&said), "{listed}");
    let shown = told(&["divergences", "show", "1"]);
    assert!(
        shown.contains("seen       0 times since the start\nfirst      -\nlast       -\nbefore     20"),
        "{shown}"
    );
    let again =
        format!("again      bulkhead divergences replay {}", rows(&found)[0]["bundle"].as_str().unwrap());
    assert!(shown.contains(&again), "{shown}");
    let said = format!("differences found before this start: {records}, see bulkhead divergences list\n");
    assert!(told(&["status"]).contains(&said));
    serving.stopped();
}

#[test]
fn what_is_no_bundle_is_named_and_left_out_and_the_others_are_listed() {
    let before = found(one_instruction_off);
    let records = before.records.len();
    let directory = before.directory.path().join("divergences");
    let good = before.bundles().next().unwrap().2;
    let bytes = std::fs::read(good).unwrap();
    let head = |version: u32, length: u32| {
        let mut packed = GzEncoder::new([&MAGIC[..], &version.to_le_bytes()].concat(), Compression::fast());
        packed.write_all(&length.to_le_bytes()).unwrap();
        packed.finish().unwrap()
    };
    let files: [(&str, &[u8], &str); 6] = [
        ("cut.bundle", &bytes[..bytes.len() / 2], "could not read it: "),
        ("long.bundle", &head(VERSION, u32::MAX), "it is damaged: its head has 4294967295 bytes"),
        ("newer.bundle", &head(VERSION + 1, 0), "it has format 2, and this program reads format 1"),
        ("nothing.bundle", &head(VERSION, 0), "it is damaged: its head: "),
        ("other.bundle", b"what else is there", "it is no bundle of a difference"),
        ("a\u{1b}[2J.bundle", &bytes, "it is no bundle of a difference"),
    ];
    for (name, content, _) in files {
        std::fs::write(directory.join(name), content).unwrap();
    }
    mknodat(CWD, directory.join("pipe.bundle"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    symlink(good, directory.join("link.bundle")).unwrap();
    let others =
        [("pipe.bundle", "it is no bundle of a difference"), ("link.bundle", "could not read it: Too many")];

    let (folder, serving) = started_again(before.directory.path());
    serving.rounds(0);
    let found = serving.json("/v1/divergences");
    assert_eq!(rows(&found).len(), records);
    let unread = found["found_before"]["unread"].as_array().unwrap();
    let expected: Vec<_> = files.map(|(name, _, why)| (name, why)).into_iter().chain(others).collect();
    assert_eq!(unread.len(), expected.len(), "{unread:?}");
    let listed = run_in(folder.path(), &["divergences", "list", "--admin", "state/admin.sock"]).stdout;
    serving.signal(rustix::process::Signal::TERM);
    let (code, _, stderr) = serving.ended();
    assert_eq!(code, Some(0), "{stderr}");
    for (name, why) in expected {
        let said = format!("/{}: {why}", name.escape_debug());
        assert!(unread.iter().any(|one| one.as_str().unwrap().contains(&said)), "{said}: {unread:?}");
        assert!(listed.lines().any(|line| line.starts_with("not listed: ")), "{listed}");
        let warned = stderr.lines().any(|line| line.contains("WARN") && line.contains(why));
        assert!(warned, "{why} is not in {stderr}");
    }
}
