//! HdrHistogram's percentile text: `.hgrm`.

use std::fmt::{self, Write};

use hdrhistogram::Histogram;

/// Rows for each halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// Writes a histogram's percentiles as HdrHistogram's tools do, `divisor` to the unit of its values (1e6: nanoseconds in,
/// milliseconds out).
///
/// # Errors
/// `out` failed.
pub fn write_hgrm(out: &mut impl Write, histogram: &Histogram<u64>, divisor: f64) -> fmt::Result {
    #[expect(clippy::cast_precision_loss, reason = "latencies of at most 60 s are exact in an f64")]
    let scaled = |value: u64| value as f64 / divisor;
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let (value, quantile) =
            (scaled(step.value_iterated_to().min(histogram.max())), step.quantile_iterated_to());
        write!(out, "{value:12.3} {quantile:14.12} {total:10}")?;
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        histogram.mean() / divisor,
        histogram.stdev() / divisor
    )?;
    writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", scaled(histogram.max()), histogram.len())?;
    // The first bucket has all of them, every other one half.
    let sub_buckets = 2 * histogram.distinct_values() / (usize::from(histogram.buckets()) + 1);
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", histogram.buckets(), sub_buckets)
}
