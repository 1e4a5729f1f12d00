//! Calls to other canisters (section 2.5).

use execution::outcome::OutgoingCall;
use execution::{Cycles, Principal};

use crate::run::{Run, callback};
use crate::trap::Stop;

use super::{Arguments, Guest, cycles};

const PRINCIPAL_BYTES_MAX: u64 = 29;
/// Longest wait of a best-effort call, seconds.
const TIMEOUT_SECONDS_MAX: u32 = 300;
/// What `call_perform` returns when the call can't be sent.
const NOT_SENT: u64 = 2;

pub(super) fn new(
    guest: &mut Guest<'_>,
    &[callee_src, callee_size, name_src, name_size, reply_fun, reply_env, reject_fun, reject_env]: &Arguments,
) -> Result<u64, Stop> {
    guest.run_mut().drop_prepared();
    let name_max = guest.run().invocation.limits.method_name_bytes;
    if name_size > name_max {
        return Err(method_name_too_long(name_size, name_max));
    }
    let callee = guest.heap(callee_src, callee_size)?;
    if callee_size > PRINCIPAL_BYTES_MAX {
        return Err(Stop::principal());
    }
    let callee = Principal::try_from(callee).map_err(|_| Stop::principal())?;
    let method = String::from_utf8_lossy(guest.heap(name_src, name_size)?).into_owned();
    // Replacement characters make a name longer.
    if method.len() as u64 > name_max {
        return Err(method_name_too_long(method.len() as u64, name_max));
    }
    guest.run_mut().prepare(OutgoingCall {
        callee,
        method,
        arg: Vec::new(),
        cycles: 0,
        on_reply: callback(reply_fun, reply_env),
        on_reject: callback(reject_fun, reject_env),
        on_cleanup: None,
        timeout_seconds: None,
    });
    Ok(0)
}

fn method_name_too_long(bytes: u64, bytes_max: u64) -> Stop {
    Stop::contract(format_args!(
        "ic0.call_new: the method name has {bytes} bytes, at most {bytes_max} are allowed"
    ))
}

fn preparing<'g>(guest: &'g mut Guest<'_>) -> Result<&'g mut OutgoingCall, Stop> {
    let name = guest.name;
    guest
        .run_mut()
        .preparing
        .as_mut()
        .ok_or_else(|| Stop::contract(format_args!("ic0.{name} called when no call is under construction.")))
}

pub(super) fn on_cleanup(
    guest: &mut Guest<'_>,
    &[function, environment, ..]: &Arguments,
) -> Result<u64, Stop> {
    let call = preparing(guest)?;
    if call.on_cleanup.is_some() {
        return Err(Stop::contract(
            "ic0.call_on_cleanup can be called at most once between `ic0.call_new` and `ic0.call_perform`",
        ));
    }
    call.on_cleanup = Some(callback(function, environment));
    Ok(0)
}

pub(super) fn data_append(guest: &mut Guest<'_>, &[src, size, ..]: &Arguments) -> Result<u64, Stop> {
    let bytes_max = guest.run().invocation.limits.call_payload_bytes;
    let call = preparing(guest)?;
    let bytes = size.saturating_add((call.method.len() + call.arg.len()) as u64);
    if bytes > bytes_max {
        return Err(Stop::contract(format_args!(
            "ic0.call_data_append: the payload of a call has at most {bytes_max} bytes with its method name, \
             found {bytes}"
        )));
    }
    let data = guest.read(src, size)?;
    preparing(guest)?.arg.extend_from_slice(&data);
    Ok(0)
}

pub(super) fn with_best_effort_response(
    guest: &mut Guest<'_>,
    &[seconds, ..]: &Arguments,
) -> Result<u64, Stop> {
    let call = preparing(guest)?;
    if call.timeout_seconds.is_some() {
        return Err(Stop::contract(
            "ic0.call_with_best_effort_response: a timeout is already set for this call",
        ));
    }
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    call.timeout_seconds = Some(seconds.min(TIMEOUT_SECONDS_MAX));
    Ok(0)
}

pub(super) fn cycles_add(guest: &mut Guest<'_>, &[amount, ..]: &Arguments) -> Result<u64, Stop> {
    attach(guest, Cycles::from(amount))
}

pub(super) fn cycles_add128(guest: &mut Guest<'_>, &[high, low, ..]: &Arguments) -> Result<u64, Stop> {
    attach(guest, cycles::amount(high, low))
}

fn attach(guest: &mut Guest<'_>, amount: Cycles) -> Result<u64, Stop> {
    preparing(guest)?;
    let liquid = guest.run().liquid();
    if amount > liquid {
        return Err(Stop::out_of_cycles(&guest.run().invocation.system.canister, amount - liquid));
    }
    guest.run_mut().cycles.balance -= amount;
    let call = preparing(guest)?;
    call.cycles = call.cycles.saturating_add(amount);
    Ok(0)
}

/// Sends the call with the message's other effects, or gives its cycles back and returns 2.
pub(super) fn perform(guest: &mut Guest<'_>, _: &Arguments) -> Result<u64, Stop> {
    preparing(guest)?;
    let memory64 = guest.data().shape.memory64;
    let run = guest.run_mut();
    let Some(call) = run.preparing.take() else { return Ok(NOT_SENT) };
    match fee(run, &call, memory64) {
        Some(fee) => {
            run.cycles.balance -= fee;
            *run.queued.entry(queue_key(run, call.callee)).or_insert(0) += 1;
            run.calls_bytes += (call.method.len() + call.arg.len()) as u64;
            run.guaranteed += u64::from(call.timeout_seconds.is_none());
            run.calls.push(call);
            Ok(0)
        }
        None => {
            run.cycles.balance = run.cycles.balance.saturating_add(call.cycles);
            Ok(NOT_SENT)
        }
    }
}

/// What sending costs and sets aside now; `None` if the call can't be sent (section 4.4).
fn fee(run: &Run, call: &OutgoingCall, memory64: bool) -> Option<Cycles> {
    let limits = &run.invocation.limits;
    let system = &run.invocation.system;
    let key = queue_key(run, call.callee);
    let taken = system.queue_taken.iter().find(|(callee, _)| *callee == key).map_or(0, |(_, taken)| *taken);
    let queued = run.queued.get(&key).copied().unwrap_or(0).saturating_add(taken);
    let bytes = (call.method.len() + call.arg.len()) as u64;
    if run.calls.len() >= system.callbacks_free.min(limits.calls_per_message)
        || queued >= limits.queue_length
        || run.calls_bytes.saturating_add(bytes) > limits.calls_bytes
    {
        return None;
    }
    if run.context.is_composite() {
        return Some(0);
    }
    let fee = limits
        .call_fee(bytes)
        .saturating_add(limits.response_reservation())
        .saturating_add(limits.execution_price(memory64, limits.update_instructions));
    let guaranteed = u64::from(call.timeout_seconds.is_none());
    let liquid = run.freezing(guaranteed).liquid(limits, run.cycles.balance, run.grown_bytes);
    (fee <= liquid).then_some(fee)
}

/// All names of the management canister share one queue.
fn queue_key(run: &Run, callee: Principal) -> Principal {
    if callee == run.invocation.system.subnet { Principal::management_canister() } else { callee }
}
