//! Settings: checked as a whole, then put in place.

use std::sync::Arc;

use crate::management::candid_io::{decode, number};
use crate::management::{Answered, Management, types};
use crate::run::CANDID_EMPTY;
use crate::state::{ChangeDetails, LogVisibility, Settings};
use crate::subnet::Subnet;
use crate::{ErrorCode, Principal, UserError};

/// Controllers of one canister.
const CONTROLLERS_MAX: usize = 10;
/// Environment variables of one canister.
const VARIABLES_MAX: usize = 20;
/// Bytes of a name or value of an environment variable.
const VARIABLE_BYTES_MAX: usize = 128;
/// Viewers of a log.
const VIEWERS_MAX: usize = 10;

fn invalid(text: String) -> UserError {
    UserError::new(ErrorCode::INVALID_MANAGEMENT_PAYLOAD, text)
}

/// `current` with what `changes` sets.
pub(super) fn changed(current: &Settings, changes: types::Settings) -> Result<Settings, UserError> {
    let mut settings = current.clone();
    if let Some(given) = changes.controllers {
        settings.controllers = controllers(given)?;
    }
    if let Some(value) = &changes.compute_allocation {
        settings.compute_allocation = number("compute_allocation", value)?;
        if settings.compute_allocation > 100 {
            let text =
                format!("Compute allocation of {} percent, at most 100 allowed", settings.compute_allocation);
            return Err(UserError::new(ErrorCode::CONTRACT_VIOLATION, text));
        }
    }
    let numbers = [
        (&mut settings.memory_allocation, &changes.memory_allocation, "memory_allocation"),
        (&mut settings.freezing_threshold, &changes.freezing_threshold, "freezing_threshold"),
        (&mut settings.wasm_memory_limit, &changes.wasm_memory_limit, "wasm_memory_limit"),
        (&mut settings.wasm_memory_threshold, &changes.wasm_memory_threshold, "wasm_memory_threshold"),
    ];
    for (setting, value, what) in numbers {
        if let Some(value) = value {
            *setting = number(what, value)?;
        }
    }
    if let Some(value) = &changes.reserved_cycles_limit {
        settings.reserved_cycles_limit = number("reserved_cycles_limit", value)?;
    }
    if let Some(value) = &changes.minimum_incoming_canister_call_cycles {
        settings.minimum_incoming_canister_call_cycles =
            number("minimum_incoming_canister_call_cycles", value)?;
    }
    if let Some(given) = changes.log_visibility {
        settings.log_visibility = log_visibility(given)?;
    }
    if let Some(given) = changes.environment_variables {
        settings.environment_variables = variables(given)?;
    }
    Ok(settings)
}

fn controllers(mut given: Vec<Principal>) -> Result<Vec<Principal>, UserError> {
    given.sort_unstable();
    given.dedup();
    if given.len() > CONTROLLERS_MAX {
        return Err(invalid(format!("{} controllers, at most {CONTROLLERS_MAX} allowed", given.len())));
    }
    Ok(given)
}

fn log_visibility(given: types::LogVisibility) -> Result<LogVisibility, UserError> {
    Ok(match given {
        types::LogVisibility::Controllers => LogVisibility::Controllers,
        types::LogVisibility::Public => LogVisibility::Public,
        types::LogVisibility::AllowedViewers(viewers) if viewers.len() <= VIEWERS_MAX => {
            LogVisibility::AllowedViewers(viewers)
        }
        types::LogVisibility::AllowedViewers(viewers) => {
            return Err(invalid(format!("{} log viewers, at most {VIEWERS_MAX} allowed", viewers.len())));
        }
    })
}

fn variables(given: Vec<types::EnvironmentVariable>) -> Result<Vec<(String, String)>, UserError> {
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
        let mut canister = self.controlled(call, arg.canister_id)?.clone();
        let settings = changed(&canister.settings, arg.settings)?;
        if settings.reserved_cycles_limit < canister.reserved {
            let text = format!(
                "Cannot set the reserved cycles limit to {} below the reserved balance of {}",
                settings.reserved_cycles_limit, canister.reserved
            );
            return Err(UserError::new(ErrorCode::RESERVED_LIMIT_TOO_LOW, text));
        }
        let subnet_memory = self.config.limits.subnet_memory_bytes;
        if settings.memory_allocation > subnet_memory {
            let text = format!(
                "Memory allocation of {} bytes, the subnet has {subnet_memory}",
                settings.memory_allocation
            );
            return Err(UserError::new(ErrorCode::SUBNET_OVERSUBSCRIBED, text));
        }
        let new_controllers = settings.controllers != canister.settings.controllers;
        let controllers = settings.controllers.clone();
        canister.settings = Arc::new(settings);
        canister.version += 1;
        canister.update_hook();
        if new_controllers {
            let details = ChangeDetails::ControllersChange(controllers);
            self.note_change(call, &mut canister, arg.sender_canister_version, details);
        }
        self.put(canister);
        Ok(Answered::Now(CANDID_EMPTY.to_vec(), call.call.cycles))
    }
}
