//! A start with a log: every node runs it again, compared with what was recorded message by message.

use super::say;
use super::signals::Stop;
use super::state_dir::InputLog;
use super::status::{Board, Phase};
use crate::Node;
use crate::load::Past;
use crate::log::Entry;
use crate::replay::{Play, Verdict};

/// Lines of progress that a node's replay gives.
const LINES: u64 = 10;

/// The nodes where the log ends.
pub(super) struct Recovered {
    /// In their order.
    pub(super) nodes: Vec<Node>,
    /// What the log tells of the load.
    pub(super) past: Past,
}

/// Runs the log on fresh nodes, one after another.
pub(super) fn recover(
    nodes: Vec<Node>,
    log: &InputLog,
    board: &Board,
    stop: &Stop,
) -> Result<Recovered, String> {
    if log.rounds() > 0 {
        say(&format!("replaying {} rounds of {}", log.rounds(), log.path().display()));
        if let Some(why) = log.cut() {
            tracing::warn!("the log goes on after round {} without an end: {why}", log.rounds());
        }
    }
    let mut past = Past::default();
    let mut recovered = Vec::with_capacity(nodes.len());
    for (node, number) in nodes.into_iter().zip(1..) {
        let follows = (number == 1).then_some(&mut past);
        recovered.push(replay(node, number, log, follows, board, stop)?);
    }
    Ok(Recovered { nodes: recovered, past })
}

fn replay(
    node: Node,
    number: usize,
    log: &InputLog,
    mut past: Option<&mut Past>,
    board: &Board,
    stop: &Stop,
) -> Result<Node, String> {
    let name = format!("n{number}");
    let mut play = Play::recovering(node, &name);
    let (mut round, mut told, mut failed) = (0, 0, None);
    let follow = |node: &Node, entry: &Entry<'_>| {
        if let Entry::Round { .. } = entry {
            round += 1;
            board.set_phase(Phase::Replaying { node: number, round, rounds: log.rounds() });
            if round * LINES / log.rounds() > told {
                told = round * LINES / log.rounds();
                say(&format!("node {name}: {round} of {} rounds", log.rounds()));
            }
        }
        if let Some(past) = &mut past {
            failed = past.follow(node, entry).err();
        }
        failed.is_none() && !stop.is_set()
    };
    let verdict = play.run_while(&mut log.read()?, Some(log.rounds_end()), follow);
    if let Some(error) = failed {
        return Err(format!("{}: round {round}: {error}", log.path().display()));
    }
    match verdict.map_err(|error| format!("{}: {error}", log.path().display()))? {
        Verdict::Equal => Ok(play.into_node()),
        Verdict::Undecided(why) => Err(format!("{}: {why}. Nothing is changed", log.path().display())),
        Verdict::Different(difference) => Err(format!(
            "{}: node {name} doesn't come to what was recorded: {difference}. Nothing is changed: `bulkhead replay` of the log says more",
            log.path().display()
        )),
    }
}
