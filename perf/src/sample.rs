//! Interleaved sampling: noise that comes and goes hits all variants alike.

use std::time::Instant;

/// Durations of one variant, in nanoseconds per operation.
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// The median.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The `q`-quantile, nearest rank.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        sorted[(q * last as f64).round() as usize]
    }
}

/// Something to be timed; called `operations` times in a row per sample.
pub(crate) type Variant<'a> = &'a mut dyn FnMut() -> Result<(), String>;

/// Takes `rounds` samples of each variant, in turn, each sample being `operations` calls.
/// The first tenth of the rounds warms up and is not counted.
pub(crate) fn interleaved(
    rounds: usize,
    operations: u32,
    variants: &mut [Variant<'_>],
) -> Result<Vec<Samples>, String> {
    let mut samples: Vec<Vec<f64>> = variants.iter().map(|_| Vec::with_capacity(rounds)).collect();
    let warm_up = rounds / 10;
    for round in 0..rounds + warm_up {
        for (variant, durations) in variants.iter_mut().zip(&mut samples) {
            let start = Instant::now();
            for _ in 0..operations {
                variant()?;
            }
            let nanoseconds = start.elapsed().as_nanos() as f64 / f64::from(operations);
            if round >= warm_up {
                durations.push(nanoseconds);
            }
        }
    }
    Ok(samples.into_iter().map(Samples).collect())
}
