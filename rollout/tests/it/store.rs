//! The store: what it keeps, what it refuses, what a crash leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rollout::machine::{Event, Plan, Rollout, Step};
use rollout::{FileStore, Line, StateStore, StoreError, TrialCounts, VERDICTS_KEPT};

fn draft() -> Rollout {
    let step = Step { name: "one".into(), digest: [7; 32], bake_ms: 1, max_bake_ms: 2 };
    Rollout::new(Plan::new(vec![step], 0, 1_000, 0).unwrap(), 5)
}

/// In every phase on the way to a rollback, and there.
fn phases() -> Vec<Rollout> {
    let events = [
        Event::Validated,
        Event::Start,
        Event::Ready,
        Event::Converged,
        Event::Tick,
        Event::Pause,
        Event::Abort,
        Event::Drained,
        Event::Acknowledge,
    ];
    let mut reached = vec![draft()];
    for event in events {
        let last = reached.last().unwrap().clone();
        reached.push(last.step(event, 10).0);
    }
    reached
}

#[test]
fn every_phase_is_there_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    for rollout in phases() {
        FileStore::open(directory.path()).unwrap().save("q4", &rollout).unwrap();
        let stored = FileStore::open(directory.path()).unwrap().load().unwrap();
        assert_eq!(stored.rollouts["q4"], rollout);
    }
    let mut store = FileStore::open(directory.path()).unwrap();
    let counts = TrialCounts {
        run: 2,
        step: 1,
        messages: [3, 4],
        traps: [0, 1],
        compared: 9,
        confirmed: 0,
        paused_ms: 7,
    };
    store.save_counts("q4", &counts).unwrap();
    store.save_line(&Line { stopped: Some("INC-1".into()) }).unwrap();
    let stored = FileStore::open(directory.path()).unwrap().load().unwrap();
    assert_eq!((stored.counts["q4"], stored.line.stopped.as_deref()), (counts, Some("INC-1")));
}

#[test]
fn nothing_kept_is_nothing_stored_and_a_write_that_broke_off_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = FileStore::open(&directory.path().join("absent")).unwrap();
    assert_eq!(store.load().unwrap(), rollout::Stored::default());
    store.save("q4", &draft()).unwrap();
    let half = directory.path().join("absent/rollouts/new.tmp");
    fs::write(&half, "{ \"format\": \"bulk").unwrap();
    let again = FileStore::open(&directory.path().join("absent")).unwrap();
    assert_eq!(again.load().unwrap().rollouts["q4"], draft());
    assert!(!half.exists());
}

#[test]
fn a_state_that_is_not_whole_is_an_error_with_its_path_and_never_no_rollout() {
    for damage in [&b""[..], b"{", b"{\"format\":\"bulkhead-rollout\",\"version\":9}", &[b' '; (1 << 20) + 1]]
    {
        let directory = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(directory.path()).unwrap();
        store.save("q4", &phases().pop().unwrap()).unwrap();
        fs::write(directory.path().join("rollouts/q4.json"), damage).unwrap();
        let error = FileStore::open(directory.path()).unwrap().load().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("rollouts/q4.json: "), "{error}");
        assert!(error.to_string().contains("a latch could be lost"), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("rollouts")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", directory.path().join("rollouts/q4.json")).unwrap();
    let error = FileStore::open(directory.path()).unwrap().load().unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn a_directory_that_can_not_be_written_is_an_error_and_what_was_kept_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = FileStore::open(directory.path()).unwrap();
    store.save("q4", &draft()).unwrap();
    // A file where the temporary goes can't be made by anybody: not by root either.
    fs::create_dir(directory.path().join("rollouts/new.tmp")).unwrap();
    let error = store.save("q4", &phases().pop().unwrap()).unwrap_err();
    assert!(error.to_string().contains("rollouts/q4.json: could not write it: "), "{error}");
    assert_eq!(store.load().unwrap().rollouts["q4"], draft());
    let mode = fs::metadata(directory.path().join("rollouts/q4.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = FileStore::open(directory.path()).unwrap();
    for name in ["", "..", ".hidden", "a/b", "../q4", "a\0b", "\u{e9}", &"x".repeat(129)] {
        assert!(matches!(store.save(name, &draft()), Err(StoreError::Name(_))), "{name}");
        assert!(matches!(store.keep_verdict("q4", name, b"{}"), Err(StoreError::Name(_))), "{name}");
        assert!(matches!(store.verdict(name, "a"), Err(StoreError::Name(_))), "{name}");
    }
}

#[test]
fn the_oldest_verdicts_go_and_those_that_failed_stay_longest() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = FileStore::open(directory.path()).unwrap();
    store.keep_verdict("q4", "0000-FAIL.json", b"first").unwrap();
    let path = directory.path().join("verdicts/q4");
    for look in 1..VERDICTS_KEPT {
        fs::write(path.join(format!("{look:04}-PASS.json")), b"{}").unwrap();
    }
    store.keep_verdict("q4", "9998-PASS.json", b"last").unwrap();
    let kept = store.verdicts("q4").unwrap();
    assert_eq!(kept.len(), VERDICTS_KEPT);
    assert_eq!((kept[0].as_str(), kept[1].as_str()), ("0000-FAIL.json", "0002-PASS.json"));
    assert_eq!(store.verdict("q4", "9998-PASS.json").unwrap(), b"last");
}
