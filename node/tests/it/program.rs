//! Runs the built program.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program, without the test's environment.
pub(crate) fn bulkhead() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// What a run ended with.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    let ran = Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) };
    assert!(!ran.stderr.contains("panicked"), "a panic reached the user: {}", ran.stderr);
    ran
}

/// Runs the program with these arguments in `folder`.
pub(crate) fn run_in(folder: &Path, arguments: &[&str]) -> Ran {
    run(bulkhead().args(arguments).current_dir(folder))
}

/// Writes files into a folder of their own.
pub(crate) fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("a file in it");
    }
    folder
}
