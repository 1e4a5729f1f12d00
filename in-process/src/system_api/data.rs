//! Message data, answers, printing and trapping (sections 2.1, 2.2).

use execution::{Answer, EntryPoint};

use crate::context::Context;
use crate::run::LOG_LINE_BYTES_MAX;
use crate::trap::Stop;

use super::{Arguments, Guest};

pub(super) fn arg_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().payload().len() as u64)
}

pub(super) fn arg_copy(guest: &mut Guest<'_>, &[dst, offset, size, ..]: &Arguments) -> Result<u64, Stop> {
    guest.copy(|run| run.payload(), [dst, offset, size])
}

pub(super) fn caller_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.caller.as_slice().len() as u64)
}

pub(super) fn caller_copy(guest: &mut Guest<'_>, &[dst, offset, size, ..]: &Arguments) -> Result<u64, Stop> {
    guest.copy(|run| run.invocation.caller.as_slice(), [dst, offset, size])
}

/// Sender information of canister signatures, which don't reach this layer: always empty.
pub(super) fn caller_info_size(_: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(0)
}

pub(super) fn caller_info_copy(
    guest: &mut Guest<'_>,
    &[dst, offset, size, ..]: &Arguments,
) -> Result<u64, Stop> {
    guest.copy(|_| &[], [dst, offset, size])
}

pub(super) fn reject_code(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(match guest.run().invocation.entry {
        EntryPoint::Reject { code, .. } | EntryPoint::Cleanup { code, .. } => u64::from(code),
        _ => 0,
    })
}

pub(super) fn reject_message_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().reject_message().len() as u64)
}

pub(super) fn reject_message_copy(
    guest: &mut Guest<'_>,
    &[dst, offset, size, ..]: &Arguments,
) -> Result<u64, Stop> {
    guest.copy(|run| run.reject_message(), [dst, offset, size])
}

pub(super) fn deadline(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.system.deadline)
}

pub(super) fn method_name_size(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    Ok(guest.run().invocation.entry.method().unwrap_or_default().len() as u64)
}

pub(super) fn method_name_copy(
    guest: &mut Guest<'_>,
    &[dst, offset, size, ..]: &Arguments,
) -> Result<u64, Stop> {
    guest.copy(|run| run.invocation.entry.method().unwrap_or_default().as_bytes(), [dst, offset, size])
}

pub(super) fn accept_message(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    if std::mem::replace(&mut guest.run_mut().accepted, true) {
        return Err(Stop::contract("ic0.accept_message: the function was already called"));
    }
    Ok(0)
}

fn require_unanswered(guest: &Guest<'_>) -> Result<(), Stop> {
    if guest.run().is_answered() {
        return Err(Stop::contract(format_args!("ic0.{}: the call is already replied", guest.name)));
    }
    Ok(())
}

fn too_large(guest: &Guest<'_>, bytes: u64, bytes_max: u64) -> Result<(), Stop> {
    if bytes > bytes_max {
        return Err(Stop::contract(format_args!(
            "ic0.{}: application payload size ({bytes}) cannot be larger than {bytes_max}",
            guest.name
        )));
    }
    Ok(())
}

pub(super) fn reply_data_append(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    require_unanswered(guest)?;
    let limits = &guest.run().invocation.limits;
    let bytes_max = match guest.run().context {
        Context::Query | Context::CompositeQuery => limits.query_reply_bytes,
        _ => limits.payload_bytes,
    };
    too_large(guest, size.saturating_add(guest.run().reply.len() as u64), bytes_max)?;
    let bytes = guest.read(src, size)?;
    guest.run_mut().reply.extend_from_slice(&bytes);
    Ok(0)
}

pub(super) fn reply(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    require_unanswered(guest)?;
    let run = guest.run_mut();
    run.answer = Some(Answer::Reply(std::mem::take(&mut run.reply)));
    run.cycles.available = 0;
    Ok(0)
}

pub(super) fn reject(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    require_unanswered(guest)?;
    too_large(guest, size, guest.run().invocation.limits.payload_bytes)?;
    let text = String::from_utf8(guest.read(src, size)?)
        .map_err(|_| Stop::contract("ic0.msg_reject: invalid UTF-8 string provided"))?;
    let run = guest.run_mut();
    run.reply = Vec::new();
    run.answer = Some(Answer::Reject(text));
    run.cycles.available = 0;
    Ok(0)
}

/// Never traps: a bad range prints a fixed text.
pub(super) fn debug_print(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    let line = match guest.heap(src, size) {
        Ok(text) => text[..text.len().min(LOG_LINE_BYTES_MAX)].to_vec(),
        Err(_) => b"(debug_print message out of memory bounds)".to_vec(),
    };
    guest.run_mut().logs.push(line);
    Ok(0)
}

/// Always traps: a bad range gives a fixed text.
pub(super) fn trap(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    let message = match guest.heap(src, size) {
        Ok(text) => String::from_utf8_lossy(&text[..text.len().min(LOG_LINE_BYTES_MAX)]).into_owned(),
        Err(_) => "(trap message out of memory bounds)".to_owned(),
    };
    Err(Stop::CalledTrap(message))
}
