//! The audit log's file: kills, full disks, other files in its place, other writers, bounds.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rollout::audit::{
    AUDIT_BYTES_MAX, Audit, AuditError, DETAILS_MAX, Entry, LINE_BYTES_MAX, Opened, REASON_BYTES_MAX, Source,
    TEXT_BYTES_MAX, Why, read_after, verify,
};

use crate::audit::{lines_of, log_of, numbered, open, time};

fn refused(path: &Path) -> AuditError {
    Audit::open(path, AUDIT_BYTES_MAX).map(drop).unwrap_err()
}

#[track_caller]
fn has_entries(path: &Path, entries: u64) {
    assert_eq!(verify(&*fs::read(path).unwrap(), None).unwrap().entries, entries);
}

#[test]
fn a_kill_anywhere_in_a_write_costs_that_line_alone() {
    let lines = lines_of(3);
    let (_folder, path) = log_of(0);
    let before = lines[..2].concat();
    for torn in 1..lines[2].len() {
        fs::write(&path, before.clone() + &lines[2][..torn]).unwrap();
        let (mut audit, opened) = Audit::open(&path, AUDIT_BYTES_MAX).unwrap();
        assert_eq!(opened, Opened { entries: 2, torn: Some(torn) });
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        audit.append(numbered(3)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), lines.concat());
    }
}

#[test]
fn the_log_is_for_its_owner_alone() {
    let (_folder, path) = log_of(1);
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    mode(0o644);
    assert_eq!(open(&path).seq(), 1, "others may read it if its owner says so");
    for writable in [0o620, 0o602] {
        mode(writable);
        assert!(matches!(refused(&path), AuditError::Writable { mode } if mode == writable));
    }
}

#[test]
fn a_broken_chain_is_not_appended_to_and_left_as_it_is() {
    let (_folder, path) = log_of(3);
    let lines = lines_of(3);
    let long = "x".repeat(LINE_BYTES_MAX);
    for (log, line, why) in [
        (lines[1..].concat(), 1, Why::Missing { first: 1, last: 1 }),
        (lines.concat().replace("\"to\":\"2\"", "\"to\":\"4\""), 2, Why::Changed),
        (lines.concat() + "\n", 4, Why::NoHash),
        (lines.concat() + &long, 4, Why::TooLong),
    ] {
        fs::write(&path, &log).unwrap();
        let AuditError::Broken(broken) = refused(&path) else { panic!("{log}") };
        assert_eq!((broken.line, broken.why), (line, why));
        assert_eq!(fs::read_to_string(&path).unwrap(), log);
    }
}

#[test]
fn only_a_regular_file_is_taken() {
    let (folder, path) = log_of(1);
    let other = |name: &str| folder.path().join(name);
    symlink(&path, other("link")).unwrap();
    symlink(other("nothing"), other("dangling")).unwrap();
    fs::create_dir(other("directory")).unwrap();
    assert!(Command::new("mkfifo").arg(other("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(other("socket")).unwrap();
    for name in ["link", "dangling", "directory", "pipe", "socket", "/dev/null"] {
        assert!(matches!(refused(&other(name)), AuditError::NoFile), "{name}");
        assert!(matches!(read_after(&other(name), 0, 1), Err(AuditError::NoFile | AuditError::Os { .. })));
    }
    assert!(!other("nothing").exists());
    let missing = refused(&other("no/such/folder")).to_string();
    assert!(missing.starts_with("could not open the audit log: No such file"), "{missing}");
}

#[test]
fn another_writer_and_another_file_are_noticed() {
    let (folder, path) = log_of(0);
    let (mut one, mut other) = (open(&path), open(&path));
    one.append(numbered(1)).unwrap();
    assert!(matches!(other.append(numbered(1)), Err(AuditError::Changed { left: 0, .. })));
    one.append(numbered(2)).unwrap();
    let moved = folder.path().join("audit.jsonl.1");
    fs::rename(&path, &moved).unwrap();
    assert!(matches!(one.append(numbered(3)), Err(AuditError::Moved)), "nobody would find it");
    fs::copy(&moved, &path).unwrap();
    assert!(matches!(one.append(numbered(3)), Err(AuditError::Moved)));
    fs::rename(&moved, &path).unwrap();
    one.append(numbered(3)).unwrap();
    has_entries(&path, 3);
}

#[test]
fn a_full_log_takes_no_entry_and_says_so() {
    let bytes_max = lines_of(3).concat().len() as u64;
    let (_folder, path) = log_of(0);
    let mut audit = Audit::open(&path, bytes_max).unwrap().0;
    (1..=3).for_each(|number| _ = audit.append(numbered(number)).unwrap());
    let full = audit.append(numbered(4)).unwrap_err();
    assert!(matches!(full, AuditError::Full { bytes, .. } if bytes == bytes_max));
    assert!(full.to_string().starts_with("the audit log is full"), "{full}");
    has_entries(&path, 3);
}

#[test]
fn texts_over_their_bounds_are_cut_with_a_mark() {
    let (_folder, path) = log_of(0);
    let mut audit = open(&path);
    for (char, in_line) in [('x', 1), ('\0', 6), ('"', 2), ('\u{7f}', 1), ('é', 2), ('\u{1f980}', 4)] {
        let of = |bytes: usize| char.to_string().repeat(bytes / in_line);
        let (within, over) = (of(TEXT_BYTES_MAX), of(TEXT_BYTES_MAX + in_line));
        let huge = of(100_000);
        let entry = Entry {
            subject: Some(within.clone()),
            from: Some(over.clone()),
            reason: Some(huge.clone()),
            details: vec![huge.clone(); DETAILS_MAX + 20],
            ..Entry::new(time(), huge.clone(), Source::Cli, huge.clone())
        };
        let written = audit.append(entry).unwrap();
        let record = read_after(&path, written.seq - 1, 1).unwrap().remove(0);
        let Entry { subject, from, reason, details, actor, .. } = record.entry;
        assert_eq!(subject, Some(within));
        for (text, whole, bytes_max) in [
            (&from.unwrap(), &over, TEXT_BYTES_MAX),
            (&reason.unwrap(), &huge, REASON_BYTES_MAX),
            (&actor, &huge, TEXT_BYTES_MAX),
            (&details[0], &huge, TEXT_BYTES_MAX),
        ] {
            let (kept, mark) = text.split_once("...[cut, ").expect("a mark");
            assert_eq!(mark, format!("{} bytes]", whole.len()));
            assert!(
                whole.starts_with(kept) && (kept.chars().count() + 9) * in_line > bytes_max - 50,
                "{text}"
            );
            assert!(serde_json::to_string(text).unwrap().len() - 2 <= bytes_max, "{text}");
        }
        assert_eq!((details.len(), details[DETAILS_MAX - 1].as_str()), (DETAILS_MAX, "...[cut, 21 more]"));
        assert!(record.line.len() < LINE_BYTES_MAX / 4, "{}", record.line.len());
    }
}

/// Runs a test of this program again after this shell text, in which `$folder` is a folder for it alone and mounts are
/// its own; as an ordinary user in a user namespace. `Some`: this is that run, and the folder.
fn again_after(test: &str, setup: &str) -> Option<PathBuf> {
    const MARK: &str = "AUDIT_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(MARK) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!("folder=$1; {setup} && exec \"$2\" --exact \"$3\" --nocapture");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(folder.path());
    command.arg(std::env::current_exe().unwrap()).arg(test).env(MARK, folder.path());
    let ran = command.output().expect("unshare runs");
    let text = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && text.contains("1 passed"), "{text}{errors}");
    None
}

#[test]
fn a_full_disk_costs_the_entry_and_is_used_again_once_there_is_room() {
    let name = "audit_file::a_full_disk_costs_the_entry_and_is_used_again_once_there_is_room";
    let setup = "mount -t tmpfs -o size=64k,mode=0700 none \"$folder\"";
    let Some(folder) = again_after(name, setup) else { return };
    let (path, ballast) = (folder.join("audit.jsonl"), folder.join("ballast"));
    let mut audit = open(&path);
    audit.append(numbered(1)).unwrap();
    let good = fs::read(&path).unwrap();
    fs::write(&ballast, vec![0; 52 << 10]).unwrap();
    // Longer than the page that is left: a part of it is written.
    let long = || Entry { details: vec!["x".repeat(500); 40], ..numbered(2) };
    for _ in 0..3 {
        let full = audit.append(long()).unwrap_err().to_string();
        assert_eq!(full, "could not write the audit log: No space left on device (os error 28)");
        assert_eq!(fs::read(&path).unwrap(), good, "no half of a line stays");
    }
    fs::remove_file(ballast).unwrap();
    assert_eq!(audit.append(long()).unwrap().seq, 2);
    has_entries(&path, 2);
}

#[test]
fn a_read_only_disk_is_told() {
    let name = "audit_file::a_read_only_disk_is_told";
    let setup = "mount -t tmpfs none \"$folder\" && touch \"$folder/old\" && mount -o remount,ro \"$folder\"";
    let Some(folder) = again_after(name, setup) else { return };
    for file in ["old", "new"] {
        let refused = refused(&folder.join(file)).to_string();
        assert_eq!(refused, "could not open the audit log: Read-only file system (os error 30)");
    }
}

#[test]
fn a_limit_on_the_size_of_files_costs_the_entry_and_not_the_node() {
    let name = "audit_file::a_limit_on_the_size_of_files_costs_the_entry_and_not_the_node";
    let Some(folder) = again_after(name, "ulimit -f 2") else { return };
    let path = folder.join("audit.jsonl");
    let mut audit = open(&path);
    // Past the limit, the kernel would end this process with SIGXFSZ.
    let (number, refused) =
        (1..).find_map(|number| Some((number, audit.append(numbered(number)).err()?))).unwrap();
    assert!(matches!(refused, AuditError::FileLimit { bytes, limit } if bytes > limit), "{refused}");
    has_entries(&path, number as u64 - 1);
}
