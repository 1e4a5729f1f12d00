//! Canister memory against a plain model: random writes, growth, traps, queries, snapshots, evictions, worker
//! kills and outcomes given up, in each mode, warm and fresh. After every message the contents are those of a
//! vector of bytes, the written pages are those that a write touched, and all modes count the same.
//!
//! The random cases are the same in every run. For a long run of other ones:
//! `PROPTEST_CASES=5000 PROPTEST_RNG_SEED=1 cargo test --release -p tests memory_model::random`.

mod actions;
mod canister;
mod control;
mod directed;
mod extremes;
mod model;
mod subject;
pub(crate) mod ways;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bulkhead_node::node::on_executor_stack;
use execution::{Ending, Module, Outcome};
use in_process::Engine;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use actions::{Action, KINDS};
use ways::{Account, Difference, Way};

/// Random cases of a run: what fits half a minute on two busy cores.
const CASES: u32 = 120;
/// Where they start.
const SEED: u64 = 20_250_607;
/// Runs that a failing case gets to become a small one.
const SHRINKING_RUNS: u32 = 400;

/// Places of two of the ways in [`random_messages_agree_with_a_vector_of_bytes_in_every_mode`].
const SANDBOXED: usize = 2;
const SANDBOXED_FRESH: usize = 3;

/// Ways to run cases, and what they run.
struct Rig {
    ways: Vec<Way>,
    modules: Vec<Arc<Module>>,
    cases: Cell<u64>,
}

impl Rig {
    fn new(engine: &Engine, ways: Vec<Way>) -> Self {
        let modules = KINDS.iter().map(|kind| kind.compile(engine)).collect();
        Self { ways, modules, cases: Cell::new(0) }
    }

    /// Runs a case in all ways at the same time, each held against the model, and then against each other.
    fn run(&self, actions: &[Action]) -> Result<Vec<Account>, Difference> {
        let number = self.cases.replace(self.cases.get() + 1);
        let steps = actions::plan(actions);
        let accounts = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .ways
                .iter()
                .map(|way| {
                    let (steps, modules) = (&steps, &self.modules);
                    scope.spawn(move || on_executor_stack(|| way.run(number, modules, steps)))
                })
                .collect();
            let ended = running.into_iter().map(|way| way.join().expect("a way doesn't panic"));
            ended.collect::<Result<Vec<_>, _>>()
        })?;
        for (way, account) in self.ways.iter().zip(&accounts) {
            let mut pairs = accounts[0].outcomes.iter().zip(&account.outcomes);
            if let Some((first, other)) = pairs.find(|(first, other)| first != other) {
                return Err(format!("{}: {first:?}\n{}: {other:?}", self.ways[0].name, way.name));
            }
        }
        Ok(accounts)
    }
}

/// A runner of cases that are the same in every run, unless the environment says otherwise.
fn runner(cases: u32) -> TestRunner {
    let said = Config::default();
    let set = |name: &str| std::env::var_os(name).is_some();
    TestRunner::new(Config {
        cases: if set("PROPTEST_CASES") { said.cases } else { cases },
        rng_seed: if set("PROPTEST_RNG_SEED") { said.rng_seed } else { RngSeed::Fixed(SEED) },
        max_shrink_iters: SHRINKING_RUNS,
        failure_persistence: None,
        ..said
    })
}

/// A failure with the actions that led to it, a line each.
fn told(failure: &TestError<Vec<Action>>) -> String {
    match failure {
        TestError::Abort(reason) => format!("given up: {reason}"),
        TestError::Fail(reason, actions) => {
            let lines = actions.iter().enumerate().map(|(index, action)| format!("\n{index}: {action:?}"));
            format!("{reason}{}", lines.collect::<String>())
        }
    }
}

#[test]
fn random_messages_agree_with_a_vector_of_bytes_in_every_mode() {
    let engine = Engine::new().expect("the engine starts");
    let ways = vec![
        ways::in_process(&engine),
        ways::in_process_fresh(&engine),
        ways::sandboxed(),
        ways::sandboxed_fresh(),
    ];
    let rig = Rig::new(&engine, ways);
    let all = RefCell::new(Vec::new());
    let ran = runner(CASES).run(&actions::case(), |case| {
        let accounts = rig.run(&case).map_err(TestCaseError::fail)?;
        all.borrow_mut().push(accounts);
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{}", told(&failure)));

    let all = all.into_inner();
    let fresh: u64 = all.iter().map(|accounts| accounts[SANDBOXED_FRESH].warm).sum();
    assert_eq!(fresh, 0, "there every message has a worker to itself");
    if all.len() >= CASES as usize {
        assert_tried(all.iter().map(|accounts| &accounts[SANDBOXED]));
    }
}

/// Asserts that the messages did something: empty ones would agree with any model. (A run that was asked for
/// fewer cases may have tried less.)
fn assert_tried<'a>(accounts: impl Iterator<Item = &'a Account>) {
    let accounts: Vec<&Account> = accounts.collect();
    let count = |what: fn(&Outcome) -> bool| {
        let outcomes = accounts.iter().flat_map(|account| &account.outcomes);
        outcomes.filter(|outcome| what(outcome)).count() as u64
    };
    let messages = count(|_| true);
    let trapped = count(|outcome| outcome.ending != Ending::Returned);
    let heap = count(|outcome| outcome.heap_pages_dirty > 2);
    let stable = count(|outcome| outcome.stable_pages_dirty > 0);
    let grew = count(|outcome| {
        let delta = outcome.effects.as_ref().map(|effects| &effects.memory);
        delta.is_some_and(|delta| delta.heap_pages.is_some() || delta.stable_pages.is_some())
    });
    let warm: u64 = accounts.iter().map(|account| account.warm).sum();
    let doomed: u64 = accounts.iter().map(|account| account.doomed).sum();
    let tried = format!(
        "{messages} messages, {trapped} trapped, {heap} wrote several heap pages, {stable} wrote stable memory, \
         {grew} grew, {warm} had a warm worker, {doomed} a killed one"
    );
    println!("{tried}");
    assert!(trapped > messages / 20 && trapped < messages / 2, "{tried}");
    assert!(heap > messages / 10 && stable > messages / 10 && grew > messages / 50, "{tried}");
    assert!(warm > messages / 4 && warm < messages * 3 / 4 && doomed > messages / 50, "{tried}");
}
