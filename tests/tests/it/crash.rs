//! Workers die at any moment, and nothing that a user can see changes.

use candid::Nat;

use crate::drun::{FIRST, Script, Step, id};
use crate::processes::{descendants, kill, serving_workers, wait_for_busy_worker, wait_until_gone};

const BUSY: &str = "motoko/Compute-eop.wasm";

fn nat(value: u64) -> Nat {
    Nat::from(value)
}

/// An update that keeps a worker busy for some tenths of a second.
fn long_update(script: &mut Script, canister: u64) -> Step {
    script.update(canister, "churn", (nat(2500), nat(1000)))
}

#[test]
fn a_worker_killed_in_the_middle_of_a_message_costs_a_retry_and_nothing_else() {
    let mut script = Script::new();
    let installed = script.install(FIRST, BUSY, ());
    let mut before = installed;
    let mut long = Vec::new();
    for round in 0..4 {
        let step = long_update(&mut script, FIRST);
        long.push((before, step));
        before = script.update(FIRST, "grow", (nat(1000 + round),));
    }
    let kept = script.update(FIRST, "grow", (nat(1),));
    let undisturbed = script.run("sandboxed");

    let mut running = script.start("sandboxed");
    for (before, _) in &long {
        running.wait_for(*before);
        assert!(kill(wait_for_busy_worker(running.process())), "it was busy");
    }
    let disturbed = running.finish();
    undisturbed.assert_same(&disturbed);
    assert_eq!(disturbed.value::<Nat>(kept), nat(5));
    for (_, step) in long {
        assert_eq!(disturbed.value::<Nat>(step), nat(1000));
    }
    // And no mode would have told it otherwise.
    script.run("in-process").assert_same(&disturbed);
}

#[test]
fn a_worker_killed_between_messages_is_replaced_and_the_others_keep_theirs() {
    let mut script = Script::new();
    let counter_installed = script.install(FIRST, "motoko/Counter-classic.wasm", ());
    let added = script.update(FIRST, "add", (nat(41),));
    let busy = script.create();
    let busy_installed = script.install(busy, BUSY, ());
    // Its arena grows to what the later ones need: a new segment takes a new worker.
    let before = long_update(&mut script, busy);
    let long = long_update(&mut script, busy);
    let after = script.update(FIRST, "inc", ());
    let long_again = long_update(&mut script, busy);
    let undisturbed = script.run("sandboxed");

    let mut running = script.start("sandboxed");
    running.wait_for(counter_installed);
    running.wait_for(added);
    let counters = serving_workers(running.process());
    running.wait_for(busy_installed);
    running.wait_for(before);
    let worker = wait_for_busy_worker(running.process());
    assert!(!counters.contains(&worker), "a worker serves one canister");
    // The counter's worker sleeps while the other canister's message runs.
    for idle in counters {
        assert!(kill(idle), "it slept");
    }
    running.wait_for(long);
    running.wait_for(after);
    let same = wait_for_busy_worker(running.process());
    assert_eq!(same, worker, "the other canister kept its worker");
    let disturbed = running.finish();
    undisturbed.assert_same(&disturbed);
    assert_eq!(disturbed.value::<Nat>(added), nat(41));
    assert_eq!(disturbed.value::<Nat>(after), nat(42));
    assert_eq!(disturbed.value::<Nat>(long_again), nat(1000));
}

#[test]
fn all_workers_killed_at_once_during_calls_between_canisters_change_nothing() {
    let mut script = Script::new();
    script.install(FIRST, "motoko/Peer-classic.wasm", ());
    let other = script.create();
    let last_installed = script.install(other, "motoko/Peer-eop.wasm", ());
    let mut steps = vec![last_installed];
    for _ in 0..6 {
        steps.push(script.update(FIRST, "ping", (id(other), nat(20))));
    }
    let value = script.query(other, "get", ());
    let undisturbed = script.run("sandboxed");

    let mut running = script.start("sandboxed");
    let mut killed = 0;
    for step in &steps {
        running.wait_for(*step);
        for pid in serving_workers(running.process()) {
            killed += usize::from(kill(pid));
        }
    }
    let disturbed = running.finish();
    assert!(killed >= 3, "{killed} workers were there to be killed");
    undisturbed.assert_same(&disturbed);
    assert_eq!(disturbed.value::<Nat>(value), nat(60_060));
}

#[test]
fn workers_die_with_their_node() {
    let mut script = Script::new();
    script.install(FIRST, "c/stress.wasm", ());
    let other = script.create();
    let installed = script.install(other, "c/counter.wasm", ());
    script.update(FIRST, "spin_update", ());

    let mut running = script.start("sandboxed");
    running.wait_for(installed);
    wait_for_busy_worker(running.process());
    let family = descendants(running.process());
    assert!(family.len() >= 3, "a launcher and two workers: {family:?}");
    running.kill();
    for pid in family {
        wait_until_gone(pid);
    }
}
