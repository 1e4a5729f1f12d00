//! Builds the programs that the suite carries inside itself: the product's launcher, the hostile worker, and the
//! launcher that leaves layers out. Static, as `node/build.rs` builds the product's, so that the suite needs no cargo
//! and no file when it runs.

use std::env;
use std::path::PathBuf;

#[path = "../../sandboxed/images.rs"]
mod images;

const PROGRAMS: [(&str, &str); 3] = [
    ("bulkhead-launcher", "LAUNCHER_IMAGE"),
    ("hostile-worker", "HOSTILE_WORKER_IMAGE"),
    ("open-launcher", "OPEN_LAUNCHER_IMAGE"),
];
const SOURCES: [&str; 4] = ["Cargo.lock", "sandboxed/os", "sandboxed/launcher", "tests/attack-suite/hostile"];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = root.ancestors().nth(2).expect("tests/attack-suite lies two levels deep").to_path_buf();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    // A directory beside the node's: both builds leave a launcher, and one must not replace it while the other's
    // is being read.
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = out.ancestors().nth(4).expect("OUT_DIR is five levels deep").join("images-of-attacks");
    let cargo = env::var_os("CARGO").expect("cargo sets it");
    let built =
        images::build(cargo, &root, &target, &["--package", "sandbox-launcher", "--package", "hostile"]);
    for (program, variable) in PROGRAMS {
        let image = built.join(program);
        assert!(image.is_file(), "the nested build left no {}", image.display());
        println!("cargo::rustc-env={variable}={}", image.display());
    }
}
