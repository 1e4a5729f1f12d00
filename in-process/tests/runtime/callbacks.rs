//! Callbacks through the table, and calls.

use execution::{Callback, Ending, EntryPoint, ErrorCode, Principal};

use crate::canister::{Canister, assert_trap, import, module, reply_callback};

const TABLE: &str = "(table 3 3 funcref) (elem (i32.const 0) $right $wrong)
    (func $right (param i32) (i32.store (i32.const 0) (local.get 0)))
    (func $wrong)";

#[test]
fn a_callback_gets_its_environment() {
    for environment in [0, 1, u64::from(u32::MAX)] {
        let outcome = Canister::new(&module(&[], TABLE)).run(reply_callback(0, environment, &[]));
        let page = outcome.effects.unwrap().memory.heap[0].1.clone();
        assert_eq!(&page.bytes()[..4], &environment.to_le_bytes()[..4]);
    }
}

#[test]
fn a_64_bit_callback_through_a_64_bit_table_gets_64_bits() {
    let wat = "(module (memory i64 1) (table i64 1 1 funcref) (elem (i64.const 0) $f)
        (func $f (param i64) (i64.store (i64.const 0) (local.get 0))))";
    let outcome = Canister::new(wat).run(reply_callback(0, u64::MAX - 1, &[]));
    let page = outcome.effects.unwrap().memory.heap[0].1.clone();
    assert_eq!(&page.bytes()[..8], &(u64::MAX - 1).to_le_bytes());
}

#[test]
fn wrong_callbacks_fail_when_the_response_arrives() {
    let canister = Canister::new(&module(&[], TABLE));
    let wrong_type = canister.run(reply_callback(1, 0, &[]));
    assert_trap(&wrong_type, ErrorCode::CONTRACT_VIOLATION, "signature");
    let null = canister.run(reply_callback(2, 0, &[]));
    assert_trap(&null, ErrorCode::CONTRACT_VIOLATION, "signature");
    let outside = canister.run(reply_callback(3, 0, &[]));
    assert_trap(&outside, ErrorCode::FUNCTION_NOT_FOUND, "non-existent Wasm function 3 from table 0");
    let no_table = Canister::new(&module(&[], "")).run(reply_callback(0, 0, &[]));
    assert_trap(&no_table, ErrorCode::FUNCTION_NOT_FOUND, "non-existent");
}

#[test]
fn call_indirect_traps_by_what_is_wrong() {
    let run = |index: u32| {
        let body = format!(
            "(func (export \"canister_update m\") (call_indirect (param i32) (i32.const 0) (i32.const {index})))"
        );
        Canister::new(&module(&[], &format!("{TABLE} {body}"))).update("m", &[])
    };
    assert_eq!(run(0).ending, Ending::Returned);
    assert_trap(&run(1), ErrorCode::CONTRACT_VIOLATION, "signature");
    assert_trap(&run(2), ErrorCode::CANISTER_TRAPPED, "unknown");
    assert_trap(&run(3), ErrorCode::CANISTER_TRAPPED, "table out of bounds");
}

const CALLS: [&str; 8] = [
    "call_new",
    "call_on_cleanup",
    "call_data_append",
    "call_cycles_add128",
    "call_perform",
    "call_with_best_effort_response",
    "msg_reply",
    "canister_cycle_balance128",
];
/// Calls method "go" of the one-byte principal "g".
const NEW: &str = "(call $call_new (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 2)
    (i32.const 1) (i32.const 2) (i32.const 3) (i32.const 4))";
const PERFORM: &str = "(drop (call $call_perform))";

fn calling(body: &str) -> Canister {
    Canister::new(&module(
        &CALLS,
        &format!("(data (i32.const 0) \"go\") (func (export \"canister_update m\") {body})"),
    ))
}

#[test]
fn a_call_carries_what_was_said() {
    let body = format!(
        "{NEW} (call $call_on_cleanup (i32.const 5) (i32.const 6))
         (call $call_data_append (i32.const 1) (i32.const 1))
         (call $call_cycles_add128 (i64.const 0) (i64.const 77))
         (call $call_with_best_effort_response (i32.const 1000)) {PERFORM}"
    );
    let effects = calling(&body).update("m", &[]).effects.unwrap();
    let [call] = &effects.calls[..] else { panic!("one call: {effects:?}") };
    assert_eq!(call.callee, Principal::from_slice(b"g"));
    assert_eq!((call.method.as_str(), &call.arg[..], call.cycles), ("go", &b"o"[..], 77));
    assert_eq!(call.on_reply, Callback { function: 1, environment: 2 });
    assert_eq!(call.on_reject, Callback { function: 3, environment: 4 });
    assert_eq!(call.on_cleanup, Some(Callback { function: 5, environment: 6 }));
    assert_eq!(call.timeout_seconds, Some(300));
}

#[test]
fn without_call_new_the_others_trap() {
    for body in [
        "(call $call_on_cleanup (i32.const 0) (i32.const 0))",
        "(call $call_data_append (i32.const 0) (i32.const 0))",
        "(call $call_cycles_add128 (i64.const 0) (i64.const 0))",
        "(call $call_with_best_effort_response (i32.const 0))",
        PERFORM,
    ] {
        assert_trap(
            &calling(body).update("m", &[]),
            ErrorCode::CONTRACT_VIOLATION,
            "no call is under construction",
        );
        let after = format!("{NEW} {PERFORM} {body}");
        assert_trap(
            &calling(&after).update("m", &[]),
            ErrorCode::CONTRACT_VIOLATION,
            "no call is under construction",
        );
    }
}

#[test]
fn twice_in_one_call_is_refused() {
    for (once, words) in [
        ("(call $call_on_cleanup (i32.const 0) (i32.const 0))", "at most once"),
        ("(call $call_with_best_effort_response (i32.const 1))", "already set"),
    ] {
        let outcome = calling(&format!("{NEW} {once} {once}")).update("m", &[]);
        assert_trap(&outcome, ErrorCode::CONTRACT_VIOLATION, words);
    }
}

#[test]
fn a_new_call_drops_the_one_before_and_an_unperformed_one_is_not_sent() {
    let body = format!("{NEW} (call $call_cycles_add128 (i64.const 0) (i64.const 9)) {NEW} {PERFORM} {NEW}");
    let effects = calling(&body).update("m", &[]).effects.unwrap();
    assert_eq!(effects.calls.len(), 1);
    assert_eq!(effects.calls[0].cycles, 0);
}

#[test]
fn names_principals_and_payloads_have_largest_sizes() {
    let new = |callee: u32, name: u32| {
        let body = format!(
            "(call $call_new (i32.const 0) (i32.const {callee}) (i32.const 0) (i32.const {name})
             (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))"
        );
        calling(&body).update("m", &[])
    };
    assert_eq!(new(29, 20_000).ending, Ending::Returned);
    assert_trap(&new(1, 20_001), ErrorCode::CONTRACT_VIOLATION, "method name");
    assert_trap(&new(30, 1), ErrorCode::CONTRACT_VIOLATION, "invalid principal id");

    let payload = |bytes: u32| {
        let wat = format!(
            "(module {} (memory 161) (data (i32.const 0) \"go\")
             (func (export \"canister_update m\") {NEW} (call $call_data_append (i32.const 0) (i32.const {bytes})) {PERFORM}))",
            CALLS.map(|name| import(name, "i32")).concat()
        );
        Canister::new(&wat).update("m", &[])
    };
    assert_eq!(payload((10 << 20) - 2).effects.unwrap().calls.len(), 1);
    assert_trap(&payload((10 << 20) - 1), ErrorCode::CONTRACT_VIOLATION, "payload");
}

#[test]
fn the_501st_call_to_one_callee_is_not_sent() {
    let body = format!(
        "(local $i i32) (loop $again {NEW} (drop (call $call_perform))
         (local.set $i (i32.add (local.get $i) (i32.const 1)))
         (br_if $again (i32.lt_u (local.get $i) (i32.const 500))))
         {NEW} (i32.store (i32.const 100) (call $call_perform))"
    );
    let mut canister = calling(&body);
    canister.system.balance = 1 << 100;
    let effects = canister.update("m", &[]).effects.unwrap();
    assert_eq!(effects.calls.len(), 500);
    assert_eq!(effects.memory.heap[0].1.bytes()[100], 2);
}

#[test]
fn a_call_that_cannot_be_paid_gives_its_cycles_back() {
    let body = format!(
        "{NEW} (call $call_cycles_add128 (i64.const 0) (i64.const 1000)) (i32.store (i32.const 100) (call $call_perform))
         (call $canister_cycle_balance128 (i32.const 104))"
    );
    let mut canister = calling(&body);
    // 260,000 + 2 bytes + reservations, less one cycle; and the 1,000 attached.
    let fee = 260_000 + 2 * 1_000 + 2_097_152 * 1_000 + 5_000_000 + 40_000_000_000_u128;
    canister.system.balance = fee + 1_000 - 1;
    let effects = canister.run(crate::canister::update("m", &[])).effects.unwrap();
    assert_eq!(effects.calls.len(), 0);
    let page = effects.memory.heap[0].1.clone();
    assert_eq!(page.bytes()[100], 2);
    assert_eq!(&page.bytes()[104..120], &canister.system.balance.to_le_bytes());
    canister.system.balance += 1;
    let effects = canister.run(crate::canister::update("m", &[])).effects.unwrap();
    assert_eq!(effects.calls.len(), 1);
    assert_eq!(&effects.memory.heap[0].1.bytes()[104..120], &[0; 16], "all spent");
}

#[test]
fn the_payload_of_each_callback_kind_is_its_own() {
    let wat = module(
        &["msg_reject_code", "msg_reject_msg_size", "msg_reject_msg_copy"],
        "(table 2 2 funcref) (elem (i32.const 0) $reject $cleanup)
         (func $reject (param i32) (i32.store8 (i32.const 0) (call $msg_reject_code))
            (call $msg_reject_msg_copy (i32.const 1) (i32.const 0) (call $msg_reject_msg_size)))
         (func $cleanup (param i32) (i32.store8 (i32.const 0) (call $msg_reject_code)))",
    );
    let canister = Canister::new(&wat);
    let callback = |function| Callback { function, environment: 0 };
    let reject =
        EntryPoint::Reject { callback: callback(0), code: 4, message: "no".into(), composite: false };
    let effects = canister.run(reject).effects.unwrap();
    assert_eq!(&effects.memory.heap[0].1.bytes()[..3], b"\x04no");
    let cleanup = EntryPoint::Cleanup { callback: callback(1), code: 5, composite: false };
    let effects = canister.run(cleanup).effects.unwrap();
    assert_eq!(effects.memory.heap[0].1.bytes()[0], 5);
}
