//! How the static programs of the sandbox are built: one way for the node, the attack suite and the tests, which
//! include this file. A nested cargo, because a workspace member built plainly would be unified with its neighbours'
//! features.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only target: seccomp lists, clone3 and the images are for it. Named, it also keeps the flags below away from
/// procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds `what` (arguments of `cargo build`) of the workspace at `root`, and gives the folder that has the programs.
///
/// The panic strategy stays the node's: wasmtime takes the guest's stack limit from its own frame, so programs have to
/// have the same frames for a stack overflow to come at the same depth in both modes (docs/decisions/0002).
///
/// # Panics
/// If cargo fails: its messages say why.
pub(crate) fn build(cargo: impl AsRef<OsStr>, root: &Path, target: &Path, what: &[&str]) -> PathBuf {
    let mut cargo = Command::new(cargo);
    cargo
        .current_dir(root)
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(target)
        .args(what);
    // What the outer build set for itself (clippy's wrapper, flags, coverage) is not meant for the images.
    for inherited in ["RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(inherited);
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "building {what:?} failed; see the messages above");
    target.join(TARGET).join("release")
}
