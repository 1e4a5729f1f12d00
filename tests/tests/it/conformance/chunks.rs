//! The chunk store (section 5, level 2).

use ic_management_canister_types::{CanisterInstallMode, ChunkHash, InstallChunkedCodeArgs, UploadChunkArgs};
use sha2::{Digest as _, Sha256};

use super::check::{Check, Code, Ids, Step, check, manage, on_canister, pass, query, stranger};
use super::management;
use super::prelude::PASS;

const OK: &[u8] = b"DIDL\0\0";
const BODY: &str = r#"(query "hi" (call $say (lit "here")))"#;

fn hash(bytes: &[u8]) -> ChunkHash {
    ChunkHash { hash: Sha256::digest(bytes).to_vec() }
}

/// The module of [`BODY`] in three pieces.
fn pieces(ids: &Ids) -> Vec<Vec<u8>> {
    let module = Code::Body(BODY.to_owned()).bytes(ids);
    module.chunks(module.len().div_ceil(3)).map(<[u8]>::to_vec).collect()
}

fn chunk(canister: usize, chunk: impl Fn(&Ids) -> Vec<u8> + 'static) -> Step {
    manage("upload_chunk", move |ids| {
        let arg = UploadChunkArgs { canister_id: ids[canister], chunk: chunk(ids) };
        candid::encode_one(arg).expect("an argument encodes")
    })
}

fn piece(canister: usize, n: usize) -> Step {
    chunk(canister, move |ids| pieces(ids).swap_remove(n))
}

/// Installs canister 1 out of the store of canister 0, with the hash of what `module` makes of the pieces.
fn install(ids: &Ids, module: fn(&[Vec<u8>]) -> Vec<u8>) -> Vec<u8> {
    let pieces = pieces(ids);
    let arg = InstallChunkedCodeArgs {
        mode: CanisterInstallMode::Install,
        target_canister: ids[1],
        store_canister: Some(ids[0]),
        chunk_hashes_list: pieces.iter().map(|piece| hash(piece)).collect(),
        wasm_module_hash: hash(&module(&pieces)).hash,
        arg: Vec::new(),
        sender_canister_version: None,
    };
    candid::encode_one(arg).expect("an argument encodes")
}

fn whole(pieces: &[Vec<u8>]) -> Vec<u8> {
    pieces.concat()
}

fn stored(reply: &[u8]) -> String {
    candid::decode_one::<Vec<ChunkHash>>(reply)
        .map_or_else(|error| error.to_string(), |list| list.len().to_string())
}

pub(super) fn checks() -> Vec<Check> {
    let other = |pieces: &[Vec<u8>]| pieces[..2].concat();
    vec![
        check(
            "L24",
            [PASS, ""],
            [
                piece(0, 0).replies_with("DIDL"),
                piece(0, 2).replies_with("DIDL"),
                manage("install_chunked_code", |ids| install(ids, whole)).error("IC0504", "not in the store"),
                piece(0, 1).replies_with("DIDL"),
                manage("install_chunked_code", move |ids| install(ids, other)).error("IC0504", "hash"),
                query("hi").on(1).error("IC0537", ""),
                manage("install_chunked_code", |ids| install(ids, whole)).from(stranger()).refused("IC0512"),
                manage("install_chunked_code", |ids| install(ids, whole)).reply(OK),
                query("hi").on(1).reply("here"),
                manage("install_chunked_code", |ids| install(ids, whole)).error("IC0514", ""),
            ],
        ),
        check(
            "G chunk limits",
            [PASS],
            [
                chunk(0, |_| vec![0; (1 << 20) + 1]).error("IC0504", "1048577 bytes"),
                chunk(0, |_| vec![0; 1 << 20]).replies_with("DIDL"),
                on_canister("stored_chunks", 0).reads(stored, 1),
                on_canister("stored_chunks", 0).from(stranger()).refused("IC0512"),
                // By the canister itself.
                pass(None, "stored_chunks", 0, |ids| management::canister(ids[0])).reads(stored, 1),
                on_canister("clear_chunk_store", 0).reply(OK),
                on_canister("stored_chunks", 0).reads(stored, 0),
            ],
        ),
        check(
            "G full store",
            [""],
            (0..100_u8)
                .map(|n| chunk(0, move |_| vec![n]).replies_with("DIDL"))
                .chain([
                    chunk(0, |_| vec![100]).error("IC0504", "100 chunks"),
                    chunk(0, |_| vec![99]).replies_with("DIDL"),
                    on_canister("uninstall_code", 0).reply(OK),
                    on_canister("stored_chunks", 0).reads(stored, 0),
                ])
                .collect::<Vec<_>>(),
        ),
    ]
}
