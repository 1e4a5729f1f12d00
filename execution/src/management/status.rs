//! `canister_status` and `canister_info`.

use candid::{Nat, Reserved};
use serde_bytes::ByteBuf;

use crate::management::candid_io::{List, decode, encode};
use crate::management::{Answered, Management, not_controller, types};
use crate::state::{CanisterState, ChangeDetails, InstallMode, Status, Visibility};
use crate::subnet::Subnet;
use crate::{Limits, Principal, UserError, text};

/// Changes that `canister_info` gives at most.
const CHANGES_MAX: u64 = 20;
/// Seconds in a day.
const DAY: u64 = 86_400;

/// The Candid record of `canister_status`, for a controller, the canister itself and whom `status_visibility` names.
pub(super) fn canister_status(
    canister: &CanisterState,
    caller: Principal,
    limits: &Limits,
) -> Result<Vec<u8>, UserError> {
    let visible = canister.settings.status_visibility.allows(&caller);
    if caller != canister.id && !canister.is_controlled_by(&caller) && !visible {
        return Err(not_controller(canister, caller));
    }
    let mut day = canister.freezing();
    day.threshold_seconds = DAY;
    encode(&types::StatusResult {
        status: match canister.status {
            Status::Running => types::Status::Running,
            Status::Stopping(_) => types::Status::Stopping,
            Status::Stopped => types::Status::Stopped,
        },
        ready_for_migration: false,
        version: canister.version,
        settings: definite_settings(canister),
        module_hash: module_hash(canister),
        memory_size: Nat::from(canister.memory_bytes()),
        memory_metrics: memory_metrics(canister),
        cycles: Nat::from(canister.balance),
        reserved_cycles: Nat::from(canister.reserved),
        idle_cycles_burned_per_day: Nat::from(day.limit(limits, 0)),
        query_stats: types::QueryStats {
            num_calls_total: Nat::from(0_u8),
            num_instructions_total: Nat::from(0_u8),
            request_payload_bytes_total: Nat::from(0_u8),
            response_payload_bytes_total: Nat::from(0_u8),
        },
    })
}

fn definite_settings(canister: &CanisterState) -> types::DefiniteSettings {
    let settings = &*canister.settings;
    types::DefiniteSettings {
        controllers: settings.controllers.clone(),
        compute_allocation: Nat::from(settings.compute_allocation),
        memory_allocation: Nat::from(settings.memory_allocation),
        freezing_threshold: Nat::from(settings.freezing_threshold),
        reserved_cycles_limit: Nat::from(settings.reserved_cycles_limit),
        wasm_memory_limit: Nat::from(settings.wasm_memory_limit),
        wasm_memory_threshold: Nat::from(settings.wasm_memory_threshold),
        log_visibility: visibility(&settings.log_visibility),
        log_memory_limit: Nat::from(settings.log_memory_limit),
        snapshot_visibility: visibility(&settings.snapshot_visibility),
        status_visibility: visibility(&settings.status_visibility),
        environment_variables: settings
            .environment_variables
            .iter()
            .map(|(name, value)| types::EnvironmentVariable { name: name.clone(), value: value.clone() })
            .collect(),
        minimum_incoming_canister_call_cycles: Nat::from(settings.minimum_incoming_canister_call_cycles),
    }
}

fn visibility(of: &Visibility) -> types::Visibility {
    match of {
        Visibility::Controllers => types::Visibility::Controllers,
        Visibility::Public => types::Visibility::Public,
        Visibility::AllowedViewers(viewers) => types::Visibility::AllowedViewers(List(viewers.clone())),
    }
}

fn memory_metrics(canister: &CanisterState) -> types::MemoryMetrics {
    let code = canister.code.as_ref();
    let of = |bytes: fn(&crate::state::Code) -> u64| Nat::from(code.map_or(0, bytes));
    types::MemoryMetrics {
        wasm_memory_size: of(|code| code.heap.bytes()),
        stable_memory_size: of(|code| code.stable.bytes()),
        global_memory_size: of(|code| code.globals.len() as u64 * 8),
        wasm_binary_size: of(|code| code.module.wasm_bytes),
        custom_sections_size: of(crate::state::Code::custom_sections_bytes),
        canister_history_size: Nat::from(0_u8),
        wasm_chunk_store_size: Nat::from(canister.chunks.bytes()),
        snapshots_size: Nat::from(canister.snapshots.bytes()),
        log_memory_store_size: Nat::from(canister.log.bytes),
    }
}

fn module_hash(canister: &CanisterState) -> Option<ByteBuf> {
    canister.module().map(|module| ByteBuf::from(module.hash.0.to_vec()))
}

impl Subnet {
    pub(super) fn status_of(&self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::CanisterIdRecord = decode("canister_status", &call.call.arg)?;
        let id = arg.canister_id;
        let canister = self.canister(&id).ok_or_else(|| text::not_found(id))?;
        let reply = canister_status(canister, call.caller(), &self.config.limits)?;
        Ok(Answered::Now(reply, call.call.cycles))
    }

    pub(super) fn canister_info(&self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::Info = decode("canister_info", &call.call.arg)?;
        let id = arg.canister_id;
        let canister = self.canister(&id).ok_or_else(|| text::not_found(id))?;
        let wanted = arg.num_requested_changes.unwrap_or(0).min(CHANGES_MAX);
        let recent = &canister.history.recent;
        let first = recent.len().saturating_sub(usize::try_from(wanted).unwrap_or(usize::MAX));
        let reply = encode(&types::InfoResult {
            total_num_changes: canister.history.total,
            recent_changes: recent.iter().skip(first).map(change).collect(),
            module_hash: module_hash(canister),
            controllers: canister.settings.controllers.clone(),
        })?;
        Ok(Answered::Now(reply, call.call.cycles))
    }
}

fn change(change: &crate::state::Change) -> types::Change {
    types::Change {
        timestamp_nanos: change.time,
        canister_version: change.version,
        origin: if change.by_user {
            types::ChangeOrigin::FromUser { user_id: change.origin }
        } else {
            types::ChangeOrigin::FromCanister {
                canister_id: change.origin,
                canister_version: change.origin_version,
            }
        },
        details: match &change.details {
            ChangeDetails::Creation(controllers) => {
                types::ChangeDetails::Creation { controllers: controllers.clone() }
            }
            ChangeDetails::CodeUninstall => types::ChangeDetails::CodeUninstall,
            ChangeDetails::CodeDeployment(mode, hash) => types::ChangeDetails::CodeDeployment {
                mode: match mode {
                    InstallMode::Install => types::DeploymentMode::Install,
                    InstallMode::Reinstall => types::DeploymentMode::Reinstall,
                    InstallMode::Upgrade => types::DeploymentMode::Upgrade,
                },
                module_hash: ByteBuf::from(hash.0.to_vec()),
            },
            ChangeDetails::ControllersChange(controllers) => {
                types::ChangeDetails::ControllersChange { controllers: controllers.clone() }
            }
            ChangeDetails::LoadSnapshot { snapshot, version, taken_at } => {
                types::ChangeDetails::LoadSnapshot {
                    from_canister_id: None,
                    snapshot_id: ByteBuf::from(snapshot.to_bytes()),
                    canister_version: *version,
                    taken_at_timestamp: *taken_at,
                    source: types::SnapshotSource::TakenFromCanister(Reserved),
                }
            }
        },
    }
}
