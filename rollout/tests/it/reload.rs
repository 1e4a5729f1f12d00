//! The policy in force while its file changes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rollout::{LivePolicy, LoadError, Mode};
use tempfile::TempDir;

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
        LivePolicy::watch(&self.path, "s", "n").unwrap()
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
    let live = LivePolicy::watch_with(
        &fixture.path,
        "s",
        "n",
        Box::new(move |result| {
            let line = result.map(|in_force| in_force.generation).map_err(ToString::to_string);
            log.lock().unwrap().push(line);
        }),
    )
    .unwrap();
    fixture.replace("schema = 1\n[default]\nmode = \"none\"\n");
    is_refused(&live);
    assert_eq!((live.in_force().mode(), live.in_force().generation), (Mode::Sandboxed, 1));
    assert!(live.last_error().unwrap().to_string().contains("unknown mode `none`"));
    assert!(live.reload_now().is_err());
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
    let on_reload: rollout::OnReload = Box::new(move |result| {
        if let Ok(in_force) = result {
            log.lock().unwrap().push(in_force.generation);
        }
    });
    let live = LivePolicy::watch_with(&fixture.path, "s", "n", on_reload).unwrap();
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
    assert!(!live.reload_now().unwrap());
    assert_eq!(live.in_force().generation, 1);
}
