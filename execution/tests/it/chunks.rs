//! The chunk store, and installs out of it.

use execution::{ErrorCode, Principal, UserError};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, ChunkHash, InstallChunkedCodeArgs, UploadChunkArgs,
};
use sha2::{Digest as _, Sha256};

use crate::scripted::{ANONYMOUS, BALANCE, Bench, Mode, NOTHING, Op, id_arg};

fn upload(bench: &mut Bench, canister_id: Principal, chunk: &[u8]) -> Result<ChunkHash, UserError> {
    bench.managed("upload_chunk", &UploadChunkArgs { canister_id, chunk: chunk.to_vec() })
}

fn stored(bench: &mut Bench, canister_id: Principal) -> Vec<ChunkHash> {
    bench.managed("stored_chunks", &CanisterIdRecord { canister_id }).unwrap()
}

fn hash(bytes: &[u8]) -> ChunkHash {
    ChunkHash { hash: Sha256::digest(bytes).to_vec() }
}

/// An install of the module `text` in `target` out of the store of `store`.
fn chunked(
    target: Principal,
    store: Option<Principal>,
    chunks: &[&[u8]],
    text: &[u8],
) -> InstallChunkedCodeArgs {
    InstallChunkedCodeArgs {
        mode: CanisterInstallMode::Install,
        target_canister: target,
        store_canister: store,
        chunk_hashes_list: chunks.iter().map(|chunk| hash(chunk)).collect(),
        wasm_module_hash: Sha256::digest(text).to_vec(),
        arg: NOTHING.to_be_bytes().to_vec(),
        sender_canister_version: None,
    }
}

fn install(bench: &mut Bench, arg: &InstallChunkedCodeArgs) -> Result<Vec<u8>, UserError> {
    bench.manage("install_chunked_code", &candid::encode_one(arg).unwrap())
}

#[test]
fn chunks_are_named_by_their_hash_kept_once_and_charged_as_full_ones() {
    let mut bench = Bench::new();
    let a = bench.empty_canister();
    let empty = bench.state(a).memory_bytes();
    assert_eq!(upload(&mut bench, a, b"one").unwrap(), hash(b"one"));
    let paid = BALANCE - bench.state(a).balance;
    assert!(
        (206_200_000..206_400_000).contains(&paid),
        "{paid}: 5 M, 200 M instructions and the ingress fee"
    );
    assert_eq!(upload(&mut bench, a, b"one").unwrap(), hash(b"one"));
    assert!(BALANCE - bench.state(a).balance < paid + 1_400_000, "what is there costs the ingress fee only");
    assert_eq!(upload(&mut bench, a, b"two").unwrap(), hash(b"two"));
    assert_eq!(bench.state(a).memory_bytes() - empty, 2 << 20);
    let mut both = [hash(b"one"), hash(b"two")];
    both.sort();
    assert_eq!(stored(&mut bench, a), both);
    bench.manage("clear_chunk_store", &id_arg(a)).unwrap();
    assert_eq!(stored(&mut bench, a), []);
    assert_eq!(bench.state(a).memory_bytes(), empty);
}

#[test]
fn a_chunk_has_a_mebibyte_at_most_and_a_store_100_of_them() {
    let mut bench = Bench::new();
    let a = bench.empty_canister();
    let error = upload(&mut bench, a, &vec![7; (1 << 20) + 1]).unwrap_err();
    assert_eq!(error.code, ErrorCode::CONTRACT_VIOLATION);
    upload(&mut bench, a, &vec![7; 1 << 20]).unwrap();
    for n in 1..100_u8 {
        upload(&mut bench, a, &[n]).unwrap();
    }
    assert_eq!(upload(&mut bench, a, b"too many").unwrap_err().code, ErrorCode::CONTRACT_VIOLATION);
    upload(&mut bench, a, &[1]).unwrap();
    assert_eq!(stored(&mut bench, a).len(), 100);
}

#[test]
fn a_store_is_open_to_controllers_and_to_the_canister_itself() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let arg =
        |canister_id| candid::encode_one(UploadChunkArgs { canister_id, chunk: b"mine".to_vec() }).unwrap();
    assert!(bench.manage_as(a, "upload_chunk", arg(a)).starts_with(b"DIDL"));
    assert!(bench.manage_as(a, "stored_chunks", id_arg(a)).starts_with(b"DIDL"));
    assert!(bench.manage_as(b, "upload_chunk", arg(a)).starts_with(b"5 IC0512"));
    assert!(bench.manage_as(b, "clear_chunk_store", id_arg(a)).starts_with(b"5 IC0512"));
    assert!(bench.manage_as(b, "stored_chunks", id_arg(a)).starts_with(b"5 IC0512"));
    assert_eq!(bench.state(a).chunks.chunks.len(), 1);
}

#[test]
fn chunks_make_a_module_that_installs_as_one_upload_does() {
    let mut bench = Bench::new();
    let (store, a, b) = (bench.empty_canister(), bench.empty_canister(), bench.empty_canister());
    let parts: [&[u8]; 3] = [b"persistent ", b"v", b"1"];
    for part in parts {
        upload(&mut bench, store, part).unwrap();
    }
    install(&mut bench, &chunked(a, Some(store), &parts, b"persistent v1")).unwrap();
    bench.install(b, Mode::Install, "persistent v1", NOTHING).unwrap();
    assert_eq!(bench.state(a).module().unwrap().hash, bench.state(b).module().unwrap().hash);
    let whole = BALANCE - bench.state(b).balance;
    let assembled = BALANCE - bench.state(a).balance;
    // One instruction for each byte of three full chunks, and the bytes of the ingress messages.
    assert!((3 << 20..(3 << 20) + 1_000_000).contains(&(assembled - whole)), "{}", assembled - whole);
}

#[test]
fn a_wrong_hash_a_missing_chunk_or_no_right_installs_nothing() {
    let mut bench = Bench::new();
    let (a, b) = (bench.empty_canister(), bench.canister(""));
    upload(&mut bench, a, b"v1").unwrap();
    let refused = |bench: &mut Bench, arg: &InstallChunkedCodeArgs| install(bench, arg).unwrap_err().code;
    assert_eq!(refused(&mut bench, &chunked(a, None, &[b"v1"], b"v2")), ErrorCode::CONTRACT_VIOLATION);
    assert_eq!(refused(&mut bench, &chunked(a, None, &[b"v2"], b"v2")), ErrorCode::CONTRACT_VIOLATION);
    let short = InstallChunkedCodeArgs {
        chunk_hashes_list: vec![ChunkHash { hash: vec![1; 31] }],
        ..chunked(a, None, &[], b"")
    };
    assert_eq!(refused(&mut bench, &short), ErrorCode::CONTRACT_VIOLATION);
    let nowhere = chunked(a, Some(Principal::from_slice(&[9])), &[b"v1"], b"v1");
    assert_eq!(refused(&mut bench, &nowhere), ErrorCode::CONTRACT_VIOLATION);
    let ghost = chunked(Principal::from_slice(&[9]), Some(a), &[b"v1"], b"v1");
    assert_eq!(refused(&mut bench, &ghost), ErrorCode::CANISTER_NOT_FOUND);

    // b controls a, not the store.
    let store = bench.empty_canister();
    upload(&mut bench, store, b"v1").unwrap();
    bench.control(a, &[b]);
    let arg = candid::encode_one(chunked(a, Some(store), &[b"v1"], b"v1")).unwrap();
    assert!(bench.manage_as(b, "install_chunked_code", arg.clone()).starts_with(b"5 IC0512"));
    assert!(bench.state(a).code.is_none());
    bench.control(store, &[b]);
    assert_eq!(bench.manage_as(b, "install_chunked_code", arg), b"DIDL\0\0");
    assert!(bench.state(a).code.is_some());
}

#[test]
fn a_list_that_names_a_chunk_over_and_over_is_refused_before_it_takes_memory() {
    let mut bench = Bench::new();
    let a = bench.empty_canister();
    let large = vec![7; 1 << 20];
    upload(&mut bench, a, &large).unwrap();
    upload(&mut bench, a, b"").unwrap();
    for chunk in [hash(&large), hash(b"")] {
        let chunk_hashes_list = vec![chunk; 1_000];
        let arg = InstallChunkedCodeArgs { chunk_hashes_list, ..chunked(a, None, &[], b"") };
        assert_eq!(install(&mut bench, &arg).unwrap_err().code, ErrorCode::CONTRACT_VIOLATION);
    }
}

#[test]
fn uninstalling_clears_the_store_and_deploying_does_not() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    upload(&mut bench, a, b"kept").unwrap();
    bench.install(a, Mode::Upgrade(None), "v2", NOTHING).unwrap();
    bench.install(a, Mode::Reinstall, "v3", NOTHING).unwrap();
    assert_eq!(bench.state(a).chunks.chunks.len(), 1);
    bench.manage("uninstall_code", &id_arg(a)).unwrap();
    assert!(bench.state(a).chunks.chunks.is_empty());
}

#[test]
fn a_canister_that_cannot_pay_for_a_chunk_gets_none() {
    let mut bench = Bench::new();
    let poor = bench.subnet.create_canister(ANONYMOUS, None, 206_000_000).unwrap();
    let error = upload(&mut bench, poor, b"one").unwrap_err();
    assert_eq!(error.code, ErrorCode::OUT_OF_CYCLES);
    // Enough for the method, not for keeping a mebibyte above the freezing limit.
    let poor = bench.subnet.create_canister(ANONYMOUS, None, 400_000_000).unwrap();
    let error = upload(&mut bench, poor, b"one").unwrap_err();
    assert_eq!(error.code, ErrorCode::CYCLES_MEMORY_GROW);
    assert!(bench.state(poor).chunks.chunks.is_empty());
    let rich = bench.canister("");
    bench.run(rich, [Op::Reply(vec![])]).unwrap();
    upload(&mut bench, rich, b"one").unwrap();
}

#[test]
fn putting_chunks_together_is_paid_before_and_stays_paid_when_they_make_another_module() {
    let mut bench = Bench::new();
    let (store, a) = (bench.empty_canister(), bench.empty_canister());
    upload(&mut bench, store, b"v1").unwrap();
    let paid = |bench: &mut Bench, text: &[u8]| {
        let before = bench.state(a).balance;
        let error = install(bench, &chunked(a, Some(store), &[text], b"v2")).unwrap_err();
        assert_eq!(error.code, ErrorCode::CONTRACT_VIOLATION);
        before - bench.state(a).balance
    };
    let (missing, other) = (paid(&mut bench, b"v2"), paid(&mut bench, b"v1"));
    assert_eq!(other - missing, 1 << 20, "an instruction for each byte of a full chunk");

    let poor = bench.subnet.create_canister(ANONYMOUS, None, 2_500_000).unwrap();
    let error = install(&mut bench, &chunked(poor, Some(store), &[b"v1"], b"v2")).unwrap_err();
    assert_eq!(error.code, ErrorCode::OUT_OF_CYCLES);
    assert!(bench.state(poor).balance < 2_500_000, "it could pay for the message");
}

#[test]
fn rights_and_mode_are_checked_before_the_chunks_are() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    upload(&mut bench, a, b"v1").unwrap();
    let arg = chunked(a, None, &[b"v1"], b"v2");
    assert_eq!(install(&mut bench, &arg).unwrap_err().code, ErrorCode::NON_EMPTY);
    let empty = bench.empty_canister();
    let arg = InstallChunkedCodeArgs {
        mode: CanisterInstallMode::Upgrade(None),
        ..chunked(empty, Some(a), &[], b"")
    };
    assert_eq!(install(&mut bench, &arg).unwrap_err().code, ErrorCode::NO_WASM_MODULE);
}

#[test]
fn hashes_of_any_length_and_lists_of_any_length_make_short_errors() {
    let mut bench = Bench::new();
    let a = bench.empty_canister();
    upload(&mut bench, a, b"v1").unwrap();
    let long = ChunkHash { hash: vec![1; 10_000] };
    for arg in [
        InstallChunkedCodeArgs { chunk_hashes_list: vec![long.clone()], ..chunked(a, None, &[], b"") },
        InstallChunkedCodeArgs { wasm_module_hash: long.hash, ..chunked(a, None, &[b"v1"], b"") },
    ] {
        let error = install(&mut bench, &arg).unwrap_err();
        assert!(error.description.contains("hash of 10000 bytes, not 32"), "{error}");
    }
    let chunk_hashes_list = vec![hash(b"v1"); 1_001];
    let arg = InstallChunkedCodeArgs { chunk_hashes_list, ..chunked(a, None, &[], b"") };
    let a = bench.canister("");
    let arg = candid::encode_one(InstallChunkedCodeArgs { target_canister: a, ..arg }).unwrap();
    let reject = String::from_utf8(bench.manage_as(a, "install_chunked_code", arg)).unwrap();
    assert!(reject.contains("IC0408") && reject.contains("a list of more than 1000 items"), "{reject}");
}
