//! What guards say, against computations that are slow and plain.

use std::time::Duration;

use execution::Principal;
use hdrhistogram::Histogram;
use proptest::prelude::*;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;
use rollout::{
    Block, Blocks, CrashFuse, Design, Divergences, Latencies, LatencyRatio, Limit, Looks, Quantile, Rate,
    RateRatio, Verdict, VerdictReason, seed,
};
use statrs::distribution::{ContinuousCDF, StudentsT};

fn histogram(values: &[u64]) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    for &value in values {
        histogram.record(value).unwrap();
    }
    histogram
}

fn blocks(design: Design, pairs: &[[Histogram<u64>; 2]]) -> Blocks {
    let pairs = pairs
        .iter()
        .map(|[control, candidate]| Block {
            control: Latencies::of(control).unwrap(),
            candidate: Latencies::of(candidate).unwrap(),
        })
        .collect();
    Blocks { design, length: Duration::from_secs(60), pairs, left_out: 0 }
}

/// So many blocks of so many messages each, all of 1 ms and of `candidate` times that, with some noise by
/// block.
fn even(number: u64, messages: u64, candidate: f64) -> Vec<[Histogram<u64>; 2]> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "around a million"
    )]
    let side = |block: u64, ratio: f64| {
        let mut one = histogram(&[]);
        one.record_n((1e6 * ratio * (1.0 + block as f64 * 1e-3)) as u64, messages).unwrap();
        one
    };
    (0..number).map(|block| [side(block % 5, 1.0), side(block * 3 % 7, candidate)]).collect()
}

fn guard(quantile: &str, limit: f64) -> LatencyRatio {
    LatencyRatio { quantile: Quantile::from_word(quantile).unwrap(), limit: Limit::new(limit).unwrap() }
}

fn one_look() -> Looks {
    Looks::new(1, 1).unwrap()
}

/// The same by histograms that are merged anew for each resample.
fn plainly(pairs: &[[Histogram<u64>; 2]], quantile: f64, alpha: f64, seed: u64) -> [f64; 3] {
    let merged = |indices: &[usize], side: usize| {
        let mut all = histogram(&[]);
        indices.iter().for_each(|&index| all.add(&pairs[index][side]).unwrap());
        all.value_at_quantile(quantile)
    };
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let log_ratio = |indices: &[usize]| (merged(indices, 1) as f64).ln() - (merged(indices, 0) as f64).ln();
    let all: Vec<usize> = (0..pairs.len()).collect();
    let mut generator = Pcg32::new(seed, 0);
    let resamples: Vec<f64> = (0..1_000)
        .map(|_| {
            let drawn: Vec<usize> = all
                .iter()
                .map(|_| ((u64::from(generator.next_u32()) * pairs.len() as u64) >> 32) as usize)
                .collect();
            log_ratio(&drawn)
        })
        .collect();
    let mean = resamples.iter().sum::<f64>() / 1_000.0;
    let variance = resamples.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / 999.0;
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let blocks = pairs.len() as f64;
    let error = (variance * blocks / (blocks - 1.0)).sqrt();
    let t = StudentsT::new(0.0, 1.0, blocks - 1.0).unwrap();
    let ratio = log_ratio(&all);
    [
        ratio.exp(),
        (ratio - t.inverse_cdf(1.0 - alpha) * error).exp(),
        (ratio + t.inverse_cdf(0.95) * error).exp(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn a_ratio_and_its_bounds_are_those_of_merged_histograms(
        values in prop::collection::vec(prop::collection::vec((1_u64..50_000, 1_u64..50_000), 20..40), 10..13),
        ppm in prop::sample::select(vec![500_000_u32, 333_333]),
        seed in any::<u64>(),
    ) {
        let pairs: Vec<[Histogram<u64>; 2]> = values
            .iter()
            .map(|block| {
                let control: Vec<u64> = block.iter().map(|(control, _)| *control).collect();
                let candidate: Vec<u64> = block.iter().map(|(_, candidate)| *candidate).collect();
                [histogram(&control), histogram(&candidate)]
            })
            .collect();
        let quantile = Quantile::from_ppm(ppm).unwrap();
        let guard = LatencyRatio { quantile, limit: Limit::new(1.0).unwrap() };
        let looks = Looks::new(4, 2).unwrap();
        let judged = guard.judge(&blocks(Design::NodeSplit, &pairs), looks, seed);
        let estimate = judged.estimate.unwrap();
        let expected = plainly(&pairs, quantile.as_f64(), 0.01 / 8.0, seed);
        for (found, expected) in [estimate.ratio, estimate.lower, estimate.upper].into_iter().zip(expected) {
            prop_assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        }
    }
}

#[test]
fn no_data_is_inconclusive_whatever_the_limit() {
    let nothing = histogram(&[]);
    for pairs in [vec![], vec![[nothing.clone(), nothing]]] {
        for design in Design::ALL {
            let judged = guard("p99", 1.5).judge(&blocks(design, &pairs), one_look(), 1);
            assert_eq!((judged.verdict, judged.reason), (Verdict::Inconclusive, VerdictReason::NoData));
            assert_eq!(judged.estimate, None);
        }
    }
    let none = Rate::new(0, 0).unwrap();
    let some = Rate::new(5_000, 10_000).unwrap();
    let traps = RateRatio { limit: Limit::new(1.1).unwrap(), allowance: 3 };
    for (control, candidate) in [(none, none), (some, none), (none, some)] {
        let judged = traps.judge(control, candidate, one_look());
        assert_eq!((judged.verdict, judged.reason), (Verdict::Inconclusive, VerdictReason::NoData));
    }
    let divergences = Divergences { compared: 0, confirmed: 0, compared_min: 0 };
    assert_eq!(divergences.judge().verdict, Verdict::Inconclusive);
    let mut crashes = CrashFuse::new(3, Duration::from_secs(600)).unwrap();
    assert_eq!(crashes.seen(Duration::ZERO).judge().verdict, Verdict::Inconclusive);
    assert_eq!(Verdict::of_all([]), Verdict::Inconclusive);
}

#[test]
fn too_few_blocks_or_messages_say_what_is_missing_and_how_long_it_takes() {
    let nine = guard("p50", 1.1).judge(&blocks(Design::NodeSplit, &even(9, 100, 9.0)), one_look(), 1);
    assert_eq!(nine.verdict, Verdict::Inconclusive);
    assert_eq!(nine.reason.to_string(), "needs 1 more blocks, 0 + 0 more messages, about 60 s more");

    let thin = guard("p99", 1.1).judge(&blocks(Design::NodeSplit, &even(10, 600, 9.0)), one_look(), 1);
    assert_eq!(thin.verdict, Verdict::Inconclusive);
    assert_eq!(thin.reason.to_string(), "needs 0 more blocks, 4000 + 4000 more messages, about 7 min more");

    let enough = guard("p99", 1.1).judge(&blocks(Design::NodeSplit, &even(10, 1_000, 9.0)), one_look(), 1);
    assert_eq!(enough.verdict, Verdict::Fail);
}

#[test]
fn a_quantile_needs_a_hundred_messages_beyond_it_exactly() {
    for (quantile, messages) in [("p50", 20), ("p90", 100), ("p99", 1_000), ("p99.9", 10_000)] {
        let judged = |messages| {
            guard(quantile, 2.0)
                .judge(&blocks(Design::NodeSplit, &even(10, messages, 1.0)), one_look(), 1)
                .verdict
        };
        assert_eq!(judged(messages), Verdict::Pass, "{quantile}");
        assert_eq!(judged(messages - 1), Verdict::Inconclusive, "{quantile}");
    }
}

#[test]
fn a_verdict_follows_from_the_bounds_that_are_shown() {
    let judged =
        |ratio| guard("p50", 1.2).judge(&blocks(Design::NodeSplit, &even(20, 100, ratio)), one_look(), 1);
    let (within, at, above) = (judged(1.1), judged(1.2), judged(1.3));
    assert_eq!(within.verdict, Verdict::Pass);
    assert!(within.estimate.unwrap().upper < 1.2);
    assert_eq!(at.verdict, Verdict::Inconclusive);
    assert!(at.estimate.unwrap().lower <= 1.2 && at.estimate.unwrap().upper >= 1.2);
    assert_eq!(above.verdict, Verdict::Fail);
    assert!(above.estimate.unwrap().lower > 1.2);
}

#[test]
fn more_looks_and_guards_ask_for_more() {
    let pairs = blocks(Design::NodeSplit, &even(20, 100, 1.21));
    let lower = |looks, guards| {
        let looks = Looks::new(looks, guards).unwrap();
        guard("p50", 1.2).judge(&pairs, looks, 1).estimate.unwrap().lower
    };
    assert!(lower(1, 1) > lower(12, 1));
    assert!(lower(12, 1) > lower(12, 4));
    assert!((lower(12, 4) - lower(4, 12)).abs() < 1e-12);
}

#[test]
fn arms_with_different_canisters_are_never_compared() {
    for ratio in [1.0, 9.0] {
        let judged = guard("p50", 1.2).judge(&blocks(Design::Percent, &even(20, 100, ratio)), one_look(), 1);
        assert_eq!((judged.verdict, judged.reason), (Verdict::Inconclusive, VerdictReason::Confounded));
    }
}

#[test]
fn equal_arms_are_comparable_and_a_difference_between_them_fails() {
    let equal = guard("p50", 1.2).judge(&blocks(Design::Aa, &even(20, 100, 1.0)), one_look(), 1);
    assert_eq!(equal.verdict, Verdict::Pass);
    assert!(matches!(equal.reason, VerdictReason::Comparable { detectable } if detectable < 0.05));
    // Within the limit, and still no ratio of one.
    for ratio in [0.9, 1.1] {
        let differs = guard("p50", 1.2).judge(&blocks(Design::Aa, &even(20, 100, ratio)), one_look(), 1);
        assert_eq!((differs.verdict, differs.reason), (Verdict::Fail, VerdictReason::NotComparable));
    }
}

/// A hundred messages of so many milliseconds.
fn of_milliseconds(milliseconds: u64) -> Histogram<u64> {
    let mut all = histogram(&[]);
    all.record_n(milliseconds * 1_000_000, 100).unwrap();
    all
}

#[test]
fn equal_arms_whose_noise_hides_the_limit_are_neither_comparable_nor_different() {
    // Every other block is half as slow again, in one arm and then in the other.
    let noisy: Vec<_> =
        [[2, 3], [3, 2]].into_iter().cycle().take(12).map(|arms| arms.map(of_milliseconds)).collect();
    let judge = |limit| guard("p50", limit).judge(&blocks(Design::Aa, &noisy), one_look(), 1);
    let hidden = judge(1.02);
    assert_eq!(hidden.verdict, Verdict::Inconclusive);
    assert!(matches!(hidden.reason, VerdictReason::TooWide { eta: Some(_), .. }), "{}", hidden.reason);
    assert_eq!(judge(3.0).verdict, Verdict::Pass);
}

#[test]
fn every_part_of_a_seed_counts_and_where_one_ends() {
    let seeds = [
        seed("run", "step", 1, "guard"),
        seed("ru", "nstep", 1, "guard"),
        seed("run", "step1", 1, "guard"),
        seed("run", "step", 11, "guard"),
        seed("run", "step", 1, "1guard"),
    ];
    for (at, one) in seeds.iter().enumerate() {
        assert!(!seeds[at + 1..].contains(one));
    }
    // Pinned: a record of today has to give the same lots in years.
    assert_eq!(seeds[0], 5_390_985_348_627_373_339);
}

/// P(Bin(n, share) >= k) as a sum.
#[expect(clippy::cast_precision_loss, reason = "small")]
fn tail(n: u64, k: u64, share: f64) -> f64 {
    let (mut ways, mut sum) = (0.0_f64, 0.0);
    for events in 0..=n {
        if events >= k {
            sum += (ways + events as f64 * share.ln() + (n - events) as f64 * (1.0 - share).ln()).exp();
        }
        ways += ((n - events) as f64).ln() - ((events + 1) as f64).ln();
    }
    sum
}

proptest! {
    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small")]
    fn a_rate_fails_exactly_when_so_many_events_are_unlikely_at_the_limit(
        control in 0_u64..300,
        candidate in 4_u64..300,
        control_messages in 300_u64..100_000,
        candidate_messages in 300_u64..100_000,
        limit in 1.0..3.0_f64,
    ) {
        let guard = RateRatio { limit: Limit::new(limit).unwrap(), allowance: 3 };
        let judged = guard.judge(
            Rate::new(control, control_messages).unwrap(),
            Rate::new(candidate, candidate_messages).unwrap(),
            one_look(),
        );
        let (n_s, n_c) = (candidate_messages as f64, control_messages as f64);
        let chance = tail(control + candidate, candidate, limit * n_s / (limit * n_s + n_c));
        prop_assume!((chance - 0.01).abs() > 1e-9);
        prop_assert_eq!(judged.verdict == Verdict::Fail, chance < 0.01, "{}", chance);
        // Fewer events than these have a chance of 5 % at the upper bound.
        let upper = judged.estimate.unwrap().upper;
        let share = upper * n_s / (upper * n_s + n_c);
        let at_most = 1.0 - tail(control + candidate, candidate + 1, share);
        prop_assert!(control == 0 || (at_most - 0.05).abs() < 1e-6, "{}", at_most);
    }
}

#[test]
fn many_events_are_judged_as_exactly_as_few() {
    let guard = RateRatio { limit: Limit::new(1.0).unwrap(), allowance: 0 };
    // At equal exposure the candidate's share at the limit is one half.
    for (control, candidate) in [(4_800, 5_000), (4_700, 5_000), (4_900, 4_990)] {
        let judged = guard.judge(
            Rate::new(control, 1_000_000).unwrap(),
            Rate::new(candidate, 1_000_000).unwrap(),
            one_look(),
        );
        let chance = tail(control + candidate, candidate, 0.5);
        assert_eq!(judged.verdict == Verdict::Fail, chance < 0.01, "{control} {candidate}: {chance}");
        let upper = judged.estimate.unwrap().upper;
        let at_most = 1.0 - tail(control + candidate, candidate + 1, upper / (1.0 + upper));
        assert!((at_most - 0.05).abs() < 1e-6, "{at_most}");
    }
}

#[test]
fn a_control_without_a_trap_lets_no_candidate_through_that_has_them() {
    let guard = RateRatio { limit: Limit::new(1.1).unwrap(), allowance: 3 };
    let judged = |events| {
        guard.judge(Rate::new(0, 100_000).unwrap(), Rate::new(events, 100_000).unwrap(), one_look()).verdict
    };
    assert_eq!(judged(0), Verdict::Pass);
    assert_eq!(judged(3), Verdict::Pass, "the allowance");
    assert_eq!(judged(4), Verdict::Inconclusive, "four coins on one side have a chance of 7 %");
    assert_eq!(judged(30), Verdict::Fail);
}

#[test]
fn a_crash_loop_of_one_canister_blows_no_fuse_and_four_canisters_do() {
    let canister = |number: u8| Principal::from_slice(&[number, 1]);
    let second = Duration::from_secs;
    let mut fuse = CrashFuse::new(3, second(600)).unwrap();
    fuse.executed(1_000);
    for at in 0..100 {
        fuse.crashed(canister(1), second(at));
    }
    assert_eq!(fuse.seen(second(100)).judge().verdict, Verdict::Pass);
    for number in 2..=4 {
        fuse.crashed(canister(number), second(100 + u64::from(number)));
    }
    let blown = fuse.seen(second(104)).judge();
    assert_eq!((blown.verdict, blown.reason), (Verdict::Fail, VerdictReason::Events { found: 4, max: 3 }));
    // The first canister's last crash was at 99 s.
    assert_eq!(fuse.seen(second(698)).judge().verdict, Verdict::Fail);
    assert_eq!(fuse.seen(second(699)).judge().verdict, Verdict::Pass);
}

#[test]
fn looks_beyond_the_plan_have_no_more_chance_of_a_false_fail_together_than_one_of_it() {
    let looks = Looks::new(12, 3).unwrap();
    let planned = looks.alpha();
    assert!((planned * 36.0 - 0.01).abs() < 1e-12, "{planned}");
    assert!((1..=12).all(|look| looks.at(look).alpha() == planned));
    assert_eq!(looks.at(13).alpha(), planned / 2.0);
    // A look each five minutes for a month.
    let beyond: f64 = (13..8_700).map(|look| looks.at(look).alpha()).sum();
    assert!(beyond < planned * 1.01, "{beyond}");
    assert!(looks.at(u32::MAX).alpha() > 0.0);
}

#[test]
fn a_fuse_keeps_no_more_canisters_than_it_takes_to_blow_it() {
    let mut fuse = CrashFuse::new(3, Duration::from_secs(600)).unwrap();
    for number in 0..200 {
        fuse.crashed(Principal::from_slice(&[number, 1]), Duration::from_secs(number.into()));
    }
    assert_eq!(
        fuse.seen(Duration::from_secs(200)).judge().reason,
        VerdictReason::Events { found: 4, max: 3 }
    );
    assert!(CrashFuse::new(100_001, Duration::from_secs(1)).is_err());
    assert!(CrashFuse::new(3, Duration::ZERO).is_err());
}

#[test]
fn one_divergence_fails_and_none_in_n_is_a_rate_below_three_in_n() {
    let judged = |compared, confirmed| Divergences { compared, confirmed, compared_min: 1_000 }.judge();
    assert_eq!(judged(1, 1).verdict, Verdict::Fail);
    assert_eq!(judged(999, 0).reason.to_string(), "needs 0 more blocks, 1 + 1 more messages");
    assert_eq!(judged(300_000, 0).reason.to_string(), "none found; a rate below 1.0e-5 at 95 %");
    assert_eq!(judged(300_000, 0).verdict, Verdict::Pass);
}

#[test]
fn one_guard_that_fails_decides_and_one_that_is_open_keeps_it_open() {
    use Verdict::{Fail, Inconclusive, Pass};
    assert_eq!(Verdict::of_all([Pass, Inconclusive, Fail]), Fail);
    assert_eq!(Verdict::of_all([Pass, Inconclusive, Pass]), Inconclusive);
    assert_eq!(Verdict::of_all([Pass, Pass]), Pass);
}

#[test]
fn quantiles_are_read_to_the_last_digit_or_not_at_all() {
    for (word, ppm) in
        [("p50", 500_000), ("p99.9", 999_000), ("p99.9999", 999_999), ("p0.5", 5_000), ("p5", 50_000)]
    {
        assert_eq!(Quantile::from_word(word).map(Quantile::ppm), Some(ppm), "{word}");
        assert_eq!(Quantile::from_ppm(ppm).unwrap().to_string(), word);
    }
    for word in ["50", "p", "p0", "p100", "p99.99999", "p-5", "p5.", "p.5", "p5e1", "pNaN", "p 50", "p٣٣"] {
        assert_eq!(Quantile::from_word(word), None, "{word}");
    }
}
