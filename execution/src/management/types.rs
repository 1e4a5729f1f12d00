//! Candid types of the management canister: wire types, apart from the state.

use candid::{CandidType, Nat, Reserved};
use serde::Deserialize;
use serde_bytes::ByteBuf;

use crate::Principal;
use crate::management::candid_io::List;

#[derive(CandidType, Deserialize)]
pub(super) struct CanisterIdRecord {
    pub(super) canister_id: Principal,
}

#[derive(CandidType, Deserialize)]
pub(super) struct EnvironmentVariable {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(CandidType, Deserialize)]
pub(super) enum Visibility {
    #[serde(rename = "controllers")]
    Controllers,
    #[serde(rename = "public")]
    Public,
    #[serde(rename = "allowed_viewers")]
    AllowedViewers(List<Principal>),
}

#[derive(CandidType, Deserialize, Default)]
pub(super) struct Settings {
    pub(super) controllers: Option<List<Principal>>,
    pub(super) compute_allocation: Option<Nat>,
    pub(super) memory_allocation: Option<Nat>,
    pub(super) freezing_threshold: Option<Nat>,
    pub(super) reserved_cycles_limit: Option<Nat>,
    pub(super) wasm_memory_limit: Option<Nat>,
    pub(super) wasm_memory_threshold: Option<Nat>,
    pub(super) log_visibility: Option<Visibility>,
    pub(super) log_memory_limit: Option<Nat>,
    pub(super) snapshot_visibility: Option<Visibility>,
    pub(super) status_visibility: Option<Visibility>,
    pub(super) environment_variables: Option<List<EnvironmentVariable>>,
    pub(super) minimum_incoming_canister_call_cycles: Option<Nat>,
}

/// What every argument with this field has.
#[derive(CandidType, Deserialize, Default)]
pub(super) struct SenderVersion {
    pub(super) sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize, Default)]
pub(super) struct Create {
    pub(super) settings: Option<Settings>,
    pub(super) sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize, Default)]
pub(super) struct ProvisionalCreate {
    pub(super) amount: Option<Nat>,
    pub(super) settings: Option<Settings>,
    pub(super) specified_id: Option<Principal>,
    pub(super) sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize)]
pub(super) struct ProvisionalTopUp {
    pub(super) canister_id: Principal,
    pub(super) amount: Nat,
}

#[derive(CandidType, Deserialize)]
pub(super) struct UpdateSettings {
    pub(super) canister_id: Principal,
    pub(super) settings: Settings,
    pub(super) sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize)]
pub(super) struct Uninstall {
    pub(super) canister_id: Principal,
    pub(super) sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    #[serde(rename = "keep")]
    Keep,
    #[serde(rename = "replace")]
    Replace,
}

#[derive(CandidType, Deserialize, Clone, Copy, Default)]
pub(super) struct UpgradeOptions {
    pub(super) skip_pre_upgrade: Option<bool>,
    pub(super) wasm_memory_persistence: Option<Persistence>,
}

#[derive(CandidType, Deserialize, Clone, Copy)]
pub(super) enum InstallMode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<UpgradeOptions>),
}

#[derive(CandidType, Deserialize)]
pub(super) struct Install {
    pub(super) mode: InstallMode,
    pub(super) canister_id: Principal,
    pub(super) wasm_module: ByteBuf,
    pub(super) arg: ByteBuf,
    pub(super) sender_canister_version: Option<u64>,
}

#[derive(CandidType, Deserialize)]
pub(super) enum Status {
    #[serde(rename = "running")]
    Running,
    #[serde(rename = "stopping")]
    Stopping,
    #[serde(rename = "stopped")]
    Stopped,
}

#[derive(CandidType, Deserialize)]
pub(super) struct DefiniteSettings {
    pub(super) controllers: Vec<Principal>,
    pub(super) compute_allocation: Nat,
    pub(super) memory_allocation: Nat,
    pub(super) freezing_threshold: Nat,
    pub(super) reserved_cycles_limit: Nat,
    pub(super) wasm_memory_limit: Nat,
    pub(super) wasm_memory_threshold: Nat,
    pub(super) log_visibility: Visibility,
    pub(super) log_memory_limit: Nat,
    pub(super) snapshot_visibility: Visibility,
    pub(super) status_visibility: Visibility,
    pub(super) environment_variables: Vec<EnvironmentVariable>,
    pub(super) minimum_incoming_canister_call_cycles: Nat,
}

#[derive(CandidType, Deserialize)]
pub(super) struct MemoryMetrics {
    pub(super) wasm_memory_size: Nat,
    pub(super) stable_memory_size: Nat,
    pub(super) global_memory_size: Nat,
    pub(super) wasm_binary_size: Nat,
    pub(super) custom_sections_size: Nat,
    pub(super) canister_history_size: Nat,
    pub(super) wasm_chunk_store_size: Nat,
    pub(super) snapshots_size: Nat,
    pub(super) log_memory_store_size: Nat,
}

#[derive(CandidType, Deserialize)]
pub(super) struct QueryStats {
    pub(super) num_calls_total: Nat,
    pub(super) num_instructions_total: Nat,
    pub(super) request_payload_bytes_total: Nat,
    pub(super) response_payload_bytes_total: Nat,
}

#[derive(CandidType, Deserialize)]
pub(super) struct StatusResult {
    pub(super) status: Status,
    pub(super) ready_for_migration: bool,
    pub(super) version: u64,
    pub(super) settings: DefiniteSettings,
    pub(super) module_hash: Option<ByteBuf>,
    pub(super) memory_size: Nat,
    pub(super) memory_metrics: MemoryMetrics,
    pub(super) cycles: Nat,
    pub(super) reserved_cycles: Nat,
    pub(super) idle_cycles_burned_per_day: Nat,
    pub(super) query_stats: QueryStats,
}

#[derive(CandidType, Deserialize)]
pub(super) struct Info {
    pub(super) canister_id: Principal,
    pub(super) num_requested_changes: Option<u64>,
}

#[derive(CandidType, Deserialize)]
pub(super) enum ChangeOrigin {
    #[serde(rename = "from_user")]
    FromUser { user_id: Principal },
    #[serde(rename = "from_canister")]
    FromCanister { canister_id: Principal, canister_version: Option<u64> },
}

#[derive(CandidType, Deserialize)]
pub(super) enum DeploymentMode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade,
}

#[derive(CandidType, Deserialize)]
pub(super) enum SnapshotSource {
    #[serde(rename = "taken_from_canister")]
    TakenFromCanister(Reserved),
}

#[derive(CandidType, Deserialize)]
pub(super) enum ChangeDetails {
    #[serde(rename = "creation")]
    Creation { controllers: Vec<Principal> },
    #[serde(rename = "code_uninstall")]
    CodeUninstall,
    #[serde(rename = "code_deployment")]
    CodeDeployment { mode: DeploymentMode, module_hash: ByteBuf },
    #[serde(rename = "controllers_change")]
    ControllersChange { controllers: Vec<Principal> },
    #[serde(rename = "load_snapshot")]
    LoadSnapshot {
        from_canister_id: Option<Principal>,
        snapshot_id: ByteBuf,
        canister_version: u64,
        taken_at_timestamp: u64,
        source: SnapshotSource,
    },
}

#[derive(CandidType, Deserialize)]
pub(super) struct Change {
    pub(super) timestamp_nanos: u64,
    pub(super) canister_version: u64,
    pub(super) origin: ChangeOrigin,
    pub(super) details: ChangeDetails,
}

#[derive(CandidType, Deserialize)]
pub(super) struct InfoResult {
    pub(super) total_num_changes: u64,
    pub(super) recent_changes: Vec<Change>,
    pub(super) module_hash: Option<ByteBuf>,
    pub(super) controllers: Vec<Principal>,
}
