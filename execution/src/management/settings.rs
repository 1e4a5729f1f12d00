//! Settings: checked as a whole, then put in place.

use std::sync::Arc;

use candid::Nat;

use crate::management::candid_io::{List, decode, told};
use crate::management::{Answered, Management, types};
use crate::run::CANDID_EMPTY;
use crate::state::{CanisterState, ChangeDetails, Settings, Visibility};
use crate::subnet::Subnet;
use crate::{ErrorCode, Principal, UserError};

/// Controllers of one canister.
const CONTROLLERS_MAX: usize = 10;
/// Environment variables of one canister.
const VARIABLES_MAX: usize = 20;
/// Bytes of a name or value of an environment variable.
const VARIABLE_BYTES_MAX: usize = 128;
/// Viewers of a log, of snapshots or of a status.
const VIEWERS_MAX: usize = 10;
/// Largest memory allocation and `wasm_memory_limit`, bytes.
const MEMORY_BYTES_MAX: u64 = 1 << 48;
/// Smallest log that isn't off, bytes.
const LOG_BYTES_MIN: u64 = 4 << 10;
/// Largest log, bytes.
const LOG_BYTES_MAX: u64 = 2 << 20;

fn invalid(text: String) -> UserError {
    UserError::new(ErrorCode::INVALID_MANAGEMENT_PAYLOAD, text)
}

fn refused(text: String) -> UserError {
    UserError::new(ErrorCode::CONTRACT_VIOLATION, text)
}

/// A number of a setting, at most `max`.
fn at_most<T: TryFrom<u128> + Into<u128> + Copy>(what: &str, value: &Nat, max: T) -> Result<T, UserError> {
    let number = u128::try_from(value.0.clone()).ok().filter(|number| *number <= max.into());
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| refused(format!("{what} of {}, at most {} allowed", told(value), max.into())))
}

/// `current` with what `changes` sets.
pub(super) fn changed(current: &Settings, changes: types::Settings) -> Result<Settings, UserError> {
    let mut settings = current.clone();
    if let Some(given) = changes.controllers {
        settings.controllers = controllers(given)?;
    }
    let numbers = [
        (&mut settings.compute_allocation, &changes.compute_allocation, "compute_allocation", 100),
        (&mut settings.memory_allocation, &changes.memory_allocation, "memory_allocation", MEMORY_BYTES_MAX),
        (&mut settings.freezing_threshold, &changes.freezing_threshold, "freezing_threshold", u64::MAX),
        (&mut settings.wasm_memory_limit, &changes.wasm_memory_limit, "wasm_memory_limit", MEMORY_BYTES_MAX),
        (
            &mut settings.wasm_memory_threshold,
            &changes.wasm_memory_threshold,
            "wasm_memory_threshold",
            u64::MAX,
        ),
        (&mut settings.log_memory_limit, &changes.log_memory_limit, "log_memory_limit", LOG_BYTES_MAX),
    ];
    for (setting, value, what, max) in numbers {
        if let Some(value) = value {
            *setting = at_most(what, value, max)?;
        }
    }
    if (1..LOG_BYTES_MIN).contains(&settings.log_memory_limit) {
        return Err(refused(format!(
            "log_memory_limit of {}, 0 or at least {LOG_BYTES_MIN} allowed",
            settings.log_memory_limit
        )));
    }
    if let Some(value) = &changes.reserved_cycles_limit {
        settings.reserved_cycles_limit = at_most("reserved_cycles_limit", value, u128::MAX)?;
    }
    if let Some(value) = &changes.minimum_incoming_canister_call_cycles {
        settings.minimum_incoming_canister_call_cycles =
            at_most("minimum_incoming_canister_call_cycles", value, u128::MAX)?;
    }
    let visibilities = [
        (&mut settings.log_visibility, changes.log_visibility),
        (&mut settings.snapshot_visibility, changes.snapshot_visibility),
        (&mut settings.status_visibility, changes.status_visibility),
    ];
    for (setting, given) in visibilities {
        if let Some(given) = given {
            *setting = visibility(given)?;
        }
    }
    if let Some(given) = changes.environment_variables {
        settings.environment_variables = variables(given)?;
    }
    Ok(settings)
}

fn controllers(List(mut given): List<Principal>) -> Result<Vec<Principal>, UserError> {
    given.sort_unstable();
    given.dedup();
    if given.len() > CONTROLLERS_MAX {
        return Err(invalid(format!("{} controllers, at most {CONTROLLERS_MAX} allowed", given.len())));
    }
    Ok(given)
}

fn visibility(given: types::Visibility) -> Result<Visibility, UserError> {
    Ok(match given {
        types::Visibility::Controllers => Visibility::Controllers,
        types::Visibility::Public => Visibility::Public,
        types::Visibility::AllowedViewers(List(mut viewers)) => {
            viewers.sort_unstable();
            viewers.dedup();
            if viewers.len() > VIEWERS_MAX {
                return Err(invalid(format!("{} viewers, at most {VIEWERS_MAX} allowed", viewers.len())));
            }
            Visibility::AllowedViewers(viewers)
        }
    })
}

fn variables(List(given): List<types::EnvironmentVariable>) -> Result<Vec<(String, String)>, UserError> {
    if given.len() > VARIABLES_MAX {
        return Err(invalid(format!(
            "{} environment variables, at most {VARIABLES_MAX} allowed",
            given.len()
        )));
    }
    let mut variables: Vec<(String, String)> = given.into_iter().map(|v| (v.name, v.value)).collect();
    variables.sort_unstable();
    for (name, value) in &variables {
        if name.len() > VARIABLE_BYTES_MAX || value.len() > VARIABLE_BYTES_MAX {
            return Err(invalid(format!(
                "environment variable with a name or value of more than {VARIABLE_BYTES_MAX} bytes"
            )));
        }
    }
    if variables.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(invalid("environment variable set twice".into()));
    }
    Ok(variables)
}

impl Subnet {
    pub(super) fn update_settings(&mut self, call: &Management<'_>) -> Result<Answered, UserError> {
        let arg: types::UpdateSettings = decode("update_settings", &call.call.arg)?;
        let before = self.controlled(call, arg.canister_id)?;
        let mut canister = before.clone();
        let settings = changed(&canister.settings, arg.settings)?;
        if settings.reserved_cycles_limit < canister.reserved {
            let text = format!(
                "Cannot set the reserved cycles limit to {} below the reserved balance of {}",
                settings.reserved_cycles_limit, canister.reserved
            );
            return Err(UserError::new(ErrorCode::RESERVED_LIMIT_TOO_LOW, text));
        }
        let new_controllers = settings.controllers != canister.settings.controllers;
        let controllers = settings.controllers.clone();
        canister.settings = Arc::new(settings);
        self.allocations_fit(Some(before), &canister)?;
        canister.version += 1;
        canister.update_hook();
        canister.log.trim(canister.log_capacity());
        if new_controllers {
            let details = ChangeDetails::ControllersChange(controllers);
            self.note_change(call, &mut canister, arg.sender_canister_version, details);
        }
        self.put(canister);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }

    /// Whether the subnet has what is newly allocated, and the canister can pay for it.
    pub(super) fn allocations_fit(
        &self,
        before: Option<&CanisterState>,
        canister: &CanisterState,
    ) -> Result<(), UserError> {
        let limits = &self.config.limits;
        let (compute, memory) = (canister.settings.compute_allocation, canister.settings.memory_allocation);
        let (compute_before, memory_before) = before
            .map_or((0, 0), |before| (before.settings.compute_allocation, before.settings.memory_allocation));
        let missing = canister.missing(limits);
        if compute > compute_before {
            let taken = self.state.compute_percent.saturating_sub(compute_before);
            let free = limits.subnet_compute_percent.saturating_sub(taken);
            if compute > free {
                let text = format!("Compute allocation of {compute} percent, the subnet has {free} left");
                return Err(UserError::new(ErrorCode::SUBNET_OVERSUBSCRIBED, text));
            }
            if missing > 0 {
                let text = format!(
                    "Cannot increase compute allocation to {compute}% due to insufficient cycles. At least {missing} additional cycles are required."
                );
                return Err(UserError::new(ErrorCode::CYCLES_COMPUTE_ALLOCATION, text));
            }
        }
        if memory > memory_before {
            let taken = self.state.memory_bytes.saturating_sub(before.map_or(0, CanisterState::memory_taken));
            let free = limits.subnet_memory_bytes.saturating_sub(taken);
            if canister.memory_taken() > free {
                let text = format!("Memory allocation of {memory} bytes, the subnet has {free} left");
                return Err(UserError::new(ErrorCode::SUBNET_OVERSUBSCRIBED, text));
            }
            if missing > 0 {
                let text = format!(
                    "Cannot increase memory allocation to {memory} bytes due to insufficient cycles. At least {missing} additional cycles are required."
                );
                return Err(UserError::new(ErrorCode::CYCLES_MEMORY_ALLOCATION, text));
            }
        }
        Ok(())
    }
}
