//! The structure of the workspace is a promise (`ARCHITECTURE.md`): these tests fail on any other edge.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Each package and the packages of the workspace that it may depend on (not counting tests).
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("execution-memory", &[]),
    ("execution", &["execution-memory"]),
    ("in-process", &["execution", "execution-memory"]),
    ("sandbox-protocol", &["execution", "execution-memory"]),
    ("sandbox-os", &["execution-memory"]),
    ("sandbox-launcher", &["sandbox-os"]),
    ("sandbox-host", &["execution", "execution-memory", "sandbox-os", "sandbox-protocol"]),
    ("sandbox-worker", &["execution", "execution-memory", "in-process", "sandbox-os", "sandbox-protocol"]),
    ("sandbox-compiler", &["execution", "execution-memory", "in-process", "sandbox-os", "sandbox-protocol"]),
    ("rollout", &["execution", "execution-memory"]),
    // The protocol for one thing: the code cache keeps what a compiler said in the compiler's encoding.
    (
        "node",
        &[
            "execution",
            "execution-memory",
            "in-process",
            "rollout",
            "sandbox-host",
            "sandbox-os",
            "sandbox-protocol",
        ],
    ),
];

/// Packages that may ask for in-process's `compile` feature: the worker links no compiler.
const MAY_COMPILE: &[&str] = &["node", "sandbox-compiler", "tests", "attack-suite", "perf"];

/// Crates without any `unsafe`.
const FORBID_UNSAFE: &[&str] = &[
    "execution/src/lib.rs",
    "sandboxed/protocol/src/lib.rs",
    "sandboxed/host/src/lib.rs",
    "sandboxed/launcher/src/main.rs",
    "sandboxed/worker/src/main.rs",
    "sandboxed/compiler/src/main.rs",
    "rollout/src/lib.rs",
    "node/src/lib.rs",
    "node/src/main.rs",
];

/// Lines above which a file has lost its reader.
const FILE_LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned(), "--locked".to_owned()])
        .exec()
        .expect("cargo metadata works in a checkout")
}

#[test]
fn every_dependency_between_packages_is_an_arrow_of_the_design() {
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(name, _)| *name == package.name.as_str()) else {
            let known = ["tests", "attack-suite", "hostile", "perf"].contains(&package.name.as_str());
            assert!(known, "{} is a new package: give it its arrows in MAY_DEPEND_ON", package.name);
            continue;
        };
        for dependency in &package.dependencies {
            let normal = dependency.kind == DependencyKind::Normal;
            if normal
                && members.contains(dependency.name.as_str())
                && !allowed.contains(&dependency.name.as_str())
            {
                wrong.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the design doesn't have: {wrong:?}");
}

/// Packages that ask for a feature of another one.
fn asking(dependency: &str, feature: &str) -> Vec<String> {
    metadata()
        .packages
        .iter()
        .flat_map(|package| package.dependencies.iter().map(move |asked| (package, asked)))
        .filter(|(_, asked)| {
            asked.name == dependency
                && asked.kind == DependencyKind::Normal
                && asked.features.iter().any(|known| known == feature)
        })
        .map(|(package, _)| package.name.to_string())
        .collect()
}

#[test]
fn only_the_compiler_and_the_node_ask_for_code_generation() {
    let asking = asking("in-process", "compile");
    let others: Vec<&String> = asking.iter().filter(|name| !MAY_COMPILE.contains(&name.as_str())).collect();
    assert!(asking.iter().any(|name| name == "node"), "the node compiles: {asking:?}");
    assert!(others.is_empty(), "{others:?} ask for the compile feature");
}

#[test]
fn no_static_program_has_the_nodes_clock() {
    assert_eq!(asking("sandbox-os", "tsc"), ["sandbox-host", "node", "perf"]);
    for program in ["sandbox-worker", "sandbox-compiler", "sandbox-launcher"] {
        let tree = tree(program);
        for package in ["sandbox-host v", "node v", "perf v"] {
            assert!(!tree.contains(package), "{program} links {package}");
        }
    }
}

/// The crates that a package links.
fn tree(package: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "-p", package])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

#[test]
fn who_talks_to_the_compiler_links_no_parser_and_no_engine() {
    let [node, host, compiler] = ["node", "sandbox-host", "sandbox-compiler"].map(tree);
    for part in ["wasmparser ", "wasmtime ", "cranelift-codegen ", "flate2 "] {
        assert!(node.contains(part) && compiler.contains(part), "the control: {part}");
        assert!(!host.contains(part), "the tree of sandbox-host has {part}");
    }
}

#[test]
fn the_worker_links_no_compiler() {
    assert!(tree("node").contains("cranelift-codegen "), "the control: the node does");
    let worker = tree("sandbox-worker");
    assert!(worker.contains("wasmtime "), "the worker runs code");
    for compiler in ["cranelift-codegen ", "winch-codegen ", "wasmtime-cranelift "] {
        assert!(!worker.contains(compiler), "the worker's tree has {compiler}");
    }
}

#[test]
fn unsafe_code_is_forbidden_where_the_design_says_so() {
    for file in FORBID_UNSAFE {
        let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file} lacks #![forbid(unsafe_code)]");
    }
}

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    let listed = Command::new("git")
        .args(["ls-files", "*.rs"])
        .current_dir(root())
        .output()
        .expect("git lists the sources");
    let files = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    assert!(files.lines().count() > 20, "the sources are listed: {files}");
    let long: Vec<String> = files
        .lines()
        .filter_map(|file| {
            let lines = fs::read_to_string(root().join(file)).ok()?.lines().count();
            (lines > FILE_LINES_MAX).then(|| format!("{file}: {lines} lines"))
        })
        .collect();
    assert!(long.is_empty(), "{long:?}");
}
