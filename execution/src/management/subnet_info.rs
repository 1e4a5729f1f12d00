//! What canisters may ask about their subnet: the answers of a single node without consensus.

use candid::CandidType;
use serde::Deserialize;

use crate::management::candid_io::{decode, encode};
use crate::management::{Answered, Management, decode_nothing};
use crate::state::SubnetConfig;
use crate::subnet::Subnet;
use crate::{ErrorCode, Principal, UserError};

/// `replica_version`: fixed, since replicated answers must not depend on a node's release.
const REPLICA_VERSION: &str = "bulkhead";
/// `registry_version`: there is no registry to have another.
const REGISTRY_VERSION: u64 = 1;

#[derive(CandidType, Deserialize)]
struct SubnetId {
    subnet_id: Principal,
}

#[derive(CandidType, Deserialize)]
struct MetricsHistory {
    subnet_id: Principal,
    start_at_timestamp_nanos: u64,
}

#[derive(CandidType)]
struct NodeMetrics {
    node_id: Principal,
    num_blocks_proposed_total: u64,
    num_block_failures_total: u64,
}

#[derive(CandidType)]
struct MetricsOfDay {
    timestamp_nanos: u64,
    node_metrics: Vec<NodeMetrics>,
}

#[derive(CandidType)]
struct Info {
    replica_version: String,
    registry_version: u64,
}

#[derive(CandidType)]
struct Range {
    start: Principal,
    end: Principal,
}

#[derive(CandidType)]
struct Listed {
    canisters: Vec<Range>,
}

impl Subnet {
    fn require_own(&self, subnet: Principal) -> Result<(), UserError> {
        if subnet == self.config.subnet_id {
            return Ok(());
        }
        let text = format!("Subnet {subnet} not found, this is {}", self.config.subnet_id);
        Err(UserError::new(ErrorCode::SUBNET_NOT_FOUND, text))
    }

    /// Blocks are consensus's, of which there is none here: no day has any metrics.
    pub(super) fn node_metrics_history(&self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: MetricsHistory = decode("node_metrics_history", &call.call.arg)?;
        self.require_own(arg.subnet_id)?;
        Ok(Answered::Now(encode(&Vec::<MetricsOfDay>::new())?, call.call.cycles))
    }

    pub(super) fn subnet_info(&self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: SubnetId = decode("subnet_info", &call.call.arg)?;
        self.require_own(arg.subnet_id)?;
        let info = Info { replica_version: REPLICA_VERSION.into(), registry_version: REGISTRY_VERSION };
        Ok(Answered::Now(encode(&info)?, call.call.cycles))
    }

    pub(super) fn list_canisters(&self, call: &Management<'_>) -> Result<Answered, UserError> {
        let ids = self.state.canisters.keys();
        let reply = list_canisters(&self.config, ids, call.caller(), &call.call.arg)?;
        Ok(Answered::Now(reply, call.call.cycles))
    }
}

/// The canisters of the subnet as ranges of ids, for its administrators.
pub(super) fn list_canisters<'a>(
    config: &SubnetConfig,
    ids: impl Iterator<Item = &'a Principal>,
    caller: Principal,
    arg: &[u8],
) -> Result<Vec<u8>, UserError> {
    decode_nothing("list_canisters", arg)?;
    if !config.admins.contains(&caller) {
        let text = format!("Only administrators of subnet {} can call list_canisters", config.subnet_id);
        return Err(UserError::new(ErrorCode::CANISTER_REJECTED, text));
    }
    let mut canisters: Vec<Range> = Vec::new();
    for &id in ids {
        match canisters.last_mut() {
            Some(range) if number(&range.end).checked_add(1) == Some(number(&id)) => range.end = id,
            _ => canisters.push(Range { start: id, end: id }),
        }
    }
    encode(&Listed { canisters })
}

/// The number that a canister's id begins with.
fn number(id: &Principal) -> u64 {
    id.as_slice().first_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}
