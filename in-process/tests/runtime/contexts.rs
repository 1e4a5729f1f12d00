//! A: which function may be used in which context.

use std::sync::Arc;

use execution::{Callback, EntryPoint, ErrorCode};
use in_process::api::{FUNCTIONS, P};
use in_process::{Context, available};

use crate::canister::{Canister, assert_trap, import, module, reply_of};

const CALLBACK: Callback = Callback { function: 0, environment: 0 };

pub(crate) fn entry(context: Context) -> EntryPoint {
    let (method, arg): (String, Arc<[u8]>) = ("m".into(), Arc::from([1, 2, 3]));
    let data = Arc::clone(&arg);
    let composite = context.is_composite();
    let message = "no".to_owned();
    match context {
        Context::Start => EntryPoint::Start,
        Context::Init => EntryPoint::Init { arg },
        Context::PreUpgrade => EntryPoint::PreUpgrade,
        Context::Update => EntryPoint::Update { method, arg },
        Context::ReplicatedQuery => EntryPoint::ReplicatedQuery { method: "q".into(), arg },
        Context::Query => EntryPoint::Query { method: "q".into(), arg },
        Context::Transform => EntryPoint::Transform { method: "q".into(), arg },
        Context::CompositeQuery => EntryPoint::CompositeQuery { method: "c".into(), arg },
        Context::Reply | Context::CompositeReply => EntryPoint::Reply { callback: CALLBACK, data, composite },
        Context::Reject | Context::CompositeReject => {
            EntryPoint::Reject { callback: CALLBACK, code: 4, message, composite }
        }
        Context::Cleanup | Context::CompositeCleanup => {
            EntryPoint::Cleanup { callback: CALLBACK, code: 0, composite }
        }
        Context::Inspect => EntryPoint::InspectMessage { method, arg },
        Context::Heartbeat => EntryPoint::Heartbeat,
        Context::GlobalTimer => EntryPoint::GlobalTimer,
        Context::LowWasmMemory => EntryPoint::LowWasmMemory,
    }
}

/// A module that calls one function in every context: with zeros, but for the parameters `sizes`.
pub(crate) fn calling(name: &str, pointer: &str, sizes: &[usize], bytes: u64) -> String {
    let function = in_process::api::find(name).unwrap();
    let arguments: String = function
        .params
        .iter()
        .enumerate()
        .map(|(index, p)| {
            let ty = match p {
                P::I => pointer,
                P::I32 => "i32",
                P::I64 => "i64",
            };
            let value = if sizes.contains(&index) { bytes } else { 0 };
            format!("({ty}.const {value})")
        })
        .collect();
    let drop = if function.result.is_some() { "drop" } else { "" };
    let memory = if pointer == "i64" { "i64 1" } else { "1" };
    format!(
        "(module {} (memory {memory}) (table 1 1 funcref) (elem (i32.const 0) $callback)
          (func $all (call ${name} {arguments}) {drop})
          (func $callback (param {pointer}) (call $all))
          (start $all)
          (export \"canister_init\" (func $all)) (export \"canister_pre_upgrade\" (func $all))
          (export \"canister_inspect_message\" (func $all)) (export \"canister_heartbeat\" (func $all))
          (export \"canister_global_timer\" (func $all))
          (export \"canister_on_low_wasm_memory\" (func $all))
          (export \"canister_update m\" (func $all)) (export \"canister_query q\" (func $all))
          (export \"canister_composite_query c\" (func $all)))",
        import(name, pointer)
    )
}

#[test]
fn each_function_works_in_its_contexts_and_traps_in_all_others() {
    for pointer in ["i32", "i64"] {
        for function in FUNCTIONS.iter().filter(|function| !(function.legacy32 && pointer == "i64")) {
            let canister = Canister::new(&calling(function.name, pointer, &[], 0));
            for context in Context::ALL {
                let outcome = canister.run(entry(context));
                let words =
                    format!("\"ic0_{}\" cannot be executed in {} mode", function.name, context.name());
                let refused = matches!(&outcome.ending, execution::Ending::Trapped(trap)
                    if trap.code == ErrorCode::CONTRACT_VIOLATION && trap.text.ends_with(&words));
                let allowed = available(function.name, context).unwrap();
                assert_eq!(refused, !allowed, "{} in {context:?}: {:?}", function.name, outcome.ending);
            }
        }
    }
}

/// Rows of the reference, written out: the table that the code uses is checked against them.
#[test]
fn the_table_agrees_with_the_reference() {
    use Context::*;
    let tasks = [Heartbeat, GlobalTimer, LowWasmMemory];
    let rows: [(&str, &[Context], bool); 12] = [
        (
            "msg_arg_data_size",
            &[
                Init,
                Update,
                ReplicatedQuery,
                Query,
                Transform,
                CompositeQuery,
                Reply,
                CompositeReply,
                Inspect,
            ],
            false,
        ),
        ("msg_reject_code", &[Reply, Reject, CompositeReply, CompositeReject, Cleanup], false),
        ("msg_reject_msg_size", &[Reject, CompositeReject], false),
        (
            "msg_reply",
            &[
                Update,
                ReplicatedQuery,
                Query,
                Transform,
                CompositeQuery,
                Reply,
                Reject,
                CompositeReply,
                CompositeReject,
            ],
            false,
        ),
        ("certified_data_set", &[Init, PreUpgrade, Update, Reply, Reject], true),
        ("global_timer_set", &[Init, PreUpgrade, Update, Reply, Reject, Cleanup], true),
        ("root_key_size", &[Init, PreUpgrade, Update, ReplicatedQuery, Reply, Reject, Cleanup], true),
        ("call_new", &[Update, CompositeQuery, Reply, Reject, CompositeReply, CompositeReject], true),
        ("call_cycles_add128", &[Update, Reply, Reject], true),
        ("msg_cycles_accept128", &[Update, ReplicatedQuery, Reply, Reject], false),
        ("data_certificate_size", &[Query, CompositeQuery], false),
        ("accept_message", &[Inspect], false),
    ];
    for (name, contexts, in_tasks) in rows {
        for context in Context::ALL {
            let expected = contexts.contains(&context) || (in_tasks && tasks.contains(&context));
            assert_eq!(available(name, context), Some(expected), "{name} in {context:?}");
        }
    }
    for name in ["time", "msg_caller_size", "canister_status", "env_var_count", "canister_self_size"] {
        for context in Context::ALL {
            assert_eq!(available(name, context), Some(context != Start), "{name} in {context:?}");
        }
    }
    for name in ["debug_print", "trap", "stable64_write", "performance_counter", "is_controller", "cost_call"]
    {
        assert!(Context::ALL.iter().all(|&context| available(name, context) == Some(true)), "{name}");
    }
}

#[test]
fn in_replicated_execution_tells_the_modes_apart() {
    let wat = module(
        &["in_replicated_execution", "msg_reply_data_append", "msg_reply"],
        "(func $m (i32.store8 (i32.const 0) (call $in_replicated_execution))
           (call $msg_reply_data_append (i32.const 0) (i32.const 1)) (call $msg_reply))
         (export \"canister_update m\" (func $m)) (export \"canister_query q\" (func $m))
         (export \"canister_composite_query c\" (func $m))",
    );
    let canister = Canister::new(&wat);
    let expected = [
        (Context::Update, 1),
        (Context::ReplicatedQuery, 1),
        (Context::Query, 0),
        (Context::CompositeQuery, 0),
    ];
    for (context, value) in expected {
        assert_eq!(reply_of(&canister.run(entry(context))), [value], "{context:?}");
    }
}

#[test]
fn performance_counter_of_an_unknown_type_traps() {
    let wat = module(
        &["performance_counter"],
        "(func (export \"canister_update m\") (drop (call $performance_counter (i32.const 2))))",
    );
    let outcome = Canister::new(&wat).update("m", &[]);
    assert_trap(&outcome, ErrorCode::CONTRACT_VIOLATION, "counter type 2");
}

#[test]
fn a_second_accept_message_traps() {
    let wat = module(
        &["accept_message"],
        "(func (export \"canister_inspect_message\") (call $accept_message) (call $accept_message))",
    );
    let outcome = Canister::new(&wat).run(entry(Context::Inspect));
    assert_trap(&outcome, ErrorCode::CONTRACT_VIOLATION, "already called");
}
