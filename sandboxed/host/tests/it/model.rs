//! The conversation of the node with its workers as a state machine: random sequences of messages with pauses,
//! queries and runs given up, over workers that answer as correct ones or deviate at any step.
//!
//! After every transition: the node didn't panic; all canisters are what the model says, whichever worker lied;
//! a failure was of the class that the deviation calls for; the honest retry gave the right answer; and of a
//! worker that failed nothing is left, no process, no descriptor, no staged page.
//!
//! The cases are the same in every run. For a long run of others:
//! `PROPTEST_CASES=20000 PROPTEST_RNG_SEED=1 cargo test --release -p sandbox-host --test it model::`.

mod conversation;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::test_runner::{Config, RngSeed};
use proptest_state_machine::prop_state_machine;

use conversation::{DEVIATIONS, Deviation, LIES, STEPS, Step};
use world::World;

/// Random cases of a run, and the seed that they start from.
const CASES: u32 = 400;
const SEED: u64 = 20_261_126;

/// What came to pass, and how often: deviations by step, and the class of what the node said.
static TALLY: Mutex<BTreeMap<(Step, Deviation), u32>> = Mutex::new(BTreeMap::new());

fn config() -> Config {
    let said = Config::default();
    let set = |name: &str| std::env::var_os(name).is_some();
    Config {
        cases: if set("PROPTEST_CASES") { said.cases } else { CASES },
        rng_seed: if set("PROPTEST_RNG_SEED") { said.rng_seed } else { RngSeed::Fixed(SEED) },
        failure_persistence: None,
        ..said
    }
}

prop_state_machine! {
    #![proptest_config(config())]
    fn conversations(sequential 1..60 => World);
}

#[test]
fn however_workers_answer_canisters_stay_what_they_are_and_an_honest_retry_succeeds() {
    conversations();
    let tally = TALLY.lock().unwrap();
    println!("{} deviations of {} kinds", tally.values().sum::<u32>(), tally.len());
    if config().cases >= CASES {
        for step in STEPS {
            for deviation in DEVIATIONS {
                assert!(tally.contains_key(&(step, deviation)), "never tried: {deviation:?} at {step:?}");
            }
            let lies = (0..LIES).filter(|lie| tally.contains_key(&(step, Deviation::Lie(*lie)))).count();
            assert!(lies >= LIES as usize / 2, "{lies} lies at {step:?}");
        }
    }
}
