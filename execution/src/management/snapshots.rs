//! Snapshots of canisters: taken, loaded, listed, deleted (`canister-execution.md` sections 4.8 and 5).
//!
//! A snapshot shares the pages of the canister's arena, so taking and loading one copies nothing.

use std::sync::Arc;

use candid::CandidType;
use serde::Deserialize;
use serde_bytes::ByteBuf;

use crate::management::candid_io::{decode, encode};
use crate::management::lifecycle::uninstall;
use crate::management::{Answered, Management, not_controller, types};
use crate::run::CANDID_EMPTY;
use crate::state::{CanisterSnapshot, CanisterState, ChangeDetails, SNAPSHOTS_MAX, SnapshotId};
use crate::subnet::Subnet;
use crate::{ErrorCode, Principal, UserError, text};

#[derive(CandidType, Deserialize)]
struct Take {
    canister_id: Principal,
    replace_snapshot: Option<ByteBuf>,
    uninstall_code: Option<bool>,
    sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize)]
struct Load {
    canister_id: Principal,
    snapshot_id: ByteBuf,
    sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize)]
struct Delete {
    canister_id: Principal,
    snapshot_id: ByteBuf,
}

#[derive(CandidType, Deserialize)]
struct Snapshot {
    id: ByteBuf,
    taken_at_timestamp: u64,
    total_size: u64,
}

fn reply_of(id: SnapshotId, snapshot: &CanisterSnapshot) -> Snapshot {
    Snapshot {
        id: ByteBuf::from(id.to_bytes()),
        taken_at_timestamp: snapshot.taken_at,
        total_size: snapshot.bytes(),
    }
}

fn refused(text: String) -> UserError {
    UserError::new(ErrorCode::CANISTER_REJECTED, text)
}

impl Subnet {
    /// The snapshot of `canister` that these bytes name.
    fn snapshot_of(
        &self,
        canister: &CanisterState,
        id: &[u8],
    ) -> Result<(SnapshotId, Arc<CanisterSnapshot>), UserError> {
        let id = SnapshotId::from_bytes(id).ok_or_else(|| {
            let text = format!("{} is no id of a snapshot", hex::encode(id.get(..64).unwrap_or(id)));
            UserError::new(ErrorCode::INVALID_MANAGEMENT_PAYLOAD, text)
        })?;
        let owner = self.canister(&id.canister);
        let snapshot = owner.and_then(|owner| owner.snapshots.taken.get(&id.number));
        let snapshot = snapshot.ok_or_else(|| {
            let text = format!("Could not find the snapshot ID {id} for canister {}", canister.id);
            UserError::new(ErrorCode::SNAPSHOT_NOT_FOUND, text)
        })?;
        if id.canister != canister.id {
            return Err(refused(format!("The snapshot {id} does not belong to canister {}", canister.id)));
        }
        Ok((id, Arc::clone(snapshot)))
    }

    pub(super) fn take_snapshot(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: Take = decode("take_canister_snapshot", &call.call.arg)?;
        let mut canister = self.controlled(call, arg.canister_id)?.clone();
        let code = canister.code.clone();
        let code = code.ok_or_else(|| {
            refused(format!("Failed to create a snapshot of canister {}, which is empty", canister.id))
        })?;
        match &arg.replace_snapshot {
            Some(replaced) => {
                let (id, _) = self.snapshot_of(&canister, replaced)?;
                canister.snapshots.taken.remove(&id.number);
            }
            None if canister.snapshots.taken.len() >= SNAPSHOTS_MAX => {
                return Err(refused(format!(
                    "Canister {} has reached the maximum number of snapshots allowed: {SNAPSHOTS_MAX}.",
                    canister.id
                )));
            }
            None => {}
        }
        self.may_write(&canister)?;
        // What is replaced counts until the new one is there.
        let before = self.canister(&canister.id).map_or(0, CanisterState::memory_taken);
        let snapshot = CanisterSnapshot {
            taken_at: self.state.time,
            version: canister.version,
            code,
            certified_data: canister.certified_data.clone(),
            chunks: canister.chunks.clone(),
        };
        let instructions = self.config.limits.snapshot_instructions.saturating_add(snapshot.bytes());
        self.charge(&mut canister, instructions)?;
        let id = SnapshotId { canister: canister.id, number: canister.snapshots.next };
        let reply = encode(&reply_of(id, &snapshot))?;
        canister.snapshots.next += 1;
        canister.snapshots.taken.insert(id.number, Arc::new(snapshot));
        let mut outputs = Vec::new();
        if arg.uninstall_code == Some(true) {
            outputs = uninstall(&mut canister);
            let version = arg.sender_canister_version;
            self.note_change(call, &mut canister, version, ChangeDetails::CodeUninstall);
        }
        self.may_hold(&canister, before)?;
        if canister.code.is_none() {
            self.release(&canister.id);
        }
        self.put(canister);
        self.route(outputs);
        Ok(Answered::Now(reply, call.call.cycles))
    }

    pub(super) fn load_snapshot(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: Load = decode("load_canister_snapshot", &call.call.arg)?;
        let mut canister = self.controlled(call, arg.canister_id)?.clone();
        let (id, snapshot) = self.snapshot_of(&canister, &arg.snapshot_id)?;
        self.may_write(&canister)?;
        let instructions = self.config.limits.snapshot_instructions.saturating_add(snapshot.bytes());
        self.charge(&mut canister, instructions)?;
        let before = canister.memory_taken();
        let CanisterSnapshot { taken_at, version, code, certified_data, chunks } = &*snapshot;
        canister.code = Some(code.clone());
        canister.certified_data.clone_from(certified_data);
        canister.chunks = chunks.clone();
        canister.version += 1;
        canister.update_hook();
        self.may_hold(&canister, before)?;
        self.note_written(&mut canister, snapshot.bytes());
        let details = ChangeDetails::LoadSnapshot { snapshot: id, version: *version, taken_at: *taken_at };
        self.note_change(call, &mut canister, arg.sender_canister_version, details);
        // Other code: whatever this node held against the old one is over.
        self.release(&canister.id);
        self.put(canister);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }

    pub(super) fn list_snapshots(&self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::CanisterIdRecord = decode("list_canister_snapshots", &call.call.arg)?;
        let id = arg.canister_id;
        let canister = self.canister(&id).ok_or_else(|| text::not_found(id))?;
        let caller = call.caller();
        if !canister.is_controlled_by(&caller) && !canister.settings.snapshot_visibility.allows(&caller) {
            return Err(not_controller(canister, caller));
        }
        let taken = canister.snapshots.taken.iter();
        let list: Vec<Snapshot> = taken
            .map(|(&number, snapshot)| reply_of(SnapshotId { canister: id, number }, snapshot))
            .collect();
        Ok(Answered::Now(encode(&list)?, call.call.cycles))
    }

    pub(super) fn delete_snapshot(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: Delete = decode("delete_canister_snapshot", &call.call.arg)?;
        let mut canister = self.controlled(call, arg.canister_id)?.clone();
        let (id, _) = self.snapshot_of(&canister, &arg.snapshot_id)?;
        canister.snapshots.taken.remove(&id.number);
        self.put(canister);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }
}
