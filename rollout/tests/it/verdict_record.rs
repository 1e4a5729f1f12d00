//! Verdict records: what they keep, and what is made of one that lies.

use std::time::Duration;

use hdrhistogram::Histogram;
use rollout::{
    Arm, Block, Blocks, Crashed, Design, Divergences, Guard, Latencies, LatencyRatio, Limit, Look, Looks,
    Quantile, Rate, RateRatio, RecordError, Series, Source, Test, Verdict, VerdictRecord,
};
use serde_json::{Value, json};

fn latencies(nanoseconds: u64) -> Latencies {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    for more in 0..50 {
        histogram.record(nanoseconds + more * 1_000).unwrap();
    }
    Latencies::of(&histogram).unwrap()
}

fn look() -> Look {
    let pairs = (0..12)
        .map(|minute| Block {
            control: latencies(1_000_000 + minute % 5 * 3_000),
            candidate: latencies(1_100_000 + minute % 7 * 2_000),
        })
        .collect();
    let limit = |ratio| Limit::new(ratio).unwrap();
    let p50 = LatencyRatio { quantile: Quantile::from_word("p50").unwrap(), limit: limit(1.3) };
    let p99 = LatencyRatio { quantile: Quantile::from_word("p99").unwrap(), limit: limit(1.5) };
    Look {
        run: "run-1".to_owned(),
        step: "one-node".to_owned(),
        look: 3,
        looks: Looks::new(12, 5).unwrap(),
        sources: vec![Source { name: "a.hlog".to_owned(), sha256: "ab".repeat(32), bytes: 1234 }],
        series: vec![Series {
            kind: "update",
            arms: [Arm::InProcess, Arm::Sandboxed],
            blocks: Blocks { design: Design::NodeSplit, length: Duration::from_secs(60), pairs, left_out: 2 },
        }],
        guards: vec![
            Guard { name: "update p50".to_owned(), test: Test::Latency { series: 0, ratio: p50 } },
            Guard { name: "update p99".to_owned(), test: Test::Latency { series: 0, ratio: p99 } },
            Guard {
                name: "traps".to_owned(),
                test: Test::Rate {
                    ratio: RateRatio { limit: limit(1.1), allowance: 3 },
                    control: Rate::new(0, 1_000).unwrap(),
                    candidate: Rate::new(50, 1_000).unwrap(),
                },
            },
            Guard {
                name: "divergence".to_owned(),
                test: Test::Divergence(Divergences { compared: 10, confirmed: 0, compared_min: 5 }),
            },
            Guard {
                name: "crash".to_owned(),
                test: Test::Crash(Crashed { canisters: 2, max: 1, executed: 1_000 }),
            },
        ],
    }
}

fn record() -> Value {
    serde_json::from_str(&VerdictRecord::of(look()).to_json()).unwrap()
}

fn read(record: &Value) -> Result<VerdictRecord, RecordError> {
    VerdictRecord::from_json(record.to_string().as_bytes())
}

#[test]
fn a_record_holds_all_that_its_verdicts_follow_from() {
    let written = VerdictRecord::of(look());
    let back = VerdictRecord::from_json(written.to_json().as_bytes()).unwrap();
    assert_eq!(back.look(), &look());
    let (judgements, differences) = back.recompute();
    assert_eq!(differences, []);
    assert_eq!(judgements, look().judge());
    let verdicts: Vec<Verdict> = judgements.iter().map(|judgement| judgement.verdict).collect();
    assert_eq!(verdicts, [Verdict::Pass, Verdict::Inconclusive, Verdict::Fail, Verdict::Pass, Verdict::Fail]);
    // No trap of the control: the ratio and its upper bound have no number.
    let said = &record()["guards"][2]["said"];
    assert!(
        said["ratio"].is_null() && said["upper"].is_null() && said["lower"].as_f64() > Some(1.1),
        "{said}"
    );
}

#[test]
fn a_record_that_was_touched_is_found_out() {
    for (place, value, guard, field) in [
        ("/guards/0/said/verdict", json!("FAIL"), "update p50", "verdict"),
        ("/guards/0/said/ratio", json!(1.05), "update p50", "ratio"),
        ("/guards/0/said/upper", json!(1.05), "update p50", "upper bound"),
        ("/guards/2/said/upper", json!(1.05), "traps", "upper bound"),
        ("/guards/1/said/samples", json!([1, 2]), "update p99", "samples"),
        ("/guards/1/said/blocks", json!(11), "update p99", "blocks"),
        ("/guards/3/said/reason", json!("trust me"), "divergence", "reason"),
        ("/guards/0/test/latency-ratio/limit", json!(1.05), "update p50", "verdict"),
        ("/guards/2/test/rate-ratio/candidate", json!([3, 1_000]), "traps", "verdict"),
        ("/guards/3/test/divergence/confirmed", json!(1), "divergence", "verdict"),
        ("/guards/4/test/crash/canisters", json!(1), "crash", "verdict"),
        ("/guards/4/test/crash/executed", json!(7), "crash", "samples"),
        ("/run", json!("run-2"), "update p50", "lower bound"),
        ("/look", json!(4), "update p50", "lower bound"),
        ("/looks", json!(3), "update p50", "lower bound"),
        // Beyond the plan, where less may fail.
        ("/look", json!(14), "update p50", "lower bound"),
    ] {
        let mut record = record();
        *record.pointer_mut(place).unwrap() = value;
        let (_, differences) = read(&record).unwrap().recompute();
        let first = differences.first().unwrap_or_else(|| panic!("{place}"));
        assert_eq!((first.guard.as_str(), first.field), (guard, field), "{place}");
    }
    let mut swapped = record();
    let block = swapped.pointer_mut("/series/0/blocks/0").unwrap();
    block.as_array_mut().unwrap().swap(0, 1);
    assert!(!read(&swapped).unwrap().recompute().1.is_empty());
}

#[test]
fn values_out_of_bounds_are_refused_with_their_place() {
    let empty = Latencies::default().encode();
    for (place, value, what) in [
        ("/series/0/kind", json!("updat"), "series 0: an unknown kind"),
        ("/series/0/design", json!("coin"), "series 0: an unknown kind, arm or design"),
        ("/series/0/block_ms", json!(1), "series 0: blocks of 1ms"),
        ("/series/0/blocks/3/0", json!("AAAA"), "series 0: a damaged histogram"),
        ("/series/0/blocks/3/1", json!(empty), "series 0: a block without measurements"),
        ("/series/0/blocks", json!(vec![["A", "A"]; 1_441]), "series 0: blocks of 60s, or more than 1440"),
        ("/sources/0/sha256", json!("zz"), "sources: a digest"),
        ("/sources/0/name", json!("\u{1b}[2J"), "sources: a name"),
        ("/guards/0/name", json!("a\nb"), "guard 0: a name"),
        ("/guards/0/said/verdict", json!("MAYBE"), "guard 0: a verdict that is not"),
        ("/guards/0/said/reason", json!("\u{7}"), "guard 0: a name"),
        ("/guards/0/test/latency-ratio/limit", json!(0.5), "guard 0: a limit of 0.5"),
        ("/guards/0/test/latency-ratio/quantile_ppm", json!(1_000_000), "guard 0: a quantile"),
        ("/guards/2/test/rate-ratio/control", json!([5, 4]), "guard 2: 5 events of 4 messages"),
        (
            "/guards/2/test/rate-ratio/control",
            json!([1_u64 << 40, 1_u64 << 50]),
            "guard 2: 1099511627776 events",
        ),
        ("/guards/3/test/divergence/confirmed", json!(11), "guard 3: 11 differences in 10 comparisons"),
        ("/looks", json!(0), "looks: look 3 of 0"),
        ("/look", json!(0), "looks: look 0 of 12"),
        ("/guards", json!([]), "looks: look 3 of 12, 64 guards at most"),
    ] {
        let mut record = record();
        *record.pointer_mut(place).unwrap() = value;
        let refused = read(&record).unwrap_err();
        assert!(refused.to_string().contains(what), "{place}: {refused}");
    }
}

#[test]
fn a_guard_of_a_series_that_is_not_there_has_no_data() {
    let mut record = record();
    *record.pointer_mut("/guards/0/test/latency-ratio/series").unwrap() = json!(9);
    assert_eq!(read(&record).unwrap().recompute().0[0].verdict, Verdict::Inconclusive);
}

#[test]
fn another_version_method_or_format_is_not_judged_by_ours() {
    let refused = |place: &str, value: Value| {
        let mut record = record();
        *record.pointer_mut(place).unwrap() = value;
        read(&record).unwrap_err()
    };
    assert_eq!(refused("/version", json!(2)), RecordError::Version { found: 2, expected: 1 });
    assert_eq!(refused("/method/alpha", json!(0.5)), RecordError::Method("alpha: 0.5".to_owned()));
    assert!(matches!(refused("/method/latency", json!("t test")), RecordError::Method(_)));
    assert!(matches!(refused("/format", json!("x")), RecordError::Foreign(_)));
    for bytes in [&b""[..], b"{}", b"[1]", b"\xff\xfe", &b"[".repeat(100_000)] {
        assert!(matches!(VerdictRecord::from_json(bytes), Err(RecordError::Foreign(_))));
    }
    let mut unknown = record();
    unknown["note"] = json!("x");
    assert!(matches!(read(&unknown), Err(RecordError::Foreign(_))));
}
