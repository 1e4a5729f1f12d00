//! The store of rollouts: what it keeps, and what it says of a directory that isn't as it left it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rollout::machine::{Active, Event, Phase, Rollback, Rollout, STATE_BYTES_MAX};
use rollout::store::{
    FileStore, Line, REASON_BYTES_MAX, ROLLOUTS_MAX, StateStore, StoreError, Stored, VERDICTS_MAX,
};
use rollout::{Divergences, Guard, Look, Looks, RECORD_BYTES_MAX, Test, VerdictRecord};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::machine::in_every_phase;

struct Fixture(TempDir);

impl Fixture {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn open(&self) -> Box<dyn StateStore> {
        Box::new(FileStore::open(&self.root()).unwrap())
    }

    fn load(&self) -> Result<Stored, StoreError> {
        FileStore::open(&self.root())?.load()
    }
}

/// A rollout that was rolled back: what must not be lost.
fn latched() -> Rollout {
    in_every_phase(&mut 1).into_iter().find(|(name, _)| *name == "rolled back").unwrap().1
}

/// A record whose one guard says PASS, or FAIL.
fn record(fails: bool) -> Vec<u8> {
    let divergences = Divergences { compared: 10, confirmed: u64::from(fails), compared_min: 5 };
    let look = Look {
        run: "1".to_owned(),
        step: "one-node".to_owned(),
        look: 1,
        looks: Looks::new(1, 1).unwrap(),
        sources: vec![],
        series: vec![],
        guards: vec![Guard { name: "divergence".to_owned(), test: Test::Divergence(divergences) }],
    };
    let record = VerdictRecord::of(look);
    assert_eq!(record.has_failed(), fails);
    record.to_json().into_bytes()
}

#[test]
fn a_new_store_is_empty_its_own_and_lets_rollouts_advance() {
    let fixture = Fixture::new();
    assert_eq!(fixture.open().load().unwrap(), Stored::default());
    assert_eq!(fixture.load().unwrap(), Stored::default(), "opened again");
    let mode = fs::metadata(fixture.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_state_of_every_phase_comes_back_after_the_process() {
    let fixture = Fixture::new();
    let rollouts = in_every_phase(&mut 1);
    for (name, rollout) in &rollouts {
        fixture.open().save(&name.replace(' ', "-"), rollout).unwrap();
    }
    let stored = fixture.load().unwrap();
    assert_eq!(stored.rollouts.len(), 13);
    for (name, rollout) in &rollouts {
        assert_eq!(&stored.rollouts[&name.replace(' ', "-")], rollout, "{name}");
    }
}

#[test]
fn the_state_that_was_saved_last_is_the_one_that_is_there() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for (_, rollout) in in_every_phase(&mut 1) {
        store.save("r", &rollout).unwrap();
        assert_eq!(store.load().unwrap().rollouts["r"], rollout);
    }
}

#[test]
fn what_a_killed_writer_left_is_removed_and_nothing_else_is_lost() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.save("r", &latched()).unwrap();
    store.save_line(&Line { stopped: Some("incident".to_owned()) }).unwrap();
    store.keep_verdict("r", "look-1.json", &record(true)).unwrap();
    let kept = store.load().unwrap();
    // Killed in the middle of a write, and after the last byte of one, before the file had its name.
    let baking = in_every_phase(&mut 1).into_iter().find(|(name, _)| *name == "baking").unwrap().1;
    let left = ["+new", "rollouts/+new", "verdicts/r/+new"].map(|name| fixture.root().join(name));
    for content in [&baking.to_json().as_bytes()[..100], baking.to_json().as_bytes()] {
        left.iter().for_each(|path| fs::write(path, content).unwrap());
        assert_eq!(fixture.load().unwrap(), kept);
        assert!(left.iter().all(|path| !path.exists()));
        assert_eq!(fixture.open().verdicts("r").unwrap(), ["look-1.json"]);
    }
}

#[test]
fn a_state_that_can_not_be_read_is_an_error_that_names_it_and_never_an_absent_rollout() {
    let good = latched().to_json();
    let write = |content: Vec<u8>| move |path: &Path| fs::write(path, &content).unwrap();
    let version = good.replace("\"version\": 2", "\"version\": 3");
    assert_ne!(version, good);
    let contradiction = good.replace("\"exposed_step\": null", "\"exposed_step\": 1");
    assert_ne!(contradiction, good);
    type Damage = Box<dyn Fn(&Path)>;
    let cases: Vec<(Damage, &str)> = vec![
        (Box::new(write(vec![])), "it is no rollout state"),
        (Box::new(write(good.as_bytes()[..good.len() / 2].to_vec())), "it is no rollout state"),
        (Box::new(write(vec![0xff; 100])), "it is no rollout state"),
        (Box::new(write(version.into_bytes())), "version 3; this program reads version 2"),
        (Box::new(write(contradiction.into_bytes())), "it contradicts itself"),
        (Box::new(write(vec![b' '; STATE_BYTES_MAX + 1])), "it has more than 1048576 bytes"),
        (Box::new(|path| fs::create_dir(path).unwrap()), "could not read it: not a regular file"),
        (
            Box::new(|path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap()),
            "could not read it: not a regular file",
        ),
        (
            Box::new(|path| symlink(path.with_file_name("s.json"), path).unwrap()),
            "could not read it: it is a symbolic link",
        ),
    ];
    for (damage, expected) in cases {
        let fixture = Fixture::new();
        let mut store = fixture.open();
        store.save("r", &latched()).unwrap();
        store.save("s", &latched()).unwrap();
        let path = fixture.root().join("rollouts/r.json");
        fs::remove_file(&path).unwrap();
        damage(&path);
        let error = fixture.load().unwrap_err().to_string();
        assert!(error.contains("rollouts/r.json: ") && error.contains(expected), "{error}");
        assert!(fs::symlink_metadata(&path).is_ok(), "it is left as it is");
    }
}

#[test]
fn a_damaged_state_is_told_what_hangs_on_it() {
    let fixture = Fixture::new();
    fixture.open().save("r", &latched()).unwrap();
    let path = fixture.root().join("rollouts/r.json");
    fs::write(&path, "{}").unwrap();
    assert_eq!(
        fixture.load().unwrap_err().to_string(),
        format!(
            "{}: it is no rollout state: missing field `format` at line 1 column 2. Nothing is changed: restore the \
             file from a copy. Without it the rollout is forgotten, and if it was rolled back, its candidate may be in \
             force again",
            path.display()
        )
    );
}

#[test]
fn files_of_others_are_left_alone_but_not_one_that_looks_like_a_state() {
    let fixture = Fixture::new();
    fixture.open().save("r", &latched()).unwrap();
    let rollouts = fixture.root().join("rollouts");
    fs::write(rollouts.join("r.json~"), "an editor's").unwrap();
    assert_eq!(fixture.load().unwrap().rollouts.len(), 1);
    for name in ["r (copy).json", ".json", "ü.json"] {
        fs::write(rollouts.join(name), latched().to_json()).unwrap();
        let error = fixture.load().unwrap_err();
        assert!(matches!(&error, StoreError::Foreign { path } if path.ends_with(name)), "{error}");
        fs::remove_file(rollouts.join(name)).unwrap();
    }
}

#[test]
fn a_part_that_is_gone_is_an_error_and_not_a_new_store() {
    let fixture = Fixture::new();
    fixture.open().save("r", &latched()).unwrap();
    let line = fixture.root().join("line.json");
    let rollouts = fixture.root().join("rollouts");
    let moved = fixture.0.path().join("moved");
    for part in [line, rollouts] {
        fs::rename(&part, &moved).unwrap();
        let error = FileStore::open(&fixture.root()).unwrap_err();
        assert!(matches!(&error, StoreError::Gone { path } if *path == part), "{error}");
        fs::rename(&moved, &part).unwrap();
    }
    assert_eq!(fixture.load().unwrap().rollouts["r"], latched());
}

#[test]
fn a_store_that_was_being_made_is_made() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.root().join("rollouts")).unwrap();
    assert_eq!(fixture.load().unwrap(), Stored::default());
}

/// Runs `save` where nothing can be written, and says what it said.
fn refused_to_write(
    fixture: &Fixture,
    directory: &str,
    save: impl FnOnce() -> Result<(), StoreError>,
) -> String {
    let directory = fixture.root().join(directory);
    if rustix::process::geteuid().is_root() {
        // Rights don't hold root back; a directory in the place of the file that is written first does.
        let obstacle = directory.join("+new");
        fs::create_dir(&obstacle).unwrap();
        let error = save().unwrap_err().to_string();
        fs::remove_dir(obstacle).unwrap();
        return error;
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o500)).unwrap();
    let error = save().unwrap_err().to_string();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    error
}

#[test]
fn a_state_that_can_not_be_written_is_an_error_and_the_last_one_is_still_there() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.save("r", &latched()).unwrap();
    store.save_line(&Line { stopped: Some("incident".to_owned()) }).unwrap();
    let kept = store.load().unwrap();
    let acknowledged = latched().step(Event::Acknowledge, u64::MAX).0;
    let error = refused_to_write(&fixture, "rollouts", || store.save("r", &acknowledged));
    assert!(error.contains("rollouts/r.json: could not write it: "), "{error}");
    let error = refused_to_write(&fixture, ".", || store.save_line(&Line::default()));
    assert!(error.contains("line.json: could not write it: "), "{error}");
    assert_eq!(fixture.load().unwrap(), kept);
    fixture.open().save("r", &acknowledged).unwrap();
    assert_eq!(fixture.load().unwrap().rollouts["r"], acknowledged);
}

#[test]
fn a_directory_that_is_gone_is_noticed_and_one_that_is_back_is_used() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.save("r", &latched()).unwrap();
    let away = fixture.0.path().join("away");
    fs::rename(fixture.root(), &away).unwrap();
    let error = store.save("r", &latched()).unwrap_err();
    assert!(matches!(error, StoreError::Os { operation: "open", .. }), "{error}");
    assert!(!fixture.root().exists(), "no other one is made in its place");
    assert!(store.load().is_err());
    fs::rename(&away, fixture.root()).unwrap();
    store.save("r", &latched()).unwrap();
}

#[test]
fn a_rollback_without_a_store_is_latched_in_the_store_that_is_found() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let mut now_ms = 1;
    let baking = in_every_phase(&mut now_ms).into_iter().find(|(name, _)| *name == "baking").unwrap().1;
    store.save("r", &baking).unwrap();
    let mut rollout = baking.step(Event::StoreLost, now_ms).0.step(Event::Abort, now_ms).0;
    assert_eq!(store.load().unwrap().rollouts["r"].phase(), Phase::Active(Active::Baking), "not yet");
    rollout = rollout.step(Event::StoreFound, now_ms).0;
    store.save("r", &rollout).unwrap();
    let stored = fixture.load().unwrap().rollouts.remove("r").unwrap();
    assert_eq!((stored.phase(), stored.is_frozen()), (Phase::RollingBack(Rollback::Aborted), false));
}

#[test]
fn a_stopped_line_stays_stopped_and_one_that_can_not_be_read_does_not_run() {
    let fixture = Fixture::new();
    let stopped = |reason: &str| Line { stopped: Some(reason.to_owned()) };
    let longest = "\"".repeat(REASON_BYTES_MAX);
    for line in [stopped("INC-482: \"wait\""), stopped(&longest), Line::default(), stopped("é")] {
        fixture.open().save_line(&line).unwrap();
        assert_eq!(fixture.load().unwrap().line, line);
    }
    for reason in ["", "a\nb", &"x".repeat(REASON_BYTES_MAX + 1)] {
        let error = fixture.open().save_line(&stopped(reason)).unwrap_err();
        assert!(matches!(error, StoreError::Reason), "{error}");
    }
    for (content, expected) in [
        ("", "it doesn't say whether the line is stopped"),
        ("{}", "missing field `format`"),
        (r#"{"format":"x","version":1,"stopped":null}"#, "its format is not `bulkhead-line`"),
        (
            r#"{"format":"bulkhead-line","version":2,"stopped":null}"#,
            "version 2; this program reads version 1",
        ),
        (r#"{"format":"bulkhead-line","version":1,"stopped":""}"#, "its reason is empty"),
        (r#"{"format":"bulkhead-line","version":1,"stopped":false}"#, "invalid type"),
        (&" ".repeat(8 * REASON_BYTES_MAX + 1), "it has more than 8192 bytes"),
    ] {
        fs::write(fixture.root().join("line.json"), content).unwrap();
        let error = fixture.load().unwrap_err().to_string();
        assert!(error.contains("line.json: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn ids_and_names_lead_nowhere_else() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let long = "a".repeat(64);
    for id in ["", ".", "..", "a.b", "../r", "/etc/r", "a/b", "a\0", "a b", "ü", "+new", "a\u{1b}[2J", &long]
    {
        for error in [
            store.save(id, &latched()).unwrap_err(),
            store.keep_verdict(id, "n", &record(false)).unwrap_err(),
            store.verdicts(id).unwrap_err(),
            store.verdict(id, "n").unwrap_err(),
        ] {
            assert!(matches!(&error, StoreError::Id(said) if said == id), "{error}");
            assert!(error.to_string().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{error}");
        }
    }
    for name in ["", ".", "..", ".n", "../r", "a/b", "a\0", "a b", "n+fail", "+new", &long] {
        for error in [
            store.keep_verdict("r", name, &record(false)).unwrap_err(),
            store.verdict("r", name).unwrap_err(),
        ] {
            assert!(matches!(&error, StoreError::Name(said) if said == name), "{error}");
        }
    }
    let longest = &long[1..];
    store.save(longest, &latched()).unwrap();
    store.keep_verdict(longest, longest, &record(true)).unwrap();
    assert_eq!(store.verdicts(longest).unwrap(), [longest]);
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.keep_verdict("r", "n", &record(false)).unwrap();
    let elsewhere = fixture.0.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, fixture.root().join("verdicts/s")).unwrap();
    assert!(matches!(store.keep_verdict("s", "n", &record(false)), Err(StoreError::Os { .. })));
    assert!(matches!(store.verdicts("s"), Err(StoreError::Os { .. })));
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
}

#[test]
fn a_verdict_is_kept_as_it_is_and_the_last_one_of_a_name() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    assert!(store.verdicts("r").unwrap().is_empty());
    assert!(matches!(store.verdict("r", "a"), Err(StoreError::Absent { .. })));
    for fails in [false, true, true, false] {
        store.keep_verdict("r", "a", &record(fails)).unwrap();
        assert_eq!(fixture.open().verdict("r", "a").unwrap(), record(fails));
        assert_eq!(store.verdicts("r").unwrap(), ["a"]);
    }
    assert!(matches!(store.verdict("r", "b"), Err(StoreError::Absent { .. })));
}

#[test]
fn what_is_no_verdict_record_is_not_kept_and_a_larger_one_not_read() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for bytes in [&b""[..], b"{}", &vec![b' '; RECORD_BYTES_MAX + 1]] {
        let error = store.keep_verdict("r", "a", bytes).unwrap_err();
        assert!(matches!(error, StoreError::Record { .. }), "{error}");
    }
    assert!(store.verdicts("r").unwrap().is_empty());
    store.keep_verdict("r", "a", &record(false)).unwrap();
    let file = File::options().write(true).open(fixture.root().join("verdicts/r/a")).unwrap();
    file.set_len(RECORD_BYTES_MAX as u64 + 1).unwrap();
    assert!(matches!(store.verdict("r", "a"), Err(StoreError::TooLarge { .. })));
}

/// As many records as are kept, a second apart, those of the first `failed` with a FAIL.
fn full_of_verdicts(fixture: &Fixture, failed: usize) -> Box<dyn StateStore> {
    let mut store = fixture.open();
    store.keep_verdict("r", "n", &record(false)).unwrap();
    let directory = fixture.root().join("verdicts/r");
    fs::remove_file(directory.join("n")).unwrap();
    let begin = SystemTime::now() - Duration::from_secs(86_400);
    // The names tell nothing of the order.
    for at in 0..VERDICTS_MAX {
        let fails = at < failed;
        let path = directory.join(format!("v{}{}", VERDICTS_MAX - at, if fails { "+fail" } else { "" }));
        fs::write(&path, record(fails)).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(begin + Duration::from_secs(at as u64)).unwrap();
    }
    store
}

#[test]
fn beyond_a_thousand_verdicts_the_oldest_without_a_fail_go() {
    let fixture = Fixture::new();
    let mut store = full_of_verdicts(&fixture, 2);
    assert_eq!(store.verdicts("r").unwrap()[..3], ["v1000", "v999", "v998"]);
    store.keep_verdict("r", "new", &record(false)).unwrap();
    let names = store.verdicts("r").unwrap();
    assert_eq!(names.len(), VERDICTS_MAX);
    assert_eq!(names[..3], ["v1000", "v999", "v997"]);
    assert_eq!(names.last().unwrap(), "new");
    // Again, in the place of one that is there: nothing has to go.
    store.keep_verdict("r", "new", &record(true)).unwrap();
    assert_eq!(store.verdicts("r").unwrap(), names);
}

#[test]
fn where_all_verdicts_are_fails_the_oldest_goes_and_the_newest_stays() {
    let fixture = Fixture::new();
    let mut store = full_of_verdicts(&fixture, VERDICTS_MAX);
    store.keep_verdict("r", "new", &record(false)).unwrap();
    let names = store.verdicts("r").unwrap();
    assert_eq!((names.len(), names[0].as_str()), (VERDICTS_MAX, "v999"));
    assert_eq!(store.verdict("r", "new").unwrap(), record(false));
}

#[test]
fn a_full_store_takes_states_of_its_rollouts_and_no_other() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for at in 0..ROLLOUTS_MAX {
        fs::write(fixture.root().join(format!("rollouts/r{at}.json")), latched().to_json()).unwrap();
    }
    store.save("r7", &latched()).unwrap();
    let error = store.save("other", &latched()).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(store.load().unwrap().rollouts.len(), ROLLOUTS_MAX);
    fs::write(fixture.root().join("rollouts/other.json"), latched().to_json()).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Full { .. })));
}
