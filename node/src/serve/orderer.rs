//! Puts messages into rounds for as long as it may.

use std::time::{Duration, Instant};

use super::nodes::Nodes;
use super::signals::Stop;
use super::status::{Board, Phase};
use crate::load::{Clock, Load, Target};

/// A round is run at least this often: time goes on, timers fire, calls expire.
const IDLE: Duration = Duration::from_secs(1);
/// A message that no queue took, or that is not due yet, is offered again after this long at the earliest.
const OFFERED_AGAIN: Duration = Duration::from_millis(1);
/// How long answers to what was taken in are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Orders the load's messages until it is time to stop, and then waits for their answers.
///
/// # Errors
/// No further round can be run.
pub(super) fn run(
    nodes: &mut Nodes,
    mut load: Option<&mut Load>,
    clock: &mut Clock,
    board: &Board,
    stop: &Stop,
) -> Result<(), String> {
    board.set_phase(Phase::Serving);
    super::say("serving");
    if let Some(load) = &mut load {
        load.start();
    }
    let (mut more, mut idle_until) = (true, Instant::now());
    while !stop.is_set() {
        if nodes.is_full() {
            board.set_phase(Phase::Full);
            super::say("the input log is as large as --log-max allows: no message is taken in any more");
            stop.wait();
            return Ok(());
        }
        if let Some(load) = &mut load {
            load.offer(nodes)?;
        }
        let now = Instant::now();
        if nodes.has_submitted() || more || now >= idle_until {
            more = match &mut load {
                Some(load) => load.round(nodes, clock)?,
                None => {
                    let (time, seed) = clock.next();
                    nodes.round(time, seed)?
                }
            }
            .more;
            idle_until = Instant::now() + IDLE;
        } else {
            let due = load.as_ref().map_or(idle_until, |load| load.next_due().min(idle_until));
            stop.wait_for(due.saturating_duration_since(now).max(OFFERED_AGAIN));
        }
    }
    board.set_phase(Phase::Stopping);
    load.map_or(Ok(()), |load| load.drain(nodes, clock, LAST_ANSWERS))
}
