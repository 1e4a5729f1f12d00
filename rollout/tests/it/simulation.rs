//! The guards' error rates, by simulation: decision record 0010 has the table that this prints.

use std::time::Duration;

use hdrhistogram::Histogram;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use rollout::{Block, Blocks, Design, Latencies, LatencyRatio, Limit, Looks, Quantile, Verdict, seed};

const LIMIT: f64 = 1.20;
const MINUTES: usize = 60;
const LOOK_EVERY: usize = 5;
const MESSAGES_A_MINUTE: usize = 1_200;
/// Standard deviation of the logarithm of a latency within a minute.
const SIGMA: f64 = 0.5;
/// Load that both arms share: an AR(1) process of the logarithm, of standard deviation 0.1. With it, the
/// standard error of independent messages is too small by the factors that the set-up was published with: 1.6
/// at p99, 3.4 at p50.
const LOAD_MEMORY: f64 = 0.8;
const LOAD_SIGMA: f64 = 0.06;
/// Noise of each arm and minute by itself.
const ARM_SIGMA: f64 = 0.06;

struct Normal {
    generator: Pcg64,
    other: Option<f64>,
}

impl Normal {
    /// Box and Muller's: two at a time.
    #[expect(clippy::cast_precision_loss, reason = "the upper 53 bits")]
    fn next(&mut self) -> f64 {
        if let Some(other) = self.other.take() {
            return other;
        }
        let mut uniform = || ((self.generator.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        self.other = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// A minute of one arm whose latencies have this logarithm on average.
fn minute(normal: &mut Normal, histogram: &mut Histogram<u64>, level: f64) -> Latencies {
    histogram.reset();
    for _ in 0..MESSAGES_A_MINUTE {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "around a million")]
        histogram.record((level + SIGMA * normal.next()).exp() as u64).unwrap();
    }
    Latencies::of(histogram).unwrap()
}

/// An hour in which the candidate is so many times slower.
fn hour(run: u64, true_ratio: f64) -> Vec<Block> {
    let generator = Pcg64::new(run.into(), true_ratio.to_bits().into());
    let mut normal = Normal { generator, other: None };
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let mut load = LOAD_SIGMA / (1.0 - LOAD_MEMORY * LOAD_MEMORY).sqrt() * normal.next();
    (0..MINUTES)
        .map(|_| {
            load = LOAD_MEMORY * load + LOAD_SIGMA * normal.next();
            let level = 1e6_f64.ln() + load;
            let control_level = level + ARM_SIGMA * normal.next();
            let candidate_level = level + true_ratio.ln() + ARM_SIGMA * normal.next();
            Block {
                control: minute(&mut normal, &mut histogram, control_level),
                candidate: minute(&mut normal, &mut histogram, candidate_level),
            }
        })
        .collect()
}

/// What became of one hour.
#[derive(Clone, Copy, Default)]
struct Ending {
    rolled_back_after: Option<usize>,
    passed_at: [bool; 2],
}

/// Looks every five minutes, until one rolls back.
fn watch(run: u64, hour: &[Block], quantile: &str) -> Ending {
    let guard =
        LatencyRatio { quantile: Quantile::from_word(quantile).unwrap(), limit: Limit::new(LIMIT).unwrap() };
    let looks = Looks::new(u32::try_from(MINUTES / LOOK_EVERY).unwrap(), 1).unwrap();
    let mut blocks =
        Blocks { design: Design::NodeSplit, length: Duration::from_secs(60), pairs: vec![], left_out: 0 };
    let mut ending = Ending::default();
    for (look, fresh) in (1..).zip(hour.chunks(LOOK_EVERY)) {
        blocks.pairs.extend_from_slice(fresh);
        let minutes = blocks.pairs.len();
        match guard.judge(&blocks, looks, seed(&run.to_string(), "bake", look, quantile)).verdict {
            Verdict::Fail => return Ending { rolled_back_after: Some(minutes), ..ending },
            Verdict::Pass if minutes == MINUTES / 2 => ending.passed_at[0] = true,
            Verdict::Pass if minutes == MINUTES => ending.passed_at[1] = true,
            Verdict::Pass | Verdict::Inconclusive => {}
        }
    }
    ending
}

/// Of many hours, in percent.
struct Row {
    rolled_back: f64,
    passed_at: [f64; 2],
    median_minutes: Option<usize>,
}

/// So many hours of one true ratio.
fn simulate(quantile: &str, true_ratio: f64, runs: u64) -> Row {
    let threads = 4_u64;
    let some = |first: u64| {
        let runs = (first..runs).step_by(4);
        runs.map(|run| watch(run, &hour(run, true_ratio), quantile)).collect::<Vec<_>>()
    };
    let endings: Vec<Ending> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|first| scope.spawn(move || some(first))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    #[expect(clippy::cast_precision_loss, reason = "at most a thousand runs")]
    let percent = |is: &dyn Fn(&Ending) -> bool| {
        endings.iter().filter(|ending| is(ending)).count() as f64 * 100.0 / runs as f64
    };
    let mut caught_after: Vec<usize> = endings.iter().filter_map(|ending| ending.rolled_back_after).collect();
    caught_after.sort_unstable();
    let row = Row {
        rolled_back: percent(&|ending| ending.rolled_back_after.is_some()),
        passed_at: [percent(&|ending| ending.passed_at[0]), percent(&|ending| ending.passed_at[1])],
        median_minutes: caught_after.get(caught_after.len() / 2).copied(),
    };
    println!(
        "| {quantile} | {true_ratio:.2} | {runs} | {:.1} % | {:.1} / {:.1} % | {} |",
        row.rolled_back,
        row.passed_at[0],
        row.passed_at[1],
        row.median_minutes.map_or("-".to_owned(), |minutes| format!("{minutes} min")),
    );
    row
}

#[test]
fn at_the_limit_at_most_two_percent_of_hours_are_rolled_back() {
    for (quantile, runs) in [("p99", 1_000), ("p50", 200)] {
        let row = simulate(quantile, LIMIT, runs);
        assert!(row.rolled_back <= 2.0, "{quantile}: {} %", row.rolled_back);
    }
}

#[test]
fn no_candidate_within_the_limit_is_rolled_back_and_most_are_shown_to_be() {
    for (true_ratio, passed_percent_min) in [(1.0, 99.0), (1.1, 95.0)] {
        let row = simulate("p99", true_ratio, 200);
        assert!(row.rolled_back <= 0.0, "{true_ratio}: {} %", row.rolled_back);
        assert!(row.passed_at[1] >= passed_percent_min, "{true_ratio}: {} %", row.passed_at[1]);
    }
}

#[test]
fn a_candidate_above_the_limit_is_rolled_back_and_never_passes() {
    for (true_ratio, caught_percent_min, median_minutes_max) in
        [(1.3, 90.0, 60), (1.5, 100.0, 10), (2.0, 100.0, 10)]
    {
        let row = simulate("p99", true_ratio, 200);
        assert!(row.rolled_back >= caught_percent_min, "{true_ratio}: {} %", row.rolled_back);
        assert!(row.median_minutes <= Some(median_minutes_max), "{true_ratio}: {:?}", row.median_minutes);
        assert!(row.passed_at.iter().all(|passed| *passed <= 0.0), "{true_ratio}: {:?} %", row.passed_at);
    }
}
