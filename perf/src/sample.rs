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

    /// Whether nine tenths of the samples lie within a factor of two.
    pub(crate) fn steady(&self) -> bool {
        self.quantile(0.9) < 2.0 * self.quantile(0.1)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(durations: T) -> Self {
        Self(durations.into_iter().collect())
    }
}

/// Something to be timed; called `operations` times in a row per sample.
pub(crate) type Variant<'a> = &'a mut dyn FnMut() -> Result<(), String>;

/// Something that times a part of itself and says how long that took, in nanoseconds.
pub(crate) type Timed<'a> = &'a mut dyn FnMut() -> Result<f64, String>;

/// How long `action` takes, in nanoseconds.
pub(crate) fn time(action: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
    let start = Instant::now();
    action()?;
    Ok(start.elapsed().as_nanos() as f64)
}

/// Takes `rounds` samples of each variant, in turn, each sample being `operations` calls.
/// The first tenth of the rounds warms up and is not counted.
pub(crate) fn interleaved(
    rounds: usize,
    operations: u32,
    variants: &mut [Variant<'_>],
) -> Result<Vec<Samples>, String> {
    let mut timed: Vec<_> = variants
        .iter_mut()
        .map(|variant| {
            move || {
                let nanoseconds = time(|| (0..operations).try_for_each(|_| variant()))?;
                Ok(nanoseconds / f64::from(operations))
            }
        })
        .collect();
    let mut timed: Vec<Timed<'_>> = timed.iter_mut().map(|variant| variant as Timed<'_>).collect();
    interleaved_timed(rounds, &mut timed)
}

/// As [`interleaved`], for variants that prepare each sample themselves.
pub(crate) fn interleaved_timed(rounds: usize, variants: &mut [Timed<'_>]) -> Result<Vec<Samples>, String> {
    let mut samples: Vec<Vec<f64>> = variants.iter().map(|_| Vec::with_capacity(rounds)).collect();
    let warm_up = rounds / 10;
    for round in 0..rounds + warm_up {
        for (variant, durations) in variants.iter_mut().zip(&mut samples) {
            let nanoseconds = variant()?;
            if round >= warm_up {
                durations.push(nanoseconds);
            }
        }
    }
    Ok(samples.into_iter().map(Samples).collect())
}
