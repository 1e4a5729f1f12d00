//! The System API's functions and their types (`canister-execution.md` section 2): what a module may
//! import, and what the runtime links. One table for both.

/// A parameter or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum P {
    /// Pointer-sized: `i64` where the heap is 64-bit, else `i32` (also without a heap).
    I,
    /// `i32`
    I32,
    /// `i64`
    I64,
}

/// A function of module `ic0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiFunction {
    /// Name without the module.
    pub name: &'static str,
    /// Parameters.
    pub params: &'static [P],
    /// Result.
    pub result: Option<P>,
    /// Whether it exists only for 32-bit heaps.
    pub legacy32: bool,
}

use P::{I, I32, I64};

/// Finds a function by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static ApiFunction> {
    FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok().map(|index| &FUNCTIONS[index])
}

/// Where a function stands in [`FUNCTIONS`], for constants.
///
/// # Panics
/// When there is no such function.
pub(crate) const fn index(name: &str) -> usize {
    let mut index = 0;
    while index < FUNCTIONS.len() {
        if same(FUNCTIONS[index].name.as_bytes(), name.as_bytes()) {
            return index;
        }
        index += 1;
    }
    panic!("no such function")
}

/// Whether two texts are the same; `==` isn't for constants.
const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

const fn function(name: &'static str, params: &'static [P], result: Option<P>) -> ApiFunction {
    ApiFunction { name, params, result, legacy32: false }
}

const fn legacy(name: &'static str, params: &'static [P], result: Option<P>) -> ApiFunction {
    ApiFunction { name, params, result, legacy32: true }
}

/// All functions, sorted by name.
pub const FUNCTIONS: [ApiFunction; 76] = [
    function("accept_message", &[], None),
    legacy("call_cycles_add", &[I64], None),
    function("call_cycles_add128", &[I64, I64], None),
    function("call_data_append", &[I, I], None),
    function("call_new", &[I, I, I, I, I, I, I, I], None),
    function("call_on_cleanup", &[I, I], None),
    function("call_perform", &[], Some(I32)),
    function("call_with_best_effort_response", &[I32], None),
    legacy("canister_cycle_balance", &[], Some(I64)),
    function("canister_cycle_balance128", &[I], None),
    function("canister_liquid_cycle_balance128", &[I], None),
    function("canister_self_copy", &[I, I, I], None),
    function("canister_self_size", &[], Some(I)),
    function("canister_status", &[], Some(I32)),
    function("canister_version", &[], Some(I64)),
    function("certified_data_set", &[I, I], None),
    function("cost_call", &[I64, I64, I], None),
    function("cost_create_canister", &[I], None),
    function("cost_http_request", &[I64, I64, I], None),
    function("cost_http_request_v2", &[I, I, I], None),
    function("cost_sign_with_ecdsa", &[I, I, I32, I], Some(I32)),
    function("cost_sign_with_schnorr", &[I, I, I32, I], Some(I32)),
    function("cost_vetkd_derive_key", &[I, I, I32, I], Some(I32)),
    function("cycles_burn128", &[I64, I64, I], None),
    function("data_certificate_copy", &[I, I, I], None),
    function("data_certificate_present", &[], Some(I32)),
    function("data_certificate_size", &[], Some(I)),
    function("debug_print", &[I, I], None),
    function("env_var_count", &[], Some(I)),
    function("env_var_name_copy", &[I, I, I, I], None),
    function("env_var_name_exists", &[I, I], Some(I32)),
    function("env_var_name_size", &[I], Some(I)),
    function("env_var_value_copy", &[I, I, I, I, I], None),
    function("env_var_value_size", &[I, I], Some(I)),
    function("global_timer_set", &[I64], Some(I64)),
    function("in_replicated_execution", &[], Some(I32)),
    function("is_controller", &[I, I], Some(I32)),
    function("mint_cycles128", &[I64, I64, I], None),
    function("msg_arg_data_copy", &[I, I, I], None),
    function("msg_arg_data_size", &[], Some(I)),
    function("msg_caller_copy", &[I, I, I], None),
    function("msg_caller_info_data_copy", &[I, I, I], None),
    function("msg_caller_info_data_size", &[], Some(I)),
    function("msg_caller_info_signer_copy", &[I, I, I], None),
    function("msg_caller_info_signer_size", &[], Some(I)),
    function("msg_caller_size", &[], Some(I)),
    legacy("msg_cycles_accept", &[I64], Some(I64)),
    function("msg_cycles_accept128", &[I64, I64, I], None),
    legacy("msg_cycles_available", &[], Some(I64)),
    function("msg_cycles_available128", &[I], None),
    legacy("msg_cycles_refunded", &[], Some(I64)),
    function("msg_cycles_refunded128", &[I], None),
    function("msg_deadline", &[], Some(I64)),
    function("msg_method_name_copy", &[I, I, I], None),
    function("msg_method_name_size", &[], Some(I)),
    function("msg_reject", &[I, I], None),
    function("msg_reject_code", &[], Some(I32)),
    function("msg_reject_msg_copy", &[I, I, I], None),
    function("msg_reject_msg_size", &[], Some(I)),
    function("msg_reply", &[], None),
    function("msg_reply_data_append", &[I, I], None),
    function("performance_counter", &[I32], Some(I64)),
    function("root_key_copy", &[I, I, I], None),
    function("root_key_size", &[], Some(I)),
    function("stable64_grow", &[I64], Some(I64)),
    function("stable64_read", &[I64, I64, I64], None),
    function("stable64_size", &[], Some(I64)),
    function("stable64_write", &[I64, I64, I64], None),
    legacy("stable_grow", &[I32], Some(I32)),
    legacy("stable_read", &[I32, I32, I32], None),
    legacy("stable_size", &[], Some(I32)),
    legacy("stable_write", &[I32, I32, I32], None),
    function("subnet_self_copy", &[I, I, I], None),
    function("subnet_self_size", &[], Some(I)),
    function("time", &[], Some(I64)),
    function("trap", &[I, I], None),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_holds_nine_legacy_functions() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(FUNCTIONS.iter().filter(|function| function.legacy32).count(), 9);
    }
}
