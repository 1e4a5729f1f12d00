//! Motoko canisters that call each other.

use candid::Nat;

use crate::drun::{FIRST, Script, id};

fn nat(value: u64) -> Nat {
    Nat::from(value)
}

/// A script with two peers, the first and another.
fn peers(first: &str, second: &str) -> (Script, u64) {
    let mut script = Script::new();
    script.install(FIRST, &format!("motoko/Peer-{first}.wasm"), ());
    let other = script.create();
    script.install(other, &format!("motoko/Peer-{second}.wasm"), ());
    (script, other)
}

fn replies(first: &str, second: &str) {
    let (mut script, other) = peers(first, second);
    let hops = script.update(FIRST, "ping", (id(other), nat(4)));
    let mine = script.query(FIRST, "get", ());
    let theirs = script.query(other, "get", ());
    let sum = script.update(FIRST, "fanOut", (id(other), nat(5)));
    let steps = script.update(other, "countDown", (nat(6),));
    script.update(FIRST, "notify", (id(other), nat(9000)));
    let bumped = script.update(other, "bump", (nat(0),));
    let both = script.query(FIRST, "getComposite", (id(other),));
    let twice = script.query(FIRST, "getTwice", (id(other),));
    let as_update = script.update(FIRST, "getComposite", (id(other),));

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<Nat>(hops), nat(4));
    assert_eq!(run.value::<Nat>(mine), nat(2003));
    assert_eq!(run.value::<Nat>(theirs), nat(2002));
    // The peer replies 2003, 2004, ... 2007.
    assert_eq!(run.value::<Nat>(sum), nat(10_025));
    assert_eq!(run.value::<Nat>(steps), nat(6));
    assert_eq!(run.value::<Nat>(bumped), nat(11_007));
    assert_eq!(run.value::<Nat>(both), nat(11_007 + 2003));
    assert_eq!(run.value::<Nat>(twice), nat(11_007 * 2));
    run.assert_error(as_update, "IC0527", "");
}

#[test]
fn two_32_bit_canisters_call_each_other() {
    replies("classic", "classic");
}

#[test]
fn two_64_bit_canisters_call_each_other() {
    replies("eop", "eop");
}

#[test]
fn a_32_bit_and_a_64_bit_canister_call_each_other() {
    replies("classic", "eop");
}

fn rejects(first: &str, second: &str) {
    let (mut script, other) = peers(first, second);
    let trap = script.update(FIRST, "tryTrap", (id(other),));
    let unchanged = script.query(other, "get", ());
    let refusal = script.update(FIRST, "tryRefuse", (id(other), "not today"));
    let missing = script.update(FIRST, "tryMissing", (id(other),));
    let absent = script.update(FIRST, "tryRefuse", (id(99), "nobody there"));
    let direct = script.update(FIRST, "refuse", ("said no",));
    let in_callback = script.update(FIRST, "trapInCallback", (id(other),));
    let mine = script.query(FIRST, "get", ());
    let finally = script.query(FIRST, "finallyCount", ());

    let run = script.run_in_all_modes();
    let text: String = run.value(trap);
    assert!(text.starts_with("#canister_error "), "{text}");
    assert!(text.contains("assertion failed"), "{text}");
    assert_eq!(run.value::<Nat>(unchanged), nat(0));
    assert_eq!(run.value::<String>(refusal), "#canister_reject not today");
    let text: String = run.value(missing);
    assert!(text.starts_with("#canister_error ") && text.contains("noSuchMethod"), "{text}");
    let text: String = run.value(absent);
    assert!(text.starts_with("#destination_invalid "), "{text}");
    run.assert_error(direct, "IC0406", "said no");
    run.assert_error(in_callback, "IC0503", "assertion failed");
    // tryTrap's 11, and the 1 that trapInCallback wrote before its call.
    assert_eq!(run.value::<Nat>(mine), nat(12));
    assert_eq!(run.value::<Nat>(finally), nat(1));
    assert_eq!(run.prints, ["finally"]);
}

#[test]
fn rejects_and_traps_reach_a_32_bit_caller() {
    rejects("classic", "classic");
}

#[test]
fn rejects_and_traps_reach_a_64_bit_caller() {
    rejects("eop", "eop");
}

fn cycles(first: &str, second: &str) {
    let (mut script, other) = peers(first, second);
    let sent = script.update(FIRST, "sendCycles", (id(other), nat(1_000_000_000), nat(400_000_000)));
    let all = script.update(FIRST, "sendCycles", (id(other), nat(1_000_000), nat(2_000_000)));
    let mine = script.query(FIRST, "cycles", ());
    let nothing_offered = script.update(FIRST, "accept", (nat(5),));

    let run = script.run_in_all_modes();
    assert_eq!(run.values::<(Nat, Nat)>(sent), (nat(400_000_000), nat(600_000_000)));
    assert_eq!(run.values::<(Nat, Nat)>(all), (nat(1_000_000), nat(0)));
    let balance: Nat = run.value(mine);
    assert!(balance <= nat(1_000_000_000_000_000 - 401_000_000), "{balance} cycles are left");
    assert_eq!(run.value::<Nat>(nothing_offered), nat(0));
}

#[test]
fn cycles_move_between_32_bit_canisters() {
    cycles("classic", "classic");
}

#[test]
fn cycles_move_between_64_bit_canisters() {
    cycles("eop", "eop");
}
