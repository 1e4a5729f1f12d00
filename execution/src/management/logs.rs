//! `fetch_canister_logs`: a query, and nothing else.

use candid::CandidType;
use serde::Deserialize;
use serde_bytes::ByteBuf;

use crate::management::candid_io::encode;
use crate::state::CanisterState;
use crate::{ErrorCode, Principal, UserError};

#[derive(CandidType, Deserialize)]
pub(super) struct Fetch {
    pub(super) canister_id: Principal,
    filter: Option<Filter>,
}

#[derive(CandidType, Deserialize)]
enum Filter {
    #[serde(rename = "by_idx")]
    ByIndex { start: u64, end: u64 },
    #[serde(rename = "by_timestamp_nanos")]
    ByTime { start: u64, end: u64 },
}

#[derive(CandidType)]
struct Record {
    idx: u64,
    timestamp_nanos: u64,
    content: ByteBuf,
}

#[derive(CandidType)]
struct Fetched {
    canister_log_records: Vec<Record>,
}

/// The records of a canister's log that are asked for, oldest first.
pub(super) fn fetch(
    canister: &CanisterState,
    caller: Principal,
    wanted: &Fetch,
) -> Result<Vec<u8>, UserError> {
    if !canister.is_controlled_by(&caller) && !canister.settings.log_visibility.allows(&caller) {
        let text = format!("Caller {caller} is not allowed to access canister logs");
        return Err(UserError::new(ErrorCode::CANISTER_REJECTED, text));
    }
    let is_wanted = |index: u64, time: u64| match wanted.filter {
        None => true,
        Some(Filter::ByIndex { start, end }) => (start..=end).contains(&index),
        Some(Filter::ByTime { start, end }) => (start..=end).contains(&time),
    };
    let records = canister.log.records.iter().filter(|record| is_wanted(record.index, record.time));
    encode(&Fetched {
        canister_log_records: records
            .map(|record| Record {
                idx: record.index,
                timestamp_nanos: record.time,
                content: ByteBuf::from(record.text.to_vec()),
            })
            .collect(),
    })
}

/// Why it isn't answered as an update.
pub(super) fn only_as_query() -> UserError {
    let text = "fetch_canister_logs API is only accessible in non-replicated mode";
    UserError::new(ErrorCode::CANISTER_REJECTED, text)
}
