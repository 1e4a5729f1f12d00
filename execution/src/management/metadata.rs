//! `canister_metadata`: custom sections of a canister's module, for canisters.

use candid::CandidType;
use serde::Deserialize;
use serde_bytes::Bytes;

use crate::management::candid_io::{decode, encode};
use crate::management::{Answered, Management, not_controller};
use crate::subnet::Subnet;
use crate::{ErrorCode, Principal, UserError, text};

#[derive(CandidType, Deserialize)]
struct Metadata {
    canister_id: Principal,
    name: String,
}

#[derive(CandidType)]
struct Section<'a> {
    value: &'a Bytes,
}

impl Subnet {
    pub(super) fn canister_metadata(&self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: Metadata = decode("canister_metadata", &call.call.arg)?;
        let id = arg.canister_id;
        let canister = self.canister(&id).ok_or_else(|| text::not_found(id))?;
        let module = canister.module().ok_or_else(|| {
            let text = format!("Canister {id} has no Wasm module and hence no metadata");
            UserError::new(ErrorCode::NO_WASM_MODULE, text)
        })?;
        let section = module.interface.custom_sections.get(&arg.name).ok_or_else(|| {
            let text = "Canister has no metadata section of that name";
            UserError::new(ErrorCode::CANISTER_REJECTED, text)
        })?;
        if !section.public && !canister.is_controlled_by(&call.caller()) {
            return Err(not_controller(canister, call.caller()));
        }
        let reply = encode(&Section { value: Bytes::new(&section.content) })?;
        Ok(Answered::Now(reply, call.call.cycles))
    }
}
