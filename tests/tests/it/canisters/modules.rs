//! The built modules themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("canisters")
}

#[test]
fn every_module_has_the_checksum_that_was_committed_with_its_source() {
    let sums = fs::read_to_string(folder().join("SHA256SUMS")).expect("the checksums");
    let mut listed = BTreeSet::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").expect("a sum and a name");
        let bytes = fs::read(folder().join(name)).expect("a listed module exists");
        assert_eq!(hex::encode(Sha256::digest(&bytes)), sum, "{name}");
        listed.insert(name.to_owned());
    }
    let mut present = BTreeSet::new();
    for language in ["c", "motoko", "rust"] {
        for entry in fs::read_dir(folder().join(language)).expect("a folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
            if name.ends_with(".wasm") {
                present.insert(format!("{language}/{name}"));
            }
        }
    }
    assert_eq!(listed, present, "SHA256SUMS lists every module and nothing else");
}

#[test]
fn no_module_carries_a_path_of_the_machine_that_built_it() {
    let sums = fs::read_to_string(folder().join("SHA256SUMS")).expect("the checksums");
    for name in sums.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name) {
        let bytes = fs::read(folder().join(name)).expect("a listed module exists");
        for path in ["/home/", "/root/", "/tmp/", "/usr/", "/rustc/", "registry/src"] {
            let found = bytes.windows(path.len()).any(|window| window == path.as_bytes());
            assert!(!found, "{name} holds {path}");
        }
    }
}
