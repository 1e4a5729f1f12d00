//! The chunk store, and installing what lies in one.

use std::sync::Arc;

use candid::CandidType;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use crate::management::candid_io::{List, decode, encode};
use crate::management::{Answered, Managed, Management, not_controller, types};
use crate::run::CANDID_EMPTY;
use crate::state::{CHUNK_BYTES_MAX, CHUNKS_MAX, CanisterState, ChunkHash, ChunkStore};
use crate::subnet::{RoundWork, Subnet};
use crate::{ErrorCode, Principal, UserError, text};

/// Bytes of a module that is put together from chunks: no module may be larger.
const MODULE_BYTES_MAX: usize = 100 << 20;

#[derive(CandidType, Deserialize)]
struct Upload {
    canister_id: Principal,
    chunk: ByteBuf,
}

#[derive(CandidType, Deserialize)]
struct Hash {
    hash: ByteBuf,
}

#[derive(CandidType, Deserialize)]
struct InstallChunked {
    mode: types::InstallMode,
    target_canister: Principal,
    store_canister: Option<Principal>,
    chunk_hashes_list: List<Hash>,
    wasm_module_hash: ByteBuf,
    arg: ByteBuf,
    sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize)]
struct Target {
    target_canister: Principal,
}

/// The canister that an `install_chunked_code` is about.
pub(super) fn target(method: &str, arg: &[u8]) -> Result<Principal, UserError> {
    decode::<Target>(method, arg).map(|target| target.target_canister)
}

fn refused(text: String) -> UserError {
    UserError::new(ErrorCode::CONTRACT_VIOLATION, text)
}

fn reply_of(hash: &ChunkHash) -> Hash {
    Hash { hash: ByteBuf::from(hash.to_vec()) }
}

impl Subnet {
    /// The canister whose chunk store `id` names, for its controllers and itself.
    fn store(&self, call: &Management<'_>, id: Principal) -> Result<&CanisterState, UserError> {
        let canister = self.canister(&id).ok_or_else(|| text::not_found(id))?;
        if call.caller() == id || canister.is_controlled_by(&call.caller()) {
            Ok(canister)
        } else {
            Err(not_controller(canister, call.caller()))
        }
    }

    pub(super) fn upload_chunk(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: Upload = decode("upload_chunk", &call.call.arg)?;
        let mut canister = self.store(call, arg.canister_id)?.clone();
        let bytes = arg.chunk.len();
        if bytes > CHUNK_BYTES_MAX {
            return Err(refused(format!(
                "Wasm chunk of {bytes} bytes, at most {CHUNK_BYTES_MAX} bytes allowed"
            )));
        }
        let hash: ChunkHash = Sha256::digest(&arg.chunk).into();
        // What is there already costs nothing more.
        if !canister.chunks.chunks.contains_key(&hash) {
            if canister.chunks.chunks.len() >= CHUNKS_MAX {
                return Err(refused(format!("Wasm chunk store is full: it holds {CHUNKS_MAX} chunks")));
            }
            self.may_write(&canister)?;
            self.charge(&mut canister, self.config.limits.upload_chunk_instructions)?;
            let before = canister.memory_taken();
            canister.chunks.chunks.insert(hash, Arc::from(arg.chunk.into_vec()));
            self.may_hold(&canister, before)?;
            self.note_written(&mut canister, CHUNK_BYTES_MAX as u64);
            self.put(canister);
        }
        Ok(Answered::Now(encode(&reply_of(&hash))?, call.call.cycles))
    }

    pub(super) fn clear_chunk_store(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::CanisterIdRecord = decode("clear_chunk_store", &call.call.arg)?;
        let mut canister = self.store(call, arg.canister_id)?.clone();
        canister.chunks = ChunkStore::default();
        self.put(canister);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }

    pub(super) fn stored_chunks(&self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::CanisterIdRecord = decode("stored_chunks", &call.call.arg)?;
        let canister = self.store(call, arg.canister_id)?;
        let hashes: Vec<Hash> = canister.chunks.chunks.keys().map(reply_of).collect();
        Ok(Answered::Now(encode(&hashes)?, call.call.cycles))
    }

    pub(super) fn install_chunked_code(&mut self, call: &Management<'_>, work: &mut RoundWork) -> Managed {
        match self.assembled(call) {
            Ok((canister, arg)) => self.begin_install(call, canister, arg, work),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The install that the chunks make, and its canister, which has paid for putting them together: an instruction
    /// for each byte of as many full chunks. It has paid as well where they make another module than the caller says.
    fn assembled(&mut self, call: &Management<'_>) -> Result<(CanisterState, types::Install), UserError> {
        let arg: InstallChunked = decode("install_chunked_code", &call.call.arg)?;
        let target = arg.target_canister;
        let mut canister = self.installable(call, target, arg.mode)?.clone();
        let id = arg.store_canister.unwrap_or(target);
        if self.canister(&id).is_none() {
            let subnet = self.config.subnet_id;
            return Err(refused(format!(
                "Store canister {id} was not found on subnet {subnet} of target canister {target}"
            )));
        }
        let wanted = hash_of("Wasm module", &arg.wasm_module_hash)?;
        let chunks = found(&self.store(call, id)?.chunks, &arg.chunk_hashes_list.0)?;
        let assembly = (chunks.len() as u64).saturating_mul(CHUNK_BYTES_MAX as u64);
        self.take_cycles(&mut canister, self.config.limits.instruction_price(assembly))?;
        self.note_installed(&mut canister, assembly);
        let module = chunks.concat();
        let hash: ChunkHash = Sha256::digest(&module).into();
        if hash != wanted {
            self.put(canister);
            let [wanted, hash] = [wanted, hash].map(hex::encode);
            return Err(refused(format!(
                "Wasm module hash {wanted} does not match that of the chunks, {hash}"
            )));
        }
        let install = types::Install {
            mode: arg.mode,
            canister_id: target,
            wasm_module: ByteBuf::from(module),
            arg: arg.arg,
            sender_canister_version: arg.sender_canister_version,
        };
        Ok((canister, install))
    }
}

fn hash_of(what: &str, bytes: &[u8]) -> Result<ChunkHash, UserError> {
    ChunkHash::try_from(bytes).map_err(|_| refused(format!("{what} hash of {} bytes, not 32", bytes.len())))
}

/// The chunks one after another. What they make is bounded before it is made: a list may name one often.
fn found(store: &ChunkStore, list: &[Hash]) -> Result<Vec<Arc<[u8]>>, UserError> {
    let mut found = Vec::new();
    let mut bytes = 0_usize;
    for Hash { hash } in list {
        let hash = hash_of("Chunk", hash)?;
        let chunk = store.chunks.get(&hash);
        let chunk =
            chunk.ok_or_else(|| refused(format!("Chunk {} is not in the store", hex::encode(hash))))?;
        bytes = bytes.saturating_add(chunk.len());
        // Empty chunks count too, so that the list itself is bounded.
        if bytes > MODULE_BYTES_MAX || found.len() >= CHUNKS_MAX {
            return Err(refused(format!(
                "Wasm module of more than {CHUNKS_MAX} chunks or {MODULE_BYTES_MAX} bytes"
            )));
        }
        found.push(Arc::clone(chunk));
    }
    Ok(found)
}
