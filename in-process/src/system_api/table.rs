//! Cost, contexts and implementation of each function, in the order of [`crate::api::FUNCTIONS`].

use wasmtime::Linker;

use crate::api;
use crate::context::Context::{
    self, Cleanup, CompositeCleanup, CompositeQuery, CompositeReject, CompositeReply, GlobalTimer, Heartbeat,
    Init, Inspect, LowWasmMemory, PreUpgrade, Query, Reject, ReplicatedQuery, Reply, Transform, Update,
};
use crate::context::Contexts;
use crate::instance::Data;
use crate::native::{self, Heap};

use super::{calls, cost, cycles, data, stable, status};

pub(crate) struct Entry {
    pub(super) name: &'static str,
    pub(super) cost: Cost,
    pub(super) contexts: Contexts,
    /// [`native::define`] with the function's implementation.
    pub(crate) define: Define,
}

type Define = fn(&mut Linker<Data>, Heap) -> Result<(), wasmtime::Error>;

/// Instructions charged before anything else happens.
pub(super) enum Cost {
    /// Always the same: the code that calls pays it (`docs/decisions/0013`).
    Fixed(u64),
    /// `each` more for each byte; `size` is the index of the parameter that counts them.
    Bytes {
        fixed: u64,
        each: u64,
        size: usize,
    },
    /// 1 more for each byte of two parameters.
    TwoSizes {
        fixed: u64,
        sizes: [usize; 2],
    },
    Print,
    Trap,
}

use Cost::{Bytes, Fixed, Print, Trap, TwoSizes};

const EVERY: Contexts = Contexts::of(&Context::ALL);
const TASK: Contexts = Contexts::of(&[Heartbeat, GlobalTimer, LowWasmMemory]);
/// `*`: all but `s`.
const ALL: Contexts = Contexts::of(&[
    Init,
    PreUpgrade,
    Update,
    ReplicatedQuery,
    Query,
    Transform,
    CompositeQuery,
    Reply,
    Reject,
    CompositeReply,
    CompositeReject,
    Cleanup,
    CompositeCleanup,
    Inspect,
])
.and(TASK);
const ARGUMENT: Contexts = Contexts::of(&[
    Init,
    Update,
    ReplicatedQuery,
    Query,
    Transform,
    CompositeQuery,
    Reply,
    CompositeReply,
    Inspect,
]);
const CALLER_INFO: Contexts = Contexts::of(&[
    Update,
    ReplicatedQuery,
    Query,
    CompositeQuery,
    Reply,
    Reject,
    CompositeReply,
    CompositeReject,
    Cleanup,
    CompositeCleanup,
    Inspect,
]);
const REJECT_CODE: Contexts = Contexts::of(&[Reply, Reject, CompositeReply, CompositeReject, Cleanup]);
const REJECT_TEXT: Contexts = Contexts::of(&[Reject, CompositeReject]);
const DEADLINE: Contexts = Contexts::of(&[
    Update,
    ReplicatedQuery,
    Query,
    CompositeQuery,
    Reply,
    Reject,
    CompositeReply,
    CompositeReject,
]);
const INSPECT: Contexts = Contexts::of(&[Inspect]);
const ANSWER: Contexts = Contexts::of(&[
    Update,
    ReplicatedQuery,
    Query,
    Transform,
    CompositeQuery,
    Reply,
    Reject,
    CompositeReply,
    CompositeReject,
]);
const ROOT_KEY: Contexts =
    Contexts::of(&[Init, PreUpgrade, Update, ReplicatedQuery, Reply, Reject, Cleanup]).and(TASK);
const CERTIFICATE: Contexts = Contexts::of(&[Query, CompositeQuery]);
const CERTIFY: Contexts = Contexts::of(&[Init, PreUpgrade, Update, Reply, Reject]).and(TASK);
const TIMER: Contexts = Contexts::of(&[Init, PreUpgrade, Update, Reply, Reject, Cleanup]).and(TASK);
const CYCLES_IN: Contexts = Contexts::of(&[Update, ReplicatedQuery, Reply, Reject]);
const CYCLES_BACK: Contexts = Contexts::of(&[Reply, Reject]);
const BURN: Contexts =
    Contexts::of(&[Init, PreUpgrade, Update, ReplicatedQuery, Reply, Reject, Cleanup]).and(TASK);
const CYCLES_OUT: Contexts = Contexts::of(&[Update, Reply, Reject]).and(TASK);
const CALL: Contexts =
    Contexts::of(&[Update, CompositeQuery, Reply, Reject, CompositeReply, CompositeReject]).and(TASK);

/// What a call of the function costs, if that is always the same: then it is for the code that calls to pay it.
#[cfg(feature = "compile")]
pub(crate) fn fixed_price(name: &str) -> Option<u64> {
    match find(name)?.cost {
        Fixed(instructions) => Some(instructions),
        _ => None,
    }
}

fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.binary_search_by(|entry| entry.name.cmp(name)).ok().map(|index| &ENTRIES[index])
}

/// Whether the function may be used in the context; `None`: no such function.
#[must_use]
pub fn available(name: &str, context: Context) -> Option<bool> {
    find(name).map(|entry| entry.contexts.contains(context))
}

macro_rules! entry {
    ($name:literal, $cost:expr, $contexts:expr, $handler:path) => {
        Entry {
            name: $name,
            cost: $cost,
            contexts: $contexts,
            define: |linker, heap| native::define::<{ api::index($name) }, _>(linker, heap, $handler),
        }
    };
}

/// 500 and 1 for each byte counted by parameter `size`.
const fn copy(size: usize) -> Cost {
    Bytes { fixed: 500, each: 1, size }
}

/// Bytes that leave the canister: 500 and 50 for each.
const fn send(size: usize) -> Cost {
    Bytes { fixed: 500, each: 50, size }
}

pub(crate) static ENTRIES: [Entry; 76] = [
    entry!("accept_message", Fixed(500), INSPECT, data::accept_message),
    entry!("call_cycles_add", Fixed(500), CYCLES_OUT, calls::cycles_add),
    entry!("call_cycles_add128", Fixed(500), CYCLES_OUT, calls::cycles_add128),
    entry!("call_data_append", send(1), CALL, calls::data_append),
    entry!("call_new", TwoSizes { fixed: 1_500, sizes: [1, 3] }, CALL, calls::new),
    entry!("call_on_cleanup", Fixed(500), CALL, calls::on_cleanup),
    entry!("call_perform", Fixed(5_000), CALL, calls::perform),
    entry!("call_with_best_effort_response", Fixed(500), CALL, calls::with_best_effort_response),
    entry!("canister_cycle_balance", Fixed(500), ALL, cycles::balance),
    entry!("canister_cycle_balance128", Fixed(500), ALL, cycles::balance128),
    entry!("canister_liquid_cycle_balance128", Fixed(500), ALL, cycles::liquid128),
    entry!("canister_self_copy", copy(2), ALL, status::self_copy),
    entry!("canister_self_size", Fixed(500), ALL, status::self_size),
    entry!("canister_status", Fixed(500), ALL, status::status),
    entry!("canister_version", Fixed(500), ALL, status::version),
    entry!("certified_data_set", copy(1), CERTIFY, status::certified_data_set),
    entry!("cost_call", Fixed(500), EVERY, cost::call),
    entry!("cost_create_canister", Fixed(500), EVERY, cost::create_canister),
    entry!("cost_http_request", Fixed(500), EVERY, cost::http_request),
    entry!("cost_http_request_v2", Fixed(10_000), EVERY, cost::http_request_v2),
    entry!("cost_sign_with_ecdsa", copy(1), EVERY, cost::sign_with_ecdsa),
    entry!("cost_sign_with_schnorr", copy(1), EVERY, cost::sign_with_schnorr),
    entry!("cost_vetkd_derive_key", copy(1), EVERY, cost::vetkd_derive_key),
    entry!("cycles_burn128", Fixed(500), BURN, cycles::burn128),
    entry!("data_certificate_copy", copy(2), CERTIFICATE, status::data_certificate_copy),
    entry!("data_certificate_present", Fixed(500), ALL, status::data_certificate_present),
    entry!("data_certificate_size", Fixed(500), CERTIFICATE, status::data_certificate_size),
    entry!("debug_print", Print, EVERY, data::debug_print),
    entry!("env_var_count", Fixed(500), ALL, status::env_var_count),
    entry!("env_var_name_copy", copy(3), ALL, status::env_var_name_copy),
    entry!("env_var_name_exists", Fixed(500), ALL, status::env_var_name_exists),
    entry!("env_var_name_size", Fixed(500), ALL, status::env_var_name_size),
    entry!("env_var_value_copy", copy(4), ALL, status::env_var_value_copy),
    entry!("env_var_value_size", Fixed(500), ALL, status::env_var_value_size),
    entry!("global_timer_set", Fixed(500), TIMER, status::global_timer_set),
    entry!("in_replicated_execution", Fixed(500), EVERY, status::in_replicated_execution),
    entry!("is_controller", Bytes { fixed: 1_000, each: 1, size: 1 }, EVERY, status::is_controller),
    entry!("mint_cycles128", Fixed(0), CYCLES_OUT, cycles::mint128),
    entry!("msg_arg_data_copy", copy(2), ARGUMENT, data::arg_copy),
    entry!("msg_arg_data_size", Fixed(500), ARGUMENT, data::arg_size),
    entry!("msg_caller_copy", copy(2), ALL, data::caller_copy),
    entry!("msg_caller_info_data_copy", copy(2), CALLER_INFO, data::caller_info_copy),
    entry!("msg_caller_info_data_size", Fixed(500), CALLER_INFO, data::caller_info_size),
    entry!("msg_caller_info_signer_copy", copy(2), CALLER_INFO, data::caller_info_copy),
    entry!("msg_caller_info_signer_size", Fixed(500), CALLER_INFO, data::caller_info_size),
    entry!("msg_caller_size", Fixed(500), ALL, data::caller_size),
    entry!("msg_cycles_accept", Fixed(500), CYCLES_IN, cycles::accept),
    entry!("msg_cycles_accept128", Fixed(500), CYCLES_IN, cycles::accept128),
    entry!("msg_cycles_available", Fixed(500), CYCLES_IN, cycles::available),
    entry!("msg_cycles_available128", Fixed(500), CYCLES_IN, cycles::available128),
    entry!("msg_cycles_refunded", Fixed(500), CYCLES_BACK, cycles::refunded),
    entry!("msg_cycles_refunded128", Fixed(500), CYCLES_BACK, cycles::refunded128),
    entry!("msg_deadline", Fixed(500), DEADLINE, data::deadline),
    entry!("msg_method_name_copy", copy(2), INSPECT, data::method_name_copy),
    entry!("msg_method_name_size", Fixed(500), INSPECT, data::method_name_size),
    entry!("msg_reject", send(1), ANSWER, data::reject),
    entry!("msg_reject_code", Fixed(500), REJECT_CODE, data::reject_code),
    entry!("msg_reject_msg_copy", copy(2), REJECT_TEXT, data::reject_message_copy),
    entry!("msg_reject_msg_size", Fixed(500), REJECT_TEXT, data::reject_message_size),
    entry!("msg_reply", Fixed(500), ANSWER, data::reply),
    entry!("msg_reply_data_append", send(1), ANSWER, data::reply_data_append),
    entry!("performance_counter", Fixed(200), EVERY, status::performance_counter),
    entry!("root_key_copy", copy(2), ROOT_KEY, status::root_key_copy),
    entry!("root_key_size", Fixed(500), ROOT_KEY, status::root_key_size),
    entry!("stable64_grow", Fixed(100), EVERY, stable::grow64),
    entry!("stable64_read", Bytes { fixed: 20, each: 1, size: 2 }, EVERY, stable::read64),
    entry!("stable64_size", Fixed(0), EVERY, stable::size64),
    entry!("stable64_write", Bytes { fixed: 20, each: 1, size: 2 }, EVERY, stable::write64),
    entry!("stable_grow", Fixed(100), EVERY, stable::grow32),
    entry!("stable_read", Bytes { fixed: 20, each: 1, size: 2 }, EVERY, stable::read32),
    entry!("stable_size", Fixed(0), EVERY, stable::size32),
    entry!("stable_write", Bytes { fixed: 20, each: 1, size: 2 }, EVERY, stable::write32),
    entry!("subnet_self_copy", copy(2), ALL, status::subnet_copy),
    entry!("subnet_self_size", Fixed(500), ALL, status::subnet_size),
    entry!("time", Fixed(500), ALL, status::time),
    entry!("trap", Trap, EVERY, data::trap),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_functions_of_the_type_table_in_its_order() {
        let here: Vec<_> = ENTRIES.iter().map(|entry| entry.name).collect();
        let types: Vec<_> = crate::api::FUNCTIONS.iter().map(|function| function.name).collect();
        assert_eq!(here, types);
    }
}
