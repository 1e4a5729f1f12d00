//! Builds the programs that `bulkhead` carries inside itself: the worker, the launcher and the compiler.
//!
//! A nested cargo, because a workspace member built plainly would be unified with the node's features, and
//! the worker must link no compiler; two, because it would be unified with the compiler's as well. Static, so that
//! they need no file at exec (design decision 1).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only target: seccomp lists, clone3 and the worker's image are for it.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// A program: its package, the file that the build leaves, and the variable that names it to the crate.
type Program = (&'static str, &'static str, &'static str);
/// Those that are built together.
const BUILDS: [&[Program]; 2] = [
    &[
        ("sandbox-worker", "sandbox-worker", "WORKER_IMAGE"),
        ("sandbox-launcher", "bulkhead-launcher", "LAUNCHER_IMAGE"),
    ],
    &[("sandbox-compiler", "sandbox-compiler", "COMPILER_IMAGE")],
];
/// What goes into them.
const SOURCES: [&str; 8] = [
    "Cargo.lock",
    "execution",
    "in-process",
    "sandboxed/os",
    "sandboxed/protocol",
    "sandboxed/worker",
    "sandboxed/compiler",
    "sandboxed/launcher",
];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .parent()
        .expect("node/ lies in the workspace root")
        .to_path_buf();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    // OUT_DIR is <target>/<profile>/build/<package>/out. A directory of its own: the outer cargo holds the
    // lock of the other.
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = out.ancestors().nth(4).expect("OUT_DIR is five levels deep").join("images");
    for programs in BUILDS {
        build(&root, &target, programs);
        for (_, program, variable) in programs {
            let image = target.join(TARGET).join("release").join(program);
            assert!(image.is_file(), "the nested build left no {}", image.display());
            println!("cargo::rustc-env={variable}={}", image.display());
        }
    }
}

fn build(root: &Path, target: &Path, programs: &[Program]) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(root)
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(target);
    for (package, ..) in programs {
        cargo.args(["--package", package]);
    }
    // What the outer build set for itself (clippy's wrapper, flags, coverage) is not meant for the images.
    for inherited in ["RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(inherited);
    }
    // The explicit target keeps these flags away from procedural macros. The panic strategy stays the node's:
    // wasmtime takes the guest's stack limit from its own frame, so both programs have to have the same
    // frames for a stack overflow to come at the same depth in both modes (docs/decisions/0002).
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "building the images failed; see the messages above");
}
