//! The same rounds on several subnets, compared after each.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_node::node::on_executor_stack;
use execution::{
    Backend, Compiler, Ended, Executed, Failure, Limits, MessageId, Principal, SchedulerOptions, Subnet,
    SubnetConfig, UserError,
};

use super::dice::Dice;
use super::difference;
use super::workload::{Act, Round, Workload, user};

/// Rounds of a world.
const ROUNDS: u64 = 45;
/// Canisters that a world starts with.
const CANISTERS: u64 = 11;
/// Time of the first round.
const START: u64 = 1_700_000_000_000_000_007;

/// A way to run a subnet.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) threads: usize,
}

/// Something that all subnets have to agree on.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Submitted(Result<MessageId, UserError>),
    Answered(Result<Vec<u8>, UserError>),
    Ran(Executed),
    Failed(Failure),
    More(bool),
    StateRoot([u8; 32]),
    CertifiedRoot([u8; 32]),
}

/// A subnet on one of the ways.
struct Node {
    name: &'static str,
    subnet: Subnet,
}

/// What happened, on the first of the ways.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rounds: u64,
    /// Runs of entry points, those of queries included.
    pub(super) runs: u64,
    pub(super) replied: u64,
    pub(super) trapped: u64,
    pub(super) refused: u64,
    /// Rounds that canisters ended with a message in hand.
    pub(super) paused: u64,
    pub(super) printed: u64,
    /// Runs by kind of entry point.
    pub(super) kinds: BTreeMap<&'static str, u64>,
    /// Failed and refused messages by code.
    pub(super) errors: BTreeMap<String, u64>,
}

/// Limits that let messages pause, queues fill and rounds end early.
fn limits(dice: &mut Dice) -> Limits {
    Limits {
        update_instructions: 8_000_000,
        query_instructions: 5_000_000,
        inspect_instructions: 5_000_000,
        slice_instructions: *dice.pick(&[200_000, 500_000, 2_000_000]),
        paused_messages: 4,
        round_instructions: 6_000_000,
        ingress_queue_length: 12,
        queue_length: 5,
        ..Limits::application()
    }
}

/// Runs a world: `number` is its own, so that no two share a canister. Asks `goes_on` after each round whether to.
pub(super) fn run(
    ways: &[Way],
    compiler: &Arc<dyn Compiler>,
    [seed, number]: [u64; 2],
    tally: &mut Tally,
    mut goes_on: impl FnMut() -> bool,
) -> Result<(), String> {
    let mut dice = Dice::of(&[seed, number, 0x77]);
    let config = SubnetConfig {
        limits: Arc::new(limits(&mut dice)),
        first_canister: (number + 1) << 8,
        ..SubnetConfig::application()
    };
    let balances: Vec<u128> = (0..CANISTERS)
        .map(|_| if dice.one_in(4) { 330_000_000_000 } else { 1_000_000_000_000_000 })
        .collect();
    let mut nodes: Vec<Node> = ways
        .iter()
        .map(|Way { name, backend, threads }| {
            let options = SchedulerOptions { threads: *threads, ..SchedulerOptions::default() };
            let subnet = Subnet::new(config.clone(), Arc::clone(backend), Arc::clone(compiler), options);
            Node { name, subnet }
        })
        .collect();
    let ids: Vec<Principal> = (0..CANISTERS).map(|n| id(config.first_canister + n)).collect();
    for node in &mut nodes {
        node.create(&ids, &balances);
    }
    let mut workload = Workload::new(seed, number, START);
    for at in 0..ROUNDS {
        let round = if at == 0 { workload.first(&ids) } else { workload.next(nodes[0].subnet.state()) };
        let told = |what: String| format!("seed {seed}, world {number}, round {at}: {what}");
        let records = run_round(&mut nodes, &round);
        for (node, record) in nodes.iter().zip(&records).skip(1) {
            compare(&nodes[0], &records[0], node, record).map_err(told)?;
        }
        tally.add(&nodes[0], &records[0]);
        if !goes_on() {
            break;
        }
    }
    Ok(())
}

fn id(number: u64) -> Principal {
    let mut id = [1; 10];
    id[..8].copy_from_slice(&number.to_be_bytes());
    Principal::from_slice(&id)
}

/// A round on all nodes at the same time.
fn run_round(nodes: &mut [Node], round: &Round) -> Vec<Vec<Event>> {
    std::thread::scope(|scope| {
        let running: Vec<_> =
            nodes.iter_mut().map(|node| scope.spawn(move || on_executor_stack(|| node.run(round)))).collect();
        running.into_iter().map(|node| node.join().expect("a subnet doesn't panic")).collect()
    })
}

impl Node {
    /// Makes the canisters, each controlled by the user, itself and the next one.
    fn create(&mut self, ids: &[Principal], balances: &[u128]) {
        for (n, (id, balance)) in ids.iter().zip(balances).enumerate() {
            let controllers = vec![user(), *id, ids[(n + 1) % ids.len()]];
            let made = self.subnet.create_canister(user(), Some(controllers), *balance);
            assert_eq!(made, Ok(*id));
        }
    }

    fn run(&mut self, round: &Round) -> Vec<Event> {
        let mut events = Vec::new();
        let ran = |executed: Vec<Executed>| {
            // The number of an invocation is the node's own.
            executed.into_iter().map(|executed| Event::Ran(Executed { invocation: 0, ..executed }))
        };
        for act in &round.acts {
            match act {
                Act::Submit(ingress) => events.push(Event::Submitted(self.subnet.submit(ingress.clone()))),
                Act::Query { from, to, method, arg } => {
                    let answer = self.subnet.query(*from, *to, method, arg);
                    events.extend(ran(answer.executed));
                    events.push(Event::Answered(answer.result));
                }
            }
        }
        let report = self.subnet.round(round.time, round.seed);
        events.extend(ran(report.executed));
        events.extend(report.failures.into_iter().map(Event::Failed));
        events.push(Event::More(report.more));
        if round.abort {
            self.subnet.abort_paused();
        }
        events.push(Event::StateRoot(self.subnet.state_root()));
        events.push(Event::CertifiedRoot(self.subnet.certified().root()));
        events
    }
}

/// What differs first between two nodes: the state by canister and field, and what led to it.
fn compare(base: &Node, expected: &[Event], node: &Node, got: &[Event]) -> Result<(), String> {
    let failed = [expected, got].into_iter().flatten().find(|event| matches!(event, Event::Failed(_)));
    if let Some(failure) = failed {
        return Err(format!("{} or {} gave up: {failure:?}", base.name, node.name));
    }
    let length = expected.len().max(got.len());
    let Some(at) = (0..length).find(|&at| expected.get(at) != got.get(at)) else { return Ok(()) };
    let state = difference::first(base.subnet.state(), node.subnet.state());
    Err(format!(
        "{} differs from {}: {}\nevent {at}: {:?}\nnot {:?}",
        node.name,
        base.name,
        state.unwrap_or_else(|| "not in its state".to_owned()),
        got.get(at),
        expected.get(at),
    ))
}

impl Tally {
    fn add(&mut self, node: &Node, events: &[Event]) {
        self.rounds += 1;
        let state = node.subnet.state();
        self.paused += state.canisters.values().filter(|canister| canister.paused.is_some()).count() as u64;
        for event in events {
            match event {
                Event::Ran(executed) => self.ran(executed),
                Event::Submitted(Err(error)) | Event::Answered(Err(error)) => {
                    self.refused += 1;
                    self.count_error(error);
                }
                _ => {}
            }
        }
    }

    fn ran(&mut self, executed: &Executed) {
        self.runs += 1;
        *self.kinds.entry(executed.kind).or_default() += 1;
        self.printed += executed.logs.len() as u64;
        match &executed.ended {
            Ended::Reply => self.replied += 1,
            Ended::Trap(error) => {
                self.trapped += 1;
                self.count_error(error);
            }
            Ended::Reject(_) | Ended::NoAnswer => {}
        }
    }

    fn count_error(&mut self, error: &UserError) {
        *self.errors.entry(error.code.to_string()).or_default() += 1;
    }
}
