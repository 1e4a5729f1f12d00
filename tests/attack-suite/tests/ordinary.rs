//! The suite as an ordinary user, started by root.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Nobody's.
const USER: u32 = 65534;

#[test]
fn an_ordinary_user_has_them_contained_too_and_what_it_lacks_is_named() {
    if !rustix::process::geteuid().is_root() {
        println!("already an ordinary user: the suite itself is this test");
        return;
    }
    let place = tempfile::tempdir().expect("room for the program");
    let program = place.path().join("attack-suite");
    std::fs::copy(env!("CARGO_BIN_EXE_attack-suite"), &program).expect("room for the program");
    for path in [place.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    for (attack, lacks) in [
        ("A1", "A1: user of its own alone"),
        ("A5", "A5: control group alone"),
        ("A10", "A10: no capabilities alone"),
        ("A11", "A11: user of its own alone"),
        ("A45", "A45: control group, under LOAD and alone"),
    ] {
        let run =
            Command::new(&program).args(["--only", attack]).current_dir("/").uid(USER).gid(USER).output();
        let run = run.expect("it starts");
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{text}{}", String::from_utf8_lossy(&run.stderr));
        assert!(text.contains("as an ordinary user") && text.contains(lacks), "{text}");
    }
}

#[test]
fn an_attack_that_isnt_there_is_an_error_that_lists_what_is() {
    let run = Command::new(env!("CARGO_BIN_EXE_attack-suite")).args(["--only", "A63"]).output();
    let run = run.expect("it starts");
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && text.contains("no attack A63; there are A1, A2"), "{text}");
}
