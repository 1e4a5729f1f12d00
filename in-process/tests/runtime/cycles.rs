//! Y: cycles; CD: certified data; T: the timer.

use execution::{EntryPoint, ErrorCode, Freezing};

use crate::canister::{Canister, assert_trap, import, module};

const CYCLES: [&str; 12] = [
    "canister_cycle_balance",
    "canister_cycle_balance128",
    "canister_liquid_cycle_balance128",
    "msg_cycles_available",
    "msg_cycles_available128",
    "msg_cycles_accept",
    "msg_cycles_accept128",
    "cycles_burn128",
    "msg_reply_data_append",
    "msg_reply",
    "cost_call",
    "mint_cycles128",
];
/// Answers with the first 48 bytes of the heap.
const ANSWER: &str = "(call $msg_reply_data_append (i32.const 0) (i32.const 48)) (call $msg_reply)";

fn canister(body: &str) -> Canister {
    Canister::new(&module(&CYCLES, &format!("(func (export \"canister_update m\") {body} {ANSWER})")))
}

/// The three numbers of the answer.
fn numbers(canister: &mut Canister) -> [u128; 3] {
    let bytes = canister.reply("m", &[]);
    [0, 1, 2].map(|index| u128::from_le_bytes(bytes[16 * index..][..16].try_into().unwrap()))
}

#[test]
fn balances_have_128_bits() {
    let mut canister = canister(
        "(call $canister_cycle_balance128 (i32.const 0)) (call $canister_liquid_cycle_balance128 (i32.const 16))",
    );
    canister.system.balance = (1 << 70) + 5;
    canister.system.freezing =
        Freezing { memory_bytes: 1 << 30, threshold_seconds: 10, reserved: 70_000, ..Freezing::default() };
    // 127,000 per GiB and second.
    assert_eq!(numbers(&mut canister), [(1 << 70) + 5, (1 << 70) + 5 - (1_270_000 - 70_000), 0]);
}

#[test]
fn the_64_bit_functions_trap_on_larger_amounts() {
    for call in ["(drop (call $canister_cycle_balance))", "(drop (call $msg_cycles_available))"] {
        let mut canister = canister(call);
        canister.system.balance = 1 << 64;
        canister.system.cycles_available = 1 << 64;
        assert_trap(&canister.update("m", &[]), ErrorCode::CANISTER_TRAPPED, "exceeds 64-bit representation");
        canister.system.balance -= 1;
        canister.system.cycles_available -= 1;
        canister.reply("m", &[]);
    }
}

#[test]
fn no_more_is_accepted_than_there_is_and_none_after_the_answer() {
    let mut canister = canister(
        "(call $msg_cycles_accept128 (i64.const 0) (i64.const 4) (i32.const 0))
         (i64.store (i32.const 16) (call $msg_cycles_accept (i64.const 100)))
         (call $canister_cycle_balance128 (i32.const 32))",
    );
    canister.system.balance = 1_000_000;
    canister.system.cycles_available = 10;
    assert_eq!(numbers(&mut canister), [4, 6, 1_000_010]);
    let outcome = canister.update("m", &[]);
    assert_eq!(outcome.effects.unwrap().cycles_accepted, 10);

    let answered = "(call $msg_reply) (i64.store (i32.const 0) (call $msg_cycles_accept (i64.const 4)))";
    let wat = module(&CYCLES, &format!("(func (export \"canister_update m\") {answered})"));
    let mut canister = Canister::new(&wat);
    canister.system.cycles_available = 10;
    assert_eq!(canister.update("m", &[]).effects.unwrap().cycles_accepted, 0);
}

#[test]
fn burning_stops_at_the_liquid_balance() {
    let mut canister = canister(
        "(call $cycles_burn128 (i64.const -1) (i64.const -1) (i32.const 0))
         (call $canister_cycle_balance128 (i32.const 16))",
    );
    canister.system.balance = 2_000_000;
    canister.system.freezing =
        Freezing { memory_bytes: 1 << 30, threshold_seconds: 10, ..Freezing::default() };
    assert_eq!(numbers(&mut canister), [730_000, 1_270_000, 0]);
    assert_eq!(canister.update("m", &[]).effects.unwrap().cycles_burned, 730_000);
}

#[test]
fn attaching_more_than_liquid_traps() {
    let wat = module(
        &["call_new", "call_cycles_add128"],
        "(func (export \"canister_update m\")
           (call $call_new (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)
             (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
           (call $call_cycles_add128 (i64.const 0) (i64.const 1001)))",
    );
    let mut canister = Canister::new(&wat);
    canister.system.balance = 1_000;
    assert_trap(&canister.update("m", &[]), ErrorCode::CONTRACT_VIOLATION, "at least 1 additional cycles");
    canister.system.balance = 1_001;
    assert!(canister.update("m", &[]).effects.is_some());
}

#[test]
fn a_call_costs_what_cost_call_says() {
    let body = "(call $cost_call (i64.const 10) (i64.const 90) (i32.const 0))";
    let fee = 260_000 + 100 * 1_000 + 1_000 * 2_097_152 + 5_000_000 + 40_000_000_000;
    assert_eq!(numbers(&mut canister(body))[0], fee);
    let wide = format!(
        "(module {} {} {} (memory i64 1) (func (export \"canister_update m\")
           (call $cost_call (i64.const 10) (i64.const 90) (i64.const 0))
           (call $msg_reply_data_append (i64.const 0) (i64.const 48)) (call $msg_reply)))",
        import("cost_call", "i64"),
        import("msg_reply_data_append", "i64"),
        import("msg_reply", "i64")
    );
    assert_eq!(numbers(&mut Canister::new(&wide))[0], fee + 40_000_000_000);
}

#[test]
fn nobody_mints_here() {
    let outcome =
        canister("(call $mint_cycles128 (i64.const 0) (i64.const 1) (i32.const 0))").update("m", &[]);
    assert_trap(&outcome, ErrorCode::CONTRACT_VIOLATION, "non Cycles Minting Canister");
}

const SETTING: [&str; 2] = ["certified_data_set", "global_timer_set"];

#[test]
fn certified_data_has_at_most_32_bytes_and_the_last_wins() {
    let run = |body: &str| {
        let data = "(data (i32.const 0) \"0123456789012345678901234567890123\")";
        let wat = module(&SETTING, &format!("{data} (func (export \"canister_update m\") {body})"));
        Canister::new(&wat).update("m", &[])
    };
    let set = |size: u32| format!("(call $certified_data_set (i32.const 0) (i32.const {size}))");
    let outcome = run(&format!("{} {}", set(3), set(32)));
    assert_eq!(outcome.effects.unwrap().certified_data.unwrap().len(), 32);
    assert_trap(&run(&set(33)), ErrorCode::CONTRACT_VIOLATION, "no larger than 32");
}

#[test]
fn the_timer_gives_back_what_was_set_before() {
    let wat = module(
        &["global_timer_set"],
        "(func $f (i64.store (i32.const 0) (call $global_timer_set (i64.const 5)))
           (i64.store (i32.const 8) (call $global_timer_set (i64.const 0))))
         (export \"canister_update m\" (func $f)) (export \"canister_heartbeat\" (func $f))",
    );
    let mut canister = Canister::new(&wat);
    canister.system.global_timer = 9;
    for entry in [crate::canister::update("m", &[]), EntryPoint::Heartbeat] {
        let effects = canister.run(entry).effects.unwrap();
        let page = effects.memory.heap[0].1.clone();
        assert_eq!((page.bytes()[0], page.bytes()[8]), (9, 5));
        assert_eq!(effects.global_timer, Some(0));
    }
}
