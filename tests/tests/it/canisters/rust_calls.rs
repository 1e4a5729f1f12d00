//! Rust canisters that call each other, Motoko canisters and the management canister.

use crate::drun::{FIRST, Script, id};

const MODULE: &str = "rust/caller.wasm";

fn pair() -> (Script, u64) {
    let mut script = Script::new();
    script.install(FIRST, MODULE, ());
    let other = script.create();
    script.install(other, MODULE, ());
    (script, other)
}

#[test]
fn bounded_and_unbounded_calls_are_answered() {
    let (mut script, other) = pair();
    let bounded = script.update(FIRST, "ping", (id(other), 4_u64));
    let mine = script.query(FIRST, "visits", ());
    let theirs = script.query(FIRST, "visits_of", (id(other),));
    let unbounded = script.update(FIRST, "ping_unbounded", (id(other), 3_u64));
    let answered = script.update(FIRST, "fan_out", (id(other), 6_u64));
    let seen = script.query(other, "visits", ());

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<u64>(bounded), 4);
    assert_eq!(run.value::<u64>(mine), 2003);
    assert_eq!(run.value::<u64>(theirs), 2002);
    assert_eq!(run.value::<u64>(unbounded), 3);
    assert_eq!(run.value::<u64>(answered), 6);
    // Two more visits of the unbounded bounces and six of the fan.
    assert_eq!(run.value::<u64>(seen), 2010);
}

#[test]
fn what_was_written_before_an_await_outlives_a_trap_after_it() {
    let (mut script, other) = pair();
    let trapped = script.update(FIRST, "trap_after_await", (id(other),));
    let mine = script.query(FIRST, "visits", ());
    let panicked = script.update(other, "panic_now", ());
    let theirs = script.query(other, "visits", ());
    let missing = script.update(FIRST, "call_missing", (id(other),));
    let panicking = script.update(FIRST, "call_panicking", (id(other),));

    let run = script.run_in_all_modes();
    run.assert_error(trapped, "IC0503", "trap after await");
    assert_eq!(run.value::<u64>(mine), 100);
    run.assert_error(panicked, "IC0503", "panic before any call");
    assert_eq!(run.value::<u64>(theirs), 1);
    let text: String = run.value(missing);
    assert!(text.contains("no_such_method"), "{text}");
    let text: String = run.value(panicking);
    assert!(text.contains("panic before any call"), "{text}");
}

#[test]
fn cycles_travel_with_a_call_and_what_is_left_comes_back() {
    let (mut script, other) = pair();
    let sent = script.update(FIRST, "send_cycles", (id(other), 1_000_000_000_u128, 400_000_000_u128));
    let balance = script.query(FIRST, "cycles", ());
    let direct = script.update(FIRST, "accept", (1_u128,));

    let run = script.run_in_all_modes();
    assert_eq!(run.values::<(u128, u128)>(sent), (400_000_000, 600_000_000));
    assert!(run.value::<u128>(balance) <= 1_000_000_000_000_000 - 400_000_000);
    assert_eq!(run.value::<u128>(direct), 0);
}

#[test]
fn the_management_canister_gives_the_same_randomness_in_every_mode() {
    let mut script = Script::new();
    script.install(FIRST, MODULE, ());
    let first = script.update(FIRST, "random", ());
    let second = script.update(FIRST, "random", ());

    let run = script.run_in_all_modes();
    let (first, second): (Vec<u8>, Vec<u8>) = (run.value(first), run.value(second));
    assert_eq!((first.len(), second.len()), (32, 32));
    assert_ne!(first, second);
}
