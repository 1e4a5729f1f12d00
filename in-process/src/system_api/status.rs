//! Identity, status, timer, certified data, environment variables (section 2.3).

use execution::message::RunStatus;

use crate::run::Run;
use crate::trap::Stop;

use super::{Arguments, Guest};

const CERTIFIED_DATA_BYTES_MAX: u64 = 32;
const PRINCIPAL_BYTES_MAX: u64 = 29;
/// Longest name of an environment variable that may be looked up, bytes.
const ENV_VAR_NAME_BYTES_MAX: u64 = 128;

pub(super) fn self_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.system.canister.as_slice().len() as u64)
}

pub(super) fn self_copy(guest: &mut Guest<'_>, &[dst, offset, size, ..]: &Arguments) -> Result<u64, Stop> {
    guest.copy(|run| run.invocation.system.canister.as_slice(), [dst, offset, size])
}

pub(super) fn subnet_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.system.subnet.as_slice().len() as u64)
}

pub(super) fn subnet_copy(guest: &mut Guest<'_>, &[dst, offset, size, ..]: &Arguments) -> Result<u64, Stop> {
    guest.copy(|run| run.invocation.system.subnet.as_slice(), [dst, offset, size])
}

pub(super) fn status(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(match guest.run().invocation.system.status {
        RunStatus::Running => 1,
        RunStatus::Stopping => 2,
        RunStatus::Stopped => 3,
    })
}

pub(super) fn version(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.system.version)
}

pub(super) fn time(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.system.time)
}

pub(super) fn in_replicated_execution(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(u64::from(guest.run().context.is_replicated()))
}

pub(super) fn is_controller(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    let name = guest.heap(src, size)?;
    if size > PRINCIPAL_BYTES_MAX {
        return Err(Stop::principal());
    }
    let controllers = &guest.run().invocation.system.controllers;
    Ok(u64::from(controllers.iter().any(|controller| controller.as_slice() == name)))
}

pub(super) fn performance_counter(guest: &mut Guest<'_>, &[kind, ..]: &Arguments) -> Result<u64, Stop> {
    match kind {
        0 => Ok(guest.instructions()),
        1 => {
            let earlier = guest.run().invocation.system.call_context_instructions;
            Ok(guest.instructions().saturating_add(earlier))
        }
        _ => Err(Stop::contract(format_args!(
            "ic0.performance_counter: the provided counter type {kind} is invalid"
        ))),
    }
}

pub(super) fn root_key_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.system.root_key.len() as u64)
}

pub(super) fn root_key_copy(
    guest: &mut Guest<'_>,
    &[dst, offset, size, ..]: &Arguments,
) -> Result<u64, Stop> {
    guest.copy(|run| &run.invocation.system.root_key, [dst, offset, size])
}

pub(super) fn data_certificate_present(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(u64::from(guest.run().invocation.system.data_certificate.is_some()))
}

fn require_certificate(guest: &Guest<'_>) -> Result<(), Stop> {
    if guest.run().invocation.system.data_certificate.is_none() {
        return Err(Stop::contract(format_args!("ic0.{}: no data certificate available", guest.name)));
    }
    Ok(())
}

fn certificate(run: &Run) -> &[u8] {
    run.invocation.system.data_certificate.as_deref().unwrap_or_default()
}

pub(super) fn data_certificate_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    require_certificate(guest)?;
    Ok(certificate(guest.run()).len() as u64)
}

pub(super) fn data_certificate_copy(
    guest: &mut Guest<'_>,
    &[dst, offset, size, ..]: &Arguments,
) -> Result<u64, Stop> {
    require_certificate(guest)?;
    guest.copy(certificate, [dst, offset, size])
}

pub(super) fn certified_data_set(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    if size > CERTIFIED_DATA_BYTES_MAX {
        return Err(Stop::contract(format_args!(
            "ic0.certified_data_set failed because the passed data must be no larger than \
             {CERTIFIED_DATA_BYTES_MAX} bytes. Found {size} bytes"
        )));
    }
    let bytes = guest.read(src, size)?;
    guest.run_mut().certified_data = Some(bytes);
    Ok(0)
}

pub(super) fn global_timer_set(guest: &mut Guest<'_>, &[time, ..]: &Arguments) -> Result<u64, Stop> {
    let run = guest.run_mut();
    let before = run.invocation.system.global_timer;
    Ok(run.global_timer.replace(time).unwrap_or(before))
}

pub(super) fn env_var_count(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.system.environment_variables.len() as u64)
}

fn variable<'g>(guest: &'g Guest<'_>, index: u64) -> Result<&'g (String, String), Stop> {
    let variables = &guest.run().invocation.system.environment_variables;
    usize::try_from(index).ok().and_then(|index| variables.get(index)).ok_or_else(|| {
        Stop::contract(format_args!(
            "ic0.{}: index {index} is out of bounds of {} environment variables",
            guest.name,
            variables.len()
        ))
    })
}

pub(super) fn env_var_name_size(guest: &mut Guest<'_>, &[index, ..]: &Arguments) -> Result<u64, Stop> {
    Ok(variable(guest, index)?.0.len() as u64)
}

pub(super) fn env_var_name_copy(
    guest: &mut Guest<'_>,
    &[index, dst, offset, size, ..]: &Arguments,
) -> Result<u64, Stop> {
    variable(guest, index)?;
    let index = usize::try_from(index).expect("an index of a variable");
    guest.copy(|run| run.invocation.system.environment_variables[index].0.as_bytes(), [dst, offset, size])
}

/// Finds the variable whose name stands in the heap.
fn lookup(guest: &Guest<'_>, src: u64, size: u64) -> Result<Option<usize>, Stop> {
    if size > ENV_VAR_NAME_BYTES_MAX {
        return Err(Stop::contract(format_args!(
            "ic0.{}: the name of an environment variable has at most {ENV_VAR_NAME_BYTES_MAX} bytes, found \
             {size}",
            guest.name
        )));
    }
    let name = std::str::from_utf8(guest.heap(src, size)?)
        .map_err(|_| Stop::contract(format_args!("ic0.{}: the name is not valid UTF-8", guest.name)))?;
    let variables = &guest.run().invocation.system.environment_variables;
    Ok(variables.iter().position(|(known, _)| known == name))
}

fn require_variable(guest: &Guest<'_>, src: u64, size: u64) -> Result<usize, Stop> {
    lookup(guest, src, size)?.ok_or_else(|| {
        Stop::contract(format_args!("ic0.{}: the environment variable does not exist", guest.name))
    })
}

pub(super) fn env_var_name_exists(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    Ok(u64::from(lookup(guest, src, size)?.is_some()))
}

pub(super) fn env_var_value_size(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    let index = require_variable(guest, src, size)?;
    Ok(guest.run().invocation.system.environment_variables[index].1.len() as u64)
}

pub(super) fn env_var_value_copy(
    guest: &mut Guest<'_>,
    &[name_src, name_size, dst, offset, size, ..]: &Arguments,
) -> Result<u64, Stop> {
    let index = require_variable(guest, name_src, name_size)?;
    guest.copy(|run| run.invocation.system.environment_variables[index].1.as_bytes(), [dst, offset, size])
}
