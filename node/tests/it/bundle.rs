//! Differences that shadow finds are kept, and seen again from what was kept.

use std::collections::BTreeSet;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_node::bundle::replay::Replayed;
use bulkhead_node::bundle::{Bundle, BundleError};
use bulkhead_node::drun::InstallMode;
use bulkhead_node::node::on_executor_stack;
use bulkhead_node::{Node, NodeOptions, Preset, management};
use execution::memory::PAGE_BYTES;
use execution::{Backend, BackendError, EntryPoint, Execution, Invocation, Outcome, Principal, Snapshot};
use flate2::Compression;
use flate2::write::GzEncoder;
use in_process::InProcess;
use rollout::Mode;

use crate::driver::Driver;
use crate::program::{bulkhead, run};
use crate::recorded;
use crate::wrong::{MakeWrong, Wrong, right};

/// Writes in a composite query, calls itself, and answers in the callback with what it wrote.
const COMPOSITE: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "canister_self_size" (func $self_size (result i32)))
  (import "ic0" "canister_self_copy" (func $self_copy (param i32 i32 i32)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_perform" (func $call (result i32)))
  (memory 1)
  (table funcref (elem $answer))
  (data (i32.const 64) "get")
  (func $value (call $append (i32.const 0) (i32.const 1)) (call $reply))
  (func $answer (param i32) (call $value))
  (func (export "canister_query get") (call $value))
  (func (export "canister_composite_query ask")
    (i32.store8 (i32.const 0) (i32.const 7))
    (call $self_copy (i32.const 256) (i32.const 0) (call $self_size))
    (call $call_new (i32.const 256) (call $self_size) (i32.const 64) (i32.const 3)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (drop (call $call))))"#;

pub(crate) fn one_instruction_off(_: &Snapshot, outcome: &mut Outcome) {
    outcome.instructions += 1;
}

/// One bit of the first heap page that was written, if one was.
fn one_bit_flipped(snapshot: &Snapshot, outcome: &mut Outcome) {
    let pages = outcome.effects.iter_mut().flat_map(|effects| &mut effects.memory.heap);
    for (_, version) in pages.take(1) {
        let mut page: [u8; PAGE_BYTES] = *version.bytes();
        page[4_000] ^= 4;
        *version = snapshot.arena.store(&page).unwrap();
    }
}

/// A node in shadow whose sandbox is wrong has run a canister that does something of everything. Gives what was found:
/// kind, method and bundle of each.
pub(crate) struct Found {
    node: Node,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) records: Vec<(&'static str, Option<String>, Result<PathBuf, String>)>,
}

impl Found {
    pub(crate) fn bundles(&self) -> impl Iterator<Item = (&'static str, Option<&str>, &Path)> {
        self.records.iter().map(|(kind, method, bundle)| {
            (*kind, method.as_deref(), bundle.as_ref().expect("there is room").as_path())
        })
    }
}

pub(crate) fn found(make_wrong: MakeWrong) -> Found {
    found_in(tempfile::tempdir().unwrap(), make_wrong)
}

fn found_in(directory: tempfile::TempDir, make_wrong: MakeWrong) -> Found {
    let node = Node::new(NodeOptions::fixed(Mode::InProcess, Preset::Application)).unwrap();
    let wrong = Arc::new(Wrong::in_everything(&node, make_wrong));
    let shadow = node.twin_on(Mode::Shadow, wrong, Some(directory.path().to_owned())).unwrap();
    let records = on_executor_stack(|| {
        let mut driver = Driver::new(shadow);
        let user = Principal::anonymous();
        let canister = driver.node.create_canister(user, 1_000_000_000_000_000).unwrap();
        recorded::play(&mut driver, canister);
        let composite = driver.node.create_canister(user, 1_000_000_000_000_000).unwrap();
        let wasm = wat::parse_str(COMPOSITE).unwrap();
        let install = management::install_code(InstallMode::Install, composite, &wasm, b"", false);
        let installed = driver.send(Principal::management_canister(), "install_code", &install, 1);
        driver.answer(&installed);
        assert_eq!(*driver.node.query(user, composite, "ask", b"").result.unwrap(), [7]);
        assert!(driver.node.settle_shadow(Duration::from_secs(60)));
        let records = driver.node.divergences().into_iter();
        records
            .map(|record| {
                let bundle = record.bundle.expect("somebody keeps it").map(PathBuf::from);
                (record.first.kind, record.first.method, bundle)
            })
            .collect()
    });
    Found { node, directory, records }
}

#[test]
fn every_kind_of_execution_that_differs_is_kept_and_differs_again_in_every_run() {
    // A flipped bit shows only where a page is kept.
    let kinds = [
        (one_instruction_off as MakeWrong, &["init", "query", "reply_callback", "timer", "update"][..]),
        (one_bit_flipped, &["timer", "update"]),
    ];
    for (make_wrong, expected) in kinds {
        let found = found(make_wrong);
        let node = &found.node;
        let (right, wrong) = (right(node), Wrong::in_everything(node, make_wrong));
        let (mut kinds, mut overlays) = (BTreeSet::new(), 0);
        for (kind, method, path) in found.bundles() {
            kinds.insert(kind);
            let what = format!("{kind} {method:?} {}", path.display());
            let bundle = Bundle::open(path).unwrap();
            let entry = &bundle.invocation.entry;
            overlays += u32::from(matches!(entry, EntryPoint::Reply { composite: true, .. }));
            assert_eq!((entry.kind(), entry.method()), (kind, method));
            assert_eq!((bundle.node.as_str(), bundle.class.as_str()), ("-", "confirmed"));
            let module = node.compile(&bundle.wasm).unwrap().unwrap();
            bundle.fits(&module).unwrap();
            let replayed = Replayed::new(&bundle, &module, [&right, &wrong], 3).unwrap();
            assert!(replayed.is_reproduced(), "{what}: {replayed:?}");
            assert_eq!((replayed.as_recorded, replayed.different), ([3, 3], 3), "{what}");
            let fields: Vec<_> = replayed.differences.iter().map(|one| one.field.as_str()).collect();
            assert_eq!(fields, bundle.differences.iter().map(|one| &one[0]).collect::<Vec<_>>(), "{what}");
            // And where the fault is mended it is gone, while the control gives what it gave.
            let mended = Replayed::new(&bundle, &module, [&right, &right], 3).unwrap();
            assert!(!mended.is_reproduced(), "{what}");
            assert_eq!(mended.as_recorded, [3, 0], "{what}");
        }
        let missing: Vec<_> = expected.iter().filter(|kind| !kinds.contains(**kind)).collect();
        assert!(missing.is_empty(), "{missing:?} not in {kinds:?}");
        if expected.contains(&"reply_callback") {
            assert_eq!(overlays, 1, "one callback ran on what its composite query had written");
        }
    }
}

#[test]
fn a_difference_that_can_not_be_kept_is_told_all_the_same_and_why() {
    let full = tempfile::tempdir().unwrap();
    std::fs::create_dir(full.path().join("divergences")).unwrap();
    for number in 0..200 {
        std::fs::write(full.path().join(format!("divergences/{number}.bundle")), "").unwrap();
    }
    let in_the_way = tempfile::tempdir().unwrap();
    std::fs::write(in_the_way.path().join("divergences"), "").unwrap();
    let no_module = tempfile::tempdir().unwrap();
    std::fs::write(no_module.path().join("modules"), "").unwrap();
    for (directory, said) in [
        (full, "divergences is full: it has 200 files with 0 bytes, of 200 and "),
        (in_the_way, "divergences: "),
        (no_module, "its module: "),
    ] {
        let found = found_in(directory, one_instruction_off);
        assert!(found.records.len() > 10, "{}", found.records.len());
        for (_, _, bundle) in found.records {
            let why = bundle.unwrap_err();
            assert!(why.contains(said), "{said} is not in {why}");
        }
    }
}

#[test]
fn a_bundle_that_can_not_be_read_any_more_is_made_anew_and_one_that_can_is_left() {
    let first = found(one_instruction_off);
    let paths: BTreeSet<PathBuf> = first.bundles().map(|(.., path)| path.to_owned()).collect();
    let (broken, whole) = (paths.first().unwrap(), paths.last().unwrap());
    assert_ne!(broken, whole);
    let before = std::fs::read(whole).unwrap();
    std::fs::write(broken, "what is left of it").unwrap();
    let _second = found_in(first.directory, one_instruction_off);
    Bundle::open(broken).unwrap();
    // With the time when it was found first.
    assert_eq!(std::fs::read(whole).unwrap(), before);
}

#[test]
fn a_control_that_differs_from_itself_is_told_from_modes_that_differ() {
    let found = found(one_instruction_off);
    let node = &found.node;
    let bundle = Bundle::open(found.bundles().next().unwrap().2).unwrap();
    let module = node.compile(&bundle.wasm).unwrap().unwrap();
    let runs = std::sync::atomic::AtomicU64::new(0);
    /// Other instructions in each run, the same on both sides of a pair.
    struct Unstable<'a>(InProcess, &'a std::sync::atomic::AtomicU64);
    impl Backend for Unstable<'_> {
        fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
            let execution = self.0.execute(snapshot, invocation)?;
            let Execution::Finished(mut outcome) = execution else { panic!("it is short") };
            outcome.instructions += self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) / 2;
            Ok(Execution::Finished(outcome))
        }
        fn query(&self, _: &Snapshot, _: &Invocation, _: Option<&Snapshot>) -> Result<Outcome, BackendError> {
            panic!("the first record is an execution")
        }
    }
    let backend = Unstable(right(node), &runs);
    let replayed = Replayed::new(&bundle, &module, [&backend, &backend], 3).unwrap();
    assert_eq!((replayed.different, replayed.control_unstable), (0, 2));
    assert!(replayed.is_reproduced());
}

#[test]
fn the_program_runs_a_bundle_and_says_whether_the_modes_differ() {
    let found = found(one_bit_flipped);
    let (kind, method, path) = found.bundles().find(|(kind, ..)| *kind == "update").unwrap();
    let (method, path) = (method.unwrap(), path.to_str().unwrap());
    let ran = run(bulkhead().args(["divergences", "replay", path, "--runs", "2"]));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    for said in [
        format!("{path}: confirmed, found by node - at 20"),
        format!("\n{kind} `{method}` of canister "),
        "\nrecorded\n  heap: in-process page 0 byte 4000 = 0x00, sandboxed page 0 byte 4000 = 0x04\n"
            .to_owned(),
        "\n  in-process  2 of 2 gave what was recorded\n  sandboxed   0 of 2 gave what was recorded\n"
            .to_owned(),
        "NOT REPRODUCED: the modes agree in all 2 runs\n".to_owned(),
    ] {
        assert!(ran.stdout.contains(&said), "{said} is not in {}", ran.stdout);
    }
    let ran = run(bulkhead().args(["divergences", "replay", path, "--json"]));
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&json["reproduced"], &json["runs"]), (&false.into(), &3.into()), "{json}");

    let other = found.directory.path().join("other");
    std::fs::write(&other, "what else").unwrap();
    let missing = found.directory.path().join("missing");
    for (path, said) in
        [(&other, "it is no bundle of a difference"), (&missing, "could not read it: No such file")]
    {
        let ran = run(bulkhead().args(["divergences", "replay", path.to_str().unwrap()]));
        assert_eq!(ran.code, Some(3), "{}", ran.stdout);
        assert!(ran.stderr.starts_with(&format!("undecided: {}: {said}", path.display())), "{}", ran.stderr);
    }
}

fn unpacked(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut plain)?;
    Ok(plain)
}

#[test]
fn whatever_is_done_to_a_bundle_it_is_read_whole_or_refused() {
    let found = found(one_instruction_off);
    let node = &found.node;
    let bytes = std::fs::read(found.bundles().next().unwrap().2).unwrap();
    let read = |bytes: &[u8]| Bundle::read(Cursor::new(bytes));
    read(&bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "cut at {length}");
    }
    assert!(matches!(read(&[&bytes[..], &[0]].concat()), Err(BundleError::Damaged(_))));
    let (prefix, packed) = bytes.split_at(12);
    let plain = unpacked(packed).unwrap();
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 0x10;
        // What is packed can be packed in other ways.
        assert!(read(&other).is_err() || unpacked(&other[12..]).unwrap() == plain, "flipped at {at}");
    }
    // The same within what is packed, under a right checksum.
    let mut survived = 0;
    for at in (0..plain.len()).filter(|at| *at < 6_000 || at % 97 == 0) {
        for flip in [0x01, 0x80, 0xff] {
            let mut other = plain.clone();
            other[at] ^= flip;
            let mut packed = GzEncoder::new(prefix.to_vec(), Compression::none());
            packed.write_all(&other).unwrap();
            let Ok(bundle) = read(&packed.finish().unwrap()) else { continue };
            // Whatever it says then is run as what it says, or refused.
            let Ok(Ok(module)) = node.compile(&bundle.wasm) else { continue };
            if flip == 0x01 && bundle.fits(&module).is_ok() {
                survived += 1;
                let (right, again) = (right(node), right(node));
                let _ran = Replayed::new(&bundle, &module, [&right, &again], 1);
            }
        }
    }
    assert!(survived > 100, "much of a bundle may be anything: {survived}");
}
