//! C canisters on the bare System API: one that works, one that does what a careless or hostile canister does.

use crate::drun::{FIRST, Script};

const COUNTER: &str = "c/counter.wasm";
const STRESS: &str = "c/stress.wasm";

#[test]
fn a_counter_without_a_runtime_survives_traps_rejects_and_upgrades() {
    let mut script = Script::new();
    script.install(FIRST, COUNTER, ());
    let added = script.update(FIRST, "add", (40_u64,));
    let incremented = script.update(FIRST, "inc", ());
    let in_query = script.query(FIRST, "inc_in_query", ());
    let trapped = script.update(FIRST, "trap_after_inc", ());
    let rejected = script.update(FIRST, "reject", ());
    let silent = script.update(FIRST, "no_reply", ());
    let twice = script.update(FIRST, "reply_twice", ());
    let echoed = script.query(FIRST, "echo", (0x0123_4567_89ab_cdef_u64,));
    let beaten = script.query(FIRST, "has_beaten", ());
    script.upgrade(FIRST, COUNTER, ());
    let kept = script.query(FIRST, "get", ());
    let pages = script.query(FIRST, "stable_size32", ());
    let grown = script.update(FIRST, "stable_grow32", (3_u64,));
    let pages_after = script.query(FIRST, "stable_size32", ());

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<u64>(added), 41);
    assert_eq!(run.value::<u64>(incremented), 42);
    assert_eq!(run.value::<u64>(in_query), 43);
    run.assert_error(trapped, "IC0503", "bye");
    run.assert_error(rejected, "IC0406", "nope");
    run.assert_error(silent, "IC0506", "did not reply");
    run.assert_error(twice, "IC0504", "");
    assert_eq!(run.value::<u64>(echoed), 0x0123_4567_89ab_cdef);
    assert_eq!(run.value::<u64>(beaten), 1);
    // A reject and a missing reply keep what was written; a trap doesn't.
    assert_eq!(run.value::<u64>(kept), 44);
    assert_eq!([pages, grown, pages_after].map(|step| run.value::<u64>(step)), [1, 1, 4]);
    assert_eq!(run.prints, ["counter: init"]);
}

#[test]
fn a_canister_that_calls_itself_gets_replies_rejects_and_cleanup() {
    let mut script = Script::new();
    script.install(FIRST, COUNTER, ());
    let reply = script.update(FIRST, "call_inc", ());
    let after_reply = script.query(FIRST, "get", ());
    let trap = script.update(FIRST, "call_trap", ());
    let reject = script.update(FIRST, "call_reject", ());
    let missing = script.update(FIRST, "call_missing", ());
    let before = script.query(FIRST, "get", ());
    let in_callback = script.update(FIRST, "call_inc_and_trap", ());
    let after = script.query(FIRST, "get", ());

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<u64>(reply), 2);
    assert_eq!(run.value::<u64>(after_reply), 12);
    assert_eq!(run.value::<u64>(trap), 1005);
    assert_eq!(run.value::<u64>(reject), 1004);
    assert_eq!(run.value::<u64>(missing), 1005);
    assert_eq!(run.value::<u64>(before), 13);
    run.assert_error(in_callback, "IC0503", "trap in callback");
    // The callee's 1 and the cleanup's 7; the callback's own write is gone.
    assert_eq!(run.value::<u64>(after), 21);
}

#[test]
fn engine_traps_have_their_texts() {
    let mut script = Script::new();
    script.install(FIRST, COUNTER, ());
    let out_of_bounds = script.query(FIRST, "out_of_bounds", ());
    let by_zero = script.query(FIRST, "divide", (0_u64,));
    let divided = script.query(FIRST, "divide", (8_u64,));
    let unreachable = script.query(FIRST, "unreachable", ());
    let cost = script.query(FIRST, "loop_cost", ());
    let missing = script.query(FIRST, "missing", ());
    let not_an_update = script.update(FIRST, "missing", ());

    let run = script.run_in_all_modes();
    run.assert_error(out_of_bounds, "IC0502", "heap out of bounds");
    run.assert_error(by_zero, "IC0502", "integer division by 0");
    assert_eq!(run.value::<u64>(divided), 125);
    run.assert_error(unreachable, "IC0502", "unreachable");
    let cost: u64 = run.value(cost);
    assert!((500_000..5_000_000).contains(&cost), "{cost} instructions for 100,000 turns");
    run.assert_error(missing, "IC0536", "missing");
    run.assert_error(not_an_update, "IC0536", "missing");
}

#[test]
fn the_global_timer_fires_once() {
    let mut script = Script::new();
    script.install(FIRST, COUNTER, ());
    let no_timer = script.update(FIRST, "set_timer", ());
    for _ in 0..5 {
        script.update(FIRST, "inc", ());
    }
    let ticks = script.query(FIRST, "ticks", ());

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<u64>(no_timer), 0);
    assert_eq!(run.value::<u64>(ticks), 1);
}

#[test]
fn memory_growth_is_undone_by_traps_and_queries() {
    let mut script = Script::new();
    script.install(FIRST, STRESS, ());
    let start = script.query(FIRST, "memory_pages", ());
    let in_query = script.query(FIRST, "grow_in_query", (5_u64,));
    let again_in_query = script.query(FIRST, "grow_in_query", (5_u64,));
    let trapped = script.update(FIRST, "grow_and_trap", (7_u64,));
    let unchanged = script.query(FIRST, "memory_pages", ());
    let grown = script.update(FIRST, "grow", (100_u64,));
    let too_much = script.update(FIRST, "grow", (65_536_u64,));
    let end = script.query(FIRST, "memory_pages", ());

    let run = script.run_in_all_modes();
    let start: u64 = run.value(start);
    for step in [in_query, again_in_query, unchanged, grown] {
        assert_eq!(run.value::<u64>(step), start, "{step:?}");
    }
    run.assert_error(trapped, "IC0503", "after growing");
    assert_eq!(run.value::<u64>(too_much), u64::MAX);
    assert_eq!(run.value::<u64>(end), start + 100);
}

#[test]
fn dirty_pages_of_both_memories_are_counted_and_kept() {
    let mut script = Script::new();
    script.install(FIRST, STRESS, ());
    let dirtied = script.update(FIRST, "dirty", (64_u64,));
    let again = script.update(FIRST, "dirty", (64_u64,));
    let sum = script.query(FIRST, "dirty_sum", (64_u64,));
    let not_in_query = script.query(FIRST, "stable_grow_in_query", ());
    let grown = script.update(FIRST, "stable_grow", (10_u64,));
    let stable = script.update(FIRST, "stable_dirty", (100_u64,));
    let past_end = script.query(FIRST, "stable_past_end", ());
    let refused = script.update(FIRST, "stable_grow", (1_u64 << 40,));

    let run = script.run_in_all_modes();
    assert_eq!(run.value::<u64>(dirtied), 1024);
    assert_eq!(run.value::<u64>(again), 1024);
    assert_eq!(run.value::<u64>(sum), 2048);
    assert_eq!(run.value::<u64>(not_in_query), 0);
    assert_eq!(run.value::<u64>(grown), 0);
    assert_eq!(run.value::<u64>(stable), 100);
    run.assert_error(past_end, "IC0502", "stable memory out of bounds");
    assert_eq!(run.value::<u64>(refused), u64::MAX);
    let pages = |method: &str| {
        let of_method = run.messages.iter().find(|message| message.method.as_deref() == Some(method));
        let message = of_method.expect("the method ran");
        (message.dirty_heap_pages, message.dirty_stable_pages)
    };
    let (heap, stable) = pages("dirty");
    assert!((1024..1032).contains(&heap), "{heap} pages for 1,024 written ones and the stack");
    assert_eq!(stable, 0);
    assert_eq!(pages("stable_dirty").1, 100);
}

#[test]
fn endless_and_bottomless_code_is_stopped() {
    let mut script = Script::new();
    script.install(FIRST, STRESS, ());
    let endless = script.query(FIRST, "spin", ());
    let shallow = script.query(FIRST, "recurse", (100_u64,));
    let bottomless = script.query(FIRST, "recurse", (100_000_000_u64,));
    let looped = script.query(FIRST, "loop", (1000_u64,));

    let run = script.run_in_all_modes();
    run.assert_error(endless, "IC0522", "");
    assert_eq!(run.value::<u64>(shallow), 5050);
    // C keeps its own stack in the heap, at the bottom: it ends before the engine's does, or after.
    run.assert_error(bottomless, "IC0502", "");
    let expected =
        (0..1000_u64).fold(1_u64, |state, i| state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i));
    assert_eq!(run.value::<u64>(looped), expected);
}

#[test]
fn replies_floats_and_surroundings_are_the_same_everywhere() {
    let mut script = Script::new();
    script.install(FIRST, STRESS, ());
    let big = script.update(FIRST, "reply_bytes", (2_u64 << 20,));
    let too_big = script.update(FIRST, "reply_bytes", ((2_u64 << 20) + 1,));
    let sum = script.query(FIRST, "float_sum", (1000_u64,));
    let nan = script.query(FIRST, "nan_bits", ());
    let query = script.query(FIRST, "replicated", ());
    let replicated_query = script.update(FIRST, "replicated", ());
    let update = script.update(FIRST, "replicated_update", ());
    let version = script.query(FIRST, "version", ());
    let certificate = script.query(FIRST, "certificate_present", ());
    let certified = script.update(FIRST, "certify", (32_u64,));
    let too_long = script.update(FIRST, "certify", (33_u64,));
    let balance = script.query(FIRST, "balance", ());

    let run = script.run_in_all_modes();
    assert_eq!(run.bytes(big).len(), 2 << 20);
    run.assert_error(too_big, "IC0504", "");
    assert_eq!(run.value::<u64>(sum), 7_485_470_860);
    assert!(f64::from_bits(run.value::<u64>(nan)).is_nan());
    assert_eq!([query, replicated_query, update].map(|step| run.value::<u64>(step)), [0, 1, 1]);
    assert_eq!(run.value::<u64>(certificate), 1);
    assert!(run.value::<u64>(version) > 0);
    assert_eq!(run.value::<u64>(certified), 32);
    run.assert_error(too_long, "IC0504", "");
    assert!((1..=1_000_000_000_000_000).contains(&run.value::<u64>(balance)));
}
