//! The paired block bootstrap: how far a ratio of quantiles could lie elsewhere, had other minutes been
//! measured.
//!
//! Blocks are drawn, not messages, because the messages of a minute share its load.

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;
use sha2::{Digest, Sha256};

use super::Quantile;
use crate::experiment::{Block, Blocks};
use crate::measure::Latencies;

/// How often the blocks are drawn anew.
pub const RESAMPLES: usize = 1_000;

/// The seed of a look at a guard: the first eight bytes of SHA-256 over the run's id, step, look and guard,
/// each text behind its length (64 bits, big-endian), so that no two looks share one by the way they are
/// written.
#[must_use]
pub fn seed(run: &str, step: &str, look: u32, guard: &str) -> u64 {
    let mut hash = Sha256::new();
    for text in [run, step, &look.to_string(), guard] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(digest[..8].try_into().expect("eight of 32 bytes"))
}

/// The generator of all lots: PCG XSH RR 64/32, whose numbers are fixed by its definition.
pub(crate) fn generator(seed: u64) -> Pcg32 {
    Pcg32::new(seed, 0)
}

/// A number from 0 to `bound` - 1, by the upper half of a product: for at most 2^11 blocks no number is
/// likelier than another by more than 2^-21 of its chance.
pub(crate) fn below(generator: &mut Pcg32, bound: u32) -> u32 {
    let drawn = (u64::from(generator.next_u32()) * u64::from(bound)) >> 32;
    u32::try_from(drawn).expect("below a u32")
}

/// Logarithm of the ratio of both sides' quantiles, and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LogRatio {
    pub(super) estimate: f64,
    pub(super) standard_error: f64,
}

/// Candidate over control at `quantile`, of all blocks together: at least two, with a measurement of each
/// side.
pub(super) fn log_ratio(blocks: &Blocks, quantile: Quantile, seed: u64) -> LogRatio {
    let number = blocks.pairs.len();
    let draws = draws(number, seed);
    let once = vec![1; number];
    let side = |latencies: fn(&Block) -> &Latencies| {
        let side = Cumulative::new(blocks.pairs.iter().map(latencies).collect(), quantile);
        let logarithm = |times: &[u32]| {
            #[expect(clippy::cast_precision_loss, reason = "latencies of at most 60 s are exact in an f64")]
            let nanoseconds = side.quantile(times).max(1) as f64;
            nanoseconds.ln()
        };
        (logarithm(&once), draws.chunks_exact(number).map(logarithm).collect::<Vec<f64>>())
    };
    let (control, controls) = side(|block| &block.control);
    let (candidate, candidates) = side(|block| &block.candidate);
    let resampled = candidates.iter().zip(&controls).map(|(candidate, control)| candidate - control);
    #[expect(clippy::cast_precision_loss, reason = "at most 1,440 blocks and 1,000 resamples")]
    let (number, resamples) = (number as f64, RESAMPLES as f64);
    let mean = resampled.clone().sum::<f64>() / resamples;
    let variance = resampled.map(|one| (one - mean).powi(2)).sum::<f64>() / (resamples - 1.0);
    // The bootstrap's variance is that of m blocks about their own mean: m - 1 of them are free.
    let standard_error = (variance * number / (number - 1.0)).sqrt();
    LogRatio { estimate: candidate - control, standard_error }
}

/// For each resample, how often each block was drawn.
fn draws(number: usize, seed: u64) -> Vec<u32> {
    let mut generator = generator(seed);
    let bound = u32::try_from(number).expect("at most 1,440 blocks");
    let mut times = vec![0; RESAMPLES * number];
    for resample in times.chunks_exact_mut(number) {
        for _ in 0..number {
            resample[below(&mut generator, bound) as usize] += 1;
        }
    }
    times
}

/// The blocks of one side, counted up to each latency that the quantile may be.
///
/// A resample's quantile is found by bisection with a sum over blocks at each step, and no histogram is built
/// for it.
struct Cumulative {
    quantile: f64,
    totals: Vec<u32>,
    rows: Vec<UpTo>,
}

/// How many measurements of each block are at most this.
struct UpTo {
    nanoseconds: u64,
    counts: Vec<u32>,
}

impl Cumulative {
    fn new(blocks: Vec<&Latencies>, quantile: Quantile) -> Self {
        let count = |number: u64| u32::try_from(number).expect("at most MEASUREMENTS_MAX");
        let quantile = quantile.as_f64();
        // The quantile of any mixture lies between the blocks' own. One rank more on both sides is for
        // rounding.
        let own = |block: &Latencies, more: i64| {
            let rank = rank(quantile, block.measurements()).saturating_add_signed(more);
            at_rank(block, rank.clamp(1, block.measurements()))
        };
        let measured = || blocks.iter().filter(|block| block.measurements() > 0);
        let low = measured().map(|block| own(block, -1)).min().unwrap_or_default();
        let high = measured().map(|block| own(block, 1)).max().unwrap_or_default();
        let mut values: Vec<u64> = blocks
            .iter()
            .flat_map(|block| block.counts())
            .map(|&(nanoseconds, _)| nanoseconds)
            .filter(|nanoseconds| (low..=high).contains(nanoseconds))
            .collect();
        values.sort_unstable();
        values.dedup();
        let mut up_to: Vec<(u64, &[(u64, u64)])> = blocks.iter().map(|block| (0, block.counts())).collect();
        let rows = values
            .into_iter()
            .map(|nanoseconds| {
                let counts = up_to.iter_mut().map(|(counted, rest)| {
                    while let Some((first, others)) =
                        rest.split_first().filter(|(next, _)| next.0 <= nanoseconds)
                    {
                        *counted += first.1;
                        *rest = others;
                    }
                    count(*counted)
                });
                UpTo { nanoseconds, counts: counts.collect() }
            })
            .collect();
        let totals = blocks.iter().map(|block| count(block.measurements())).collect();
        Self { quantile, totals, rows }
    }

    /// The quantile of all blocks, each taken so many times; nanoseconds.
    fn quantile(&self, times: &[u32]) -> u64 {
        let rank = rank(self.quantile, weighted(&self.totals, times));
        let at = self.rows.partition_point(|row| weighted(&row.counts, times) < rank);
        self.rows[at.min(self.rows.len() - 1)].nanoseconds
    }
}

fn weighted(counts: &[u32], times: &[u32]) -> u64 {
    counts.iter().zip(times).map(|(&count, &times)| u64::from(count) * u64::from(times)).sum()
}

/// Which measurement, counted from one, is the quantile of so many: as HdrHistogram defines it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "HdrHistogram's own arithmetic, from zero to the number of measurements"
)]
fn rank(quantile: f64, measurements: u64) -> u64 {
    ((quantile * measurements as f64).ceil() as u64).max(1)
}

fn at_rank(latencies: &Latencies, rank: u64) -> u64 {
    let mut counted = 0;
    let found = latencies.counts().iter().find(|(_, count)| {
        counted += count;
        counted >= rank
    });
    found.map_or(0, |&(nanoseconds, _)| nanoseconds)
}
