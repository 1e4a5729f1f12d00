//! Overload: canisters are offered more than they can take, and another one goes on.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use execution::{ErrorCode, Limits, MessageId, Principal};

use super::{Bench, Mode};
use crate::modules;
use crate::report::{Compared, Finding, Target, Unit};
use crate::rounds::Rounds;
use crate::sample::Samples;

/// Time from one round to the next, where the last one was over by then.
const CADENCE: Duration = Duration::from_millis(10);
/// Time from one message of the sibling to the next: not a divisor of the cadence, so that they come at all times.
const PERIOD: Duration = Duration::from_micros(2_300);
/// How long the sibling is measured at a time, and how often.
const PHASE: Duration = Duration::from_millis(500);
const PHASES: usize = 6;
/// Canisters that are flooded.
const FLOODED: usize = 8;
/// Messages that each is offered between two rounds beyond what it takes.
const REFUSED: usize = 50;
/// Messages that are taken in between two rounds: those of a block of the Internet Computer.
const BLOCK: u64 = 1_000;
/// What one message computes, turns of a loop: some 20 us.
const TURNS: u64 = 20_000;
/// Instructions of a canister in a round with which a flood leaves more than half of the cadence free on two cores. With
/// the preset's it may take seconds.
const FITTING: u64 = 20_000_000;
/// A quiet p99 of more times the cadence than this was not a quiet one: the control failed.
const CALM: f64 = 2.0;

/// p99 of a canister's messages while one other, and many others, are flooded, against quiet.
pub(super) fn overload(bench: &Bench) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for mode in Mode::ALL {
        let fitting = Limits { round_instructions: FITTING, ..Limits::application() };
        let mut scene = Scene::new(bench, mode, fitting)?;
        let mut preset = Scene::new(bench, mode, Limits::application())?;
        let [mut quiet, mut one, mut many, mut unfitted] = [const { Vec::new() }; 4];
        for _ in 0..PHASES {
            quiet.extend(scene.phase(0)?);
            one.extend(scene.phase(1)?);
            many.extend(scene.phase(FLOODED)?);
            unfitted.extend(preset.phase(1)?);
        }
        let [quiet, one, many, unfitted] =
            [quiet, one, many, unfitted].map(|latencies| latencies.into_iter().collect::<Samples>());
        let calm = quiet.quantile(0.99) < CALM * CADENCE.as_nanos() as f64;
        let finding = |what: &str, samples: &Samples, target, refused: String| {
            Finding::new(
                format!("overload-{what}-{}", mode.name()),
                &Compared { limit: quiet.quantile(0.99), measured: samples.quantile(0.99), unit: Unit::Time },
                target,
                calm,
                format!(
                    "p99 of a canister with a message each {}, {}, rounds each {}, against quiet; p50 {} against {}; \
                     {refused}",
                    Unit::Time.show(PERIOD.as_nanos() as f64),
                    mode.name(),
                    Unit::Time.show(CADENCE.as_nanos() as f64),
                    Unit::Time.show(samples.median()),
                    Unit::Time.show(quiet.median())
                ),
            )
        };
        let flood = format!(
            "offered messages of some 20 us before each round until each refused {REFUSED} or all took in {BLOCK}"
        );
        findings.extend([
            finding("one", &one, Target::AtMost(2.0), format!("another one is {flood}")),
            finding(
                "many",
                &many,
                Target::AtMost(2.0),
                format!("{FLOODED} others are {flood}; {}", scene.admission()),
            ),
            finding(
                "preset",
                &unfitted,
                Target::None,
                format!(
                    "another one is {flood}, with the preset's budget of a round; {}",
                    preset.admission()
                ),
            ),
        ]);
    }
    Ok(findings)
}

/// A subnet with canisters to be flooded, and one that isn't.
struct Scene {
    rounds: Rounds,
    sibling: Principal,
    flooded: Vec<Principal>,
    no_arg: Arc<[u8]>,
    taken: u64,
    refused: usize,
}

impl Scene {
    fn new(bench: &Bench, mode: Mode, limits: Limits) -> Result<Self, String> {
        let wasm = wat::parse_str(modules::compute(TURNS)).map_err(|error| error.to_string())?;
        let mut rounds = mode.rounds_with(bench, limits)?;
        let sibling = rounds.install(&wasm, &[])?;
        let flooded = (0..FLOODED).map(|_| rounds.install(&wasm, &[])).collect::<Result<_, _>>()?;
        Ok(Self { rounds, sibling, flooded, no_arg: Arc::from([]), taken: 0, refused: 0 })
    }

    /// Latencies of the sibling's messages for a while, from when each was due, while the first `flooded` canisters are
    /// offered too much. In the end these take messages again at once.
    fn phase(&mut self, flooded: usize) -> Result<Vec<f64>, String> {
        let mut latencies = Vec::new();
        let mut waiting: Vec<(Instant, MessageId)> = Vec::new();
        let start = Instant::now();
        let (mut due, mut round) = (start, start);
        while start.elapsed() < PHASE || !waiting.is_empty() {
            round = (round + CADENCE).max(Instant::now());
            thread::sleep(round.saturating_duration_since(Instant::now()));
            self.flood(flooded)?;
            while due <= Instant::now() && start.elapsed() < PHASE {
                let message = self.rounds.submit(self.sibling, "compute", &self.no_arg)?;
                waiting.push((due, message));
                due += PERIOD;
            }
            self.rounds.round()?;
            let mut late = Vec::new();
            for (due, message) in waiting {
                if self.rounds.is_replied(&message)? {
                    latencies.push(due.elapsed().as_nanos() as f64);
                } else {
                    late.push((due, message));
                }
            }
            waiting = late;
        }
        // A queue has room after the next round, however full it was.
        self.rounds.round()?;
        for canister in &self.flooded[..flooded] {
            self.rounds.submit(*canister, "compute", &self.no_arg)?;
        }
        self.rounds.drain()?;
        Ok(latencies)
    }

    /// Offers each canister what it can't take, until a block is full.
    fn flood(&mut self, flooded: usize) -> Result<(), String> {
        let full = self.taken + BLOCK;
        for canister in &self.flooded[..flooded] {
            let mut refused = 0;
            while refused < REFUSED && self.taken < full {
                match self.rounds.offer(*canister, "compute", &self.no_arg) {
                    Ok(_) => self.taken += 1,
                    Err(error) if error.code == ErrorCode::QUEUE_FULL => refused += 1,
                    Err(error) => return Err(format!("a message was refused for another reason: {error}")),
                }
            }
            self.refused += refused;
        }
        Ok(())
    }

    /// What became of what was offered.
    fn admission(&self) -> String {
        format!("{} messages taken in, {} refused at once", self.taken, self.refused)
    }
}
