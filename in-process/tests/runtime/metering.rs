//! MT: what the System API costs; the counter; dirty pages.

use execution::{EntryPoint, ErrorCode};
use in_process::api::FUNCTIONS;
use in_process::{Context, available};

use crate::canister::{Canister, assert_trap, import, module, update};
use crate::contexts::{calling, entry};

/// Instructions that `body` costs: a run with it less a run without.
fn cost(imports: &[&str], body: &str) -> u64 {
    let run = |body: &str| {
        let wat = module(imports, &format!("(func (export \"canister_update m\") {body})"));
        let outcome = Canister::new(&wat).update("m", &[7; 64]);
        assert_eq!(outcome.ending, execution::Ending::Returned, "{body}");
        outcome.instructions - 1_000 * outcome.heap_pages_dirty
    };
    run(body) - run("")
}

/// 5 for the call itself, and 1 for each constant and drop.
#[test]
fn functions_cost_their_overhead_and_their_bytes() {
    let copy = "(i32.const 0) (i32.const 0) (i32.const 10)";
    for (name, body, price) in [
        ("time", "(drop (call $time))".to_owned(), 6 + 500),
        ("performance_counter", "(drop (call $performance_counter (i32.const 0)))".into(), 7 + 200),
        ("msg_arg_data_copy", format!("(call $msg_arg_data_copy {copy})"), 8 + 500 + 10),
        ("msg_reply_data_append", "(call $msg_reply_data_append (i32.const 0) (i32.const 10))".into(), 7 + 500 + 500),
        ("is_controller", "(drop (call $is_controller (i32.const 0) (i32.const 10)))".into(), 8 + 1_000 + 10),
        ("debug_print", "(call $debug_print (i32.const 0) (i32.const 10))".into(), 7 + 100 + 20 + 500),
        ("stable64_size", "(drop (call $stable64_size))".into(), 6),
        ("stable64_grow", "(drop (call $stable64_grow (i64.const 1)))".into(), 7 + 100),
        (
            "call_new",
            "(call $call_new (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0)
               (i32.const 0) (i32.const 0))"
                .into(),
            13 + 1_500 + 7,
        ),
    ] {
        assert_eq!(cost(&[name], &body), price, "{name}");
    }
}

/// Names, the fixed part, what each byte costs, and which parameters count bytes, as section 2 of the reference has
/// it. The rest costs 500.
const PRICES: &[(&[&str], u64, u64, &[usize])] = &[
    (&["stable64_size", "stable_size", "mint_cycles128"], 0, 0, &[]),
    (&["stable64_grow", "stable_grow"], 100, 0, &[]),
    (&["stable64_read", "stable64_write", "stable_read", "stable_write"], 20, 1, &[2]),
    (&["performance_counter"], 200, 0, &[]),
    (&["is_controller"], 1_000, 1, &[1]),
    (&["call_perform"], 5_000, 0, &[]),
    (&["call_new"], 1_500, 1, &[1, 3]),
    (&["cost_http_request_v2"], 10_000, 0, &[]),
    (&["msg_reply_data_append", "msg_reject", "call_data_append"], 500, 50, &[1]),
    // 2 for each byte that the log could take, 50 for each that it has room for.
    (&["debug_print"], 100, 2 + 50, &[1]),
    (&["trap"], 500, 1 + 2 + 50, &[1]),
    (
        &["certified_data_set", "cost_sign_with_ecdsa", "cost_sign_with_schnorr", "cost_vetkd_derive_key"],
        500,
        1,
        &[1],
    ),
    (
        &[
            "canister_self_copy",
            "data_certificate_copy",
            "msg_arg_data_copy",
            "msg_caller_copy",
            "msg_caller_info_data_copy",
            "msg_caller_info_signer_copy",
            "msg_method_name_copy",
            "msg_reject_msg_copy",
            "root_key_copy",
            "subnet_self_copy",
        ],
        500,
        1,
        &[2],
    ),
    (&["env_var_name_copy"], 500, 1, &[3]),
    (&["env_var_value_copy"], 500, 1, &[4]),
];

/// All 76 functions, each where it may be used, with both widths of pointers. Whether the call goes well is no matter:
/// it is charged before anything is looked at.
#[test]
fn each_function_costs_what_the_reference_says() {
    for pointer in ["i32", "i64"] {
        for function in FUNCTIONS.iter().filter(|function| !(function.legacy32 && pointer == "i64")) {
            let name = function.name;
            let row = PRICES.iter().find(|(names, ..)| names.contains(&name));
            let (fixed, each, sizes) =
                row.map_or((500, 0, &[][..]), |(_, fixed, each, sizes)| (*fixed, *each, *sizes));
            let context = Context::ALL
                .into_iter()
                .find(|&context| context != Context::Start && available(name, context) == Some(true));
            let context = context.expect("each function may be used somewhere");
            for bytes in [0, 10] {
                let outcome = Canister::new(&calling(name, pointer, sizes, bytes)).run(entry(context));
                let page = if pointer == "i64" { 4_000 } else { 1_000 };
                let counted = outcome.instructions - page * outcome.heap_pages_dirty;
                // The function's entry, its constants, the call, and a drop; a callback calls the function.
                let in_callback = matches!(context, Context::Reply | Context::Reject);
                let callback = if in_callback { 1 + 5 } else { 0 };
                let around =
                    callback + 1 + function.params.len() as u64 + 5 + u64::from(function.result.is_some());
                let price = fixed + each * bytes * sizes.len() as u64;
                assert_eq!(counted - around, price, "{name} of {bytes} bytes, {pointer}, {context:?}");
            }
        }
    }
}

/// A function of one price is paid by the code that calls it; where that can't be seen, by a function in its place.
#[test]
fn a_function_costs_the_same_whoever_calls_it() {
    let instructions = |rest: &str| {
        let outcome = Canister::new(&module(&["msg_reply", "time"], rest)).update("m", &[]);
        assert_eq!(outcome.ending, execution::Ending::Returned, "{rest}");
        outcome.instructions
    };
    // A function's entry, a constant, and the instruction with its result dropped; a callee's entry.
    for (rest, price) in [
        ("(func (export \"canister_update m\") (drop (call $time)))", 1 + 6 + 500),
        (
            "(table 1 funcref) (elem (i32.const 0) $time) (type $t (func (result i64)))
             (func (export \"canister_update m\") (drop (call_indirect (type $t) (i32.const 0))))",
            1 + 1 + 11 + 500,
        ),
        (
            "(table 2 funcref) (elem (i32.const 1) funcref (ref.func $time)) (type $t (func (result i64)))
             (func (export \"canister_update m\") (drop (call_indirect (type $t) (i32.const 1))))",
            1 + 1 + 11 + 500,
        ),
        (
            "(func $last (result i64) (return_call $time))
             (func (export \"canister_update m\") (drop (call $last)))",
            1 + 6 + 1 + 3 + 500,
        ),
        ("(export \"canister_update m\" (func $msg_reply))", 500),
    ] {
        assert_eq!(instructions(rest), price, "{rest}");
    }
}

/// Also one that costs nothing: it leaves the counter as it is, wherever that was before.
#[test]
fn what_was_spent_before_a_call_stays_spent() {
    let instructions = |name: &str, before: &str| {
        let rest = format!(
            "(table 1 funcref) (elem (i32.const 0) $work) (type $t (func))
             (func $work (local $n i32)
               (loop $l (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000)))))
             (func (export \"canister_update m\") {before} (drop (call ${name})) (block (nop)) (nop))"
        );
        let outcome = Canister::new(&module(&[name], &rest)).update("m", &[]);
        assert_eq!(outcome.ending, execution::Ending::Returned, "{rest}");
        outcome.instructions - 1_000 * outcome.heap_pages_dirty
    };
    // 1 for the function, and 1000 turns of eight.
    let work = 1 + 8 * 1_000;
    for name in ["stable64_size", "stable_size", "time"] {
        let price = if name == "time" { 500 } else { 0 };
        let own = 1 + 6 + price + 2;
        assert_eq!(instructions(name, ""), own, "{name}");
        assert_eq!(instructions(name, "(call $work)"), own + 5 + work, "{name} after a call");
        let indirect = "(call_indirect (type $t) (i32.const 0))";
        assert_eq!(instructions(name, indirect), own + 11 + work, "{name} after an indirect call");
        let fill = "(memory.fill (i32.const 0) (i32.const 0) (i32.const 5000))";
        assert_eq!(instructions(name, fill), own + 103 + 5_000, "{name} after a bulk operation");
    }
}

#[test]
fn a_function_that_costs_nothing_is_not_called_without_instructions() {
    let nops = "(nop)".repeat(1_000);
    let rest =
        format!("(func (export \"canister_update m\") (block (nop)) {nops} (drop (call $stable64_size)))");
    let outcome = Canister::new(&module(&["stable64_size"], &rest)).run_with(update("m", &[]), 500);
    assert_trap(&outcome, ErrorCode::INSTRUCTION_LIMIT, "500 instructions");
}

#[test]
fn call_perform_costs_5000() {
    let new =
        "(call $call_new (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0)
               (i32.const 0) (i32.const 0))";
    let imports = ["call_new", "call_perform"];
    let with = cost(&imports, &format!("{new} (drop (call $call_perform))"));
    assert_eq!(with - cost(&imports, new), 6 + 5_000);
}

#[test]
fn a_stable_page_is_charged_once_when_it_gets_dirty() {
    let imports = ["stable64_grow", "stable64_write"];
    let grow = "(drop (call $stable64_grow (i64.const 1)))";
    let write =
        |size: u32| format!("(call $stable64_write (i64.const 4090) (i64.const 0) (i64.const {size}))");
    let base = cost(&imports, grow);
    let once = cost(&imports, &format!("{grow} {}", write(1))) - base;
    assert_eq!(once, 8 + 20 + 1 + 1_000);
    let twice = cost(&imports, &format!("{grow} {0} {0}", write(1))) - base;
    assert_eq!(twice, once + 8 + 20 + 1);
    let two_pages = cost(&imports, &format!("{grow} {}", write(10))) - base;
    assert_eq!(two_pages, 8 + 20 + 10 + 2_000);
}

#[test]
fn printing_beyond_the_free_log_costs_less() {
    let body = "(call $debug_print (i32.const 0) (i32.const 4000))";
    let imports = ["debug_print"];
    let first = cost(&imports, body);
    assert_eq!(first, 7 + 100 + 2 * 4_000 + 50 * 4_000);
    // 96 bytes are free after the first.
    assert_eq!(cost(&imports, &format!("{body} {body}")) - first, 7 + 100 + 2 * 4_000 + 50 * 96);
}

#[test]
fn dirty_heap_pages_are_charged_after_the_run() {
    let wat = |memory: &str, width: &str| {
        let stores: String = (0..3)
            .map(|page| format!("({width}.store ({width}.const {}) ({width}.const 0))", page * 4096))
            .collect();
        format!(
            "(module (memory {memory}) (func (export \"canister_update m\") {stores})
            (func (export \"canister_update trap\") {stores} unreachable))"
        )
    };
    let narrow = Canister::new(&wat("1", "i32"));
    let wide = Canister::new(&wat("i64 1", "i64"));
    // Three stores of two constants each, one for the function; a store is 2 with 64 bits.
    assert_eq!(narrow.run(update("m", &[])).instructions, 10 + 3_000);
    assert_eq!(wide.run(update("m", &[])).instructions, 13 + 12_000);
    assert_eq!(narrow.run(update("trap", &[])).instructions, 11 + 3_000);
}

#[test]
fn out_of_instructions_names_the_limit_and_charges_all_of_it() {
    let wat = "(module (memory 1) (func (export \"canister_update m\") (loop (br 0))))";
    let outcome = Canister::new(wat).run_with(update("m", &[]), 100_000);
    assert_trap(
        &outcome,
        ErrorCode::INSTRUCTION_LIMIT,
        "Canister exceeded the limit of 100000 instructions for single message execution",
    );
    assert_eq!(outcome.instructions, 100_000);
}

#[test]
fn the_api_runs_out_of_instructions_before_it_looks_at_anything_else() {
    let wat = module(
        &["msg_reply_data_append", "accept_message"],
        "(func (export \"canister_update append\") (call $msg_reply_data_append (i32.const 0) (i32.const -1)))
         (func (export \"canister_update context\") (call $accept_message))",
    );
    let canister = Canister::new(&wat);
    for method in ["append", "context"] {
        let outcome = canister.run_with(update(method, &[]), 400);
        assert_trap(&outcome, ErrorCode::INSTRUCTION_LIMIT, "limit of 400");
        assert_eq!(outcome.instructions, 400);
    }
}

#[test]
fn dirty_pages_never_charge_more_than_the_limit() {
    let wat =
        "(module (memory 1) (func (export \"canister_update m\") (i32.store (i32.const 0) (i32.const 1))))";
    let outcome = Canister::new(wat).run_with(update("m", &[]), 500);
    assert_eq!((outcome.instructions, outcome.effects.is_some()), (500, true));
}

#[test]
fn performance_counters_count_this_message_and_the_context() {
    let wat = format!(
        "(module {} (memory 1) (table 1 1 funcref) (elem (i32.const 0) $f)
          (func $f (param i32)
            (i64.store (i32.const 0) (call $performance_counter (i32.const 0)))
            (i64.store (i32.const 8) (call $performance_counter (i32.const 1)))))",
        import("performance_counter", "i32")
    );
    let mut canister = Canister::new(&wat);
    canister.system.call_context_instructions = 10_000;
    let entry = EntryPoint::Reply {
        callback: execution::Callback { function: 0, environment: 0 },
        data: [].into(),
        composite: false,
    };
    let effects = canister.run(entry).effects.unwrap();
    let page = effects.memory.heap[0].1.clone();
    let number = |at: usize| u64::from_le_bytes(page.bytes()[at..at + 8].try_into().unwrap());
    // One block: all of it is charged on entry; each call has its own 200.
    assert_eq!(number(8) - number(0), 10_000 + 200);
    assert_eq!(number(0), 1 + 2 * (1 + 1 + 5 + 1) + 200);
}
