//! Builds the programs that `bulkhead` carries inside itself: the worker, the launcher and the compiler.
//!
//! A nested cargo, because a workspace member built plainly would be unified with the node's features, and
//! the worker must link no compiler; two, because it would be unified with the compiler's as well. Static, so that
//! they need no file at exec (design decision 1).

use std::env;
use std::path::PathBuf;

#[path = "../sandboxed/images.rs"]
mod images;

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
        let packages: Vec<&str> = programs.iter().flat_map(|(package, ..)| ["--package", package]).collect();
        let built = images::build(env::var_os("CARGO").expect("cargo sets it"), &root, &target, &packages);
        for (_, program, variable) in programs {
            let image = built.join(program);
            assert!(image.is_file(), "the nested build left no {}", image.display());
            println!("cargo::rustc-env={variable}={}", image.display());
        }
    }
}
