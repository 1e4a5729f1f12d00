//! The policy in force while its file changes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use execution::Principal;
use jiff::{SignedDuration, Timestamp};
use rollout::{
    Checksum, Exposures, GENERATIONS_KEPT, LiveOptions, LivePolicy, LoadError, Mode, Policy, Reason, Trigger,
};
use tempfile::TempDir;

use crate::selector::Gate;

/// Longer than any wait that ends well.
const PATIENCE: Duration = Duration::from_secs(20);

fn text(mode: Mode) -> String {
    format!("schema = 1\n[default]\nmode = \"{mode}\"\n")
}

struct Fixture {
    directory: TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new(mode: Mode) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        fs::write(&path, text(mode)).unwrap();
        Self { directory, path }
    }

    fn watch(&self) -> Arc<LivePolicy> {
        self.start(|_| {})
    }

    /// With options of its own.
    fn start(&self, set: impl FnOnce(&mut LiveOptions)) -> Arc<LivePolicy> {
        let mut options = LiveOptions::new(&self.path, "s", "n");
        set(&mut options);
        LivePolicy::start(options).unwrap()
    }

    /// Saves as vim does: a new file moved over the old one.
    fn replace(&self, content: &str) {
        let new = self.directory.path().join("policy.toml~");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }
}

#[track_caller]
fn becomes(live: &LivePolicy, mode: Mode) {
    assert!(live.wait_until(PATIENCE, |in_force, _| in_force.mode() == mode), "{live:?}");
}

#[track_caller]
fn is_refused(live: &LivePolicy) {
    assert!(live.wait_until(PATIENCE, |_, error| error.is_some()), "{live:?}");
}

#[test]
fn a_bad_file_at_the_start_is_an_error() {
    let fixture = Fixture::new(Mode::Shadow);
    fs::write(&fixture.path, "schema = 2\n").unwrap();
    let error = LivePolicy::watch(&fixture.path, "s", "n").unwrap_err();
    assert!(matches!(&error, LoadError::Invalid(errors) if errors.len() == 1));
    assert!(error.to_string().ends_with("\n1 error"), "{error}");
    let error = LivePolicy::watch(Path::new("/nowhere/p.toml"), "s", "n").unwrap_err();
    assert!(error.to_string().starts_with("could not read the policy file /nowhere/p.toml: "), "{error}");
}

#[test]
fn a_save_takes_effect_within_50_ms() {
    let fixture = Fixture::new(Mode::InProcess);
    let live = fixture.watch();
    let mut fastest = Duration::MAX;
    for mode in [Mode::Sandboxed, Mode::InProcess, Mode::Shadow, Mode::Sandboxed] {
        fs::write(&fixture.path, text(mode)).unwrap();
        let saved = Instant::now();
        becomes(&live, mode);
        fastest = fastest.min(live.in_force().since.saturating_duration_since(saved));
    }
    assert_eq!(live.in_force().generation, 5);
    // The fastest of four: a loaded machine says nothing of the path itself.
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
}

#[test]
fn every_way_of_saving_is_followed() {
    let fixture = Fixture::new(Mode::InProcess);
    let live = fixture.watch();
    fixture.replace(&text(Mode::Shadow));
    becomes(&live, Mode::Shadow);
    fs::remove_file(&fixture.path).unwrap();
    is_refused(&live);
    assert_eq!(live.in_force().mode(), Mode::Shadow);
    fs::write(&fixture.path, text(Mode::Sandboxed)).unwrap();
    becomes(&live, Mode::Sandboxed);
    assert!(live.last_error().is_none());
}

#[test]
fn a_symlink_that_is_swapped_is_followed_and_so_is_its_target() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (name, mode) in [("v1", Mode::InProcess), ("v2", Mode::Sandboxed)] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("policy.toml"), text(mode)).unwrap();
    }
    std::os::unix::fs::symlink("v1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/policy.toml", at("policy.toml")).unwrap();
    let live = LivePolicy::watch(&at("policy.toml"), "s", "n").unwrap();
    for turn in 0..50 {
        let (version, mode) = if turn % 2 == 0 { ("v2", Mode::Sandboxed) } else { ("v1", Mode::InProcess) };
        std::os::unix::fs::symlink(version, at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        becomes(&live, mode);
    }
    fs::write(at("v1").join("policy.toml"), text(Mode::Shadow)).unwrap();
    becomes(&live, Mode::Shadow);
}

#[test]
fn the_last_good_policy_stays_and_the_refusal_is_told() {
    let fixture = Fixture::new(Mode::Sandboxed);
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let live = fixture.start(move |options| {
        options.on_reload = Box::new(move |result| {
            let line = result.map(|receipt| receipt.generation).map_err(ToString::to_string);
            log.lock().unwrap().push(line);
        });
    });
    fixture.replace("schema = 1\n[default]\nmode = \"none\"\n");
    is_refused(&live);
    assert_eq!((live.in_force().mode(), live.in_force().generation), (Mode::Sandboxed, 1));
    assert!(live.last_error().unwrap().to_string().contains("unknown mode `none`"));
    assert!(live.reload(Trigger::Request).is_err());
    fixture.replace(&text(Mode::Shadow));
    becomes(&live, Mode::Shadow);
    drop(live);
    let told = told.lock().unwrap();
    assert!(
        told.iter().any(|line| line.as_ref().is_err_and(|error| error.contains("unknown mode"))),
        "{told:?}"
    );
    assert_eq!(told.last(), Some(&Ok(2)));
}

#[test]
fn a_half_written_save_never_takes_effect() {
    let fixture = Fixture::new(Mode::Sandboxed);
    let live = fixture.watch();
    // Cut in the middle of a word, and left so until it has been refused.
    let mut file = fs::File::create(&fixture.path).unwrap();
    file.write_all(b"schema = 1\n[default]\nmode = \"sha").unwrap();
    is_refused(&live);
    assert_eq!((live.in_force().mode(), live.in_force().generation), (Mode::Sandboxed, 1));
    file.write_all(b"dow\"\n").unwrap();
    drop(file);
    becomes(&live, Mode::Shadow);
    assert_eq!(live.in_force().generation, 2);
}

#[test]
fn two_hundred_saves_end_with_the_last_one_and_no_generation_goes_back() {
    let fixture = Fixture::new(Mode::InProcess);
    let generations = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&generations);
    let live = fixture.start(move |options| {
        options.on_reload = Box::new(move |result| {
            if let Ok(receipt) = result {
                log.lock().unwrap().push(receipt.generation);
            }
        });
    });
    for turn in 0..200 {
        match turn % 4 {
            0 => fs::write(&fixture.path, text(Mode::Shadow)).unwrap(),
            1 => fixture.replace("schema = 1\n[default]\nmode = \"sandboxd\"\n"),
            2 => fixture.replace(&text(Mode::InProcess)),
            _ => fs::remove_file(&fixture.path).unwrap(),
        }
    }
    fs::write(&fixture.path, text(Mode::Sandboxed)).unwrap();
    becomes(&live, Mode::Sandboxed);
    assert!(live.last_error().is_none());
    drop(live);
    let generations = generations.lock().unwrap();
    assert!(generations.is_sorted_by(|before, after| before + 1 == *after), "{generations:?}");
}

#[test]
fn a_changed_bound_is_said_to_take_a_restart_and_the_rest_of_the_file_takes_effect() {
    let fixture = Fixture::new(Mode::InProcess);
    let bounded = |mode, idle| format!("{}[sandbox]\nidle = \"{idle}\"\npool = 3\n", text(mode));
    fixture.replace(&bounded(Mode::InProcess, "300s"));
    let live = fixture.watch();
    assert_eq!(live.in_force().restart_for, [""; 0]);
    fixture.replace(&bounded(Mode::Sandboxed, "60s"));
    becomes(&live, Mode::Sandboxed);
    assert_eq!(live.in_force().restart_for, ["sandbox.idle"]);
    fixture.replace(&text(Mode::Shadow));
    becomes(&live, Mode::Shadow);
    assert_eq!(live.in_force().restart_for, ["sandbox.pool", "sandbox.idle"]);
    // The same duration in other words is no change.
    fixture.replace(&bounded(Mode::InProcess, "5m"));
    becomes(&live, Mode::InProcess);
    assert_eq!(live.in_force().restart_for, [""; 0]);
    fixture.replace(&format!("{}[code_cache]\ndirectory = \"/code\"\n", bounded(Mode::Shadow, "300s")));
    becomes(&live, Mode::Shadow);
    assert_eq!(live.in_force().restart_for, ["code_cache.directory"]);
}

#[test]
fn the_same_content_makes_no_new_generation() {
    let fixture = Fixture::new(Mode::InProcess);
    let live = fixture.watch();
    fixture.replace(&text(Mode::InProcess));
    assert!(!live.reload(Trigger::Request).unwrap().is_new);
    assert_eq!(live.in_force().generation, 1);
}

#[test]
fn a_reload_that_is_asked_for_gives_a_receipt() {
    let fixture = Fixture::new(Mode::InProcess);
    let live = fixture.watch();
    let unchanged = live.reload(Trigger::Request).unwrap();
    assert_eq!((unchanged.is_new, unchanged.generation, unchanged.changes.len()), (false, 1, 0));
    // One of the two readers, the watch or the request, brings it into force; both come to the same.
    fixture.replace("schema = 1\n[default]\nmode = \"shadow\"\n[subnets.s]\nfloor = \"none\"\n");
    let receipt = live.reload(Trigger::Request).unwrap();
    assert_eq!(receipt.generation, 2);
    assert_eq!(receipt.checksum, Checksum::of(&fs::read(&fixture.path).unwrap()));
    assert_eq!(receipt.checksum, live.in_force().checksum);
    assert_eq!(
        LivePolicy::fixed(Mode::Shadow).reload(Trigger::Request).unwrap_err().to_string(),
        "there is no policy file to read again: the mode of this node is fixed"
    );
}

#[test]
fn changes_between_two_policies_are_named_with_both_values() {
    let before =
        Policy::parse("p", "schema = 1\n[default]\nmode = \"shadow\"\n[sandbox]\nidle = \"60s\"\n").unwrap();
    let after = Policy::parse(
        "p",
        "schema = 1\n[default]\nmode = \"sandboxed\"\n[nodes.n]\nmode = \"shadow\"\nexpires = 2026-12-01\n",
    )
    .unwrap();
    let changes: Vec<_> = before.changes(&after).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "default.mode: \"shadow\" -> \"sandboxed\"",
            "sandbox.idle: \"1m\" -> nothing",
            "nodes.n.expires: nothing -> 2026-12-01T00:00:00Z",
            "nodes.n.mode: nothing -> \"shadow\"",
        ]
    );
    assert_eq!(after.changes(&after), []);
}

#[test]
fn a_file_that_may_not_be_read_is_refused_and_so_is_one_that_is_no_file() {
    let fixture = Fixture::new(Mode::Sandboxed);
    let live = fixture.watch();
    // Root may read whatever its mode is: a directory in the file's place nobody can read as a file.
    fs::remove_file(&fixture.path).unwrap();
    fs::create_dir(&fixture.path).unwrap();
    is_refused(&live);
    assert!(live.last_error().unwrap().to_string().contains("not a regular file"));
    fs::remove_dir(&fixture.path).unwrap();
    // A link to itself can't be opened by anybody.
    std::os::unix::fs::symlink("policy.toml", &fixture.path).unwrap();
    let error = live.reload(Trigger::Request).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "{error}");
    assert_eq!((live.in_force().mode(), live.in_force().generation), (Mode::Sandboxed, 1));
    fs::remove_file(&fixture.path).unwrap();
    fixture.replace(&text(Mode::Shadow));
    becomes(&live, Mode::Shadow);
}

#[test]
fn a_directory_that_is_removed_and_made_again_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("etc");
    let path = inner.join("policy.toml");
    let make = |mode| {
        fs::create_dir(&inner).unwrap();
        fs::write(&path, text(mode)).unwrap();
    };
    make(Mode::InProcess);
    let live = LivePolicy::watch(&path, "s", "n").unwrap();
    fs::remove_dir_all(&inner).unwrap();
    is_refused(&live);
    make(Mode::Shadow);
    becomes(&live, Mode::Shadow);
    fs::write(&path, text(Mode::Sandboxed)).unwrap();
    becomes(&live, Mode::Sandboxed);
}

#[test]
fn a_hundred_swaps_of_a_link_end_with_the_last_and_no_mixture_is_ever_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // Mode and idle time belong together.
    for (name, mode, idle) in [("v0", Mode::Shadow, "60s"), ("v1", Mode::Sandboxed, "90s")] {
        fs::write(at(name), format!("{}[sandbox]\nidle = \"{idle}\"\n", text(mode))).unwrap();
    }
    std::os::unix::fs::symlink("v0", at("policy.toml")).unwrap();
    let live = LivePolicy::watch(&at("policy.toml"), "s", "n").unwrap();
    for turn in 1..=101 {
        std::os::unix::fs::symlink(format!("v{}", turn % 2), at("new")).unwrap();
        fs::rename(at("new"), at("policy.toml")).unwrap();
        let in_force = live.in_force();
        let idle = in_force.policy.bounds().idle_ms;
        assert!(
            [(Mode::Shadow, Some(60_000)), (Mode::Sandboxed, Some(90_000))]
                .contains(&(in_force.mode(), idle)),
            "{in_force:?}"
        );
    }
    becomes(&live, Mode::Sandboxed);
    assert!(live.last_error().is_none());
}

#[test]
fn the_kill_switch_works_while_its_file_is_there_and_floors_dont_hold_it() {
    let fixture = Fixture::new(Mode::InProcess);
    let kill = fixture.directory.path().join("ops").join("KILL");
    fixture.replace(&format!(
        "schema = 1\n[kill_switch]\nfile = \"{}\"\nmode = \"in-process\"\n[default]\nmode = \"sandboxed\"\nfloor = \"sandboxed\"\n",
        kill.display()
    ));
    let live = fixture.watch();
    assert_eq!((live.in_force().mode(), live.in_force().killed), (Mode::Sandboxed, false));
    // Its directory isn't there yet; the policy file is bad by now.
    fixture.replace("schema = 2\n");
    is_refused(&live);
    fs::create_dir(kill.parent().unwrap()).unwrap();
    for _ in 0..3 {
        fs::write(&kill, "").unwrap();
        becomes(&live, Mode::InProcess);
        assert!(live.in_force().killed);
        assert_eq!(live.explain(None).reason, Reason::Killed);
        fs::remove_file(&kill).unwrap();
        becomes(&live, Mode::Sandboxed);
    }
    // A link that leads nowhere is there, too.
    std::os::unix::fs::symlink("/nowhere", &kill).unwrap();
    becomes(&live, Mode::InProcess);
    let in_force = live.in_force();
    assert_eq!((in_force.generation, in_force.swap), (1, 8), "a turn of the switch is no new generation");
    drop(live);
    fixture.replace(&text(Mode::Shadow));
    assert!(!fixture.watch().in_force().killed, "a policy without a switch has none engaged");
}

#[test]
fn a_disk_that_hangs_with_the_kill_switch_file_holds_up_no_reload_no_rollback_no_reader_and_no_end() {
    let fixture = Fixture::new(Mode::InProcess);
    let kill = fixture.directory.path().join("KILL");
    let with_switch = |mode, file: &Path| {
        format!("{}[kill_switch]\nfile = \"{}\"\nmode = \"in-process\"\n", text(mode), file.display())
    };
    let hangs = Path::new("/hangs/KILL");
    fixture.replace(&with_switch(Mode::Sandboxed, hangs));
    let gates = [Gate::default(), Gate::default()].map(Arc::new);
    // Where it hangs, the switch is engaged.
    let hung = |gate: &Arc<Gate>| {
        let (door, started) = (Arc::clone(gate), AtomicBool::new(false));
        let live = fixture.start(|options| {
            options.is_there = Arc::new(move |file| {
                if file != hangs {
                    return rollout::is_there(file);
                }
                if started.swap(true, Ordering::SeqCst) {
                    door.pass();
                    return Ok(true);
                }
                Ok(false)
            });
        });
        gate.reached();
        live
    };
    let [live, ended] = gates.each_ref().map(hung);
    fixture.replace(&with_switch(Mode::Shadow, hangs));
    becomes(&live, Mode::Shadow);
    fixture.replace(&with_switch(Mode::Sandboxed, hangs));
    live.reload(Trigger::Request).unwrap();
    assert_eq!(live.in_force().mode(), Mode::Sandboxed);
    let swap = live.in_force().swap;
    assert_eq!(live.expose(Exposures::none().clone()).swap, swap + 1);
    assert!(live.last_error().is_none() && live.is_drained());
    drop(ended);
    assert!(!live.in_force().killed, "nothing has been seen");

    // One on another disk is followed while the look at this one goes on, and back again this one is waited for no
    // longer than a look may take.
    fixture.replace(&with_switch(Mode::Shadow, &kill));
    becomes(&live, Mode::Shadow);
    fs::write(&kill, "").unwrap();
    becomes(&live, Mode::InProcess);
    fs::remove_file(&kill).unwrap();
    becomes(&live, Mode::Shadow);
    fixture.replace(&with_switch(Mode::Sandboxed, hangs));
    becomes(&live, Mode::Sandboxed);
    gates[0].open();
    becomes(&live, Mode::InProcess);
    assert!(live.in_force().killed);
    gates[1].open();
}

#[test]
fn another_file_for_the_kill_switch_is_looked_for_before_its_policy_is_in_force() {
    let fixture = Fixture::new(Mode::Sandboxed);
    let kill = fixture.directory.path().join("KILL");
    fs::write(&kill, "").unwrap();
    let live = fixture.watch();
    let text = text(Mode::Sandboxed);
    fixture.replace(&format!("{text}[kill_switch]\nfile = \"{}\"\nmode = \"in-process\"\n", kill.display()));
    live.reload(Trigger::Request).unwrap();
    let in_force = live.in_force();
    assert_eq!((in_force.killed, in_force.mode(), in_force.swap), (true, Mode::InProcess, 2));
    fixture.replace(&text);
    live.reload(Trigger::Request).unwrap();
    assert_eq!((live.in_force().killed, live.in_force().mode()), (false, Mode::Sandboxed));
}

#[test]
fn a_node_that_starts_with_the_kill_switch_engaged_starts_killed() {
    let fixture = Fixture::new(Mode::InProcess);
    let kill = fixture.directory.path().join("KILL");
    fs::write(&kill, "").unwrap();
    fixture.replace(&format!(
        "schema = 1\n[kill_switch]\nfile = \"{}\"\nmode = \"in-process\"\n[default]\nmode = \"sandboxed\"\n",
        kill.display()
    ));
    assert_eq!(fixture.watch().in_force().mode(), Mode::InProcess);
}

#[test]
fn a_rule_that_expires_falls_through_without_a_reload() {
    let fixture = Fixture::new(Mode::Sandboxed);
    let ledger = Principal::from_text("ryjl3-tyaaa-aaaaa-aaaba-cai").unwrap();
    let soon = Timestamp::now() + SignedDuration::from_secs(2);
    fixture.replace(&format!(
        "schema = 1\n[default]\nfloor = \"sandboxed\"\n[[exemptions]]\nid = \"{ledger}\"\nmode = \"in-process\"\nexpires = {soon}\nreason = \"r\"\napproved_by = [\"a\"]\n"
    ));
    let live = fixture.watch();
    assert_eq!(live.in_force().mode_of(&ledger), Mode::InProcess);
    assert_eq!(live.in_force().mode(), Mode::Sandboxed);
    assert!(live.wait_until(PATIENCE, |in_force, _| in_force.mode_of(&ledger) == Mode::Sandboxed));
    assert!(Timestamp::now() >= soon);
    assert_eq!(live.explain(Some(ledger)).reason, Reason::Floored);
    assert_eq!((live.in_force().generation, live.in_force().swap), (1, 2));
}

/// The names in a directory of kept generations, without what varies.
fn kept(directory: &Path) -> Vec<u64> {
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut numbers: Vec<u64> =
        names.filter_map(|name| name.split_once('-').map(|(number, _)| number.parse().unwrap())).collect();
    numbers.sort_unstable();
    numbers
}

/// The file of a kept generation.
fn file_of(directory: &Path, generation: u64) -> PathBuf {
    let prefix = format!("{generation:010}-");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut of = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
    of.next().unwrap()
}

#[test]
fn generations_are_numbered_on_over_starts_and_the_newest_are_kept() {
    let fixture = Fixture::new(Mode::InProcess);
    let state = fixture.directory.path().join("state").join("policy");
    let start = || fixture.start(|options| options.generations = Some(state.clone()));
    let live = start();
    for turn in 0..GENERATIONS_KEPT as u64 + 3 {
        fixture.replace(&format!("{}# {turn}\n", text(Mode::Shadow)));
        assert_eq!(live.reload(Trigger::Request).unwrap().generation, turn + 2);
    }
    drop(live);
    let newest = GENERATIONS_KEPT as u64 + 4;
    assert_eq!(kept(&state), (newest - GENERATIONS_KEPT as u64 + 1..=newest).collect::<Vec<_>>());
    assert_eq!(fs::read(file_of(&state, newest)).unwrap(), fs::read(&fixture.path).unwrap());
    assert_eq!(start().in_force().generation, newest, "the same bytes are the same generation");
    fixture.replace(&text(Mode::Sandboxed));
    assert_eq!(start().in_force().generation, newest + 1);
}

#[test]
fn a_start_with_a_bad_file_goes_on_with_the_last_good_policy_and_says_so() {
    let fixture = Fixture::new(Mode::Shadow);
    let state = fixture.directory.path().join("state");
    let start = || {
        let options =
            LiveOptions { generations: Some(state.clone()), ..LiveOptions::new(&fixture.path, "s", "n") };
        LivePolicy::start(options)
    };
    drop(start().unwrap());
    for bad in [Some("schema = 1\n[default]\nmode = \"fast\"\n"), Some("schema = 1\n[def"), None] {
        match bad {
            Some(text) => fixture.replace(text),
            None => fs::remove_file(&fixture.path).unwrap(),
        }
        let live = start().unwrap();
        assert_eq!((live.in_force().mode(), live.in_force().generation), (Mode::Shadow, 1));
        assert!(live.in_force().policy.file().starts_with(state.to_str().unwrap()));
        assert!(live.last_error().is_some());
    }
    let live = start().unwrap();
    fixture.replace(&text(Mode::Sandboxed));
    becomes(&live, Mode::Sandboxed);
    assert_eq!(live.in_force().generation, 2);
    drop(live);
    // The newest copy is damaged: the one before it is in force, under a number that was never given away.
    fs::write(file_of(&state, 2), text(Mode::InProcess)).unwrap();
    fixture.replace("schema = 3\n");
    let live = start().unwrap();
    assert_eq!((live.in_force().mode(), live.in_force().generation), (Mode::Shadow, 3));
    drop(live);
    // Nothing good is left.
    for generation in [1, 3] {
        fs::write(file_of(&state, generation), "").unwrap();
    }
    assert!(matches!(start().unwrap_err(), LoadError::Invalid(_)));
}

#[test]
fn a_state_directory_that_is_corrupt_or_takes_no_files_costs_only_itself() {
    let fixture = Fixture::new(Mode::Shadow);
    let state = fixture.directory.path().join("state");
    let start = |state: &Path| fixture.start(|options| options.generations = Some(state.to_owned()));
    // What a stranger left: names that only look like ours.
    fs::create_dir(&state).unwrap();
    let zeros = "0".repeat(64);
    for name in [
        format!("99999999999999999999-{zeros}.toml"),
        format!("{}-{zeros}.toml", u64::MAX),
        "7-abc.toml".to_owned(),
        format!("+7-{zeros}.toml"),
        format!("7-{zeros}"),
        "notes.txt".to_owned(),
    ] {
        fs::write(state.join(name), "?").unwrap();
    }
    assert_eq!(start(&state).in_force().generation, 1);
    // A name that is ours, without content: its number is taken.
    fs::write(state.join(format!("0000000007-{zeros}.toml")), "").unwrap();
    assert_eq!(start(&state).in_force().generation, 8);
    // A file in the directory's place, a device, a file system that takes no files.
    let file = fixture.directory.path().join("file");
    fs::write(&file, "").unwrap();
    for unusable in [file.as_path(), Path::new("/dev/full"), Path::new("/proc/bulkhead")] {
        let live = start(unusable);
        assert_eq!(live.in_force().mode(), Mode::Shadow);
        fixture.replace(&text(Mode::Sandboxed));
        becomes(&live, Mode::Sandboxed);
        fixture.replace(&text(Mode::Shadow));
        becomes(&live, Mode::Shadow);
    }
}

/// Whether what began at `began` is to be ended, once the deadline of a rollback at the last swap is surely over.
fn ended_after_the_deadline(live: &LivePolicy, began: Instant) -> bool {
    let over = live.in_force().since + live.in_force().policy.rollback_deadline();
    let asked_late = std::iter::repeat_with(|| (Instant::now() > over, live.is_rolled_back(began)));
    asked_late.into_iter().find(|(late, _)| *late).expect("time goes on").1
}

#[test]
fn what_ran_sandboxed_before_a_rollback_is_ended_after_the_deadline_and_nothing_else_is() {
    let canister = "rrkah-fqaaa-aaaaa-aaaaq-cai";
    let with = |mode: &str, rest: &str| {
        format!("schema = 1\n[switch]\nrollback_deadline = \"50ms\"\n[default]\nmode = \"{mode}\"\n{rest}")
    };
    let ruled = format!("[[canisters]]\nid = \"{canister}\"\nmode = \"sandboxed\"\n");
    // What is saved, and whether it takes something out of the sandbox.
    let saves = [
        (with("sandboxed", "# the same again\n"), false),
        (with("shadow", ""), true),
        (with("in-process", ""), false),
        (with("in-process", &ruled), false),
        (with("sandboxed", &ruled), false),
        (with("in-process", &ruled), true),
        (with("in-process", ""), true),
    ];
    let fixture = Fixture::new(Mode::Sandboxed);
    let live = fixture.watch();
    for (text, takes_out) in saves {
        let before = Instant::now();
        fixture.replace(&text);
        live.reload(Trigger::Request).unwrap();
        assert_eq!(ended_after_the_deadline(&live, before), takes_out, "{text}");
        assert!(!ended_after_the_deadline(&live, Instant::now()), "what began after it: {text}");
    }
}

#[test]
fn a_rollback_leaves_what_runs_its_deadline() {
    let fixture = Fixture::new(Mode::Sandboxed);
    let live = fixture.watch();
    let before = Instant::now();
    let longest = "schema = 1\n[switch]\nrollback_deadline = \"60s\"\n[default]\nmode = \"in-process\"\n";
    fixture.replace(longest);
    live.reload(Trigger::Request).unwrap();
    assert!(!live.is_rolled_back(before));
}
